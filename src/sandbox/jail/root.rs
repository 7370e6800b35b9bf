//! The root of a worker: an empty file system in memory, onto which what the job needs is bound, each under the name that it
//! has outside. What is not bound is not there.
//!
//! Everything is opened and copied before the new root hides anything, so that what is bound is what was looked at; files of shares
//! are reached from the share's root by the kernel's own walk ([`beneath`]), which no exchanged link leads out. What they are bound
//! onto is made in that memory alone: below what is bound already somebody may exchange links meanwhile, and until it is the root
//! an absolute one would lead to the host's own files.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::path::{Component, Path, PathBuf};

use conveyor_base::beneath::{self, Folder, Links};
use conveyor_base::{TaskError, Uri};
use conveyor_job::Job;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, mkdirat};

use super::{NotEntered, Sandbox, device, landlock, system};

/// Folders that every system has and that the new root can be put on before it is the root.
const BASES: &[&str] = &["/tmp", "/run", "/mnt", "/var"];
/// Room for folders and empty files; nothing can be written there.
const ROOT_OPTIONS: &str = "mode=755,size=16m,nr_inodes=16k";
/// Caption files of one stem.
const CAPTIONS_MAX: usize = 64;

/// Of `open_tree` and `move_mount` (linux/mount.h).
const OPEN_TREE_CLONE: libc::c_int = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_int = 4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_int = 0x40;
/// Attributes of mounts (linux/mount.h).
const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const NOEXEC: u64 = 0x8;

/// One thing that is bound: a copy of its mounts, taken before anything of the new root is there.
struct Bind {
    tree: OwnedFd,
    target: PathBuf,
    is_folder: bool,
    attributes: u64,
}

/// Makes the root and enters it; says whether there is a /proc.
///
/// # Errors
///
/// What the kernel refuses, or that a file of the job leads out of its share.
pub fn enter(job: &Job, sandbox: &Sandbox) -> Result<bool, NotEntered> {
    let failed =
        |what: &str, e: io::Error| format!("the stage's own root cannot be made: {what}: {e}; see the kernel's log");
    let none = None::<&str>;
    // What is mounted here is never seen outside; what is unmounted outside goes here too.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).map_err(|e| failed("mounts", e.into()))?;
    let roots = shares_named(job);
    let links = links();
    let binds = binds(job, sandbox)?;
    let base = BASES.iter().map(Path::new).find(|path| path.is_dir()).unwrap_or(Path::new("/"));
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("stage"), base, Some("tmpfs"), flags, Some(ROOT_OPTIONS))
        .map_err(|e| failed("a file system in memory", e.into()))?;
    for root in roots {
        fs::create_dir_all(below(base, &root)).map_err(|e| failed("a share's folder", e))?;
    }
    let top = nix::fcntl::open(base, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|e| failed("a file system in memory", e.into()))?;
    for bind in &binds {
        bind.onto(&top).map_err(|e| failed(&bind.target.display().to_string(), e))?;
    }
    for (link, to) in links {
        let place = below(base, &link);
        // Folders of the system alone are in its way, which nobody exchanges.
        if !place.exists() {
            let made = fs::create_dir_all(place.parent().unwrap_or(base));
            made.and_then(|()| std::os::unix::fs::symlink(to, place)).map_err(|e| failed("links of the system", e))?;
        }
    }
    // What moves files runs as the appliance's user, to whom /proc would offer the kernel's settings.
    let proc = job.access.shares.is_empty() && mount_proc(&base.join("proc")).map_err(|e| failed("/proc", e))?;
    set_attributes(&top, RDONLY, false).map_err(|e| failed("read-only", e))?;
    let pivot = || -> nix::Result<()> {
        nix::unistd::chdir(base)?;
        nix::unistd::pivot_root(".", ".")?;
        umount2(".", MntFlags::MNT_DETACH)?;
        nix::unistd::chdir("/")
    };
    pivot().map_err(|e| failed("the change of roots", e.into()))?;
    nix::unistd::chdir(&job.work_dir).map_err(|e| failed("the work folder", e.into()))?;
    if let Some(user) = stage_user(job, sandbox) {
        // The last thing that may fail: until here the folder is the appliance's.
        std::os::unix::fs::chown(".", Some(user), Some(user)).map_err(|e| {
            format!(
                "the work folder cannot be given to user {user}, whom stages run as where the appliance is root: {e}; in a \
                 container that has few users, name one of them as [sandbox] user"
            )
        })?;
    }
    Ok(proc)
}

