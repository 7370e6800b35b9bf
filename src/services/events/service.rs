//! The event dispatcher: the workers of all targets in one memory, and what becomes of each delivery.

use std::collections::BTreeMap;
use std::sync::Arc;

use conveyor_base::{Fault, Timestamp};
use conveyor_run::Announced;
use conveyor_run::service::{Requester, Service, Turn};
use conveyor_store::{Commit, EventRow, Scans, unless_damaged};

use super::backlog::{Backlog, Failure, Verdict, judge, pause_ms};
use super::bus::UNATTENDED;
use super::deliver::{Deliverer, Delivery, End};
use super::rules::{Rule, Target};
use super::{Events, Message, Undelivered};
use crate::notifications::Notifications;

/// Rows read at once when they are taken up.
const ROWS_PER_PAGE: usize = 500;
/// Before all dates that there are.
const LONG_AGO_MS: i64 = 1 << 60;

pub(super) struct Dispatcher {
    events: Events,
    notifications: Notifications,
    deliverer: Arc<Deliverer>,
    /// By the targets' keys.
    workers: BTreeMap<String, TargetWorker>,
}

/// A target with what waits for it.
struct TargetWorker {
    rule: Arc<str>,
    target: Arc<Target>,
    backlog: Backlog,
}

type Deciding<'a> = Turn<'a, Message>;

