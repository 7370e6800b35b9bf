//! [`Reader`] and [`Scans`]: the one way out. Each call sees the journal's rows and the state file's as one consistent
//! whole. Never waits for a commit or a checkpoint, and never writes.
//!
//! The type says what may be called where. [`Reader`] has what looks at a few rows by their keys: in memory it takes a
//! microsecond, and at worst it reads the few pages of the state file that lead to them; any task may call it. Whatever
//! walks a range or opens an archive is of [`Scans`], which a task has only within [`Reader::blocking`].

mod blocking;
mod branches;
mod catalog;
mod children;
mod lists;
mod map_runs;

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use conveyor_base::{Attempt, BranchId, EventId, ExecutionId, Fault, TimerId, Timestamp};
use conveyor_interpreter::{Execution, Header, HistoryEvent, Json, MapItems, RunTask, Status};

use super::damages::unless_damaged;
use super::engine::Engine;
use super::envelope::Sealed;
use super::overlay::{Direction, Found, Snapshot};
use super::retention::{archived_day, day_from};
use super::rows::{self, HeaderRow, HistoryRow, TaskRow, damaged};
use super::tables::{self, Payload, Table};

pub(super) use blocking::READS_MAX;
pub use blocking::Scans;
pub use branches::{NotRead, StoredRows};
pub use children::Child;
pub use lists::{ExecutionFilter, ExecutionSummary, Page};
pub use map_runs::RunChild;

/// Rows that are taken out of one snapshot by a scan without a limit of its own.
const SCAN_ROWS: usize = 512;

/// Looks at single rows, and the way to [`Scans`]. Cheap to clone.
#[derive(Clone)]
pub struct Reader(Arc<Engine>);

impl Reader {
    pub(super) fn new(engine: Arc<Engine>) -> Reader {
        Reader(engine)
    }

    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.0
    }

    /// What was found damaged in the store's files since they were opened, each as a sentence with what to do.
    pub fn damages(&self) -> Vec<String> {
        self.0.damages.all()
    }

    /// An execution without its branches. One that is archived is read on a thread that may block.
    pub async fn header(&self, id: ExecutionId) -> Result<Option<Header>, Fault> {
        match self.look_up(id)? {
            Whereabouts::Here(header) => Ok(header.map(|header| *header)),
            Whereabouts::Archived { .. } => self.blocking(move |rows| rows.header(id)).await,
        }
    }

    fn look_up(&self, id: ExecutionId) -> Result<Whereabouts, Fault> {
        self.0.again(|| self.look_up_once(id))
    }

    fn look_up_once(&self, id: ExecutionId) -> Result<Whereabouts, Fault> {
        let (key, input) = (id.to_bytes(), tables::payload(id, Payload::Input));
        let output = tables::payload(id, Payload::Output);
        let [of_header, of_input, of_output, of_day] = self.0.find([
            (Table::Executions, &key),
            (Table::Payloads, &input),
            (Table::Payloads, &output),
            (Table::Archived, &key),
        ]);
        if let Some(input) = of_input.look(Table::Payloads, &input, payload_from)? {
            let output = || of_output.look(Table::Payloads, &output, payload_from);
            let header = of_header.look(Table::Executions, &key, |row| header_from(id, row, input, output))?;
            return Ok(Whereabouts::Here(header.map(Box::new)));
        }
        if let Some(day) = of_day.look(Table::Archived, &key, day_from)? {
            return Ok(Whereabouts::Archived { day, header: of_header });
        }
        match of_header.look(Table::Executions, &key, |_| Ok(()))? {
            Some(()) => Err(damaged(Table::Payloads, &format!("execution {id} has no input"))),
            None => Ok(Whereabouts::Here(None)),
        }
    }

    /// Whether there is such an execution.
    pub fn is_known(&self, id: ExecutionId) -> Result<bool, Fault> {
        Ok(self.0.get(Table::Executions, &id.to_bytes(), |_| Ok(()))?.is_some())
    }

    /// The execution that has this name.
    pub fn by_name(&self, machine: &str, name: &str) -> Result<Option<ExecutionId>, Fault> {
        if let Some((_, label)) = machine.split_once('/') {
            return self.child_by_name(label, name);
        }
        let key = tables::texts(machine, name);
        self.0.get(Table::ByName, &key, |row| {
            tables::split_id(row.plain()?).map(|(id, _)| id).ok_or_else(|| damaged(Table::ByName, "a row is no id"))
        })
    }

    /// Whether the task must still be issued again after a crash.
    pub fn outstanding_task(&self, id: ExecutionId, attempt: Attempt) -> Result<Option<RunTask>, Fault> {
        self.0.get(Table::Outstanding, &tables::attempt(id, attempt), |row| {
            Ok(rows::task_from(id, attempt, row.access::<TaskRow>()?))
        })
    }

    /// How many executions of a machine are in that status.
    pub fn count_of(&self, machine: &str, status: Status) -> u64 {
        self.0.count(&tables::machine_status(machine, status))
    }

    /// How many executions there are in that status, but for the children of Map runs.
    pub fn count(&self, status: Status) -> u64 {
        self.0.total(status)
    }
}

