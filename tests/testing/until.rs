//! Waiting for what is to come, with an end: what never comes fails the test that waits for it, by name.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long something may take that is to come at all. How long it does take is no part of any test.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    until_ok(what, async || look().ok_or("nothing yet")).await
}

/// For a look that is itself a call; the last thing that stood against it is told if it never comes.
pub async fn until_ok<T, E: Debug>(what: &str, mut look: impl AsyncFnMut() -> Result<T, E>) -> T {
    let begun = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(against) => assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}: {against:#?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
