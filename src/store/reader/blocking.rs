//! [`Scans`]: reads that take as long as there are rows, or as an archive takes to unpack. The type keeps them off the
//! threads of the runtime, on which timers fire and commits are answered.

use std::marker::PhantomData;
use std::ops::Deref;

use conveyor_base::Fault;

use super::Reader;

/// Reads that go on at the same time. More would only wait for one another's disk, and for cores.
pub(crate) const READS_MAX: usize = 32;

/// Every read that there is, for a thread that may block. Stays on that thread; not to be had by a task of the runtime,
/// which asks [`Reader::blocking`].
pub struct Scans {
    reader: Reader,
    stays: PhantomData<*const ()>,
}

impl Deref for Scans {
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
    pub async fn blocking<T, E>(&self, read: impl FnOnce(&Scans) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Fault> + Send + 'static,
    {
        let reader = self.clone();
        self.engine().reads.run(move || read(&reader.on_this_thread())).await?
    }

    /// The same reads for who is on a thread that may block: a command of the command line, a test, a thread of its own.
    /// Never in a task of the runtime, whose other tasks would wait as well.
    pub fn on_this_thread(&self) -> Scans {
        Scans { reader: self.clone(), stays: PhantomData }
    }
}
