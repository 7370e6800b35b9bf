//! Timers: one sleeper over the store's rows, which are ordered by (due, execution, timer).
//!
//! Only the timers of the next minutes are in memory; the rest are rows, and cost neither memory nor a look.
//! A timer that fired stays a row until its execution's step has consumed it, so a crash in between fires it again.
//! An execution is told of its timers one by one, since each is a step and a commit of its own, and no other execution's
//! wait for that.
//!
//! There are two lines of them: what lasts goes by the box's own time, which no setting of the clock moves; what waits for a
//! moment goes by the wall clock, which is looked at every second, as somebody may set it.
//!
//! Rows are read while timers are set, cleared and fired. Invariant: a timer that is set meanwhile goes straight into
//! memory where the read would have to find it, and one that goes meanwhile is taken out of what the read found.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;

use conveyor_base::{Backoff, BranchId, ExecutionId, Fault, TimerId, Timestamp, fault};
use conveyor_interpreter::{Execution, Header};
use conveyor_store::{Scans, unless_damaged};
use futures::stream::{FuturesUnordered, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Duration, Instant};

use super::core::Core;
use super::execution::Message;
use super::recover::passing;

/// How far ahead timers are held in memory.
const HORIZON_MS: i64 = 120_000;
/// How long the clocks are not looked at, at most: the wall clock may be set, and the machine suspended, while this sleeps.
const LOOK_MS: i64 = 1_000;
/// A look that comes so much too late was held up: the process stood still, or the machine.
const HELD_UP_MS: i64 = 3_000;
/// What had come while all stood still, such as signs of life, goes first for so many pauses that are none too long: one that is
/// says that the machine has not caught up yet.
const COME_FIRST_PAUSES: u32 = 10;
const COME_FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The same at most, however busy the machine is.
const COME_FIRST_MAX: Duration = Duration::from_secs(10);
/// The row in which the clocks' standing is kept.
pub(super) const CLOCK: &str = "run.clock";
/// How often it is stored.
const KEPT_EVERY_MS: i64 = 60_000;
/// When the wall clock was set, and not corrected a little.
const SET_MS: i64 = 1_000;
/// Rows read in one go.
const ROWS_PER_READ: usize = 10_000;
/// Executions that are told of a timer at the same time.
const FIRING_MAX: usize = 512;
/// Due timers in memory: beyond these no more are read until some are done with.
const DUE_MAX: usize = 100_000;
/// Between attempts to tell an execution whose actor failed.
const BACKOFF: Backoff = Backoff { min_ms: 50, max_ms: 60_000 };

type Key = (Timestamp, ExecutionId, TimerId);

pub(super) struct Timers {
    lasting: Line,
    by_wall: Line,
    changed: Notify,
}

/// The timers of one clock. Keys compare with that clock's time as [`Timestamp::by_wall`] has it.
struct Line {
    /// Before all of its rows.
    begin: Key,
    state: Mutex<State>,
}

struct State {
    soon: BTreeSet<Key>,
    /// The due ones that their executions are being told of.
    firing: HashMap<ExecutionId, BTreeSet<(Timestamp, TimerId)>>,
    /// How many these are.
    due: usize,
    /// All rows up to this one are in `soon` or `firing`.
    reached: Key,
    /// The last look found more rows than it may take: the next one comes when all of these are due.
    crowded: bool,
    reading: Option<Reading>,
}

/// A look at the rows that is under way.
struct Reading {
    /// It reads what is due until then.
    until: Timestamp,
    /// Timers that went meanwhile: it may have seen their rows.
    gone: HashSet<Key>,
    /// Its rows do not count: all are to be read anew.
    in_vain: bool,
}

const NOWHERE: Key = (Timestamp(i64::MIN), ExecutionId(0), TimerId(0));

impl State {
    fn is_firing(&self, (due, id, timer): &Key) -> bool {
        self.firing.get(id).is_some_and(|timers| timers.contains(&(*due, *timer)))
    }

    fn has_enough(&self, now: Timestamp) -> bool {
        if self.crowded {
            return !self.soon.is_empty() || self.due >= DUE_MAX;
        }
        self.reached.0 > now.plus_ms(HORIZON_MS / 2)
    }
}

