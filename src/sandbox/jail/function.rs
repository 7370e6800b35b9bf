//! The wider jail, of programs that the owner has written. They may reach whom they like and read what the appliance's user
//! may, but for the store and the configuration; they see no process but their own, outlive nothing, and have no rights
//! over the kernel.

use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{getegid, geteuid};

use super::namespaces::{self, Side, refused};
use super::{Entered, Jail, Mode, capabilities, filter, init, root};

/// Locks this process in; what returns as the worker becomes the program.
///
/// # Errors
///
/// What could not be closed, why, and what to change.
pub fn enter(mode: Mode, hidden: &[PathBuf]) -> Result<Entered, String> {
    let lenient = mode == Mode::BestEffort;
    match apart(hidden) {
        Ok(Side::Worker) => {}
        Ok(Side::Over { code, last_word }) => return Ok(Entered::Over { code, last_word }),
        Err(why) if lenient => eprintln!("{why}"),
        Err(why) => return Err(why),
    }
    let locks = [
        setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(|e| format!("the core size cannot be set: {e}; report this")),
        capabilities::drop_to_function(),
        filter::install_for_functions(),
    ];
    for closed in locks {
        match closed {
            Err(why) if lenient => eprintln!("{why}"),
            closed => closed?,
        }
    }
    Ok(Entered::Worker(Jail::default()))
}

fn apart(hidden: &[PathBuf]) -> Result<Side, String> {
    let (user, group, parent) = (geteuid(), getegid(), nix::unistd::getppid());
    let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC;
    if user.is_root() {
        unshare(flags).map_err(|e| refused("namespaces", e))?;
    } else {
        unshare(flags | CloneFlags::CLONE_NEWUSER).map_err(|e| refused("namespaces of users", e))?;
        namespaces::map_user(user, group).map_err(|e| format!("its user cannot be mapped: {e}; report this"))?;
    }
    namespaces::split(parent, |alive| {
        hide(hidden).map_err(|e| format!("the store cannot be hidden from it: {e}; report this"))?;
        init::run("the function", None, alive)
    })
}

/// Puts nothing over what is hidden, and the program's own /proc over everybody's.
fn hide(hidden: &[PathBuf]) -> nix::Result<()> {
    let none = None::<&str>;
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
    mount(Some("proc"), "/proc", Some("proc"), quiet, none)?;
    // The kernel's settings, which are root's to write.
    for path in ["/proc/sys", "/proc/sysrq-trigger", "/sys"].map(Path::new).into_iter().filter(|path| path.exists()) {
        root::cover_read_only(path)?;
    }
    for path in hidden.iter().filter(|path| path.exists()) {
        if path.is_dir() {
            mount(Some("hidden"), path, Some("tmpfs"), quiet | MsFlags::MS_RDONLY, Some("mode=000,size=4k"))?;
        } else {
            mount(Some(Path::new("/dev/null")), path, none, MsFlags::MS_BIND, none)?;
        }
    }
    Ok(())
}
