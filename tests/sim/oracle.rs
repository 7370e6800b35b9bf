//! What must be true when all has ended. Reads what is stored; shares no code with the interpreter.

use std::collections::{BTreeMap, BTreeSet};

use conveyor_base::{EventId, ExecutionId, TaskToken, Timestamp};
use conveyor_interpreter::{Execution, HistoryEvent, HistoryKind as K, Outcome, Status, run_list};
use conveyor_store::{Direction, ExecutionFilter, ExecutionSummary, Scans};
use serde_json::Value;

use crate::life::{Life, Starts};
use crate::machines::{self, End, Spec, Then};
use crate::world::Answer;

/// How late a timer may fire while the box is on, in milliseconds.
const LATE_MS_MAX: i64 = 100;

pub fn check(life: &Life, reader: &Scans) {
    let everything = executions(reader);
    keeps_promises(life, reader, &everything);
    let mut names = BTreeSet::new();
    for summary in &everything {
        let key = (summary.machine.name.clone(), summary.name.clone());
        assert!(names.insert(key), "two executions are called {}", summary.name);
        let spec = machines::all().into_iter().find(|s| s.name == summary.machine.name).unwrap();
        let execution = reader.execution(summary.id).unwrap().unwrap();
        let history = reader.history(summary.id, EventId(1), usize::MAX, Direction::Forward).unwrap();
        let told = Told { life, spec: &spec, execution: &execution, history: &history };
        told.is_in_order();
        if knows_what_is_late(life) {
            told.ends_as_expected();
            told.enters_each_state_once();
        }
        told.has_one_outcome_per_attempt();
        told.submits_before_it_ends();
        // By the dates of its events, which a clock that is set makes worthless.
        if !life.clock_is_set {
            told.waits_long_enough_and_no_longer();
        }
    }
    if life.clock_is_set {
        lasts_as_long_as_it_should(life);
    }
    has_the_children_that_were_called(&everything);
    if knows_what_is_late(life) {
        everything.iter().for_each(|summary| has_the_children_of_its_map(reader, summary));
    }
    runs_no_attempt_twice_in_one_boot(life);
    leaves_no_rows(reader);
}

/// Whether the box can know how long the machine was off, and with it what is over.
fn knows_what_is_late(life: &Life) -> bool {
    life.starts.is_none() || life.world.0.lock().outages.is_empty()
}

/// What still runs, for a simulation that is stuck.
pub fn unfinished(reader: &Scans) -> String {
    let running = executions(reader).into_iter().filter(|summary| summary.status == Status::Running);
    let tell = |summary: ExecutionSummary| {
        let execution = reader.execution(summary.id).unwrap().unwrap();
        let doing: Vec<_> = execution.branches.values().map(|b| (&b.state, &b.doing)).collect();
        format!("\n{} since {}: {doing:?}", summary.name, summary.started_at)
    };
    let text: String = running.map(tell).collect();
    let timers = reader.timers(Timestamp::MAX, 20).unwrap();
    let outstanding: Vec<_> = reader.outstanding(None, 99).unwrap().into_iter().map(|row| row.0).collect();
    format!("{text}\ntimers: {timers:?}\noutstanding: {outstanding:?}")
}

/// Everything that ever ran.
pub fn ids(reader: &Scans) -> Vec<ExecutionId> {
    executions(reader).into_iter().map(|summary| summary.id).collect()
}

fn executions(reader: &Scans) -> Vec<ExecutionSummary> {
    let page = reader.executions(&ExecutionFilter::default(), None, 10_000).unwrap();
    assert!(page.next.is_none());
    page.items
}

