//! Somebody who may write to a share and lets two names on it change places, over and over: what was looked at under a name
//! is another file by the time it is opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

/// Goes on until it is dropped.
pub struct Exchange {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Exchange {
    /// Exchanges what lies at `path`, a file or a folder, with a link to `outside`.
    pub fn with_link(path: impl Into<PathBuf>, outside: &Path) -> Exchange {
        let path = path.into();
        let link = beside(&path);
        std::os::unix::fs::symlink(outside, &link).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let ends = over.clone();
        let thread = std::thread::spawn(move || {
            while !ends.load(SeqCst) {
                // One of them may be moved away or made anew by whoever is tried.
                let _ = renameat2(AT_FDCWD, &path, AT_FDCWD, &link, RenameFlags::RENAME_EXCHANGE);
            }
        });
        Exchange { over, thread: Some(thread) }
    }
}

/// The link's name at the beginning: beside the path, and hidden.
pub fn beside(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{}.link", path.file_name().unwrap().to_str().unwrap()))
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
