//! Distributed Map: what its run is asked to do, and what comes of the run.
//!
//! ```text
//! Map entered ──> MapStateStarted, MapRunStarted ──RunTask(the run's ARN)──> the run starts and counts its children
//!      left   <── MapRunSucceeded | MapRunFailed <──TaskSucceeded | TaskFailed──┘
//! ```
//! To its parent a run is one task, whose resource is the run's own ARN and whose parameters are a [`Plan`]: reading
//! items, starting children, counting them and writing results are effects, so the parent's rows do not grow with
//! them. What is decided along the way is decided here all the same: [`Feed`] makes the children's inputs, [`Plan`]
//! says when too many have failed.

use std::sync::Arc;

use conveyor_asl::{Effort, Format, Map, ReadWith, ResultForm, State, StateMachine, Template, Text, may_label};
use conveyor_base::{Attempt, BranchId, ExecutionId, Timestamp, arn, limits};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::dataflow::Surroundings;
use super::draft::{Draft, Payload};
use super::env::Env;
use super::event::{Entry, Event, Json, RunTask};
use super::execution::{Branch, Doing, Execution, Header, Item, MapChild, RunPhase};
use super::history::{Failure, HistoryKind};
use super::map::{Tolerated, count, items, map_of};
use super::observer::Observer;
use super::partial::{Base, Known, Partial, Unread};
use super::raise::{DATA_LIMIT_EXCEEDED, Raised, raise};
use super::step::{leave, transition};

/// Longest label that is made out of a state's name, in characters.
const LABEL_CHARS_MAX: usize = 40;

/// What a run is asked to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub label: String,
    /// Children are express executions.
    pub express: bool,
    /// 0: no bound of its own.
    pub max_concurrency: u32,
    pub tolerated_count: Option<u64>,
    pub tolerated_percentage: Option<f64>,
    /// Where the items are read; `None`: they stand in the parent's input.
    pub reader: Option<ReadItems>,
    pub batch: Option<Batch>,
    pub writer: Option<WriteResults>,
}

/// Items out of objects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadItems {
    pub with: ReadWith,
    /// `Bucket`, `Key`, `Prefix` ...
    pub parameters: Value,
    pub format: Format,
    pub max_items: Option<u64>,
    pub pointer: Option<String>,
}

/// How items are put together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    pub max_items: Option<u64>,
    pub max_bytes: Option<u64>,
    pub input: Option<Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WriteResults {
    /// Where to; `None`: nowhere, the state's result only takes the form.
    pub parameters: Option<Value>,
    pub form: ResultForm,
}

impl Plan {
    /// Whether more items failed than the run tolerates, of so many in all.
    pub fn is_exceeded(&self, failed: u64, total: u64) -> bool {
        exceeds(self.tolerated_count, self.tolerated_percentage, failed, total)
    }
}

/// Whether so many failed items of so many are more than one of the two allows; where neither is said, one is.
pub fn exceeds(count: Option<u64>, percentage: Option<f64>, failed: u64, total: u64) -> bool {
    let too_many = count.is_some_and(|count| failed > count);
    let too_large = percentage.is_some_and(|percentage| failed as f64 * 100.0 > percentage * total as f64);
    too_many || too_large || (count.is_none() && percentage.is_none() && failed > 0)
}

/// The error of a run in which too many items failed.
pub fn threshold_exceeded() -> Failure {
    Raised::threshold_exceeded().failure()
}

/// The run that a task stands for, where it stands for one.
pub fn run_of(resource: &str) -> Option<u128> {
    let mut parts = resource.splitn(6, ':');
    let rest = parts.nth(5).filter(|_| resource.starts_with("arn:"))?;
    let (_, run) = rest.strip_prefix("mapRun:")?.rsplit_once(':')?;
    run.parse::<uuid::Uuid>().ok().map(|run| run.as_u128())
}

/// The Map state starts its run.
pub(super) fn start(
    draft: &mut Draft<impl Observer>,
    id: BranchId,
    state: &State,
    map: &Map,
    payload: Payload,
) -> Result<(), Raised> {
    let run = uuid::Builder::from_random_bytes(draft.draw_wide().to_be_bytes()).into_uuid().as_u128();
    let around = Surroundings::of(draft, id, None).seeded(run as u64);
    let input = around.input(&mut draft.observer, state, &payload.value)?;
    // How many a reader will find is not known yet.
    let length = match map.distributed.reader {
        Some(_) => 0,
        None => u32::try_from(items(&around, state, map, &input)?.len()).unwrap_or(u32::MAX),
    };
    let plan = plan(&around, &mut draft.observer, state, map, &input)?;
    draft.record(id, HistoryKind::MapStateStarted { length });
    let arn = run_arn(draft, &plan.label, run);
    draft.record(id, HistoryKind::MapRunStarted { arn: arn.clone() });
    let attempt = draft.next_attempt();
    command(draft, id, state, Running { attempt, run, redrives: 0 }, arn, &plan);
    Ok(())
}

