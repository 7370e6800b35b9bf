//! The service of all alarms: looks, decides which are raised and cleared, and tells.

use std::collections::BTreeMap;

use conveyor_base::Fault;
use conveyor_run::service::{Service, Turn};
use conveyor_store::{Commit, Scans};
use serde_json::json;

use super::{Alarm, Alarms, Conditions, Looked, read};
use crate::notifications::Added;

/// From one look's end to the next.
const LOOK_EVERY_MS: i64 = 15_000;
/// The first time: what takes up its work again at a start shows then what is wrong with it.
const LOOK_AGAIN_MS: i64 = 2_000;

pub(super) struct AlarmService {
    settings: Alarms,
    /// All that were ever raised, by name.
    alarms: BTreeMap<String, Alarm>,
    looking: bool,
    has_looked: bool,
}

impl AlarmService {
    pub fn load(settings: &Alarms, rows: &Scans) -> Result<AlarmService, Fault> {
        Ok(AlarmService { settings: settings.clone(), alarms: read(rows)?, looking: false, has_looked: false })
    }

    fn saw(&mut self, turn: &mut Turn<'_, Looked>, conditions: &Conditions) {
        for name in conditions.keys().filter(|name| !self.alarms.contains_key(*name)).cloned().collect::<Vec<_>>() {
            self.alarms.insert(name.clone(), Alarm { name, ..Alarm::default() });
        }
        let (now, mut commit, mut told) = (turn.now(), Commit::new(), Added::default());
        for (name, alarm) in &mut self.alarms {
            if !alarm.seen(conditions.get(name), now) {
                continue;
            }
            let event = if alarm.raised { "alarm.raised" } else { "alarm.cleared" };
            tracing::warn!(alarm = name, reason = alarm.reason, "{event}");
            commit.put_alarm(name, &alarm.row());
            let id = uuid::Uuid::new_v4().to_string();
            let body =
                json!({"event": event, "alarm": name, "reason": alarm.reason, "id": id, "at": turn.wall().to_string()});
            told.append(self.settings.notifications.put(&turn.handle(), &body, &mut commit));
        }
        if !commit.is_empty() {
            let notifications = self.settings.notifications.clone();
            turn.commit(commit, move || notifications.stored(told));
        }
    }
}

impl Service for AlarmService {
    type Message = Looked;

    fn handle(&mut self, turn: &mut Turn<'_, Looked>, Looked(conditions): Looked) {
        self.looking = false;
        if let Some(conditions) = conditions {
            self.saw(turn, &conditions);
        }
        let pause_ms = if std::mem::replace(&mut self.has_looked, true) { LOOK_EVERY_MS } else { LOOK_AGAIN_MS };
        turn.wake_at(turn.now().plus_ms(pause_ms));
    }

    fn wake(&mut self, turn: &mut Turn<'_, Looked>) {
        if std::mem::replace(&mut self.looking, true) {
            return;
        }
        let look = self.settings.look.clone();
        // A share whose server is gone holds a look for seconds.
        let looked = async move { Looked(tokio::task::spawn_blocking(move || look()).await.ok()) };
        turn.act(looked, |_| Looked(None));
    }
}
