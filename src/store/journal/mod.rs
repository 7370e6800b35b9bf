//! The journal: batches of commits under ever-growing numbers, each durable before it is acknowledged.
//!
//! ```text
//! journal-0.log [##########]   full: free again once the state file has its newest batch
//! journal-1.log [######....]   current
//! journal-2.log [..........]   free
//! ```
//!
//! A commit is one write into a file that has its full size already: no length, no block of the file system changes
//! with it, so the disk has one thing to do. When the current file is full the next free one is taken, and where none
//! is free a new one is made.
//!
//! Every sector says whether it is as it was written ([`sector`]): a batch that the power cut is told from one that has rotted.
//!
//! Invariants: one batch is under way at a time, so that only the newest can be torn; a batch is replayed whole or
//! not at all; batches are replayed in the order of their numbers, without a gap; nothing that the state file lacks
//! is overwritten.

mod form1;
mod sector;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(super) use self::sector::StoreId;
use conveyor_base::{Fault, fault};

use self::sector::Frame;
use self::segment::{BLOCK_BYTES, Damage, Segment};
use super::disk::{Backends, JOURNAL_PREFIX, JOURNAL_SUFFIX, REPAIR};

/// Free files that stay: the next burst finds them ready.
const FREE_KEPT: usize = 2;
/// Memory that the form of a batch may keep between two of them.
const FRAME_BYTES_KEPT: usize = 8 << 20;

pub(super) struct Journal {
    disk: Arc<dyn Backends>,
    store_id: StoreId,
    /// Size of a new file. A batch that needs more gets a larger file.
    segment_bytes: u64,
    /// Never empty; the first is the current one.
    segments: Vec<Segment>,
    frame: Frame,
}

/// What a crash left: batch numbers with their records.
pub(super) type Tail = BTreeMap<u64, Vec<u8>>;

impl Journal {
    /// Makes an empty journal that belongs to the store of that id.
    pub fn create(disk: &dyn Backends, store_id: StoreId, segment_bytes: u64) -> Result<(), Fault> {
        Segment::create(disk, name(0), store_id, whole(segment_bytes)).map(drop)
    }

    /// Opens the journal, and reads what the state file, which has the batches up to `applied`, lacks.
    pub fn open(
        disk: Arc<dyn Backends>,
        store_id: StoreId,
        segment_bytes: u64,
        applied: u64,
    ) -> Result<(Journal, Tail), Fault> {
        let mut tail = Tail::new();
        let mut segments = Vec::new();
        let mut damages = Vec::new();
        for name in names(&*disk)? {
            let (mut segment, owner) = Segment::open(&*disk, name, Some(store_id))?;
            if owner != store_id {
                return Err(Fault::fatal_plain(format!(
                    "{} in {} is of another store; restore all files from the same backup",
                    segment.name,
                    disk.place()
                )));
            }
            let damage =
                segment.scan(&*disk, store_id, applied, |number, records| drop(tail.insert(number, records)))?;
            damages.push((segment.name.clone(), damage));
            segments.push(segment);
        }
        segments.sort_by_key(|segment| std::cmp::Reverse(segment.newest));
        let journal = Journal { disk, store_id, segment_bytes: whole(segment_bytes), segments, frame: Frame::new() };
        journal.check_tail(applied, &tail, &damages)?;
        for segment in &journal.segments {
            let rotten =
                damages.iter().filter(|(name, _)| *name == segment.name).flat_map(|(_, damage)| &damage.rotten);
            segment.blank(&*journal.disk, &rotten.copied().collect::<Vec<_>>())?;
        }
        Ok((journal, tail))
    }

    /// A batch that is missing or damaged while later ones are there was not torn by a crash, and neither was one of which
    /// something has rotted.
    fn check_tail(&self, applied: u64, tail: &Tail, damages: &[(String, Damage)]) -> Result<(), Fault> {
        let place = self.disk.place();
        if self.segments.is_empty() {
            return Err(Fault::fatal_plain(format!("the journal in {place} has no file")));
        }
        let lost =
            |what: String| Err(Fault::damaged_plain(format!("{what}: acknowledged work would be lost; {REPAIR}")));
        let newest = tail.keys().next_back().copied().unwrap_or(applied);
        for (name, damage) in damages {
            if let Some((number, byte)) = damage.batches.iter().find(|(number, _)| !tail.contains_key(number)) {
                return lost(format!("batch {number} of the journal in {place} is damaged ({name}, byte {byte})"));
            }
        }
        // Only the newest can be one that the power cut.
        let torn = damages.iter().flat_map(|(_, damage)| &damage.torn).copied();
        let known = newest.max(torn.max().unwrap_or(0).saturating_sub(1));
        if let Some(missing) = (applied + 1..=known).find(|number| !tail.contains_key(number)) {
            return lost(format!(
                "batch {missing} of the journal in {place} is damaged or missing, and later ones are there"
            ));
        }
        // The next batch goes behind the newest one, or to the front of another file.
        for segment in &self.segments {
            let of = damages.iter().find(|(name, _)| *name == segment.name);
            for byte in of.into_iter().flat_map(|(_, damage)| damage.unknown.iter().copied()) {
                let front = byte == BLOCK_BYTES as u64;
                if (segment.newest == newest && byte == segment.end) || (front && segment.newest <= applied) {
                    return lost(format!(
                        "{} in {place} is damaged at byte {byte}, where the newest batch of the journal may have been",
                        segment.name
                    ));
                }
            }
        }
        Ok(())
    }

