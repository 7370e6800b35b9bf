//! The record's files: appended to at the end of the newest, removed at the oldest.
//!
//! ```text
//! starts-000007.jsonl   starts-000008.jsonl   starts-000009.jsonl
//!   oldest: its starts without an end are copied to the newest, which is synced; then it goes
//! ```
//!
//! Invariant: a file goes only when all before it are gone, since it may hold ends of starts in those.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The one file of releases before there were several.
const FIRST: &str = "starts.jsonl";

fn name(number: u64) -> String {
    format!("starts-{number:06}.jsonl")
}

fn number(name: &str) -> Option<u64> {
    if name == FIRST {
        return Some(0);
    }
    name.strip_prefix("starts-")?.strip_suffix(".jsonl")?.parse().ok()
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(if number == 0 { FIRST.to_owned() } else { name(number) })
}

/// The files that are there, oldest first.
pub(super) fn list(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        found.extend(entry.file_name().to_str().and_then(number).map(|number| (number, entry.path())));
    }
    found.sort();
    Ok(found)
}

/// Where bytes are put: a file, or what a test has in its place.
pub(super) trait Bytes {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn set_len(&self, length: u64) -> io::Result<()>;
}

impl Bytes for Arc<File> {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        (**self).write_all_at(bytes, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        (**self).set_len(length)
    }
}

/// A file that ends where its last whole line does.
pub(super) struct Lines<B> {
    bytes: B,
    length: u64,
}

impl<B: Bytes> Lines<B> {
    fn new(bytes: B) -> Lines<B> {
        Lines { bytes, length: 0 }
    }

    /// Writes lines, all or none. What a failure leaves of them is cut off, and else overwritten by the next ones: they
    /// were refused, and their torn end must not run into a line that is acknowledged.
    fn append(&mut self, lines: &str) -> io::Result<()> {
        if let Err(e) = self.bytes.write_all_at(lines.as_bytes(), self.length) {
            let _ = self.bytes.set_len(self.length);
            return Err(e);
        }
        self.length += lines.len() as u64;
        Ok(())
    }
}

/// All files of a record.
pub(super) struct Files {
    folder: PathBuf,
    /// Numbers and lengths of those before the newest.
    older: VecDeque<(u64, u64)>,
    newest: u64,
    lines: Lines<Arc<File>>,
}

impl Files {
    /// Begins a new file with these lines, durably, in the place of all that are there.
    pub fn replace(folder: &Path, lines: &str) -> io::Result<Files> {
        let old = list(folder)?;
        let newest = old.last().map_or(1, |(number, _)| number + 1);
        let mut files = Files {
            folder: folder.to_owned(),
            older: VecDeque::new(),
            newest,
            lines: Lines::new(create(folder, newest)?),
        };
        files.append(lines)?;
        sync(folder, files.file())?;
        for (_, path) in old {
            std::fs::remove_file(path)?;
        }
        Ok(files)
    }

    pub fn append(&mut self, lines: &str) -> io::Result<()> {
        self.lines.append(lines)
    }

    /// The newest, to be synced by somebody who may wait.
    pub fn file(&self) -> &Arc<File> {
        &self.lines.bytes
    }

    pub fn newest(&self) -> u64 {
        self.newest
    }

    pub fn newest_length(&self) -> u64 {
        self.lines.length
    }

    pub fn length(&self) -> u64 {
        self.lines.length + self.older.iter().map(|(_, length)| length).sum::<u64>()
    }

    /// Goes on in a new file.
    pub fn begin_next(&mut self) -> io::Result<()> {
        let file = create(&self.folder, self.newest + 1)?;
        self.older.push_back((self.newest, self.lines.length));
        self.newest += 1;
        self.lines = Lines::new(file);
        Ok(())
    }

    /// The oldest, where it is not the newest.
    pub fn oldest(&self) -> Option<u64> {
        self.older.front().map(|(number, _)| *number)
    }

    /// What syncs the newest and then removes that one, for a thread that may wait.
    pub fn removal(&self, number: u64) -> impl FnOnce() -> io::Result<()> + Send + 'static {
        let (folder, file) = (self.folder.clone(), self.file().clone());
        move || {
            sync(&folder, &file)?;
            std::fs::remove_file(path(&folder, number))
        }
    }

    /// The oldest is gone.
    pub fn forget_oldest(&mut self) {
        self.older.pop_front();
    }
}

fn create(folder: &Path, number: u64) -> io::Result<Arc<File>> {
    let file = OpenOptions::new().create(true).write(true).truncate(true).open(path(folder, number))?;
    Ok(Arc::new(file))
}

/// Makes durable what was written to a file, and that it is there.
pub(super) fn sync(folder: &Path, file: &File) -> io::Result<()> {
    file.sync_data()?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// A disk that is full at times: it then takes a few bytes, and may refuse to cut them off.
    #[derive(Default)]
    struct Full {
        written: RefCell<Vec<u8>>,
        takes: Cell<Option<usize>>,
        cuts: bool,
    }

    impl Bytes for &Full {
        fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            let taken = self.takes.get().unwrap_or(bytes.len()).min(bytes.len());
            let mut written = self.written.borrow_mut();
            let end = (offset as usize + taken).max(written.len());
            written.resize(end, 0);
            written[offset as usize..][..taken].copy_from_slice(&bytes[..taken]);
            if taken < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }

        fn set_len(&self, length: u64) -> io::Result<()> {
            if !self.cuts {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.written.borrow_mut().truncate(length as usize);
            Ok(())
        }
    }

    #[test]
    fn a_torn_line_swallows_none_that_comes_after_it() {
        for cuts in [true, false] {
            for taken in 0..12 {
                let disk = Full { cuts, ..Full::default() };
                let mut lines = Lines::new(&disk);
                lines.append("first\n").unwrap();
                disk.takes.set(Some(taken));
                lines.append("refused line\n").unwrap_err();
                disk.takes.set(None);
                lines.append("acknowledged\n").unwrap();
                lines.append("last\n").unwrap();
                let written = String::from_utf8(disk.written.into_inner()).unwrap();
                let whole: Vec<&str> = written.lines().collect();
                assert_eq!(whole, ["first", "acknowledged", "last"], "{taken} bytes, cut off: {cuts}");
            }
        }
    }
}
