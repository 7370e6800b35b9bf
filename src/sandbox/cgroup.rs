//! Control groups: the kernel's own account of all that a stage's processes take together.
//!
//! A third lock around memory and processes, on top of limits and init's watch. It closes where the appliance's group was
//! delegated to it, as systemd does by `Delegate=memory pids` (https://systemd.io/CGROUP_DELEGATION/); elsewhere there is none,
//! and nothing is asked for.
//!
//! ```text
//! conveyor.service       delegated; hands memory and pids on to those below
//!   appliance            the appliance: a group with groups below it may have no process of its own
//!   stage-7              one stage: the most memory and processes, ended as one
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::libc;
use parking_lot::Mutex;

use super::jail::limits;

const CONTROLLERS: [&str; 2] = ["memory", "pids"];
/// Where the appliance itself goes.
const APPLIANCE: &str = "appliance";
const STAGE: &str = "stage-";
/// Beyond a stage's own memory: its keeper's and init's, and what the kernel holds for its processes.
const ASIDE_BYTES: u64 = 64 << 20;

/// The appliance's group, out of which stages get theirs.
#[derive(Debug)]
pub struct Cgroups {
    folder: PathBuf,
    memory_bytes: u64,
    /// The number of the next stage, begun where no former appliance can have been.
    next: AtomicU64,
    /// Whose processes had not gone yet when they were to be removed.
    left: Mutex<Vec<PathBuf>>,
}

impl Cgroups {
    /// Takes over the group that the appliance is in. None where it was not delegated.
    ///
    /// # Errors
    ///
    /// It was delegated, but not so that stages could have groups in it: what is wrong, and what to change.
    pub fn take_over(memory_bytes: u64) -> Result<Option<Arc<Cgroups>>, String> {
        match own().filter(|folder| is_delegated(folder)) {
            Some(folder) => Cgroups::of(folder, memory_bytes).map(Some),
            None => Ok(None),
        }
    }

    fn of(folder: PathBuf, memory_bytes: u64) -> Result<Arc<Cgroups>, String> {
        let there = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
        if let Some(missing) = CONTROLLERS.iter().find(|name| !there.split_whitespace().any(|there| there == **name)) {
            return Err(format!(
                "its control group {} has no controller '{missing}': the unit should say Delegate=memory pids",
                folder.display()
            ));
        }
        let cannot = |what: &str, error: &io::Error| format!("its control group {} {what}: {error}", folder.display());
        let appliance = folder.join(APPLIANCE);
        let moved = make(&appliance).and_then(|()| fs::write(appliance.join("cgroup.procs"), "0"));
        moved.map_err(|e| cannot("takes no group for the appliance", &e))?;
        // Whoever started it, such as a shell of the unit, comes along.
        let others = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        for other in others.lines() {
            // It may have ended; what stays is told of below.
            let _ = fs::write(appliance.join("cgroup.procs"), other);
        }
        let handed_on = CONTROLLERS.map(|name| format!("+{name}")).join(" ");
        fs::write(folder.join("cgroup.subtree_control"), handed_on)
            .map_err(|e| cannot("hands no controller on, as other processes may be in it", &e))?;
        let begun = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        let next = AtomicU64::new(begun << 24);
        let cgroups = Cgroups { memory_bytes, next, left: Mutex::new(stages_of(&folder)), folder };
        cgroups.remove_left();
        Ok(Arc::new(cgroups))
    }

    /// A group for one stage, with nobody in it.
    ///
    /// # Errors
    ///
    /// The kernel's: too many groups, or somebody took the delegation back.
    pub fn stage(self: &Arc<Self>) -> io::Result<Cgroup> {
        self.remove_left();
        let folder = self.folder.join(format!("{STAGE}{}", self.next.fetch_add(1, Ordering::Relaxed)));
        // One that is there is somebody's who has not gone yet.
        fs::create_dir(&folder)?;
        // From here on it is removed whatever happens.
        let group = Cgroup { folder, of: self.clone() };
        group.set("memory.max", &(self.memory_bytes + ASIDE_BYTES).to_string())?;
        group.set("memory.oom.group", "1")?;
        group.set("pids.max", &limits::TASKS_MAX.to_string())?;
        // A kernel without swap has no such file.
        let _ = group.set("memory.swap.max", "0");
        Ok(group)
    }

    fn remove_left(&self) {
        self.left.lock().retain(|folder| !remove(folder));
    }
}

/// One stage's group. Dropping it ends all who are in it.
#[derive(Debug)]
pub struct Cgroup {
    folder: PathBuf,
    of: Arc<Cgroups>,
}

impl Cgroup {
    /// Where a process that writes `0` is in the group, and what it starts.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn entrance(&self) -> io::Result<File> {
        File::options().write(true).create(true).truncate(false).open(self.folder.join("cgroup.procs"))
    }

    /// How a stage is told of that the kernel ended for its memory.
    pub fn too_much(&self) -> String {
        limits::too_much_memory(self.of.memory_bytes)
    }

    /// Whether the kernel ended it because it had reached its own bound: where the box has run out, the stage is not to blame.
    pub fn ran_out_of_memory(&self) -> bool {
        let events = fs::read_to_string(self.folder.join("memory.events")).unwrap_or_default();
        let counts = |name: &str| {
            let mut lines = events.lines().filter_map(|line| line.split_once(' '));
            lines.any(|(event, count)| event == name && count.trim() != "0")
        };
        counts("oom") && counts("oom_kill")
    }

    fn set(&self, name: &str, value: &str) -> io::Result<()> {
        fs::write(self.folder.join(name), value)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if !remove(&self.folder) {
            self.of.left.lock().push(std::mem::take(&mut self.folder));
        }
    }
}

