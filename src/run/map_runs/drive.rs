//! One run of a distributed Map: reads its items, starts its children as concurrency allows, and ends.
//!
//! Each batch of starts is one commit together with the run's row, so that after a crash the next batch begins where the
//! last durable one ended. What a batch costs depends on the batch, never on how many items or children there are.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use conveyor_base::limits::{CHILDREN_IN_FLIGHT_MAX, STEP_WORK_MAX};
use conveyor_base::{Attempt, ExecutionId, Fault, Timestamp};
use conveyor_interpreter::map_run::{Feed, Plan, child, exceeds, threshold_exceeded};
use conveyor_interpreter::{
    Branch, Effort, Event, Execution, Failure, Known, MapChild, Partial, RunTask, Status, Step, run_list,
};
use conveyor_store::{Commit, MapRunRow, RunChild, RunStatus, Scans};
use tokio::time::{Duration, timeout};

use super::Driven;
use super::items::{Cursor, Items};
use super::results::{self, Gathered};
use crate::catalog::Machine;
use crate::core::SharedCore;
use crate::{guarded, start};

/// Most children that one commit starts, and most bytes of their inputs.
const STARTS_PER_COMMIT: u64 = 64;
const START_BYTES_MAX: usize = 1 << 20;
/// How long a wake-up may be lost before the counts are looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Where the statuses stand in the counts.
const RUNNING: usize = 0;
const FAILED: usize = 2;
const TIMED_OUT: usize = 3;

/// Drives a run to its end and says what to tell its parent; nothing where the parent does not wait, or the appliance
/// ends first.
pub(super) async fn drive(
    core: &SharedCore,
    parent: ExecutionId,
    task: RunTask,
    driven: &Arc<Driven>,
) -> Result<Option<Event>, Fault> {
    let Some(mut run) = Run::load(core, parent, task, driven).await? else {
        return Ok(None);
    };
    run.redrive_if_asked().await?;
    if run.row.status == RunStatus::Running {
        let end = match run.read().await? {
            Ok(()) => run.spread().await?,
            Err(end) => end,
        };
        match end {
            End::Closing => return Ok(None),
            End::Stopped => {
                run.abort().await?;
                return Ok(None);
            }
            End::Failed(failure) => run.fail(failure).await?,
            End::Done => {}
        }
    }
    run.finish().await
}

/// Ends a run that nobody waits for.
pub(super) async fn end_orphan(
    core: &SharedCore,
    parent: ExecutionId,
    attempt: Attempt,
    driven: &Arc<Driven>,
) -> Result<(), Fault> {
    let Some(row) = core.reader.map_run(parent, attempt)? else { return Ok(()) };
    abort(core, parent, attempt, row, driven).await
}

/// Express children that succeeded leave nothing behind once their parent has their results.
pub(super) async fn forget_express(core: &SharedCore, parent: ExecutionId, attempt: Attempt) -> Result<(), Fault> {
    let Some(row) = core.reader.map_run(parent, attempt)? else { return Ok(()) };
    if !row.express || row.status != RunStatus::Succeeded {
        return Ok(());
    }
    let list = run_list(&row.machine, &row.label, row.run.0);
    // Those that failed and were tolerated stay, as what says why.
    let of_list = list.clone();
    let succeeded = core.reader.blocking(move |rows| rows.run_children(&of_list, Status::Succeeded)).await?;
    for children in succeeded.chunks(256) {
        let mut commit = Commit::new();
        for child in children {
            commit.erase_child(child.id, &list, Status::Succeeded, child.items);
        }
        core.commit(commit).await?;
    }
    Ok(())
}

/// How driving came to an end.
pub(super) enum End {
    /// All children have ended, and not too many of them failed.
    Done,
    Failed(Failure),
    /// The parent waits no more.
    Stopped,
    /// The appliance ends; the next one goes on.
    Closing,
}

pub(super) struct Run<'a> {
    pub core: &'a SharedCore,
    pub parent: ExecutionId,
    pub task: RunTask,
    driven: &'a Arc<Driven>,
    pub row: MapRunRow,
    pub list: String,
    pub plan: Plan,
    pub machine: Arc<Machine>,
    /// The parent, as far as its Map looks at it: however wide that is, a run costs no more.
    pub execution: Partial,
    pub items: Items,
    /// Children that the redrive has not begun again yet.
    redriving: VecDeque<RunChild>,
}

/// Children made and not yet stored.
struct Batched {
    commit: Commit,
    started: Vec<(Execution, Step)>,
    cursor: Cursor,
}

