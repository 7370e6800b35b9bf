//! Alarms: conditions of the box that a person must hear of, looked at again and again.
//!
//! ```text
//! look ──▶ conditions that hold now, by name ──▶ changed? ──▶ row (with its history) and a notification, in one commit
//! ```
//!
//! Invariants: an alarm is a row before anybody hears of it, so that a restart raises nothing twice; its history keeps
//! the newest changes only; a look never holds up anything else.

mod alarm;
mod service;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use alarm::{Alarm, Change};

use conveyor_base::Fault;
use conveyor_run::Handle;
use conveyor_run::service::Address;
use conveyor_store::{Scans, unless_damaged};

use crate::notifications::Notifications;
use service::AlarmService;

/// What is wrong now: the condition's name, which is its alarm's, and why, in a sentence that says what to do.
pub type Conditions = BTreeMap<String, String>;

/// Finds the conditions that hold. May wait for a disk or a share.
pub type Look = Arc<dyn Fn() -> Conditions + Send + Sync>;

/// The alarms of this box.
#[derive(Clone)]
pub struct Alarms {
    look: Look,
    notifications: Notifications,
}

/// What the service is sent: what a look found. `None`: it broke off.
pub(crate) struct Looked(Option<Conditions>);

impl Alarms {
    pub fn new(look: Look, notifications: Notifications) -> Alarms {
        Alarms { look, notifications }
    }

    /// Starts the service, with what the store holds. It looks for as long as the appliance runs.
    pub async fn start(self, handle: &Handle) -> Result<(), Fault> {
        let load = move |rows: &_| AlarmService::load(&self, rows);
        handle.serve("the alarms", Address::default(), load).await
    }
}

/// All alarms that were ever raised, by name.
pub fn read(rows: &Scans) -> Result<BTreeMap<String, Alarm>, Fault> {
    let all = unless_damaged(rows.alarms())?.unwrap_or_default();
    Ok(all.into_iter().map(|(name, row)| (name.clone(), Alarm::of_row(name, row))).collect())
}
