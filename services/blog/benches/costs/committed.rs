//! The committed costs, and what is more than they allow.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

/// Costs by name.
pub(crate) type Costs = BTreeMap<String, f64>;

/// A cost may be this much more than the committed one.
const ALLOWED: f64 = 1.10;

fn file() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/costs.json"))
}

/// Tells each cost beside the committed one; fails when one is more than a tenth dearer, new or gone.
pub(crate) fn compare(costs: &Costs) -> ExitCode {
    if std::env::var("BLESS").is_ok() {
        let rounded: Costs = costs.iter().map(|(name, cost)| (name.clone(), cost.round())).collect();
        let text = serde_json::to_string_pretty(&rounded).expect("numbers are JSON");
        std::fs::write(file(), text + "\n").expect("costs.json can be written");
    }
    let text = std::fs::read_to_string(file()).expect("benches/costs.json is there; BLESS=1 writes it");
    let committed: Costs = serde_json::from_str(&text).expect("costs.json is names and numbers");
    let mut wrong = Vec::new();
    println!("{:<44} {:>10} {:>10} {:>7}", "cost", "committed", "now", "ratio");
    for (name, now) in costs {
        let Some(before) = committed.get(name) else {
            wrong.push(format!("{name}: costs {now:.0} and is not in costs.json"));
            continue;
        };
        let ratio = now / before;
        println!("{name:<44} {before:>10.0} {now:>10.0} {ratio:>7.2}");
        if ratio > ALLOWED {
            wrong.push(format!("{name}: costs {now:.0}, more than a tenth above {before:.0}"));
        }
    }
    wrong
        .extend(committed.keys().filter(|name| !costs.contains_key(*name)).map(|name| format!("{name}: not measured")));
    if wrong.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("\n{}\nIf that is meant, `BLESS=1 make bench-check` writes costs.json anew.", wrong.join("\n"));
    ExitCode::FAILURE
}
