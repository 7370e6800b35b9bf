//! "Already processed?": who works on a content, by its hash. Of two executions that claim one content one goes on.
//!
//! ```text
//! free ──claim──▶ held by E ──record──▶ done by E (for good)
//!   ▲                │ E failed, was stopped or timed out, or released it
//!   └────────────────┘
//! ```
//!
//! Invariant: a claim is decided on, and stored, one after the other.

mod service;

use conveyor_base::{ExecutionId, Fault};
use conveyor_run::Handle;
use conveyor_run::service::{Address, Requester};
use conveyor_store::{ClaimRow, ExecutionSummary};

use service::ClaimService;

/// The claims of this box. Cheap to clone.
#[derive(Clone, Default)]
pub struct Claims(Address<Message>);

/// What the service is sent.
pub struct Message {
    /// The content's name, such as the hexadecimal BLAKE3.
    pub hash: String,
    /// The execution that the claim is, or is to be, of.
    pub holder: ExecutionId,
    pub request: Request,
    pub requester: Requester<Reply>,
}

#[derive(Clone, Debug)]
pub enum Request {
    /// The content is the holder's from now on, unless somebody else's claim holds.
    Claim(ContentLocation),
    /// Gives the holder's content free again, unless it is processed.
    Release,
    /// The content is processed; with its result, as JSON.
    Record(ContentLocation, String),
}

/// Where a content lies, and how long it is.
#[derive(Clone, Debug, Default)]
pub struct ContentLocation {
    pub uri: String,
    pub size_bytes: u64,
}

#[derive(Debug)]
pub enum Reply {
    Claimed,
    /// Somebody else's claim holds. `None`: retention has dropped the execution.
    Earlier(Box<ClaimRow>, Option<Box<ExecutionSummary>>),
    /// False: it is not the holder's.
    Released(bool),
    Recorded,
}

impl Claims {
    /// Starts the service.
    pub async fn start(&self, handle: &Handle) -> Result<(), Fault> {
        handle.serve("the claims", self.0.clone(), |_| Ok(ClaimService::default())).await
    }

    /// Asks for somebody else, who gets the answer once it is durable. What cannot be sent just now is dropped, with
    /// who asked.
    pub fn send(&self, hash: &str, holder: ExecutionId, request: Request, requester: Requester<Reply>) {
        drop(self.0.send(Message { hash: hash.to_owned(), holder, request, requester }));
    }
}
