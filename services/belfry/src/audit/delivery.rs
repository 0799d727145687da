//! Events as they were recorded: have they left, was any change told twice, was anything given up.

use super::{Check, Window, rows::Reader};

async fn count(reader: &Reader, check: &mut Check, text: &str, values: Vec<sea_orm::Value>) -> anyhow::Result<()> {
    for row in reader.all(text, values).await? {
        let (examined, found): (i64, i64) = (row.try_get("", "examined")?, row.try_get("", "found")?);
        let first: Option<String> = row.try_get("", "first")?;
        check.examined += examined.unsigned_abs();
        check.found(found.unsigned_abs(), || first.unwrap_or_default());
    }
    Ok(())
}

pub(super) async fn checks(reader: &Reader, window: Window) -> anyhow::Result<Vec<Check>> {
    let of_window = || vec![window.from.into(), window.to.into()];
    let mut waiting = Check::new("events not delivered");
    let text = "SELECT count(*) AS examined,
            count(CASE WHEN w.position IS NOT NULL AND recorded_at < $3 THEN 1 END) AS found,
            min(CASE WHEN w.position IS NOT NULL AND recorded_at < $3 THEN topic || ' of ' || o.key || ' waits' END) AS first
        FROM outbox o LEFT JOIN outbox_waiting w ON w.position = o.position WHERE recorded_at >= $1 AND recorded_at <= $2";
    let mut values = of_window();
    values.push(window.settled().into());
    count(reader, &mut waiting, text, values).await?;

    let mut twice = Check::new("effects told twice");
    let text = "SELECT coalesce(sum(times), 0) AS examined, coalesce(sum(times - 1), 0) AS found,
            min(CASE WHEN times > 1 THEN topic || ' of ' || key || ' version ' || sequence END) AS first
        FROM (SELECT topic, key, sequence, count(*) AS times FROM outbox
              WHERE recorded_at >= $1 AND recorded_at <= $2 GROUP BY topic, key, sequence) AS changes";
    let sums = if reader.sqlite() {
        text.to_owned()
    } else {
        // A sum of bigint is numeric there.
        text.replace("coalesce(sum(times), 0)", "coalesce(sum(times), 0)::bigint")
            .replace("coalesce(sum(times - 1), 0)", "coalesce(sum(times - 1), 0)::bigint")
    };
    count(reader, &mut twice, &sums, of_window()).await?;

    let mut applied = Check::new("effects applied twice");
    let text = "SELECT count(*) AS examined, count(*) - count(DISTINCT consumer || CAST(event_id AS text)) AS found,
            min(consumer) AS first FROM inbox WHERE taken_at >= $1 AND taken_at <= $2";
    let unique =
        if reader.sqlite() { text.replace("CAST(event_id AS text)", "hex(event_id)") } else { text.to_owned() };
    count(reader, &mut applied, &unique, of_window()).await?;

    let mut letters = Check::new("dead letters");
    let text = "SELECT count(*) AS examined, count(*) AS found, min(topic || ' of ' || key || ': ' || error) AS first
        FROM dead_letters WHERE given_up_at >= $1 AND given_up_at <= $2";
    count(reader, &mut letters, text, of_window()).await?;

    Ok(vec![waiting, twice, applied, letters])
}
