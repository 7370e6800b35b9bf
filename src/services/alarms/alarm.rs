//! One alarm: when it is raised and cleared. Pure.

use conveyor_base::{BoxClock, Timestamp};
use conveyor_store::{AlarmChangeRow, AlarmRow, Stamp};
use serde::Serialize;

const HISTORY_MAX: usize = 50;

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
    pub fn of_row(name: String, row: AlarmRow) -> Alarm {
        let change = |row: AlarmChangeRow| Change { at: row.at.0, raised: row.raised, reason: row.reason };
        let history = row.history.into_iter().map(change).collect();
        Alarm { name, raised: row.raised, reason: row.reason, since: row.since.0, history }
    }

    /// The same with its dates as the wall clock shows them; they are kept by the box's own time.
    pub fn shown(mut self, clock: &BoxClock) -> Alarm {
        let shown = |at: i64| clock.shown(Timestamp(at)).0;
        self.since = shown(self.since);
        self.history.iter_mut().for_each(|change| change.at = shown(change.at));
        self
    }

    pub fn row(&self) -> AlarmRow {
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

    /// Takes note of a look; whether it is raised or cleared by it. `condition`: why, where it holds.
    pub fn seen(&mut self, condition: Option<&String>, now: Timestamp) -> bool {
        let raised = condition.is_some();
        if raised == self.raised {
            return false;
        }
        self.raised = raised;
        self.since = now.0;
        if let Some(reason) = condition {
            self.reason = reason.clone();
        }
        self.history.insert(0, Change { at: now.0, raised, reason: self.reason.clone() });
        self.history.truncate(HISTORY_MAX);
        true
    }
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
