//! Every service in one process.

use std::process::ExitCode;

use service_kit::{
    EXIT_CONFIG, Options, Service,
    cli::{complain, migrate as migrate_services, show},
    config::{Config, Start, environment},
    up as start_up,
};

use crate::cli::{Services, USAGE, Up};

/// Where the platform listens unless told.
const PORT: u16 = 8080;

/// Every service of the platform, in the order in which they were built.
pub(crate) fn all() -> Vec<Service> {
    vec![blog::service()]
}

/// The services that were asked for; all when none was named.
fn wanted(services: &Services) -> Result<Vec<Service>, ExitCode> {
    if services.services.is_empty() {
        return Ok(all());
    }
    let mut found = Vec::new();
    for name in &services.services {
        let Some(service) = all().into_iter().find(|service| service.name == name) else {
            let names: Vec<&str> = all().iter().map(|service| service.name).collect();
            complain(&format!("--services: there is no service {name:?}; there are {}", names.join(", ")));
            return Err(ExitCode::from(USAGE));
        };
        found.push(service);
    }
    Ok(found)
}

/// The services that were asked for, and their configuration; else what is wrong was told.
pub(crate) fn configured(services: &Services) -> Result<(Vec<Service>, Config), ExitCode> {
    let found = wanted(services)?;
    match Config::read(environment(), &found, &start(services)) {
        Ok(config) => Ok((found, config)),
        Err(refused) => {
            complain(&refused);
            Err(ExitCode::from(EXIT_CONFIG))
        }
    }
}

fn start(services: &Services) -> Start {
    Start { embedded: true, data_dir: services.data_dir.clone(), port: PORT }
}

pub(crate) fn up(up: &Up) -> ExitCode {
    match wanted(&up.services) {
        Ok(services) => start_up(services, Options { name: "belfry", start: start(&up.services) }),
        Err(code) => code,
    }
}

pub(crate) fn migrate(services: &Services) -> ExitCode {
    match wanted(services) {
        Ok(found) => migrate_services(&found, &start(services)),
        Err(code) => code,
    }
}

pub(crate) fn config(services: &Services) -> ExitCode {
    match wanted(services) {
        Ok(found) => show(&found, &start(services)),
        Err(code) => code,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use service_kit::config::{documentation, example};

    use super::all;

    #[test]
    fn the_configuration_page_of_the_catalogue_is_what_the_code_reads() {
        test_kit::page("docs/configuration.md", &documentation(&all()));
    }

    #[test]
    fn the_example_of_the_catalogue_is_what_the_code_reads() {
        test_kit::page(".env.example", &example(&all()));
    }

    #[test]
    fn no_variable_is_in_the_catalogue_twice() {
        let example = example(&all());
        let names: Vec<&str> =
            example.lines().filter_map(|line| Some(line.strip_prefix('#')?.split_once('=')?.0)).collect();
        let once: BTreeSet<&&str> = names.iter().filter(|name| !name.contains(' ')).collect();
        assert_eq!(once.len(), names.iter().filter(|name| !name.contains(' ')).count());
    }
}