impl Timers {
    pub fn new() -> Timers {
        let by_wall = (Timestamp(i64::MIN).by_wall(), ExecutionId(0), TimerId(0));
        Timers { lasting: Line::new(NOWHERE), by_wall: Line::new(by_wall), changed: Notify::new() }
    }

    fn line(&self, due: Timestamp) -> &Line {
        if due.is_by_wall() { &self.by_wall } else { &self.lasting }
    }

    /// The row is durable already.
    pub fn set(&self, due: Timestamp, id: ExecutionId, timer: TimerId) {
        if self.line(due).set(due, id, timer) {
            self.changed.notify_one();
        }
    }

    /// The row is gone already.
    pub fn clear(&self, due: Timestamp, id: ExecutionId, timer: TimerId) {
        self.line(due).clear(due, id, timer);
    }

    /// Reads the rows as after a restart: an actor that failed may have set a timer without saying so.
    pub fn read_anew(&self) {
        self.lasting.read_anew();
        self.by_wall.read_anew();
        self.changed.notify_one();
    }

    /// Lets the sleeper look at the clock, and at whether the appliance ends.
    pub fn wake(&self) {
        self.changed.notify_one();
    }
}

impl Line {
    fn new(begin: Key) -> Line {
        Line {
            begin,
            state: Mutex::new(State {
                soon: BTreeSet::new(),
                firing: HashMap::new(),
                due: 0,
                reached: begin,
                crowded: false,
                reading: None,
            }),
        }
    }

    /// True where the sleeper is to look again.
    fn set(&self, due: Timestamp, id: ExecutionId, timer: TimerId) -> bool {
        let (mut state, key) = (self.state.lock(), (due, id, timer));
        let mut is_read = false;
        if let Some(reading) = &mut state.reading {
            reading.gone.remove(&key);
            is_read = due <= reading.until;
        }
        if is_read || key <= state.reached {
            state.soon.insert(key);
            return state.soon.first() == Some(&key);
        }
        false
    }

    fn clear(&self, due: Timestamp, id: ExecutionId, timer: TimerId) {
        let (mut state, key) = (self.state.lock(), (due, id, timer));
        state.soon.remove(&key);
        if let Some(reading) = &mut state.reading {
            reading.gone.insert(key);
        }
    }

    fn read_anew(&self) {
        let mut state = self.state.lock();
        (state.reached, state.crowded) = (self.begin, false);
        if let Some(reading) = &mut state.reading {
            reading.in_vain = true;
        }
    }

    /// Brings the next minutes of rows into memory, when half of what is there has passed. `read` gives the rows behind
    /// a key that are due until a moment, the soonest first, and no more than [`ROWS_PER_READ`].
    async fn load<F>(&self, now: Timestamp, read: impl FnOnce(Key, Timestamp) -> F) -> Result<(), Fault>
    where
        F: Future<Output = Result<Vec<Key>, Fault>>,
    {
        let Some((after, until)) = self.begin_reading(now) else { return Ok(()) };
        let rows = read(after, until).await;
        let state = &mut *self.state.lock();
        let Some(Reading { gone, in_vain, .. }) = state.reading.take() else { return Ok(()) };
        let rows = rows?;
        if in_vain {
            return Ok(());
        }
        // A full read may have left rows behind its last one: they come with the next read.
        state.crowded = rows.len() == ROWS_PER_READ;
        let all = (until, ExecutionId(u128::MAX), TimerId(u32::MAX));
        state.reached = rows.last().filter(|_| state.crowded).copied().unwrap_or(all);
        let rows: Vec<Key> = rows.into_iter().filter(|row| !gone.contains(row) && !state.is_firing(row)).collect();
        state.soon.extend(rows);
        Ok(())
    }

    /// Behind which row, and until when, rows are to be read; `None` while there are enough.
    fn begin_reading(&self, now: Timestamp) -> Option<(Key, Timestamp)> {
        let mut state = self.state.lock();
        if state.has_enough(now) {
            return None;
        }
        let until = now.plus_ms(HORIZON_MS);
        state.reading = Some(Reading { until, gone: HashSet::new(), in_vain: false });
        Some((state.reached, until))
    }

