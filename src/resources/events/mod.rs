//! Events: EventBridge's `putEvents` and the status changes of executions, onto the rules of this box.
//!
//! ```text
//! putEvents ──────────────┐                      ┌─ workflow
//!                         ├─ rules ─ rows ─ courier ─ webhook, queue, function, topic
//! status change (commit) ─┘                      └─ dead-letter queue
//! ```
//!
//! Invariants: an event that was acknowledged, or a status that was stored, is a row for each target that a rule names
//! until that target has it (at least once); a status change and its rows are one commit. A rule is not started by
//! events that it brought about itself more often than it allows ([`RuleSettings::loops`]): the lineage of an event
//! goes along through executions, in the trace header as AWS's own loop detection has it.

mod courier;
mod lineage;
pub mod pattern;
mod rules;
mod task;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::sync::mpsc;

pub use courier::{Courier, Targets};
pub use lineage::Lineage;
pub use rules::{DEFAULT_BUS, RuleSettings, TransformerSettings};
pub use task::{NAMES, adapter};

use super::aws;
use crate::base::{Fault, JOB_MACHINE, Timestamp, arn};
use crate::interpreter::{Header, Status};
use crate::run::Handle;
use crate::store::{Commit, EventRow};
use rules::Rule;

/// Most entries of one call, and the largest of them together, in bytes (EventBridge's own).
const ENTRIES_MAX: usize = 10;
const ENTRIES_BYTES_MAX: usize = 1_048_576;
/// Above this an event of a status change leaves out what the execution got and gave (Step Functions' own).
const PAYLOADS_BYTES_MAX: usize = 248 * 1024;

/// The target of rows that are calls of functions for whose end nobody waits. No rule's: those have a slash within.
const UNATTENDED: &str = "@functions";

/// An event and the target that it has not reached: the key of a row.
pub type Undelivered = (String, String);

/// The box's event buses.
pub struct Bus {
    account: String,
    region: String,
    rules: Vec<Rule>,
    /// Tells the courier of new rows, once they are durable.
    grew: mpsc::UnboundedSender<Undelivered>,
    news: tokio::sync::Mutex<mpsc::UnboundedReceiver<Undelivered>>,
}

/// An event on its way in.
pub struct NewEvent {
    pub id: String,
    pub bus: String,
    pub source: String,
    pub detail_type: String,
    pub detail: Value,
    pub resources: Vec<String>,
    pub time: Timestamp,
    pub lineage: Lineage,
}

impl Bus {
    /// Rules whose tables have faults are left out: the configuration's check has refused them.
    pub fn new(rules: &BTreeMap<String, RuleSettings>, account: &str, region: &str) -> Bus {
        let (grew, news) = mpsc::unbounded_channel();
        let enabled = rules.iter().filter(|(_, settings)| settings.enabled);
        let rules = enabled.filter_map(|(name, settings)| settings.rule(name).ok()).collect();
        let (account, region) = (account.to_owned(), region.to_owned());
        Bus { account, region, rules, grew, news: tokio::sync::Mutex::new(news) }
    }

    /// Whether the bus is one of this box's: the default one where it has rules, and those that rules name.
    pub fn has(&self, bus: &str) -> bool {
        let bus = name_of(bus);
        self.rules.iter().any(|rule| rule.bus == bus)
    }

    /// Whether a request of PutEvents names only buses of this box.
    pub fn has_all(&self, request: &Value) -> bool {
        let entries = request.get("Entries").and_then(Value::as_array);
        let named = |entry: &Value| entry.get("EventBusName").and_then(Value::as_str).map(str::to_owned);
        entries.is_some_and(|entries| entries.iter().all(|e| self.has(named(e).as_deref().unwrap_or(DEFAULT_BUS))))
    }

    /// Stores the event for each target that wants it. Hand what comes back to [`Bus::stored`] once it is durable.
    pub fn put(&self, event: &NewEvent, now: Timestamp, commit: &mut Commit) -> Vec<Undelivered> {
        let bus = name_of(&event.bus);
        if !self.rules.iter().any(|rule| rule.bus == bus) {
            return Vec::new();
        }
        let body = self.body(event);
        let text = body.to_string();
        let mut undelivered = Vec::new();
        for rule in self.rules.iter().filter(|rule| rule.bus == bus && rule.pattern.matches(&body)) {
            let times = event.lineage.times(&rule.name);
            if times > rule.loops {
                tracing::warn!(
                    rule = rule.name,
                    event = event.id,
                    loops = rule.loops,
                    "an event came about through the rule that it would start again; it is not followed"
                );
                metrics::counter!("conveyor_events_looping_total", "rule" => rule.name.clone()).increment(1);
                continue;
            }
            for target in &rule.targets {
                let row = EventRow {
                    event: text.clone(),
                    lineage: event.lineage.with(&rule.name).to_string(),
                    created_at: now.into(),
                    attempts: 0,
                    next_at: now.into(),
                    last_error: String::new(),
                };
                commit.put_event(&event.id, &target.key, &row);
                undelivered.push((event.id.clone(), target.key.clone()));
            }
        }
        undelivered
    }

