//! A damaged log: an error in words, or what can still be read; never a panic, never a hang.

use std::time::Duration;

use broker::{Broker, BrokerError, EmbeddedBroker, Message, Position, Start};
use proptest::prelude::*;
use sea_orm::ConnectionTrait;
use test_kit::fuzz;

use crate::conformance::{record, topic};

const RECORDS: usize = 400;

/// The bytes of a log with so many records and a group: as it lies there while it is used (its file and its journal), and the
/// file alone when all is in it.
async fn log() -> [Vec<u8>; 3] {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log.sqlite");
    let log = EmbeddedBroker::open(&file).await.unwrap();
    log.producer().ensure_topics(&[topic("t"), topic("u")]).await.unwrap();
    let records = (0..RECORDS).map(|n| record(["t", "u"][n % 2], "key", &format!("{n} {}", "x".repeat(n)))).collect();
    assert!(log.producer().send(records).await.iter().all(Result::is_ok));
    let mut member = log.consumer("g", &["t"]).await.unwrap();
    let taken = member.poll(10, Duration::ZERO).await.unwrap();
    let (last, topic) = (taken.last().unwrap(), "t".to_owned());
    member.commit(&[Position { topic, partition: 0, offset: last.offset }]).await.unwrap();
    let journal = folder.path().join("log.sqlite-wal");
    let (used, journal) = (std::fs::read(&file).unwrap(), std::fs::read(journal).unwrap());
    drop((member, log));
    database::sqlite(&file).execute_unprepared("PRAGMA wal_checkpoint(TRUNCATE)").await.unwrap();
    let whole = std::fs::read(&file).unwrap();
    assert!(journal.len() > 10 * 4096 && whole.len() > 20 * 4096, "{} and {} bytes", journal.len(), whole.len());
    [used, journal, whole]
}

/// Everything that a user of the log does, until something is refused.
async fn used(file: &std::path::Path) -> Result<Vec<Message>, BrokerError> {
    let log = EmbeddedBroker::open(file).await?;
    let mut messages = Vec::new();
    let mut reader = log.tail(&["t", "u"], Start::Earliest).await?;
    for _ in 0..10 {
        messages.extend(reader.poll(100, Duration::ZERO).await?);
    }
    let mut member = log.consumer("g", &["t"]).await?;
    if let Some(first) = member.poll(10, Duration::ZERO).await?.first() {
        member.commit(&[Position { topic: "t".to_owned(), partition: 0, offset: first.offset }]).await?;
    }
    member.lag().await?;
    log.producer().ensure_topics(&[topic("t")]).await?;
    // Refused or kept, it is said.
    assert_eq!(log.producer().send(vec![record("t", "key", "after")]).await.len(), 1);
    log.prune(chrono::DateTime::UNIX_EPOCH, 10).await?;
    Ok(messages)
}

#[test]
fn fuzz_a_damaged_log_is_an_error_in_words_or_still_read() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let [used_file, journal, whole] = runtime.block_on(log());
    let words = &["SQLite format 3\0", "\0\0\0\0", "\u{d}", "[[\"", "garbage"];
    let damaged = (fuzz::bytes(&[&whole], words), fuzz::bytes(&[&journal], words), prop::bool::ANY);
    let (all, all_journal) = (whole.clone(), journal.clone());
    fuzz::all(300, damaged, |(whole, journal, in_use)| {
        let undamaged = if in_use { journal == all_journal } else { whole == all };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log.sqlite");
        std::fs::write(&file, if in_use { &used_file } else { &whole[..] }).unwrap();
        if in_use {
            std::fs::write(folder.path().join("log.sqlite-wal"), &journal).unwrap();
        }
        let used =
            async { tokio::time::timeout(Duration::from_secs(30), used(&file)).await.expect("it comes to an end") };
        match runtime.block_on(used) {
            Ok(messages) if undamaged => assert_eq!(messages.len(), RECORDS),
            Ok(messages) => assert!(messages.len() <= 10 * 100),
            Err(BrokerError::Unavailable(why)) => assert!(!undamaged && !why.is_empty(), "{why}"),
            Err(error) => panic!("a damaged log is not there, and nothing else: {error}"),
        }
    });
}
