//! [`Entry`]: a name in an open folder, and what is done to names.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat, renameat2};
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat, fstatat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use super::moving::refuses;
use super::{Folder, Kind, Links, Listing, Meta};

/// A name in an open folder, whether or not anything has it. A link that has the name is itself meant.
#[derive(Clone, Debug)]
pub struct Entry {
    folder: Arc<Folder>,
    name: OsString,
}

impl Entry {
    pub(super) fn new(folder: Arc<Folder>, name: OsString) -> Entry {
        Entry { folder, name }
    }

    pub fn name(&self) -> &OsStr {
        &self.name
    }

    pub fn folder(&self) -> &Arc<Folder> {
        &self.folder
    }

    /// Where it was when its folder was opened, for messages.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join(&self.name)
    }

    /// Another name in the same folder.
    pub fn beside(&self, name: impl Into<OsString>) -> Entry {
        Entry::new(self.folder.clone(), name.into())
    }

    /// # Errors
    /// Those of `fstatat`; `NotFound` where nothing has the name.
    pub fn meta(&self) -> io::Result<Meta> {
        Ok(fstatat(&self.folder, self.plain()?, AtFlags::AT_SYMLINK_NOFOLLOW)?.into())
    }

    /// Whether nothing has the name.
    ///
    /// # Errors
    /// Those of `fstatat`: nobody knows then.
    pub fn is_free(&self) -> io::Result<bool> {
        match self.meta() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
            found => found.map(|_| false),
        }
    }

    /// Whether the name is that of a file which is open.
    ///
    /// # Errors
    /// Those of `fstatat`; `NotFound` where nothing has the name.
    pub fn is_of(&self, file: impl AsFd) -> io::Result<bool> {
        // Some file systems number a file by its path: what it is called by now counts.
        Ok(self.meta()?.is_same(&Meta::of(file)?))
    }

    /// A hidden name in the same folder, short enough whatever the length of this one: watchers pass over leading dots.
    pub fn hidden(&self, what: &str) -> Entry {
        let tag = &blake3::hash(self.name.as_encoded_bytes()).to_hex()[..16];
        self.beside(format!(".{tag}.{what}"))
    }

    /// Opens the file itself for reading.
    ///
    /// # Errors
    /// As [`Folder::read`]; a link is refused.
    pub fn read(&self) -> io::Result<File> {
        self.folder.read(self.plain()?, Links::Refused)
    }

    /// Holds on to what has the name, to know it again; nothing can be read by it.
    ///
    /// # Errors
    /// As [`Folder::open`]; a link is refused.
    pub fn pin(&self) -> io::Result<OwnedFd> {
        self.folder.open(self.plain()?, Links::Refused, OFlag::O_PATH)
    }

    /// Opens the folder itself that has the name.
    ///
    /// # Errors
    /// As [`Folder::folder`]; a link is refused.
    pub fn open_folder(&self) -> io::Result<Folder> {
        self.folder.folder(self.plain()?, Links::Refused)
    }

    /// Opens the file itself to write behind its end.
    ///
    /// # Errors
    /// As [`Folder::open`]; a link is refused, and a pipe that nobody reads.
    pub fn append(&self) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_NONBLOCK;
        Ok(self.folder.open(self.plain()?, Links::Refused, flags)?.into())
    }

    /// Makes a new file, to be written and read.
    ///
    /// # Errors
    /// Those of `openat`; `AlreadyExists` where anything has the name.
    pub fn create_new(&self) -> io::Result<File> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(openat(&self.folder, self.plain()?, flags, Mode::from_bits_truncate(0o666))?.into())
    }

    /// The same in place of whatever file has the name. What was written to that one stays with whoever has it open.
    ///
    /// # Errors
    /// As [`Entry::create_new`] and [`Entry::remove_file`].
    pub fn create(&self) -> io::Result<File> {
        match self.create_new() {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                self.remove_file()?;
                self.create_new()
            }
            created => created,
        }
    }

    /// Gives what has this name another one, and takes that from whatever file has it. Syncs nothing.
    ///
    /// # Errors
    /// Those of `renameat`.
    pub fn rename(&self, to: &Entry) -> io::Result<()> {
        Ok(renameat(&self.folder, self.plain()?, &to.folder, to.plain()?)?)
    }

    /// Lets two names change places. Syncs nothing.
    ///
    /// # Errors
    /// Those of `renameat2`: network file systems cannot.
    pub fn exchange(&self, with: &Entry) -> io::Result<()> {
        Ok(renameat2(&self.folder, self.plain()?, &with.folder, with.plain()?, RenameFlags::RENAME_EXCHANGE)?)
    }

    /// Renames a file or a folder unless the new name is taken, whoever takes it and however late. Syncs nothing.
    ///
    /// # Errors
    /// `AlreadyExists` where the name is taken, and whatever a rename fails with. Both files are then as they were, but where
    /// links do it, and the disk or the server fails in between: the file may have both names then.
    pub fn rename_new(&self, to: &Entry) -> io::Result<()> {
        match renameat2(&self.folder, self.plain()?, &to.folder, to.plain()?, RenameFlags::RENAME_NOREPLACE) {
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => self.link_new(to),
            renamed => Ok(renamed?),
        }
    }

    /// The same where a rename always replaces what has the name, as on NFS: a link does not.
    fn link_new(&self, to: &Entry) -> io::Result<()> {
        if self.meta()?.is_folder() {
            // There are no links to folders. A folder replaces nothing but an empty folder.
            return match to.is_free()? {
                false => Err(io::ErrorKind::AlreadyExists.into()),
                true => self.rename(to),
            };
        }
        let linked = linkat(&self.folder, self.plain()?, &to.folder, to.plain()?, AtFlags::empty());
        match linked {
            Ok(()) => {}
            // The answer of a server may get lost, and the link be asked for once more.
            Err(Errno::EEXIST) if self.is_same(to) => {}
            Err(Errno::EPERM | Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::EMLINK) => return self.claim_new(to),
            Err(e) => return Err(e.into()),
        }
        match self.remove_file() {
            // So may that of the removal.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) if linked.is_ok() && refuses(&e) && self.is_same(to) => {
                // The old name stays for certain.
                to.remove_file()?;
                Err(e)
            }
            removed => removed,
        }
    }

    /// The same for a file where there are no links either: an empty file takes the name first. A crash may leave that
    /// behind.
    fn claim_new(&self, to: &Entry) -> io::Result<()> {
        self.meta()?;
        let claimed = to.create_new()?;
        self.rename(to).inspect_err(|_| {
            // Where that went through and only its answer got lost, it is the file.
            let _ = to.give_up(&claimed);
        })
    }

    /// Removes the name if it is that of an empty file still.
    fn give_up(&self, claimed: &File) -> io::Result<()> {
        let known = self.meta()?;
        if known.size == 0 {
            self.remove_this(claimed, &known)?;
        }
        Ok(())
    }

    /// The same in one step, for names that nobody else gives: where a rename always replaces, the other name is looked for
    /// before it.
    pub(super) fn rename_over_none(&self, to: &Entry) -> io::Result<()> {
        match renameat2(&self.folder, self.plain()?, &to.folder, to.plain()?, RenameFlags::RENAME_NOREPLACE) {
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => match to.is_free()? {
                true => self.rename(to),
                false => Err(io::ErrorKind::AlreadyExists.into()),
            },
            renamed => Ok(renamed?),
        }
    }

    /// Whether both names stand for one file.
    pub fn is_same(&self, other: &Entry) -> bool {
        matches!((self.meta(), other.meta()), (Ok(one), Ok(other)) if one.is_same(&other))
    }

    /// # Errors
    /// Those of `unlinkat`; `NotFound` where nothing has the name.
    pub fn remove_file(&self) -> io::Result<()> {
        Ok(unlinkat(&self.folder, self.plain()?, UnlinkatFlags::NoRemoveDir)?)
    }

    /// Removes a file, or a folder with all that it holds. No link is followed: it goes itself.
    ///
    /// # Errors
    /// Those of `unlinkat`, `openat` and of reading folders; what went before one of them is gone.
    pub fn remove_all(&self) -> io::Result<()> {
        match self.meta()?.kind {
            Kind::Folder => remove_folder(self.folder.as_fd(), self.plain()?),
            _ => self.remove_file(),
        }
    }

    /// One component, so that it stays in its folder.
    fn plain(&self) -> nix::Result<&Path> {
        let name = self.name.as_encoded_bytes();
        match name.is_empty() || name.contains(&b'/') || name == b"." || name == b".." {
            true => Err(Errno::EINVAL),
            false => Ok(Path::new(&self.name)),
        }
    }
}

