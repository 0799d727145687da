//! What the peers' programs have in common: see shared/test-kit/peers/README.md.

use std::{
    error::Error,
    time::{Duration, Instant},
};

pub type Done<T = ()> = Result<T, Box<dyn Error>>;

/// `URL MODE COUNT`.
pub fn asked() -> Done<(String, String, usize)> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |name: &str| arguments.next().ok_or(format!("{name} is missing"));
    Ok((next("URL")?, next("MODE")?, next("COUNT")?.parse()?))
}

/// Says so, and waits to be told to go.
pub fn ready() -> Done {
    println!("ready");
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// Seconds from `began` to the start of the first question that `left` answers with no.
pub async fn until_none<F: Future<Output = Done<bool>>>(began: Instant, left: impl Fn() -> F) -> Done<f64> {
    loop {
        let asked = began.elapsed();
        if !left().await? {
            return Ok(asked.as_secs_f64());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