/// Libraries and plug-ins that were put elsewhere.
pub fn own_places() -> Vec<PathBuf> {
    let variables = ["LD_LIBRARY_PATH", "GST_PLUGIN_PATH", "GST_PLUGIN_SYSTEM_PATH"];
    let values: Vec<_> = variables.into_iter().filter_map(std::env::var_os).collect();
    let registry = std::env::var_os("GST_REGISTRY").map(PathBuf::from);
    let places = values.iter().flat_map(std::env::split_paths).filter(|path| path.is_absolute());
    places.chain(registry).collect()
}

/// The job's inputs, by their names.
pub fn reads(job: &Job) -> Vec<PathBuf> {
    let captions = job.access.captions_of.iter().flat_map(|uri| captions(job, uri));
    job.access.reads.iter().cloned().chain(captions).filter_map(|uri| place(job, &uri)).collect()
}

/// The shares that the job moves files in.
pub fn shares(job: &Job) -> Vec<PathBuf> {
    job.access.shares.iter().filter_map(|name| job.shares.root(name).ok().map(Path::to_owned)).collect()
}

/// Roots of all shares that the job has to do with, so that a file that is missing is told from a share that is.
fn shares_named(job: &Job) -> Vec<PathBuf> {
    let names = job.access.reads.iter().map(|uri| uri.share.as_str());
    let mut roots: Vec<PathBuf> =
        names.filter_map(|name| job.shares.root(name).ok()).filter(|root| root.is_dir()).map(Path::to_owned).collect();
    roots.dedup();
    roots
}

/// Where a file lies, inside as outside.
pub fn place(job: &Job, uri: &Uri) -> Option<PathBuf> {
    let root = job.shares.root(&uri.share).ok()?;
    Some(if uri.key.is_empty() { root.to_owned() } else { root.join(&uri.key) })
}

fn binds(job: &Job, sandbox: &Sandbox) -> Result<Vec<Bind>, NotEntered> {
    let mut binds = Vec::new();
    let read_only = RDONLY | NOSUID | NODEV;
    let of_system = system::READ.iter().map(|(path, _)| PathBuf::from(path)).chain(device::reads(job));
    for path in of_system.chain(own_places()).filter(|path| !path.is_symlink()) {
        binds.extend(opened(&path, read_only));
    }
    let devices = system::DEVICES.iter().map(PathBuf::from).chain(device::paths(job));
    for path in devices {
        binds.extend(opened(&path, NOSUID | NOEXEC));
    }
    for uri in &job.access.reads {
        binds.extend(input(job, sandbox, uri)?);
    }
    for uri in job.access.captions_of.iter().flat_map(|uri| captions(job, uri)) {
        // One that may not be read is none.
        binds.extend(input(job, sandbox, &uri).ok().flatten());
    }
    if !job.work_dir.is_dir() {
        return Err(format!("the stage's work folder {} is not there", job.work_dir.display()).into());
    }
    let mut written = shares(job);
    written.push(job.work_dir.clone());
    let written = if landlock::is_there() { together(written) } else { written };
    for folder in &written {
        binds.extend(opened(folder, NOSUID | NODEV | NOEXEC));
    }
    // What holds others comes before them, and hides nothing.
    binds.sort_by_key(|bind| bind.target.components().count());
    Ok(binds)
}

/// Folders of one mounted file system become the folder that holds them all: within it files are renamed, and between two
/// binds they can only be copied. What else is in it Landlock keeps from the job, which is one that opens no media.
fn together(folders: Vec<PathBuf>) -> Vec<PathBuf> {
    if folders.len() < 2 {
        return folders;
    }
    let (mut groups, mut bound): (BTreeMap<u64, PathBuf>, Vec<PathBuf>) = Default::default();
    for folder in folders {
        // Through a link it would be another one inside.
        let mount = mount_of(&folder).filter(|_| folder.canonicalize().is_ok_and(|real| real == folder));
        let Some(mount) = mount else {
            bound.push(folder);
            continue;
        };
        let common = groups.get(&mount).map(|other| common(other, &folder));
        match common {
            Some(common) if common == Path::new("/") || mount_of(&common) != Some(mount) => bound.push(folder),
            Some(common) => drop(groups.insert(mount, common)),
            None => drop(groups.insert(mount, folder)),
        }
    }
    bound.extend(groups.into_values());
    bound
}

fn common(one: &Path, other: &Path) -> PathBuf {
    one.components().zip(other.components()).take_while(|(one, other)| one == other).map(|(one, _)| one).collect()
}

