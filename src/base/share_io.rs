//! [`ShareIo`]: all that the box itself does with the files of its shares, and how much of it at a time.
//!
//! A share whose server is gone holds every thread that touches it, for as long as the server is away, and whoever waits
//! for the thread may long have given up. So each share has places of its own: one that hangs takes those, and neither
//! the threads that the store's reads live on nor the places of another share.
//!
//! Invariant: nothing in an async function touches a share but through this.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::blocking::run_holding;
use super::{Fault, Shares};

/// What each share may have under way: what is short, and what takes its time.
const SHORT_MAX: usize = 16;
const LONG_MAX: usize = 8;
/// So many shares have all of their places; more of them have fewer each, as the process has 512 such threads in all.
const SHARES_FULL: usize = 10;
/// On a share that answers a place is free sooner.
const PLACE_WITHIN: Duration = Duration::from_secs(30);

/// The shares, and the threads that may wait for them. Made once for a box; clones share the bounds.
#[derive(Clone, Debug)]
pub struct ShareIo {
    shares: Arc<Shares>,
    places: Arc<BTreeMap<String, Places>>,
    place_within: Duration,
}

#[derive(Debug)]
struct Places {
    short: Arc<Semaphore>,
    long: Arc<Semaphore>,
}

impl ShareIo {
    pub fn new(shares: Shares) -> ShareIo {
        let count = shares.names().count().max(1);
        let places = |most: usize| Arc::new(Semaphore::new((most * SHARES_FULL / count).clamp(1, most)));
        let of_share = |name: &str| (name.to_owned(), Places { short: places(SHORT_MAX), long: places(LONG_MAX) });
        let places = shares.names().map(of_share).collect();
        ShareIo { places: Arc::new(places), shares: Arc::new(shares), place_within: PLACE_WITHIN }
    }

    /// Their names and roots. What resolves a name waits for the share: do that inside of the work.
    pub fn shares(&self) -> &Shares {
        &self.shares
    }

    /// Does work that is short where the share answers. Names that are no shares count for nothing. Where the caller goes
    /// away, work that has begun goes on.
    ///
    /// # Errors
    ///
    /// A retryable fault that names the share on which no place came free, or where the work panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        names: &[&str],
        work: impl FnOnce(&Shares) -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let mut places = Vec::new();
        for (name, of_share) in self.sorted(names) {
            let Ok(place) = timeout(self.place_within, of_share.short.clone().acquire_owned()).await else {
                return Err(self.hangs(name));
            };
            places.push(place);
        }
        self.begin(places, work).await
    }

    /// Does work that may take its time, as a copy of a whole file does. It waits for its turn for as long as it takes.
    ///
    /// # Errors
    ///
    /// A retryable fault where the work panicked.
    pub async fn run_long<T: Send + 'static>(
        &self,
        names: &[&str],
        work: impl FnOnce(&Shares) -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let mut places = Vec::new();
        for (_, of_share) in self.sorted(names) {
            places.push(of_share.long.clone().acquire_owned().await);
        }
        self.begin(places, work).await
    }

    /// Each share once and all in one order: nobody waits for a place in a circle.
    fn sorted(&self, names: &[&str]) -> impl Iterator<Item = (&str, &Places)> {
        self.places.iter().filter(|(name, _)| names.contains(&name.as_str())).map(|(name, of)| (name.as_str(), of))
    }

    async fn begin<T: Send + 'static>(
        &self,
        // Nobody closes the semaphores.
        places: Vec<Result<OwnedSemaphorePermit, tokio::sync::AcquireError>>,
        work: impl FnOnce(&Shares) -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let shares = self.shares.clone();
        run_holding(places, move || work(&shares)).await
    }

    fn hangs(&self, name: &str) -> Fault {
        let what = format!(
            "the share '{name}' does not answer: all that was begun on it {} s ago and before still waits; is its \
             server up?",
            self.place_within.as_secs()
        );
        Fault::Retryable { what, source: None }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_share_that_hangs_takes_its_own_places_and_no_others() {
        let root = |name: &str| (name.to_owned(), std::env::temp_dir());
        let io =
            ShareIo { place_within: Duration::from_millis(50), ..ShareIo::new(Shares::new(["nas", "ssd"].map(root))) };
        // Who drops the sender brings the server back.
        let (server, away) = mpsc::channel::<()>();
        let away = Arc::new(std::sync::Mutex::new(away));
        let hang = |io: &ShareIo| {
            let (io, away) = (io.clone(), away.clone());
            tokio::spawn(async move { io.run(&["nas"], move |_| away.lock().unwrap().recv().is_ok()).await })
        };
        let hung: Vec<_> = (0..SHORT_MAX).map(|_| hang(&io)).collect();
        while io.places["nas"].short.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        // Their callers give up, and the work stays.
        hung.iter().for_each(tokio::task::JoinHandle::abort);
        for names in [&["nas"][..], &["ssd", "nas"]] {
            let fault = io.run(names, |_| ()).await.unwrap_err().to_string();
            assert!(fault.contains("'nas' does not answer"), "{fault}");
        }
        assert!(io.run(&["ssd", "none"], |shares| shares.has("ssd")).await.unwrap());
        drop(server);
        while io.run(&["nas"], |_| ()).await.is_err() {}
        assert_eq!(io.run_long(&["nas", "ssd"], |_| 7).await.unwrap(), 7);
    }

    #[test]
    fn however_many_shares_there_are_threads_are_left_for_everything_else() {
        for count in [1, 3, 10, 11, 50, 200] {
            let io = ShareIo::new(Shares::new((0..count).map(|n| (n.to_string(), "/".into()))));
            let all: usize =
                io.places.values().map(|of| of.short.available_permits() + of.long.available_permits()).sum();
            assert!(all <= 400 && all >= 2 * count, "{count} shares: {all}");
        }
    }
}