fn keeps_promises(life: &Life, reader: &Scans, everything: &[ExecutionSummary]) {
    let promises = life.acknowledged.0.lock();
    for plan in &life.plans {
        let id = promises.started[&plan.name];
        assert_eq!(reader.by_name(plan.spec.name, &plan.name).unwrap(), Some(id));
        assert_eq!(everything.iter().filter(|s| s.name == plan.name).count(), 1, "{} runs twice", plan.name);
    }
    // Where it does not, what was to be stopped may have ended.
    for id in promises.stopped.iter().filter(|_| knows_what_is_late(life)) {
        assert_eq!(reader.header(*id).unwrap().unwrap().status, Status::Aborted, "a stop was acknowledged and lost");
    }
    for (text, token) in &life.world.0.lock().tokens {
        let token_parts: TaskToken = text.parse().unwrap();
        let history = reader.history(token_parts.execution, EventId(1), usize::MAX, Direction::Forward).unwrap();
        let reported = |e: &&HistoryEvent| match &e.kind {
            K::TaskSucceeded { output, .. } | K::ActivitySucceeded { output } => output.contains("reported"),
            _ => false,
        };
        let count = history.iter().filter(reported).count();
        match token.answer {
            Some(Answer::Accepted) => assert_eq!(count, 1, "a report was accepted and lost"),
            _ => assert!(count <= 1),
        }
    }
}

/// However the wall clock is set: what is to last so long does, as somebody sees who looks every now and then.
fn lasts_as_long_as_it_should(life: &Life) {
    /// Of what the time is over when it comes to something else too, only this is known: it takes no less.
    const EARLY_MS_MAX: i64 = 1_000;
    /// The clocks are looked at every second, and after a sleep others go first for another one.
    const SEEN_LATE_MS_MAX: i64 = 3_000;
    const NOTED_EVERY_MS: i64 = 62_000;
    let world = life.world.0.lock();
    for (name, (began, ended)) in &world.seen {
        let machine = name.trim_end_matches("-run");
        let ended = ended.expect("it has ended");
        if machine == "until" {
            let by =
                |at: Timestamp| world.set.iter().rev().find(|(from, _)| *from <= at).map_or(0, |(_, by_ms)| *by_ms);
            let changes = world.set.iter().map(|(at, _)| *at).chain([*began, ended]);
            // A clock shows most just before it is set, and as soon as it is.
            let mut shown = changes.flat_map(|at| [at.plus_ms(-1), at]).filter(|at| at >= began && *at <= ended);
            assert!(shown.any(|at| at.plus_ms(by(at)) >= machines::UNTIL), "{name} ended before its moment came");
            continue;
        }
        let Some((_, ms)) = machines::LAST_MS.iter().find(|(of, _)| *of == machine) else { continue };
        let mut due = began.plus_ms(*ms);
        let restarts: Vec<i64> = match life.starts {
            None => Vec::new(),
            Some(_) => {
                let within = world.outages.iter().filter(|(from, to)| *to > *began && *from < ended);
                within.map(|(from, to)| to.since_ms(*from)).collect()
            }
        };
        if life.starts == Some(Starts::AYearAhead) && !restarts.is_empty() {
            // How long the machine was off only its clock knows, which says that it was a month at least.
            continue;
        }
        assert!(ended.since_ms(due) >= -EARLY_MS_MAX, "{name} began at {began} and ended at {ended}: too early");
        // With a dead clock nobody knows how long the machine was off, nor what passed since the box last took note of it.
        due = due.plus_ms(restarts.iter().map(|off_ms| off_ms + NOTED_EVERY_MS).sum());
        let stood_still = world.outages.iter().chain(&world.suspensions);
        let still_ms: i64 = stood_still.map(|(from, to)| (*to).min(ended).since_ms((*from).max(due)).max(0)).sum();
        let late_ms = ended.since_ms(due) - still_ms;
        assert!(late_ms <= SEEN_LATE_MS_MAX, "{name} began at {began}, was due at {due} and ended at {ended}");
    }
    let seen = |(of, _): &(&str, i64)| world.seen.contains_key(&format!("{of}-run"));
    assert!(machines::LAST_MS.iter().all(seen), "what was to be seen never ran");
}