    /// Stores the call of a function for whose end nobody waits: a row, like an event on its way to a rule's target.
    pub async fn put_call(&self, handle: &Handle, id: &str, function: &str, event: &Value) -> Result<(), Fault> {
        let now = handle.now();
        let row = EventRow {
            event: json!({ "function": function, "event": event }).to_string(),
            lineage: String::new(),
            created_at: now.into(),
            attempts: 0,
            next_at: now.into(),
            last_error: String::new(),
        };
        let mut commit = Commit::new();
        commit.put_event(id, UNATTENDED, &row);
        handle.commit(commit).await?;
        self.stored(vec![(id.to_owned(), UNATTENDED.to_owned())]);
        Ok(())
    }

    /// The rows are durable: deliver.
    pub fn stored(&self, undelivered: Vec<Undelivered>) {
        for key in undelivered {
            // Without a courier (as in tests) nobody takes them, and they stay rows.
            let _ = self.grew.send(key);
        }
    }

    /// The event of an execution's new status, for whom it may concern.
    pub fn status_changed(&self, header: &Header, now: Timestamp, commit: &mut Commit) -> Vec<Undelivered> {
        if self.rules.is_empty() || header.machine.name == JOB_MACHINE {
            return Vec::new();
        }
        let detail = self.detail(header, now);
        let event = NewEvent {
            // The same status of the same execution is the same event, however often it is redriven to it.
            id: event_id(&format!("{}/{}/{}", header.id, header.status.name(), header.redrive_count)),
            bus: DEFAULT_BUS.to_owned(),
            source: "aws.states".to_owned(),
            detail_type: "Step Functions Execution Status Change".to_owned(),
            resources: vec![arn::execution(&self.region, &self.account, &header.machine.name, &header.name)],
            detail,
            time: now,
            lineage: Lineage::of_trace_header(header.trace_header.as_deref()),
        };
        self.put(&event, now, commit)
    }

    fn body(&self, event: &NewEvent) -> Value {
        let seconds = jiff::Timestamp::from_millisecond(event.time.0).unwrap_or_default();
        json!({
            "version": "0",
            "id": event.id,
            "detail-type": event.detail_type,
            "source": event.source,
            "account": self.account,
            "time": seconds.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "region": self.region,
            "resources": event.resources,
            "detail": event.detail,
        })
    }

    /// What DescribeExecution says, in the form of AWS's events.
    fn detail(&self, header: &Header, now: Timestamp) -> Value {
        let machine = &header.machine.name;
        let machine_arn = arn::machine(&self.region, &self.account, machine);
        let qualified = |part: String| format!("{machine_arn}:{part}");
        let qualifier = header.machine.qualifier.as_ref();
        let (output, (error, cause)) = (header.output(), header.failure());
        let escaped = |text: &str| json!(text).to_string().len();
        let output_bytes = output.map_or(0, escaped);
        let (gives_input, gives_output) =
            (escaped(&header.input) + output_bytes <= PAYLOADS_BYTES_MAX, output_bytes <= PAYLOADS_BYTES_MAX);
        let reason = crate::run::not_redrivable(header, now);
        json!({
            "executionArn": arn::execution(&self.region, &self.account, machine, &header.name),
            "stateMachineArn": machine_arn,
            "name": header.name,
            "status": header.status.name(),
            "startDate": header.started_at.0,
            "stopDate": header.stopped_at.map(|at| at.0),
            "input": gives_input.then(|| header.input.to_string()),
            "output": output.filter(|_| gives_output).map(|output| output.to_string()),
            "inputDetails": { "included": gives_input },
            "outputDetails": output.map(|_| json!({ "included": gives_output })),
            "error": error,
            "cause": cause,
            "stateMachineVersionArn": qualifier.map(|q| qualified(q.version().to_string())),
            "stateMachineAliasArn": qualifier.and_then(|q| q.alias()).map(|alias| qualified(alias.to_owned())),
            "redriveCount": header.redrive_count,
            "redriveDate": header.redriven_at.map(|at| at.0),
            "redriveStatus": if reason.is_none() { "REDRIVABLE" } else { "NOT_REDRIVABLE" },
            "redriveStatusReason": reason,
        })
    }

