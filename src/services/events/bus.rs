//! From events to rows: which targets want an event, and what an execution's status is as an event. Pure.

use std::collections::BTreeMap;

use conveyor_base::limits::REDRIVABLE_MS;
use conveyor_base::{JOB_MACHINE, Older, Timestamp, arn};
use conveyor_interpreter::{Header, Status};
use conveyor_store::EventRow;
use serde_json::{Value, json};

use super::lineage::Lineage;
use super::rules::{Rule, RuleSettings, Target};

/// The bus that events go to where none is named.
pub const DEFAULT_BUS: &str = "default";

/// Above this an event of a status change leaves out what the execution got and gave (Step Functions' own).
const PAYLOADS_BYTES_MAX: usize = 248 * 1024;

/// The target of rows that are calls of functions for whose end nobody waits. No rule's: those have a slash within.
pub(super) const UNATTENDED: &str = "@functions";

/// An event on its way to one target, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    pub event: String,
    pub target: String,
    pub row: EventRow,
}

/// The box's rules.
pub(super) struct Bus {
    account: String,
    region: String,
    rules: Vec<Rule>,
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
        let enabled = rules.iter().filter(|(_, settings)| settings.enabled);
        let rules = enabled.filter_map(|(name, settings)| settings.rule(name).ok()).collect();
        Bus { account: account.to_owned(), region: region.to_owned(), rules }
    }

    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether the bus is one of this box's: the default one where it has rules, and those that rules name.
    pub fn has(&self, bus: &str) -> bool {
        let bus = name_of(bus);
        self.rules.iter().any(|rule| rule.bus == bus)
    }

    /// The rows of an event: one for each target that wants it.
    pub fn rows(&self, event: &NewEvent, now: Timestamp) -> Vec<Undelivered> {
        let bus = name_of(&event.bus);
        if !self.has(bus) {
            return Vec::new();
        }
        let body = self.body(event);
        let text = body.to_string();
        let mut rows = Vec::new();
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
            let lineage = event.lineage.with(&rule.name).to_string();
            let to = |target: &Target| Undelivered {
                event: event.id.clone(),
                target: target.key.clone(),
                row: new_row(text.clone(), lineage.clone(), now),
            };
            rows.extend(rule.targets.iter().map(to));
        }
        rows
    }

    /// The event of an execution's new status, for whom it may concern.
    pub fn status_changed(&self, header: &Header, now: Timestamp) -> Vec<Undelivered> {
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
        self.rows(&event, now)
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
        let reason = conveyor_run::not_redrivable(header, &Older::than(now.plus_ms(-REDRIVABLE_MS)));
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
}

/// The call of a function for whose end nobody waits: a row like that of an event on its way to a rule's target.
pub(super) fn call(id: &str, function: &str, event: &Value, now: Timestamp) -> Undelivered {
    let text = json!({ "function": function, "event": event }).to_string();
    Undelivered { event: id.to_owned(), target: UNATTENDED.to_owned(), row: new_row(text, String::new(), now) }
}

fn new_row(event: String, lineage: String, now: Timestamp) -> EventRow {
    let (created_at, next_at) = (now.into(), now.into());
    EventRow { event, lineage, created_at, attempts: 0, next_at, last_error: String::new() }
}

/// The id of what always is the same event.
pub fn event_id(seed: &str) -> String {
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, format!("{seed}/event").as_bytes()).to_string()
}

/// The bus in an ARN, or the name as it is.
pub fn name_of(bus: &str) -> &str {
    let last = bus.rsplit(':').next().unwrap_or(bus);
    last.rsplit('/').next().unwrap_or_default()
}

/// The status that an execution begins with, before its first states have run.
pub fn begun(header: &Header) -> Header {
    Header { status: Status::Running, outcome: None, stopped_at: None, ..header.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bus() -> Bus {
        let rule: RuleSettings = toml::from_str(
            r#"
            bus = "studio"
            pattern = { source = ["cam"] }
            loops = 1
            targets = [{ queue = "a" }, { workflow = "b" }]
            "#,
        )
        .unwrap();
        Bus::new(&BTreeMap::from([("r".to_owned(), rule)]), "000000000000", "us-east-1")
    }

    fn event(bus: &str, source: &str, lineage: Lineage) -> NewEvent {
        NewEvent {
            id: "e".into(),
            bus: bus.into(),
            source: source.into(),
            detail_type: "t".into(),
            detail: json!({"n": 1}),
            resources: Vec::new(),
            time: Timestamp(1_500),
            lineage,
        }
    }

    #[test]
    fn an_event_is_a_row_for_each_target_of_each_rule_that_wants_it() {
        let bus = bus();
        let rows = bus.rows(&event("arn:aws:events:x:y:event-bus/studio", "cam", Lineage::default()), Timestamp(7));
        let targets: Vec<&str> = rows.iter().map(|row| row.target.as_str()).collect();
        assert_eq!(targets, ["r/queue:a", "r/workflow:b"]);
        let stored: Value = serde_json::from_str(&rows[0].row.event).unwrap();
        assert_eq!((&stored["time"], &stored["detail"]["n"]), (&json!("1970-01-01T00:00:01Z"), &json!(1)));
        assert_eq!((rows[0].row.next_at, rows[0].row.attempts), (Timestamp(7).into(), 0));
        // It came about through the rule, which takes it once more and no further time.
        let once = Lineage::read(&rows[0].row.lineage);
        let again = bus.rows(&event("studio", "cam", once.clone()), Timestamp(7));
        assert_eq!(Lineage::read(&again[0].row.lineage), once.with("r"));
        assert!(bus.rows(&event("studio", "cam", once.with("r")), Timestamp(7)).is_empty());
        assert!(bus.rows(&event("default", "cam", Lineage::default()), Timestamp(7)).is_empty());
        assert!(bus.rows(&event("studio", "mic", Lineage::default()), Timestamp(7)).is_empty());
        assert!(bus.has("studio") && !bus.has("default"));
    }
}
