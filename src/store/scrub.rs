//! The scrub: everything that lies in the state file and the archives is read from the disk once within a day, in small
//! pieces with pauses between them, so that damage is told while there is a backup, and not when somebody needs what is
//! damaged.
//!
//! It looks at blocks, where the disk has them, past every cache. A crash may leave blocks behind whose data and checksum do not
//! belong together and which nothing leads to: so where a block is not as it was written, redb walks all of the file, of
//! which nothing is written meanwhile. Where it comes to its end, such blocks are nobody's, and get the checksum of what
//! is in them; where it does not, that is damage.
//!
//! The journal is not looked at: all of it is read and verified at each opening, and what is in it is in the state file
//! within a second.

use std::collections::VecDeque;
use std::time::Duration;

use conveyor_base::Fault;
use rkyv::util::AlignedVec;

use super::blocks::{BLOCK_BYTES, Blocks, Shadow};
use super::disk::file_fault;
use super::engine::Engine;

/// How long one pass takes: less than a day, since it waits for others.
const PASS: Duration = Duration::from_secs(20 * 3600);
/// How much is read at a time.
const STEP_BLOCKS: u64 = 64;
/// Nothing waits for it: it looks around again this often where there is little to read.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// A file that it reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum File {
    State,
    /// The archive of that day.
    Day(u32),
}

/// How far it is.
#[derive(Default)]
pub(super) struct Scrub {
    to_do: VecDeque<File>,
    /// The file it is at, and the next block.
    at: Option<(File, u64)>,
    steps: u32,
}

impl Scrub {
    /// Reads the next piece. Says how long to wait then. What it finds is told as damage; errors of other kinds are left to
    /// whoever needs the file.
    pub fn turn(&mut self, engine: &Engine) -> Duration {
        if self.at.is_none() {
            self.next_file(engine);
        }
        if let Some((file, from)) = self.at {
            self.at = match engine.scrub(file, from) {
                Ok(Some(next)) => Some((file, next)),
                Ok(None) => None,
                Err(fault) => {
                    engine.damages.note(&fault);
                    None
                }
            };
        }
        (PASS / self.steps.max(1)).min(PAUSE_MAX)
    }

    fn next_file(&mut self, engine: &Engine) {
        if self.to_do.is_empty() {
            self.to_do.push_back(File::State);
            self.to_do.extend(engine.archives.days().into_iter().flatten().map(File::Day));
            let blocks = |file: &File| engine.blocks_of(*file).ok().flatten().and_then(|blocks| blocks.count().ok());
            let steps = self.to_do.iter().map(|file| blocks(file).unwrap_or(0) / STEP_BLOCKS + 1).sum::<u64>();
            self.steps = u32::try_from(steps).unwrap_or(u32::MAX);
        }
        self.at = self.to_do.pop_front().map(|file| (file, 0));
    }
}

impl Engine {
    /// Everything at once, for whoever does not want to wait a day: tests, and the simulator.
    pub fn scrub_all(&self) {
        let mut scrub = Scrub::default();
        scrub.turn(self);
        while scrub.at.is_some() || !scrub.to_do.is_empty() {
            scrub.turn(self);
        }
    }

    fn blocks_of(&self, file: File) -> Result<Option<Blocks>, Fault> {
        match file {
            File::State => Ok(self.state_file()),
            File::Day(day) => self.archives.blocks(day),
        }
    }

    /// Looks at some blocks of a file. Says where to go on; `None` at the end.
    fn scrub(&self, file: File, from: u64) -> Result<Option<u64>, Fault> {
        let Some(blocks) = self.blocks_of(file)? else { return Ok(None) };
        let name = blocks.name().to_owned();
        let fault = file_fault(&*self.disk, &name);
        let count = blocks.count().map_err(&fault)?;
        let number = STEP_BLOCKS.min(count.saturating_sub(from));
        let raw = self.disk.open_uncached(&name).map_err(&fault)?;
        let mut suspects = blocks.suspects(&*raw, from, number).map_err(&fault)?;
        // One that was being written while it was read is as it should be the next time.
        suspects.retain(|block| blocks.suspects(&*raw, *block, 1).is_ok_and(|again| !again.is_empty()));
        if !suspects.is_empty() {
            match file {
                File::State => self.walk_state(&suspects)?,
                File::Day(day) => self.archives.walk(day, &suspects)?,
            }
        }
        Ok(Some(from + number).filter(|next| *next < count && number > 0))
    }
}

/// Has redb walk all that there is of a file which nobody writes. Where it comes to its end the suspects are nobody's.
pub(super) fn walk(blocks: &Blocks, suspects: &[u64]) -> Result<(), redb::Error> {
    let mut database = redb::Builder::new().create_with_backend(Shadow::of(blocks.clone()))?;
    database.check_integrity()?;
    blocks.accept(suspects)?;
    Ok(())
}

/// Memory that reads past the page cache accept.
pub(super) fn aligned_block() -> AlignedVec<BLOCK_BYTES> {
    let mut block = AlignedVec::new();
    block.resize(BLOCK_BYTES, 0);
    block
}
