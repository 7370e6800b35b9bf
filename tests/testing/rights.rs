//! What a test may do only to itself: file systems that are mounted for its thread alone, and the rights of anybody.

use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

const NONE: Option<&str> = None;

/// Runs it in a thread whose mounts nobody else sees. Returns whether this machine allows that.
#[must_use]
pub fn with_mounts(does: impl FnOnce() + Send) -> bool {
    std::thread::scope(|scope| {
        let run = || {
            let allowed = unshare(CloneFlags::CLONE_NEWNS).is_ok()
                && mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).is_ok();
            if allowed {
                does();
            }
            allowed
        };
        scope.spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Mounts another file system of some bytes over a folder.
pub fn mount_small(path: &Path, bytes: u64) {
    mount(Some("small"), path, Some("tmpfs"), MsFlags::empty(), Some(format!("size={bytes}").as_str())).unwrap();
}

/// Mounts a file or a folder over itself: its own name can neither be removed nor renamed then.
pub fn mount_over_itself(path: &Path) {
    mount(Some(path), path, NONE, MsFlags::MS_BIND, NONE).unwrap();
}

/// The same for a folder, with all that is in it.
pub fn mount_read_only(path: &Path) {
    mount_over_itself(path);
    mount(NONE, path, NONE, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, NONE).unwrap();
}

/// Ends what one of these mounted.
pub fn unmount(path: &Path) {
    umount2(path, MntFlags::MNT_DETACH).unwrap();
}

/// Runs it in a thread that has the rights of nobody in particular, where the tests have those of root.
pub fn as_anybody(does: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65_534));
            does();
        });
    });
}
