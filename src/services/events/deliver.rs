//! One delivery of an event: to a workflow, a webhook, a queue, a function or a topic, or to the dead-letter queue. Knows
//! nothing of what waits and of tries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use conveyor_base::limits::NAME_CHARS_MAX;
use conveyor_base::{Fault, fault};
use conveyor_run::service::{Requester, Unavailable};
use conveyor_run::{Handle, StartRequest};
use conveyor_store::{Commit, EventRow};
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::Targets;
use super::backlog::Failure;
use super::lineage::Lineage;
use super::rules::{Kind, Target};
use crate::queues::{NewMessage, Reply, Request};

const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// Reaches the targets.
pub(super) struct Deliverer {
    targets: Targets,
    handle: Handle,
    client: reqwest::Client,
}

/// An event on its way to a target.
pub(super) struct Delivery {
    pub rule: Arc<str>,
    pub target: Arc<Target>,
    pub event: String,
    pub row: EventRow,
}

/// How a delivery ended.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// The target has it. `settled`: the row went with the target's own commit.
    Delivered {
        settled: bool,
    },
    /// It is a notification, to be stored with the removal of the row.
    Publish(Value),
    Failed(Failure),
    /// The dead-letter queue has it.
    Buried {
        settled: bool,
    },
    /// `why` it was given up, and `what` the dead-letter queue said.
    NotBuried {
        why: String,
        what: String,
    },
}

impl Delivery {
    /// What tells this delivery from all others, to whom it is repeated.
    fn key(&self) -> String {
        format!("{}/{}", self.event, self.target.key)
    }
}

impl Deliverer {
    /// # Errors
    /// The webhooks' client cannot be made: one without its timeout would wait for ever.
    pub fn new(handle: &Handle, targets: Targets) -> Result<Deliverer, Fault> {
        // A webhook's host shall not send the box elsewhere: to its own port, for instance.
        let client = reqwest::Client::builder().timeout(WEBHOOK_TIMEOUT).redirect(Policy::none()).build();
        let client = client.map_err(|e| Fault::fatal("the HTTP client of the rules' webhooks cannot be made", e))?;
        Ok(Deliverer { targets, handle: handle.clone(), client })
    }

    /// One try.
    pub async fn deliver(&self, delivery: &Delivery) -> End {
        self.attempt(delivery).await.unwrap_or_else(End::Failed)
    }

    async fn attempt(&self, delivery: &Delivery) -> Result<End, Failure> {
        let Delivery { rule, target, event, row } = delivery;
        let whole: Value = serde_json::from_str(&row.event)
            .map_err(|e| Failure::permanent(format!("the event's row is no JSON ({e}); run 'conveyor check'")))?;
        let input = target.shape.apply(&whole, rule).map_err(Failure::permanent)?;
        let key = delivery.key();
        match &target.kind {
            Kind::Workflow { machine, qualifier } => {
                self.start(rule, machine, qualifier.clone(), event, &row.lineage, input).await?;
            }
            Kind::Webhook { url, connection } => self.post(url, connection.as_deref(), &key, input).await?,
            Kind::Queue { queue, group } => {
                let group = group.clone().unwrap_or_default();
                let message = NewMessage { body: input, group, deduplication: key, ..NewMessage::default() };
                let settled = self.send(delivery, queue, message).await.map_err(Failure::transient)?;
                return Ok(End::Delivered { settled });
            }
            Kind::Function(function) => {
                self.targets.outside.call(function, &input, event).await.map_err(Failure::transient)?;
            }
            Kind::Unattended => {
                let function = whole["function"].as_str().unwrap_or_default();
                let ran = self.targets.outside.call(function, &whole["event"].to_string(), event).await;
                ran.map_err(|what| Failure::transient(format!("{function}: {what}")))?;
            }
            Kind::Topic(topic) => {
                return Ok(End::Publish(json!({
                    "event": "rule.matched", "rule": **rule, "topic": topic, "id": key,
                    "at": self.handle.wall().to_string(),
                    "message": serde_json::from_str::<Value>(&input).unwrap_or(Value::Null),
                })));
            }
        }
        Ok(End::Delivered { settled: false })
    }

