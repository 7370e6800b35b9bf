//! What must hold after every step, by books of its own: it keeps tasks, timers and history as the outside
//! world would and shares no code with `step`.

use std::collections::{BTreeMap, BTreeSet};

use conveyor_asl::StateMachine;
use conveyor_base::{Attempt, EventId, ExecutionId, TimerId, Timestamp};
use conveyor_interpreter::{
    Command, Doing, Entry, Env, Event, Execution, HistoryEvent, HistoryKind, MachineRef, Outcome, Pace, Partial,
    RunTask, Status, Step, step, step_partly,
};
use conveyor_store::Commit;

use crate::rows::Counted;

pub const START: i64 = 1_760_000_000_000;

pub struct Oracle<'m> {
    machine: &'m StateMachine,
    pub env: Env,
    pub execution: Execution,
    pub now: i64,
    pub tasks: BTreeMap<Attempt, RunTask>,
    pub timers: BTreeMap<TimerId, Timestamp>,
    pub history: Vec<HistoryEvent>,
    pub delivered: Vec<Outcome>,
    pub steps: u32,
    /// What an actor would have in memory that is awake for some events and has read what they needed.
    awake: Option<Partial>,
    ever: BTreeSet<Attempt>,
    old_timers: Vec<TimerId>,
    left: BTreeSet<EventId>,
}

