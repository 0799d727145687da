//! The tables changed once; what was in them before is what they say after.

use outbox::{Store, tables};
use sea_orm::ConnectionTrait;
use test_kit::Tables;

#[tokio::test]
async fn what_waited_before_what_waits_had_a_table_still_waits_and_nothing_else_does() {
    for before in Tables::both(tables::first).await {
        for (number, published) in [(1, "'2026-06-01T00:00:01+00:00'"), (2, "NULL"), (3, "NULL")] {
            let (id, bytes) = match before.db.get_database_backend() {
                sea_orm::DbBackend::Sqlite => (format!("unhex('{number:032}')"), "x'7b7d'"),
                _ => (format!("'{number:032}'"), "'{}'"),
            };
            let text = format!(
                "INSERT INTO outbox (id, topic, key, sequence, body, headers, recorded_at, published_at) VALUES
                 ({id}, 'blog.post.created', 'k{number}', 1, {bytes}, '[[\"event_type\",\"k{number}\"]]', '2026-06-01T00:00:00+00:00', {published})"
            );
            before.db.execute_unprepared(&text).await.unwrap();
        }
        let backend = before.db.get_database_backend();
        for statement in [tables::waiting_apart(backend), tables::headers_as_text(backend)].concat() {
            before.db.execute_unprepared(&statement).await.unwrap();
        }
        let store = Store::new(before.db.clone());
        let keys = |rows: Vec<outbox::OutboxRow>| rows.into_iter().map(|row| row.key).collect::<Vec<_>>();
        let waits = store.list(0, 10).await.unwrap();
        assert_eq!(waits[0].headers, [("event_type".to_owned(), "k2".to_owned())], "{}", before.name());
        assert_eq!(keys(waits), ["k2", "k3"], "{}", before.name());
        assert_eq!(keys(store.history(0, None, None, None, 10).await.unwrap()), ["k1", "k2", "k3"]);
    }
}
