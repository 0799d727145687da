//! Is the house in order? What `docs/architecture.md` promises about the source tree, checked.

#![allow(clippy::expect_used, reason = "a test that cannot go on panics; that is how it tells")]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use test_kit::project;
use walkdir::WalkDir;

/// A file is one thought.
const FILE_LINES_MAX: usize = 400;
/// The card of a service.
const CARD_LINES_MAX: usize = 40;
/// What may lie at the top.
const TOP: &[&str] = &[
    ".cache",
    ".ci",
    ".env",
    ".env.example",
    ".git",
    ".gitignore",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "Makefile",
    "README.md",
    "clippy.toml",
    "data",
    "deploy",
    "docs",
    "migrations",
    "rustfmt.toml",
    "services",
    "shared",
    "target",
];
/// Crates of ours that each crate of ours may know.
const ARROWS: &[(&str, &[&str])] = &[
    ("database", &[]),
    ("events", &[]),
    ("scheduler", &[]),
    ("broker", &["database", "events"]),
    ("outbox", &["broker", "database", "events"]),
    ("inbox", &["broker", "database", "events"]),
    ("migrations", &["inbox", "outbox", "scheduler"]),
    ("service-kit", &["broker", "database", "events", "inbox", "outbox", "scheduler"]),
    ("test-kit", &["broker", "database", "events", "inbox", "migrations", "outbox", "scheduler", "service-kit"]),
];
/// What a service may know; `belfry` may know every service too.
const SERVICE: &[&str] = &["broker", "database", "events", "inbox", "migrations", "outbox", "scheduler", "service-kit"];

fn files(extension: &str) -> Vec<(String, String)> {
    let root = project();
    let ours = |entry: &walkdir::DirEntry| {
        let name = entry.file_name().to_string_lossy();
        !(entry.depth() == 1 && matches!(name.as_ref(), "target" | ".git" | ".cache" | "data"))
    };
    let walk = WalkDir::new(&root).into_iter().filter_entry(ours).map(|entry| entry.expect("it can be read"));
    let wanted = walk.filter(|entry| entry.path().extension().is_some_and(|found| found == extension));
    let named = |path: &Path| path.strip_prefix(&root).expect("inside").to_string_lossy().into_owned();
    wanted.map(|entry| (named(entry.path()), std::fs::read_to_string(entry.path()).expect("it is text"))).collect()
}

