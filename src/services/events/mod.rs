//! Events: onto the rules of this box, and from there to their targets by one service, the event dispatcher.
//!
//! ```text
//! PutEvents ── Put ─────> dispatcher ─┐                                        ┌─ workflow
//!                                     ├─ rows ─> target workers (in it) ── act ─┼─ webhook, queue, function, topic
//! status change: rows in the ─────────┘                                        └─ dead-letter queue
//! execution's own commit, stored
//! ```
//!
//! Invariants: an event that was acknowledged, or a status that was stored, is a row for each target that a rule names
//! until that target has it: exactly once where the target is this box's own (its rows and the removal of the event's
//! are one commit, or the execution's name follows from the event), at least once elsewhere. A status change and its
//! rows are one commit. A rule is not started by events that it brought about itself more often than it allows
//! ([`RuleSettings::loops`]): the lineage of an event goes along through executions, in the trace header as AWS's own
//! loop detection has it.

mod backlog;
mod bus;
mod deliver;
mod lineage;
pub mod pattern;
mod rules;
mod service;

use std::collections::BTreeMap;
use std::sync::Arc;

use conveyor_base::{Fault, Timestamp};
use conveyor_interpreter::Header;
use conveyor_run::service::{Address, Requester, Unavailable};
use conveyor_run::{Announced, Handle, OnBehalf};
use conveyor_store::{Commit, Scans};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use reqwest::RequestBuilder;
use serde_json::Value;

pub use bus::{DEFAULT_BUS, NewEvent, Undelivered, begun, event_id, name_of as bus_name};
pub use lineage::Lineage;
pub use rules::{RuleSettings, TransformerSettings};

use crate::notifications::Notifications;
use crate::queues::Queues;
use bus::Bus;
use deliver::{Deliverer, End};
use service::Dispatcher;

/// The events of this box: its rules, and where to hand events in. Cheap to clone.
#[derive(Clone)]
pub struct Events(Arc<Inner>);

struct Inner {
    bus: Bus,
    service: Address<Message>,
    /// Rows that others stored and the dispatcher does not know of yet.
    stored: Mutex<Vec<Announced>>,
}

/// What rules may name as targets, beside workflows.
pub struct Targets {
    pub queues: Queues,
    pub notifications: Notifications,
    pub outside: Arc<dyn Outside>,
}

/// Targets that others reach for the dispatcher. Errors say what happened, and hold no secret.
pub trait Outside: Send + Sync {
    /// Runs a function to its end; whoever drops this ends it. `event`: JSON.
    fn call<'a>(&'a self, function: &'a str, event: &'a str, id: &'a str) -> BoxFuture<'a, Result<(), String>>;

    /// Adds what a connection authorises a webhook with.
    fn authorise<'a>(
        &'a self,
        connection: &'a str,
        request: RequestBuilder,
    ) -> BoxFuture<'a, Result<RequestBuilder, String>>;
}

/// What the dispatcher is sent.
enum Message {
    /// To be stored, all of them or none.
    Put { rows: Vec<Undelivered>, requester: Requester<()> },
    /// Others have stored some.
    Stored,
    /// The end of what was begun for an event.
    Ended { target: String, event: String, delivery: u64, end: End },
}

impl Events {
    /// Rules whose tables have faults are left out: the configuration's check has refused them.
    pub fn new(rules: &BTreeMap<String, RuleSettings>, account: &str, region: &str) -> Events {
        let bus = Bus::new(rules, account, region);
        Events(Arc::new(Inner { bus, service: Address::default(), stored: Mutex::default() }))
    }

    /// Starts the dispatcher, with what the store holds.
    pub async fn start(&self, handle: &Handle, targets: Targets) -> Result<(), Fault> {
        let notifications = targets.notifications.clone();
        let (events, deliverer) = (self.clone(), Arc::new(Deliverer::new(handle, targets)?));
        let load = move |store: &Scans| Dispatcher::load(&events, &notifications, &deliverer, store);
        handle.serve("the event dispatcher", self.0.service.clone(), load).await
    }

    /// Whether the bus is one of this box's: the default one where it has rules, and those that rules name.
    pub fn has(&self, bus: &str) -> bool {
        self.0.bus.has(bus)
    }

    /// The rows of an event: one for each target that wants it.
    pub fn rows(&self, event: &NewEvent, now: Timestamp) -> Vec<Undelivered> {
        self.0.bus.rows(event, now)
    }

    /// The row of a function's call for whose end nobody waits.
    pub fn call(&self, id: &str, function: &str, event: &Value, now: Timestamp) -> Undelivered {
        bus::call(id, function, event, now)
    }

    /// Stores rows. Resolves once they are durable, whoever drops this changes nothing of that.
    pub async fn put(&self, rows: Vec<Undelivered>, on_behalf: Option<OnBehalf>) -> Result<(), Unavailable> {
        self.0.service.ask(|requester| Message::Put { rows, requester: requester.on_behalf(on_behalf) }).await
    }

    /// Stores rows for somebody else, who gets the answer. What cannot be sent just now is dropped, with who asked.
    pub fn send(&self, rows: Vec<Undelivered>, requester: Requester<()>) {
        drop(self.0.service.send(Message::Put { rows, requester }));
    }

    /// Adds the event of an execution's new status to the commit that stores it. What comes back is for
    /// [`Events::stored`] once that is durable.
    pub fn status_changed(&self, header: &Header, now: Timestamp, commit: &mut Commit) -> Vec<Announced> {
        let rows = self.0.bus.status_changed(header, now);
        rows.into_iter().map(|new| new.put(commit)).collect()
    }

    /// The rows are durable: deliver.
    pub fn stored(&self, announced: Vec<Announced>) {
        if announced.is_empty() {
            return;
        }
        // Left where the dispatcher finds them however it stands: one that is being started looks there first.
        self.0.stored.lock().extend(announced);
        drop(self.0.service.send(Message::Stored));
    }

    fn take_stored(&self) -> Vec<Announced> {
        std::mem::take(&mut *self.0.stored.lock())
    }
}

impl Undelivered {
    /// Adds the row to a commit; its key comes back.
    fn put(self, commit: &mut Commit) -> Announced {
        commit.put_event(&self.event, &self.target, &self.row);
        (self.event, self.target)
    }
}
