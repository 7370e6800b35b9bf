//! The service of all queues: one memory, so that a move to a dead-letter queue is one decision and one commit.

use std::collections::{BTreeMap, VecDeque};

use conveyor_base::{Fault, Timestamp};
use conveyor_run::service::{Pending, Requester, Service, Turn};
use conveyor_store::{Commit, MessageRow, Scans, Stamp, unless_damaged};

use super::index::QueueIndex;
use super::{
    DEDUPLICATION_MS, Message, NewMessage, QueueSettings, Receipt, Received, Reply, Request, Sent, Visibility,
};

/// Rows read at once when a queue is taken up, and dropped in one commit.
const ROWS_PER_PAGE: usize = 500;
/// How often what is too old is thrown away.
const SWEEP_MS: i64 = 60_000;

pub(super) struct QueueService {
    queues: BTreeMap<String, Queue>,
    sweep_at: Timestamp,
}

struct Queue {
    settings: QueueSettings,
    index: QueueIndex,
    /// Rows that the disk does not have as they are.
    pending: Pending<u64, MessageRow>,
    /// Who waits for a message, the first first.
    receivers: VecDeque<Receiver>,
}

struct Receiver {
    most: usize,
    visibility_ms: i64,
    until: Timestamp,
    requester: Requester<Reply>,
}

enum Took {
    Received,
    /// Only what was received too often, which is in another queue now; there may be more behind it.
    Moved,
    Nothing,
}

type Deciding<'a> = Turn<'a, Message>;

impl QueueService {
    /// Takes up what the store holds.
    pub fn load(settings: &BTreeMap<String, QueueSettings>, store: &Scans) -> Result<QueueService, Fault> {
        let mut queues = BTreeMap::new();
        for (name, settings) in settings {
            let (mut index, mut from) = (QueueIndex::default(), 0);
            loop {
                // Behind what is damaged nobody can look until it is repaired; the box goes on.
                let rows = unless_damaged(store.messages(name, from, ROWS_PER_PAGE))?.unwrap_or_default();
                let Some((last, _)) = rows.last() else { break };
                from = last + 1;
                rows.iter().for_each(|(sequence, row)| index.put(*sequence, row));
            }
            let (pending, receivers) = (Pending::default(), VecDeque::new());
            queues.insert(name.clone(), Queue { settings: settings.clone(), index, pending, receivers });
        }
        Ok(QueueService { queues, sweep_at: Timestamp(0) })
    }
}

impl Service for QueueService {
    type Message = Message;

    fn handle(&mut self, turn: &mut Deciding<'_>, message: Message) {
        let Message { queue: name, request, requester } = message;
        let Some(queue) = self.queues.get_mut(&name) else { return turn.answer(requester, Reply::NoQueue) };
        queue.pending.forget(turn.durable());
        match request {
            Request::Send(messages) => queue.send(turn, &name, messages, requester),
            Request::Receive { most, visibility_ms, until } => {
                queue.receivers.push_back(Receiver { most, visibility_ms, until, requester });
            }
            Request::Delete(receipts) => queue.delete(turn, &name, &receipts, requester),
            Request::ChangeVisibility(changes) => queue.change_visibility(turn, &name, &changes, requester),
            Request::Purge => queue.purge(turn, &name, requester),
            Request::Count => turn.answer(requester, Reply::Counts(queue.index.counts(turn.now()))),
        }
        self.hand_out(turn, &name);
        self.set_alarm(turn);
    }

    fn wake(&mut self, turn: &mut Deciding<'_>) {
        if turn.now() >= self.sweep_at {
            self.sweep_at = turn.now().plus_ms(SWEEP_MS);
            self.sweep(turn);
        }
        let waited_for: Vec<String> =
            self.queues.iter().filter(|(_, q)| !q.receivers.is_empty()).map(|(name, _)| name.clone()).collect();
        for name in waited_for {
            self.hand_out(turn, &name);
        }
        self.set_alarm(turn);
    }
}

