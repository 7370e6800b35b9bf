//! [`Rows`]: reads that take as long as there are rows, or as an archive takes to unpack. The type keeps them off the
//! threads of the runtime, on which timers fire and commits are answered.

use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::Reader;
use crate::base::Fault;
use crate::store::writer::Threads;

/// Reads that go on at the same time. More would only wait for one another's disk, and for cores.
const READS_MAX: usize = 32;

/// Where reads are done that may take their time.
pub(in crate::store) struct Places {
    /// By whoever asks: the simulator needs one order of everything.
    inline: bool,
    free: Arc<Semaphore>,
}

impl Places {
    pub fn new(threads: Threads) -> Places {
        Places { inline: threads != Threads::Own, free: Arc::new(Semaphore::new(READS_MAX)) }
    }
}

/// Every read that there is, for a thread that may block. Stays on that thread; not to be had by a task of the runtime,
/// which asks [`Reader::blocking`].
pub struct Rows {
    reader: Reader,
    stays: PhantomData<*const ()>,
}

impl Deref for Rows {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        &self.reader
    }
}

impl Reader {
    /// Reads on a thread that may block. Resolves with what the work gives; waits while many others read. Where the
    /// caller goes away a read that has begun goes on to its end.
    ///
    /// # Errors
    ///
    /// Those of the work, and a retryable fault where it panicked.
    pub async fn blocking<T, E>(&self, read: impl FnOnce(&Rows) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Fault> + Send + 'static,
    {
        let reader = self.clone();
        let places = &self.engine().places;
        if places.inline {
            return read(&reader.on_this_thread());
        }
        // Nobody closes it.
        let place = places.free.clone().acquire_owned().await;
        let work = move || {
            let _place = place;
            read(&reader.on_this_thread())
        };
        let broke_off = |e| Err(Fault::retryable("a read of the store broke off", e).into());
        tokio::task::spawn_blocking(work).await.unwrap_or_else(broke_off)
    }

    /// The same reads for who is on a thread that may block: a command of the command line, a test, a thread of its own.
    /// Never in a task of the runtime, whose other tasks would wait as well.
    pub fn on_this_thread(&self) -> Rows {
        Rows { reader: self.clone(), stays: PhantomData }
    }
}