impl<'a> Run<'a> {
    async fn load(
        core: &'a SharedCore,
        parent: ExecutionId,
        task: RunTask,
        driven: &'a Arc<Driven>,
    ) -> Result<Option<Run<'a>>, Fault> {
        let Some(header) = core.reader.header(parent).await? else { return Ok(None) };
        let (machine, branch) = (core.machine(&header.machine)?, task.branch);
        let (looking, mut execution) = (machine.clone(), Partial::of(header));
        let read = core.reader.blocking(move |rows| {
            let rows = rows.rows(parent);
            let effort = Effort::unbounded();
            while let Err(unread) = Feed::of(&looking.definition, &execution, branch, &looking.env, &effort) {
                execution.read(unread, &rows)?;
            }
            Ok::<_, Fault>(execution)
        });
        let execution = read.await?;
        let waits = |branch: &Branch| branch.doing.attempt() == Some(task.attempt);
        if !matches!(execution.branch(branch), Known::There(branch) if waits(branch)) {
            driven.stopped.store(true, Ordering::SeqCst);
        }
        let row = match core.reader.map_run(parent, task.attempt)? {
            Some(row) => row,
            // Cancelled in the step that began it, and redriven.
            None => match MapRunRow::of(execution.header(), &task) {
                Some(row) => row,
                None => return Ok(None),
            },
        };
        let Ok(plan) = serde_json::from_str::<Plan>(&task.parameters) else { return Ok(None) };
        let list = run_list(&row.machine, &row.label, row.run.0);
        let items = Items::of(core, parent, &task, &plan);
        Ok(Some(Run {
            core,
            parent,
            task,
            driven,
            row,
            list,
            plan,
            machine,
            execution,
            items,
            redriving: VecDeque::new(),
        }))
    }

    pub fn attempt(&self) -> Attempt {
        self.task.attempt
    }

    /// Stores the row, with what UpdateMapRun may have changed about it, and whatever else the commit holds.
    pub async fn store(&mut self, mut commit: Commit, change: impl FnOnce(&mut MapRunRow)) -> Result<(), Fault> {
        let driven = self.driven.clone();
        let _one_at_a_time = driven.changing.lock().await;
        self.refresh()?;
        change(&mut self.row);
        commit.put_map_run(self.parent, self.task.attempt, &self.row);
        self.core.commit(commit).await
    }

    /// Takes over what UpdateMapRun changed.
    fn refresh(&mut self) -> Result<(), Fault> {
        if let Some(stored) = self.core.reader.map_run(self.parent, self.attempt())? {
            self.row.max_concurrency = stored.max_concurrency;
            self.row.tolerated_count = stored.tolerated_count;
            self.row.tolerated_percentage = stored.tolerated_percentage;
        }
        Ok(())
    }

    pub fn interrupted(&self) -> Option<End> {
        if self.core.is_closing() {
            return Some(End::Closing);
        }
        self.driven.stopped.load(Ordering::SeqCst).then_some(End::Stopped)
    }

    /// A redrive begins the children again that did not succeed, once each, and then goes on with the items.
    async fn redrive_if_asked(&mut self) -> Result<(), Fault> {
        if self.task.retry_count > self.row.redrives || (self.task.retry_count > 0 && self.row.redriven_at.is_none()) {
            let (redrives, now) = (self.task.retry_count, self.after_its_children().await?);
            self.store(Commit::new(), |row| {
                row.status = RunStatus::Running;
                row.redrives = redrives;
                row.redriven_at = Some(now.into());
                (row.stopped_at, row.ended, row.error, row.cause) = (None, None, None, None);
            })
            .await?;
        }
        let Some(redriven_at) = self.row.redriven_at.filter(|_| self.row.status == RunStatus::Running) else {
            return Ok(());
        };
        let before = move |child: &RunChild| child.stopped_at.is_some_and(|at| at < Timestamp::from(redriven_at));
        let list = self.list.clone();
        let again = move |rows: &Scans| {
            let mut again = Vec::new();
            for status in [Status::Failed, Status::TimedOut, Status::Aborted] {
                again.extend(rows.run_children(&list, status)?.into_iter().filter(before));
            }
            again.sort_by_key(|child| child.number);
            Ok::<_, Fault>(again)
        };
        self.redriving = self.core.reader.blocking(again).await?.into();
        Ok(())
    }

    /// The wall clock's time, but behind the ends of all children so far, though the clock was set back since.
    async fn after_its_children(&self) -> Result<Timestamp, Fault> {
        let now = self.core.clock.wall();
        if !self.core.clock.was_later_than(now) {
            return Ok(now);
        }
        let list = self.list.clone();
        let newest = move |rows: &Scans| {
            let mut newest = None;
            for status in [Status::Failed, Status::TimedOut, Status::Aborted] {
                newest =
                    newest.max(rows.run_children(&list, status)?.iter().filter_map(|child| child.stopped_at).max());
            }
            Ok::<_, Fault>(newest)
        };
        let newest = self.core.reader.blocking(newest).await?;
        Ok(newest.map_or(now, |newest| now.max(newest.plus_ms(1))))
    }

    /// Starts children as concurrency allows, until all have ended or too many have failed.
    async fn spread(&mut self) -> Result<End, Fault> {
        loop {
            if let Some(end) = self.interrupted() {
                return Ok(end);
            }
            self.refresh()?;
            let counts = self.core.reader.run_counts(&self.list);
            // Those that the redrive has yet to begin again do not count as failed.
            let again: u64 = self.redriving.iter().map(|child| u64::from(child.items)).sum();
            let failed = (counts.items[FAILED] + counts.items[TIMED_OUT]).saturating_sub(again);
            let row = &self.row;
            if exceeds(row.tolerated_count, row.tolerated_percentage, failed, u64::from(row.items)) {
                return Ok(End::Failed(threshold_exceeded()));
            }
            let running = counts.executions[RUNNING];
            let most = match row.max_concurrency {
                0 => CHILDREN_IN_FLIGHT_MAX,
                most => CHILDREN_IN_FLIGHT_MAX.min(u64::from(most)),
            };
            let room = most.saturating_sub(running).min(STARTS_PER_COMMIT);
            let is_over = self.redriving.is_empty() && row.next_item >= row.items;
            if is_over && running == 0 {
                return Ok(End::Done);
            }
            if room > 0 && !is_over {
                if let Some(end) = self.go_on(room).await? {
                    return Ok(end);
                }
                continue;
            }
            // A wake-up that got lost is made up for by looking again.
            let _ = timeout(LOOK_AGAIN, self.driven.woken.notified()).await;
        }
    }

    async fn go_on(&mut self, room: u64) -> Result<Option<End>, Fault> {
        if self.redriving.is_empty() {
            return self.start_some(room).await;
        }
        let count = self.redriving.len().min(room as usize);
        for child in self.redriving.drain(..count).collect::<Vec<_>>() {
            // What cannot be redriven stays as it ended. Told when its row says that it runs.
            if let Err(refused) = self.core.post_until_heard(child.id, Event::Redriven).await
                && refused.is_transient()
            {
                return Ok(Some(End::Closing));
            }
        }
        Ok(None)
    }

    async fn start_some(&mut self, room: u64) -> Result<Option<End>, Fault> {
        let machine = self.machine.clone();
        let batched = match self.batch(room).await? {
            Ok(batched) => batched,
            Err(failure) => return Ok(Some(End::Failed(failure))),
        };
        let Batched { commit, started, cursor } = batched;
        let children = u32::try_from(started.len()).unwrap_or(u32::MAX);
        for (execution, _) in &started {
            self.core.expect(execution.header.id);
        }
        let stored = self
            .store(commit, |row| {
                (row.next_item, row.next_page, row.next_line) = (cursor.item, cursor.page, cursor.line);
                row.children += children;
            })
            .await;
        if stored.is_err() {
            started.iter().for_each(|(execution, _)| self.core.cancel_expected(execution.header.id));
        }
        stored?;
        for (execution, step) in started {
            self.core.logs.push(&machine, &execution.header, step.history);
            start::act(self.core, execution, step.commands);
        }
        Ok(None)
    }

    /// Makes the next children, decided and not stored: on a thread that may compute, since what their selectors take is
    /// the definition's to say.
    async fn batch(&mut self, room: u64) -> Result<Result<Batched, Failure>, Fault> {
        let (core, machine, parent) = (self.core.clone(), self.machine.clone(), self.execution.clone());
        let (mut items, row, branch) = (self.items.clone(), self.row.clone(), self.task.branch);
        let of = MapChild {
            run: row.run.0,
            parent: self.parent,
            attempt: self.task.attempt,
            state: self.task.state.clone(),
            label: row.label.as_str().into(),
            express: self.plan.express,
            number: row.children,
            items: 0,
        };
        let make = move || {
            let mut cursor = Cursor::of(&row);
            let (mut commit, mut started, mut bytes) = (Commit::new(), Vec::new(), 0);
            let effort = Effort::unbounded();
            let feed = Feed::of(&machine.definition, &parent, branch, &machine.env, &effort);
            let Some(mut feed) = feed.ok().flatten() else {
                let cause = "The execution is not in the Map state any more that the run belongs to.".to_owned();
                return Ok(Err(Failure { error: Some("States.Runtime".into()), cause: Some(cause) }));
            };
            while (started.len() as u64) < room
                && bytes < START_BYTES_MAX
                && cursor.item < row.items
                && feed.next_child() < STEP_WORK_MAX
            {
                let (input, held) = match items.next_input(&mut feed, &mut cursor, row.items)? {
                    Ok(made) => made,
                    Err(failure) => return Ok(Err(failure)),
                };
                bytes += input.len();
                let entry = core.entry(Event::Started);
                let of = MapChild { number: of.number + started.len() as u32, items: held, ..of.clone() };
                let id = ExecutionId::generate(entry.at);
                let mut execution = child(id, parent.header(), of, input, entry.at);
                let step = guarded::begin(&machine, &execution, &entry);
                commit.step(None, &step);
                execution.apply(&step);
                started.push((execution, step));
            }
            Ok::<_, Fault>(Ok((Batched { commit, started, cursor }, items)))
        };
        Ok(self.core.long_steps.run(make).await??.map(|(batched, items)| {
            self.items = items;
            batched
        }))
    }

    async fn fail(&mut self, failure: Failure) -> Result<(), Fault> {
        let now = self.core.clock.wall();
        self.store(Commit::new(), |row| {
            row.status = RunStatus::Failed;
            row.stopped_at = Some(now.into());
            (row.error, row.cause) = (failure.error, failure.cause);
        })
        .await
    }

    async fn abort(&mut self) -> Result<(), Fault> {
        abort(self.core, self.parent, self.attempt(), self.row.clone(), self.driven).await
    }

    /// From the last child's end to what the parent is told. After a crash it is gone through again.
    async fn finish(mut self) -> Result<Option<Event>, Fault> {
        if self.row.status == RunStatus::Failed && !stop_children(self.core, &self.list, self.driven).await? {
            return Ok(None);
        }
        let gathered = match (self.row.status, &self.plan.writer) {
            (RunStatus::Succeeded | RunStatus::Running, _) => results::gather(&mut self).await?,
            // Of a failed run too, what there is is written.
            (RunStatus::Failed, Some(writer)) if writer.parameters.is_some() && self.row.is_read => {
                drop(results::gather(&mut self).await?);
                Ok(Gathered::default())
            }
            _ => Ok(Gathered::default()),
        };
        if self.core.is_closing() {
            return Ok(None);
        }
        let (counts, now) = (self.core.reader.run_counts(&self.list), self.core.clock.wall());
        let attempt = self.attempt();
        let failed_now = gathered.as_ref().err().cloned();
        let mut commit = Commit::new();
        if failed_now.is_none() && self.row.status != RunStatus::Failed {
            for page in 0..self.row.pages {
                commit.delete_item_page(self.parent, attempt, page);
            }
        }
        let written = gathered.as_ref().map_or(0, |gathered| gathered.written);
        self.store(commit, |row| {
            row.ended = Some(row.ended.unwrap_or(counts));
            row.stopped_at = row.stopped_at.or(Some(now.into()));
            row.results_written = written;
            if row.status == RunStatus::Running {
                row.status = RunStatus::Succeeded;
            }
            if let Some(failure) = failed_now {
                row.status = RunStatus::Failed;
                (row.error, row.cause) = (failure.error, failure.cause);
            }
        })
        .await?;
        Ok(Some(match gathered {
            Ok(Gathered { output, .. }) if self.row.status == RunStatus::Succeeded => {
                Event::TaskSucceeded { attempt, output }
            }
            _ => Event::TaskFailed { attempt, error: self.row.error.clone(), cause: self.row.cause.clone() },
        }))
    }
}

