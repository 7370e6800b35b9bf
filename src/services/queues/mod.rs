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
//! memory a message is a few numbers; of a FIFO queue's group one receiver at most has messages; a message that is
//! moved to its dead-letter queue is in one of the two, never in both or neither.

mod index;
mod service;
mod settings;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use conveyor_base::{Fault, Timestamp};
use conveyor_run::service::{Address, Requester, Unavailable};
use conveyor_run::{Handle, OnBehalf};
use conveyor_store::MessageRow;
use serde_json::Value;

pub use index::Counts;
pub use settings::QueueSettings;

use service::QueueService;

/// How long a second copy of a message is known as one (SQS: five minutes).
const DEDUPLICATION_MS: i64 = 300_000;

/// The queues of this box: which there are, and where to ask for what is in them. Cheap to clone.
#[derive(Clone)]
pub struct Queues(Arc<Inner>);

struct Inner {
    settings: BTreeMap<String, QueueSettings>,
    account: String,
    region: String,
    /// `http://127.0.0.1:8080`, once it is known.
    served_at: OnceLock<String>,
    service: Address<Message>,
}

/// What the service is sent.
pub struct Message {
    /// The queue's name.
    pub queue: String,
    pub request: Request,
    pub requester: Requester<Reply>,
}

/// What may be asked of a queue. Times are in milliseconds.
#[derive(Clone, Debug)]
pub enum Request {
    /// In order and in one commit; of a FIFO queue a second copy is the first again.
    Send(Vec<NewMessage>),
    /// At most so many messages; where there is none, the first that comes until then. 0 waits for one and takes none.
    Receive {
        most: usize,
        visibility_ms: i64,
        until: Timestamp,
    },
    /// What receipts stand for. An old receipt deletes nothing, and that is no error.
    Delete(Vec<Receipt>),
    /// From now on, so long.
    ChangeVisibility(Vec<(Receipt, i64)>),
    Purge,
    Count,
}

/// The answers, each to the request of the same place. `NoQueue`: there is none of that name.
#[derive(Clone, Debug)]
pub enum Reply {
    Sent(Vec<Sent>),
    Received(Vec<Received>),
    Deleted,
    Changed(Vec<Visibility>),
    Purged,
    Counts(Counts),
    NoQueue,
}

/// A message to be sent.
#[derive(Clone, Debug, Default)]
pub struct NewMessage {
    pub body: String,
    /// As the API has them; `Null` for none.
    pub attributes: Value,
    /// `None`: as the queue has it.
    pub delay_ms: Option<i64>,
    pub group: String,
    pub deduplication: String,
}

/// A message that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub id: String,
    pub sequence: u64,
}

/// A message in the receiver's hands.
#[derive(Clone, Debug)]
pub struct Received {
    pub row: MessageRow,
    pub receipt: Receipt,
}

/// What a receiver holds of a message: its number, and which of its receptions it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub sequence: u64,
    pub reception: u64,
}

/// What came of a change of a message's visibility.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    Changed,
    /// The message is there, and not in flight under this receipt.
    NotInFlight,
    Unknown,
}

impl Queues {
    pub fn new(configured: &BTreeMap<String, QueueSettings>, account: &str, region: &str) -> Queues {
        Queues(Arc::new(Inner {
            settings: configured.clone(),
            account: account.to_owned(),
            region: region.to_owned(),
            served_at: OnceLock::new(),
            service: Address::default(),
        }))
    }

    /// Starts the service, with what the store holds.
    pub async fn start(&self, handle: &Handle) -> Result<(), Fault> {
        let settings = self.0.settings.clone();
        let load = move |rows: &_| QueueService::load(&settings, rows);
        handle.serve("the queues", self.0.service.clone(), load).await
    }

    /// Where the box is reached: stands in the queues' URLs.
    pub fn served_at(&self, address: &str) {
        // Set once; a second call tells nothing new.
        let _ = self.0.served_at.set(address.trim_end_matches('/').to_owned());
    }

    /// The queue that a URL, an ARN or a name stands for.
    pub fn find(&self, queue: &str) -> Option<(&str, &QueueSettings)> {
        self.0.settings.get_key_value(name_of(queue)).map(|(name, settings)| (name.as_str(), settings))
    }

    pub fn has(&self, queue: &str) -> bool {
        self.find(queue).is_some()
    }

    pub fn all(&self) -> impl Iterator<Item = (&str, &QueueSettings)> {
        self.0.settings.iter().map(|(name, settings)| (name.as_str(), settings))
    }

    pub fn account(&self) -> &str {
        &self.0.account
    }

    pub fn url(&self, name: &str) -> String {
        let address = self.0.served_at.get().map_or("http://127.0.0.1:8080", String::as_str);
        format!("{address}/{}/{name}", self.0.account)
    }

    pub fn arn(&self, name: &str) -> String {
        format!("arn:aws:sqs:{}:{}:{name}", self.0.region, self.0.account)
    }

    /// Asks a queue for something. Resolves once what the answer says is durable; who drops this changes nothing of what
    /// was decided, and one who waits for a message and drops this gets none.
    pub async fn ask(&self, queue: &str, request: Request, on_behalf: Option<OnBehalf>) -> Result<Reply, Unavailable> {
        let queue = name_of(queue).to_owned();
        self.0.service.ask(|requester| Message { queue, request, requester: requester.on_behalf(on_behalf) }).await
    }

    /// Asks for somebody else, who gets the answer. What cannot be sent just now is dropped, with who asked.
    pub fn send(&self, queue: &str, request: Request, requester: Requester<Reply>) {
        let queue = name_of(queue).to_owned();
        drop(self.0.service.send(Message { queue, request, requester }));
    }
}

/// The queue in a URL or an ARN, or the name as it is.
fn name_of(queue: &str) -> &str {
    let last = queue.rsplit('/').next().unwrap_or(queue);
    last.rsplit(':').next().unwrap_or(last)
}

impl Receipt {
    /// As receivers hold it: an opaque text.
    pub fn handle(&self) -> String {
        let mut bytes = [0u8; 16];
        bytes[..8].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[8..].copy_from_slice(&self.reception.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    pub fn of_handle(handle: &str) -> Option<Receipt> {
        let bytes: [u8; 16] = URL_SAFE_NO_PAD.decode(handle).ok()?.try_into().ok()?;
        let (sequence, reception) = bytes.split_at(8);
        let number = |half: &[u8]| Some(u64::from_be_bytes(half.try_into().ok()?));
        Some(Receipt { sequence: number(sequence)?, reception: number(reception)? })
    }
}