    /// Puts down what is due as to be told; returns those executions that were not being told of anything.
    fn take_due(&self, now: Timestamp) -> Vec<ExecutionId> {
        let state = &mut *self.state.lock();
        let later = state.soon.split_off(&(now.plus_ms(1), ExecutionId(0), TimerId(0)));
        let mut begun = Vec::new();
        for (due, id, timer) in std::mem::replace(&mut state.soon, later) {
            let timers = state.firing.entry(id).or_insert_with(|| {
                begun.push(id);
                BTreeSet::new()
            });
            state.due += usize::from(timers.insert((due, timer)));
        }
        begun
    }

    /// The next timer that the execution is to be told of; after the last one it is not being told of anything.
    fn next_of(&self, id: ExecutionId) -> Option<Key> {
        let mut state = self.state.lock();
        let next = state.firing.get(&id).and_then(|timers| timers.first().copied());
        if next.is_none() {
            state.firing.remove(&id);
        }
        next.map(|(due, timer)| (due, id, timer))
    }

    /// The execution knows of it, or its row is gone.
    fn fired(&self, key: Key) {
        let (mut state, (due, id, timer)) = (self.state.lock(), key);
        if state.firing.get_mut(&id).is_some_and(|timers| timers.remove(&(due, timer))) {
            state.due -= 1;
        }
        if let Some(reading) = &mut state.reading {
            reading.gone.insert(key);
        }
    }

    fn next_look(&self) -> Timestamp {
        let state = self.state.lock();
        let reload = state.reached.0.plus_ms(-HORIZON_MS / 2);
        match state.soon.first() {
            Some(first) if state.crowded => first.0,
            Some(first) => first.0.min(reload),
            None if state.due >= DUE_MAX => Timestamp::MAX,
            None => reload,
        }
    }
}

/// Runs until the appliance ends.
pub(super) async fn run(core: Arc<Core>) -> Result<(), Fault> {
    let slots = Semaphore::new(FIRING_MAX);
    let mut firing = FuturesUnordered::new();
    let mut kept = Kept::default();
    let mut looked_at = core.clock.now();
    while !core.is_closing() {
        kept.keep(&core);
        if core.clock.now().since_ms(looked_at) > LOOK_MS + HELD_UP_MS {
            catch_up().await;
        }
        looked_at = core.clock.now();
        let mut wait_ms = LOOK_MS;
        for (line, now) in [(&core.timers.lasting, looked_at), (&core.timers.by_wall, core.clock.wall().by_wall())] {
            let read = |after, until| core.reader.blocking(move |rows| next_rows(rows, after, until));
            passing(|| line.load(now, read)).await?;
            firing.extend(line.take_due(now).into_iter().map(|id| fire_all(&core, line, id, &slots)));
            wait_ms = wait_ms.min(line.next_look().since_ms(now));
        }
        // Reading has taken time as well.
        wait_ms -= core.clock.now().since_ms(looked_at);
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(wait_ms.max(0).unsigned_abs())) => {}
            () = core.timers.changed.notified() => {}
            Some(()) = firing.next() => {}
        }
    }
    Ok(())
}

/// Until what had come has been taken up.
async fn catch_up() {
    let (begun, mut on_time) = (Instant::now(), 0);
    while on_time < COME_FIRST_PAUSES && begun.elapsed() < COME_FIRST_MAX {
        let paused_at = Instant::now();
        tokio::time::sleep(COME_FIRST_PAUSE).await;
        let is_on_time = paused_at.elapsed() < COME_FIRST_PAUSE * 2;
        on_time = if is_on_time { on_time + 1 } else { 0 };
    }
}

/// The rows behind a key that are due until a moment. Where their table is damaged, as the executions have them that run: what
/// is due then is told once more, which changes nothing.
fn next_rows(rows: &Scans, after: Key, until: Timestamp) -> Result<Vec<Key>, Fault> {
    if let Some(found) = unless_damaged(rows.timers_after(Some(after), until, ROWS_PER_READ))? {
        return Ok(found);
    }
    let mut found = BTreeSet::new();
    for id in rows.running()? {
        // One that is damaged fails as soon as anything comes to it.
        let Some(execution) = unless_damaged(rows.execution(id))?.flatten() else { continue };
        let of_branches = execution.branches.values().flat_map(|branch| branch.doing.timers());
        found.extend(of_branches.chain(execution.header.timeout_timer).map(|(timer, due)| (due, id, timer)));
    }
    let last = (until, ExecutionId(u128::MAX), TimerId(u32::MAX));
    Ok(found.into_iter().filter(|key| *key > after && *key <= last).take(ROWS_PER_READ).collect())
}