/// Where an execution is.
enum Whereabouts {
    /// In the store; `None`: nowhere.
    Here(Option<Box<Header>>),
    /// Its payloads are in the archive of that day.
    Archived { day: u32, header: Found },
}

impl Scans {
    /// An execution without its branches.
    pub fn header(&self, id: ExecutionId) -> Result<Option<Header>, Fault> {
        match self.look_up(id)? {
            Whereabouts::Here(header) => Ok(header.map(|header| *header)),
            Whereabouts::Archived { day, header } => {
                let Some((input, output)) = self.archived_payloads(day, id)? else { return Ok(None) };
                header.look(Table::Executions, &id.to_bytes(), |row| header_from(id, row, input, || Ok(output)))
            }
        }
    }

    /// The whole execution. What this costs grows with its branches: see [`Reader::partial`].
    pub fn execution(&self, id: ExecutionId) -> Result<Option<Execution>, Fault> {
        let snapshot = self.0.snapshot();
        let Some(input) = payload(&snapshot, id, Payload::Input)? else {
            // What is archived has neither branches nor items.
            let header = self.header(id)?;
            return Ok(header.map(|header| Execution::load(header, BTreeMap::new(), BTreeMap::new())));
        };
        let output = || payload(&snapshot, id, Payload::Output);
        let Some(header) = header(&snapshot, id, input, output)? else { return Ok(None) };
        let (mut branches, mut items) = (BTreeMap::new(), BTreeMap::new());
        each(&snapshot, Table::Branches, &id.to_bytes(), |key, row| {
            let branch = rows::branch_from(row.access::<rows::BranchRow>()?)?;
            branches.insert(branch_of(Table::Branches, key)?, branch);
            Ok(())
        })?;
        each(&snapshot, Table::MapItems, &id.to_bytes(), |key, row| {
            let map = MapItems { input: rows::map_input_from(row.plain()?)?, items: Vec::new() };
            items.insert(branch_of(Table::MapItems, key)?, map);
            Ok(())
        })?;
        each(&snapshot, Table::MapPages, &id.to_bytes(), |key, row| {
            let (of, _) = key.split_last_chunk::<4>().ok_or_else(|| damaged(Table::MapPages, "a key is no page"))?;
            if let Some(map) = items.get_mut(&branch_of(Table::MapPages, of)?) {
                map.items.extend(rows::map_page_from(row.access::<rows::MapPageRow>()?)?);
            }
            Ok(())
        })?;
        let items = items.into_iter().map(|(id, map)| (id, Arc::new(map))).collect();
        Ok(Some(Execution::load(header, branches, items)))
    }

    /// Events of an execution from number `from` on, or down from it. `EventId(0)` and `Backward`: from the newest.
    pub fn history(
        &self,
        id: ExecutionId,
        from: EventId,
        limit: usize,
        direction: Direction,
    ) -> Result<Vec<HistoryEvent>, Fault> {
        Ok(self.history_page(id, from, limit, usize::MAX, direction)?.0)
    }

