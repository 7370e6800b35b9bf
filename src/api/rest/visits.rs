//! The states of an execution in the order they were entered, out of its history.
//!
//! The history is flat. Which line of control an event belongs to follows from the event before it: each visit to a
//! state gathers the events that lead back to its entry. Pure: events in, visits out.

use std::collections::HashMap;

use conveyor_base::EventId;
use conveyor_interpreter::{Failure, HistoryEvent, HistoryKind as K, Json, StateType};
use serde::Serialize;

/// One visit to one state.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Visit {
    /// The event that entered it.
    pub event: u64,
    pub name: String,
    #[serde(rename = "type")]
    pub state_type: StateType,
    pub status: &'static str,
    /// How many Parallel and Map states it stands in.
    pub depth: u32,
    /// Its Map iteration's number.
    pub iteration: Option<u32>,
    pub entered_at: i64,
    pub exited_at: Option<i64>,
    pub input: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    pub attempts: Vec<Try>,
    /// ARNs of the executions that it started.
    #[serde(skip)]
    pub started: Vec<String>,
    /// Their ids.
    pub children: Vec<String>,
    /// The visit to the Parallel or Map state that it stands in.
    #[serde(skip)]
    pub parent: Option<usize>,
    /// The event that began its line of control: 0 at the top, else a Parallel branch's or a Map iteration's first.
    #[serde(skip)]
    pub line: u64,
    /// Variables that it assigned, as JSON.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub assigned: Vec<(String, Json)>,
}

/// One try of a Task.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Try {
    pub started_at: i64,
    pub ended_at: Option<i64>,
    pub status: &'static str,
    pub resource: String,
    pub parameters: String,
    /// The task's own result, before the state made its output of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// A history, read: its visits, and which of them each event belongs to.
pub struct Read {
    pub visits: Vec<Visit>,
    /// In the order of the events.
    pub of_events: Vec<Option<usize>>,
}

/// Reads a history from its beginning. `ended`: when the execution ended.
pub fn read(events: &[HistoryEvent], ended: Option<i64>) -> Read {
    let mut reading = Reading::default();
    for event in events {
        reading.read(event);
    }
    for visit in &mut reading.visits {
        close(visit, ended);
    }
    let of_events = events.iter().map(|event| reading.of.get(&event.id).copied()).collect();
    Read { visits: reading.visits, of_events }
}

/// The visits alone.
pub fn visits(events: &[HistoryEvent], ended: Option<i64>) -> Vec<Visit> {
    read(events, ended).visits
}

/// The visit that failed the execution: the innermost one, the last of them.
pub fn failed(visits: &[Visit]) -> Option<&Visit> {
    let failed = visits.iter().filter(|v| matches!(v.status, "FAILED" | "TIMED_OUT"));
    failed.max_by_key(|v| (v.depth, v.event))
}

/// Leaves out payloads once the visits carry more than that: pages stay small, and the history has them all.
pub fn fit(visits: &mut [Visit], bytes_max: usize) {
    let mut left = bytes_max;
    let mut take = |text: &mut String| match left.checked_sub(text.len()) {
        Some(rest) => left = rest,
        None => *text = format!("(left out here: {} bytes; GET …/history has it)", text.len()),
    };
    for visit in visits {
        take(&mut visit.input);
        visit.output.iter_mut().for_each(&mut take);
        for attempt in &mut visit.attempts {
            take(&mut attempt.parameters);
            attempt.result.iter_mut().for_each(&mut take);
        }
    }
}

#[derive(Default)]
struct Reading {
    visits: Vec<Visit>,
    /// Which visit each event belongs to.
    of: HashMap<EventId, usize>,
    /// Events after which a state is entered one level further in, and the iteration they began.
    inward: HashMap<EventId, Option<u32>>,
}