/// How the clocks stood when that was stored last.
#[derive(Default)]
struct Kept(Option<(Timestamp, i64)>);

impl Kept {
    /// Stores how the clocks stand: now and then, so that the next start is none of an earlier time, and when the wall clock
    /// was set.
    fn keep(&mut self, core: &Arc<Core>) {
        let (now, ahead_ms) = (core.clock.now(), core.clock.wall_is_ahead_ms());
        if let Some((at, before_ms)) = self.0 {
            let set_by_ms = ahead_ms - before_ms;
            if set_by_ms.abs() >= SET_MS {
                tracing::warn!(
                    seconds = set_by_ms / 1_000,
                    "the clock was set; what was to last so long lasts as long as before"
                );
            } else if now.since_ms(at) < KEPT_EVERY_MS {
                return;
            }
        }
        self.0 = Some((now, ahead_ms));
        let mut commit = conveyor_store::Commit::new();
        commit.put_setting(CLOCK, &core.clock.mark().to_bytes());
        // Beside the timers, which do not wait for a disk. A fault is noted by `commit`.
        let core = core.clone();
        tokio::spawn(async move { core.commit(commit).await });
    }
}

async fn fire_all(core: &Arc<Core>, line: &Line, id: ExecutionId, slots: &Semaphore) {
    while let Some(key) = line.next_of(id) {
        metrics::histogram!("conveyor_timer_lag_seconds").record(-core.until_ms(key.0) as f64 / 1000.0);
        fire(core, key, slots).await;
        line.fired(key);
    }
}

async fn fire(core: &Arc<Core>, (due, id, timer): Key, slots: &Semaphore) {
    for failures in 0.. {
        let slot = slots.acquire().await;
        let wakes = match core.reader.timer(due, id, timer) {
            // The row only repeats what its execution has.
            Err(Fault::Damaged { .. }) => {
                core.reader.blocking(move |rows| Ok(rows.execution(id)?.and_then(|it| woken(&it, due, timer)))).await
            }
            wakes => wakes,
        };
        let told = match wakes {
            Ok(Some(of)) => core.fire(id, timer, of).await,
            // Its execution does not wait for it any more.
            Ok(None) => return,
            Err(fault @ Fault::Damaged { .. }) => {
                return core.send(id, Message::Damaged { what: fault::chain(&fault) }, None);
            }
            Err(Fault::Retryable { .. }) if !core.is_closing() => {
                drop(slot);
                tokio::time::sleep(BACKOFF.pause(failures)).await;
                continue;
            }
            Err(fault) => return core.note(&fault),
        };
        drop(slot);
        match told {
            Ok(false) => return drop_row(core, due, id, timer).await,
            // It has failed over this, unless not even that can be stored.
            Err(refused) if refused.is_damage() => {
                let over = |header: Header| header.stopped_at.is_some();
                if core.reader.header(id).await.is_ok_and(|header| header.is_some_and(over)) {
                    drop_row(core, due, id, timer).await;
                }
                return;
            }
            // Its actor failed over this or over another message, and is on its way back.
            Err(refused) if refused.is_transient() && !core.is_closing() => {
                tokio::time::sleep(BACKOFF.pause(failures)).await;
            }
            // Of an execution that is no more there is no row.
            Ok(true) | Err(_) => return,
        }
    }
}

/// Whom the timer wakes, as the execution itself has it: a branch, or (the inner `None`) the execution.
fn woken(execution: &Execution, due: Timestamp, timer: TimerId) -> Option<Option<BranchId>> {
    let is_it = |(its, at): (TimerId, Timestamp)| (its, at) == (timer, due);
    if execution.header.timeout_timer.is_some_and(is_it) {
        return Some(None);
    }
    let mut branches = execution.branches.iter();
    branches.find(|(_, branch)| branch.doing.timers().any(is_it)).map(|(id, _)| Some(*id))
}