async fn abort(
    core: &SharedCore,
    parent: ExecutionId,
    attempt: Attempt,
    mut row: MapRunRow,
    driven: &Arc<Driven>,
) -> Result<(), Fault> {
    let _one_at_a_time = driven.changing.lock().await;
    let list = run_list(&row.machine, &row.label, row.run.0);
    if row.status == RunStatus::Running {
        row.status = RunStatus::Aborted;
        row.stopped_at = Some(core.clock.wall().into());
        let mut commit = Commit::new();
        commit.put_map_run(parent, attempt, &row);
        core.commit(commit).await?;
    }
    if stop_children(core, &list, driven).await? {
        row.ended = Some(core.reader.run_counts(&list));
        let mut commit = Commit::new();
        commit.put_map_run(parent, attempt, &row);
        core.commit(commit).await?;
    }
    Ok(())
}

/// Stops what still runs, and waits until it has. False where the appliance ends first.
async fn stop_children(core: &SharedCore, list: &str, driven: &Driven) -> Result<bool, Fault> {
    let mut told = std::collections::HashSet::new();
    while core.reader.run_counts(list).executions[RUNNING] > 0 {
        let of_list = list.to_owned();
        let running = core.reader.blocking(move |rows| rows.run_children(&of_list, Status::Running)).await?;
        for child in running {
            if told.insert(child.id) {
                let cause = Some("The Map run that started it ended.".to_owned());
                core.post(child.id, Event::Stopped { error: None, cause });
            }
        }
        if core.is_closing() {
            return Ok(false);
        }
        let _ = timeout(LOOK_AGAIN, driven.woken.notified()).await;
    }
    Ok(!core.is_closing())
}