    /// The same as a page: no more than `limit` events and about so many bytes of them, but one at least; and with which
    /// event the next page begins.
    pub fn history_page(
        &self,
        id: ExecutionId,
        from: EventId,
        limit: usize,
        bytes: usize,
        direction: Direction,
    ) -> Result<(Vec<HistoryEvent>, Option<EventId>), Fault> {
        let from = if direction == Direction::Backward && from.0 == 0 { EventId(u64::MAX) } else { from };
        let snapshot = self.0.snapshot();
        let Some(day) = archived_day(&snapshot, id)? else {
            return live_history(&snapshot, id, from, limit, bytes, direction);
        };
        let mut events = self.archived_history(day, id)?;
        match direction {
            Direction::Forward => events.retain(|event| event.id >= from),
            Direction::Backward => {
                events.retain(|event| event.id <= from);
                events.reverse();
            }
        }
        let mut page = HistoryPage::new(limit, bytes);
        // One more than a page has says where the next begins.
        let _ = events.into_iter().try_for_each(|event| page.add(event));
        Ok((page.events, page.next))
    }

    /// Timers due until then, soonest first.
    pub fn timers(&self, until: Timestamp, limit: usize) -> Result<Vec<(Timestamp, ExecutionId, TimerId)>, Fault> {
        self.timers_after(None, until, limit)
    }

