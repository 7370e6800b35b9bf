//! Who changes an object just now: no two threads of the box change one at a time.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use parking_lot::{Condvar, Mutex};

/// One for the process, as whoever names the same file means the same object.
pub(super) static CHANGING: Changing = Changing { paths: Mutex::new(BTreeSet::new()), freed: Condvar::new() };

pub(super) struct Changing {
    paths: Mutex<BTreeSet<PathBuf>>,
    freed: Condvar,
}

/// The right to change one object, until it is dropped.
pub(super) struct Held<'a> {
    of: &'a Changing,
    path: &'a Path,
}

impl Changing {
    /// Waits until nobody else changes the object. Other objects wait for nothing, even where this one's share hangs.
    pub fn hold<'a>(&'a self, path: &'a Path) -> Held<'a> {
        let mut paths = self.paths.lock();
        while !paths.insert(path.to_owned()) {
            self.freed.wait(&mut paths);
        }
        Held { of: self, path }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.of.paths.lock().remove(self.path);
        self.of.freed.notify_all();
    }
}
