//! Floor 6: what starts by the clock; `alarms` looks by the clock at what is wrong.
//!
//! ```text
//! (rule, last run) ──next_after──▶ due ──start by name `<schedule>-<due>`──▶ store last run
//! ```
//!
//! Invariants: a due time starts once, since the execution's name follows from it; the last run is a row, so that a
//! restart knows what was missed; what was missed is run once or skipped, as the schedule says, never piled up.

pub mod alarms;
pub mod rule;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::json;

pub use alarms::{Alarm, Alarms, Conditions};
pub use rule::{Rule, RuleError};

use crate::base::limits::NAME_CHARS_MAX;
use crate::base::{Fault, Timestamp, fault};
use crate::run::{self, Handle};
use crate::store::{Commit, Reader, ScheduleRow};

/// A due time that is no older than this is on time and not missed.
const ON_TIME_MS: i64 = 60_000;
/// How far back the first look for missed times goes.
const RECENT_MS: i64 = 8 * 86_400_000;
/// The longest sleep: the clock may be set meanwhile.
const ROUND_MS_MAX: i64 = 30_000;

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
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

/// What a schedule wants of the running appliance: of a [`Handle`], or of a recorder in tests.
pub trait Starter: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
    /// Idempotent by name; `Ok(Err(why))` where the appliance refuses.
    fn start(&self, workflow: &str, name: &str, input: String) -> BoxFuture<'_, Result<Result<(), String>, Fault>>;
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<(), Fault>>;
}

impl Starter for Handle {
    fn now(&self) -> Timestamp {
        Handle::now(self)
    }

    fn start(&self, workflow: &str, name: &str, input: String) -> BoxFuture<'_, Result<Result<(), String>, Fault>> {
        let request = run::Start {
            machine: workflow.to_owned(),
            name: Some(name.to_owned()),
            input: input.into(),
            once: true,
            ..run::Start::default()
        };
        Box::pin(async move {
            match Handle::start(self, request).await {
                Ok(_) => Ok(Ok(())),
                Err(refused) if refused.code == "ServiceUnavailable" => {
                    Err(Fault::Retryable { what: refused.message, source: None })
                }
                Err(refused) if refused.code == "InternalFailure" => Err(Fault::fatal_plain(refused.message)),
                Err(refused) => Ok(Err(refused.message)),
            }
        })
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(Handle::commit(self, commit))
    }
}

/// The schedules of this box.
pub struct Schedule {
    schedules: BTreeMap<String, ScheduleSettings>,
    starter: Arc<dyn Starter>,
    reader: Reader,
    /// The newest due time of each that is settled: run or skipped.
    last: BTreeMap<String, Timestamp>,
}

impl Schedule {
    pub fn new(schedules: BTreeMap<String, ScheduleSettings>, starter: Arc<dyn Starter>, reader: Reader) -> Schedule {
        Schedule { schedules, starter, reader, last: BTreeMap::new() }
    }

    /// Runs until it is dropped; ends by itself only where the store does.
    pub async fn run(mut self) -> Result<(), Fault> {
        loop {
            let next = self.round().await?;
            let now = self.starter.now();
            let pause = next.map_or(ROUND_MS_MAX, |at| at.since_ms(now).clamp(1, ROUND_MS_MAX));
            tokio::time::sleep(Duration::from_millis(pause as u64)).await;
        }
    }

    /// Starts what is due; says when the next one is.
    pub async fn round(&mut self) -> Result<Option<Timestamp>, Fault> {
        let mut next: Option<Timestamp> = None;
        let names: Vec<String> = self.schedules.iter().filter(|(_, s)| s.enabled).map(|(n, _)| n.clone()).collect();
        for name in names {
            let at = self.one(&name).await?;
            next = match (next, at) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        Ok(next)
    }

    async fn one(&mut self, name: &str) -> Result<Option<Timestamp>, Fault> {
        let Some(settings) = self.schedules.get(name).cloned() else { return Ok(None) };
        let Ok(zone) = settings.zone() else { return Ok(None) };
        let now = self.starter.now();
        let last = match self.last.get(name) {
            Some(last) => *last,
            // A schedule that is new begins now.
            None => self.stored(name)?.unwrap_or(now),
        };
        if !self.last.contains_key(name) && self.stored(name)?.is_none() {
            self.settle(name, now).await?;
        }
        self.last.insert(name.to_owned(), last);
        let due = newest_due(&settings.rule, &zone, last, now);
        if let Some(due) = due {
            self.run_due(name, &settings, due, now).await?;
        }
        let from = self.last.get(name).copied().unwrap_or(now).max(due.unwrap_or(last));
        Ok(settings.rule.next_after(from, &zone))
    }

    async fn run_due(
        &mut self,
        name: &str,
        settings: &ScheduleSettings,
        due: Timestamp,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let missed = now.since_ms(due) > ON_TIME_MS;
        if missed && settings.missed == Missed::Skip {
            tracing::warn!(schedule = name, due = %due, "a run was missed while the box was off and is skipped, as configured");
            return self.settle(name, due).await;
        }
        let execution: String = format!("{name}-{}", due.0).chars().rev().take(NAME_CHARS_MAX).collect();
        let execution: String = execution.chars().rev().collect();
        let input = settings.input(name, due);
        match self.starter.start(&settings.workflow, &execution, input).await {
            Ok(Ok(())) => tracing::info!(schedule = name, due = %due, late = missed, "a schedule started its workflow"),
            Ok(Err(why)) => {
                tracing::error!(
                    schedule = name,
                    workflow = settings.workflow,
                    why,
                    "a schedule cannot start its workflow"
                );
            }
            Err(fault @ Fault::Fatal { .. }) => return Err(fault),
            Err(fault) => {
                tracing::warn!(
                    schedule = name,
                    error = fault::chain(&fault),
                    "a schedule could not start its workflow; trying again"
                );
                return Ok(());
            }
        }
        self.settle(name, due).await
    }

    async fn settle(&mut self, name: &str, due: Timestamp) -> Result<(), Fault> {
        let mut commit = Commit::new();
        commit.put_schedule(name, &ScheduleRow { last: due.into() });
        self.starter.commit(commit).await?;
        self.last.insert(name.to_owned(), due);
        Ok(())
    }

    fn stored(&self, name: &str) -> Result<Option<Timestamp>, Fault> {
        Ok(self.reader.schedule(name)?.map(|row| row.last.into()))
    }
}

/// When a rule, as its text, is due next; `None` for never and for what is no rule or no zone.
pub fn next_due(rule: &str, timezone: Option<&str>, now: Timestamp) -> Option<Timestamp> {
    let zone = timezone.map_or_else(|| Ok(TimeZone::system()), TimeZone::get).ok()?;
    rule.parse::<Rule>().ok()?.next_after(now, &zone)
}

/// The newest due time after `last` that has come. Years of a rule that is due each minute are not walked through:
/// the last days are looked at first.
fn newest_due(rule: &Rule, zone: &TimeZone, last: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let newest = |from: Timestamp| {
        let next = |at: Timestamp| rule.next_after(at, zone).filter(|next| *next <= now);
        std::iter::successors(next(from), |at| next(*at)).last()
    };
    let recent = now.plus_ms(-RECENT_MS);
    newest(last.max(recent)).or_else(|| if last < recent { newest(last) } else { None })
}
