//! Task: one attempt from its scheduling to its outcome.
//!
//! ```text
//! service task, function:  Scheduled+Started ----------------------> Succeeded | Failed | TimedOut
//!                                \--(.sync, .waitForTaskToken)--> Submitted ---^
//! activity:                Scheduled --> Started --(heartbeats)--> Succeeded | Failed | TimedOut
//! ```
//! The resource's ARN says which family of history events an attempt has.

use std::sync::Arc;

use conveyor_asl::{Kind, Query, Seconds, State, Task};
use conveyor_base::{Attempt, BranchId, TaskToken, TimerId, limits};
use serde_json::Value;

use super::dataflow::Surroundings;
use super::draft::{Draft, Payload};
use super::event::{Event, Json, RunTask};
use super::execution::{Doing, TaskPhase};
use super::history::{Failure, HistoryKind as K};
use super::observer::Observer;
use super::raise::{RUNTIME, Raised, raise};
use super::step::{leave, transition};

pub(super) fn run(
    draft: &mut Draft<impl Observer>,
    id: BranchId,
    state: &State,
    task: &Task,
    payload: Payload,
) -> Result<(), Raised> {
    let attempt = draft.next_attempt();
    let token = TaskToken { execution: draft.header.id, attempt, nonce: draft.draw_wide() };
    let family = Family::of(&task.resource);
    let token_is_shown = task.resource.ends_with(".waitForTaskToken");
    let around = Surroundings::of(draft, id, token_is_shown.then_some(token));
    let input = around.input(&mut draft.observer, state, &payload.value)?;
    let parameters = around.bounded(state, around.parameters(&mut draft.observer, state, &input)?)?.text;
    let timeout = seconds(&around, state, "TimeoutSeconds", &task.timeout, &input)?;
    let heartbeat = seconds(&around, state, "HeartbeatSeconds", &task.heartbeat, &input)?;
    draft.record(id, family.scheduled(&task.resource, &draft.env.region, &parameters, timeout, heartbeat));
    let is_activity = matches!(family, Family::Activity);
    if let Some(started) = family.started() {
        draft.record(id, started);
    }
    let timeout_ms = timeout.map(|s| s.saturating_mul(1_000));
    let heartbeat_ms = heartbeat.map(|s| s.saturating_mul(1_000));
    let timeout = timeout_ms.map(|ms| draft.set_timer(draft.box_at.plus_ms(ms)));
    // An activity's worker owes heartbeats from when it took the task.
    let heartbeat = heartbeat_ms.filter(|_| !is_activity).map(|ms| draft.set_timer(draft.box_at.plus_ms(ms)));
    let retry_count = draft.branch(id).map_or(0, |b| b.retries.iter().sum());
    let phase = if is_activity { TaskPhase::Scheduled } else { TaskPhase::Started };
    if let Some(branch) = draft.edit(id) {
        branch.doing = Doing::Task { attempt, phase, nonce: token.nonce, timeout, heartbeat, heartbeat_ms };
    }
    draft.run_task(RunTask {
        attempt,
        branch: id,
        state: state.name.clone(),
        resource: task.resource.clone(),
        parameters,
        token: (token_is_shown || is_activity).then_some(token),
        timeout_ms,
        heartbeat_ms,
        retry_count,
        scheduled_at: draft.at,
    });
    Ok(())
}

/// News of the attempt that the branch waits for. False where they change nothing.
pub(super) fn report(draft: &mut Draft<impl Observer>, id: BranchId, event: &Event) -> bool {
    let Some((machine, branch)) = draft.branch(id).map(|b| (draft.machine, b)) else { return false };
    let Doing::Task { phase, heartbeat_ms, .. } = branch.doing else { return false };
    let Some(state) = machine.state(&branch.state) else { return false };
    let Kind::Task(task) = &state.kind else { return false };
    let family = Family::of(&task.resource);
    let raised = |error: &Option<String>, cause: &Option<String>| Raised::new(error.clone(), cause.clone());
    match event {
        Event::TaskStarted { worker, .. } => {
            if phase != TaskPhase::Scheduled {
                return false;
            }
            draft.record(id, K::ActivityStarted { worker: worker.clone() });
            set_phase(draft, id, TaskPhase::Started);
            restart_heartbeat(draft, id);
        }
        Event::HeartbeatSeen { .. } => {
            if heartbeat_ms.is_none() || phase == TaskPhase::Scheduled {
                return false;
            }
            restart_heartbeat(draft, id);
        }
        Event::TaskSubmitted { output, .. } => {
            let (Family::Service { resource_type, resource }, TaskPhase::Started) = (family, phase) else {
                return false;
            };
            draft.record(id, K::TaskSubmitted { resource_type, resource, output: output.clone() });
            set_phase(draft, id, TaskPhase::Submitted);
        }
        Event::TaskSucceeded { output, .. } => succeed(draft, id, state, &family, output),
        Event::TaskFailed { error, cause, .. } => {
            end_attempt(draft, id, None);
            fail(draft, id, |f| family.failed(f), raised(error, cause));
        }
        Event::TaskSubmitFailed { error, cause, .. } => {
            end_attempt(draft, id, None);
            fail(draft, id, |f| family.submit_failed(f), raised(error, cause));
        }
        Event::TaskStartFailed { error, cause, .. } => {
            end_attempt(draft, id, None);
            fail(draft, id, |f| family.start_failed(f), raised(error, cause));
        }
        _ => return false,
    }
    true
}

