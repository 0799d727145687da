//! Damaged files: the platform says which file, and so does the doctor; what is whole beside it stays whole.

use serde_json::Value;
use test_kit::{Home, Process, Signal, fuzz};

use crate::{BELFRY, published, run, up};

const PAGE: usize = 4096;

/// What the doctor says of the files of this home that are not well.
fn unwell(home: &Home) -> Vec<String> {
    let folder = home.folder().to_string_lossy().into_owned();
    let said = run(&["doctor", "--data-dir", &folder, "--json"], &[]);
    let answer: Value = serde_json::from_str(&said.out).expect("JSON");
    let items = answer["items"].as_array().expect("a list");
    let bad = items.iter().filter(|item| item["state"] == "bad");
    bad.map(|item| item["found"].as_str().expect("words").to_owned()).collect()
}

/// The files of a platform that did some work and stopped well.
async fn files() -> Vec<(&'static str, Vec<u8>)> {
    let home = Home::embedded();
    let mut platform = up(&home, &[]).await;
    published(&platform, "Before", 200).await;
    platform.signal(Signal::Terminate);
    assert!(platform.ended(std::time::Duration::from_secs(30)).success());
    assert_eq!(unwell(&home), Vec::<String>::new());
    let read = |name| (name, std::fs::read(home.folder().join(name)).expect("it is there"));
    ["blog.sqlite", "log.sqlite"].map(read).to_vec()
}

fn home_of(files: &[(&str, Vec<u8>)]) -> Home {
    let home = Home::embedded();
    for (name, bytes) in files {
        std::fs::write(home.folder().join(name), bytes).expect("it can be written");
    }
    home
}

/// Starts the platform; what it said if it refused. Else it is up and answers: what is wrong lies where nobody looked.
async fn refused(home: &Home) -> Option<String> {
    match Process::try_platform(BELFRY, home, &[]) {
        Err(said) => Some(said),
        Ok(mut platform) => {
            platform.admin.get("/healthz").await.expect(200);
            assert!(!platform.gone(), "{}", platform.said());
            None
        }
    }
}

#[tokio::test]
async fn a_damaged_file_is_named_by_the_platform_and_by_the_doctor() {
    let whole = files().await;
    for (at, (name, bytes)) in whole.iter().enumerate() {
        let zeroed = [&[0; PAGE], &bytes[PAGE..]].concat();
        let cut = bytes[..bytes.len() / 2 / PAGE * PAGE + 100].to_vec();
        let scribbled = [&bytes[..PAGE], &b"scribble".repeat((bytes.len() - PAGE) / 8)].concat();
        for (damage, damaged) in
            [("no database", b"text".repeat(999)), ("zeroed", zeroed), ("cut", cut), ("scribbled", scribbled)]
        {
            let mut files = whole.clone();
            files[at].1 = damaged;
            let home = home_of(&files);
            let path = home.folder().join(name).display().to_string();
            let only_this = |when: &str| {
                let unwell = unwell(&home);
                assert!(unwell.len() == 1 && unwell[0].starts_with(&path), "{name} {damage}, {when}: {unwell:?}");
            };
            only_this("before the start");
            match refused(&home).await {
                Some(said) => assert!(said.contains(&path), "{name} {damage}: {said}"),
                // Its tables begin well; the damage lies where nobody looks at a start.
                None => assert_eq!((*name, damage), ("log.sqlite", "scribbled")),
            }
            only_this("after it");
        }
    }
}

#[test]
fn fuzz_whatever_happened_to_a_file_the_platform_refuses_by_name_or_is_up() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let whole = runtime.block_on(files());
    let words = &["SQLite format 3\0", "\0\0\0\0", "\u{d}", "CREATE TABLE", "garbage"];
    for (at, (name, bytes)) in whole.iter().enumerate() {
        fuzz::all(15, fuzz::bytes(&[bytes], words), |damaged| {
            let mut files = whole.clone();
            files[at].1 = damaged.to_vec();
            let home = home_of(&files);
            if let Some(said) = runtime.block_on(refused(&home)) {
                assert!(said.contains(name) && !said.contains("panicked"), "{said}");
            }
        });
    }
}
