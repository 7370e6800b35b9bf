//! A share as the kernel sees it: file system, space, and whether it is another machine's.
//!
//! A server that is gone can hold every look at its share for ever. So each look runs on a thread of its own, and what
//! has not answered in time is said to be so; such a thread ends when the server returns or the process ends.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;
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
        let looks: Vec<_> = shares
            .iter()
            .map(|(name, path)| {
                let (answer, waits) = mpsc::channel();
                let place = path.clone();
                thread::spawn(move || {
                    // The asker may have given up; then nobody wants the answer.
                    let _ = answer.send(file_system(&place));
                });
                (name, path, waits)
            })
            .collect();
        let share = |(name, path, waits): (&String, &PathBuf, mpsc::Receiver<Result<FileSystem, String>>)| {
            let file_system = match waits.recv_timeout(ANSWERS_WITHIN) {
                Ok(answer) => Probed::from(answer),
                Err(_) => Probed::unknown(format!(
                    "it did not answer within {} s; is its server up?",
                    ANSWERS_WITHIN.as_secs()
                )),
            };
            Share { name: name.clone(), path: path.clone(), file_system }
        };
        looks.into_iter().map(share).collect()
    }
}

fn file_system(path: &Path) -> Result<FileSystem, String> {
    let real = path.canonicalize().map_err(|error| error.to_string())?;
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
}
