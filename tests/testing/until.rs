//! Waiting for what is to come, with an end: what never comes fails the test that waits for it, by name.

use std::time::{Duration, Instant};

/// How long something may take that is to come at all. How long it does take is no part of any test.
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