/// The event changed nothing: the row is a straggler's.
async fn drop_row(core: &Arc<Core>, due: Timestamp, id: ExecutionId, timer: TimerId) {
    let mut commit = conveyor_store::Commit::new();
    commit.drop_timer(id, timer, due);
    // A fault is noted by `commit`; the row is tried again after the restart.
    let _ = core.commit(commit).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(due: i64) -> Key {
        (Timestamp(due), ExecutionId(due as u128), TimerId(0))
    }

    /// All that is due, told to their executions at once.
    fn told(timers: &Line) -> Vec<Key> {
        let mut all = Vec::new();
        for id in timers.take_due(Timestamp::MAX) {
            while let Some(key) = timers.next_of(id) {
                timers.fired(key);
                all.push(key);
            }
        }
        all
    }

    #[tokio::test]
    async fn a_timer_that_changes_while_rows_are_read_is_neither_lost_nor_raised_from_the_dead() {
        let timers = Line::new(NOWHERE);
        let set = |due| timers.set(key(due).0, key(due).1, key(due).2);
        let clear = |due| timers.clear(key(due).0, key(due).1, key(due).2);
        timers
            .load(Timestamp(0), async |after, until| {
                assert_eq!((after, until), (NOWHERE, Timestamp(HORIZON_MS)));
                // Committed after the read saw the store: it has 10, 20 and 30, and neither 15 nor 40.
                set(15);
                clear(20);
                set(40);
                clear(40);
                clear(30);
                set(30);
                set(HORIZON_MS);
                Ok(vec![key(10), key(20), key(30)])
            })
            .await
            .unwrap();
        // Beyond what was read: the rows keep it until the next read.
        set(HORIZON_MS + 1);
        assert_eq!(told(&timers), [10, 15, 30, HORIZON_MS].map(key));

        // A read that fails leaves nothing behind that the next one would go by.
        let later = Timestamp(HORIZON_MS);
        let failed = timers.load(later, async |_, _| Err(Fault::fatal_plain("no disk"))).await;
        failed.unwrap_err();
        clear(50);
        timers.load(later, async |_, _| Ok(vec![key(50)])).await.unwrap();
        assert_eq!(told(&timers), [key(50)]);
    }

    #[tokio::test]
    async fn a_timer_is_told_once_however_often_its_row_is_read() {
        let timers = Line::new(NOWHERE);
        timers.load(Timestamp(0), async |_, _| Ok(vec![key(10), key(20)])).await.unwrap();
        assert_eq!(timers.take_due(Timestamp(20)), [10, 20].map(ExecutionId));
        let (first, second) = (timers.next_of(ExecutionId(10)).unwrap(), timers.next_of(ExecutionId(20)).unwrap());
        timers.read_anew();
        timers
            .load(Timestamp(0), async |after, _| {
                assert_eq!(after, NOWHERE);
                // Its row goes behind the read's back; the other's is there for as long as it is being told.
                timers.fired(first);
                Ok(vec![first, second, key(30)])
            })
            .await
            .unwrap();
        assert_eq!(told(&timers), [key(30)]);
        timers.fired(second);
        assert_eq!((timers.next_of(ExecutionId(10)), timers.next_of(ExecutionId(20))), (None, None));
    }

    /// Neither those with which a full read ends nor those that are set beside it are passed by.
    #[tokio::test]
    async fn what_a_full_read_left_behind_comes_with_the_next_one() {
        let (timers, now) = (Line::new(NOWHERE), Timestamp(0));
        let row = |n: usize| (Timestamp(5), ExecutionId(2 * n as u128 + 2), TimerId(0));
        timers.load(now, async |_, _| Ok((0..ROWS_PER_READ).map(row).collect())).await.unwrap();
        // Before and behind the row that was read last, all due at the same moment.
        timers.set(Timestamp(5), ExecutionId(3), TimerId(0));
        timers.set(Timestamp(5), ExecutionId(u128::MAX), TimerId(0));
        assert_eq!(told(&timers).len(), ROWS_PER_READ + 1);
        timers
            .load(now, async |after, _| {
                assert_eq!(after, row(ROWS_PER_READ - 1));
                Ok(vec![(Timestamp(5), ExecutionId(u128::MAX), TimerId(0))])
            })
            .await
            .unwrap();
        assert_eq!(told(&timers).len(), 1);
    }
}