/// Which mount a folder lies on (`statx(2)`, Linux 5.8).
fn mount_of(folder: &Path) -> Option<u64> {
    let path = std::ffi::CString::new(folder.as_os_str().as_encoded_bytes()).ok()?;
    // SAFETY: of numbers alone, for which zero is a value.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a string that ends, and what is found fits.
    let asked = unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), 0, libc::STATX_MNT_ID, &raw mut found) };
    (asked == 0 && found.stx_mask & libc::STATX_MNT_ID != 0).then_some(found.stx_mnt_id)
}

/// None where it is not there, or may not be seen.
fn opened(path: &Path, attributes: u64) -> Option<Bind> {
    let place = nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let is_folder = path.is_dir();
    Some(Bind { tree: clone_of(&place).ok()?, is_folder, target: path.to_owned(), attributes })
}

fn input(job: &Job, sandbox: &Sandbox, uri: &Uri) -> Result<Option<Bind>, NotEntered> {
    let Ok(root) = job.shares.root(&uri.share) else { return Ok(None) };
    let found = Folder::top(root).and_then(|top| {
        let source = top.open(Path::new(&uri.key), Links::Followed, OFlag::O_PATH)?;
        let meta = fs::metadata(format!("/proc/self/fd/{}", source.as_raw_fd()))?;
        Ok((source, meta))
    });
    match found {
        Ok((source, meta)) => {
            may_read(job, sandbox, &meta, uri)?;
            // A pipe or a device is no file, and opening one may never end.
            if !meta.is_file() && !meta.is_dir() {
                return Ok(None);
            }
            let tree =
                clone_of(&source).map_err(|e| format!("'{uri}' cannot be shown to the stage: {e}; report this"))?;
            let target = place(job, uri).unwrap_or_else(|| root.to_owned());
            Ok(Some(Bind { tree, target, is_folder: meta.is_dir(), attributes: RDONLY | NOSUID | NODEV | NOEXEC }))
        }
        Err(e) if beneath::leads_out(&e) => {
            let what = format!("'{uri}' is a link that leads outside its share; drop the file itself");
            Err(NotEntered::Job(TaskError::new("Media.InvalidParameter", what)))
        }
        // Missing, or of a share that is: the stage says which.
        Err(_) => Ok(None),
    }
}

/// Root reads everything, and the stage's own user only what all may.
fn may_read(job: &Job, sandbox: &Sandbox, meta: &fs::Metadata, uri: &Uri) -> Result<(), NotEntered> {
    use std::os::unix::fs::MetadataExt as _;
    let Some(user) = stage_user(job, sandbox) else { return Ok(()) };
    if meta.mode() & 0o004 != 0 || meta.uid() == user {
        return Ok(());
    }
    let what = format!(
        "'{uri}' may be read by its owner alone, and the appliance runs as root, whose stages run as user {user}: let all \
         read the file (chmod o+r), or run the appliance as the user whom the files belong to"
    );
    Err(NotEntered::Job(TaskError::new("Media.Unreadable", what)))
}

/// Whom root becomes for this job; an ordinary user stays who it is.
pub fn stage_user(job: &Job, sandbox: &Sandbox) -> Option<u32> {
    (nix::unistd::geteuid().is_root() && job.access.shares.is_empty()).then_some(sandbox.user)
}

/// Caption files beside a file: those of its stem.
fn captions(job: &Job, uri: &Uri) -> Vec<Uri> {
    let Ok(root) = job.shares.root(&uri.share) else { return Vec::new() };
    let (stem, parent) = (uri.stem().to_owned(), uri.key.rsplit_once('/').map(|(parent, _)| parent));
    let folder = Path::new(parent.unwrap_or_default());
    let names = Folder::top(root).and_then(|top| top.list(folder, Links::Followed)).into_iter().flatten().flatten();
    let names = names.filter_map(|listed| listed.name.into_string().ok());
    let of_stem = |name: &String| {
        let suffix = name.rsplit_once('.').map(|(_, suffix)| suffix.to_ascii_lowercase());
        name.strip_prefix(&stem).is_some_and(|rest| rest.starts_with('.'))
            && suffix.is_some_and(|suffix| matches!(suffix.as_str(), "srt" | "vtt"))
    };
    let uri_of = |name: String| Uri::new(&uri.share, parent.map_or(name.clone(), |parent| format!("{parent}/{name}")));
    names.filter(of_stem).take(CAPTIONS_MAX).map(uri_of).collect()
}

impl Bind {
    fn onto(&self, top: &OwnedFd) -> io::Result<()> {
        let Some(place) = self.place(top)? else { return Ok(()) };
        set_attributes(&self.tree, self.attributes, true)?;
        attach(&self.tree, &place)
    }

