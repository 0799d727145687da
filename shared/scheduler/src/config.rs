//! A job's settings, from the environment: each variable, its default and its meaning.

use std::{collections::BTreeMap, time::Duration};

use serde::de::DeserializeOwned;

use crate::{
    body::Kind,
    schedule::{self, Coalesce, Dst, Overlap, Schedule, Spec},
};

/// The longest duration that is taken for a setting.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
/// A grace below this would miss every start, for each is some milliseconds late.
const GRACE_MIN: Duration = Duration::from_secs(1);

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

impl JobSettings {
    /// Enabled, with the default policies, run on start as the schedule's kind has it.
    pub fn of(schedule: Schedule) -> Self {
        let run_on_start = matches!(schedule, Schedule::Interval { .. });
        Self { enabled: true, spec: Spec::new(schedule), run_on_start, timeout: None }
    }
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The variable.
    pub variable: String,
    /// Its value.
    pub value: String,
    /// What was expected.
    pub expected: String,
}

/// A variable that every job understands: what follows the job's prefix, its default, its meaning.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// What follows the prefix, such as `_INTERVAL`.
    pub suffix: &'static str,
    /// Its default in words; `None`: the job's own.
    pub default: Option<&'static str>,
    /// Its meaning.
    pub meaning: &'static str,
}

/// Every variable that every job understands.
pub const KNOWN: &[Known] = &[
    Known { suffix: "_ENABLED", default: Some("true"), meaning: "off: listed as disabled, never run by this process" },
    Known { suffix: "_INTERVAL", default: None, meaning: "a fixed rate, such as 5m" },
    Known {
        suffix: "_CRON",
        default: Some(""),
        meaning: "instead of the interval: 5 or 6 fields, L W #, names, or a macro",
    },
    Known { suffix: "_TIMEZONE", default: Some("UTC"), meaning: "of the cron expression, such as Europe/Berlin" },
    Known { suffix: "_DST", default: Some("vixie"), meaning: "across clock changes: vixie or literal" },
    Known { suffix: "_RUN_ON_START", default: Some("true; false with _CRON"), meaning: "run when the process starts" },
    Known {
        suffix: "_MISFIRE_GRACE",
        default: Some("the interval; with _CRON the gap, at most 1h"),
        meaning: "how late a start may be and still count",
    },
    Known {
        suffix: "_COALESCE",
        default: Some("latest"),
        meaning: "which of several missed instants run: latest, earliest, all",
    },
    Known {
        suffix: "_OVERLAP",
        default: Some("skip"),
        meaning: "while a run is going: skip, buffer_one, buffer_all, cancel_other, terminate_other, allow_all",
    },
    Known {
        suffix: "_JITTER",
        default: Some("0s"),
        meaning: "later by up to this, the same for an instant on every replica",
    },
    Known {
        suffix: "_TIMEOUT",
        default: Some("0.9 of the gap, 30s to 1h"),
        meaning: "of a run, or of a batch, ask or step where a run has several",
    },
];

/// The variables of one job, taken out of a map one by one, with all that is wrong with them.
struct Taking<'a> {
    prefix: &'a str,
    vars: &'a mut BTreeMap<String, String>,
    wrong: Vec<Invalid>,
}