fn has_the_children_that_were_called(everything: &[ExecutionSummary]) {
    let mut children = BTreeMap::new();
    for summary in everything {
        if let Some(parent) = &summary.parent {
            *children.entry((parent.execution, parent.attempt)).or_insert(0) += 1;
        }
    }
    assert!(children.values().all(|count| *count == 1), "an attempt has several children: {children:?}");
    let parents: BTreeSet<ExecutionId> = children.keys().map(|(id, _)| *id).collect();
    for summary in everything.iter().filter(|s| s.machine.name == "parent") {
        assert!(parents.contains(&summary.id), "{} ended without its child", summary.name);
    }
}

/// Each batch of items was given to one child, once, and every child has ended as the run did.
fn has_the_children_of_its_map(reader: &Scans, summary: &ExecutionSummary) {
    let runs = reader.map_runs_of(summary.id).unwrap();
    let Some(wanted) = machines::children_of(&summary.machine.name) else {
        return assert!(runs.is_empty(), "{} has a Map run", summary.name);
    };
    let [(_, run)] = runs.as_slice() else { panic!("{} has {} Map runs", summary.name, runs.len()) };
    let list = run_list(&run.machine, &run.label, run.run.0);
    let filter = ExecutionFilter { machine: Some(list), status: None };
    let children = reader.executions(&filter, None, 10_000).unwrap().items;
    let succeeded = summary.status == Status::Succeeded;
    assert!(children.len() == wanted || (!succeeded && children.len() < wanted), "{} children", children.len());
    let numbers: BTreeSet<u32> = children.iter().map(|child| child.child.as_ref().unwrap().number).collect();
    assert_eq!(numbers.len(), children.len(), "an item was given to two children of {}", summary.name);
    for child in &children {
        assert_eq!(child.status, summary.status, "a child of {}", summary.name);
        let history = reader.history(child.id, EventId(1), usize::MAX, Direction::Forward).unwrap();
        let entered = history.iter().filter(|e| matches!(e.kind, K::StateEntered { .. })).count();
        assert!(entered == 1 || !succeeded, "a child of {} entered {entered} states", summary.name);
    }
    let ended = run.ended.expect("the run has ended");
    assert_eq!(ended.executions.iter().sum::<u64>(), children.len() as u64);
    assert_eq!(ended.executions[0], 0, "a child of {} runs on", summary.name);
}

/// Scripted side effects may be seen twice, but only where a crash lay between, and as the same attempt.
fn runs_no_attempt_twice_in_one_boot(life: &Life) {
    let world = life.world.0.lock();
    let mut seen = BTreeSet::new();
    for run in &world.runs {
        assert!(seen.insert(*run), "attempt {} of {} ran twice in boot {}", run.1, run.0, run.2);
    }
}

pub fn leaves_no_rows(reader: &Scans) {
    let outstanding: Vec<_> = reader.outstanding(None, 99).unwrap();
    assert!(outstanding.is_empty(), "tasks are left: {outstanding:?}");
    let timers = reader.timers(Timestamp::MAX, 99).unwrap();
    assert!(timers.is_empty(), "timers are left: {timers:?}");
    let deliveries: Vec<_> = reader.deliveries().map(Result::unwrap).collect();
    assert!(deliveries.is_empty(), "endings are not told: {deliveries:?}");
    assert_eq!(reader.count(Status::Running), 0);
}

/// One execution, as it is stored.
struct Told<'a> {
    life: &'a Life,
    spec: &'a Spec,
    execution: &'a Execution,
    history: &'a [HistoryEvent],
}

