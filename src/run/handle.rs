//! [`Handle`]: what the API, the resources and the watchers hold of the running appliance.
//!
//! A call that changes something resolves once what it did is durable; an express start, which is no row, once it is
//! recorded. A caller who goes away changes nothing of what was taken: what one commit does is handed on as a whole, and
//! what is more than that runs to its end in a task of its own. `start_for` and `commit_for` answer to their Task.

use std::sync::Arc;

use conveyor_base::limits::REDRIVABLE_MS;
use conveyor_base::{Attempt, BoxClock, ExecutionId, Fault, TaskError, TaskToken, Timestamp};
use conveyor_interpreter::Json;
use conveyor_interpreter::map_run::run_of;
use conveyor_interpreter::{Doing, Event, Header, MachineRef, Parent, RunTask};
use conveyor_store::{AliasRow, Commit, Reader, Tag, VersionRow};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Duration, Instant, timeout_at};

use super::audit::{By, OnBehalf};
use super::completion::{self, Completed, Completion};
use super::core::{Core, SharedCore};
use super::guarded;
use super::lanes::{self, LaneStatus, WaitingStage};
use super::start::Starting;
use super::{
    ActivityTask, AliasChange, Attempted, Changed, ExpressBoard, LiveUpdate, LogBatch, Machine, MachineChange,
    NewMachine, Refused, RunningAttempt, TaskContext, TaskOutcome,
};

/// How long a worker's GetActivityTask waits for work (AWS: 60 seconds).
const ACTIVITY_POLL: Duration = Duration::from_secs(60);

/// Longest that a Task that is tried out may take (AWS: five minutes).
const TRIAL_MAX: Duration = Duration::from_secs(300);

/// The state machine that a Task believes to be in when it is tried out.
const TRIED_OUT: &str = "TestState";

/// How long an orderly shutdown waits for commits that are under way: they end within one sync.
const SHUT_DOWN_MAX: Duration = Duration::from_secs(2);

/// What an execution is started with.
#[derive(Clone, Debug, Default)]
pub struct StartRequest {
    pub machine: String,
    /// The version's number or the alias through which it is started; `None`: the machine's newest revision.
    pub qualifier: Option<String>,
    /// `None`: the box makes one up.
    pub name: Option<String>,
    pub input: Json,
    pub parent: Option<Parent>,
    pub trace_header: Option<String>,
    /// The same name with the same input answers the execution that is there even when it has ended.
    pub once: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    pub id: ExecutionId,
    pub arn: String,
    pub name: String,
    pub started_at: Timestamp,
    /// It was there already.
    pub existed: bool,
}

#[derive(Clone)]
pub struct Handle {
    core: SharedCore,
    on_behalf: Option<OnBehalf>,
}

impl Handle {
    pub(super) fn of(core: SharedCore) -> Handle {
        Handle { core, on_behalf: None }
    }

    pub(super) fn core(&self) -> &SharedCore {
        &self.core
    }

    /// The same, whose next change takes this entry of the audit log into its commit.
    pub fn on_behalf(&self, entry: OnBehalf) -> Handle {
        Handle { core: self.core.clone(), on_behalf: Some(entry) }
    }

    /// Whose doing the changes made through this are, for services that store them.
    pub fn entry(&self) -> Option<OnBehalf> {
        self.on_behalf.clone()
    }

