//! The rows that are durable in the journal and not yet in the state file, and the view that merges the two.
//!
//! ```text
//! writer --publish--> active --freeze--> frozen --checkpoint--> state file
//!                        newest wins: active, frozen, state
//! ```
//!
//! Invariant: a row gets here only after the journal has synced it, and leaves only after the state file has.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use redb::{AccessGuard, ReadOnlyTable, ReadableDatabase};

use super::disk::state_fault;
use super::envelope::Sealed;
use super::record::{Change, Malformed, Op, changes};
use super::tables::Table;
use crate::base::Fault;

/// A part of a record, which it keeps alive.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    record: Arc<Vec<u8>>,
    start: u32,
    length: u32,
}

impl Slice {
    fn new(record: &Arc<Vec<u8>>, (start, length): (u32, u32)) -> Slice {
        Slice { record: record.clone(), start, length }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.record[self.start as usize..][..self.length as usize]
    }
}

impl Borrow<[u8]> for Slice {
    fn borrow(&self) -> &[u8] {
        self.bytes()
    }
}

impl PartialEq for Slice {
    fn eq(&self, other: &Slice) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Slice {}

impl PartialOrd for Slice {
    fn partial_cmp(&self, other: &Slice) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Slice {
    fn cmp(&self, other: &Slice) -> Ordering {
        self.bytes().cmp(other.bytes())
    }
}

#[derive(Clone, Debug)]
pub(super) enum Fate {
    Put(Slice),
    /// No older generation knows the key.
    PutNew(Slice),
    Deleted,
}

impl Fate {
    fn value(&self) -> Option<&[u8]> {
        match self {
            Fate::Put(value) | Fate::PutNew(value) => Some(value.bytes()),
            Fate::Deleted => None,
        }
    }
}

/// The changes between two checkpoints.
#[derive(Debug)]
pub(super) struct Generation {
    pub tables: Vec<BTreeMap<Slice, Fate>>,
    /// Counts that changed, as they are now.
    pub counts: BTreeMap<Vec<u8>, i64>,
    /// The journal number of the newest change.
    pub newest: u64,
    /// How much was published into it: what the back-pressure goes by.
    pub bytes: usize,
}

impl Generation {
    pub fn new() -> Generation {
        Generation {
            tables: (0..Table::COUNT).map(|_| BTreeMap::new()).collect(),
            counts: BTreeMap::new(),
            newest: 0,
            bytes: 0,
        }
    }

    fn apply(&mut self, record: &Arc<Vec<u8>>, change: Change) {
        let rows = &mut self.tables[change.table as usize];
        let key = Slice::new(record, change.key);
        match change.op {
            Op::PutNew => {
                let value = Slice::new(record, change.value);
                // A key that was deleted here is not new to the older generations after all.
                let new = rows.remove(&key).is_none_or(|fate| matches!(fate, Fate::PutNew(_)));
                rows.insert(key, if new { Fate::PutNew(value) } else { Fate::Put(value) });
            }
            Op::Put => {
                let value = Slice::new(record, change.value);
                let new = matches!(rows.get(&key), Some(Fate::PutNew(_)));
                // Removed first, so that the map's key does not keep an old record alive.
                rows.remove(&key);
                rows.insert(key, if new { Fate::PutNew(value) } else { Fate::Put(value) });
            }
            Op::Delete => {
                if !matches!(rows.remove(&key), Some(Fate::PutNew(_))) {
                    rows.insert(key, Fate::Deleted);
                }
            }
            Op::Add => {}
        }
    }
}

/// The state file as of one checkpoint, its tables opened.
pub(super) struct StateView {
    tables: Vec<ReadOnlyTable<&'static [u8], &'static [u8]>>,
}

impl StateView {
    pub fn open(database: &redb::Database) -> Result<StateView, Fault> {
        let transaction = database.begin_read().map_err(state_fault)?;
        let open = |table: &Table| transaction.open_table(table.definition()).map_err(state_fault);
        Ok(StateView { tables: Table::ALL.iter().map(open).collect::<Result<_, _>>()? })
    }

    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<AccessGuard<'_, &'static [u8]>>, Fault> {
        self.tables[table as usize].get(key).map_err(state_fault)
    }

    pub fn table(&self, table: Table) -> &ReadOnlyTable<&'static [u8], &'static [u8]> {
        &self.tables[table as usize]
    }
}

/// Everything a reader may see, under one lock.
pub(super) struct Overlay {
    pub active: Generation,
    pub frozen: Option<Arc<Generation>>,
    pub state: Arc<StateView>,
    /// How many executions there are, by machine and status.
    pub counts: BTreeMap<Vec<u8>, i64>,
}

/// Which way a scan goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    Forward,
    Backward,
}

impl Overlay {
    /// Makes a durable record visible.
    pub fn publish(&mut self, number: u64, record: &Arc<Vec<u8>>) -> Result<(), Malformed> {
        for change in changes(record) {
            let change = change?;
            if change.op == Op::Add {
                self.add(record, change);
            } else {
                self.active.apply(record, change);
            }
        }
        self.active.newest = number;
        self.active.bytes += record.len();
        Ok(())
    }

