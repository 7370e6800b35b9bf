//! Notifications: what the box tells others of, delivered by one service to the targets of `[notify]`.
//!
//! ```text
//!  Task ── Publish ──> service ──┐ rows, one for each target           ┌─ webhook
//!                                ├──────────────> order ── one at a time ─┤
//!  others ── put: rows in their ─┘ (durable)       of each target      └─ log file
//!            own commit, stored
//! ```
//!
//! Invariants: a notification that a task has reported as sent is a row until its target has taken it. Delivery is at
//! least once; the `Idempotency-Key` of a notification never changes, so that a receiver can drop a second copy. A
//! target gets its notifications in the order in which they were stored: while it fails, the first one is tried again
//! and the others wait behind it. Only one that the target itself keeps refusing is passed by. An address may hold a
//! secret, so neither log nor row repeats it. Bodies live in the store only, in memory a notification is its number.

mod deliver;
mod order;
mod service;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use conveyor_base::{Fault, Span};
use conveyor_run::Handle;
use conveyor_run::service::{Address, Requester};
use conveyor_store::{Commit, OutboxRow, Scans};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;

pub use deliver::signature;

use deliver::Deliverer;
use service::NotificationService;

/// `[notify]`: where notifications go. Both, one or none of the targets.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotifySettings {
    /// Gets each notification by HTTP POST.
    pub webhook: Option<String>,
    /// Signs the webhook's body: HMAC-SHA256 over `timestamp.body`.
    pub secret: Option<String>,
    pub timeout: Option<Span>,
    /// A file that gets one JSON line for each notification.
    pub log: Option<PathBuf>,
    /// Names of the topics that are this box's own where `[aws]` has an endpoint; without one all are.
    #[serde(default)]
    pub topics: BTreeSet<String>,
}

impl std::fmt::Debug for NotifySettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NotifySettings").field("log", &self.log).finish_non_exhaustive()
    }
}

impl NotifySettings {
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if let Some(url) = &self.webhook {
            match reqwest::Url::parse(url) {
                Ok(url) if matches!(url.scheme(), "http" | "https") => {}
                Ok(_) => faults.push("webhook: is neither http:// nor https://".to_owned()),
                Err(e) => faults.push(format!("webhook: is no address ({e})")),
            }
        }
        if self.secret.is_some() && self.webhook.is_none() {
            faults.push("secret: signs the webhook, and there is none".to_owned());
        }
        faults
    }

    pub fn targets(&self) -> Vec<&'static str> {
        let webhook = self.webhook.as_ref().map(|_| "webhook");
        webhook.into_iter().chain(self.log.as_ref().map(|_| "log")).collect()
    }
}

/// The notifications of this box: who gets them, and where to hand them in. Cheap to clone.
#[derive(Clone)]
pub struct Notifications(Arc<Inner>);

struct Inner {
    settings: NotifySettings,
    service: Address<Message>,
    /// Rows that others stored and the service does not know of yet.
    stored: Mutex<Vec<Added>>,
}

/// Notifications that a commit has: for [`Notifications::stored`], once it is durable.
#[must_use = "nobody delivers them before the service is told"]
#[derive(Clone, Debug, Default)]
pub struct Added(Vec<(&'static str, u64)>);

/// What the service is sent.
enum Message {
    /// To be stored for each target, all of them or none.
    Publish { bodies: Vec<Value>, requester: Requester<()> },
    /// Others have stored some.
    Stored,
    /// A delivery's end.
    Tried { target: String, number: u64, delivery: u64, outcome: Result<(), String> },
}

impl Notifications {
    pub fn new(settings: NotifySettings) -> Notifications {
        Notifications(Arc::new(Inner { settings, service: Address::default(), stored: Mutex::default() }))
    }

    /// Starts the service, with what the store holds.
    pub async fn start(&self, handle: &Handle) -> Result<(), Fault> {
        let deliverer = Arc::new(Deliverer::new(&self.0.settings, handle)?);
        let notifications = self.clone();
        let load = move |store: &Scans| NotificationService::load(&notifications, &deliverer, store);
        handle.serve("the notifications", self.0.service.clone(), load).await
    }

    /// Whether a topic is one of this box's own. `topic`: an ARN or a name.
    pub fn has_topic(&self, topic: &str) -> bool {
        self.0.settings.topics.contains(topic.rsplit(':').next().unwrap_or(topic))
    }

    /// Names of those that get each notification.
    pub fn targets(&self) -> Vec<&'static str> {
        self.0.settings.targets()
    }

    /// Stores notifications for whoever asks. Where the service cannot be reached just now, they are dropped with who
    /// asked.
    pub fn publish(&self, bodies: Vec<Value>, requester: Requester<()>) {
        drop(self.0.service.send(Message::Publish { bodies, requester }));
    }

    /// Adds a notification to somebody's commit, for each target. Whoever stores it hands what comes back to
    /// [`Notifications::stored`] once it is durable.
    pub fn put(&self, handle: &Handle, body: &Value, commit: &mut Commit) -> Added {
        let add = |target: &'static str| {
            let number = handle.outbox_number();
            commit.put_outbox(number, &OutboxRow::new(target, body.to_string(), handle.now()));
            (target, number)
        };
        Added(self.targets().into_iter().map(add).collect())
    }

    /// They are durable: deliver.
    pub fn stored(&self, added: Added) {
        if added.0.is_empty() {
            return;
        }
        // Left where the service finds them however it stands: one that is being started looks there first.
        self.0.stored.lock().push(added);
        drop(self.0.service.send(Message::Stored));
    }

    fn take_stored(&self) -> Vec<Added> {
        std::mem::take(&mut *self.0.stored.lock())
    }
}

impl Added {
    pub fn append(&mut self, mut more: Added) {
        self.0.append(&mut more.0);
    }
}