impl QueueService {
    /// Gives what is visible to who waits for it, and nothing to who has waited long enough.
    fn hand_out(&mut self, turn: &mut Deciding<'_>, name: &str) {
        loop {
            let Some(queue) = self.queues.get_mut(name) else { return };
            let Some(mut receiver) = queue.receivers.pop_front() else { return };
            if receiver.requester.has_hung_up() {
                continue;
            }
            match self.take(turn, name, &mut receiver) {
                Took::Received => continue,
                Took::Moved => {
                    if let Some(queue) = self.queues.get_mut(name) {
                        queue.receivers.push_front(receiver);
                    }
                    continue;
                }
                Took::Nothing => {}
            }
            if receiver.until <= turn.now() {
                turn.answer(receiver.requester, Reply::Received(Vec::new()));
                continue;
            }
            // Nothing is visible, for the others neither: they wait, but for those whose time is up.
            let Some(queue) = self.queues.get_mut(name) else { return };
            queue.receivers.push_front(receiver);
            let now = turn.now();
            let (done, waiting) = std::mem::take(&mut queue.receivers).into_iter().partition(|r| r.until <= now);
            queue.receivers = waiting;
            let done: VecDeque<Receiver> = done;
            for receiver in done {
                turn.answer(receiver.requester, Reply::Received(Vec::new()));
            }
            return;
        }
    }

    /// Gives the receiver what is visible. What was received too often moves to the dead-letter queue on the way.
    fn take(&mut self, turn: &mut Deciding<'_>, name: &str, receiver: &mut Receiver) -> Took {
        let Some(queue) = self.queues.get_mut(name) else { return Took::Nothing };
        let (now, mut commit) = (turn.now(), Commit::new());
        if receiver.most == 0 {
            if !queue.index.has_visible(now) {
                return Took::Nothing;
            }
            let requester = std::mem::replace(&mut receiver.requester, Requester::nobody());
            turn.answer(requester, Reply::Received(Vec::new()));
            return Took::Received;
        }
        let chosen = queue.index.choose(now, receiver.most);
        let until = now.plus_ms(receiver.visibility_ms);
        let (mut received, mut dead, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for (sequence, times) in chosen {
            let Some(mut row) = queue.row(turn, name, sequence) else {
                queue.index.remove(sequence);
                continue;
            };
            if let (Some(target), Some(most)) = (&queue.settings.dead_letter, queue.settings.max_receives)
                && times > most
            {
                commit.drop_message(name, sequence);
                rows.push((sequence, None));
                dead.push((target.clone(), row));
                continue;
            }
            row.visible_at = until.into();
            row.received = times;
            row.receipt = reception();
            if row.first_received_at == Stamp(0) {
                row.first_received_at = now.into();
            }
            commit.put_message(name, sequence, &row);
            rows.push((sequence, Some(row.clone())));
            received.push(Received { receipt: Receipt { sequence, reception: row.receipt }, row });
        }
        let dead_lettered = self.dead_letter(dead, now, &mut commit);
        if commit.is_empty() {
            return Took::Nothing;
        }
        let got_some = !received.is_empty();
        let requester = std::mem::replace(&mut receiver.requester, Requester::nobody());
        let number = match got_some {
            true => turn.settle(commit, requester, Reply::Received(received)),
            false => {
                receiver.requester = requester;
                Some(turn.commit(commit, || ()))
            }
        };
        // Of an attempt that is over, or that is to be ended again, nothing was handed out.
        if let Some(number) = number {
            if let Some(queue) = self.queues.get_mut(name) {
                for (sequence, row) in &rows {
                    match row {
                        Some(row) => queue.index.hand_out(*sequence, until, row.receipt),
                        None => drop(queue.index.remove(*sequence)),
                    }
                }
            }
            self.stored(number, name, rows);
            for (target, sequence, row) in dead_lettered {
                if let Some(queue) = self.queues.get_mut(&target) {
                    queue.index.put(sequence, &row);
                    queue.pending.put(number, sequence, Some(row));
                    self.hand_out_later(turn, &target);
                }
            }
        }
        if got_some { Took::Received } else { Took::Moved }
    }

    /// Who waits at another queue is seen to with the next turn: the one that is served now comes first.
    fn hand_out_later(&self, turn: &mut Deciding<'_>, name: &str) {
        if self.queues.get(name).is_some_and(|queue| !queue.receivers.is_empty()) {
            turn.wake_at(turn.now());
        }
    }

    fn stored(&mut self, commit: u64, name: &str, rows: Vec<(u64, Option<MessageRow>)>) {
        let Some(queue) = self.queues.get_mut(name) else { return };
        rows.into_iter().for_each(|(sequence, row)| queue.pending.put(commit, sequence, row));
    }

    /// Puts what was received too often into its dead-letter queue.
    fn dead_letter(
        &mut self,
        dead: Vec<(String, MessageRow)>,
        now: Timestamp,
        commit: &mut Commit,
    ) -> Vec<(String, u64, MessageRow)> {
        let mut dead_lettered = Vec::new();
        for (target, row) in dead {
            let Some(queue) = self.queues.get_mut(&target) else { continue };
            let sequence = queue.index.next_sequence(now);
            let row = MessageRow {
                visible_at: now.into(),
                received: 0,
                receipt: 0,
                first_received_at: Stamp(0),
                deduplication: String::new(),
                ..row
            };
            commit.put_message(&target, sequence, &row);
            dead_lettered.push((target, sequence, row));
        }
        dead_lettered
    }

    /// Throws away what is older than its queue keeps it, and the memory of copies.
    fn sweep(&mut self, turn: &mut Deciding<'_>) {
        for (name, queue) in &mut self.queues {
            queue.pending.forget(turn.durable());
            let keeps_ms = i64::try_from(queue.settings.retention().ms).unwrap_or(i64::MAX);
            let gone = queue.index.expired(turn.now(), keeps_ms);
            queue.drop_rows(turn, name, &gone);
        }
    }

    /// Wakes when the first hidden message that somebody waits for is visible, or somebody has waited long enough.
    fn set_alarm(&mut self, turn: &mut Deciding<'_>) {
        turn.wake_at(self.sweep_at);
        for queue in self.queues.values().filter(|queue| !queue.receivers.is_empty()) {
            let given_up = queue.receivers.iter().map(|receiver| receiver.until).min();
            if let Some(at) = queue.index.next_visible().into_iter().chain(given_up).min() {
                turn.wake_at(at);
            }
        }
    }
}

impl Queue {
    /// A message's row as it will be once all that was decided is durable.
    fn row(&self, turn: &mut Deciding<'_>, name: &str, sequence: u64) -> Option<MessageRow> {
        match self.pending.get(&sequence) {
            Some(row) => row.cloned(),
            None => turn.read(|reader| reader.message(name, sequence)).flatten(),
        }
    }

