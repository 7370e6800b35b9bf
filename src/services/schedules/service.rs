//! The service of all schedules: knows how far each has come, and starts what is due.

use std::collections::BTreeMap;

use conveyor_base::limits::NAME_CHARS_MAX;
use conveyor_base::{Fault, Timestamp};
use conveyor_run::service::{Service, Turn};
use conveyor_run::{Handle, Refused, StartRequest};
use conveyor_store::{Commit, Scans, ScheduleRow, unless_damaged};
use jiff::tz::TimeZone;

use super::ran::Ran;
use super::{Missed, ON_TIME_MS, ScheduleSettings};

/// Before a start is tried again that the box could not take.
const AGAIN_MS: i64 = 30_000;

/// What the service is sent: how a start went.
pub(crate) struct Started {
    schedule: String,
    due: Timestamp,
    end: Result<Begun, Refused>,
}

enum Begun {
    Now,
    /// An execution of that name exists, which was told something else.
    Taken(String),
}

pub(super) struct ScheduleService {
    schedules: BTreeMap<String, Schedule>,
}

struct Schedule {
    settings: ScheduleSettings,
    zone: TimeZone,
    /// The newest due time that is settled: run or skipped. `None`: the schedule is new.
    last: Option<Timestamp>,
    /// What must not be run again where the clock is set back. Of a rate nothing comes again.
    ran: Ran,
    /// A start is under way, or waits for its next try.
    starting: Option<Starting>,
}

enum Starting {
    UnderWay,
    /// By the box's own time.
    Again(Timestamp),
}

type Deciding<'a> = Turn<'a, Started>;

impl ScheduleService {
    /// Takes up the enabled schedules where the store says.
    pub fn load(settings: &BTreeMap<String, ScheduleSettings>, rows: &Scans) -> Result<ScheduleService, Fault> {
        let mut schedules = BTreeMap::new();
        for (name, settings) in settings.iter().filter(|(_, settings)| settings.enabled) {
            // The configuration's check has refused a zone that there is not.
            let Ok(zone) = settings.zone() else { continue };
            let last = unless_damaged(rows.schedule(name))?.flatten().map(|row| row.last.into());
            let rule = format!("{} {}", settings.rule, settings.timezone.as_deref().unwrap_or_default());
            let ran = unless_damaged(rows.setting(&ran_key(name)))?.flatten();
            let ran = Ran::read(ran.as_deref(), rule);
            let schedule = Schedule { settings: settings.clone(), zone, last, ran, starting: None };
            schedules.insert(name.clone(), schedule);
        }
        Ok(ScheduleService { schedules })
    }
}

impl Service for ScheduleService {
    type Message = Started;

    fn handle(&mut self, turn: &mut Deciding<'_>, Started { schedule: name, due, end }: Started) {
        let Some(schedule) = self.schedules.get_mut(&name) else { return };
        schedule.starting = None;
        let workflow = &schedule.settings.workflow;
        match end {
            Ok(Begun::Taken(execution)) => {
                tracing::warn!(
                    schedule = name, due = %due, execution,
                    "a schedule started nothing: an execution has that name already, with another input"
                );
            }
            Ok(Begun::Now) => {
                let late = schedule.now(turn).since_ms(due) > ON_TIME_MS;
                tracing::info!(schedule = name, due = %due, late, "a schedule started its workflow");
            }
            Err(refused) if refused.is_transient() => {
                let why = refused.message;
                tracing::warn!(schedule = name, why, "a schedule could not start its workflow; trying again");
                schedule.starting = Some(Starting::Again(turn.now().plus_ms(AGAIN_MS)));
                return schedule.look(turn, &name);
            }
            Err(refused) => {
                let why = refused.message;
                tracing::error!(schedule = name, workflow, why, "a schedule cannot start its workflow");
            }
        }
        schedule.add_ran(due);
        schedule.settle(turn, &name, due);
        schedule.look(turn, &name);
    }

    fn wake(&mut self, turn: &mut Deciding<'_>) {
        for (name, schedule) in &mut self.schedules {
            schedule.look(turn, name);
        }
    }
}

