//! Who goes next: what waits for lanes, in order. Pure; `T` is what waits.
//!
//! Higher priority goes first, then the lower rank, then who came first. Equal work waits in one class, so that what a
//! lease costs depends on how many kinds of work there are and not on how many stages wait: if the first of a class
//! finds no room, none behind it does. The first that finds no room keeps the lanes it waits for: those behind it in
//! order may use others, but never those, or a large demand would wait for ever behind small ones.
//!
//! No priority starves another: after [`OVERTAKES_MAX`] leases to later stages of higher priority, the oldest stage
//! that could have used those lanes goes first.

use std::collections::BTreeMap;

use conveyor_base::Timestamp;

use super::demand::Work;
use super::place::{Allocation, LanePool, Placement};

/// Leases to later stages of higher priority after which the oldest one goes first.
pub(super) const OVERTAKES_MAX: u32 = 7;

/// A stage's place in the order: lower goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueuePosition {
    urgency: i16,
    rank: u8,
    number: u64,
}

impl QueuePosition {
    pub fn new(priority: i8, rank: u8, number: u64) -> QueuePosition {
        QueuePosition { urgency: -i16::from(priority), rank, number }
    }

    pub fn priority(self) -> i8 {
        i8::try_from(-self.urgency).unwrap_or(0)
    }
}

/// Who leaves the queue.
pub enum Next<T> {
    Goes(QueuePosition, T, Allocation),
    /// It can never go, and why.
    Cannot(T, String),
}

#[derive(Debug)]
pub struct Queue<T> {
    classes: BTreeMap<Work, Class<T>>,
}

#[derive(Debug)]
struct Class<T> {
    waiting: BTreeMap<QueuePosition, T>,
    /// The same by age.
    ages: BTreeMap<u64, QueuePosition>,
    overtaken: u32,
    /// Lanes on which it could run, in order.
    lanes: Vec<usize>,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue { classes: BTreeMap::new() }
    }
}

impl<T> Queue<T> {
    pub fn push(&mut self, pool: &LanePool, work: Work, position: QueuePosition, who: T) {
        let class = self.classes.entry(work).or_insert_with(|| Class {
            waiting: BTreeMap::new(),
            ages: BTreeMap::new(),
            overtaken: 0,
            lanes: pool.lanes_for(&work),
        });
        class.waiting.insert(position, who);
        class.ages.insert(position.number, position);
    }

    pub fn remove(&mut self, work: Work, position: QueuePosition) -> Option<T> {
        let class = self.classes.get_mut(&work)?;
        let who = class.waiting.remove(&position);
        class.ages.remove(&position.number);
        if class.waiting.is_empty() {
            self.classes.remove(&work);
        }
        who
    }

    /// Takes out the next one that may go. `None`: all that wait must go on waiting.
    pub fn next(&mut self, pool: &LanePool, now: Timestamp) -> Option<Next<T>> {
        let mut firsts: Vec<(bool, QueuePosition, Work)> =
            self.classes.iter().filter_map(|(work, c)| c.first(*work)).collect();
        firsts.sort_unstable_by_key(|(overdue, position, _)| match overdue {
            true => (0, position.number, *position),
            false => (1, 0, *position),
        });
        let mut reserved = vec![false; pool.lanes.len()];
        for (overdue, position, work) in firsts {
            let ahead = self.classes.get(&work).map_or(1, |class| class.waiting.len());
            match pool.place(&work, ahead, &reserved, now) {
                Placement::Later { short_of } => short_of.into_iter().for_each(|lane| reserved[lane] = true),
                Placement::Never(why) => return self.remove(work, position).map(|who| Next::Cannot(who, why)),
                Placement::Now(allocation) => {
                    if overdue && let Some(class) = self.classes.get_mut(&work) {
                        class.overtaken = 0;
                    }
                    let who = self.remove(work, position)?;
                    self.count_overtakes(position, &allocation);
                    return Some(Next::Goes(position, who, allocation));
                }
            }
        }
        None
    }

    fn count_overtakes(&mut self, gone: QueuePosition, allocation: &Allocation) {
        for class in self.classes.values_mut() {
            let older = class.ages.values().next();
            let passed = older.is_some_and(|older| older.number < gone.number && older.urgency > gone.urgency);
            if passed && allocation.shares.iter().any(|(lane, _)| class.lanes.binary_search(lane).is_ok()) {
                class.overtaken += 1;
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// How many could run on a lane.
    pub fn waiting_for(&self, lane: usize) -> usize {
        let could = self.classes.values().filter(|class| class.lanes.binary_search(&lane).is_ok());
        could.map(|class| class.waiting.len()).sum()
    }

    pub fn get(&self, work: &Work, position: &QueuePosition) -> Option<&T> {
        self.classes.get(work)?.waiting.get(position)
    }

    /// How many of the same work go before, counted up to `most`.
    pub fn before(&self, work: &Work, position: &QueuePosition, most: usize) -> usize {
        self.classes.get(work).map_or(0, |class| class.waiting.range(..position).take(most).count())
    }

    /// The first of each class, and those behind them, in the order in which they would go: at most `most`.
    pub fn firsts(&self, most: usize) -> Vec<(Work, QueuePosition, &T)> {
        let each = self.classes.iter().flat_map(|(work, class)| {
            class.waiting.iter().take(most).map(move |(position, who)| (*work, *position, who))
        });
        let mut all: Vec<_> = each.collect();
        all.sort_by_key(|(_, position, _)| *position);
        all.truncate(most);
        all
    }
}

impl<T> Class<T> {
    fn first(&self, work: Work) -> Option<(bool, QueuePosition, Work)> {
        let overdue = self.overtaken >= OVERTAKES_MAX;
        let position = if overdue { self.ages.values().next() } else { self.waiting.keys().next() };
        position.map(|position| (overdue, *position, work))
    }
}
