//! Brings events to the targets of rules: one lane for each target, so that one that hangs holds up no other.
//!
//! ```text
//!          ┌────────────── later (back-off) ─────────────┐
//!  row ─▶ due ──try──▶ taken: the row goes               │
//!                └───▶ failed ─▶ young enough, tries left┘
//!                         └────▶ dead-letter queue, or dropped with a word in the log
//! ```
//!
//! The row is the truth: what is in memory is when to look at which.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::lineage::Lineage;
use super::rules::{Kind, Rule, Target};
use super::{Bus, UNATTENDED};
use crate::base::limits::NAME_CHARS_MAX;
use crate::base::{Fault, Timestamp, fault};
use crate::resources::functions::Functions;
use crate::resources::http::Connections;
use crate::resources::notify::Outbox;

use crate::run::{Handle, Start};
use crate::services::queues::{NewMessage, Queues, Reply, Request};
use crate::store::{Commit, EventRow, Reader};

/// Deliveries to one target at once.
const AT_ONCE_MAX: usize = 8;
const BACKOFF_MS_MIN: i64 = 1_000;
const BACKOFF_MS_MAX: i64 = 300_000;
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(10);
const ROWS_PER_PAGE: usize = 500;

/// Delivers for as long as it runs.
#[derive(Clone)]
pub struct Courier {
    events: Arc<Bus>,
    targets: Targets,
    reader: Reader,
    handle: Handle,
    client: reqwest::Client,
}

/// What rules may name as targets, beside workflows.
#[derive(Clone)]
pub struct Targets {
    pub queues: Queues,
    pub functions: Arc<Functions>,
    pub connections: Arc<Connections>,
    pub outbox: Arc<Outbox>,
}

/// Why a target did not take an event.
struct Failure {
    what: String,
    /// Another try would end the same.
    for_good: bool,
}

impl Failure {
    fn passing(what: impl Into<String>) -> Failure {
        Failure { what: what.into(), for_good: false }
    }

    fn for_good(what: impl Into<String>) -> Failure {
        Failure { what: what.into(), for_good: true }
    }
}

impl Courier {
    pub fn new(events: Arc<Bus>, targets: Targets, handle: Handle) -> Courier {
        let client = reqwest::Client::builder().timeout(WEBHOOK_TIMEOUT).build().unwrap_or_default();
        Courier { events, targets, reader: handle.reader().clone(), handle, client }
    }