    /// Puts what was given up into the dead-letter queue.
    pub async fn dead_letter(&self, delivery: &Delivery, queue: &str, why: String) -> End {
        let Delivery { rule, target, row, .. } = delivery;
        let text = |value: &str| json!({ "DataType": "String", "StringValue": value });
        let attributes = json!({
            "RULE_ARN": text(&format!("arn:aws:events:{}:{}:rule/{rule}", self.handle.region(), self.handle.account())),
            "TARGET_ARN": text(&target.key),
            "ERROR_MESSAGE": text(&why),
            "RETRY_ATTEMPTS": { "DataType": "Number", "StringValue": (row.attempts - 1).to_string() },
        });
        let message = NewMessage {
            body: row.event.clone(),
            attributes,
            group: if queue.ends_with(".fifo") { rule.to_string() } else { String::new() },
            deduplication: delivery.key(),
            ..NewMessage::default()
        };
        match self.send(delivery, queue, message).await {
            Ok(settled) => End::Buried { settled },
            Err(what) => End::NotBuried { why, what },
        }
    }

    /// Sends a message to a queue; its row and the removal of the event's are one commit. False where the queue had the
    /// message already, and the event's row is still there.
    async fn send(&self, delivery: &Delivery, queue: &str, message: NewMessage) -> Result<bool, String> {
        let (event, target) = (delivery.event.clone(), delivery.target.key.clone());
        let settled = Arc::new(AtomicBool::new(false));
        let (tell, told) = oneshot::channel();
        let settles = settled.clone();
        let join = move |_: &Reply, commit: &mut Commit| {
            commit.drop_event(&event, &target);
            settles.store(true, Ordering::Release);
        };
        let requester = Requester::service(join, move |reply| {
            // A dispatcher that was started again meanwhile asks anew.
            let _ = tell.send(reply);
        });
        self.targets.queues.send(queue, Request::Send(vec![message]), requester);
        match told.await {
            Ok(Reply::Sent(_)) => Ok(settled.load(Ordering::Acquire)),
            Ok(_) => Err(format!("there is no queue '{queue}'")),
            Err(_) => Err(Unavailable.to_string()),
        }
    }

    /// Idempotent: the execution's name follows from the event.
    async fn start(
        &self,
        rule: &str,
        machine: &str,
        qualifier: Option<String>,
        event: &str,
        lineage: &str,
        input: String,
    ) -> Result<(), Failure> {
        let stem: String = rule.chars().take(NAME_CHARS_MAX - event.len() - 1).collect();
        let request = StartRequest {
            machine: machine.to_owned(),
            qualifier,
            name: Some(format!("{stem}-{event}")),
            input: input.into(),
            once: true,
            trace_header: Lineage::read(lineage).trace_header(event),
            ..StartRequest::default()
        };
        match self.handle.start(request).await {
            Ok(_) => Ok(()),
            Err(refused) => {
                let what = format!("{}: {}", refused.code, refused.message);
                Err(if refused.is_transient() { Failure::transient(what) } else { Failure::permanent(what) })
            }
        }
    }

    /// Any answer of success is good; what the receiver says it will never take is not tried again.
    async fn post(&self, url: &str, connection: Option<&str>, key: &str, body: String) -> Result<(), Failure> {
        let parsed = reqwest::Url::parse(url).map_err(|e| Failure::permanent(e.to_string()))?;
        let place = parsed.origin().ascii_serialization();
        let mut request = self.client.post(parsed).header("Content-Type", "application/json");
        request = request.header("Idempotency-Key", key);
        if let Some(connection) = connection {
            let authorised = self.targets.outside.authorise(connection, request).await;
            request = authorised.map_err(Failure::transient)?;
        }
        let sent = request.body(body).send().await;
        let response = sent.map_err(|e| Failure::transient(format!("{place}: {}", fault::chain(&e.without_url()))))?;
        match response.status() {
            status if status.is_success() => Ok(()),
            // As API destinations do: these may pass.
            status if matches!(status.as_u16(), 401 | 407 | 409 | 429 | 500..) => {
                Err(Failure::transient(format!("{place} answered {status}")))
            }
            status => Err(Failure::permanent(format!("{place} answered {status}"))),
        }
    }
}