    fn send(&mut self, turn: &mut Deciding<'_>, name: &str, messages: Vec<NewMessage>, requester: Requester<Reply>) {
        let (now, mut commit) = (turn.now(), Commit::new());
        let (mut sent, mut new): (Vec<Sent>, Vec<(u64, MessageRow)>) = (Vec::new(), Vec::new());
        for message in messages {
            let copy = |(_, row): &&(u64, MessageRow)| {
                !message.deduplication.is_empty() && row.deduplication == message.deduplication
            };
            let earlier = new.iter().find(copy).map(|(sequence, row)| (*sequence, row.id.clone()));
            if let Some((sequence, id)) = earlier.or_else(|| self.index.copy_of(&message.deduplication, now)) {
                sent.push(Sent { id, sequence });
                continue;
            }
            let sequence = self.index.next_sequence(now);
            let row = self.new_row(message, now);
            commit.put_message(name, sequence, &row);
            sent.push(Sent { id: row.id.clone(), sequence });
            new.push((sequence, row));
        }
        if new.is_empty() {
            return turn.answer(requester, Reply::Sent(sent));
        }
        let Some(number) = turn.settle(commit, requester, Reply::Sent(sent)) else { return };
        for (sequence, row) in new {
            self.index.put(sequence, &row);
            self.pending.put(number, sequence, Some(row));
        }
    }