    fn add(&mut self, record: &Arc<Vec<u8>>, change: Change) {
        let key = Slice::new(record, change.key);
        let value = Slice::new(record, change.value);
        let by = value.bytes().try_into().map_or(0, i64::from_le_bytes);
        let count = match self.counts.get_mut(key.bytes()) {
            Some(count) => count,
            None => self.counts.entry(key.bytes().to_vec()).or_insert(0),
        };
        *count += by;
        match self.active.counts.get_mut(key.bytes()) {
            Some(known) => *known = *count,
            None => drop(self.active.counts.insert(key.bytes().to_vec(), *count)),
        }
    }

    fn generations(&self) -> impl Iterator<Item = &Generation> {
        std::iter::once(&self.active).chain(self.frozen.as_deref())
    }

    /// Looks at one row, in place.
    pub fn get<T>(
        &self,
        table: Table,
        key: &[u8],
        look: impl FnOnce(Sealed<'_>) -> Result<T, Fault>,
    ) -> Result<Option<T>, Fault> {
        for generation in self.generations() {
            if let Some(fate) = generation.tables[table as usize].get(key) {
                return fate.value().map(|value| look(Sealed::new(table, key, value))).transpose();
            }
        }
        self.state.get(table, key)?.map(|guard| look(Sealed::new(table, key, guard.value()))).transpose()
    }

    /// Looks at the rows of a range in order, in place, until told to break.
    pub fn scan(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        direction: Direction,
        mut look: impl FnMut(&[u8], Sealed<'_>) -> Result<ControlFlow<()>, Fault>,
    ) -> Result<(), Fault> {
        let mut look = |key: &[u8], value: &[u8]| look(key, Sealed::new(table, key, value));
        if is_empty(range) {
            return Ok(());
        }
        let mut stored = self.state.table(table).range::<&[u8]>(range).map_err(state_fault)?;
        let mut state = Ahead::new(|| match direction {
            Direction::Forward => stored.next(),
            Direction::Backward => stored.next_back(),
        })?;
        let mut newer: Vec<Lane<'_>> =
            self.generations().map(|g| Lane::new(&g.tables[table as usize], range, direction)).collect();
        loop {
            let mut nearest: Option<&[u8]> = state.head.as_ref().map(|(key, _)| key.value());
            for lane in &newer {
                nearest = match (nearest, lane.head) {
                    (Some(key), Some((other, _))) => Some(nearer(direction, key, other.bytes())),
                    (None, Some((other, _))) => Some(other.bytes()),
                    (key, None) => key,
                };
            }
            let Some(key) = nearest else { return Ok(()) };
            let on = |lane: &&Lane<'_>| lane.head.is_some_and(|(other, _)| other.bytes() == key);
            let flow = match newer.iter().find(on).and_then(|lane| lane.head) {
                Some((key, fate)) => match fate.value() {
                    Some(value) => look(key.bytes(), value)?,
                    None => ControlFlow::Continue(()),
                },
                None => match &state.head {
                    Some((key, value)) => look(key.value(), value.value())?,
                    None => return Ok(()),
                },
            };
            if flow.is_break() {
                return Ok(());
            }
            let passed: Vec<bool> = newer.iter().map(|lane| on(&lane)).collect();
            let state_passed = state.head.as_ref().is_some_and(|(other, _)| other.value() == key);
            for (lane, _) in newer.iter_mut().zip(passed).filter(|(_, passed)| *passed) {
                lane.head = lane.rows.next();
            }
            if state_passed {
                state.advance()?;
            }
        }
    }
}

fn nearer<'a>(direction: Direction, a: &'a [u8], b: &'a [u8]) -> &'a [u8] {
    match direction {
        Direction::Forward => a.min(b),
        Direction::Backward => a.max(b),
    }
}

/// `BTreeMap::range` panics on a range that runs backwards.
fn is_empty((start, end): (Bound<&[u8]>, Bound<&[u8]>)) -> bool {
    match (start, end) {
        (Bound::Included(a), Bound::Included(b)) => a > b,
        (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => a >= b,
        _ => false,
    }
}

/// The rows of one generation, with the next one in view.
struct Lane<'a> {
    rows: Box<dyn Iterator<Item = (&'a Slice, &'a Fate)> + 'a>,
    head: Option<(&'a Slice, &'a Fate)>,
}

impl<'a> Lane<'a> {
    fn new(rows: &'a BTreeMap<Slice, Fate>, range: (Bound<&[u8]>, Bound<&[u8]>), direction: Direction) -> Lane<'a> {
        let range = rows.range::<[u8], _>(range);
        let mut rows: Box<dyn Iterator<Item = _>> = match direction {
            Direction::Forward => Box::new(range),
            Direction::Backward => Box::new(range.rev()),
        };
        let head = rows.next();
        Lane { rows, head }
    }
}

type Stored = (AccessGuard<'static, &'static [u8]>, AccessGuard<'static, &'static [u8]>);

/// The rows of the state file, with the next one in view.
struct Ahead<F> {
    next: F,
    head: Option<Stored>,
}

impl<F: FnMut() -> Option<Result<Stored, redb::StorageError>>> Ahead<F> {
    fn new(next: F) -> Result<Ahead<F>, Fault> {
        let mut ahead = Ahead { next, head: None };
        ahead.advance()?;
        Ok(ahead)
    }

    fn advance(&mut self) -> Result<(), Fault> {
        self.head = (self.next)().transpose().map_err(state_fault)?;
        Ok(())
    }
}
