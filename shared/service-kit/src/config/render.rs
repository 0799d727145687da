//! The catalogue of variables as text: `.env.example`, the documentation, and what is in force.

use scheduler::config::KNOWN;

use super::{Config, PROCESS_VARIABLES};
use crate::service::{JobDef, Service};

fn default_of(job: &JobDef, suffix: &str, default: Option<&'static str>) -> String {
    match (suffix, default) {
        (_, Some(default)) => default.to_owned(),
        _ => humantime::format_duration(job.every).to_string().replace(' ', ""),
    }
}

/// `.env.example`: every variable with its default, commented out.
pub fn example(services: &[Service]) -> String {
    let mut text =
        String::from("# Every variable with its default. Copy to .env and change what you need.\n\n# The process\n");
    for variable in PROCESS_VARIABLES {
        let value = if variable.default.contains(' ') { "" } else { variable.default };
        line(&mut text, &format!("# {}\n#{}={value}", variable.meaning, variable.name));
    }
    for service in services {
        line(&mut text, &format!("\n# {}: {}", service.name, service.about));
        for variable in service.variables {
            line(&mut text, &format!("# {}\n#{}={}", variable.meaning, variable.name, variable.default));
        }
        for job in service.jobs {
            line(&mut text, &format!("\n# {}/{}: {}", service.name, job.name, job.description));
            for known in KNOWN {
                let default = default_of(job, known.suffix, known.default);
                let value = if default.contains(' ') { String::new() } else { default };
                line(&mut text, &format!("# {}\n#{}{}={value}", known.meaning, job.prefix, known.suffix));
            }
        }
    }
    text
}

/// `docs/configuration.md`.
pub fn documentation(services: &[Service]) -> String {
    let mut text = String::from(
        "# Configuration\n\nThe environment is the only source. All errors are told at once, with the variable, its value and what was\n\
         expected; the exit code is then 78 and nothing has been touched. This page is generated from the catalogue of variables.\n\n\
         ## The process\n\n| variable | default | meaning |\n|---|---|---|\n",
    );
    for variable in PROCESS_VARIABLES {
        line(&mut text, &format!("| `{}` | {} | {} |", variable.name, shown(variable.default), variable.meaning));
    }
    for service in services {
        line(&mut text, &format!("\n## {}\n\n{}.\n", service.name, service.about));
        if !service.variables.is_empty() {
            text.push_str("| variable | default | meaning |\n|---|---|---|\n");
            for variable in service.variables {
                line(
                    &mut text,
                    &format!("| `{}` | {} | {} |", variable.name, shown(variable.default), variable.meaning),
                );
            }
        }
        for job in service.jobs {
            line(&mut text, &format!("\n### {}/{}\n\n{}.\n", service.name, job.name, job.description));
            text.push_str("| variable | default | meaning |\n|---|---|---|\n");
            for known in KNOWN {
                let default = default_of(job, known.suffix, known.default);
                line(
                    &mut text,
                    &format!("| `{}{}` | {} | {} |", job.prefix, known.suffix, shown(&default), known.meaning),
                );
            }
        }
    }
    text
}

fn shown(default: &str) -> String {
    match default {
        "" => "none".to_owned(),
        words if words.contains(' ') => words.to_owned(),
        word => format!("`{word}`"),
    }
}

/// What is in force, secrets hidden.
pub fn effective(config: &Config, services: &[Service]) -> String {
    let process = &config.process;
    let mut text = String::new();
    let database = match &process.database {
        super::DatabaseUrl::Postgres(url) => redacted(url.reveal()),
        super::DatabaseUrl::SqliteFile(file) => format!("sqlite://{}", file.display()),
        super::DatabaseUrl::SqliteFolder(folder) => format!("sqlite://{}/{{service}}.sqlite", folder.display()),
    };
    let kafka = process.kafka.as_ref().map_or("(embedded log)", |kafka| kafka.brokers.as_str());
    let set = |set: bool| if set { "(set)" } else { "(not set)" };
    let lines = [
        ("DATABASE_URL", database),
        ("KAFKA_BROKERS", kafka.to_owned()),
        ("HTTP_ADDR", process.http_addr.to_string()),
        ("ADMIN_ADDR", process.admin_addr.to_string()),
        ("ADMIN_TOKEN", set(process.admin_token.is_some()).to_owned()),
        ("AUTH_ENABLED", process.auth_enabled.to_string()),
        ("KEYCLOAK issuer", process.auth.as_ref().map_or("(not set)", |auth| auth.issuer.as_str()).to_owned()),
        ("SHUTDOWN_GRACE", humantime::format_duration(process.grace).to_string()),
        ("LOG_FORMAT", format!("{:?}", process.log_format).to_lowercase()),
        ("RUST_LOG", process.log_filter.clone()),
        ("RATE_LIMIT_RPS", process.rate_limit_rps.to_string()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", process.otlp_endpoint.clone().unwrap_or_else(|| "(not set)".to_owned())),
    ];
    for (name, value) in lines {
        line(&mut text, &format!("{name} = {value}"));
    }
    for service in services {
        for job in service.jobs {
            if let Some(settings) = config.jobs.get(&(service.name, job.name)) {
                line(
                    &mut text,
                    &format!(
                        "{}/{} = {}, {}, run on start {}",
                        service.name,
                        job.name,
                        if settings.enabled { "enabled" } else { "disabled" },
                        settings.spec.schedule,
                        settings.run_on_start
                    ),
                );
            }
        }
    }
    text
}

/// A database URL without its password.
fn redacted(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        _ => url.to_owned(),
    }
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}
