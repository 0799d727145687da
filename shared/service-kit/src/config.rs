//! Configuration: the environment is the only source, read once, checked whole, before anything is touched.

mod process;
mod render;
mod secret;
mod section;

use std::collections::{BTreeMap, HashMap};

use scheduler::{
    config::{Invalid, JobSettings},
    schedule::Schedule,
};

pub use self::{
    process::{Auth, DatabaseUrl, LogFormat, PROCESS_VARIABLES, Process, Start},
    render::{documentation, effective, example},
    secret::Secret,
    section::Section,
};
use crate::service::{Service, Settings};

/// Everything a process needs to know, checked.
pub struct Config {
    /// What is the process's.
    pub process: Process,
    /// What is each service's own.
    pub settings: HashMap<&'static str, Settings>,
    /// What is each job's, by service and job.
    pub jobs: HashMap<(&'static str, &'static str), JobSettings>,
    /// Names that look like ours but are nobody's.
    pub warnings: Vec<String>,
}

/// All that is wrong with the environment.
#[derive(Debug)]
pub struct Refused(pub Vec<Invalid>);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "the configuration cannot be used ({} wrong); nothing was started:", self.0.len())?;
        for Invalid { variable, value, expected } in &self.0 {
            let value: String = value.chars().flat_map(char::escape_debug).take(200).collect();
            // What was expected may quote the value in the words of a library.
            let plain = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
            let expected: String = expected.chars().map(plain).take(400).collect();
            writeln!(f, "  {variable}: value \"{value}\", expected {expected}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}

/// The environment of this process. A variable that is not UTF-8 is refused if it is one of ours, else left alone.
pub fn environment() -> BTreeMap<String, String> {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    let vars = std::env::vars_os();
    vars.filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))).collect()
}

impl Config {
    /// Reads the environment of these services; all errors of all sections at once.
    pub fn read(mut vars: BTreeMap<String, String>, services: &[Service], start: &Start) -> Result<Self, Refused> {
        let mut wrong = Vec::new();
        let mut jobs = HashMap::new();
        for service in services {
            for job in service.jobs {
                let default = Schedule::Interval { every: job.every };
                match JobSettings::take(job.prefix, &mut vars, default, job.kind) {
                    Ok(settings) => drop(jobs.insert((service.name, job.name), settings)),
                    Err(errors) => wrong.extend(errors),
                }
            }
        }
        let mut settings = HashMap::new();
        for service in services {
            let names = service.variables.iter().map(|variable| variable.name);
            match (service.settings)(&Section::take(&mut vars, names)) {
                Ok(made) => drop(settings.insert(service.name, made)),
                Err(errors) => wrong.extend(errors),
            }
        }
        let process = match Process::read(&mut vars, start) {
            Ok(process) => Some(process),
            Err(errors) => {
                wrong.extend(errors);
                None
            }
        };
        let warnings = section::unknown(&vars, services, &mut wrong);
        match process {
            Some(process) if wrong.is_empty() => Ok(Self { process, settings, jobs, warnings }),
            _ => Err(Refused(wrong)),
        }
    }
}

#[cfg(test)]
mod tests;
