//! Section `shares`: reading and writing on the configured shares themselves, in a hidden folder of this run's own.
//!
//! Caches. Whole blocks are written and read with O_DIRECT where the file system takes it, and so go to the disk or the
//! server. Where it does not, what was written is synced and dropped from this machine's cache before it is read
//! (`posix_fadvise`, DONTNEED), and the section says so; a server's own cache stays in the way, and that is said too.
//!
//! Invariants: never more than a twentieth of what is free, and nothing at all below a gigabyte; every file lies in the
//! hidden folder, which is removed when the run ends, is stopped, or fails.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use conveyor_hw::{Probed, Share};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::libc::O_DIRECT;

use super::report::{Mode, Row, Section, SectionKind};
use super::statistics::{Better, percentile};
use super::work::{Scratch, Stop, Work};

const BLOCK: usize = 1 << 20;
const FREE_MIN: u64 = 1 << 30;
const SMALL_BYTES: usize = 16 << 10;

/// Memory that O_DIRECT takes: a whole block, aligned, on the heap.
struct Block {
    room: Vec<u8>,
    from: usize,
}

impl Block {
    fn new() -> Block {
        const PAGE: usize = 4_096;
        let room = vec![0; BLOCK + PAGE];
        let from = room.as_ptr().align_offset(PAGE).min(PAGE);
        Block { room, from }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.room[self.from..self.from + BLOCK]
    }
}

/// How much and how long, for one share.
#[derive(Clone, Copy)]
struct Extent {
    repetitions: usize,
    /// Longest that writing one file goes on.
    write_max: Duration,
    bytes_max: u64,
    small_files: usize,
    syncs: usize,
}

fn extent(mode: Mode) -> Extent {
    Extent {
        repetitions: mode.pick(3, 5),
        write_max: Duration::from_millis(mode.pick(350, 5_000)),
        bytes_max: mode.pick(128 << 20, 4 << 30),
        small_files: mode.pick(100, 1_000),
        syncs: mode.pick(60, 500),
    }
}

/// A share as it is measured.
struct Place {
    name: String,
    path: PathBuf,
    says: Vec<String>,
    direct: bool,
    extent: Extent,
    stop: Stop,
}

pub fn expected_seconds(mode: Mode, shares: usize) -> f64 {
    mode.pick(5.0, 90.0) * shares as f64
}

pub async fn measure(work: &Work, shares: &[(String, PathBuf)]) -> Section {
    let mut section = Section::new(SectionKind::Shares);
    let mut seen: Vec<(u64, String)> = Vec::new();
    for share in Share::read_all(shares) {
        let system = match &share.file_system {
            Probed::Known(system) => system,
            other => {
                section.say(format!("{}: {}", share.name, other.why().unwrap_or("cannot be looked at")));
                continue;
            }
        };
        let device = std::fs::metadata(&share.path).map_or(0, |m| m.dev());
        if let Some((_, other)) = seen.iter().find(|(known, _)| *known == device) {
            section.say(format!("{}: the same file system as {other}, measured there", share.name));
            continue;
        }
        seen.push((device, share.name.clone()));
        if system.read_only || system.free < FREE_MIN {
            let why = if system.read_only { "is mounted read-only" } else { "has less than 1 GiB free" };
            section.say(format!("{}: not measured, since {} {why}", share.name, share.path.display()));
            continue;
        }
        let mut extent = extent(work.mode);
        extent.bytes_max = extent.bytes_max.min(system.free / 20) / BLOCK as u64 * BLOCK as u64;
        let mut says = Vec::new();
        if system.network {
            says.push(format!(
                "{}: {} on {}: the server's cache may answer reads",
                share.name, system.kind, system.source
            ));
        }
        let (name, path) = (share.name.clone(), share.path.clone());
        let place = Place { name, path, says, direct: false, extent, stop: work.stop() };
        let measuring = tokio::task::spawn_blocking(move || place.measure());
        let doing = format!("share {} ({})", share.name, system.kind);
        match work.step(&doing, expected_seconds(work.mode, 1), measuring).await {
            Ok(Ok((rows, says))) => {
                section.rows.extend(rows);
                section.says.extend(says);
            }
            Ok(Err(error)) => section.say(format!("{}: {}: {error}", share.name, share.path.display())),
            Err(error) => section.say(format!("{}: the measurement broke off: {error}", share.name)),
        }
    }
    if shares.is_empty() {
        section.say("No shares are configured; name a configuration with --config to measure them.");
    }
    section
}

impl Place {
    fn measure(mut self) -> io::Result<(Vec<Row>, Vec<String>)> {
        let scratch = Scratch::make(&self.path)?;
        let folder = scratch.path();
        self.direct = open(&folder.join("probe"), true, true).is_ok();
        if !self.direct {
            self.says.push(format!(
                "{}: takes no O_DIRECT; what was written is dropped from this machine's cache before it is read",
                self.name
            ));
        }
        let rows = vec![self.sequential(folder)?, self.small(folder)?, self.syncs(folder)?];
        Ok((rows, self.says))
    }

    fn row(&self, key: &str, name: &str) -> Row {
        Row::new(format!("{}/{key}", self.name), format!("{}: {name}", self.name))
    }

    fn sequential(&self, folder: &Path) -> io::Result<Row> {
        let (mut writes, mut reads) = (Vec::new(), Vec::new());
        for n in 0..self.extent.repetitions {
            let path = folder.join(format!("whole-{n}"));
            let (bytes, seconds) = self.write_whole(&path, n)?;
            writes.push(bytes as f64 / 1e6 / seconds);
            let (bytes, seconds) = self.read_whole(&path)?;
            reads.push(bytes as f64 / 1e6 / seconds);
            std::fs::remove_file(path)?;
        }
        let row = self.row("sequential", "large files");
        Ok(row.with("write", "MB/s", Better::Higher, writes).with("read", "MB/s", Better::Higher, reads))
    }

