//! Schedules: what starts by the clock.
//!
//! ```text
//! (rule, last run) ──last_within──▶ due ──start by name `<schedule>-<due>`──▶ row of the last run
//! ```
//!
//! Invariants: a due time starts once, since the execution's name follows from it and what was run is noted; the last run is a
//! row, so that a restart knows what was missed; what was missed is run once or skipped, as the schedule says, never piled up.
//! A rate's due times are of the box's own time, which no setting of the clock moves. Those of a cron rule are the wall
//! clock's: one that is set on passes some by, which counts as missed; by one that is set back they come again, and those are
//! run that were not.

mod ran;
mod rule;
mod service;

use std::collections::BTreeMap;

use conveyor_base::{BoxClock, Fault, Timestamp};
use conveyor_run::Handle;
use conveyor_run::service::Address;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::json;

pub use rule::{Rule, RuleError};

use service::ScheduleService;

/// A due time that is no older than this is on time and not missed.
const ON_TIME_MS: i64 = 60_000;

/// `[schedules.NAME]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSettings {
    /// `cron(0 3 * * ? *)`, `rate(15 minutes)` or `0 3 * * *`.
    pub rule: Rule,
    pub workflow: String,
    /// IANA name; the box's own zone where it is absent.
    pub timezone: Option<String>,
    #[serde(default)]
    pub missed: Missed,
    /// The execution's input; without it the input says which schedule it was and when it was due.
    pub input: Option<toml::Value>,
    #[serde(default = "enabled")]
    pub enabled: bool,
}

fn enabled() -> bool {
    true
}

/// What becomes of due times at which the box was off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missed {
    /// The newest of them is run, late.
    #[default]
    RunOnce,
    Skip,
}

impl ScheduleSettings {
    /// What keeps the store from growing, on a box whose configuration does not say when.
    pub fn housekeeping() -> ScheduleSettings {
        ScheduleSettings {
            rule: Rule::daily(),
            workflow: "housekeeping".to_owned(),
            timezone: None,
            missed: Missed::default(),
            input: None,
            enabled: true,
        }
    }

    /// What is wrong with the table, for the configuration's check.
    pub fn faults(&self, now: Timestamp) -> Vec<String> {
        let mut faults = Vec::new();
        match self.zone() {
            Ok(zone) if self.rule.next_after(now, &zone).is_none() => {
                faults.push(format!("rule: {} is never due", self.rule));
            }
            Ok(_) => {}
            Err(error) => faults.push(format!("timezone: {error}")),
        }
        faults
    }

    fn zone(&self) -> Result<TimeZone, jiff::Error> {
        self.timezone.as_deref().map_or_else(|| Ok(TimeZone::system()), TimeZone::get)
    }

    fn input(&self, name: &str, due: Timestamp) -> String {
        let given = self.input.as_ref().and_then(|input| serde_json::to_value(input).ok());
        given.unwrap_or_else(|| json!({ "schedule": name, "time": due.to_string() })).to_string()
    }
}

/// The schedules of this box.
pub struct Schedules {
    settings: BTreeMap<String, ScheduleSettings>,
}

impl Schedules {
    pub fn new(settings: BTreeMap<String, ScheduleSettings>) -> Schedules {
        Schedules { settings }
    }

    /// Starts the service, with what the store holds.
    pub async fn start(self, handle: &Handle) -> Result<(), Fault> {
        let load = move |rows: &_| ScheduleService::load(&self.settings, rows);
        handle.serve("the schedules", Address::default(), load).await
    }
}

/// When a rule, as its text, is due next, as the wall clock shows it; `None` for never and for what is no rule or no zone.
pub fn next_due(rule: &str, timezone: Option<&str>, clock: &BoxClock) -> Option<Timestamp> {
    let zone = timezone.map_or_else(|| Ok(TimeZone::system()), TimeZone::get).ok()?;
    let rule: Rule = rule.parse().ok()?;
    match rule.is_by_wall() {
        true => rule.next_after(clock.wall(), &zone),
        false => rule.next_after(clock.now(), &zone).map(|due| clock.shown(due)),
    }
}

/// When a rule, as its text, was due last, as the wall clock shows it. `last`: what its row says.
pub fn last_due(rule: &str, last: Timestamp, clock: &BoxClock) -> Timestamp {
    let is_rate = rule.parse::<Rule>().is_ok_and(|rule| !rule.is_by_wall());
    if is_rate { clock.shown(last) } else { last }
}