/// Ends all who are in a group and removes it. False while they are on their way out.
fn remove(folder: &Path) -> bool {
    // Kernels before 5.14 have no such file; there the process group and the namespace end them.
    let _ = File::options().write(true).open(folder.join("cgroup.kill")).and_then(|mut file| {
        use std::io::Write as _;
        file.write_all(b"1")
    });
    match fs::remove_dir(folder) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn make(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        end => end,
    }
}

/// What a former appliance left behind.
fn stages_of(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(STAGE)).map(|entry| entry.path()).collect()
}

/// The folder of this process's group in the unified hierarchy (cgroups(7)).
fn own() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    folder_of(group, &mounts)
}

/// Where a group stands, by the mounts of proc_pid_mountinfo(5).
fn folder_of(group: &str, mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (fields, after) = line.split_once(" - ")?;
        let kind = after.split(' ').next()?;
        let mut fields = fields.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        // Of a group that is not below the mount's root nothing can be reached.
        let below = Path::new(group).strip_prefix(root).ok()?;
        // The root of all groups is nobody's to be handed out.
        (kind == "cgroup2" && group != "/").then(|| Path::new(point).join(below))
    })
}

/// Whether a group was given into these hands: by systemd's mark, for its user since version 251, for root before. Who owns the
/// folder says nothing: a terminal's own group is its user's as well.
fn is_delegated(folder: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].iter().any(|name| attribute(folder, name).is_ok_and(|value| value == b"1"))
}

fn attribute(folder: &Path, name: &str) -> nix::Result<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt as _;
    let text = |bytes: &[u8]| std::ffi::CString::new(bytes).map_err(|_| Errno::EINVAL);
    let (folder, name) = (text(folder.as_os_str().as_bytes())?, text(name.as_bytes())?);
    let mut value = vec![0u8; 16];
    // SAFETY: both names end with a zero, and the kernel writes no more than the buffer's length.
    let length = unsafe { libc::getxattr(folder.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    value.truncate(usize::try_from(Errno::result(length)?).unwrap_or(0));
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder in place of the kernel's: what is written stands in files.
    #[test]
    fn stages_get_groups_of_their_own_that_go_with_them() {
        let tree = tempfile::tempdir().unwrap();
        let (folder, read) = (tree.path().join("unit"), |path: PathBuf| fs::read_to_string(path).unwrap());
        fs::create_dir_all(folder.join("stage-31")).unwrap();
        fs::write(folder.join("cgroup.controllers"), "cpu pids\n").unwrap();
        let why = Cgroups::of(folder.clone(), 1 << 30).unwrap_err();
        assert!(why.contains("'memory'") && why.contains("Delegate="), "{why}");
        fs::write(folder.join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        let groups = Cgroups::of(folder.clone(), 1 << 30).unwrap();
        assert_eq!(read(folder.join("appliance/cgroup.procs")), "0");
        assert_eq!(read(folder.join("cgroup.subtree_control")), "+memory +pids");
        assert!(!folder.join("stage-31").exists(), "a former appliance's");
        let stage = groups.stage().unwrap();
        assert_eq!(read(stage.folder.join("memory.max")), ((1u64 << 30) + ASIDE_BYTES).to_string());
        assert_eq!(read(stage.folder.join("memory.oom.group")), "1");
        assert!(!stage.ran_out_of_memory());
        let events = |text: &str| fs::write(stage.folder.join("memory.events"), text).unwrap();
        events("low 0\nmax 31\noom 1\noom_kill 2\n");
        assert!(stage.ran_out_of_memory());
        events("low 0\nmax 0\noom 0\noom_kill 2\n");
        assert!(!stage.ran_out_of_memory(), "the box ran out");
        // Here it cannot go at once, as of a process that is still on its way out.
        let left = stage.folder.clone();
        drop(stage);
        assert_eq!(*groups.left.lock(), std::slice::from_ref(&left));
        fs::read_dir(&left).unwrap().for_each(|file| fs::remove_file(file.unwrap().path()).unwrap());
        let _next = groups.stage().unwrap();
        assert!(!left.exists() && groups.left.lock().is_empty());
    }

    #[test]
    fn the_own_group_is_found_by_the_mounts() {
        let debian = "22 27 0:20 / /proc rw - proc proc rw\n30 22 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw";
        let found = |group, mounts| folder_of(group, mounts).map(|path| path.display().to_string());
        let unit = "/system.slice/conveyor.service";
        assert_eq!(found(unit, debian).unwrap(), "/sys/fs/cgroup/system.slice/conveyor.service");
        assert_eq!(found("/", debian), None);
        let part = "30 22 0:26 /system.slice /groups rw shared:4 - cgroup2 cgroup2 rw";
        assert_eq!(found(unit, part).unwrap(), "/groups/conveyor.service");
        assert_eq!(found("/user.slice/a", part), None);
        assert_eq!(found(unit, "30 22 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"), None);
    }
}
