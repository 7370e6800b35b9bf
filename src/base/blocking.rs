//! [`Blocking`]: threads for work that waits for a disk or computes for long, and how much of it at a time.
//!
//! The threads of the runtime fire timers and answer commits; none of them may stand still.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::Fault;

/// A bound on work of one kind. Clones share it.
#[derive(Clone, Debug)]
pub struct Blocking {
    /// None: the work is done by whoever asks.
    places: Option<Arc<Semaphore>>,
}

impl Blocking {
    /// So many at a time; the others wait.
    pub fn at_most(places: usize) -> Blocking {
        Blocking { places: Some(Arc::new(Semaphore::new(places))) }
    }

    /// For work that computes: half of the cores, so that the rest of the box goes on.
    pub fn half_of_the_cores() -> Blocking {
        Blocking::at_most((num_cpus::get() / 2).max(1))
    }

    /// For work in pieces that others wait for: as many as there are cores, among which the system shares the time.
    pub fn as_many_as_cores() -> Blocking {
        Blocking::at_most(num_cpus::get())
    }

    /// On the thread of whoever asks: the simulator needs one order of everything.
    pub fn inline() -> Blocking {
        Blocking { places: None }
    }

    /// Does the work, and resolves with what it gives. Where the caller goes away, work that has begun goes on.
    ///
    /// # Errors
    ///
    /// A retryable fault where the work panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
        let Some(places) = &self.places else { return Ok(work()) };
        // Nobody closes it.
        let place = places.clone().acquire_owned().await;
        run_holding(place, work).await
    }
}

/// Does the work on a thread that may block. The places go with the work and not with who waits for it.
pub(super) async fn run_holding<P: Send + 'static, T: Send + 'static>(
    places: P,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Fault> {
    let work = move || {
        let _places = places;
        work()
    };
    let broke_off = |e| Fault::retryable("work inside the appliance broke off; its log has the details", e);
    tokio::task::spawn_blocking(work).await.map_err(broke_off)
}
