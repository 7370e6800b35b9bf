//! A share as the kernel sees it: file system, space, and whether it is another machine's.
//!
//! A server that is gone can hold every look at its share for ever. So each look runs on a thread of its own, and what
//! has not answered in time is said to be so; such a thread ends when the server returns or the process ends. Invariant:
//! a path is looked at once at a time in this process, so that a share that hangs costs one thread, however often
//! somebody asks.

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, thread};

use nix::sys::statvfs::statvfs;
use serde::Serialize;

use crate::probed::Probed;

const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// File systems whose files are on another machine.
const NETWORK: &[&str] = &[
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "virtiofs",
    "ceph",
    "lustre",
    "glusterfs",
    "beegfs",
    "afs",
    "gpfs",
    "ocfs2",
    "gfs2",
    "orangefs",
    "ncpfs",
    "davfs",
];
/// FUSE's kinds are named `fuse.<program>`.
const NETWORK_FUSE: &[&str] =
    &["sshfs", "glusterfs", "rclone", "s3fs", "ceph", "moosefs", "mfs", "juicefs", "goofys", "smbnetfs", "curlftpfs"];

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Share {
    pub name: String,
    pub path: PathBuf,
    pub file_system: Probed<FileSystem>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FileSystem {
    /// As the kernel names it: `ext4`, `nfs4`, `cifs`.
    pub kind: String,
    /// The device or the server's export.
    pub source: String,
    pub mounted_at: PathBuf,
    /// Whether the files are on another machine, whose changes raise no events here.
    pub network: bool,
    /// Whether this mount takes no writes.
    pub read_only: bool,
    /// In bytes.
    pub total: u64,
    /// What this user may still write, in bytes.
    pub free: u64,
}

impl Share {
    /// Looks at several shares at once.
    pub fn read_all(shares: &[(String, PathBuf)]) -> Vec<Share> {
        static LOOKS: Looks = Looks(Mutex::new(BTreeMap::new()));
        LOOKS.read_all(shares, file_system, ANSWERS_WITHIN)
    }
}

type Answer = Result<FileSystem, String>;

/// The looks that are under way, by path. Whoever asks meanwhile waits for the answer of the same one.
struct Looks(Mutex<BTreeMap<PathBuf, Arc<Look>>>);

struct Look {
    begun: Instant,
    answer: Mutex<Option<Answer>>,
    answered: Condvar,
}

impl Looks {
    fn read_all(
        &'static self,
        shares: &[(String, PathBuf)],
        look: fn(&Path) -> Answer,
        within: Duration,
    ) -> Vec<Share> {
        let looks: Vec<_> = shares.iter().map(|(_, path)| self.look_at(path, look)).collect();
        let share = |((name, path), look): (&(String, PathBuf), Arc<Look>)| {
            let file_system = match look.wait(within) {
                Some(answer) => Probed::from(answer),
                None => Probed::unknown(format!("it did not answer within {} s; is its server up?", within.as_secs())),
            };
            Share { name: name.clone(), path: path.clone(), file_system }
        };
        shares.iter().zip(looks).map(share).collect()
    }

    /// The look at a path that is under way, or a new one.
    fn look_at(&'static self, path: &Path, look: fn(&Path) -> Answer) -> Arc<Look> {
        let mut under_way = locked(&self.0);
        if let Some(known) = under_way.get(path) {
            return known.clone();
        }
        let begun = Arc::new(Look { begun: Instant::now(), answer: Mutex::new(None), answered: Condvar::new() });
        let (place, told) = (path.to_owned(), begun.clone());
        let work = move || {
            let answer = catch_unwind(|| look(&place)).unwrap_or_else(|_| Err("the look at it broke off".to_owned()));
            // Whoever asks from here on looks again.
            locked(&self.0).remove(&place);
            told.tell(answer);
        };
        match thread::Builder::new().name("share".into()).spawn(work) {
            Ok(_) => drop(under_way.insert(path.to_owned(), begun.clone())),
            Err(error) => begun.tell(Err(format!("it cannot be looked at: {error}"))),
        }
        begun
    }
}

impl Look {
    fn tell(&self, answer: Answer) {
        *locked(&self.answer) = Some(answer);
        self.answered.notify_all();
    }

    /// The answer, unless the look has taken longer than that since it began.
    fn wait(&self, within: Duration) -> Option<Answer> {
        let left = within.saturating_sub(self.begun.elapsed());
        let waited = self.answered.wait_timeout_while(locked(&self.answer), left, |answer| answer.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.clone()
    }
}

/// What the lock guards is whole also after a panic.
fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

fn file_system(path: &Path) -> Result<FileSystem, String> {
    let real = path.canonicalize().map_err(|error| error.to_string())?;
    if !real.is_dir() {
        return Err("it is no folder".to_owned());
    }
    let mounts =
        fs::read_to_string("/proc/self/mountinfo").map_err(|error| format!("/proc/self/mountinfo: {error}"))?;
    let mount = mount_of(&mounts, &real).ok_or("the kernel lists no mount that it lies on")?;
    let space = statvfs(&real).map_err(|error| error.desc().to_owned())?;
    let block = space.fragment_size();
    Ok(FileSystem {
        network: is_network(&mount.kind),
        kind: mount.kind,
        source: mount.source,
        mounted_at: mount.at,
        read_only: space.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY),
        total: space.blocks() * block,
        free: space.blocks_available() * block,
    })
}

#[derive(Debug, PartialEq)]
struct Mount {
    at: PathBuf,
    kind: String,
    source: String,
}

/// The mount that a path lies on: the deepest, and of those at one place the last, which hides the others.
fn mount_of(mountinfo: &str, path: &Path) -> Option<Mount> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (place, rest) = line.split_once(" - ")?;
        let at = PathBuf::from(unescape(place.split(' ').nth(4)?));
        let mut rest = rest.split(' ');
        Some(Mount { at, kind: rest.next()?.to_owned(), source: unescape(rest.next()?) })
    });
    mounts.filter(|mount| path.starts_with(&mount.at)).max_by_key(|mount| mount.at.components().count())
}

