//! The kernel's word of changes below a share's root. It may miss some, and of a share on a network it has none: a scan finds
//! them all.

use std::path::{Path, PathBuf};

use notify::{Config, Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

/// Sends the path of whatever changes. It walks over all folders.
///
/// # Errors
/// The kernel has no room for more, or a folder cannot be read.
pub fn open(root: &Path, sender: mpsc::Sender<PathBuf>) -> notify::Result<RecommendedWatcher> {
    let see = move |event: notify::Result<Event>| {
        let Ok(event) = event else { return };
        if event.kind.is_access() {
            return;
        }
        for path in event.paths {
            // A full queue loses nothing: the next scan sees the file.
            let _ = sender.try_send(path);
        }
    };
    // A link may lead out of the share, to folders that nobody may read.
    let mut events = RecommendedWatcher::new(see, Config::default().with_follow_symlinks(false))?;
    events.watch(root, RecursiveMode::Recursive)?;
    Ok(events)
}