    fn by(&self) -> By<'_> {
        self.on_behalf.as_ref()
    }

    pub fn reader(&self) -> &Reader {
        &self.core.reader
    }

    pub fn clock(&self) -> &Arc<BoxClock> {
        &self.core.clock
    }

    /// By the box's own time, which nobody sets: for what lasts, and for what rows count it in.
    pub fn now(&self) -> Timestamp {
        self.core.clock.now()
    }

    /// By the wall clock: for what people read, and what they tied to a time of day.
    pub fn wall(&self) -> Timestamp {
        self.core.clock.wall()
    }

    pub fn account(&self) -> &str {
        &self.core.account
    }

    pub fn region(&self) -> &str {
        &self.core.region
    }

    /// Stores rows that belong to the caller.
    pub async fn commit(&self, commit: Commit) -> Result<(), Fault> {
        self.core.commit_for(commit, self.by()).await
    }

    /// A number for a new outbox row.
    pub fn outbox_number(&self) -> u64 {
        self.core.writer.outbox_number()
    }

    pub async fn create_machine(&self, new: NewMachine) -> Result<Changed, Refused> {
        self.core.create_machine(new, self.by()).await
    }

    pub async fn update_machine(&self, name: &str, change: MachineChange) -> Result<Changed, Refused> {
        self.core.update_machine(name, change, self.by()).await
    }

    pub async fn delete_machine(&self, name: &str) -> Result<(), Refused> {
        let (core, name, on_behalf) = (self.core.clone(), name.to_owned(), self.on_behalf.clone());
        to_its_end(async move { core.delete_machine(&name, on_behalf.as_ref()).await }).await
    }

    pub async fn retag_machine(
        &self,
        name: &str,
        change: impl FnOnce(&mut Vec<Tag>) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        self.core.retag_machine(name, change, self.by()).await
    }

    /// With the version's number; `revision_id`: only if that is still the newest revision.
    pub async fn publish_version(
        &self,
        machine: &str,
        revision_id: Option<String>,
        description: String,
    ) -> Result<(u64, VersionRow), Refused> {
        self.core.publish_version(machine, revision_id, description, self.by()).await
    }

    pub async fn delete_version(&self, machine: &str, version: u64) -> Result<(), Refused> {
        self.core.delete_version(machine, version, self.by()).await
    }

    pub async fn create_alias(&self, machine: &str, name: &str, new: AliasChange) -> Result<AliasRow, Refused> {
        self.core.create_alias(machine, name, new, self.by()).await
    }

    pub async fn update_alias(&self, machine: &str, name: &str, change: AliasChange) -> Result<AliasRow, Refused> {
        self.core.update_alias(machine, name, change, self.by()).await
    }

    pub async fn delete_alias(&self, machine: &str, name: &str) -> Result<(), Refused> {
        self.core.delete_alias(machine, name, self.by()).await
    }

    /// Changes of activities happen one after another.
    pub async fn change_activity<T>(
        &self,
        change: impl FnOnce(&mut Commit) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let _one_at_a_time = self.core.catalog.changing.lock().await;
        let mut commit = Commit::new();
        let changed = change(&mut commit)?;
        if !commit.is_empty() {
            self.core.commit_for(commit, self.by()).await?;
        }
        Ok(changed)
    }

    /// A definition, parsed.
    pub fn machine(&self, machine: &MachineRef) -> Result<Arc<Machine>, Fault> {
        self.core.machine(machine)
    }

    pub async fn start(&self, request: StartRequest) -> Result<Started, Refused> {
        let (core, on_behalf) = (self.core.clone(), self.on_behalf.clone());
        to_its_end(async move { super::start::start(&core, request, on_behalf.as_ref(), None).await }).await
    }

    /// Starts an execution for a Task, whose attempt ends in the commit of the start with what `shape` makes of it.
    pub fn start_for(
        &self,
        request: StartRequest,
        completion: Completion,
        shape: impl FnOnce(&Result<Started, Refused>) -> TaskOutcome + Send + 'static,
    ) {
        let core = self.core.clone();
        tokio::spawn(async move {
            let mut task = Starting::new(completion, Box::new(shape));
            let started = super::start::start(&core, request, None, Some(&mut task)).await;
            task.end(&started);
        });
    }

    /// Commits rows for a Task, whose attempt ends with that outcome in the same commit. Where it is over already nothing
    /// is stored.
    pub fn commit_for(&self, mut commit: Commit, mut completion: Completion, outcome: TaskOutcome) {
        let core = self.core.clone();
        tokio::spawn(async move {
            // What is not stored ends the process, or the attempt is issued again.
            if completion.join(outcome, &mut commit) && core.commit(commit).await.is_ok() {
                completion.durable();
            }
        });
    }

    /// StartSyncExecution: resolves with the express execution as it ended.
    pub async fn start_sync(&self, request: StartRequest) -> Result<Header, Refused> {
        let (core, on_behalf) = (self.core.clone(), self.on_behalf.clone());
        to_its_end(async move { super::express::start_sync(&core, request, on_behalf.as_ref()).await }).await
    }

    /// What runs of express executions, and what ended lately.
    pub fn express(&self) -> ExpressBoard {
        self.core.express.board()
    }

    /// Stops an express execution that runs. False where there is none of that id.
    pub async fn stop_express(&self, id: ExecutionId, error: Option<String>, cause: Option<String>) -> bool {
        super::express::stop(&self.core, id, error, cause, self.on_behalf.as_ref()).await
    }

    /// Runs express executions anew that were in flight when the former process ended, as the record of starts says
    /// ([`Config::express_record`](super::Config)): how many. A second call finds none. To be called once the state
    /// machines and services are there that they use.
    pub async fn resume_express(&self) -> usize {
        super::express::resume(&self.core).await
    }

    /// The end of the queue of what state machines log. There is one, and until it is taken nothing is queued.
    pub fn take_logs(&self) -> Option<mpsc::UnboundedReceiver<LogBatch>> {
        self.core.logs.take()
    }

    /// StopExecution. Stopping what has ended changes nothing, and answers when it did.
    pub async fn stop(
        &self,
        id: ExecutionId,
        error: Option<String>,
        cause: Option<String>,
    ) -> Result<Timestamp, Refused> {
        self.core.post_for(id, Event::Stopped { error, cause }, self.on_behalf.clone()).await?;
        let header = self.core.reader.header(id).await?.ok_or_else(|| Refused::no_execution(id))?;
        Ok(header.stopped_at.unwrap_or(header.started_at))
    }

    /// RedriveExecution: goes on from where it failed.
    pub async fn redrive(&self, id: ExecutionId) -> Result<Timestamp, Refused> {
        let handle = self.clone();
        to_its_end(async move { handle.redrive_held(id).await }).await
    }

    async fn redrive_held(&self, id: ExecutionId) -> Result<Timestamp, Refused> {
        // What it goes on from must not be archived meanwhile.
        let _held = self.core.redrives.read().await;
        let header = self.core.reader.header(id).await?.ok_or_else(|| Refused::no_execution(id))?;
        let arn = || self.core.execution_arn(&header.arn_machine(), &header.name);
        let refused = |why: &str| {
            Refused::new("ExecutionNotRedrivable", format!("Execution is not redrivable: {why} '{}'", arn()))
        };
        if header.child.is_some() {
            return Err(refused("it is a child of a Map run: redrive the execution that started the run."));
        }
        if let Some(why) = super::not_redrivable(&header, &self.clock().older_than(REDRIVABLE_MS)) {
            return Err(refused(&format!("{why}.")));
        }
        if self.core.reader.is_archived(id)? {
            return Err(refused("it was archived, and what it would go on from is gone."));
        }
        match self.core.post_for(id, Event::Redriven, self.on_behalf.clone()).await? {
            true => {
                let header = self.core.reader.header(id).await?;
                Ok(header.and_then(|header| header.redriven_at).unwrap_or_else(|| self.wall()))
            }
            false => Err(refused("nothing is left to continue from.")),
        }
    }

    /// SendTaskSuccess.
    pub async fn send_task_success(&self, token: &str, output: Json) -> Result<(), Refused> {
        let token = self.check(token)?;
        self.report(token, Event::TaskSucceeded { attempt: token.attempt, output }).await
    }

    /// SendTaskFailure.
    pub async fn send_task_failure(
        &self,
        token: &str,
        error: Option<String>,
        cause: Option<String>,
    ) -> Result<(), Refused> {
        let token = self.check(token)?;
        self.report(token, Event::TaskFailed { attempt: token.attempt, error, cause }).await
    }

    /// SendTaskHeartbeat.
    pub async fn send_task_heartbeat(&self, token: &str) -> Result<(), Refused> {
        let token = self.check(token)?;
        self.core.post_and_wait(token.execution, Event::HeartbeatSeen { attempt: token.attempt }).await?;
        Ok(())
    }

    /// Whether the Task of that token still waits for its report.
    pub fn awaits(&self, token: &str) -> Result<bool, Fault> {
        match self.check(token) {
            Ok(_) => Ok(true),
            Err(refused) if refused.code == "InternalFailure" => Err(Fault::fatal_plain(refused.message)),
            Err(_) => Ok(false),
        }
    }

    /// The token, if it is one of this box and its attempt is still open.
    fn check(&self, token: &str) -> Result<TaskToken, Refused> {
        let token: TaskToken = token.parse().map_err(|_| Refused::invalid_token())?;
        let TaskToken { execution, attempt, nonce } = token;
        let reader = &self.core.reader;
        let branch = match reader.branch_of_attempt(execution, attempt)? {
            Some(branch) => reader.branch(execution, branch)?,
            None if !reader.is_known(execution)? => return Err(Refused::invalid_token()),
            None => None,
        };
        match branch.map(|branch| branch.doing) {
            Some(Doing::Task { attempt: now, nonce: secret, .. }) if (now, secret) == (attempt, nonce) => Ok(token),
            _ => Err(Refused::task_timed_out()),
        }
    }

    /// Whether the attempt's outcome is still awaited.
    pub fn waits_for(&self, id: ExecutionId, attempt: Attempt) -> Result<bool, Fault> {
        Ok(self.core.reader.branch_of_attempt(id, attempt)?.is_some())
    }

    /// The end of what a Task submitted elsewhere. False where nobody waits for it any more.
    ///
    /// # Errors
    ///
    /// Transient ones only when the appliance ends; then it is to be told after the restart.
    pub async fn report_end(
        &self,
        id: ExecutionId,
        attempt: Attempt,
        outcome: Result<Json, TaskError>,
    ) -> Result<bool, Refused> {
        let event = match outcome {
            Ok(output) => Event::TaskSucceeded { attempt, output },
            Err(e) => Event::TaskFailed { attempt, error: Some(e.error), cause: Some(e.cause) },
        };
        self.core.post_until_heard(id, event).await
    }

    async fn report(&self, token: TaskToken, event: Event) -> Result<(), Refused> {
        match self.core.post_for(token.execution, event, self.on_behalf.clone()).await? {
            true => Ok(()),
            false => Err(Refused::task_timed_out()),
        }
    }

    /// GetActivityTask: waits up to a minute for work.
    pub async fn activity_task(&self, activity: &str, worker: Option<String>) -> Result<Option<ActivityTask>, Refused> {
        let until = Instant::now() + ACTIVITY_POLL;
        // Only the waiting ends with the time, or with the worker: a task that was taken is handed out, or nobody would
        // have it.
        while let Ok((id, task)) = timeout_at(until, self.core.activities.take(activity)).await {
            let event = Event::TaskStarted { attempt: task.attempt, worker: worker.clone() };
            let core = self.core.clone();
            let handed_out = to_its_end(async move {
                match core.post_and_wait(id, event).await {
                    Ok(true) => Ok(Some(task)),
                    Ok(false) => Ok(None),
                    // The worker is given another's: this one's execution has met its damage.
                    Err(refused) if refused.is_damage() => Ok(None),
                    Err(refused) => {
                        core.activities.offer(id, task);
                        Err(refused)
                    }
                }
            });
            if let Some(task) = handed_out.await? {
                return Ok(task.token.map(|token| ActivityTask { token, input: task.parameters }));
            }
        }
        Ok(None)
    }

    /// Runs a Task's resource once, for nobody: there is no execution, no lease and no retry. What needs an engine or
    /// cores is refused: nothing may take those past their lanes.
    pub async fn try_task(&self, task: RunTask) -> Result<TaskOutcome, Refused> {
        let Some(resource) = self.core.resources.find(&task.resource) else {
            return Ok(TaskOutcome::StartFailed(super::stage::unknown(&task.resource)));
        };
        let demand = match guarded::demand(&*resource, &task) {
            Ok(demand) => demand,
            Err(error) => return Ok(TaskOutcome::StartFailed(error)),
        };
        if demand.is_some_and(|demand| !demand.is_light()) {
            let what = format!("'{}' runs in an execution only; specify a mock", task.resource);
            return Err(Refused::new("ValidationException", what));
        }
        let (now, execution) = (self.wall(), ExecutionId::generate(self.wall()));
        let name = execution.to_string();
        let context = TaskContext {
            execution,
            execution_arn: self.core.execution_arn(TRIED_OUT, &name),
            execution_name: name,
            execution_started_at: now,
            trace_header: None,
            machine: MachineRef { name: TRIED_OUT.to_owned(), revision: 0, qualifier: None },
            progress: super::stage::progress(&self.core, execution, task.attempt, None),
            handle: self.clone(),
            threads: 1,
            device: None,
            moved: Vec::new(),
            task,
        };
        let attempt = context.task.attempt;
        let attempted = match timeout_at(Instant::now() + TRIAL_MAX, resource.run(context)).await {
            Ok(attempted) => attempted,
            Err(_) => return Ok(TaskOutcome::Failed(TaskError::new("States.Timeout", ""))),
        };
        Ok(match attempted {
            Attempted::Ended(outcome) => outcome,
            Attempted::Settle(settle) => {
                let (completion, ended) = Completion::alone(&self.core, attempt, self.on_behalf.clone());
                settle(completion);
                match ended.await {
                    Ok(Completed::Outcome { outcome, .. } | Completed::Durable { outcome, .. }) => outcome,
                    Ok(Completed::Lost | Completed::Lacks { .. } | Completed::Unread(_)) | Err(_) => completion::lost(),
                }
            }
        })
    }

    pub fn subscribe(&self) -> broadcast::Receiver<LiveUpdate> {
        self.core.board.subscribe()
    }

    /// What runs for an execution right now.
    pub fn running_attempts(&self, id: ExecutionId) -> Vec<RunningAttempt> {
        self.core.board.running(id)
    }

    /// What runs on the box right now.
    pub fn all_running_attempts(&self) -> Vec<(ExecutionId, RunningAttempt)> {
        self.core.board.all()
    }

    pub async fn lanes(&self) -> Vec<LaneStatus> {
        let Some(lanes) = self.core.lanes.get() else { return Vec::new() };
        match lanes.call(lanes::Message::Status, None).await {
            Ok(ractor::rpc::CallResult::Success(status)) => status,
            _ => Vec::new(),
        }
    }

    /// What waits for lanes, in order and at most so many: of one execution, or of all.
    pub async fn waiting(&self, of: Option<ExecutionId>, most: usize) -> Vec<WaitingStage> {
        let Some(lanes) = self.core.lanes.get() else { return Vec::new() };
        match lanes.call(|reply| lanes::Message::Waiting { of, most, reply }, None).await {
            Ok(ractor::rpc::CallResult::Success(waiting)) => waiting,
            _ => Vec::new(),
        }
    }

    /// Executions that have an actor now.
    pub fn awake(&self) -> usize {
        self.core.awake()
    }

    /// Whether the store takes commits.
    pub async fn check_store(&self) -> Result<(), Fault> {
        let mut commit = Commit::new();
        commit.put_setting("run.checked_at", &self.now().0.to_be_bytes());
        self.core.commit(commit).await
    }

    /// Looks through a definition, or computes something else for long, on a thread that may block. Where the caller goes
    /// away, work that has begun goes on.
    pub async fn analyse<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
        self.core.analyses.run(work).await
    }

    /// The same for a state that somebody tries out, of which many keep nobody from his definitions.
    pub async fn try_out<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
        self.core.trials.run(work).await
    }

    /// Turns to the reason when the appliance cannot go on.
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.core.fatal()
    }

    /// Takes no new work. What is awake finishes its commit; children end with their actors.
    pub async fn shut_down(&self) {
        self.core.close();
        if let Some(root) = self.core.root.get() {
            // An actor ends after the message that it is at, and its stages with it.
            root.stop_children_and_wait(None, Some(SHUT_DOWN_MAX)).await;
            // Drivers of Map runs are known until nobody would start them again.
            self.core.supervision.forget_all();
            self.core.map_runs.end(SHUT_DOWN_MAX).await;
            self.core.express.end_in_order().await;
            // It does nothing of its own, and is not waited for.
            root.stop(None);
        }
    }
}

/// Does work to its end, whether or not its caller stays for it.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refused>> + Send + 'static,
) -> Result<T, Refused> {
    tokio::spawn(work).await.unwrap_or_else(|_| Err(Refused::closing()))
}

impl Core {
    /// Whether the attempt can run without waiting for anything.
    pub fn needs_no_lane(&self, task: &conveyor_interpreter::RunTask) -> bool {
        !super::activities::is_activity(&task.resource)
            && run_of(&task.resource).is_none()
            && self.resources.find(&task.resource).is_none_or(|r| matches!(guarded::demand(&*r, task), Ok(None)))
    }
}