/// One of the attempt's timers fired: its time is over, or its heartbeats stopped.
pub(super) fn time_out(draft: &mut Draft<impl Observer>, id: BranchId, timer: TimerId) {
    let Some(branch) = draft.branch(id) else { return };
    let raised = match branch.doing {
        Doing::Task { heartbeat: Some((heartbeat, _)), .. } if heartbeat == timer => Raised::missed_heartbeat(),
        _ => Raised::timeout(),
    };
    let Some(state) = draft.machine.state(&branch.state) else { return };
    let Kind::Task(task) = &state.kind else { return };
    let family = Family::of(&task.resource);
    if let Some(attempt) = end_attempt(draft, id, Some(timer)) {
        draft.cancel_task(attempt);
    }
    fail(draft, id, |f| family.timed_out(f), raised);
}

fn succeed(draft: &mut Draft<impl Observer>, id: BranchId, state: &State, family: &Family, output: &Json) {
    end_attempt(draft, id, None);
    if output.len() > limits::quotas().payload_bytes() {
        let raised = Raised::too_large(&state.name);
        return fail(draft, id, |f| family.failed(f), raised);
    }
    draft.record(id, family.succeeded(output));
    let Some(raw) = draft.branch(id).map(|b| b.input.clone()) else { return };
    let around = Surroundings::of(draft, id, None);
    let left = serde_json::from_str::<Value>(output)
        .map_err(|e| around.raised(state, RUNTIME, &format!("The task's output is not JSON: {e}.")))
        .and_then(|result| around.result(&mut draft.observer, state, &raw, Arc::new(result)));
    match left {
        Ok(output) => leave(draft, id, state, output, transition(state)),
        Err(raised) => raise(draft, id, raised),
    }
}

fn fail(draft: &mut Draft<impl Observer>, id: BranchId, event: impl FnOnce(Failure) -> K, raised: Raised) {
    draft.record(id, event(raised.failure()));
    raise(draft, id, raised);
}

/// The branch waits for the attempt no longer. `fired` needs no clearing.
fn end_attempt(draft: &mut Draft<impl Observer>, id: BranchId, fired: Option<TimerId>) -> Option<Attempt> {
    let branch = draft.edit(id)?;
    let doing = std::mem::replace(&mut branch.doing, Doing::Halted);
    for (timer, due) in doing.timers().filter(|(timer, _)| Some(*timer) != fired) {
        draft.clear_timer((timer, due));
    }
    doing.attempt()
}

fn set_phase(draft: &mut Draft<impl Observer>, id: BranchId, to: TaskPhase) {
    if let Some(Doing::Task { phase, .. }) = draft.edit(id).map(|b| &mut b.doing) {
        *phase = to;
    }
}

fn restart_heartbeat(draft: &mut Draft<impl Observer>, id: BranchId) {
    let Some(Doing::Task { heartbeat, heartbeat_ms: Some(ms), .. }) = draft.branch(id).map(|b| b.doing.clone()) else {
        return;
    };
    if let Some(timer) = heartbeat {
        draft.clear_timer(timer);
    }
    let timer = draft.set_timer(draft.box_at.plus_ms(ms));
    if let Some(Doing::Task { heartbeat, .. }) = draft.edit(id).map(|b| &mut b.doing) {
        *heartbeat = Some(timer);
    }
}

