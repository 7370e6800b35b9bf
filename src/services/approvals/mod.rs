//! Approvals: what waits for a person's decision, and the decision.
//!
//! ```text
//! Task ──ask──▶ to-do ──decide──▶ gone, in the commit of the Task's end
//!                 └── its Task was stopped, timed out, or ended by somebody with the token ──▶ swept
//! ```
//!
//! Invariants: the token stays in the store; a to-do is stored with the submission of its Task, and goes with its end.

mod service;

use conveyor_base::{Attempt, ExecutionId, Fault};
use conveyor_interpreter::Json;
use conveyor_run::service::{Address, Requester, Unavailable};
use conveyor_run::{Handle, OnBehalf, Refused};
use conveyor_store::ApprovalRow;

use service::ApprovalService;

/// The attempt that asks.
pub type Key = (ExecutionId, Attempt);

/// The approvals of this box. Cheap to clone.
#[derive(Clone, Default)]
pub struct Approvals(Address<Message>);

/// What the service is sent.
pub enum Message {
    Ask {
        key: Key,
        row: ApprovalRow,
        requester: Requester<()>,
    },
    Decide {
        key: Key,
        decision: Decision,
        on_behalf: Option<OnBehalf>,
        requester: Requester<Verdict>,
    },
    /// What the Task said to the decision.
    Told {
        key: Key,
        outcome: Result<(), Refused>,
        requester: Requester<Verdict>,
    },
    /// A sweep is through: the to-dos whose Tasks have ended otherwise.
    Swept(Result<Vec<Key>, Fault>),
    /// Telling the Task broke off; who decided has no answer.
    Broken,
}

#[derive(Clone, Debug)]
pub enum Decision {
    /// The Task's output.
    Approve(Json),
    Reject {
        error: String,
        cause: String,
    },
}

/// What became of a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Counts,
    /// There is no such to-do: it is decided already, or its execution has ended.
    Unknown,
    Refused(Refused),
}

impl Approvals {
    /// Starts the service.
    pub async fn start(&self, handle: &Handle) -> Result<(), Fault> {
        handle.serve("the approvals", self.0.clone(), |_| Ok(ApprovalService::default())).await
    }

    /// Asks a person on behalf of an attempt. What cannot be sent just now is dropped, with who asked.
    pub fn ask(&self, key: Key, row: ApprovalRow, requester: Requester<()>) {
        drop(self.0.send(Message::Ask { key, row, requester }));
    }

    /// Decides. Resolves once the Task's end is durable, which the decision is part of whether this is dropped or not.
    pub async fn decide(
        &self,
        key: Key,
        decision: Decision,
        on_behalf: Option<OnBehalf>,
    ) -> Result<Verdict, Unavailable> {
        self.0.ask(|requester| Message::Decide { key, decision, on_behalf, requester }).await
    }
}