/// The run goes on from where it failed: the same run, whose children that did not succeed are redriven.
pub(super) fn redrive(draft: &mut Draft<impl Observer>, id: BranchId) {
    let machine = draft.machine;
    let Some(branch) = draft.branch(id) else { return };
    let Doing::MapRun { attempt, run, redrives, .. } = branch.doing else { return };
    let Some((state, map)) = map_of(machine, &branch.state) else { return };
    let raw = branch.input.clone();
    let around = Surroundings::of(draft, id, None).seeded(run as u64);
    match around
        .input(&mut draft.observer, state, &raw)
        .and_then(|input| plan(&around, &mut draft.observer, state, map, &input))
    {
        Ok(plan) => {
            let arn = run_arn(draft, &plan.label, run);
            let redrives = redrives.saturating_add(1);
            draft.record(id, HistoryKind::MapRunRedriven { arn: arn.clone(), redrive_count: redrives });
            command(draft, id, state, Running { attempt, run, redrives }, arn, &plan);
        }
        Err(raised) => raise(draft, id, raised),
    }
}

struct Running {
    attempt: Attempt,
    run: u128,
    redrives: u32,
}

fn command(draft: &mut Draft<impl Observer>, id: BranchId, state: &State, running: Running, arn: String, plan: &Plan) {
    let Running { attempt, run, redrives } = running;
    if let Some(branch) = draft.edit(id) {
        branch.doing = Doing::MapRun { attempt, run, redrives, phase: RunPhase::Running };
    }
    let parameters = serde_json::to_string(plan).unwrap_or_default().into();
    draft.run_task(RunTask {
        attempt,
        branch: id,
        state: state.name.clone(),
        resource: arn,
        parameters,
        token: None,
        timeout_ms: None,
        heartbeat_ms: None,
        retry_count: redrives,
        scheduled_at: draft.at,
    });
}

fn run_arn(draft: &Draft<impl Observer>, label: &str, run: u128) -> String {
    let (region, account) = (&draft.env.region, &draft.env.account);
    arn::map_run(region, account, &draft.header.machine.name, label, uuid::Uuid::from_u128(run))
}

/// The run ended.
pub(super) fn report(draft: &mut Draft<impl Observer>, id: BranchId, event: &Event) -> bool {
    let machine = draft.machine;
    let Some(branch) = draft.branch(id) else { return false };
    let Some((state, _)) = map_of(machine, &branch.state) else { return false };
    let raw = branch.input.clone();
    match event {
        Event::TaskSucceeded { output, .. } => {
            set_phase(draft, id, RunPhase::Succeeded);
            let last = draft.record(id, HistoryKind::MapRunSucceeded);
            // The exit points to the same event as this one, so the branch's own row does not move on.
            draft.record_after(last, HistoryKind::MapStateSucceeded);
            let result = Arc::new(serde_json::from_str::<Value>(output).unwrap_or_default());
            let around = Surroundings::of(draft, id, None);
            match around.result(&mut draft.observer, state, &raw, result) {
                Ok(output) => leave(draft, id, state, output, transition(state)),
                Err(raised) => raise(draft, id, raised),
            }
        }
        Event::TaskFailed { error, cause, .. } => {
            set_phase(draft, id, RunPhase::Halted);
            raise(draft, id, Raised::new(error.clone(), cause.clone()));
        }
        _ => return false,
    }
    true
}

fn set_phase(draft: &mut Draft<impl Observer>, id: BranchId, to: RunPhase) {
    if let Some(Branch { doing: Doing::MapRun { phase, .. }, .. }) = draft.edit(id) {
        *phase = to;
    }
}

fn plan(
    around: &Surroundings,
    seen: &mut impl Observer,
    state: &State,
    map: &Map,
    input: &Arc<Value>,
) -> Result<Plan, Raised> {
    let number = |field: &str, of| count(around, state, field, of, input);
    let concurrency = number("MaxConcurrency", &map.max_concurrency)?.unwrap_or(0.0);
    let tolerated = Tolerated::of(around, seen, state, map, input)?;
    let template = |template: &Option<Template>| match template {
        None => Ok(None),
        Some(template) => around.template(state, template, input).map(|value| Some((*value).clone())),
    };
    let distributed = &map.distributed;
    let reader = match &distributed.reader {
        None => None,
        Some(reader) => Some(ReadItems {
            with: reader.resource,
            parameters: template(&reader.parameters)?.unwrap_or_default(),
            format: reader.format.clone(),
            max_items: number("MaxItems", &reader.max_items)?.map(|most| most as u64),
            pointer: match &reader.pointer {
                Text::Absent => None,
                Text::Literal(text) => Some(text.clone()),
                Text::Query(query) => {
                    let found = query.eval(&around.scope(input)).map_err(|e| around.failed(state, e))?;
                    found.as_str().map(str::to_owned)
                }
            },
        }),
    };
    let batch = match &distributed.batcher {
        None => None,
        Some(batcher) => Some(Batch {
            max_items: number("MaxItemsPerBatch", &batcher.max_items)?.map(|most| most as u64),
            max_bytes: number("MaxInputBytesPerBatch", &batcher.max_bytes)?.map(|most| most as u64),
            input: template(&batcher.input)?,
        }),
    };
    let writer = match &distributed.writer {
        None => None,
        Some(writer) => Some(WriteResults {
            parameters: template(&writer.parameters)?.filter(|_| writer.exports),
            form: writer.form,
        }),
    };
    Ok(Plan {
        label: map.label.clone().unwrap_or_else(|| label_of(&state.name)),
        express: map.processor.express,
        max_concurrency: concurrency as u32,
        tolerated_count: tolerated.count,
        tolerated_percentage: tolerated.percentage,
        reader,
        batch,
        writer,
    })
}