impl<'m> Oracle<'m> {
    pub fn new(machine: &'m StateMachine, input: &str) -> Oracle<'m> {
        let reference = MachineRef { name: "generated".into(), revision: 1, qualifier: None };
        let execution = Execution::start(ExecutionId(1), "run".into(), reference, input.into(), Timestamp(START));
        Oracle {
            machine,
            env: Env::new("us-east-1", "000000000000", "generated", "arn:aws:iam::000000000000:role/r"),
            execution,
            now: START,
            tasks: BTreeMap::new(),
            timers: BTreeMap::new(),
            history: Vec::new(),
            delivered: Vec::new(),
            steps: 0,
            awake: None,
            ever: BTreeSet::new(),
            old_timers: Vec::new(),
            left: BTreeSet::new(),
        }
    }

    pub fn status(&self) -> Status {
        self.execution.header.status
    }

    /// Something of what may happen now, chosen by numbers.
    pub fn happens_any(&mut self, choice: u32, kind: u8) {
        let pick = |length: usize| choice as usize % length.max(1);
        let attempt = self.tasks.keys().nth(pick(self.tasks.len())).copied();
        let timer = self.timers.iter().min_by_key(|(id, due)| (due.moment(), **id)).map(|(id, _)| *id);
        let (error, cause) = (Some("Custom".to_owned()), Some("because".to_owned()));
        let event = match (kind, attempt, timer) {
            (0..=5, Some(attempt), _) => Event::TaskSucceeded { attempt, output: "{\"list\":[7]}".into() },
            (6..=8, Some(attempt), _) => Event::TaskFailed { attempt, error, cause },
            (9, Some(attempt), _) => Event::TaskStarted { attempt, worker: None },
            (10, Some(attempt), _) => Event::HeartbeatSeen { attempt },
            (11, Some(attempt), _) => Event::TaskSubmitted { attempt, output: "{}".into() },
            (12, Some(attempt), _) => Event::TaskSubmitFailed { attempt, error, cause },
            (13, Some(attempt), _) => Event::TaskStartFailed { attempt, error, cause },
            (14, Some(attempt), _) => Event::TaskSucceeded { attempt, output: "no json".into() },
            (15, ..) => Event::TaskSucceeded { attempt: Attempt(choice % 40), output: "1".into() },
            (16, ..) => match self.old_timers.get(pick(self.old_timers.len())) {
                Some(timer) => Event::TimerFired { timer: *timer },
                None => Event::TimerFired { timer: TimerId(9_999) },
            },
            (17, ..) if choice.is_multiple_of(8) => Event::Stopped { error: None, cause },
            (18, ..) => Event::Redriven,
            (19, ..) => Event::Started,
            (_, _, Some(timer)) => Event::TimerFired { timer },
            _ => return,
        };
        self.happens(event);
    }

    /// Everything ends well from here on.
    pub fn drive_to_the_end(&mut self) {
        for _ in 0..20_000 {
            if self.status() != Status::Running {
                return;
            }
            match self.tasks.keys().next().copied() {
                Some(attempt) => self.happens(Event::TaskSucceeded { attempt, output: "{\"list\":[7]}".into() }),
                None => self.fire_next(),
            }
        }
        panic!("it does not end: {:?}", self.execution);
    }

    /// Time passes until the next timer fires.
    pub fn fire_next(&mut self) {
        let (timer, _) = self.timers.iter().min_by_key(|(id, due)| (due.moment(), **id)).expect("somebody waits");
        self.happens(Event::TimerFired { timer: *timer });
    }

    pub fn happens(&mut self, event: Event) {
        let was = self.status();
        let (mut current, mut own_attempt) = (was == Status::Running, None);
        match &event {
            Event::TimerFired { timer } => match self.timers.remove(timer) {
                Some(due) => {
                    self.now = self.now.max(due.moment().0);
                    self.old_timers.push(*timer);
                }
                None => current = false,
            },
            Event::TaskSucceeded { attempt, .. }
            | Event::TaskFailed { attempt, .. }
            | Event::TaskSubmitFailed { attempt, .. }
            | Event::TaskStartFailed { attempt, .. } => {
                current &= self.tasks.contains_key(attempt);
                own_attempt = Some(*attempt);
            }
            Event::Started => current = self.history.is_empty(),
            _ => {}
        }
        let seed = u128::from(self.steps).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        self.steps += 1;
        let entry = Entry { at: Timestamp(self.now), box_at: Timestamp(self.now), seed, event };
        let step = step(self.machine, &self.execution, &entry, &self.env);
        assert_eq!(
            step,
            conveyor_interpreter::step(self.machine, &self.execution, &entry, &self.env),
            "twice the same"
        );
        self.decide_partly(&entry, &step);
        if !current && entry.event != Event::Redriven {
            assert_eq!(step, Step::default(), "{:?} is not current", entry.event);
        }
        if step.header.is_none() {
            assert_eq!(step, Step::default());
            return;
        }
        if let Some(attempt) = own_attempt {
            self.tasks.remove(&attempt);
        }
        self.enter_history(&step);
        self.carry_out(&step);
        self.execution.apply(&step);
        if let Some(awake) = &mut self.awake {
            awake.apply(&step);
        }
        self.check(was);
    }

    /// An actor that has only some rows in memory decides and stores the same.
    fn decide_partly(&mut self, entry: &Entry, whole: &Step) {
        let rows = Counted::of(&self.execution);
        if self.steps.is_multiple_of(4) {
            self.awake = None;
        }
        let mut partial = self.awake.take().unwrap_or_else(|| Partial::of(self.execution.header.clone()));
        if let Event::TimerFired { timer } = entry.event
            && self.steps.is_multiple_of(3)
            && let Some(branch) = self.execution.branch_of_timer(timer)
        {
            partial.read_timer(timer, Some(branch), &rows).unwrap();
        }
        let pace = if self.steps.is_multiple_of(2) { Pace::Brief } else { Pace::Whole };
        let step = rows.decide(&mut partial, |partial| step_partly(self.machine, partial, entry, &self.env, pace));
        assert_eq!(step, *whole, "{:?} decided on a part", entry.event);
        let (mut commit, mut other) = (Commit::new(), Commit::new());
        commit.step(Some(&self.execution), whole);
        other.step_of(&partial, &step);
        assert_eq!(format!("{commit:?}"), format!("{other:?}"), "stored from a part");
        self.awake = Some(partial);
    }

    fn enter_history(&mut self, step: &Step) {
        for event in &step.history {
            assert_eq!(event.id.0, self.history.len() as u64 + 1, "ids are dense");
            assert!(event.previous < event.id);
            if let HistoryKind::StateExited { name, .. } = &event.kind {
                let entered = self.entered_before(event.previous, name);
                assert!(self.left.insert(entered), "{name} was left twice after event {entered}");
            }
            self.history.push(event.clone());
        }
        assert_eq!(step.header.as_ref().map(|h| h.last_event.0), Some(self.history.len() as u64));
    }

    /// The entry of the state, found by going back from event to event.
    fn entered_before(&self, from: EventId, state: &str) -> EventId {
        let mut at = from;
        loop {
            assert!(at.0 > 0, "no way back to where {state} was entered");
            let event = &self.history[at.0 as usize - 1];
            match &event.kind {
                HistoryKind::StateEntered { name, .. } if &**name == state => return at,
                _ => at = event.previous,
            }
        }
    }

    fn carry_out(&mut self, step: &Step) {
        for command in &step.commands {
            match command {
                Command::RunTask(task) => {
                    assert!(self.ever.insert(task.attempt), "attempt {} was used before", task.attempt);
                    self.tasks.insert(task.attempt, (**task).clone());
                }
                Command::CancelTask { attempt } => {
                    assert!(self.tasks.remove(attempt).is_some(), "attempt {attempt} does not run");
                }
                Command::SetTimer { timer, due } => {
                    assert!(due.is_by_wall() || due.0 >= self.now);
                    assert!(self.timers.insert(*timer, *due).is_none());
                    assert!(!self.old_timers.contains(timer));
                }
                Command::ClearTimer { timer, due } => {
                    assert_eq!(self.timers.remove(timer), Some(*due), "timer {timer} was not set");
                    self.old_timers.push(*timer);
                }
                Command::Deliver(outcome) => self.delivered.push(outcome.clone()),
            }
        }
    }

    fn check(&self, was: Status) {
        let Execution { header, branches, items, .. } = &self.execution;
        assert_eq!(self.execution, Execution::load(header.clone(), branches.clone(), items.clone()), "index and rows");
        let mut attempts = BTreeSet::new();
        let mut timers: BTreeMap<TimerId, Timestamp> = header.timeout_timer.into_iter().collect();
        for branch in branches.values() {
            attempts.extend(branch.doing.attempt());
            timers.extend(branch.doing.timers());
        }
        assert_eq!(attempts, self.tasks.keys().copied().collect(), "rows wait for what runs");
        assert_eq!(timers, self.timers, "rows wait for the timers that are set");
        let ended = header.status != Status::Running;
        assert_eq!(ended, header.outcome.is_some());
        if ended {
            assert!(attempts.is_empty() && timers.is_empty(), "nothing is wanted after the end");
            assert_eq!(self.delivered.last(), header.outcome.as_ref());
            assert!(header.status != Status::Succeeded || branches.is_empty() && items.is_empty());
            return;
        }
        assert!(was == Status::Running || header.redrive_count > 0);
        let waits = timers.len() > usize::from(header.timeout_timer.is_some()) || !attempts.is_empty();
        assert!(waits, "it runs and nothing will wake it: {branches:?}");
        for (id, branch) in branches {
            assert!(!matches!(branch.doing, Doing::Halted), "branch {id} stands still");
            if let Some((parent, _)) = branch.parent {
                assert!(branches.contains_key(&parent), "branch {id} has lost its parent");
            }
            let below = |first: u32, count: u32| {
                (first..first + count)
                    .filter_map(|child| branches.get(&conveyor_base::BranchId(child)))
                    .filter(|child| !matches!(child.doing, Doing::Done { .. }))
                    .count() as u32
            };
            match &branch.doing {
                Doing::Parallel { first, count, running, .. } => assert_eq!(below(first.0, *count), *running),
                Doing::Map { first, next_index, running, concurrency, .. } => {
                    assert_eq!(below(first.0, *next_index), *running);
                    assert!(*concurrency == 0 || running <= concurrency);
                    assert!(items.contains_key(id));
                }
                _ => assert!(!items.contains_key(id)),
            }
        }
    }
}
