//! Who asked a service for something: what joins its commit on their behalf, and who gets the answer.

use conveyor_store::Commit;
use tokio::sync::oneshot;

use super::super::audit::OnBehalf;
use super::super::completion::Completion;
use super::super::refused::Refused;
use super::super::resource::TaskOutcome;

/// The service cannot answer just now: it is being started, or the appliance ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this part of the appliance is being started again; try again in a moment")]
pub struct Unavailable;

impl From<Unavailable> for Refused {
    fn from(unavailable: Unavailable) -> Refused {
        Refused::new("ServiceUnavailable", unavailable.to_string())
    }
}

/// Who gets the answer to a request, with what they add to the commit that gives it.
pub struct Requester<A>(Kind<A>);

/// Makes a Task's end of the answer.
type Shape<A> = Box<dyn FnOnce(&A) -> TaskOutcome + Send>;
/// Adds rows to a commit that changes something.
type Join<A> = Box<dyn FnOnce(&A, &mut Commit) + Send>;

enum Kind<A> {
    Caller {
        reply: Option<oneshot::Sender<A>>,
        on_behalf: Option<OnBehalf>,
    },
    /// The attempt ends with the service's change, in one commit.
    Task {
        completion: Completion,
        shape: Option<Shape<A>>,
    },
    /// Another service, whose rows go along.
    Service {
        join: Option<Join<A>>,
        then: Box<dyn FnOnce(A) + Send>,
    },
}

impl<A: Send + 'static> Requester<A> {
    /// A caller who waits for the answer, and may stop waiting at any time.
    pub fn caller() -> (Requester<A>, oneshot::Receiver<A>) {
        let (reply, answer) = oneshot::channel();
        (Requester(Kind::Caller { reply: Some(reply), on_behalf: None }), answer)
    }

    /// Nobody who waits.
    pub fn nobody() -> Requester<A> {
        Requester(Kind::Caller { reply: None, on_behalf: None })
    }

    /// An attempt whose end is what `shape` makes of the answer.
    pub fn task(completion: Completion, shape: impl FnOnce(&A) -> TaskOutcome + Send + 'static) -> Requester<A> {
        Requester(Kind::Task { completion, shape: Some(Box::new(shape)) })
    }

    /// Another service: `join` adds its rows to a commit that changes something, and `then` gets every answer.
    pub fn service(
        join: impl FnOnce(&A, &mut Commit) + Send + 'static,
        then: impl FnOnce(A) + Send + 'static,
    ) -> Requester<A> {
        Requester(Kind::Service { join: Some(Box::new(join)), then: Box::new(then) })
    }

    /// With an entry of the audit log, where the caller has one.
    pub fn on_behalf(self, entry: Option<OnBehalf>) -> Requester<A> {
        match self.0 {
            Kind::Caller { reply, .. } => Requester(Kind::Caller { reply, on_behalf: entry }),
            kind => Requester(kind),
        }
    }

    /// Whether nobody waits for the answer any more. Of a Task somebody always does.
    pub fn has_hung_up(&self) -> bool {
        matches!(&self.0, Kind::Caller { reply: Some(reply), .. } if reply.is_closed())
    }

    /// Whether the answer becomes part of a commit that the requester makes: of express executions it does not.
    pub(super) fn is_stored_with_its_answer(&self) -> bool {
        matches!(&self.0, Kind::Task { completion, .. } if completion.is_stored())
    }

    /// Adds what belongs to the requester. False: the attempt is over, and nothing may be changed on its behalf.
    pub(super) fn join(&mut self, answer: &A, commit: &mut Commit) -> bool {
        match &mut self.0 {
            Kind::Caller { on_behalf, .. } => {
                if let Some(entry) = on_behalf.take() {
                    entry.join(commit);
                }
                true
            }
            Kind::Task { completion, shape } => match shape.take() {
                Some(shape) => completion.join(shape(answer), commit),
                None => false,
            },
            Kind::Service { join, .. } => {
                if let Some(join) = join.take() {
                    join(answer, commit);
                }
                true
            }
        }
    }

    /// The commit is durable.
    pub(super) fn durable(self, answer: A) {
        match self.0 {
            Kind::Caller { reply, .. } => send_reply(reply, answer),
            Kind::Task { completion, .. } => completion.durable(),
            Kind::Service { then, .. } => then(answer),
        }
    }

    /// Nothing was changed.
    pub(super) fn unchanged(self, answer: A) {
        match self.0 {
            Kind::Caller { reply, .. } => send_reply(reply, answer),
            Kind::Task { completion, shape } => {
                if let Some(shape) = shape {
                    completion.answer(shape(&answer));
                }
            }
            Kind::Service { then, .. } => then(answer),
        }
    }
}

fn send_reply<A>(reply: Option<oneshot::Sender<A>>, answer: A) {
    if let Some(reply) = reply {
        // Who asked may have hung up: what was decided holds all the same.
        let _ = reply.send(answer);
    }
}
