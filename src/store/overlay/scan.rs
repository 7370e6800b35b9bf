//! The walk over a range of rows: the generations and the state file merged by key, the newest winning.

use std::ops::{Bound, ControlFlow};

use conveyor_base::Fault;
use redb::AccessGuard;

use super::generation::{Change, Changes, Key, Sought};
use super::{Direction, Snapshot};
use crate::envelope::Sealed;
use crate::tables::Table;

impl Snapshot {
    /// Looks at the rows of a range in order, in place, until told to break.
    pub fn scan(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        direction: Direction,
        mut look: impl FnMut(&[u8], Sealed<'_>) -> Result<ControlFlow<()>, Fault>,
    ) -> Result<(), Fault> {
        let noted = |fault| self.state.noted(fault);
        let mut look = |key: &[u8], value: &[u8]| look(key, Sealed::new(table, key, value)).map_err(noted);
        if is_empty(range) {
            return Ok(());
        }
        let from = match (direction, range) {
            (Direction::Forward, (Bound::Included(key) | Bound::Excluded(key), _))
            | (Direction::Backward, (_, Bound::Included(key) | Bound::Excluded(key))) => key,
            _ => &[],
        };
        let stored = self.state.table(table, from)?;
        let mut stored = stored.range::<&[u8]>(range).map_err(|e| self.state.fault(table, from, e))?;
        let mut state = Ahead::new(|passed: Option<Stored>| {
            let next = match direction {
                Direction::Forward => stored.next(),
                Direction::Backward => stored.next_back(),
            };
            next.transpose().map_err(|e| match &passed {
                // Whose the next row is nobody knows.
                Some((key, _)) => self.state.fault_behind(table, key.value(), e),
                None => self.state.fault(table, from, e),
            })
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
                Some((key, change)) => match change.value() {
                    Some(value) => look(key.bytes(), value.bytes())?,
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

/// A range that runs backwards holds nothing.
fn is_empty((start, end): (Bound<&[u8]>, Bound<&[u8]>)) -> bool {
    match (start, end) {
        (Bound::Included(a), Bound::Included(b)) => a > b,
        (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => a >= b,
        _ => false,
    }
}

/// The rows of one generation, with the next one in view.
struct Lane<'a> {
    rows: Box<dyn Iterator<Item = (&'a Key, &'a Change)> + 'a>,
    head: Option<(&'a Key, &'a Change)>,
}

impl<'a> Lane<'a> {
    fn new(rows: &'a Changes, (start, end): (Bound<&[u8]>, Bound<&[u8]>), direction: Direction) -> Lane<'a> {
        let range = rows.range::<_, Sought<'_>>((start.map(Sought::from), end.map(Sought::from)));
        let mut rows: Box<dyn Iterator<Item = _>> = match direction {
            Direction::Forward => Box::new(range),
            Direction::Backward => Box::new(range.rev()),
        };
        let head = rows.next();
        Lane { rows, head }
    }
}

type Stored = (AccessGuard<'static, &'static [u8]>, AccessGuard<'static, &'static [u8]>);

/// The rows of the state file, with the next one in view. `next` is given the one before it.
struct Ahead<F> {
    next: F,
    head: Option<Stored>,
}

impl<F: FnMut(Option<Stored>) -> Result<Option<Stored>, Fault>> Ahead<F> {
    fn new(next: F) -> Result<Ahead<F>, Fault> {
        let mut ahead = Ahead { next, head: None };
        ahead.advance()?;
        Ok(ahead)
    }

    fn advance(&mut self) -> Result<(), Fault> {
        let passed = self.head.take();
        self.head = (self.next)(passed)?;
        Ok(())
    }
}
