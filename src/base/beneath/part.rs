//! [`Part`]: a file that is written under a hidden name, and gets its own when it is whole and on the disk.
//!
//! Each writer holds a lock on what it writes. So two that write one file at a time never have one part, and what a killed
//! one left behind is known, and removed by the next that writes the same file.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::time::Duration;

use super::{Entry, Meta};

const CHUNK_BYTES: usize = 1 << 20;
/// Most parts of one name.
const PARTS_MAX: u32 = 64;
/// How long nobody has written to a part that is taken for a dead one's, where the file system has no locks: longer than it
/// takes to read the largest film back.
const DEAD_AFTER: Duration = Duration::from_secs(86_400);

/// A file that has no name of its own yet; removed when dropped before it got one.
pub struct Part {
    entry: Entry,
    file: File,
    named: bool,
}

impl Part {
    /// A copy of what is open, on the disk, and the BLAKE3 hash of what was read. `done` is told of bytes.
    ///
    /// # Errors
    /// Those of reading and writing.
    pub fn copy(mut from: &File, to: &Entry, done: &mut dyn FnMut(u64)) -> io::Result<(Part, String)> {
        from.rewind()?;
        let mut part = Part::begin(to)?;
        let (mut hasher, mut chunk) = (blake3::Hasher::new(), vec![0; CHUNK_BYTES]);
        loop {
            let n = from.read(&mut chunk)?;
            if n == 0 {
                break;
            }
            hasher.update(&chunk[..n]);
            part.file.write_all(&chunk[..n])?;
            done(n as u64);
        }
        part.file.sync_all()?;
        Ok((part, hasher.finalize().to_hex().to_string()))
    }

    /// A file of these bytes, on the disk.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(to: &Entry, bytes: &[u8]) -> io::Result<Part> {
        let mut part = Part::begin(to)?;
        part.file.write_all(bytes)?;
        part.file.sync_all()?;
        Ok(part)
    }

    fn begin(to: &Entry) -> io::Result<Part> {
        for number in 0..PARTS_MAX {
            let entry = to.hidden(&if number == 0 { "part".to_owned() } else { format!("{number}.part") });
            if let Some(file) = claim(&entry)? {
                return Ok(Part { entry, file, named: false });
            }
        }
        let what = format!("{PARTS_MAX} others are writing it; try again later");
        Err(io::Error::new(io::ErrorKind::ResourceBusy, what))
    }

    /// The BLAKE3 hash of what was written, read back.
    ///
    /// # Errors
    /// Those of reading.
    pub fn hash(&self, done: &mut dyn FnMut(u64)) -> io::Result<String> {
        hash(&self.file, done)
    }

    /// Gives it its name in place of whatever file has that.
    ///
    /// # Errors
    /// Those of a rename, and that something else got the name because it had taken the hidden one.
    pub fn rename(self, to: &Entry) -> io::Result<()> {
        self.name(to, Entry::rename)
    }

    /// The same unless the name is taken.
    ///
    /// # Errors
    /// As [`Part::rename`]; `AlreadyExists` where the name is taken.
    pub fn rename_new(self, to: &Entry) -> io::Result<()> {
        self.name(to, Entry::rename_new)
    }

    fn name(mut self, to: &Entry, rename: fn(&Entry, &Entry) -> io::Result<()>) -> io::Result<()> {
        rename(&self.entry, to)?;
        self.named = true;
        match to.is_of(&self.file)? {
            true => Ok(()),
            false => Err(io::Error::other("another program put something else under its name meanwhile")),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // A disk that is full stays full while the half copy lies on it.
        if !self.named {
            let _ = self.entry.remove_file();
        }
    }
}

/// The BLAKE3 hash of a file's content, from its beginning. `done` is told of bytes.
///
/// # Errors
/// Those of reading.
pub fn hash(mut file: &File, done: &mut dyn FnMut(u64)) -> io::Result<String> {
    file.rewind()?;
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let n = file.read(&mut chunk)?;
        if n == 0 {
            return Ok(hasher.finalize().to_hex().to_string());
        }
        hasher.update(&chunk[..n]);
        done(n as u64);
    }
}

/// A new file under a name that no living writer has.
fn claim(entry: &Entry) -> io::Result<Option<File>> {
    let taken = |e: &io::Error| e.kind() == io::ErrorKind::AlreadyExists;
    let created = match entry.create_new() {
        Err(e) if taken(&e) && remove_dead(entry) => entry.create_new(),
        created => created,
    };
    let file = match created {
        Err(e) if taken(&e) => return Ok(None),
        created => created?,
    };
    if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
        return Ok(None);
    }
    // Before it was locked, somebody may have taken it for a dead one's.
    match entry.is_of(&file) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        is_of => Ok(is_of?.then_some(file)),
    }
}

/// Removes a part whose writer was killed; what is no part, or of another user, stays.
fn remove_dead(entry: &Entry) -> bool {
    let Ok(file) = entry.append() else { return false };
    let Ok(meta) = Meta::of(&file) else { return false };
    let dead = match file.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(_)) => {
            meta.modified().and_then(|at| at.elapsed().ok()).is_some_and(|rests| rests >= DEAD_AFTER)
        }
    };
    dead && meta.is_file() && entry.is_of(&file).unwrap_or(false) && entry.remove_file().is_ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::beneath::Folder;

    #[test]
    fn two_writers_of_one_file_have_a_part_each_and_a_dead_one_none() {
        let dir = tempfile::tempdir().unwrap();
        let top = Arc::new(Folder::top(dir.path()).unwrap());
        let to = top.entry("film.mov");
        let dead = to.hidden("part");
        fs::write(dead.path(), "of one that was killed").unwrap();
        let one = Part::write(&to, b"one").unwrap();
        assert_eq!(fs::read_to_string(dead.path()).unwrap(), "one");
        let other = Part::write(&to, b"other").unwrap();
        one.rename_new(&to).unwrap();
        assert_eq!(fs::read_to_string(to.path()).unwrap(), "one");
        assert_eq!(other.rename_new(&to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "none is left");
    }

    #[test]
    fn what_many_write_at_once_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let top = Arc::new(Folder::top(dir.path()).unwrap());
        let to = top.entry("film.mov");
        std::thread::scope(|scope| {
            for writer in 0..4_u8 {
                let to = &to;
                // Whose name it is by the end of a rename is another matter.
                let write = move || drop(Part::write(to, &[writer; 5_000]).unwrap().rename(to));
                scope.spawn(move || (0..50).for_each(|_| write()));
            }
        });
        let text = fs::read(to.path()).unwrap();
        assert!(text.len() == 5_000 && text.iter().all(|byte| *byte == text[0]));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "none is left");
    }
}
