//! Queues: SQS on the box's own store, for workflows and for workers outside.
//!
//! ```text
//!            send                 receive                delete
//!  (sender) ─────▶ visible ─────────────────▶ in flight ───────▶ gone
//!             delay │   ▲                        │
//!                   ▼   └──── time-out ──────────┤
//!                 delayed                        └─ received too often ─▶ dead-letter queue
//! ```
//!
//! Invariants: what was acknowledged (a message sent, received, deleted) is stored; bodies live in the store only, in
//! memory a message is a few numbers; of a FIFO queue's group one receiver at most has messages. What is in memory
//! may run ahead of the store by a commit, but nobody is told so before the commit: after a crash the store counts.

mod api;
mod message;
mod settings;
mod shelf;
mod task;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

pub use api::{Refusal, call, operation};
pub use settings::QueueSettings;
pub use task::{NAMES, adapter};

use super::aws;
use crate::base::{Fault, Timestamp};
use crate::run::Handle;
use crate::store::{Commit, MessageRow, Reader, Stamp};
use message::md5_hex;
use shelf::Shelf;

/// Rows read at once when a queue is taken up.
const ROWS_PER_PAGE: usize = 500;
/// How long a second copy of a message is known as one.
const DEDUPLICATION_MS: i64 = 300_000;
/// How often what is too old is thrown away.
const SWEEP: Duration = Duration::from_secs(60);
/// Begins the deduplication id of what a Task sent: the same attempt sends once, however often it is issued.
const BY_TASK: &str = "task:";

/// The queues of this box.
pub struct Queues {
    queues: BTreeMap<String, Queue>,
    account: String,
    region: String,
    /// `http://127.0.0.1:8080`, once it is known.
    address: OnceLock<String>,
}

struct Queue {
    settings: QueueSettings,
    shelf: parking_lot::Mutex<Shelf>,
    /// Held while a message that has a second copy somewhere may be sent, so that both are not taken for the first.
    sending: tokio::sync::Mutex<()>,
    /// Told when something became visible.
    arrived: Notify,
}

/// A message to be sent.
#[derive(Clone, Debug, Default)]
pub struct NewMessage {
    pub body: String,
    /// As the API has them; `Null` for none.
    pub attributes: Value,
    pub delay_ms: Option<i64>,
    pub group: String,
    pub deduplication: String,
    /// Makes the id: the same on a second run.
    pub seed: Option<String>,
}

/// A message that was sent.
pub struct Sent {
    pub id: String,
    pub sequence: u64,
}

/// A message in the receiver's hands.
pub struct Received {
    pub row: MessageRow,
    pub sequence: u64,
    pub handle: String,
}

impl Queues {
    /// Takes up what the store holds.
    pub fn open(
        configured: &BTreeMap<String, QueueSettings>,
        account: &str,
        region: &str,
        reader: &Reader,
    ) -> Result<Queues, Fault> {
        let queue = |settings: &QueueSettings| Queue {
            settings: settings.clone(),
            shelf: parking_lot::Mutex::default(),
            sending: tokio::sync::Mutex::default(),
            arrived: Notify::new(),
        };
        let queues = configured.iter().map(|(name, settings)| (name.clone(), queue(settings))).collect();
        let (account, region) = (account.to_owned(), region.to_owned());
        let queues = Queues { queues, account, region, address: OnceLock::new() };
        queues.load(reader)?;
        Ok(queues)
    }

    fn load(&self, reader: &Reader) -> Result<(), Fault> {
        for (name, queue) in &self.queues {
            let mut from = 0;
            loop {
                let rows = reader.messages(name, from, ROWS_PER_PAGE)?;
                let Some((last, _)) = rows.last() else { break };
                from = last + 1;
                let mut shelf = queue.shelf.lock();
                rows.iter().for_each(|(sequence, row)| shelf.put(*sequence, row));
            }
        }
        Ok(())
    }

    /// Where the box is reached: stands in the queues' URLs.
    pub fn served_at(&self, address: &str) {
        // Set once; a second call tells nothing new.
        let _ = self.address.set(address.trim_end_matches('/').to_owned());
    }

    /// `queue`: a URL, an ARN or a name.
    pub fn has(&self, queue: &str) -> bool {
        self.queues.contains_key(name_of(queue))
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.queues.keys().map(String::as_str)
    }

    pub fn url(&self, name: &str) -> String {
        let address = self.address.get().map_or("http://127.0.0.1:8080", String::as_str);
        format!("{address}/{}/{name}", self.account)
    }

    pub fn arn(&self, name: &str) -> String {
        format!("arn:aws:sqs:{}:{}:{name}", self.region, self.account)
    }

    /// Sends one message; a second copy is the first again.
    pub async fn send(&self, handle: &Handle, queue: &str, message: NewMessage) -> Result<Sent, Fault> {
        let sent = self.send_all(handle, queue, vec![message]).await?;
        sent.into_iter().next().ok_or_else(|| Fault::fatal_plain("a message was sent to no queue"))
    }

