//! The service of all schedules: knows how far each has come, and starts what is due.

use std::collections::BTreeMap;

use conveyor_base::limits::NAME_CHARS_MAX;
use conveyor_base::{Fault, Timestamp};
use conveyor_run::service::{Service, Turn};
use conveyor_run::{Handle, Refused, StartRequest};
use conveyor_store::{Commit, Scans, ScheduleRow};
use jiff::tz::TimeZone;

use super::{Missed, ON_TIME_MS, ScheduleSettings};

/// Before a start is tried again that the box could not take.
const AGAIN_MS: i64 = 30_000;

/// What the service is sent: how a start went.
pub(crate) struct Started {
    schedule: String,
    due: Timestamp,
    end: Result<(), Refused>,
}

pub(super) struct ScheduleService {
    schedules: BTreeMap<String, Schedule>,
}

struct Schedule {
    settings: ScheduleSettings,
    zone: TimeZone,
    /// The newest due time that is settled: run or skipped. `None`: the schedule is new.
    last: Option<Timestamp>,
    /// How often the clock was set back so far that due times come again.
    rounds: u64,
    /// A start is under way, or waits for its next try.
    starting: Option<Starting>,
}

enum Starting {
    UnderWay,
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
            let last = rows.schedule(name)?.map(|row| row.last.into());
            let rounds = rows.setting(&rounds_key(name))?.and_then(|bytes| bytes.try_into().ok());
            let rounds = rounds.map_or(0, u64::from_be_bytes);
            let schedule = Schedule { settings: settings.clone(), zone, last, rounds, starting: None };
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
            Ok(()) => {
                let late = turn.wall().since_ms(due) > ON_TIME_MS;
                tracing::info!(schedule = name, due = %due, late, "a schedule started its workflow");
            }
            Err(refused) if refused.is_transient() => {
                let why = refused.message;
                tracing::warn!(schedule = name, why, "a schedule could not start its workflow; trying again");
                schedule.starting = Some(Starting::Again(turn.wall().plus_ms(AGAIN_MS)));
                return schedule.look(turn, &name);
            }
            Err(refused) => {
                let why = refused.message;
                tracing::error!(schedule = name, workflow, why, "a schedule cannot start its workflow");
            }
        }
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
        let now = turn.wall();
        match self.starting {
            Some(Starting::UnderWay) => return,
            // Further away it is only where the clock was set back.
            Some(Starting::Again(at)) if at > now && at <= now.plus_ms(AGAIN_MS) => return turn.wake_at_wall(at),
            _ => self.starting = None,
        }
        let Some(last) = self.last else {
            // It begins now.
            self.settle(turn, name, now);
            return self.look_later(turn, now);
        };
        if last > now.plus_ms(ON_TIME_MS) {
            // It was settled by a clock that ran ahead, and would be silent until then. What was due by that clock is due
            // again by this one, and has another name.
            self.rounds += 1;
            self.settle(turn, name, now);
            return self.look_later(turn, now);
        }
        let Some(due) = self.settings.rule.last_within(last, now, &self.zone) else {
            return self.look_later(turn, last);
        };
        if now.since_ms(due) > ON_TIME_MS && self.settings.missed == Missed::Skip {
            tracing::warn!(schedule = name, due = %due, "a run was missed while the box was off and is skipped, as configured");
            self.settle(turn, name, due);
            return self.look_later(turn, due);
        }
        self.starting = Some(Starting::UnderWay);
        let (start, handle) = (self.start(name, due), turn.handle());
        let (schedule, panicked) = (name.to_owned(), name.to_owned());
        turn.act(async move { Started { schedule, due, end: begin(&handle, start).await } }, move |text| {
            let end = Err(Refused::new("InternalFailure", text));
            Started { schedule: panicked, due, end }
        });
    }

    fn look_later(&self, turn: &mut Deciding<'_>, from: Timestamp) {
        if let Some(next) = self.settings.rule.next_after(from, &self.zone) {
            turn.wake_at_wall(next);
        }
    }

    /// The execution's name follows from the due time, so that it starts once, whatever happens before it is settled.
    fn start(&self, name: &str, due: Timestamp) -> StartRequest {
        let name_of = match self.rounds {
            0 => format!("{name}-{}", due.0),
            rounds => format!("{name}--{rounds}-{}", due.0),
        };
        let execution: String = name_of.chars().rev().take(NAME_CHARS_MAX).collect();
        StartRequest {
            machine: self.settings.workflow.clone(),
            name: Some(execution.chars().rev().collect()),
            input: self.settings.input(name, due).into(),
            once: true,
            ..StartRequest::default()
        }
    }

    fn settle(&mut self, turn: &mut Deciding<'_>, name: &str, due: Timestamp) {
        let mut commit = Commit::new();
        commit.put_schedule(name, &ScheduleRow { last: due.into() });
        if self.rounds > 0 {
            commit.put_setting(&rounds_key(name), &self.rounds.to_be_bytes());
        }
        turn.commit(commit, || ());
        self.last = Some(due);
    }
}

/// The row of its rounds.
fn rounds_key(name: &str) -> String {
    format!("schedules.rounds.{name}")
}

async fn begin(handle: &Handle, start: StartRequest) -> Result<(), Refused> {
    handle.start(start).await.map(drop)
}
