//! Moving a file to another file system: copy, read back, and only then remove; and removing a name only while it is the
//! file's that is meant.

use std::ffi::OsString;
use std::fs::File;
use std::io;

use nix::errno::Errno;

use super::{Entry, Kind, Meta, Part, hash};

/// What the hidden name is called that a file has while it is looked at for the last time.
const REMOVING: &str = "removing";
/// Most names that are tried for a file whose own was taken in that time.
const NAMES_MAX: u32 = 1_000;

impl Entry {
    /// Moves the file that this is the name of to a free name on another file system. `file`: the same, open, or what a link
    /// stands for that has the name. `done` is told of bytes, those that are read back among them.
    ///
    /// Where another file has the name by the end it stays, and what was to be moved is moved all the same.
    ///
    /// # Errors
    /// `AlreadyExists` where the new name is taken, what the file systems say, and that the file changed. Nothing has the new
    /// name then, but where nobody can know whether the file was removed.
    pub fn move_copied(&self, file: &File, to: &Entry, done: &mut dyn FnMut(u64)) -> io::Result<()> {
        let (known, before) = (self.meta()?, Meta::of(file)?);
        if !before.is_file() {
            return Err(io::Error::other("it is no plain file"));
        }
        let is_changed = || Meta::of(file).is_ok_and(|now| !now.is_unchanged(&before));
        let changed = || io::Error::other("the file changed while it was moved; it was left where it is");
        let (part, read) = Part::copy(file, to, done)?;
        if is_changed() {
            return Err(changed());
        }
        if part.hash(done)? != read {
            let what = "the copy reads back differently; the file was left where it is. Check the disk of the copy";
            return Err(io::Error::other(what));
        }
        part.rename_new(to)?;
        let _ = to.folder().sync();
        match self.remove_this(file, &known) {
            Ok(false) if is_changed() => {
                let _ = to.remove_file();
                Err(changed())
            }
            Ok(_) => Ok(()),
            Err(e) => {
                // It may not be removed there: each try would leave another copy here. Of any other error nobody knows whether
                // it is removed: the answer of a server that did it may be lost, and what is read of it be old.
                if refuses(&e) && self.meta().is_ok_and(|now| now.is_unchanged(&known)) {
                    let _ = to.remove_file();
                }
                Err(e)
            }
        }
    }

    /// Removes the file if `copy` is one: what a run left that was killed between the copy and the removal. `file`: as in
    /// [`Entry::move_copied`]. Returns whether it was one.
    ///
    /// # Errors
    /// Those of reading both, and of removing.
    pub fn remove_copied(&self, file: &File, copy: &Entry, done: &mut dyn FnMut(u64)) -> io::Result<bool> {
        let known = self.meta()?;
        if !copy.meta()?.is_file() {
            return Ok(false);
        }
        let copied = copy.read()?;
        let (own, other) = (Meta::of(file)?, Meta::of(&copied)?);
        let same = own.is_file() && other.is_file() && own.size == other.size && !own.is_same(&other);
        Ok(same && hash(file, done)? == hash(&copied, done)? && self.remove_this(file, &known)?)
    }