    /// PutEvents. `seed` makes the ids: the same one on a second run.
    pub async fn put_events(
        &self,
        handle: &Handle,
        entries: &[Value],
        seed: Option<&str>,
        extra: &[String],
        lineage: &Lineage,
    ) -> Result<Value, Refusal> {
        check(entries)?;
        let (now, mut commit) = (handle.now(), Commit::new());
        let (mut answers, mut undelivered, mut failed) = (Vec::new(), Vec::new(), 0);
        for (n, entry) in entries.iter().enumerate() {
            match self.entry(entry, now) {
                Ok(mut event) => {
                    event.id = seed.map_or_else(|| uuid::Uuid::new_v4().to_string(), |s| event_id(&format!("{s}/{n}")));
                    event.resources.extend(extra.iter().cloned());
                    event.lineage = lineage.clone();
                    undelivered.extend(self.put(&event, now, &mut commit));
                    answers.push(json!({ "EventId": event.id }));
                }
                Err((code, message)) => {
                    failed += 1;
                    answers.push(json!({ "ErrorCode": code, "ErrorMessage": message }));
                }
            }
        }
        if !commit.is_empty() {
            handle.commit(commit).await.map_err(Refusal::Fault)?;
            self.stored(undelivered);
        }
        Ok(json!({ "Entries": answers, "FailedEntryCount": failed }))
    }

    fn entry(&self, entry: &Value, now: Timestamp) -> Result<NewEvent, (&'static str, String)> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let missing = |name: &str| {
            ("InvalidArgument", format!("Parameter {name} is not valid. Reason: {name} is a required argument."))
        };
        let source = text("Source").ok_or_else(|| missing("Source"))?;
        let detail_type = text("DetailType").ok_or_else(|| missing("DetailType"))?;
        // Integrations may write the detail as JSON.
        let detail = match entry.get("Detail") {
            Some(Value::String(text)) => serde_json::from_str(text).unwrap_or(Value::Null),
            Some(other) => other.clone(),
            None => return Err(missing("Detail")),
        };
        if !detail.is_object() {
            return Err(("MalformedDetail", "Detail is malformed.".to_owned()));
        }
        let bus = text("EventBusName").unwrap_or(DEFAULT_BUS);
        if name_of(bus) != DEFAULT_BUS && !self.has(bus) {
            return Err(("InvalidArgument", format!("Event bus {bus} does not exist; no rule of this box names it.")));
        }
        if source.starts_with("aws.") {
            let what = "Not authorized for the source.".to_owned();
            return Err(("NotAuthorizedForSourceException", what));
        }
        let resources = entry.get("Resources").and_then(Value::as_array).into_iter().flatten();
        Ok(NewEvent {
            id: String::new(),
            bus: bus.to_owned(),
            source: source.to_owned(),
            detail_type: detail_type.to_owned(),
            detail,
            resources: resources.filter_map(Value::as_str).map(str::to_owned).collect(),
            time: time_of(entry.get("Time")).unwrap_or(now),
            lineage: Lineage::default(),
        })
    }
}

/// Why PutEvents did nothing at all.
pub enum Refusal {
    Validation(String),
    Fault(Fault),
}

fn check(entries: &[Value]) -> Result<(), Refusal> {
    let wrong = |what: &str| {
        Err(Refusal::Validation(format!(
            "1 validation error detected: Value at 'entries' failed to satisfy constraint: {what}"
        )))
    };
    if entries.is_empty() {
        return wrong("Member must have length greater than or equal to 1");
    }
    if entries.len() > ENTRIES_MAX {
        return wrong("Member must have length less than or equal to 10");
    }
    if entries.iter().map(|entry| entry.to_string().len()).sum::<usize>() > ENTRIES_BYTES_MAX {
        return Err(Refusal::Validation(format!(
            "Total size of the entries in the request is over the limit of {ENTRIES_BYTES_MAX} bytes."
        )));
    }
    Ok(())
}

fn event_id(seed: &str) -> String {
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, format!("{seed}/event").as_bytes()).to_string()
}

/// The bus in an ARN, or the name as it is.
fn name_of(bus: &str) -> &str {
    aws::last_part(bus).rsplit('/').next().unwrap_or_default()
}

/// Seconds since the epoch, or a date as text.
fn time_of(value: Option<&Value>) -> Option<Timestamp> {
    match value? {
        Value::Number(seconds) => Some(Timestamp((seconds.as_f64()? * 1000.0) as i64)),
        Value::String(text) => Some(Timestamp(text.parse::<jiff::Timestamp>().ok()?.as_millisecond())),
        _ => None,
    }
}

/// The status that an execution begins with, before its first states have run.
pub fn begun(header: &Header) -> Header {
    Header { status: Status::Running, outcome: None, stopped_at: None, ..header.clone() }
}