impl Reading {
    fn read(&mut self, event: &HistoryEvent) {
        let before = self.of.get(&event.previous).copied();
        let at = event.at.0;
        let visit = match &event.kind {
            K::StateEntered { state_type, name, input } => Some(self.enter(event, *state_type, name, input, before)),
            K::StateExited { name, output, assigned, .. } => {
                let visit = self
                    .up(before, |v| v.exited_at.is_none() && v.name == **name)
                    .or_else(|| self.visits.iter().rposition(|v| v.exited_at.is_none() && v.name == **name));
                if let Some(visit) = visit.and_then(|v| self.visits.get_mut(v)) {
                    visit.exited_at = Some(at);
                    visit.output = Some(output.to_string());
                    visit.assigned = assigned.clone();
                }
                visit
            }
            K::MapIterationStarted { name, index } => {
                self.inward.insert(event.id, Some(*index));
                self.up(before, |v| v.name == **name)
            }
            K::MapIterationSucceeded { name, .. }
            | K::MapIterationFailed { name, .. }
            | K::MapIterationAborted { name, .. } => self.up(before, |v| v.name == **name),
            K::ParallelStateStarted => {
                self.inward.insert(event.id, None);
                self.up(before, |v| v.state_type == StateType::Parallel)
            }
            K::ParallelStateSucceeded => self.up(before, |v| open_of(v, StateType::Parallel)),
            K::ParallelStateFailed(failure) => self.fail(before, StateType::Parallel, failure),
            K::MapStateSucceeded => self.up(before, |v| open_of(v, StateType::Map)),
            K::MapStateFailed(failure) => self.fail(before, StateType::Map, failure),
            K::ExecutionFailed(failure) | K::ExecutionTimedOut(failure) => {
                if let Some(visit) = before.and_then(|v| self.visits.get_mut(v)).filter(|v| v.exited_at.is_none()) {
                    put_failure(visit, failure);
                }
                before
            }
            _ => {
                if let Some(visit) = before.and_then(|v| self.visits.get_mut(v)) {
                    attempt(visit, &event.kind, at);
                }
                before
            }
        };
        if let Some(visit) = visit {
            self.of.insert(event.id, visit);
        }
    }

    fn enter(
        &mut self,
        event: &HistoryEvent,
        state_type: StateType,
        name: &str,
        input: &str,
        before: Option<usize>,
    ) -> usize {
        let inward = self.inward.get(&event.previous).copied();
        let parent = match inward {
            Some(_) => before,
            None => before.and_then(|v| self.visits[v].parent),
        };
        let iteration = match inward {
            Some(iteration) => iteration,
            None => before.and_then(|v| self.visits[v].iteration),
        };
        let line = match inward {
            Some(_) => event.id.0,
            None => before.map_or(0, |v| self.visits[v].line),
        };
        self.visits.push(Visit {
            event: event.id.0,
            name: name.to_owned(),
            state_type,
            status: "RUNNING",
            depth: parent.map_or(0, |p| self.visits[p].depth + 1),
            iteration,
            entered_at: event.at.0,
            exited_at: None,
            input: input.to_owned(),
            output: None,
            error: None,
            cause: None,
            attempts: Vec::new(),
            started: Vec::new(),
            children: Vec::new(),
            parent,
            line,
            assigned: Vec::new(),
        });
        self.visits.len() - 1
    }

    fn fail(&mut self, before: Option<usize>, state_type: StateType, failure: &Failure) -> Option<usize> {
        let visit = self.up(before, |v| open_of(v, state_type))?;
        put_failure(&mut self.visits[visit], failure);
        Some(visit)
    }

    /// The nearest visit, from there outward, that is meant.
    fn up(&self, from: Option<usize>, is_meant: impl Fn(&Visit) -> bool) -> Option<usize> {
        let mut at = from;
        while let Some(visit) = at {
            if is_meant(&self.visits[visit]) {
                return at;
            }
            at = self.visits[visit].parent;
        }
        None
    }
}

fn open_of(visit: &Visit, state_type: StateType) -> bool {
    visit.state_type == state_type && visit.exited_at.is_none()
}

fn put_failure(visit: &mut Visit, failure: &Failure) {
    visit.error = failure.error.clone();
    visit.cause = failure.cause.clone();
    if visit.error.is_none() && visit.cause.is_none() {
        visit.error = Some("no error name".to_owned());
    }
}