    /// Sends messages to one queue, in order and in one commit.
    async fn send_all(&self, handle: &Handle, name: &str, messages: Vec<NewMessage>) -> Result<Vec<Sent>, Fault> {
        let name = name_of(name);
        let unknown = || Fault::Retryable { what: format!("there is no queue '{name}'"), source: None };
        let queue = self.queues.get(name).ok_or_else(unknown)?;
        let _held = match messages.iter().any(|message| !message.deduplication.is_empty()) {
            true => Some(queue.sending.lock().await),
            false => None,
        };
        let (now, mut commit) = (handle.now(), Commit::new());
        let (mut sent, mut new) = (Vec::new(), Vec::new());
        for message in messages {
            let mut shelf = queue.shelf.lock();
            if let Some(first) = shelf.copy_of(&message.deduplication, now) {
                sent.push(Sent { id: first.1, sequence: first.0 });
                continue;
            }
            let sequence = shelf.next_sequence(now);
            let row = queue.row(message, now);
            shelf.remember(sequence, &row);
            commit.put_message(name, sequence, &row);
            sent.push(Sent { id: row.id.clone(), sequence });
            new.push((sequence, row));
        }
        if !commit.is_empty() {
            if let Err(fault) = handle.commit(commit).await {
                let mut shelf = queue.shelf.lock();
                new.iter().for_each(|(_, row)| shelf.forget_copy(&row.deduplication));
                return Err(fault);
            }
            let mut shelf = queue.shelf.lock();
            new.iter().for_each(|(sequence, row)| shelf.put(*sequence, row));
            drop(shelf);
            queue.arrived.notify_waiters();
        }
        Ok(sent)
    }

    /// At most `most` messages, waiting for the first one up to `wait`.
    async fn receive(
        &self,
        handle: &Handle,
        name: &str,
        most: usize,
        visibility_ms: i64,
        wait: Duration,
    ) -> Result<Vec<Received>, Fault> {
        let Some(queue) = self.queues.get(name) else { return Ok(Vec::new()) };
        let until = Instant::now() + wait;
        loop {
            let arrived = queue.arrived.notified();
            tokio::pin!(arrived);
            // From here on nothing that arrives goes unnoticed.
            arrived.as_mut().enable();
            let received = self.take(handle, name, queue, most, visibility_ms).await?;
            if !received.is_empty() || Instant::now() >= until {
                return Ok(received);
            }
            let next = queue.shelf.lock().next_visible().map_or(i64::MAX, |at| at.since_ms(handle.now()).max(1));
            let next = Instant::now() + Duration::from_millis(next.clamp(1, 60_000) as u64);
            tokio::select! {
                () = &mut arrived => {}
                () = tokio::time::sleep_until(next.min(until)) => {}
            }
        }
    }

    async fn take(
        &self,
        handle: &Handle,
        name: &str,
        queue: &Queue,
        most: usize,
        visibility_ms: i64,
    ) -> Result<Vec<Received>, Fault> {
        let now = handle.now();
        let taken = queue.shelf.lock().take(now, most, visibility_ms);
        let (mut commit, mut received, mut dead) = (Commit::new(), Vec::new(), Vec::new());
        for taken in taken {
            let Some(mut row) = handle.reader().message(name, taken.sequence)? else {
                queue.shelf.lock().remove(taken.sequence);
                continue;
            };
            if let (Some(target), Some(most)) = (&queue.settings.dead_letter, queue.settings.max_receives)
                && taken.received > most
            {
                queue.shelf.lock().remove(taken.sequence);
                commit.drop_message(name, taken.sequence);
                dead.push((target.clone(), row));
                continue;
            }
            row.visible_at = now.plus_ms(visibility_ms).into();
            row.received = taken.received;
            row.receipt = taken.receipt;
            if row.first_received_at == Stamp(0) {
                row.first_received_at = now.into();
            }
            commit.put_message(name, taken.sequence, &row);
            let receipt = receipt_handle(taken.sequence, taken.receipt);
            received.push(Received { row, sequence: taken.sequence, handle: receipt });
        }
        let buried = self.bury(dead, now, &mut commit);
        if !commit.is_empty() {
            handle.commit(commit).await?;
            for (target, sequence, row) in buried {
                if let Some(queue) = self.queues.get(&target) {
                    queue.shelf.lock().put(sequence, &row);
                    queue.arrived.notify_waiters();
                }
            }
        }
        Ok(received)
    }

