//! Opening what lies below a folder, whatever anybody does to its links meanwhile: the kernel walks the path and stops at
//! whatever leads out (`openat2(2)`, Linux 5.6).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

/// How often a walk is begun anew that somebody's renaming disturbed: the kernel says so and means just that.
const TRIES_MAX: usize = 64;

/// Opens the folder at the top. Links on the way to it are the owner's and are followed.
///
/// # Errors
/// Those of `open`; `NotADirectory` where it is none.
pub fn top(root: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::open(root, flags, Mode::empty())?)
}

/// Opens what lies at `path` below `top`. Links that stay below it are followed; absolute ones and those that lead out are not.
///
/// # Errors
/// Those of `open`; `CrossesDevices` ([`leads_out`]) where the path leads out.
pub fn open(top: impl AsFd, path: &Path, flags: OFlag, mode: Mode) -> io::Result<OwnedFd> {
    // An empty path is the top itself.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .mode(mode)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    for _ in 0..TRIES_MAX {
        match openat2(top.as_fd(), path, how) {
            Err(Errno::EAGAIN) => {}
            opened => return Ok(opened?),
        }
    }
    Err(Errno::EAGAIN.into())
}

/// Whether an error of [`open`] says that the path leads out of the folder.
pub fn leads_out(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EXDEV | Errno::ELOOP))
}

/// Opens a file for reading.
///
/// # Errors
/// As [`open`].
pub fn read(top: impl AsFd, path: &Path) -> io::Result<File> {
    // A pipe that nobody writes to would hold up whoever opens it.
    Ok(open(top, path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty())?.into())
}

/// Opens the folder at `path`, and makes those that are missing on the way.
///
/// # Errors
/// As [`open`], and those of `mkdir`.
pub fn make_folder(top: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let mut folder = open(&top, Path::new(""), flags, Mode::empty())?;
    for part in path.components() {
        let name = match part {
            Component::Normal(name) => Path::new(name),
            Component::CurDir => continue,
            _ => return Err(Errno::EXDEV.into()),
        };
        folder = match open(&folder, name, flags, Mode::empty()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                match nix::sys::stat::mkdirat(&folder, name, Mode::from_bits_truncate(0o777)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(e) => return Err(e.into()),
                }
                open(&folder, name, flags, Mode::empty())?
            }
            opened => opened?,
        };
    }
    Ok(folder)
}