impl Dispatcher {
    /// Takes up what the store holds.
    pub fn load(
        events: &Events,
        notifications: &Notifications,
        deliverer: &Arc<Deliverer>,
        store: &Scans,
    ) -> Result<Dispatcher, Fault> {
        let mut workers = BTreeMap::new();
        let unattended = Rule::unattended(UNATTENDED);
        for rule in events.0.bus.rules().iter().chain([&unattended]) {
            for target in &rule.targets {
                let (rule, backlog) = (Arc::from(rule.name.as_str()), Backlog::default());
                workers.insert(target.key.clone(), TargetWorker { rule, target: Arc::new(target.clone()), backlog });
            }
        }
        let (mut after, mut lost) = (None, 0u64);
        loop {
            // Behind what is damaged nobody can look until it is repaired; the box goes on.
            let rows = unless_damaged(store.events(after.as_ref(), ROWS_PER_PAGE))?.unwrap_or_default();
            let Some((last, _)) = rows.last() else { break };
            after = Some(last.clone());
            for ((event, target), row) in rows {
                match workers.get_mut(&target) {
                    Some(worker) => worker.backlog.add(event, due(&row), row.attempts),
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
        let (events, notifications, deliverer) = (events.clone(), notifications.clone(), deliverer.clone());
        Ok(Dispatcher { events, notifications, deliverer, workers })
    }
}

impl Service for Dispatcher {
    type Message = Message;

    fn handle(&mut self, turn: &mut Deciding<'_>, message: Message) {
        match message {
            Message::Put { rows, requester } => self.put(turn, rows, requester),
            Message::Stored => self.take_up_stored(turn),
            Message::Ended { target, event, delivery, end } => {
                if let Some(worker) = self.workers.get_mut(&target)
                    // One that is not under way is of a former life of this service, which has begun it again.
                    && let Some(attempts) = worker.backlog.end(&event, delivery)
                {
                    worker.ended(turn, &self.notifications, &self.deliverer, Tried { event, attempts, end });
                    worker.deliver(turn, &self.deliverer);
                }
            }
        }
    }

    fn wake(&mut self, turn: &mut Deciding<'_>) {
        self.take_up_stored(turn);
        self.workers.values_mut().for_each(|worker| worker.deliver(turn, &self.deliverer));
    }
}

impl Dispatcher {
    fn put(&self, turn: &mut Deciding<'_>, rows: Vec<Undelivered>, requester: Requester<()>) {
        let mut commit = Commit::new();
        let announced: Vec<Announced> = rows.into_iter().map(|new| new.put(&mut commit)).collect();
        if announced.is_empty() {
            return turn.answer(requester, ());
        }
        if turn.settle(commit, requester, ()).is_some() {
            // Nothing is delivered that is not stored.
            let events = self.events.clone();
            turn.after_all(move || events.stored(announced));
        }
    }

    fn take_up_stored(&mut self, turn: &mut Deciding<'_>) {
        let mut touched = std::collections::BTreeSet::new();
        for (event, target) in self.events.take_stored() {
            if let Some(worker) = self.workers.get_mut(&target) {
                worker.backlog.add(event, turn.now(), 0);
                touched.insert(target);
            }
        }
        for target in touched {
            if let Some(worker) = self.workers.get_mut(&target) {
                worker.deliver(turn, &self.deliverer);
            }
        }
    }
}

/// When a stored event is to be delivered. One that was never tried is due at once and in its place, by whichever clock it is
/// dated: what tells of executions goes by the wall clock.
fn due(row: &EventRow) -> Timestamp {
    let at = Timestamp::from(row.next_at);
    if row.attempts == 0 { at.plus_ms(-LONG_AGO_MS) } else { at }
}

/// What came of an event that was under way.
struct Tried {
    event: String,
    /// Failures before this one.
    attempts: u32,
    end: End,
}

impl TargetWorker {
    /// Begins what is due, and asks to be woken for what is not.
    fn deliver(&mut self, turn: &mut Deciding<'_>, deliverer: &Arc<Deliverer>) {
        while let Some(due) = self.backlog.next(turn.now()) {
            let Some(row) = self.row(turn, &due.event, due.attempts) else {
                self.backlog.forget(&due.event);
                continue;
            };
            match due.given_up {
                Some(why) => self.dead_letter(turn, deliverer, due.event, row, why),
                None => {
                    let delivery = self.delivery(&due.event, row);
                    let broken = |what| End::Failed(Failure::transient(format!("the delivery broke off: {what}")));
                    let deliverer = deliverer.clone();
                    self.act(turn, due.event, due.attempts, async move { deliverer.deliver(&delivery).await }, broken);
                }
            }
        }
        if let Some(due) = self.backlog.next_due() {
            turn.wake_at(due);
        }
    }

    fn act(
        &mut self,
        turn: &mut Deciding<'_>,
        event: String,
        attempts: u32,
        work: impl Future<Output = End> + Send + 'static,
        broken: impl FnOnce(String) -> End + Send + 'static,
    ) {
        let delivery = uuid::Uuid::new_v4().as_u64_pair().0;
        self.backlog.begin(&event, attempts, delivery);
        let target = self.target.key.clone();
        let ended = move |end| Message::Ended { target, event, delivery, end };
        let of_broken = ended.clone();
        turn.act(async move { ended(work.await) }, move |what| of_broken(broken(what)));
    }

    fn delivery(&self, event: &str, row: EventRow) -> Delivery {
        Delivery { rule: self.rule.clone(), target: self.target.clone(), event: event.to_owned(), row }
    }

    /// An event's row, with what is known of its tries.
    fn row(&self, turn: &mut Deciding<'_>, event: &str, attempts: u32) -> Option<EventRow> {
        let row = turn.read(|reader| reader.event(event, &self.target.key)).flatten()?;
        Some(EventRow { attempts, ..row })
    }

    fn ended(
        &mut self,
        turn: &mut Deciding<'_>,
        notifications: &Notifications,
        deliverer: &Arc<Deliverer>,
        Tried { event, attempts, end }: Tried,
    ) {
        let mut commit = Commit::new();
        match end {
            End::Delivered { settled } => {
                if !settled {
                    commit.drop_event(&event, &self.target.key);
                    turn.commit(commit, || ());
                }
                self.backlog.forget(&event);
                self.note_delivered();
            }
            End::Publish(body) => {
                let added = notifications.put(&turn.handle(), &body, &mut commit);
                commit.drop_event(&event, &self.target.key);
                let notifications = notifications.clone();
                turn.commit(commit, move || notifications.stored(added));
                self.backlog.forget(&event);
                self.note_delivered();
            }
            End::Buried { settled } => {
                if !settled {
                    commit.drop_event(&event, &self.target.key);
                    turn.commit(commit, || ());
                }
                self.backlog.forget(&event);
            }
            End::NotBuried { why, what } => {
                tracing::warn!(
                    rule = &*self.rule,
                    target_id = self.target.key,
                    event,
                    dead_letter = self.target.dead_letter,
                    error = what,
                    "the dead-letter queue did not take an event; trying again"
                );
                self.backlog.later(event, attempts, turn.now().plus_ms(pause_ms(1, spread())), Some(why));
            }
            End::Failed(failure) => self.failed(turn, deliverer, event, attempts, failure),
        }
    }

    fn failed(
        &mut self,
        turn: &mut Deciding<'_>,
        deliverer: &Arc<Deliverer>,
        event: String,
        attempts: u32,
        failure: Failure,
    ) {
        let Some(row) = self.row(turn, &event, attempts) else { return self.backlog.forget(&event) };
        let (rule, target) = (&*self.rule, &self.target);
        // Of events that others date by the wall clock too, no clock alone may say that they are old.
        let age_ms = turn.now().min(turn.wall()).since_ms(row.created_at.into());
        match judge(target, age_ms, attempts, &failure, turn.now(), spread()) {
            Verdict::Again { attempts, at } => {
                tracing::warn!(
                    rule,
                    target_id = target.key,
                    event,
                    attempts,
                    error = failure.what,
                    "an event was not delivered; trying again"
                );
                let mut commit = Commit::new();
                let row = EventRow { attempts, next_at: at.into(), last_error: failure.what, ..row };
                commit.put_event(&event, &target.key, &row);
                turn.commit(commit, || ());
                self.backlog.later(event, attempts, at, None);
            }
            Verdict::GivenUp { attempts } => {
                tracing::error!(
                    rule,
                    target_id = target.key,
                    event,
                    attempts,
                    error = failure.what,
                    dead_letter = target.dead_letter,
                    "an event was given up"
                );
                metrics::counter!("conveyor_events_given_up_total", "rule" => rule.to_owned()).increment(1);
                let row = EventRow { attempts, ..row };
                self.dead_letter(turn, deliverer, event, row, failure.what);
            }
        }
    }

    /// Puts what was given up into the dead-letter queue, or drops it where there is none.
    fn dead_letter(
        &mut self,
        turn: &mut Deciding<'_>,
        deliverer: &Arc<Deliverer>,
        event: String,
        row: EventRow,
        why: String,
    ) {
        let Some(queue) = self.target.dead_letter.clone() else {
            let mut commit = Commit::new();
            commit.drop_event(&event, &self.target.key);
            turn.commit(commit, || ());
            return self.backlog.forget(&event);
        };
        let attempts = row.attempts;
        let (delivery, deliverer, of_broken) = (self.delivery(&event, row), deliverer.clone(), why.clone());
        let broken = |what| End::NotBuried { why: of_broken, what };
        self.act(turn, event, attempts, async move { deliverer.dead_letter(&delivery, &queue, why).await }, broken);
    }

    fn note_delivered(&self) {
        metrics::counter!("conveyor_events_delivered_total", "rule" => self.rule.to_string()).increment(1);
    }
}

fn spread() -> u32 {
    uuid::Uuid::new_v4().as_fields().0
}