    /// Appends one batch of records; durable when it returns. Batches up to `cut` are in the state file.
    pub fn append(&mut self, number: u64, records: &[&[u8]], cut: u64) -> Result<(), Fault> {
        self.frame.fill(number, records);
        if !self.segments[0].has_room(&self.frame) {
            self.turn_to_next(cut)?;
        }
        let current = &mut self.segments[0];
        current.append(number, &mut self.frame).map_err(|e| {
            let name = &current.name;
            Fault::fatal(format!("the journal's {name} failed; restart to recover what was acknowledged"), e)
        })?;
        self.frame.shrink_to(FRAME_BYTES_KEPT);
        Ok(())
    }

    fn turn_to_next(&mut self, cut: u64) -> Result<(), Fault> {
        for place in 0..self.segments.len() {
            let segment = &mut self.segments[place];
            if segment.newest <= cut && !segment.is_old() {
                segment.rewind();
                if segment.has_room(&self.frame) {
                    self.segments.swap(0, place);
                    return Ok(());
                }
            }
        }
        let unused = (0..).map(name).find(|name| self.segments.iter().all(|s| s.name != *name));
        let bytes = self.segment_bytes.max(self.frame.len() + BLOCK_BYTES as u64);
        let made = Segment::create(&*self.disk, unused.unwrap_or_default(), self.store_id, bytes)?;
        self.segments.insert(0, made);
        Ok(())
    }

    /// Removes files that only a burst needed, at leisure: when nothing is being appended.
    pub fn tidy(&mut self, cut: u64) -> Result<(), Fault> {
        let mut kept = 0;
        let mut place = 1;
        while place < self.segments.len() {
            let segment = &self.segments[place];
            let usual = segment.bytes == self.segment_bytes && !segment.is_old();
            if segment.newest > cut || (usual && kept < FREE_KEPT) {
                kept += usize::from(segment.newest <= cut);
                place += 1;
                continue;
            }
            let name = self.segments.remove(place).name;
            let fault = |e| Fault::fatal(format!("{}/{name} cannot be removed", self.disk.place()), e);
            self.disk.remove(&name).map_err(fault)?;
        }
        Ok(())
    }
}

/// What can still be read of a journal.
pub(super) struct Salvaged {
    /// Whose it is, where that was not known.
    pub store_id: Option<StoreId>,
    /// Batches that are whole.
    pub batches: Tail,
    /// Batches of which something has rotted.
    pub damaged: BTreeSet<u64>,
    /// The newest number of all.
    pub newest: u64,
    /// What else is wrong, each a sentence.
    pub problems: Vec<String>,
}

/// Reads whatever there is of the journal.
pub(super) fn salvage(disk: &Arc<dyn Backends>, store_id: Option<StoreId>) -> Result<Salvaged, Fault> {
    let mut found =
        Salvaged { store_id, batches: Tail::new(), damaged: BTreeSet::new(), newest: 0, problems: Vec::new() };
    let mut segments = Vec::new();
    for name in names(&**disk)? {
        match Segment::open(&**disk, name.clone(), found.store_id) {
            Ok((segment, owner)) if found.store_id.is_none_or(|id| id == owner) => {
                found.store_id = Some(owner);
                segments.push(segment);
            }
            Ok(_) => found.problems.push(format!("{name} is of another store")),
            Err(fault) => {
                found.problems.push(fault::chain(&fault));
                if let Some(store_id) = found.store_id {
                    segments.extend(Segment::salvage(&**disk, name, store_id)?);
                }
            }
        }
    }
    for mut segment in segments {
        let store_id = found.store_id.unwrap_or_default();
        let damage =
            segment.scan(&**disk, store_id, 0, |number, records| drop(found.batches.insert(number, records)))?;
        found.newest = found.newest.max(segment.newest).max(damage.torn.last().copied().unwrap_or(0));
        found.problems.extend(damage.unknown.iter().map(|byte| {
            let name = &segment.name;
            format!(
                "what {name} had at byte {byte}: if that was the newest batch of the journal, what it changed is lost"
            )
        }));
        found.damaged.extend(damage.batches.into_keys());
    }
    found.newest = found.newest.max(found.damaged.last().copied().unwrap_or(0));
    let Salvaged { batches, damaged, .. } = &mut found;
    damaged.retain(|number| !batches.contains_key(number));
    Ok(found)
}

/// The journal's files that are there.
pub(super) fn names(disk: &dyn Backends) -> Result<Vec<String>, Fault> {
    let names = disk.names().map_err(|e| Fault::fatal(format!("{} cannot be listed", disk.place()), e))?;
    Ok(names.into_iter().filter(|n| n.starts_with(JOURNAL_PREFIX) && n.ends_with(JOURNAL_SUFFIX)).collect())
}

/// Whether no batch was ever written to these files.
pub(super) fn is_unused(disk: &dyn Backends, names: &[String]) -> Result<bool, Fault> {
    for name in names {
        let (mut segment, store_id) = Segment::open(disk, name.clone(), None)?;
        segment.scan(disk, store_id, 0, |_, _| ())?;
        if segment.newest > 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

fn name(number: usize) -> String {
    format!("{JOURNAL_PREFIX}{number}{JOURNAL_SUFFIX}")
}

/// Room for the head and one block at least.
fn whole(segment_bytes: u64) -> u64 {
    segment_bytes.next_multiple_of(BLOCK_BYTES as u64).max(2 * BLOCK_BYTES as u64)
}