/// The kernel writes blanks and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                plain.push(char::from(code));
                plain.push_str(&part[3..]);
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

fn is_network(kind: &str) -> bool {
    let fuse = kind.strip_prefix("fuse.");
    NETWORK.contains(&kind) || fuse.is_some_and(|program| NETWORK_FUSE.contains(&program))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
40 22 0:35 / /mnt/nas rw,relatime shared:20 - nfs4 nas:/export/video\\040files rw,vers=4.2
41 40 0:36 / /mnt/nas/in\\040box rw - cifs //nas/in rw
42 22 0:37 / /mnt/nas rw - fuse.sshfs me@host:/ rw
";

    #[test]
    fn a_path_lies_on_the_deepest_mount_and_the_one_on_top() {
        let on = |path: &str| mount_of(MOUNTS, Path::new(path)).unwrap();
        assert_eq!(on("/srv/x").kind, "ext4");
        assert_eq!(on("/mnt/nas/in box/a").source, "//nas/in");
        assert_eq!(on("/mnt/nas/a").kind, "fuse.sshfs");
        assert_eq!(on("/mnt/nasty").kind, "ext4", "a name that only begins alike is another folder");
        assert!(["nfs4", "cifs", "fuse.sshfs"].iter().all(|kind| is_network(kind)));
        assert!(["ext4", "xfs", "fuse.ntfs", "tmpfs"].iter().all(|kind| !is_network(kind)));
    }

    #[test]
    fn a_missing_folder_is_a_line_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let shares =
            Share::read_all(&[("here".into(), folder.path().into()), ("gone".into(), folder.path().join("no"))]);
        let here = shares[0].file_system.known().unwrap();
        assert!(here.total >= here.free && here.free > 0, "{here:?}");
        assert!(shares[1].file_system.why().unwrap().contains("No such file"), "{:?}", shares[1]);
    }

    #[test]
    fn a_share_that_hangs_is_looked_at_once_however_often_it_is_asked_for() {
        use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
        static LOOKS: Looks = Looks(Mutex::new(BTreeMap::new()));
        static BEGUN: AtomicUsize = AtomicUsize::new(0);
        // Who holds it plays the server that is away.
        static SERVER: Mutex<()> = Mutex::new(());
        fn hung(_: &Path) -> Answer {
            BEGUN.fetch_add(1, SeqCst);
            drop(locked(&SERVER));
            Err("it is back".to_owned())
        }
        let away = locked(&SERVER);
        let shares = [("nas".to_owned(), PathBuf::from("/nas")), ("again".to_owned(), PathBuf::from("/nas"))];
        for _ in 0..50 {
            let read = LOOKS.read_all(&shares, hung, Duration::from_millis(20));
            assert!(read.iter().all(|share| share.file_system.why().unwrap().contains("did not answer")), "{read:?}");
        }
        assert_eq!(BEGUN.load(SeqCst), 1);
        drop(away);
        while !locked(&LOOKS.0).is_empty() {}
        let read = LOOKS.read_all(&shares, hung, Duration::from_secs(60));
        assert!(read.iter().all(|share| share.file_system.why() == Some("it is back")), "{read:?}");
        assert!(BEGUN.load(SeqCst) > 1, "what answers is looked at anew");
    }
}
