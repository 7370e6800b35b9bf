//! How much one analysis may do and hold. Counted and never timed, so that a definition always comes to the same.

use std::cell::Cell;

/// Most steps of work. One takes well under a tenth of a microsecond, so that all of them take a fraction of a second.
const WORK_MAX: u64 = 3_000_000;
/// Most bytes that an analysis makes, what it drops again included.
const BYTES_MAX: u64 = 24 << 20;

/// What is left of both. Once one of them is spent, it stays so.
#[derive(Debug)]
pub struct Budget {
    work: Cell<u64>,
    bytes: Cell<u64>,
    bounds: Used,
}

/// So much work and so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    pub work: u64,
    pub bytes: u64,
}

impl Used {
    /// What an analysis may use.
    pub const MOST: Used = Used { work: WORK_MAX, bytes: BYTES_MAX };
}

impl Budget {
    pub fn new(bounds: Used) -> Budget {
        Budget { work: Cell::new(0), bytes: Cell::new(0), bounds }
    }

    /// Takes so much work. False where there is not enough: the caller makes an end of it.
    pub fn spend(&self, work: usize) -> bool {
        self.work.set(self.work.get().saturating_add(work as u64));
        !self.is_spent()
    }

    /// Accounts for something that is made and kept.
    pub fn hold(&self, bytes: usize) -> bool {
        self.bytes.set(self.bytes.get().saturating_add(bytes as u64));
        !self.is_spent()
    }

    pub fn is_spent(&self) -> bool {
        self.work.get() > self.bounds.work || self.bytes.get() > self.bounds.bytes
    }

    /// So much was asked for until now.
    #[cfg(test)]
    pub fn used(&self) -> Used {
        Used { work: self.work.get(), bytes: self.bytes.get() }
    }
}