/// Listings of a folder after which it is to be empty, where nobody puts anything into it.
const LISTED_MAX: usize = 64;

/// Removes a folder with all that is in it, however deep: folders within folders are brought up to it first, so that neither
/// the stack nor a path nor the number of open files grows with the depth, which whoever made them chose.
pub(super) fn remove_folder(parent: impl AsFd, name: &Path) -> io::Result<()> {
    let top = open_folder(&parent, name)?;
    let mut brought_up = 0u64;
    // What is listed goes at once: whoever made the files chose how many. Listed until nothing is there: a folder that changes
    // while it is listed may be listed in part.
    let mut is_empty = false;
    while !is_empty {
        is_empty = true;
        for entry in Listing::of(open_folder(&parent, name)?)? {
            let entry = entry?;
            is_empty = false;
            let own = Path::new(&entry.name);
            if entry.kind != Kind::Folder {
                unless_gone(unlinkat(&top, own, UnlinkatFlags::NoRemoveDir))?;
                continue;
            }
            let folder = open_folder(&top, own)?;
            for tries in 1.. {
                empty_into(&folder, &top, &mut brought_up)?;
                match unlinkat(&top, own, UnlinkatFlags::RemoveDir) {
                    Err(Errno::ENOTEMPTY | Errno::EEXIST) if tries < LISTED_MAX => {}
                    removed => {
                        unless_gone(removed)?;
                        break;
                    }
                }
            }
        }
    }
    Ok(unlinkat(parent, name, UnlinkatFlags::RemoveDir)?)
}