fn names_in(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(project().join(folder)).expect("it can be read");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Everything that is wrong, at once.
fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn nothing_lies_at_the_top_that_does_not_belong_there() {
    none(&names_in("").into_iter().filter(|name| !TOP.contains(&name.as_str())).collect::<Vec<_>>());
}

#[test]
fn arrows_between_crates_point_down() {
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(project().join("Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .expect("the workspace can be read");
    let ours: BTreeSet<String> = metadata.packages.iter().map(|package| package.name.to_string()).collect();
    let (may, services): (HashMap<&str, &[&str]>, _) = (ARROWS.iter().copied().collect(), names_in("services"));
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        for dependency in package.dependencies.iter().filter(|dependency| ours.contains(&dependency.name)) {
            let to = dependency.name.as_str();
            let fine = match may.get(name) {
                // Tests may look at everything; the scheduler's stand alone like the crate.
                _ if dependency.kind == cargo_metadata::DependencyKind::Development => name != "scheduler",
                Some(may) => may.contains(&to),
                None => SERVICE.contains(&to) || (name == "belfry" && services.iter().any(|service| service == to)),
            };
            if !fine {
                wrong.push(format!("{name} may not know {to}"));
            }
        }
        if name != "broker" && package.dependencies.iter().any(|dependency| dependency.name == "rdkafka") {
            wrong.push(format!("{name} names rdkafka; only broker may"));
        }
    }
    none(&wrong);
}

#[test]
fn every_file_begins_with_what_it_is_and_is_one_thought() {
    let mut wrong = Vec::new();
    for (name, text) in files("rs") {
        if !text.starts_with("//! ") {
            wrong.push(format!("{name} does not begin with //!"));
        }
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{name} has {lines} lines"));
        }
    }
    none(&wrong);
}

#[test]
fn no_source_file_is_dead() {
    let all: BTreeMap<String, String> = files("rs").into_iter().collect();
    let declares = |text: &String, module: &str| {
        text.lines().any(|line| {
            let before = line.trim().strip_suffix(&format!("mod {module};"));
            before.is_some_and(|before| before.is_empty() || before.starts_with("pub"))
        })
    };
    let mut wrong = Vec::new();
    for name in all.keys() {
        let path = PathBuf::from(name);
        let module = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let folder = path.parent().expect("a folder");
        let root = matches!(module.as_str(), "main" | "lib")
            || ["tests", "benches", "src/bin"].iter().any(|roots| folder.ends_with(roots));
        let parents = [folder.join("lib.rs"), folder.join("main.rs"), folder.with_extension("rs")];
        let mut texts = parents.iter().filter_map(|parent| all.get(&*parent.to_string_lossy()));
        if !root && !texts.any(|text| declares(text, &module)) {
            wrong.push(format!("{name} is no module of anything"));
        }
    }
    none(&wrong);
}

#[test]
fn nothing_that_a_patch_leaves_behind_lies_about() {
    none(&["orig", "rej"].iter().flat_map(|left| files(left)).map(|(name, _)| name).collect::<Vec<_>>());
}

#[test]
fn no_name_says_nothing() {
    let empty = ["common", "utils", "util", "core", "helpers", "helper", "misc", "types"];
    let says_nothing = |name: &str| name.split('/').any(|part| empty.contains(&part.trim_end_matches(".rs")));
    none(&files("rs").into_iter().map(|(name, _)| name).filter(|name| says_nothing(name)).collect::<Vec<_>>());
}

#[test]
fn services_are_alike() {
    let parts = ["main.rs", "lib.rs", "app.rs", "config.rs", "error.rs", "entity.rs", "http.rs"];
    let mut wrong = Vec::new();
    for service in names_in("services") {
        let folder = project().join("services").join(&service);
        let card = std::fs::read_to_string(folder.join("README.md")).unwrap_or_default();
        if card.is_empty() || card.lines().count() > CARD_LINES_MAX {
            wrong.push(format!("{service}/README.md: a card of at most {CARD_LINES_MAX} lines"));
        }
        if !folder.join("tests/it/main.rs").exists() {
            wrong.push(format!("{service} has no tests/it"));
        }
        let missing = parts.iter().filter(|part| service != "belfry" && !folder.join("src").join(part).exists());
        wrong.extend(missing.map(|part| format!("{service} has no src/{part}")));
    }
    none(&wrong);
}

#[test]
fn each_line_says_only_what_its_place_may_say() {
    let mut wrong = Vec::new();
    for (name, text) in
        files("rs").into_iter().filter(|(name, _)| name.starts_with("services/") && name.contains("/src/"))
    {
        let door = ["/http/", "/jobs/", "/listeners/"].iter().any(|door| name.contains(door));
        let entity = name.contains("/entity");
        let wiring = ["/http.rs", "/app.rs", "/error.rs"].iter().any(|end| name.ends_with(end));
        let mut forbidden: Vec<&str> = Vec::new();
        if door || entity {
            forbidden.extend(["outbox::record", "sea_orm::Statement", "rdkafka"]);
        }
        if name.contains("/jobs/") {
            forbidden.extend(["axum", "sleep", "spawn", "StatusCode"]);
        }
        if !(door || entity || wiring || name.starts_with("services/belfry/")) {
            forbidden.extend(["axum::", ".begin()", ".commit()", "rdkafka"]);
        }
        wrong
            .extend(forbidden.into_iter().filter(|word| text.contains(word)).map(|word| format!("{name} says {word}")));
    }
    none(&wrong);
}

#[test]
fn every_dependency_has_a_word_on_what_it_is_for_and_every_version_stands_once() {
    let text = std::fs::read_to_string(project().join("Cargo.toml")).expect("the workspace");
    let silent = |text: &str, table: &str| -> Vec<String> {
        let table = text.split(table).nth(1).and_then(|rest| rest.split("\n[").next()).expect("a table");
        let silent = table.lines().filter(|line| line.contains(" = ") && !line.contains(" # "));
        silent.map(|line| format!("no word: {line}")).collect()
    };
    let mut wrong = silent(&text, "[workspace.dependencies]");
    for (name, text) in files("toml").into_iter().filter(|(name, _)| name.ends_with("/Cargo.toml")) {
        // What is built by itself has versions of its own.
        if text.contains("\n[workspace]") {
            wrong.extend(silent(&text, "[dependencies]"));
            continue;
        }
        let versions = text.lines().filter(|line| line.contains("version = \"") || line.contains("path = \"../"));
        wrong.extend(versions.map(|line| format!("{name}: {line}")));
    }
    none(&wrong);
}

#[test]
fn links_of_the_documents_lead_somewhere() {
    let mut wrong = Vec::new();
    for (name, text) in files("md") {
        let folder = project().join(&name).parent().expect("a folder").to_path_buf();
        for part in text.split("](").skip(1) {
            let target = part.split(')').next().unwrap_or_default().split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !folder.join(target).exists() {
                wrong.push(format!("{name}: {target}"));
            }
        }
    }
    none(&wrong);
}

#[test]
fn every_target_of_the_makefile_is_explained_and_every_script_it_names_is_there() {
    let text = std::fs::read_to_string(project().join("Makefile")).expect("a Makefile");
    let mut wrong = Vec::new();
    for line in text.lines() {
        let rule = !line.starts_with([' ', '\t', '.', '#']) && line.contains(':') && !line.contains('=');
        if rule && !line.contains("## ") {
            wrong.push(format!("{line} is not explained"));
        }
        let scripts = line.split_whitespace().map(|word| word.trim_start_matches('@'));
        let missing = scripts.filter(|word| word.starts_with("deploy/") && !project().join(word).exists());
        wrong.extend(missing.map(|word| format!("{word} is not there")));
    }
    none(&wrong);
}

#[test]
fn nothing_is_left_to_be_done_in_a_comment() {
    let words = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["XX", "X"].concat()];
    let mut wrong = Vec::new();
    for (name, text) in files("rs") {
        let left = text.lines().enumerate().filter(|(_, line)| words.iter().any(|word| line.contains(word.as_str())));
        wrong.extend(left.map(|(n, line)| format!("{name}:{}: {}", n + 1, line.trim())));
    }
    none(&wrong);
}

/// What is chosen at random cannot be simulated: the same seed would not be the same trace.
#[test]
fn the_scheduler_leaves_no_choice_to_chance() {
    let ours = files("rs").into_iter().filter(|(name, _)| name.starts_with("shared/scheduler/src/"));
    let unbiased = |(name, text): (String, String)| {
        let chance = text.split("select! {").skip(1).any(|after| !after.trim_start().starts_with("biased;"));
        chance.then(|| format!("{name} has a select! without `biased;`"))
    };
    none(&ours.filter_map(unbiased).collect::<Vec<_>>());
}

#[test]
fn decisions_are_numbered_without_a_gap() {
    let number = |name: &String| name.split('-').next().and_then(|number| number.parse().ok());
    let numbers: Vec<Option<usize>> = names_in("docs/decisions").iter().map(number).collect();
    assert_eq!(numbers, (1..=numbers.len()).map(Some).collect::<Vec<_>>());
}