    /// Removes the name if it still is that of a file which is open, in the state that `known` is of, however late somebody
    /// gives it to another file: that one has it again then, and `false` comes back. `known`: what [`Entry::meta`] said of the
    /// name, which may be a link's that stands for the file.
    ///
    /// For a moment nothing has the name. [`Entry::recover`] mends what a kill leaves in that time.
    ///
    /// # Errors
    /// Those of `unlinkat`, `renameat` and of opening. That it is gone already is none.
    pub fn remove_this(&self, file: &File, known: &Meta) -> io::Result<bool> {
        let is_it = |name: &Entry| -> io::Result<bool> {
            if known.kind == Kind::Link {
                return Ok(name.meta()?.is_unchanged(known));
            }
            // Opened, a file on a network share is what the server has, and not what is remembered of it.
            let now = Meta::of(name.read()?)?;
            Ok(now.is_same(&Meta::of(file)?) && (now.size, now.modified_ns) == (known.size, known.modified_ns))
        };
        let unless_gone = |removed: io::Result<()>| match removed {
            // As where the answer of a server got lost, and it was asked once more.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
            removed => removed.map(|()| true),
        };
        match is_it(self) {
            Ok(true) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
            other => return other,
        }
        let hidden = self.hidden(REMOVING);
        match self.rename_over_none(&hidden) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if !is_it(&hidden).unwrap_or(false) {
                    return Ok(true);
                }
            }
            // There are folders that let names go and take none: it was looked at right before.
            Err(e) if refuses(&e) || e.kind() == io::ErrorKind::AlreadyExists => {
                return unless_gone(self.remove_file());
            }
            Err(e) => return Err(e),
        }
        let removed = match is_it(&hidden) {
            Ok(true) => unless_gone(hidden.remove_file()),
            other => other,
        };
        if !matches!(removed, Ok(true)) {
            self.give_back(&hidden)?;
        }
        removed
    }

    /// Gives a file its name back that a kill in [`Entry::remove_this`] left under a hidden one.
    ///
    /// # Errors
    /// Those of `fstatat` and of a rename.
    pub fn recover(&self) -> io::Result<()> {
        let hidden = self.hidden(REMOVING);
        match hidden.is_free()? {
            true => Ok(()),
            false => self.give_back(&hidden),
        }
    }

    /// Where its own name is taken by now, another one that people see.
    fn give_back(&self, hidden: &Entry) -> io::Result<()> {
        for number in 0..NAMES_MAX {
            let mut name = OsString::new();
            if number > 0 {
                name.push(format!("{number}-"));
            }
            name.push(self.name());
            match hidden.rename_new(&self.beside(name)) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                renamed => return renamed,
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

/// Whether nothing was done for certain.
pub(super) fn refuses(e: &io::Error) -> bool {
    let errno = e.raw_os_error().map(Errno::from_raw);
    // The last two: of a file that a program holds open, as on SMB.
    matches!(errno, Some(Errno::EACCES | Errno::EPERM | Errno::EROFS | Errno::EBUSY | Errno::ETXTBSY))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::{Arc, Barrier};

    use super::*;
    use crate::beneath::Folder;

    fn opened(dir: &tempfile::TempDir) -> Arc<Folder> {
        Arc::new(Folder::top(dir.path()).unwrap())
    }

    #[test]
    fn a_file_that_is_put_in_place_of_one_that_is_removed_is_never_lost() {
        const ROUNDS: usize = 3_000;
        let dir = tempfile::tempdir().unwrap();
        let (name, top) = (opened(&dir).entry("film.mov"), dir.path());
        let mut replaced = 0;
        for round in 0..ROUNDS {
            fs::write(name.path(), "old").unwrap();
            fs::write(top.join("new"), "new").unwrap();
            let (file, known) = (name.read().unwrap(), name.meta().unwrap());
            let start = Barrier::new(2);
            let removed = std::thread::scope(|scope| {
                scope.spawn(|| {
                    start.wait();
                    (0..round % 40 * 10).for_each(|_| std::hint::spin_loop());
                    fs::rename(top.join("new"), name.path()).unwrap();
                });
                start.wait();
                name.remove_this(&file, &known).unwrap()
            });
            replaced += usize::from(!removed);
            let left: Vec<_> = fs::read_dir(top).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert_eq!(left.len(), 1, "{left:?}");
            assert_eq!(fs::read_to_string(&left[0]).unwrap(), "new");
            assert!(!left[0].file_name().unwrap().to_str().unwrap().starts_with('.'), "{left:?}");
            fs::remove_file(&left[0]).unwrap();
        }
        assert!(replaced > 0 && replaced < ROUNDS, "{replaced}: both come first");
    }

    #[test]
    fn what_a_kill_left_hidden_gets_its_name_back() {
        let dir = tempfile::tempdir().unwrap();
        let name = opened(&dir).entry("film.mov");
        for expected in ["film.mov", "1-film.mov"] {
            fs::write(name.hidden(REMOVING).path(), expected).unwrap();
            name.recover().unwrap();
            assert_eq!(fs::read_to_string(dir.path().join(expected)).unwrap(), expected);
        }
        name.recover().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_copy_of_what_was_written_to_meanwhile_is_given_up_and_of_what_was_replaced_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (opened(&dir).entry("film.mov"), opened(&dir).entry("moved.mov"));
        // The second time, the copy is whole and read back.
        let moved_while = |does: &dyn Fn()| {
            fs::write(from.path(), "old").unwrap();
            let (file, mut told) = (from.read().unwrap(), 0);
            from.move_copied(&file, &to, &mut |_| {
                told += 1;
                if told == 2 {
                    does();
                }
            })
        };
        assert!(moved_while(&|| fs::write(from.path(), "longer").unwrap()).is_err());
        assert!(to.is_free().unwrap());
        assert_eq!(fs::read_to_string(from.path()).unwrap(), "longer");
        let new = dir.path().join("new");
        moved_while(&|| fs::write(&new, "new").and_then(|()| fs::rename(&new, from.path())).unwrap()).unwrap();
        let read = |entry: &Entry| fs::read_to_string(entry.path()).unwrap();
        assert_eq!((read(&from), read(&to)), ("new".into(), "old".into()));
        // Another copy is recognized, and another file is not taken for one.
        assert!(!from.remove_copied(&from.read().unwrap(), &to, &mut |_| {}).unwrap());
        fs::write(from.path(), "old").unwrap();
        assert!(from.remove_copied(&from.read().unwrap(), &to, &mut |_| {}).unwrap());
        assert!(from.is_free().unwrap());
    }
}
