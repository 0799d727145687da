//! A job's settings, from the environment: each variable, its default and its meaning.

use std::time::Duration;

use crate::schedule::Spec;

/// How this process runs a job. `spec` is what it proposes to the cluster; the rest is its own.
#[derive(Debug, Clone)]
pub struct JobSettings {
    /// Off: listed as disabled, never run here.
    pub enabled: bool,
    /// Schedule and policies.
    pub spec: Spec,
    /// Run when the process starts.
    pub run_on_start: bool,
    /// How long a run (Tick), a batch (Claim), an ask (Lease) or a step (Steps) may take; `None`: the default of the kind.
    pub timeout: Option<Duration>,
}