    /// Opens what it is bound onto, and makes that where nothing has the name yet. `None`: it lies below something that is
    /// bound already and shows the same, and what has its name there is gone meanwhile, or reached over a link.
    fn place(&self, top: &OwnedFd) -> io::Result<Option<OwnedFd>> {
        let path = self.target.strip_prefix("/").unwrap_or(&self.target);
        let made = match below_top(top, path, OFlag::O_PATH, ResolveFlag::empty()) {
            Err(Errno::ENOENT) => self.make(top, path),
            opened => opened,
        };
        match made {
            Ok(place) => Ok(Some(place)),
            // What is to be written must be bound.
            Err(Errno::EXDEV | Errno::ELOOP | Errno::ENOTDIR) if self.attributes & RDONLY != 0 => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Makes it in the file system in memory alone: `EXDEV` where the path goes over something that is bound.
    fn make(&self, top: &OwnedFd, path: &Path) -> nix::Result<OwnedFd> {
        let inside = |path: &Path, flags| below_top(top, path, flags, ResolveFlag::RESOLVE_NO_XDEV);
        let (parts, mut made, mut folder) = (path.components(), PathBuf::new(), inside(Path::new(""), OFlag::O_PATH)?);
        let folders = path.components().count().saturating_sub(usize::from(!self.is_folder));
        for part in parts.take(folders) {
            made.push(part);
            folder = match (inside(&made, OFlag::O_PATH | OFlag::O_DIRECTORY), part) {
                (Err(Errno::ENOENT), Component::Normal(name)) => {
                    mkdirat(&folder, Path::new(name), Mode::from_bits_truncate(0o777))?;
                    inside(&made, OFlag::O_PATH | OFlag::O_DIRECTORY)?
                }
                (opened, _) => opened?,
            };
        }
        if self.is_folder {
            return Ok(folder);
        }
        inside(path, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL)
    }
}

/// Opens what lies below the new root, over no link.
fn below_top(top: &OwnedFd, path: &Path, flags: OFlag, resolve: ResolveFlag) -> nix::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let mode = if flags.contains(OFlag::O_CREAT) { Mode::from_bits_truncate(0o666) } else { Mode::empty() };
    let resolve = resolve | ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    openat2(top, path, OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(mode).resolve(resolve))
}

/// Mounts what is nowhere yet (`move_mount(2)`), onto what was opened.
fn attach(tree: &OwnedFd, place: &OwnedFd) -> io::Result<()> {
    let empty = c"".as_ptr();
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both paths are empty strings.
    let moved =
        unsafe { libc::syscall(libc::SYS_move_mount, tree.as_raw_fd(), empty, place.as_raw_fd(), empty, flags) };
    Errno::result(moved).map(drop).map_err(Into::into)
}

/// What lies there, with all that is mounted below it, as mounts of their own that are nowhere yet (`open_tree(2)`).
fn clone_of(place: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC | libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: the path is an empty string.
    let tree = unsafe { libc::syscall(libc::SYS_open_tree, place.as_raw_fd(), c"".as_ptr(), flags) };
    let tree = Errno::result(tree)?;
    // SAFETY: the call gave a descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(tree as RawFd) })
}

fn below(base: &Path, path: &Path) -> PathBuf {
    base.join(path.strip_prefix("/").unwrap_or(path))
}

/// Links among what of the system may be read, such as /lib on a merged /usr.
fn links() -> Vec<(PathBuf, PathBuf)> {
    let paths = system::READ.iter().map(|(path, _)| PathBuf::from(path));
    paths.filter_map(|path| Some((path.clone(), fs::read_link(&path).ok()?))).collect()
}

/// A /proc of the stage's own processes; none where parts of the host's are hidden, since a new one would show them.
fn mount_proc(place: &Path) -> io::Result<bool> {
    fs::create_dir_all(place)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    match mount(Some("proc"), place, Some("proc"), flags, None::<&str>) {
        Ok(()) => Ok(true),
        Err(Errno::EPERM) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// `mount_setattr(2)`, Linux 5.12: unlike a remount it adds to what is locked already.
fn set_attributes(place: &OwnedFd, attributes: u64, recursive: bool) -> io::Result<()> {
    #[repr(C)]
    struct MountAttr {
        attr_set: u64,
        attr_clr: u64,
        propagation: u64,
        userns_fd: u64,
    }
    let attr = MountAttr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty string, and the attributes are of the shape and size that are given.
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            place.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    Errno::result(set).map(drop).map_err(Into::into)
}

/// Puts over a place what it is, to be read.
pub fn cover_read_only(path: &Path) -> nix::Result<()> {
    let place = nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let covered = clone_of(&place).and_then(|tree| {
        set_attributes(&tree, RDONLY, true)?;
        attach(&tree, &place)
    });
    covered.map_err(|e| e.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw))
}