    /// Ends by itself only where the store does. Drop it to stop: what was not delivered stays a row.
    pub async fn run(self) -> Result<(), Fault> {
        let events = self.events.clone();
        let mut news = events.news.lock().await;
        let (courier, mut lanes) = (Arc::new(self), BTreeMap::new());
        let mut running = JoinSet::new();
        let unattended = Rule::unattended(UNATTENDED);
        for rule in courier.events.rules.iter().chain([&unattended]) {
            for target in &rule.targets {
                let (sender, due) = mpsc::unbounded_channel();
                lanes.insert(target.key.clone(), sender);
                running.spawn(courier.clone().lane(rule.clone(), target.clone(), due));
            }
        }
        courier.take_up(&lanes)?;
        loop {
            tokio::select! {
                Some((event, target)) = news.recv() => {
                    if let Some(lane) = lanes.get(&target) {
                        // A lane ends only with a fault, which is seen below.
                        let _ = lane.send((courier.handle.now(), event));
                    }
                }
                Some(ended) = running.join_next() => match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(fault)) => return Err(fault),
                    Err(e) => return Err(Fault::retryable("a lane of the courier broke off", e)),
                },
                else => return Ok(()),
            }
        }
    }

    /// What the last run of the box left undelivered.
    fn take_up(&self, lanes: &BTreeMap<String, mpsc::UnboundedSender<(Timestamp, String)>>) -> Result<(), Fault> {
        let (mut after, mut lost) = (None, 0u64);
        loop {
            let rows = self.reader.events(after.as_ref(), ROWS_PER_PAGE)?;
            let Some((last, _)) = rows.last() else { break };
            after = Some(last.clone());
            for ((event, target), row) in rows {
                match lanes.get(&target) {
                    Some(lane) => {
                        let _ = lane.send((row.next_at.into(), event));
                    }
                    None => lost += 1,
                }
            }
        }
        if lost > 0 {
            tracing::warn!(
                events = lost,
                "events wait for targets that no rule has any more; add the rules again, or they stay"
            );
        }
        Ok(())
    }

    async fn lane(
        self: Arc<Self>,
        rule: Rule,
        target: Target,
        mut news: mpsc::UnboundedReceiver<(Timestamp, String)>,
    ) -> Result<(), Fault> {
        let mut waiting: BTreeSet<(Timestamp, String)> = BTreeSet::new();
        let mut running: JoinSet<Result<Option<(Timestamp, String)>, Fault>> = JoinSet::new();
        let (rule, target) = (Arc::new(rule), Arc::new(target));
        loop {
            let now = self.handle.now();
            while running.len() < AT_ONCE_MAX
                && let Some((_, event)) = waiting.first().filter(|(due, _)| *due <= now).cloned()
            {
                waiting.pop_first();
                let (courier, rule, target) = (self.clone(), rule.clone(), target.clone());
                running.spawn(async move { courier.deliver(&rule, &target, event).await });
            }
            let full = running.len() >= AT_ONCE_MAX;
            let pause = waiting.first().filter(|_| !full).map_or(60_000, |(due, _)| due.since_ms(now).clamp(1, 60_000));
            tokio::select! {
                new = news.recv() => match new {
                    Some(new) => drop(waiting.insert(new)),
                    None => return Ok(()),
                },
                Some(ended) = running.join_next() => {
                    let again = ended.map_err(|e| Fault::retryable("a delivery broke off", e))??;
                    waiting.extend(again);
                }
                () = tokio::time::sleep(Duration::from_millis(pause as u64)) => {}
            }
        }
    }

    /// One try; when the next one is, if there is one.
    async fn deliver(&self, rule: &Rule, target: &Target, event: String) -> Result<Option<(Timestamp, String)>, Fault> {
        let Some(mut row) = self.reader.event(&event, &target.key)? else { return Ok(None) };
        let mut commit = Commit::new();
        let failure = match self.attempt(rule, target, &event, &row, &mut commit).await {
            Ok(()) => {
                commit.drop_event(&event, &target.key);
                self.handle.commit(commit).await?;
                metrics::counter!("conveyor_events_delivered_total", "rule" => rule.name.clone()).increment(1);
                self.targets.outbox.grew().notify_one();
                return Ok(None);
            }
            Err(failure) => failure,
        };
        let now = self.handle.now();
        row.attempts += 1;
        let spent = row.attempts > target.retries_max || now.since_ms(row.created_at.into()) >= target.age_ms_max;
        if failure.for_good || spent {
            return self.bury(rule, target, &event, &row, &failure).await.map(|()| None);
        }
        let wait = (BACKOFF_MS_MIN << row.attempts.min(16)).min(BACKOFF_MS_MAX);
        // Spread out, or all that failed together would come again together.
        let wait = wait / 2 + i64::from(uuid::Uuid::new_v4().as_fields().0) % (wait / 2);
        let next = now.plus_ms(wait);
        tracing::warn!(
            rule = rule.name,
            target_id = target.key,
            event,
            attempts = row.attempts,
            error = failure.what,
            "an event was not delivered; trying again"
        );
        row.next_at = next.into();
        row.last_error = failure.what;
        let mut commit = Commit::new();
        commit.put_event(&event, &target.key, &row);
        self.handle.commit(commit).await?;
        Ok(Some((next, event)))
    }

    async fn bury(
        &self,
        rule: &Rule,
        target: &Target,
        event: &str,
        row: &EventRow,
        failure: &Failure,
    ) -> Result<(), Fault> {
        tracing::error!(
            rule = rule.name,
            target_id = target.key,
            event,
            attempts = row.attempts,
            error = failure.what,
            dead_letter = target.dead_letter,
            "an event was given up"
        );
        metrics::counter!("conveyor_events_given_up_total", "rule" => rule.name.clone()).increment(1);
        if let Some(queue) = &target.dead_letter {
            let text = |value: &str| json!({ "DataType": "String", "StringValue": value });
            let attributes = json!({
                "RULE_ARN": text(&self.rule_arn(&rule.name)),
                "TARGET_ARN": text(&target.key),
                "ERROR_MESSAGE": text(&failure.what),
                "RETRY_ATTEMPTS": { "DataType": "Number", "StringValue": (row.attempts - 1).to_string() },
            });
            let fifo = queue.ends_with(".fifo");
            let message = NewMessage {
                body: row.event.clone(),
                attributes,
                group: if fifo { rule.name.clone() } else { String::new() },
                deduplication: format!("{event}/{}", target.key),
                ..NewMessage::default()
            };
            self.send(queue, message).await.map_err(|what| Fault::Retryable { what, source: None })?;
        }
        let mut commit = Commit::new();
        commit.drop_event(event, &target.key);
        self.handle.commit(commit).await
    }

    async fn send(&self, queue: &str, message: NewMessage) -> Result<(), String> {
        match self.targets.queues.ask(queue, Request::Send(vec![message]), None).await {
            Ok(Reply::Sent(_)) => Ok(()),
            Ok(_) => Err(format!("there is no queue '{queue}'")),
            Err(unavailable) => Err(unavailable.to_string()),
        }
    }

    fn rule_arn(&self, rule: &str) -> String {
        format!("arn:aws:events:{}:{}:rule/{rule}", self.handle.region(), self.handle.account())
    }

    async fn attempt(
        &self,
        rule: &Rule,
        target: &Target,
        event: &str,
        row: &EventRow,
        commit: &mut Commit,
    ) -> Result<(), Failure> {
        let whole: Value = serde_json::from_str(&row.event)
            .map_err(|e| Failure::for_good(format!("the event's row is no JSON ({e}); run 'conveyor check'")))?;
        let input = target.shape.apply(&whole, &rule.name).map_err(Failure::for_good)?;
        let key = format!("{event}/{}", target.key);
        match &target.kind {
            Kind::Workflow { machine, qualifier } => {
                self.start(rule, machine, qualifier.clone(), event, &row.lineage, input).await
            }
            Kind::Webhook { url, connection } => self.post(url, connection.as_deref(), &key, input).await,
            Kind::Queue { queue, group } => {
                let group = group.clone().unwrap_or_default();
                let message = NewMessage { body: input, group, deduplication: key, ..NewMessage::default() };
                self.send(queue, message).await.map_err(Failure::passing)
            }
            Kind::Function(function) => {
                let ran = self.targets.functions.result(function, &input, event).await;
                ran.map(drop).map_err(|e| Failure::passing(format!("{}: {}", e.error, e.cause)))
            }
            Kind::Unattended => {
                let function = whole["function"].as_str().unwrap_or_default();
                let input = whole["event"].to_string();
                let ran = self.targets.functions.result(function, &input, event).await;
                ran.map(drop).map_err(|e| Failure::passing(format!("{function}: {}: {}", e.error, e.cause)))
            }
            Kind::Topic(topic) => {
                let body = json!({
                    "event": "rule.matched", "rule": rule.name, "topic": topic, "id": key,
                    "at": self.handle.now().to_string(),
                    "message": serde_json::from_str::<Value>(&input).unwrap_or(Value::Null),
                });
                self.targets.outbox.put(&self.handle, &body, commit);
                Ok(())
            }
        }
    }

    /// Idempotent: the execution's name follows from the event.
    async fn start(
        &self,
        rule: &Rule,
        machine: &str,
        qualifier: Option<String>,
        event: &str,
        lineage: &str,
        input: String,
    ) -> Result<(), Failure> {
        let stem: String = rule.name.chars().take(NAME_CHARS_MAX - event.len() - 1).collect();
        let request = Start {
            machine: machine.to_owned(),
            qualifier,
            name: Some(format!("{stem}-{event}")),
            input: input.into(),
            once: true,
            trace_header: Lineage::read(lineage).trace_header(event),
            ..Start::default()
        };
        match self.handle.start(request).await {
            Ok(_) => Ok(()),
            Err(refused) => {
                let passes =
                    ["ServiceUnavailable", "InternalFailure", "ExecutionLimitExceeded"].contains(&refused.code);
                let what = format!("{}: {}", refused.code, refused.message);
                Err(if passes { Failure::passing(what) } else { Failure::for_good(what) })
            }
        }
    }

    /// Any answer of success is good; what the receiver says it will never take is not tried again.
    async fn post(&self, url: &str, connection: Option<&str>, key: &str, body: String) -> Result<(), Failure> {
        let parsed = reqwest::Url::parse(url).map_err(|e| Failure::for_good(e.to_string()))?;
        let place = parsed.origin().ascii_serialization();
        let mut request = self.client.post(parsed).header("Content-Type", "application/json");
        request = request.header("Idempotency-Key", key);
        if let Some(connection) = connection {
            let authorised = self.targets.connections.authorise(connection, request).await;
            request = authorised.map_err(Failure::passing)?;
        }
        let sent = request.body(body).send().await;
        let response = sent.map_err(|e| Failure::passing(format!("{place}: {}", fault::chain(&e.without_url()))))?;
        match response.status() {
            status if status.is_success() => Ok(()),
            // As API destinations do: these may pass.
            status if matches!(status.as_u16(), 401 | 407 | 409 | 429 | 500..) => {
                Err(Failure::passing(format!("{place} answered {status}")))
            }
            status => Err(Failure::for_good(format!("{place} answered {status}"))),
        }
    }
}