    /// The same, going on after a timer that an earlier call gave.
    pub fn timers_after(
        &self,
        after: Option<(Timestamp, ExecutionId, TimerId)>,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<(Timestamp, ExecutionId, TimerId)>, Fault> {
        let after = after.map(|(due, id, timer)| tables::timer(due, id, timer));
        let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let end = tables::timer(until, ExecutionId(u128::MAX), TimerId(u32::MAX));
        let mut timers = Vec::new();
        let range = (start, Bound::Included(end.as_slice()));
        self.0.snapshot().scan(Table::Timers, range, Direction::Forward, |key, _| {
            if timers.len() == limit {
                return Ok(ControlFlow::Break(()));
            }
            timers.push(tables::split_timer(key).ok_or_else(|| damaged(Table::Timers, "a key is no timer"))?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(timers)
    }

    /// When the next timer is due.
    pub fn next_due(&self) -> Result<Option<Timestamp>, Fault> {
        Ok(self.timers(Timestamp::MAX, 1)?.first().map(|(due, ..)| *due))
    }

    /// Tasks that must be issued again after a crash, oldest execution first, going on after one.
    pub fn outstanding(
        &self,
        after: Option<(ExecutionId, Attempt)>,
        limit: usize,
    ) -> Result<Vec<(ExecutionId, RunTask)>, Fault> {
        let after = after.map(|(id, attempt)| tables::attempt(id, attempt));
        let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut found = Vec::new();
        self.0.snapshot().scan(Table::Outstanding, (start, Bound::Unbounded), Direction::Forward, |key, row| {
            if found.len() == limit {
                return Ok(ControlFlow::Break(()));
            }
            let (id, attempt) =
                tables::split_id_number(key).ok_or_else(|| damaged(Table::Outstanding, "a key is no attempt"))?;
            found.push((id, rows::task_from(id, Attempt(attempt), row.access::<TaskRow>()?)));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    /// The attempts of an execution that are under way: to be issued again after a crash, or submitted. Those that are not
    /// damaged.
    pub fn attempts_of(&self, id: ExecutionId) -> Result<Vec<Attempt>, Fault> {
        let (snapshot, mut attempts) = (self.0.snapshot(), Vec::new());
        for table in [Table::Outstanding, Table::Submitted] {
            let found = each(&snapshot, table, &id.to_bytes(), |key, _| {
                attempts.extend(tables::split_id_number(key).map(|(_, attempt)| Attempt(attempt)));
                Ok(())
            });
            unless_damaged(found)?;
        }
        Ok(attempts)
    }

    /// Every ended execution whose parent has not been told yet.
    pub fn deliveries(&self) -> impl Iterator<Item = Result<ExecutionId, Fault>> + use<> {
        let rows = self.on_this_thread();
        Paged::new(move |after| {
            rows.page(Table::Deliveries, after, |key, _| {
                let id = tables::split_id(key).ok_or_else(|| damaged(Table::Deliveries, "a key is no id"))?;
                Ok(id.0)
            })
        })
    }

    /// How many executions there are, by machine and status.
    pub fn counts(&self) -> BTreeMap<(String, Status), u64> {
        let read = |(key, count): (&Arc<[u8]>, &i64)| {
            if !tables::is_of_machine(key) {
                return None;
            }
            let (machine, status) = tables::take_text(key)?;
            let status = rows::STATUSES.get(usize::from(*status.first()?))?;
            Some(((machine, *status), u64::try_from(*count).ok().filter(|n| *n > 0)?))
        };
        self.0.counts().iter().filter_map(read).collect()
    }

    /// One page of a whole table, and where the next one begins.
    fn page<T>(
        &self,
        table: Table,
        after: Option<Vec<u8>>,
        mut read: impl FnMut(&[u8], Sealed<'_>) -> Result<T, Fault>,
    ) -> Result<(Vec<T>, Option<Vec<u8>>), Fault> {
        let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let (mut found, mut last, mut reached) = (Vec::new(), None, None);
        let scanned = self.0.snapshot().scan(table, (start, Bound::Unbounded), Direction::Forward, |key, row| {
            found.push(read(key, row)?);
            last = Some(key.to_vec());
            if found.len() < SCAN_ROWS {
                return Ok(ControlFlow::Continue(()));
            }
            reached = Some(key.to_vec());
            Ok(ControlFlow::Break(()))
        });
        match scanned {
            // Those before the damage are not lost over it. It is met at the begin of the next page.
            Err(Fault::Damaged { .. }) if !found.is_empty() => Ok((found, last)),
            scanned => scanned.map(|()| (found, reached)),
        }
    }
}

/// An iterator over pages, each of which is read from a snapshot of its own: what is long must not keep old rows.
struct Paged<T, F> {
    read: F,
    page: std::vec::IntoIter<T>,
    /// `None` before the first page; `Some(None)` after the last.
    reached: Option<Option<Vec<u8>>>,
}

impl<T, F: FnMut(Option<Vec<u8>>) -> Result<(Vec<T>, Option<Vec<u8>>), Fault>> Paged<T, F> {
    fn new(read: F) -> Paged<T, F> {
        Paged { read, page: Vec::new().into_iter(), reached: None }
    }
}

impl<T, F: FnMut(Option<Vec<u8>>) -> Result<(Vec<T>, Option<Vec<u8>>), Fault>> Iterator for Paged<T, F> {
    type Item = Result<T, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.page.next() {
                return Some(Ok(item));
            }
            let after = match self.reached.take() {
                None => None,
                Some(Some(after)) => Some(after),
                Some(None) => {
                    self.reached = Some(None);
                    return None;
                }
            };
            match (self.read)(after) {
                Ok((page, reached)) => {
                    self.page = page.into_iter();
                    self.reached = Some(reached);
                }
                Err(fault) => {
                    self.reached = Some(None);
                    return Some(Err(fault));
                }
            }
        }
    }
}

fn branch_of(table: Table, key: &[u8]) -> Result<BranchId, Fault> {
    let split = tables::split_id_number(key).ok_or_else(|| damaged(table, "a key is no branch"))?;
    Ok(BranchId(split.1))
}

/// Every row whose key begins with `prefix`.
fn each(
    snapshot: &Snapshot,
    table: Table,
    prefix: &[u8],
    mut look: impl FnMut(&[u8], Sealed<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let end = tables::after_prefix(prefix);
    let range = (Bound::Included(prefix), end.as_deref().map_or(Bound::Unbounded, Bound::Excluded));
    snapshot.scan(table, range, Direction::Forward, |key, row| look(key, row).map(ControlFlow::Continue))
}

fn payload(snapshot: &Snapshot, id: ExecutionId, which: Payload) -> Result<Option<Json>, Fault> {
    snapshot.get(Table::Payloads, &tables::payload(id, which), payload_from)
}

fn payload_from(row: Sealed<'_>) -> Result<Json, Fault> {
    std::str::from_utf8(row.plain()?).map(Arc::from).map_err(|_| row.damaged("a row is no text"))
}

fn header(
    snapshot: &Snapshot,
    id: ExecutionId,
    input: Json,
    output: impl FnOnce() -> Result<Option<Json>, Fault>,
) -> Result<Option<Header>, Fault> {
    snapshot.get(Table::Executions, &id.to_bytes(), |row| header_from(id, row, input, output))
}

fn header_from(
    id: ExecutionId,
    row: Sealed<'_>,
    input: Json,
    output: impl FnOnce() -> Result<Option<Json>, Fault>,
) -> Result<Header, Fault> {
    let row = row.access::<HeaderRow>()?;
    let output = if row.succeeded() { output()? } else { None };
    rows::header_from(id, row, input, output)
}

impl Reader {
    /// When the newest event of an execution was that is not archived. Reads one row.
    pub fn last_event_at(&self, id: ExecutionId) -> Result<Option<Timestamp>, Fault> {
        let (first, last) = (tables::history(id, EventId(0)), tables::history(id, EventId(u64::MAX)));
        let range = (Bound::Included(first.as_slice()), Bound::Included(last.as_slice()));
        let mut newest = None;
        self.0.snapshot().scan(Table::History, range, Direction::Backward, |_, row| {
            newest = rows::newest_at(row.access::<HistoryRow>()?);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(newest)
    }
}

/// The events that lie in the history table.
fn live_history(
    snapshot: &Snapshot,
    id: ExecutionId,
    from: EventId,
    limit: usize,
    bytes: usize,
    direction: Direction,
) -> Result<(Vec<HistoryEvent>, Option<EventId>), Fault> {
    // The row that holds `from` begins at or before it.
    let mut first = tables::history(id, EventId(0));
    let last = tables::history(id, if direction == Direction::Forward { EventId(u64::MAX) } else { from });
    if direction == Direction::Forward {
        let at = tables::history(id, from);
        let range = (Bound::Included(first.as_slice()), Bound::Included(at.as_slice()));
        let mut begin = None;
        snapshot.scan(Table::History, range, Direction::Backward, |key, _| {
            begin = Some(key.to_vec());
            Ok(ControlFlow::Break(()))
        })?;
        first = begin.unwrap_or(at);
    }
    let mut page = HistoryPage::new(limit, bytes);
    let range = (Bound::Included(first.as_slice()), Bound::Included(last.as_slice()));
    snapshot.scan(Table::History, range, direction, |_, row| {
        let mut step = rows::events_from(row.access::<HistoryRow>()?)?;
        match direction {
            Direction::Forward => step.retain(|event| event.id >= from),
            Direction::Backward => {
                step.retain(|event| event.id <= from);
                step.reverse();
            }
        }
        Ok(step.into_iter().try_for_each(|event| page.add(event)))
    })?;
    Ok((page.events, page.next))
}

/// Events up to so many and about so many bytes, but one at least.
struct HistoryPage {
    events: Vec<HistoryEvent>,
    limit: usize,
    bytes_left: usize,
    /// The first event that is not in it.
    next: Option<EventId>,
}

impl HistoryPage {
    fn new(limit: usize, bytes: usize) -> HistoryPage {
        HistoryPage { events: Vec::new(), limit, bytes_left: bytes, next: None }
    }

    /// Breaks once the page is full.
    fn add(&mut self, event: HistoryEvent) -> ControlFlow<()> {
        if self.events.len() == self.limit || self.bytes_left == 0 && !self.events.is_empty() {
            self.next = Some(event.id);
            return ControlFlow::Break(());
        }
        // Not the row's: in it what several events say stands once.
        self.bytes_left = self.bytes_left.saturating_sub(event.kind.bytes());
        self.events.push(event);
        ControlFlow::Continue(())
    }
}
