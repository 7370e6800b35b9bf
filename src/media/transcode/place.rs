//! Moving finished files to where they belong: each appears whole or not at all.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use conveyor_base::{TaskError, Uri};
use conveyor_job::Job;

use crate::input::resolve;

/// One file to move.
#[derive(Clone, Debug)]
pub struct Move {
    pub from: PathBuf,
    pub to: Uri,
}

/// Moves files in the order given: what others refer to comes before what refers to it.
pub fn place(job: &Job, moves: &[Move]) -> Result<(), TaskError> {
    for step in moves {
        let to = resolve(job, &step.to)?;
        move_file(&step.from, &to).map_err(|e| failed(&step.to, &e))?;
    }
    Ok(())
}

/// Removes segments `<stem>_NNNNN.ts` beyond the last one: leftovers of an earlier, longer result under the same name.
pub fn remove_leftovers(job: &Job, last: &Uri, stem: &str, count: usize) -> Result<(), TaskError> {
    let path = resolve(job, last)?;
    let Some(entries) = path.parent().and_then(|folder| fs::read_dir(folder).ok()) else { return Ok(()) };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|n| n.strip_prefix(stem)?.strip_prefix('_')?.strip_suffix(".ts")?.parse::<usize>().ok());
        if number.is_some_and(|n| n > count) {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// Rename; across file systems, a copy under a temporary name beside the target, synced, then renamed.
fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    let folder = to.parent().ok_or_else(|| io::Error::other("a file needs a folder"))?;
    fs::create_dir_all(folder)?;
    match fs::rename(from, to) {
        Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {}
        other => return other,
    }
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    // Long names leave little room for a suffix: 255 bytes is what file systems take.
    let short: String = name.chars().take(40).collect();
    let temporary = folder.join(format!(".{short}.{}.part", std::process::id()));
    let copied = fs::copy(from, &temporary)
        .and_then(|_| fs::File::open(&temporary)?.sync_all())
        .and_then(|()| fs::rename(&temporary, to));
    if copied.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    copied?;
    fs::remove_file(from)
}

fn failed(to: &Uri, error: &io::Error) -> TaskError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            TaskError::new("Media.DiskFull", format!("'{to}' cannot be written: its share is full; free some space"))
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => TaskError::new(
            "Media.Unwritable",
            format!("'{to}' cannot be written: {error}; give the appliance's user the right to write there"),
        ),
        _ => TaskError::new("Media.Unwritable", format!("'{to}' cannot be written: {error}; check the share")),
    }
}
