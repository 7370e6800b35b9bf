//! The service of all notifications: the order of each target, and what was delivered lately.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use conveyor_base::Fault;
use conveyor_run::service::{Requester, Service, Turn};
use conveyor_store::{Commit, DeliveredRow, OutboxRow, Scans, unless_damaged};
use serde_json::Value;

use super::deliver::Deliverer;
use super::order::TargetOrder;
use super::{Added, Message, Notifications};

/// How many delivered ones are kept for people to look at.
const DELIVERED_MAX: usize = 200;
/// Rows read at once when they are taken up.
const ROWS_PER_PAGE: usize = 200;

pub(super) struct NotificationService {
    notifications: Notifications,
    deliverer: Arc<Deliverer>,
    targets: BTreeMap<String, TargetOrder>,
    /// Numbers of those that are kept.
    delivered: BTreeSet<u64>,
}

type Deciding<'a> = Turn<'a, Message>;

impl NotificationService {
    /// Takes up what the store holds.
    pub fn load(
        notifications: &Notifications,
        deliverer: &Arc<Deliverer>,
        store: &Scans,
    ) -> Result<NotificationService, Fault> {
        let mut targets: BTreeMap<String, TargetOrder> = BTreeMap::new();
        let mut after = None;
        loop {
            // Behind what is damaged nobody can look until it is repaired; the box goes on.
            let rows = unless_damaged(store.outbox(after, ROWS_PER_PAGE))?.unwrap_or_default();
            let Some((last, _)) = rows.last() else { break };
            after = Some(*last);
            for (number, row) in rows {
                let order = targets.entry(row.target).or_default();
                order.add(number, row.next_at.into(), row.attempts, &row.last_error);
            }
        }
        let delivered = unless_damaged(store.delivered(2 * DELIVERED_MAX))?.unwrap_or_default();
        let delivered = delivered.into_iter().map(|(number, _)| number).collect();
        let (notifications, deliverer) = (notifications.clone(), deliverer.clone());
        Ok(NotificationService { notifications, deliverer, targets, delivered })
    }
}

impl Service for NotificationService {
    type Message = Message;

    fn handle(&mut self, turn: &mut Deciding<'_>, message: Message) {
        match message {
            Message::Publish { bodies, requester } => self.publish(turn, &bodies, requester),
            Message::Stored => {}
            Message::Tried { target, number, delivery, outcome } => {
                self.tried(turn, &target, number, delivery, outcome);
            }
        }
        self.deliver(turn);
    }

    fn wake(&mut self, turn: &mut Deciding<'_>) {
        self.deliver(turn);
    }
}

impl NotificationService {
    fn publish(&self, turn: &mut Deciding<'_>, bodies: &[Value], requester: Requester<()>) {
        let (handle, mut commit, mut added) = (turn.handle(), Commit::new(), Added::default());
        bodies.iter().for_each(|body| added.append(self.notifications.put(&handle, body, &mut commit)));
        if commit.is_empty() {
            return turn.answer(requester, ());
        }
        if turn.settle(commit, requester, ()).is_some() {
            // Nobody is told of what is not stored.
            let notifications = self.notifications.clone();
            turn.after_all(move || notifications.stored(added));
        }
    }

    /// Begins what is due, and asks to be woken for what is not.
    fn deliver(&mut self, turn: &mut Deciding<'_>) {
        for (target, number) in self.notifications.take_stored().into_iter().flat_map(|added| added.0) {
            self.targets.entry(target.to_owned()).or_default().add(number, turn.now(), 0, "");
        }
        for (target, order) in &mut self.targets {
            while let Some(number) = order.next(turn.now()) {
                let Some(row) = turn.read(|reader| reader.notification(number)).flatten() else {
                    order.forget(number);
                    continue;
                };
                let delivery = uuid::Uuid::new_v4().as_u64_pair().0;
                order.begin(number, delivery);
                let tried = {
                    let target = target.clone();
                    move |outcome| Message::Tried { target, number, delivery, outcome }
                };
                let (broken, deliverer) = (tried.clone(), self.deliverer.clone());
                let work = async move { tried(deliverer.deliver(&row).await) };
                turn.act(work, move |what| broken(Err(format!("the delivery broke off: {what}"))));
            }
            if let Some(due) = order.next_due() {
                turn.wake_at(due);
            }
        }
    }

    fn tried(
        &mut self,
        turn: &mut Deciding<'_>,
        target: &str,
        number: u64,
        delivery: u64,
        outcome: Result<(), String>,
    ) {
        let Some(order) = self.targets.get_mut(target) else { return };
        // One that is not under way is of a former life of this service, which has begun it again.
        if !order.end(number, delivery) {
            return;
        }
        let Some(mut row) = turn.read(|reader| reader.notification(number)).flatten() else {
            return order.forget(number);
        };
        row.attempts = order.attempts(number);
        let mut commit = Commit::new();
        match outcome {
            Ok(()) => {
                order.forget(number);
                commit.drop_outbox(number);
                self.note_delivered(turn, number, row, &mut commit);
            }
            Err(error) => {
                let again = order.failed(number, turn.now(), &error);
                let attempts = again.attempts;
                tracing::warn!(target_name = target, attempts, error, "a notification was not delivered; trying again");
                let row = OutboxRow { attempts, next_at: again.at.into(), last_error: error, ..row };
                commit.put_outbox(number, &row);
            }
        }
        turn.commit(commit, || ());
    }

    /// The oldest makes room.
    fn note_delivered(&mut self, turn: &Deciding<'_>, number: u64, row: OutboxRow, commit: &mut Commit) {
        let delivered = DeliveredRow {
            target: row.target,
            body: row.body,
            created_at: turn.handle().clock().shown(row.created_at.into()).into(),
            delivered_at: turn.wall().into(),
            attempts: row.attempts + 1,
        };
        commit.put_delivered(number, &delivered);
        self.delivered.insert(number);
        while self.delivered.len() > DELIVERED_MAX {
            let Some(oldest) = self.delivered.pop_first() else { return };
            commit.delete_delivered(oldest);
        }
    }
}