    /// Until the time or the room is over; the sync counts.
    fn write_whole(&self, path: &Path, seed: usize) -> io::Result<(u64, f64)> {
        let file = open(path, true, self.direct)?;
        let mut block = Block::new();
        // Nothing that a disk or a server could compress or find twice.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ (seed as u64 + 1) << 32;
        let mut refill = |block: &mut [u8]| {
            for chunk in block.chunks_exact_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                chunk.copy_from_slice(&state.to_ne_bytes());
            }
        };
        let (mut written, mut seconds) = (0, 0.0);
        while written < self.extent.bytes_max && seconds < self.extent.write_max.as_secs_f64() {
            self.stop.check()?;
            refill(block.bytes());
            let begun = Instant::now();
            file.write_all_at(block.bytes(), written)?;
            seconds += begun.elapsed().as_secs_f64();
            written += BLOCK as u64;
        }
        let begun = Instant::now();
        file.sync_all()?;
        Ok((written, seconds + begun.elapsed().as_secs_f64()))
    }

    fn read_whole(&self, path: &Path) -> io::Result<(u64, f64)> {
        let file = open(path, false, self.direct)?;
        if !self.direct {
            posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        }
        let (length, mut at) = (file.metadata()?.len(), 0);
        let mut block = Block::new();
        let begun = Instant::now();
        while at < length {
            self.stop.check()?;
            let read = file.read_at(block.bytes(), at)?;
            if read == 0 {
                break;
            }
            at += read as u64;
        }
        Ok((at, begun.elapsed().as_secs_f64()))
    }

    /// Playlists, thumbnails and segments: make, sync, read, remove.
    fn small(&self, folder: &Path) -> io::Result<Row> {
        let (mut made, mut read) = (Vec::new(), Vec::new());
        let count = self.extent.small_files / self.extent.repetitions;
        for n in 0..self.extent.repetitions {
            let paths: Vec<PathBuf> = (0..count).map(|i| folder.join(format!("small-{n}-{i}"))).collect();
            let begun = Instant::now();
            for path in &paths {
                self.stop.check()?;
                let mut file = File::create(path)?;
                file.write_all(&[n as u8 + 1; SMALL_BYTES])?;
                file.sync_all()?;
            }
            made.push(count as f64 / begun.elapsed().as_secs_f64());
            let files = paths.iter().map(File::open).collect::<io::Result<Vec<File>>>()?;
            for file in &files {
                posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
            }
            drop(files);
            let begun = Instant::now();
            for path in &paths {
                let mut bytes = Vec::with_capacity(SMALL_BYTES);
                File::open(path)?.read_to_end(&mut bytes)?;
            }
            read.push(count as f64 / begun.elapsed().as_secs_f64());
            paths.iter().try_for_each(std::fs::remove_file)?;
        }
        let row = self.row("small", "files of 16 KiB");
        Ok(row.with("write", "files/s", Better::Higher, made).with("read", "files/s", Better::Higher, read))
    }

    fn syncs(&self, folder: &Path) -> io::Result<Row> {
        let file = File::create(folder.join("synced"))?;
        let (mut middle, mut slow) = (Vec::new(), Vec::new());
        for _ in 0..self.extent.repetitions {
            let mut times = Vec::new();
            for n in 0..self.extent.syncs / self.extent.repetitions {
                self.stop.check()?;
                let begun = Instant::now();
                file.write_all_at(&[7; 4096], n as u64 * 4096)?;
                file.sync_data()?;
                times.push(begun.elapsed().as_secs_f64() * 1e3);
            }
            times.sort_by(f64::total_cmp);
            middle.push(percentile(&times, 50));
            slow.push(percentile(&times, 95));
        }
        let row = self.row("fsync", "4 KiB and fdatasync");
        Ok(row.with("p50", "ms", Better::Lower, middle).with("p95", "ms", Better::Lower, slow))
    }
}

fn open(path: &Path, write: bool, direct: bool) -> io::Result<File> {
    let flags = if direct { O_DIRECT } else { 0 };
    OpenOptions::new().read(!write).write(write).create(write).custom_flags(flags).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Stopper;

    fn place(path: &Path, stop: Stop) -> Place {
        let extent = Extent {
            repetitions: 2,
            write_max: Duration::from_secs(5),
            bytes_max: 2 * BLOCK as u64,
            small_files: 4,
            syncs: 4,
        };
        Place { name: "in".into(), path: path.into(), says: Vec::new(), direct: false, extent, stop }
    }

    #[test]
    fn a_share_is_measured_and_left_as_it_was_also_when_stopped() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("film.mp4"), "mine").unwrap();
        let names = || std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
        let stopper = Stopper::default();
        let (rows, _) = place(dir.path(), stopper.stop()).measure().unwrap();
        assert_eq!(
            rows.iter().map(|row| row.key.as_str()).collect::<Vec<_>>(),
            ["in/sequential", "in/small", "in/fsync"]
        );
        assert!(rows.iter().all(|row| row.figures.len() == 2 && row.figures.iter().all(|f| f.samples.len() == 2)));
        assert_eq!(names(), ["film.mp4"]);
        let stop = stopper.stop();
        drop(stopper);
        assert!(place(dir.path(), stop).measure().is_err(), "nobody waits any more");
        assert_eq!(names(), ["film.mp4"]);
    }
}
