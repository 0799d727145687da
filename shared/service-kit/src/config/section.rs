//! One service's own variables as a flat struct, and names that are nobody's.

use std::collections::BTreeMap;

use scheduler::config::Invalid;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use super::PROCESS_VARIABLES;
use crate::service::Service;

/// The variables of one service.
#[derive(Debug, Default)]
pub struct Section {
    vars: BTreeMap<String, String>,
}

/// Gives envy's errors the path to the field, which they lack.
struct Pathed<T>(Result<T, (String, String)>);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Pathed<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Self(
            serde_path_to_error::deserialize(from)
                .map_err(|error| (error.path().to_string(), error.inner().to_string())),
        ))
    }
}

impl Section {
    /// Takes the named variables out of the environment.
    pub(super) fn take(vars: &mut BTreeMap<String, String>, names: impl Iterator<Item = &'static str>) -> Self {
        Self { vars: names.filter_map(|name| vars.remove_entry(name)).collect() }
    }

    /// The variables that begin with `prefix`, as a struct whose fields are what follows it, in lower case.
    pub fn read<T: DeserializeOwned>(&self, prefix: &str) -> Result<T, Vec<Invalid>> {
        let ours =
            self.vars.iter().filter_map(|(name, value)| Some((name.strip_prefix(prefix)?.to_owned(), value.clone())));
        let invalid = |field: &str, expected: String| {
            let variable = format!("{prefix}{}", field.to_uppercase());
            let value = self.vars.get(&variable).cloned().unwrap_or_default();
            vec![Invalid { variable, value, expected }]
        };
        match envy::from_iter::<_, Pathed<T>>(ours) {
            Ok(Pathed(Ok(read))) => Ok(read),
            Ok(Pathed(Err((field, text)))) => Err(invalid(&field, text)),
            Err(error) => Err(invalid("", error.to_string())),
        }
    }
}

/// What Kubernetes puts into every container for each Service object (`BLOG_SERVICE_HOST`, `SSE_PORT_80_TCP`, …).
fn service_link(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name.split_once("_PORT_").is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// What remains and looks like ours: under a job's prefix it is refused (a typo would silently change when things run),
/// under a service's it is warned about.
pub(super) fn unknown(vars: &BTreeMap<String, String>, services: &[Service], wrong: &mut Vec<Invalid>) -> Vec<String> {
    let mut warnings = Vec::new();
    for (name, value) in vars {
        let ours = PROCESS_VARIABLES.iter().any(|variable| variable.name == name);
        if ours || service_link(name) {
            continue;
        }
        let under = |prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('_'));
        let jobs = services.iter().flat_map(|service| service.jobs);
        if let Some(job) = jobs.filter(|job| under(job.prefix)).max_by_key(|job| job.prefix.len()) {
            let known: Vec<String> =
                scheduler::config::KNOWN.iter().map(|known| format!("{}{}", job.prefix, known.suffix)).collect();
            let expected = format!("no such variable; job {} has {}", job.name, known.join(", "));
            wrong.push(Invalid { variable: name.clone(), value: value.clone(), expected });
        } else if services.iter().any(|service| under(&service.name.to_uppercase())) {
            warnings.push(format!("{name} is not a variable of any service here; it is ignored"));
        }
    }
    warnings
}