/// Removes what is listed of a folder's files, and brings its folders up to the top, under names by number.
fn empty_into(folder: &OwnedFd, top: &OwnedFd, brought_up: &mut u64) -> io::Result<()> {
    // By a descriptor of its own, which begins at the folder's begin.
    for inner in Listing::of(open_folder(folder, Path::new("."))?)? {
        let inner = inner?;
        let name = Path::new(&inner.name);
        if inner.kind != Kind::Folder {
            unless_gone(unlinkat(folder, name, UnlinkatFlags::NoRemoveDir))?;
            continue;
        }
        // Who moves a folder must be able to write it.
        let _ = fchmodat(folder, name, Mode::S_IRWXU, FchmodatFlags::NoFollowSymlink);
        loop {
            *brought_up += 1;
            let up = PathBuf::from(format!("{brought_up}.up"));
            match renameat2(folder, name, top, &up, RenameFlags::RENAME_NOREPLACE) {
                Err(Errno::EEXIST) => {}
                moved => break unless_gone(moved)?,
            }
        }
    }
    Ok(())
}

/// Opens a folder and no link to one; one that its owner has closed to himself is opened to him.
fn open_folder(parent: impl AsFd, name: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let folder = match openat(&parent, name, flags, Mode::empty()) {
        Err(Errno::EACCES) => {
            fchmodat(&parent, name, Mode::S_IRWXU, FchmodatFlags::NoFollowSymlink)?;
            openat(&parent, name, flags, Mode::empty())?
        }
        opened => opened?,
    };
    // Its entries are to go, which takes the right to write it.
    let _ = fchmod(&folder, Mode::S_IRWXU);
    Ok(folder)
}

