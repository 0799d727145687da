//! tokio-cron-scheduler runs jobs each second: `- fires COUNT`. Its schedules have whole seconds, so all are due at once.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use peers::{Done, asked, ready};
use tokio_cron_scheduler::{Job, JobScheduler};

/// Seconds before the runs count, and in which they do.
const FIRST: u64 = 3;
const WINDOW: u64 = 10;

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[tokio::main]
async fn main() -> Done {
    let (_, _, count) = asked()?;
    let late = Arc::new(Mutex::new(Vec::with_capacity(count * 11)));
    let scheduler = JobScheduler::new().await?;
    let from = Arc::new(Mutex::new(Duration::MAX));
    for _ in 0..count {
        let (late, from) = (Arc::clone(&late), Arc::clone(&from));
        let job = Job::new_async("* * * * * *", move |_, _| {
            let now = now();
            let from = *from.lock().expect("nobody panics");
            if now >= from && now < from + Duration::from_secs(WINDOW) {
                late.lock().expect("nobody panics").push(f64::from(now.subsec_micros()) / 1_000.0);
            }
            Box::pin(async {})
        })?;
        scheduler.add(job).await?;
    }
    ready()?;
    scheduler.start().await?;
    *from.lock().expect("nobody panics") = Duration::from_secs(now().as_secs() + FIRST);
    tokio::time::sleep(Duration::from_secs(FIRST)).await;
    println!("counting");
    tokio::time::sleep(Duration::from_secs(WINDOW + 1)).await;
    let mut late = late.lock().expect("nobody panics").clone();
    late.sort_by(f64::total_cmp);
    let at = |part: usize| {
        late.get((late.len() * part / 100).min(late.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
    };
    println!("{} {} {}", late.len(), at(50), at(99));
    ready()
}
