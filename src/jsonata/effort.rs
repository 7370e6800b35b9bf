//! [`Effort`]: what evaluations may still do, counted.

use std::cell::Cell;

/// How much work the evaluations that share it may still do, in units of about 100 ns: a node visited, a value looked at,
/// some tens of bytes made. Counted and not timed, so that what is refused is the same on every machine.
#[derive(Debug)]
pub struct Effort {
    left: Cell<u64>,
    exceeded: Cell<bool>,
}

impl Effort {
    pub const fn of(units: u64) -> Effort {
        Effort { left: Cell::new(units), exceeded: Cell::new(false) }
    }

    pub const fn unbounded() -> Effort {
        Effort::of(u64::MAX)
    }

    pub fn left(&self) -> u64 {
        self.left.get()
    }

    /// Takes so much away. False where less was left; then nothing is, whatever is asked for next.
    #[inline]
    pub fn spend(&self, units: u64) -> bool {
        match self.left.get().checked_sub(units) {
            Some(left) => {
                self.left.set(left);
                true
            }
            None => {
                self.exhaust();
                false
            }
        }
    }

    /// Leaves nothing: more was asked for.
    pub(super) fn exhaust(&self) {
        self.left.set(0);
        self.exceeded.set(true);
    }

    /// Whether more was asked for than there was.
    #[inline]
    pub fn is_exceeded(&self) -> bool {
        self.exceeded.get()
    }

    /// Grants so much from now on.
    pub fn grant(&self, units: u64) {
        self.left.set(units);
        self.exceeded.set(false);
    }
}