impl Told<'_> {
    fn text(&self) -> String {
        let line = |e: &HistoryEvent| format!("\n  {} <- {} at {}: {:?}", e.id, e.previous, e.at, e.kind);
        let events: String = self.history.iter().map(line).collect();
        let outages = &self.life.world.0.lock().outages;
        format!("{} {:?}{events}\n  outages {outages:?}", self.spec.name, self.execution.header.status)
    }

    fn event(&self, id: EventId) -> &HistoryEvent {
        &self.history[id.0 as usize - 1]
    }

    fn is_in_order(&self) {
        let header = &self.execution.header;
        assert_eq!(self.history.len() as u64, header.last_event.0, "{}", self.text());
        for (event, number) in self.history.iter().zip(1..) {
            assert_eq!(event.id.0, number, "{}", self.text());
            assert!(event.previous < event.id, "{}", self.text());
        }
        assert!(self.history.is_sorted_by_key(|event| event.at), "{}", self.text());
        assert!(matches!(self.history[0].kind, K::ExecutionStarted { .. }), "{}", self.text());
    }

    fn ends_as_expected(&self) {
        let outcome = self.execution.header.outcome.as_ref().unwrap_or_else(|| panic!("{}", self.text()));
        let last = &self.history.last().unwrap().kind;
        let as_expected = match (&self.spec.end, outcome, last) {
            (End::Output(want), Outcome::Succeeded { output }, K::ExecutionSucceeded { .. }) => {
                serde_json::from_str::<Value>(output).unwrap() == *want
            }
            (End::TimedOut, Outcome::TimedOut { .. }, K::ExecutionTimedOut(_)) => true,
            (End::Aborted, Outcome::Aborted { .. }, K::ExecutionAborted(_)) => true,
            _ => false,
        };
        assert!(as_expected, "{:?} was expected: {}", self.spec.end, self.text());
        let ends = |e: &&HistoryEvent| {
            matches!(
                e.kind,
                K::ExecutionSucceeded { .. } | K::ExecutionTimedOut(_) | K::ExecutionAborted(_) | K::ExecutionFailed(_)
            )
        };
        let redriven = usize::from(self.spec.then == Then::RepairAndRedrive);
        assert_eq!(self.history.iter().filter(ends).count(), 1 + redriven, "{}", self.text());
    }

    fn enters_each_state_once(&self) {
        let mut entered: Vec<&str> = Vec::new();
        let mut exited: Vec<EventId> = Vec::new();
        for event in self.history {
            match &event.kind {
                K::StateEntered { name, .. } => entered.push(name),
                K::StateExited { .. } => exited.push(event.previous),
                _ => {}
            }
        }
        entered.sort_unstable();
        // A stop may come before the first state's commit is there to see; nothing is entered too often then either.
        assert_eq!(entered, self.spec.entered, "{}", self.text());
        let exits = exited.len();
        exited.sort_unstable();
        exited.dedup();
        assert_eq!(exited.len(), exits, "a state was left twice: {}", self.text());
    }

    fn has_one_outcome_per_attempt(&self) {
        let scheduled = |e: &&HistoryEvent| matches!(e.kind, K::TaskScheduled { .. } | K::ActivityScheduled { .. });
        let attempts: Vec<&HistoryEvent> = self.history.iter().filter(scheduled).collect();
        // A parent that is stopped at once has not got to its call, or has.
        if let Some(want) = self.spec.attempts {
            assert_eq!(attempts.len(), want, "{}", self.text());
        }
        let mut failures = Vec::new();
        for attempt in &attempts {
            let mut ends = 0;
            for event in self.history.iter().filter(|e| self.belongs_to(e, attempt.id)) {
                ends += usize::from(is_outcome(&event.kind));
            }
            let all_attempts_end = matches!(self.spec.end, End::Output(_)) && self.spec.name != "fails";
            assert!(
                ends <= 1 && (ends == 1 || !all_attempts_end),
                "{ends} outcomes of {}: {}",
                attempt.id,
                self.text()
            );
            if let K::TaskFailed { .. } = self.event(attempt.previous).kind {
                failures.push(attempt.at.since_ms(self.event(attempt.previous).at));
            }
        }
        assert_eq!(failures.len(), self.spec.back_off_ms.len(), "{}", self.text());
        for (waited, least) in failures.iter().zip(self.spec.back_off_ms).filter(|_| !self.life.clock_is_set) {
            assert!(waited >= least, "a retry came after {waited} ms: {}", self.text());
        }
    }

    /// A report may overtake the submission that it reports on; the history tells them in order all the same. Only
    /// after a crash may the report come first, before the attempt is issued again.
    fn submits_before_it_ends(&self) {
        if !matches!(self.spec.name, "token" | "early-token" | "parent") || !self.life.world.0.lock().outages.is_empty()
        {
            return;
        }
        let submitted = |e: &&HistoryEvent| matches!(e.kind, K::TaskSubmitted { .. });
        assert_eq!(self.history.iter().filter(submitted).count(), 1, "{}", self.text());
    }

    /// Whether an event follows the scheduling of an attempt, before the state goes on.
    fn belongs_to(&self, event: &HistoryEvent, scheduled: EventId) -> bool {
        let mut at = event;
        while is_of_task(&at.kind) {
            if at.previous == scheduled {
                return true;
            }
            if at.previous.0 == 0 {
                return false;
            }
            at = self.event(at.previous);
        }
        false
    }

    fn waits_long_enough_and_no_longer(&self) {
        for event in self.history {
            let due = match &event.kind {
                K::StateExited { name, .. } => {
                    let entered = self.event(event.previous);
                    seconds_of(&self.spec.definition, name).map(|s| entered.at.plus_ms(s * 1_000))
                }
                K::TaskTimedOut { .. } | K::ActivityTimedOut(_) => self.timeout_of(event),
                K::ExecutionTimedOut(_) => {
                    let seconds = self.spec.definition["TimeoutSeconds"].as_i64().unwrap();
                    Some(self.history[0].at.plus_ms(seconds * 1_000))
                }
                _ => None,
            };
            let Some(due) = due else { continue };
            let late_ms = self.on_ms(due, event.at);
            assert!(event.at >= due, "event {} came before {due}: {}", event.id, self.text());
            let has_heartbeats = self.spec.name == "beats";
            assert!(
                late_ms <= LATE_MS_MAX || has_heartbeats,
                "event {} is {late_ms} ms late: {}",
                event.id,
                self.text()
            );
        }
    }

    fn timeout_of(&self, event: &HistoryEvent) -> Option<Timestamp> {
        let mut at = event;
        loop {
            at = self.event(at.previous);
            if let K::TaskScheduled { timeout_seconds, heartbeat_seconds, .. }
            | K::ActivityScheduled { timeout_seconds, heartbeat_seconds, .. } = &at.kind
            {
                let seconds = timeout_seconds.or(*heartbeat_seconds)?;
                return Some(at.at.plus_ms(seconds * 1_000));
            }
        }
    }

    /// Milliseconds from one moment to another in which the box was on.
    fn on_ms(&self, from: Timestamp, to: Timestamp) -> i64 {
        let world = self.life.world.0.lock();
        let off: i64 = world.outages.iter().map(|(down, up)| (*up).min(to).since_ms((*down).max(from)).max(0)).sum();
        to.since_ms(from) - off
    }
}

fn is_of_task(kind: &K) -> bool {
    is_outcome(kind) || matches!(kind, K::TaskStarted { .. } | K::TaskSubmitted { .. } | K::ActivityStarted { .. })
}

fn is_outcome(kind: &K) -> bool {
    matches!(
        kind,
        K::TaskSucceeded { .. }
            | K::TaskFailed { .. }
            | K::TaskTimedOut { .. }
            | K::TaskSubmitFailed { .. }
            | K::TaskStartFailed { .. }
            | K::ActivitySucceeded { .. }
            | K::ActivityFailed(_)
            | K::ActivityTimedOut(_)
            | K::ActivityScheduleFailed(_)
    )
}

/// `Seconds` of the Wait state of that name, wherever in the definition it stands.
fn seconds_of(definition: &Value, name: &str) -> Option<i64> {
    match definition {
        Value::Object(fields) => {
            let here = fields.get(name).filter(|state| state["Type"] == "Wait");
            let here = here.and_then(|state| state["Seconds"].as_i64());
            here.or_else(|| fields.values().find_map(|value| seconds_of(value, name)))
        }
        Value::Array(items) => items.iter().find_map(|value| seconds_of(value, name)),
        _ => None,
    }
}