impl Schedule {
    /// Starts what is due, and asks to be woken for what will be.
    fn look(&mut self, turn: &mut Deciding<'_>, name: &str) {
        let now = self.now(turn);
        match self.starting {
            Some(Starting::UnderWay) => return,
            Some(Starting::Again(at)) if at > turn.now() => return turn.wake_at(at),
            _ => self.starting = None,
        }
        let Some(last) = self.last else {
            // It begins now.
            self.settle(turn, name, now);
            return self.look_later(turn, now);
        };
        if last > now.plus_ms(ON_TIME_MS) {
            // It was settled by a clock that ran ahead, and would be silent until then.
            self.settle(turn, name, now);
            return self.look_later(turn, now);
        }
        let Some(due) = self.settings.rule.last_within(last, now, &self.zone) else {
            return self.look_later(turn, last);
        };
        if self.ran.has(due) {
            self.settle(turn, name, due);
            return self.look_later(turn, due);
        }
        if now.since_ms(due) > ON_TIME_MS && self.settings.missed == Missed::Skip {
            tracing::warn!(schedule = name, due = %due, "a run was missed while the box was off and is skipped, as configured");
            self.settle(turn, name, due);
            return self.look_later(turn, due);
        }
        self.starting = Some(Starting::UnderWay);
        let (start, handle) = (self.start(turn, name, due), turn.handle());
        let (schedule, panicked) = (name.to_owned(), name.to_owned());
        turn.act(async move { Started { schedule, due, end: begin(&handle, start).await } }, move |text| {
            let end = Err(Refused::new("InternalFailure", text));
            Started { schedule: panicked, due, end }
        });
    }

    /// The time that its rule goes by.
    fn now(&self, turn: &Deciding<'_>) -> Timestamp {
        if self.settings.rule.is_by_wall() { turn.wall() } else { turn.now() }
    }

    fn look_later(&self, turn: &mut Deciding<'_>, from: Timestamp) {
        match self.settings.rule.next_after(from, &self.zone) {
            Some(next) if self.settings.rule.is_by_wall() => turn.wake_at_wall(next),
            Some(next) => turn.wake_at(next),
            None => {}
        }
    }

    fn add_ran(&mut self, due: Timestamp) {
        let (rule, zone) = (&self.settings.rule, &self.zone);
        if rule.is_by_wall() {
            self.ran.add(due, |at| rule.next_after(at, zone));
        }
    }

    /// The execution's name follows from the due time, so that it starts once, whatever happens before it is settled. The
    /// box's own time has a mark: by the wall clock, which rates went by once, the same number was another moment.
    fn start(&self, turn: &Deciding<'_>, name: &str, due: Timestamp) -> StartRequest {
        let by_wall = self.settings.rule.is_by_wall();
        let execution = format!("{name}-{}{}", if by_wall { "" } else { "b" }, due.0);
        let execution: String = execution.chars().rev().take(NAME_CHARS_MAX).collect();
        let shown = if by_wall { due } else { turn.handle().clock().shown(due) };
        StartRequest {
            machine: self.settings.workflow.clone(),
            name: Some(execution.chars().rev().collect()),
            input: self.settings.input(name, shown).into(),
            once: true,
            ..StartRequest::default()
        }
    }

    fn settle(&mut self, turn: &mut Deciding<'_>, name: &str, due: Timestamp) {
        let mut commit = Commit::new();
        commit.put_schedule(name, &ScheduleRow { last: due.into() });
        if self.settings.rule.is_by_wall() {
            commit.put_setting(&ran_key(name), &self.ran.row());
        }
        turn.commit(commit, || ());
        self.last = Some(due);
    }
}

/// The row of what was run.
fn ran_key(name: &str) -> String {
    format!("schedules.ran.{name}")
}

async fn begin(handle: &Handle, start: StartRequest) -> Result<Begun, Refused> {
    let name = start.name.clone().unwrap_or_default();
    match handle.start(start).await {
        // By this name nobody starts but this schedule: it was run, when its input said something else.
        Err(refused) if refused.code == "ExecutionAlreadyExists" => Ok(Begun::Taken(name)),
        started => started.map(|_| Begun::Now),
    }
}