    /// Puts what was received too often into its dead-letter queue.
    fn bury(
        &self,
        dead: Vec<(String, MessageRow)>,
        now: Timestamp,
        commit: &mut Commit,
    ) -> Vec<(String, u64, MessageRow)> {
        let mut buried = Vec::new();
        for (target, row) in dead {
            let Some(queue) = self.queues.get(&target) else { continue };
            let sequence = queue.shelf.lock().next_sequence(now);
            let row = MessageRow {
                visible_at: now.into(),
                received: 0,
                receipt: 0,
                first_received_at: Stamp(0),
                deduplication: String::new(),
                ..row
            };
            commit.put_message(&target, sequence, &row);
            buried.push((target, sequence, row));
        }
        buried
    }

    /// Deletes what a receipt handle stands for. An old handle deletes nothing, and that is no error.
    async fn delete(&self, handle: &Handle, name: &str, receipts: &[(u64, u64)]) -> Result<(), Fault> {
        let Some(queue) = self.queues.get(name) else { return Ok(()) };
        let (now, mut commit) = (handle.now(), Commit::new());
        for (sequence, receipt) in receipts {
            let Some(entry) = queue.shelf.lock().remove_received(*sequence, *receipt) else { continue };
            // A second copy that comes later must still be known as one.
            match handle.reader().message(name, *sequence)? {
                Some(row) if !row.deduplication.is_empty() && now.since_ms(entry.sent_at) < DEDUPLICATION_MS => {
                    let ghost = MessageRow { body: String::new(), attributes: String::new(), deleted: true, ..row };
                    commit.put_message(name, *sequence, &ghost);
                    queue.shelf.lock().put(*sequence, &ghost);
                }
                _ => {
                    commit.drop_message(name, *sequence);
                }
            }
        }
        if !commit.is_empty() {
            handle.commit(commit).await?;
            // The next of the group may go.
            queue.arrived.notify_waiters();
        }
        Ok(())
    }

    /// False where the message is not in flight under this handle.
    async fn change_visibility(
        &self,
        handle: &Handle,
        name: &str,
        (sequence, receipt): (u64, u64),
        visibility_ms: i64,
    ) -> Result<bool, Fault> {
        let Some(queue) = self.queues.get(name) else { return Ok(false) };
        let now = handle.now();
        let at = now.plus_ms(visibility_ms);
        if !queue.shelf.lock().hide(sequence, receipt, now, at) {
            return Ok(false);
        }
        if let Some(mut row) = handle.reader().message(name, sequence)? {
            row.visible_at = at.into();
            let mut commit = Commit::new();
            commit.put_message(name, sequence, &row);
            handle.commit(commit).await?;
        }
        queue.arrived.notify_waiters();
        Ok(true)
    }

    async fn purge(&self, handle: &Handle, name: &str) -> Result<(), Fault> {
        let Some(queue) = self.queues.get(name) else { return Ok(()) };
        let gone = queue.shelf.lock().clear();
        self.drop_rows(handle, name, gone).await
    }

    async fn drop_rows(&self, handle: &Handle, name: &str, gone: Vec<u64>) -> Result<(), Fault> {
        for some in gone.chunks(ROWS_PER_PAGE) {
            let mut commit = Commit::new();
            for sequence in some {
                commit.drop_message(name, *sequence);
            }
            handle.commit(commit).await?;
        }
        Ok(())
    }

    /// Throws away what is older than its queue keeps it, and the memory of copies. Never ends by itself.
    pub async fn sweep(&self, handle: &Handle) -> Result<(), Fault> {
        loop {
            tokio::time::sleep(SWEEP).await;
            for (name, queue) in &self.queues {
                let keeps_ms = i64::try_from(queue.settings.retention().ms).unwrap_or(i64::MAX);
                let gone = queue.shelf.lock().expired(handle.now(), keeps_ms);
                self.drop_rows(handle, name, gone).await?;
            }
        }
    }
}

impl Queue {
    fn row(&self, message: NewMessage, now: Timestamp) -> MessageRow {
        let id = match &message.seed {
            Some(seed) => uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, format!("{seed}/message").as_bytes()),
            None => uuid::Uuid::new_v4(),
        };
        let delay_ms = message.delay_ms.unwrap_or_else(|| self.settings.delay_ms());
        MessageRow {
            id: id.to_string(),
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
}

/// The queue in a URL or an ARN, or the name as it is.
fn name_of(queue: &str) -> &str {
    let last = queue.rsplit('/').next().unwrap_or(queue);
    aws::last_part(last)
}

fn receipt_handle(sequence: u64, receipt: u64) -> String {
    let mut bytes = [0u8; 16];
    bytes[..8].copy_from_slice(&sequence.to_be_bytes());
    bytes[8..].copy_from_slice(&receipt.to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn receipt_of(handle: &str) -> Option<(u64, u64)> {
    let bytes: [u8; 16] = URL_SAFE_NO_PAD.decode(handle).ok()?.try_into().ok()?;
    let (sequence, receipt) = bytes.split_at(8);
    Some((u64::from_be_bytes(sequence.try_into().ok()?), u64::from_be_bytes(receipt.try_into().ok()?)))
}