impl Taking<'_> {
    fn text(&mut self, suffix: &str) -> Option<String> {
        self.vars.remove(&format!("{}{suffix}", self.prefix))
    }

    fn refuse(&mut self, suffix: &str, value: &str, expected: impl Into<String>) {
        let variable = format!("{}{suffix}", self.prefix);
        self.wrong.push(Invalid { variable, value: value.to_owned(), expected: expected.into() });
    }

    fn flag(&mut self, suffix: &str) -> Option<bool> {
        let value = self.text(suffix)?;
        match value.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => {
                self.refuse(suffix, &value, "true or false");
                None
            }
        }
    }

    fn duration(&mut self, suffix: &str, least: Duration) -> Option<Duration> {
        let value = self.text(suffix)?;
        match humantime::parse_duration(&value) {
            Ok(duration) if (least..=LONGEST).contains(&duration) => Some(duration),
            Ok(_) => {
                let least = humantime::format_duration(least);
                self.refuse(suffix, &value, format!("a duration of at least {least} and at most 10 years"));
                None
            }
            Err(_) => {
                self.refuse(suffix, &value, "a duration with a unit, such as 30s, 5m or 1h30m");
                None
            }
        }
    }

    fn word<T: DeserializeOwned>(&mut self, suffix: &str, expected: &str) -> Option<T> {
        let value = self.text(suffix)?;
        let word = serde_json::from_value(serde_json::Value::String(value.clone()));
        if word.is_err() {
            self.refuse(suffix, &value, expected);
        }
        word.ok()
    }

    fn cron(&mut self, interval_set: bool) -> Option<Schedule> {
        let zone = self.text("_TIMEZONE");
        let dst: Option<Dst> = self.word("_DST", "vixie or literal");
        let Some(expression) = self.text("_CRON").filter(|text| !text.trim().is_empty()) else {
            if let Some(zone) = zone {
                self.refuse("_TIMEZONE", &zone, "nothing unless _CRON is set: an interval has no time zone");
            }
            return None;
        };
        if interval_set {
            self.refuse("_CRON", &expression, "nothing while _INTERVAL is set: one of the two");
        }
        let zone = zone.unwrap_or_else(|| "UTC".to_owned());
        if !schedule::known_zone(&zone) {
            self.refuse("_TIMEZONE", &zone, "a time zone such as Europe/Berlin");
            return None;
        }
        if let Err(why) = schedule::validate(&expression, &zone) {
            self.refuse("_CRON", &expression, format!("a cron expression that fires some day ({why})"));
            return None;
        }
        Some(Schedule::Cron { expression, zone, dst: dst.unwrap_or(Dst::Vixie) })
    }
}