/// Somebody else may have been quicker.
fn unless_gone(done: nix::Result<()>) -> io::Result<()> {
    match done {
        Err(Errno::ENOENT) => Ok(()),
        done => Ok(done?),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Memory that this process has had at most, in KiB.
    fn peak_kib() -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[test]
    fn a_folder_goes_without_its_names_being_held_together() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        fs::create_dir_all(top.join("within")).unwrap();
        let file = top.join("file");
        fs::write(&file, "").unwrap();
        // 15 MiB of names, half of them one floor down.
        for number in 0..60_000 {
            let name = format!("{number:0>250}");
            let folder = if number % 2 == 0 { top.join("within") } else { top.clone() };
            fs::hard_link(&file, folder.join(name)).unwrap();
        }
        let before = peak_kib();
        crate::beneath::remove_all(&top).unwrap();
        assert!(!top.exists());
        assert!(peak_kib() - before < 4 << 10, "{} KiB more", peak_kib() - before);
    }

    type Rename = fn(&Entry, &Entry) -> io::Result<()>;

    fn folder(dir: &tempfile::TempDir) -> Arc<Folder> {
        Arc::new(Folder::top(dir.path()).unwrap())
    }

    #[test]
    fn a_folder_goes_however_deep_it_is_and_whatever_its_folders_allow() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        fs::create_dir(&top).unwrap();
        let mut at: OwnedFd = openat(nix::fcntl::AT_FDCWD, &top, OFlag::O_RDONLY, Mode::empty()).unwrap();
        for _ in 0..5_000 {
            nix::sys::stat::mkdirat(&at, "d", Mode::S_IRWXU).unwrap();
            at = openat(&at, "d", OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        }
        fs::create_dir_all(top.join("closed/within/it")).unwrap();
        fs::write(top.join("1.up"), "a name that is taken").unwrap();
        fs::set_permissions(top.join("closed"), std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
        // Less than the depth would take of a thread's stack.
        let removed = std::thread::Builder::new().stack_size(256 << 10).spawn(move || crate::beneath::remove_all(&top));
        removed.unwrap().join().unwrap().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_name_is_given_once_whichever_way_the_file_system_has() {
        let ways = [("rename", Entry::rename_new as Rename), ("link", Entry::link_new), ("claim", Entry::claim_new)];
        for (way, rename) in ways {
            let dir = tempfile::tempdir().unwrap();
            let top = folder(&dir);
            let place = |name: &str| dir.path().join(name);
            let to = top.entry("name");
            let names: Vec<String> = (0..16).map(|n| format!("part {n}")).collect();
            names.iter().for_each(|name| fs::write(place(name), name).unwrap());
            let start = std::sync::Barrier::new(names.len());
            let got: Vec<_> = std::thread::scope(|scope| {
                let give = |name: &String| {
                    start.wait();
                    (name.clone(), rename(&top.entry(name), &to))
                };
                let threads: Vec<_> = names.iter().map(|name| scope.spawn(move || give(name))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let (named, refused): (Vec<_>, Vec<_>) = got.into_iter().partition(|(_, renamed)| renamed.is_ok());
            assert_eq!(named.len(), 1, "by {way}");
            assert_eq!(fs::read_to_string(to.path()).unwrap(), named[0].0);
            assert!(!place(&named[0].0).exists(), "by {way}: it has one name");
            for (name, renamed) in refused {
                assert_eq!(renamed.unwrap_err().kind(), io::ErrorKind::AlreadyExists, "by {way}");
                assert_eq!(fs::read_to_string(place(&name)).unwrap(), name);
            }
            assert_eq!(rename(&top.entry("none"), &top.entry("new")).unwrap_err().kind(), io::ErrorKind::NotFound);
            assert!(!place("new").exists(), "by {way}: nothing is left of what failed");
        }
    }

    #[test]
    fn a_link_that_was_made_already_and_a_folder_get_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let top = folder(&dir);
        let place = |name: &str| dir.path().join(name);
        fs::write(place("part"), "it").unwrap();
        fs::hard_link(place("part"), place("file")).unwrap();
        top.entry("part").link_new(&top.entry("file")).unwrap();
        assert_eq!((place("part").exists(), fs::read_to_string(place("file")).unwrap()), (false, "it".into()));
        for rename in [Entry::rename_new as Rename, Entry::link_new] {
            let (own, taken, free) = (top.entry("folder"), top.entry("file"), top.entry("moved"));
            fs::create_dir(place("folder")).unwrap();
            assert_eq!(rename(&own, &taken).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            rename(&own, &free).unwrap();
            fs::create_dir(place("folder")).unwrap();
            assert_eq!(rename(&own, &free).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            fs::remove_dir(place("folder")).unwrap();
            fs::remove_dir(place("moved")).unwrap();
        }
    }

    /// Does it as one who may not do whatever he likes.
    fn as_anybody(does: impl FnOnce() + Send) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Of this thread alone, and to no effect where the tests are anybody's.
                nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65_534));
                does();
            });
        });
    }

    #[test]
    fn what_may_not_leave_its_folder_has_its_old_name_alone() {
        use std::os::unix::fs::PermissionsExt as _;

        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        let mode = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        ["from", "to"].iter().for_each(|name| fs::create_dir(place(name)).unwrap());
        fs::write(place("from/a.mov"), "it").unwrap();
        for (name, allows) in [("", 0o755), ("from/a.mov", 0o666), ("from", 0o555), ("to", 0o777)] {
            mode(&place(name), allows);
        }
        as_anybody(|| {
            let top = |name| Arc::new(Folder::top(&place(name)).unwrap());
            for rename in [Entry::rename_new as Rename, Entry::link_new, Entry::claim_new] {
                let refused = rename(&top("from").entry("a.mov"), &top("to").entry("b.mov")).unwrap_err();
                assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
                assert!(place("from/a.mov").exists() && !place("to/b.mov").exists());
            }
        });
        mode(&place("from"), 0o755);
    }

    #[test]
    fn only_the_empty_file_that_took_a_name_gives_it_up() {
        let dir = tempfile::tempdir().unwrap();
        let to = folder(&dir).entry("name");
        to.give_up(&to.create_new().unwrap()).unwrap();
        assert!(to.is_free().unwrap());
        // The rename that went through, and whose answer got lost.
        let claimed = to.create_new().unwrap();
        fs::write(dir.path().join("part"), "").unwrap();
        fs::rename(dir.path().join("part"), to.path()).unwrap();
        to.give_up(&claimed).unwrap();
        assert!(!to.is_free().unwrap());
    }

    #[test]
    fn what_is_removed_and_made_anew_is_the_name_and_not_what_a_link_points_at() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (top, kept) = (folder(&dir), outside.path().join("kept"));
        fs::write(&kept, "kept").unwrap();
        fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("a/b/out")).unwrap();
        std::os::unix::fs::symlink(&kept, dir.path().join("part")).unwrap();
        io::Write::write_all(&mut top.entry("part").create().unwrap(), b"new").unwrap();
        assert!(top.entry("part").meta().unwrap().is_file());
        top.entry("a").remove_all().unwrap();
        assert!(top.entry("a").is_free().unwrap());
        assert_eq!(fs::read_to_string(&kept).unwrap(), "kept");
        for name in ["", ".", "..", "../x", "a/b", "/x"] {
            assert!(top.entry(name).create().is_err() && top.entry(name).remove_all().is_err(), "{name}");
        }
    }
}
