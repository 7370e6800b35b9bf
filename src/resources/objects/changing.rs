//! Who changes an object just now: no two threads of the box change one at a time.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;

use conveyor_base::beneath::{Entry, Meta};
use parking_lot::{Condvar, Mutex};

/// One for the process, as whoever names the same file means the same object.
pub(super) static CHANGING: Changing = Changing { names: Mutex::new(BTreeSet::new()), freed: Condvar::new() };

/// The device and the inode of a folder, and a name in it.
type Name = (u64, u64, OsString);

pub(super) struct Changing {
    names: Mutex<BTreeSet<Name>>,
    freed: Condvar,
}

/// The right to change one object, until it is dropped.
pub(super) struct Held<'a> {
    of: &'a Changing,
    name: Name,
}

impl Changing {
    /// Waits until nobody else changes the object. Other objects wait for nothing, even where this one's share hangs.
    ///
    /// # Errors
    /// The folder's file system does not say which folder it is.
    pub fn hold(&self, object: &Entry) -> io::Result<Held<'_>> {
        let folder = Meta::of(&**object.folder())?;
        let name = (folder.device, folder.inode, object.name().to_owned());
        let mut names = self.names.lock();
        while !names.insert(name.clone()) {
            self.freed.wait(&mut names);
        }
        Ok(Held { of: self, name })
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.of.names.lock().remove(&self.name);
        self.of.freed.notify_all();
    }
}