impl JobSettings {
    /// Takes a job's variables (`{prefix}_ENABLED` and so on) out of `vars`; the others stay. All that is wrong at once.
    pub fn take(
        prefix: &str,
        vars: &mut BTreeMap<String, String>,
        default: Schedule,
        kind: Kind,
    ) -> Result<Self, Vec<Invalid>> {
        let mut taking = Taking { prefix, vars, wrong: Vec::new() };
        let enabled = taking.flag("_ENABLED").unwrap_or(true);
        let interval = taking.duration("_INTERVAL", Duration::from_millis(1));
        let cron = taking.cron(interval.is_some());
        let schedule = cron.or(interval.map(|every| Schedule::Interval { every })).unwrap_or(default);
        let defaults = Self::of(schedule);
        let run_on_start = taking.flag("_RUN_ON_START").unwrap_or(defaults.run_on_start);
        let misfire_grace = taking.duration("_MISFIRE_GRACE", GRACE_MIN);
        let jitter = taking.duration("_JITTER", Duration::ZERO).unwrap_or_default();
        let timeout = taking.duration("_TIMEOUT", Duration::from_millis(1));
        let coalesce: Option<Coalesce> = taking.word("_COALESCE", "latest, earliest or all");
        let overlap: Option<Overlap> =
            taking.word("_OVERLAP", "skip, buffer_one, buffer_all, cancel_other, terminate_other or allow_all");
        let overlap = overlap.unwrap_or(Overlap::Skip);
        if overlap != Overlap::Skip && matches!(kind, Kind::Claim | Kind::Lease | Kind::Local) {
            let word = serde_json::to_string(&overlap).unwrap_or_default();
            taking.refuse(
                "_OVERLAP",
                word.trim_matches('"'),
                "skip: passes of this job share its rows and do not overlap",
            );
        }
        if !taking.wrong.is_empty() {
            return Err(taking.wrong);
        }
        let coalesce = coalesce.unwrap_or(Coalesce::Latest);
        let spec = Spec { jitter, misfire_grace, coalesce, overlap, ..defaults.spec };
        Ok(Self { enabled, spec, run_on_start, timeout })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(vars: &[(&str, &str)], kind: Kind) -> (Result<JobSettings, Vec<Invalid>>, BTreeMap<String, String>) {
        let mut map: BTreeMap<String, String> =
            vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let default = Schedule::Interval { every: Duration::from_secs(300) };
        (JobSettings::take("JOB", &mut map, default, kind), map)
    }

    #[test]
    fn nothing_set_is_the_default() {
        let settings = take(&[], Kind::Claim).0.unwrap();
        assert!(settings.enabled && settings.run_on_start);
        assert_eq!(settings.spec, Spec::every(Duration::from_secs(300)));
    }

    #[test]
    fn each_variable_is_taken_and_others_stay() {
        let (settings, rest) = take(
            &[
                ("JOB_ENABLED", "false"),
                ("JOB_CRON", "0 3 * * MON"),
                ("JOB_TIMEZONE", "Europe/Berlin"),
                ("JOB_DST", "literal"),
                ("JOB_MISFIRE_GRACE", "2m"),
                ("JOB_COALESCE", "all"),
                ("JOB_OVERLAP", "buffer_all"),
                ("JOB_JITTER", "0s"),
                ("JOB_TIMEOUT", "1h30m"),
                ("JOB_MAX_RETRIES", "3"),
            ],
            Kind::Tick,
        );
        let settings = settings.unwrap();
        assert!(!settings.enabled);
        assert!(!settings.run_on_start, "a cron job does not run on start by default");
        assert_eq!(settings.spec.schedule.to_string(), "cron 0 3 * * MON Europe/Berlin (literal)");
        assert_eq!(settings.spec.misfire_grace, Some(Duration::from_secs(120)));
        assert_eq!((settings.spec.coalesce, settings.spec.overlap), (Coalesce::All, Overlap::BufferAll));
        assert_eq!(settings.timeout, Some(Duration::from_secs(5400)));
        assert_eq!(rest.keys().collect::<Vec<_>>(), ["JOB_MAX_RETRIES"]);
    }

    #[test]
    fn each_bad_value_is_told_with_its_variable_and_what_was_expected() {
        let table = [
            ("JOB_ENABLED", "yes", "true or false"),
            ("JOB_INTERVAL", "5", "a duration with a unit"),
            ("JOB_INTERVAL", "0s", "at least 1ms"),
            ("JOB_INTERVAL", "", "a duration with a unit"),
            ("JOB_MISFIRE_GRACE", "500ms", "at least 1s"),
            ("JOB_CRON", "0 0 30 2 *", "fires some day"),
            ("JOB_CRON", "not cron", "a cron expression"),
            ("JOB_COALESCE", "newest", "latest, earliest or all"),
            ("JOB_TIMEZONE", "Europe/Berlin", "an interval has no time zone"),
            ("JOB_OVERLAP", "allow_all", "skip"),
        ];
        for (variable, value, expected) in table {
            let wrong = take(&[(variable, value)], Kind::Claim).0.unwrap_err();
            assert_eq!(wrong[0].variable, variable);
            assert_eq!(wrong[0].value, value);
            assert!(wrong[0].expected.contains(expected), "{variable}={value}: {}", wrong[0].expected);
        }
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let vars =
            [("JOB_ENABLED", "1"), ("JOB_INTERVAL", "soon"), ("JOB_CRON", "@daily"), ("JOB_TIMEZONE", "Atlantis")];
        let wrong = take(&vars, Kind::Tick).0.unwrap_err();
        let variables: Vec<&str> = wrong.iter().map(|invalid| invalid.variable.as_str()).collect();
        assert_eq!(variables, ["JOB_ENABLED", "JOB_INTERVAL", "JOB_TIMEZONE"]);
        let both = take(&[("JOB_INTERVAL", "5m"), ("JOB_CRON", "@daily")], Kind::Tick).0.unwrap_err();
        assert!(both[0].expected.contains("one of the two"));
    }
}