/// The events of a Task's attempts.
fn attempt(visit: &mut Visit, kind: &K, at: i64) {
    let mut begin = |resource: String, parameters: &str| {
        // A new attempt takes back what the one before failed with.
        (visit.error, visit.cause) = (None, None);
        visit.attempts.push(Try {
            started_at: at,
            ended_at: None,
            status: "RUNNING",
            resource,
            parameters: parameters.to_owned(),
            result: None,
            error: None,
            cause: None,
        });
    };
    match kind {
        K::TaskScheduled { resource_type, resource, parameters, .. } => {
            begin(format!("{resource_type}:{resource}"), parameters);
        }
        K::ActivityScheduled { resource, input, .. } | K::LambdaFunctionScheduled { resource, input, .. } => {
            begin(resource.clone(), input);
        }
        K::TaskSubmitted { resource, output, .. } => visit.started.extend(started(resource, output)),
        K::TaskSucceeded { resource, output, .. } => {
            end(visit, at, "SUCCEEDED", None);
            result(visit, output);
            if let Some(arn) = started(resource, output).filter(|arn| !visit.started.contains(arn)) {
                visit.started.push(arn);
            }
        }
        K::ActivitySucceeded { output } | K::LambdaFunctionSucceeded { output } => {
            end(visit, at, "SUCCEEDED", None);
            result(visit, output);
        }
        K::TaskFailed { failure, .. }
        | K::TaskStartFailed { failure, .. }
        | K::TaskSubmitFailed { failure, .. }
        | K::ActivityFailed(failure)
        | K::ActivityScheduleFailed(failure)
        | K::LambdaFunctionFailed(failure)
        | K::LambdaFunctionScheduleFailed(failure)
        | K::LambdaFunctionStartFailed(failure) => end(visit, at, "FAILED", Some(failure)),
        K::TaskTimedOut { failure, .. } | K::ActivityTimedOut(failure) | K::LambdaFunctionTimedOut(failure) => {
            end(visit, at, "TIMED_OUT", Some(failure));
        }
        K::EvaluationFailed { failure, .. } => put_failure(visit, failure),
        _ => {}
    }
}

fn end(visit: &mut Visit, at: i64, status: &'static str, failure: Option<&Failure>) {
    if let Some(failure) = failure {
        put_failure(visit, failure);
    }
    if let Some(attempt) = visit.attempts.last_mut() {
        (attempt.ended_at, attempt.status) = (Some(at), status);
        attempt.error = failure.and_then(|f| f.error.clone());
        attempt.cause = failure.and_then(|f| f.cause.clone());
    }
}

fn result(visit: &mut Visit, output: &str) {
    if let Some(attempt) = visit.attempts.last_mut() {
        attempt.result = Some(output.to_owned());
    }
}

/// The execution or the job that an answer of `startExecution` or `createJob` speaks of.
fn started(resource: &str, output: &str) -> Option<String> {
    let (key, place) = match resource.split('.').next()? {
        "createJob" => ("\"Job\"", "/Job/Arn"),
        _ => ("\"ExecutionArn\"", "/ExecutionArn"),
    };
    if !output.contains(key) {
        return None;
    }
    let value: serde_json::Value = serde_json::from_str(output).ok()?;
    value.pointer(place)?.as_str().map(str::to_owned)
}

fn close(visit: &mut Visit, ended: Option<i64>) {
    let failed = visit.error.is_some() || visit.cause.is_some();
    let timed_out = visit.attempts.last().is_some_and(|a| a.status == "TIMED_OUT");
    visit.status = match (visit.exited_at, failed, ended) {
        (Some(_), true, _) => "CAUGHT",
        (Some(_), false, _) => "SUCCEEDED",
        (None, true, Some(_)) if timed_out => "TIMED_OUT",
        (None, true, Some(_)) => "FAILED",
        (None, false, Some(_)) if visit.state_type == StateType::Succeed => "SUCCEEDED",
        (None, false, Some(_)) => "ABORTED",
        (None, true, None) => "RETRYING",
        (None, false, None) => "RUNNING",
    };
    if visit.exited_at.is_none() {
        visit.exited_at = ended;
    }
    for attempt in visit.attempts.iter_mut().filter(|a| a.ended_at.is_none()) {
        if ended.is_some() {
            (attempt.ended_at, attempt.status) = (ended, "ABORTED");
        }
    }
}