/// A label out of a state's name, in which more may stand.
fn label_of(state: &str) -> String {
    let label: String = state.chars().take(LABEL_CHARS_MAX).map(|c| if may_label(c) { c } else { '_' }).collect();
    if label.is_empty() { "map".to_owned() } else { label }
}

/// Makes the children of a run, out of the parent as it stands in its rows.
pub struct Feed<'m> {
    state: &'m State,
    map: &'m Map,
    around: Surroundings<'m>,
    input: Arc<Value>,
    effort: &'m Effort,
    /// What was done for all children, and for the one that is made now.
    worked: u64,
    child: u64,
}

impl<'m> Feed<'m> {
    /// `None` where the parent's branch is in no distributed Map (any more). It looks at the branch and at what is around
    /// it; what of that was not read is said.
    pub fn of(
        machine: &'m StateMachine,
        parent: &'m Partial,
        branch: BranchId,
        env: &'m Env,
        effort: &'m Effort,
    ) -> Result<Option<Feed<'m>>, Unread> {
        let row = match parent.branch(branch) {
            Known::There(row) => row,
            Known::Absent => return Ok(None),
            Known::Unread => return Err(Unread::Branch(branch)),
        };
        let Doing::MapRun { run, .. } = row.doing else { return Ok(None) };
        let Some((state, map)) = map_of(machine, &row.state) else { return Ok(None) };
        // The same time and randomness whenever it is asked: the run may go on after a crash.
        let entry = Entry { at: row.state_entered_at, box_at: row.state_entered_at, seed: run, event: Event::Started };
        effort.grant(limits::STATE_WORK_MAX);
        let mut draft = Draft::new(machine, Base::Part(parent), &entry, env, effort);
        let around = Surroundings::of(&mut draft, branch, None).seeded(run as u64);
        let input = around.input(&mut draft.observer, state, &row.input);
        match draft.unread() {
            Some(unread) => Err(unread),
            None => Ok(input.ok().map(|input| Feed { state, map, around, input, effort, worked: 0, child: 0 })),
        }
    }

    /// Begins another child. What all of them took so far, in the units of [`Effort`].
    pub fn next_child(&mut self) -> u64 {
        self.worked += std::mem::take(&mut self.child);
        self.worked
    }

    /// Whether the child that is made now has taken so much that it is to hold no further item.
    pub fn is_spent(&self) -> bool {
        self.child + limits::STATE_WORK_MAX > limits::CHILD_WORK_MAX
    }

    /// The items that stand in the parent's input.
    pub fn items(&self) -> Result<Vec<Item>, Failure> {
        let found = items(&self.around, self.state, self.map, &self.input).map_err(|raised| raised.failure())?;
        let source: Arc<str> = "STATE_DATA".into();
        Ok(found.into_iter().map(|item| Item { source: Some(source.clone()), ..item }).collect())
    }

    /// What one item becomes: ItemSelector's work.
    pub fn select(&mut self, index: u32, item: &Item) -> Result<Arc<Value>, Failure> {
        let Some(selector) = &self.map.item_selector else { return Ok(item.input()) };
        self.around.set_item(index, item);
        self.effort.grant(limits::STATE_WORK_MAX);
        let selected = self.around.template(self.state, selector, &self.input).map_err(|raised| raised.failure());
        self.child += limits::STATE_WORK_MAX - self.effort.left();
        selected
    }
}

/// The input of a child with a batch of items.
pub fn batch_input(batch: &Batch, items: &[Arc<Value>]) -> Value {
    let mut input = json!({});
    if let Some(shared) = &batch.input {
        input["BatchInput"] = shared.clone();
    }
    input["Items"] = Value::Array(items.iter().map(|item| (**item).clone()).collect());
    input
}

/// A child's input may be as long as any payload.
pub fn bounded(state: &str, input: Json) -> Result<Json, Failure> {
    match input.len() <= limits::quotas().payload_bytes() {
        true => Ok(input),
        false => {
            let cause = format!("The input of a child of the Map state '{state}' exceeds the maximum number of bytes.");
            Err(Failure { error: Some(DATA_LIMIT_EXCEEDED.into()), cause: Some(cause) })
        }
    }
}

/// A child, before its first step.
pub fn child(id: ExecutionId, parent: &Header, of: MapChild, input: Json, at: Timestamp) -> Execution {
    let mut execution = Execution::start(id, id.to_string(), parent.machine.clone(), input, at);
    execution.header.child = Some(Arc::new(of));
    execution
}