    fn new_row(&self, message: NewMessage, now: Timestamp) -> MessageRow {
        let delay_ms = message.delay_ms.unwrap_or_else(|| self.settings.delay_ms());
        MessageRow {
            id: uuid::Uuid::new_v4().to_string(),
            body: message.body,
            attributes: if message.attributes.is_null() { String::new() } else { message.attributes.to_string() },
            group: message.group,
            deduplication: message.deduplication,
            sent_at: now.into(),
            visible_at: now.plus_ms(delay_ms).into(),
            first_received_at: Stamp(0),
            received: 0,
            receipt: 0,
            deleted: false,
        }
    }

    fn delete(&mut self, turn: &mut Deciding<'_>, name: &str, receipts: &[Receipt], requester: Requester<Reply>) {
        let (now, mut commit, mut rows) = (turn.now(), Commit::new(), Vec::new());
        for Receipt { sequence, reception } in receipts {
            let Some(entry) = self.index.received(*sequence, *reception) else { continue };
            let is_remembered = now.since_ms(entry.sent_at) < DEDUPLICATION_MS;
            // A second copy that comes later must still be known as one.
            match self.row(turn, name, *sequence) {
                Some(row) if !row.deduplication.is_empty() && is_remembered => {
                    let ghost = MessageRow { body: String::new(), attributes: String::new(), deleted: true, ..row };
                    commit.put_message(name, *sequence, &ghost);
                    rows.push((*sequence, Some(ghost)));
                }
                _ => {
                    commit.drop_message(name, *sequence);
                    rows.push((*sequence, None));
                }
            }
        }
        if rows.is_empty() {
            return turn.answer(requester, Reply::Deleted);
        }
        let Some(number) = turn.settle(commit, requester, Reply::Deleted) else { return };
        for (sequence, row) in rows {
            self.index.remove(sequence);
            if let Some(ghost) = &row {
                self.index.put(sequence, ghost);
            }
            self.pending.put(number, sequence, row);
        }
    }

    fn change_visibility(
        &mut self,
        turn: &mut Deciding<'_>,
        name: &str,
        changes: &[(Receipt, i64)],
        requester: Requester<Reply>,
    ) {
        let (now, mut commit, mut rows, mut came) = (turn.now(), Commit::new(), Vec::new(), Vec::new());
        for (Receipt { sequence, reception }, visibility_ms) in changes {
            let at = now.plus_ms(*visibility_ms);
            if !self.index.is_in_flight(*sequence, *reception, now) {
                came.push(match self.index.knows(*sequence) {
                    true => Visibility::NotInFlight,
                    false => Visibility::Unknown,
                });
                continue;
            }
            came.push(Visibility::Changed);
            if let Some(mut row) = self.row(turn, name, *sequence) {
                row.visible_at = at.into();
                commit.put_message(name, *sequence, &row);
                rows.push((*sequence, *reception, at, row));
            }
        }
        if rows.is_empty() {
            return turn.answer(requester, Reply::Changed(came));
        }
        let Some(number) = turn.settle(commit, requester, Reply::Changed(came)) else { return };
        for (sequence, reception, at, row) in rows {
            self.index.hide(sequence, reception, now, at);
            self.pending.put(number, sequence, Some(row));
        }
    }

    /// However many messages there are, they go in the one commit that ends the Task or holds the audit entry: a Task that
    /// was issued again would take along what was sent after its first attempt.
    fn purge(&mut self, turn: &mut Deciding<'_>, name: &str, requester: Requester<Reply>) {
        let (gone, mut commit) = (self.index.sequences(), Commit::new());
        if gone.is_empty() {
            return turn.answer(requester, Reply::Purged);
        }
        for sequence in &gone {
            commit.drop_message(name, *sequence);
        }
        let Some(number) = turn.settle(commit, requester, Reply::Purged) else { return };
        self.index.clear();
        gone.iter().for_each(|sequence| self.pending.put(number, *sequence, None));
    }

    fn drop_rows(&mut self, turn: &mut Deciding<'_>, name: &str, gone: &[u64]) {
        for some in gone.chunks(ROWS_PER_PAGE) {
            let mut commit = Commit::new();
            for sequence in some {
                commit.drop_message(name, *sequence);
            }
            let number = turn.commit(commit, || ());
            some.iter().for_each(|sequence| self.pending.put(number, *sequence, None));
        }
    }
}

/// Tells one reception of a message from all others.
fn reception() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}