#[cfg(test)]
mod tests {
    use conveyor_base::Timestamp;

    use super::*;

    /// Events with ids from 1, a second apart: (previous, kind).
    fn history(kinds: Vec<(u64, K)>) -> Vec<HistoryEvent> {
        let event = |(n, (previous, kind)): (usize, (u64, K))| HistoryEvent {
            id: EventId(n as u64 + 1),
            previous: EventId(previous),
            at: Timestamp(n as i64 * 1000),
            kind,
        };
        kinds.into_iter().enumerate().map(event).collect()
    }

    fn entered(state_type: StateType, name: &str) -> K {
        K::StateEntered { state_type, name: name.into(), input: "{}".into() }
    }

    fn exited(state_type: StateType, name: &str) -> K {
        K::StateExited { state_type, name: name.into(), output: "{}".into(), assigned: Vec::new() }
    }

    fn scheduled() -> K {
        K::TaskScheduled {
            resource_type: "conveyor".into(),
            resource: "probe".into(),
            region: "us-east-1".into(),
            parameters: "{}".into(),
            timeout_seconds: None,
            heartbeat_seconds: None,
        }
    }

    fn task_failed(error: &str) -> K {
        let failure = Failure { error: Some(error.into()), cause: Some("why".into()) };
        K::TaskFailed { resource_type: "conveyor".into(), resource: "probe".into(), failure }
    }

    #[test]
    fn a_retried_task_inside_a_map_fails_its_map_and_is_the_one_that_failed() {
        let failure = || Failure { error: Some("Media.Truncated".into()), cause: Some("why".into()) };
        let events = history(vec![
            (0, K::ExecutionStarted { input: "{}".into(), role_arn: "r".into() }),
            (0, entered(StateType::Map, "Each")),
            (2, K::MapStateStarted { length: 1 }),
            (3, K::MapIterationStarted { name: "Each".into(), index: 0 }),
            (4, entered(StateType::Pass, "First")),
            (5, exited(StateType::Pass, "First")),
            (6, entered(StateType::Task, "Probe")),
            (7, scheduled()),
            (8, task_failed("States.Timeout")),
            (9, scheduled()),
            (10, task_failed("Media.Truncated")),
            (11, K::MapIterationFailed { name: "Each".into(), index: 0 }),
            (12, K::MapStateFailed(failure())),
            (13, K::ExecutionFailed(failure())),
        ]);
        let visits = visits(&events, Some(13_000));
        let seen: Vec<_> = visits.iter().map(|v| (v.name.as_str(), v.depth, v.iteration, v.status)).collect();
        assert_eq!(
            seen,
            [("Each", 0, None, "FAILED"), ("First", 1, Some(0), "SUCCEEDED"), ("Probe", 1, Some(0), "FAILED"),]
        );
        let probe = failed(&visits).unwrap();
        assert_eq!((probe.name.as_str(), probe.error.as_deref()), ("Probe", Some("Media.Truncated")));
        let tries: Vec<_> = probe.attempts.iter().map(|a| a.error.as_deref()).collect();
        assert_eq!(tries, [Some("States.Timeout"), Some("Media.Truncated")]);
    }

    #[test]
    fn a_caught_failure_is_shown_as_caught_and_a_waiting_retry_as_retrying() {
        let start = || (0, K::ExecutionStarted { input: "{}".into(), role_arn: "r".into() });
        let head = || vec![start(), (0, entered(StateType::Task, "A")), (2, scheduled()), (3, task_failed("E"))];
        assert_eq!(visits(&history(head()), None)[0].status, "RETRYING");
        let mut caught = head();
        caught.push((4, exited(StateType::Task, "A")));
        caught.push((5, entered(StateType::Wait, "B")));
        let seen = visits(&history(caught), None);
        assert_eq!((seen[0].status, seen[0].error.as_deref()), ("CAUGHT", Some("E")));
        assert_eq!((seen[1].status, seen[1].depth), ("RUNNING", 0));
        let mut again = head();
        again.push((4, scheduled()));
        let seen = visits(&history(again), None);
        assert_eq!((seen[0].status, seen[0].attempts.len(), seen[0].error.as_deref()), ("RUNNING", 2, None));
    }
}
