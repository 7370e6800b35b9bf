//! Alarms: conditions of the box that a person must hear of, looked at again and again.
//!
//! ```text
//! look() ──▶ what is wrong now, by name ──▶ changed? ──▶ row (with its history) and a notification, in one commit
//! ```
//!
//! Invariants: an alarm is a row before anybody hears of it, so that a restart raises nothing twice; its history keeps
//! the newest changes only; a look never holds up anything else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use crate::base::{Fault, Timestamp};
use crate::run::Handle;
use crate::services::notifications::{Added, Notifications};
use crate::store::{AlarmChangeRow, AlarmRow, Commit, Stamp};

const LOOK_EVERY: Duration = Duration::from_secs(15);
const HISTORY_MAX: usize = 50;

/// What is wrong now: the alarm's name and why, in a sentence that says what to do.
pub type Wrongs = BTreeMap<String, String>;

/// An alarm as it is kept and shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Alarm {
    pub name: String,
    pub raised: bool,
    /// Why it is raised, or was last.
    pub reason: String,
    pub since: i64,
    /// Newest first.
    pub history: Vec<Change>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    pub at: i64,
    pub raised: bool,
    pub reason: String,
}

impl Alarm {
    fn of_row(name: String, row: AlarmRow) -> Alarm {
        let change = |row: AlarmChangeRow| Change { at: row.at.0, raised: row.raised, reason: row.reason };
        let history = row.history.into_iter().map(change).collect();
        Alarm { name, raised: row.raised, reason: row.reason, since: row.since.0, history }
    }

    fn row(&self) -> AlarmRow {
        let change = |change: &Change| AlarmChangeRow {
            at: Stamp(change.at),
            raised: change.raised,
            reason: change.reason.clone(),
        };
        AlarmRow {
            raised: self.raised,
            reason: self.reason.clone(),
            since: Stamp(self.since),
            history: self.history.iter().map(change).collect(),
        }
    }

    /// Takes note of a look; whether it is raised or cleared by it.
    fn seen(&mut self, wrong: Option<&String>, now: Timestamp) -> bool {
        let raised = wrong.is_some();
        if raised == self.raised {
            return false;
        }
        self.raised = raised;
        self.since = now.0;
        if let Some(reason) = wrong {
            self.reason = reason.clone();
        }
        self.history.insert(0, Change { at: now.0, raised, reason: self.reason.clone() });
        self.history.truncate(HISTORY_MAX);
        true
    }
}

/// Looks, keeps and tells.
pub struct Alarms {
    handle: Handle,
    look: Arc<dyn Fn() -> Wrongs + Send + Sync>,
    notifications: Notifications,
}

impl Alarms {
    pub fn new(handle: Handle, look: Arc<dyn Fn() -> Wrongs + Send + Sync>, notifications: Notifications) -> Alarms {
        Alarms { handle, look, notifications }
    }

    /// Runs until it is dropped; ends by itself only where the store does.
    pub async fn run(self) -> Result<(), Fault> {
        loop {
            let look = self.look.clone();
            // A share whose server is gone holds a look for seconds.
            if let Ok(wrongs) = tokio::task::spawn_blocking(move || look()).await {
                self.settle(&wrongs).await?;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn settle(&self, wrongs: &Wrongs) -> Result<(), Fault> {
        let now = self.handle.now();
        let mut commit = Commit::new();
        let mut known = read(self.handle.reader())?;
        for name in wrongs.keys() {
            known.entry(name.clone()).or_insert_with(|| Alarm { name: name.clone(), ..Alarm::default() });
        }
        let mut told = Added::default();
        for (name, alarm) in &mut known {
            if !alarm.seen(wrongs.get(name), now) {
                continue;
            }
            let event = if alarm.raised { "alarm.raised" } else { "alarm.cleared" };
            tracing::warn!(alarm = name, reason = alarm.reason, "{event}");
            commit.put_alarm(name, &alarm.row());
            let id = uuid::Uuid::new_v4().to_string();
            let body = json!({"event": event, "alarm": name, "reason": alarm.reason, "id": id, "at": now.to_string()});
            told.append(self.notifications.put(&self.handle, &body, &mut commit));
        }
        if !commit.is_empty() {
            self.handle.commit(commit).await?;
        }
        self.notifications.stored(told);
        Ok(())
    }
}

/// All alarms that were ever raised, by name.
pub fn read(reader: &crate::store::Reader) -> Result<BTreeMap<String, Alarm>, Fault> {
    Ok(reader.alarms()?.into_iter().map(|(name, row)| (name.clone(), Alarm::of_row(name, row))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_changes_once_and_keeps_its_reason() {
        let mut alarm = Alarm { name: "share incoming".into(), ..Alarm::default() };
        let away = "it is away".to_owned();
        assert!(!alarm.seen(None, Timestamp(1)));
        assert!(alarm.seen(Some(&away), Timestamp(2)));
        assert!(!alarm.seen(Some(&away), Timestamp(3)));
        assert!(alarm.seen(None, Timestamp(4)));
        assert_eq!((alarm.raised, alarm.since, alarm.reason.as_str()), (false, 4, "it is away"));
        for at in 5..500 {
            alarm.seen((at % 2 == 1).then_some(&away), Timestamp(at));
        }
        assert_eq!((alarm.history.len(), alarm.history[0].at), (HISTORY_MAX, 499));
    }
}