fn seconds(
    around: &Surroundings,
    state: &State,
    field: &str,
    seconds: &Seconds,
    input: &Value,
) -> Result<Option<i64>, Raised> {
    let query = match seconds {
        Seconds::Absent => return Ok(None),
        Seconds::Literal(seconds) => return Ok(Some(i64::try_from(*seconds).unwrap_or(i64::MAX))),
        Seconds::Query(query) => query,
    };
    match around.seconds(state, field, query, input)? {
        0 => {
            if let Query::Jsonata(expression) = query {
                let message = format!("The {field} field references a value that is not positive: 0");
                return Err(around.failed(state, expression.refused(&message)));
            }
            let message =
                format!("The {field}Path parameter references a value that is not positive: {} == 0", query.text());
            Err(around.raised(state, RUNTIME, &message))
        }
        seconds => Ok(Some(seconds)),
    }
}

/// Which events an attempt has.
enum Family {
    Lambda,
    Activity,
    /// `arn:aws:states:::TYPE:RESOURCE`; the type may have a colon in it, as `aws-sdk:s3`.
    Service {
        resource_type: String,
        resource: String,
    },
}

impl Family {
    fn of(arn: &str) -> Family {
        let parts: Vec<&str> = arn.split(':').collect();
        match (parts.get(2), parts.get(5)) {
            (Some(&"lambda"), _) => return Family::Lambda,
            (_, Some(&"activity")) => return Family::Activity,
            _ => {}
        }
        let rest = parts.get(5..).unwrap_or(&parts);
        // The version of an integration pattern belongs to the action: `startExecution.sync:2`.
        let versioned = rest.len() > 2 && rest.last().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
        let at = rest.len().saturating_sub(if versioned { 2 } else { 1 });
        Family::Service { resource_type: rest[..at].join(":"), resource: rest[at..].join(":") }
    }

    fn scheduled(
        &self,
        arn: &str,
        region: &str,
        parameters: &Json,
        timeout_seconds: Option<i64>,
        heartbeat_seconds: Option<i64>,
    ) -> K {
        match self {
            Family::Lambda => {
                K::LambdaFunctionScheduled { resource: arn.to_owned(), input: parameters.clone(), timeout_seconds }
            }
            Family::Activity => K::ActivityScheduled {
                resource: arn.to_owned(),
                input: parameters.clone(),
                timeout_seconds,
                heartbeat_seconds,
            },
            Family::Service { resource_type, resource } => K::TaskScheduled {
                resource_type: resource_type.clone(),
                resource: resource.clone(),
                region: region.to_owned(),
                parameters: parameters.clone(),
                timeout_seconds,
                heartbeat_seconds,
            },
        }
    }

    /// `None` for activities: their start is an event from outside.
    fn started(&self) -> Option<K> {
        match self {
            Family::Lambda => Some(K::LambdaFunctionStarted),
            Family::Activity => None,
            Family::Service { resource_type, resource } => {
                Some(K::TaskStarted { resource_type: resource_type.clone(), resource: resource.clone() })
            }
        }
    }

    fn succeeded(&self, output: &Json) -> K {
        let output = output.clone();
        match self {
            Family::Lambda => K::LambdaFunctionSucceeded { output },
            Family::Activity => K::ActivitySucceeded { output },
            Family::Service { resource_type, resource } => {
                K::TaskSucceeded { resource_type: resource_type.clone(), resource: resource.clone(), output }
            }
        }
    }

    fn failed(self: &Family, failure: Failure) -> K {
        match self {
            Family::Lambda => K::LambdaFunctionFailed(failure),
            Family::Activity => K::ActivityFailed(failure),
            Family::Service { resource_type, resource } => {
                K::TaskFailed { resource_type: resource_type.clone(), resource: resource.clone(), failure }
            }
        }
    }

    fn timed_out(&self, failure: Failure) -> K {
        match self {
            Family::Lambda => K::LambdaFunctionTimedOut(failure),
            Family::Activity => K::ActivityTimedOut(failure),
            Family::Service { resource_type, resource } => {
                K::TaskTimedOut { resource_type: resource_type.clone(), resource: resource.clone(), failure }
            }
        }
    }

    fn submit_failed(&self, failure: Failure) -> K {
        match self {
            Family::Lambda | Family::Activity => self.failed(failure),
            Family::Service { resource_type, resource } => {
                K::TaskSubmitFailed { resource_type: resource_type.clone(), resource: resource.clone(), failure }
            }
        }
    }

    fn start_failed(&self, failure: Failure) -> K {
        match self {
            Family::Lambda => K::LambdaFunctionStartFailed(failure),
            Family::Activity => K::ActivityScheduleFailed(failure),
            Family::Service { resource_type, resource } => {
                K::TaskStartFailed { resource_type: resource_type.clone(), resource: resource.clone(), failure }
            }
        }
    }
}
