//! The service of all claims. Its memory is what is not durable yet.

use conveyor_base::ExecutionId;
use conveyor_interpreter::Status;
use conveyor_run::service::{Pending, Requester, Service, Turn};
use conveyor_store::{ClaimRow, Commit, ExecutionSummary};

use super::{ContentLocation, Message, Reply, Request};

#[derive(Default)]
pub(super) struct ClaimService {
    pending: Pending<String, ClaimRow>,
}

type Deciding<'a> = Turn<'a, Message>;

/// The store cannot be read. Who asked is dropped; a Task is issued again.
struct Unread;

enum Decision {
    /// Nothing changes.
    Answer(Reply),
    /// The content's row from now on.
    Store(Option<ClaimRow>, Reply),
}

impl Service for ClaimService {
    type Message = Message;

    fn handle(&mut self, turn: &mut Deciding<'_>, Message { hash, holder, request, requester }: Message) {
        self.pending.forget(turn.durable());
        match self.decide(turn, &hash, holder, request) {
            Ok(Decision::Answer(reply)) => turn.answer(requester, reply),
            Ok(Decision::Store(row, reply)) => self.store(turn, hash, row, requester, reply),
            Err(Unread) => drop(requester),
        }
    }
}

impl ClaimService {
    fn decide(
        &self,
        turn: &mut Deciding<'_>,
        hash: &str,
        holder: ExecutionId,
        request: Request,
    ) -> Result<Decision, Unread> {
        let row = match self.pending.get(hash) {
            Some(pending) => pending.cloned(),
            None => turn.read(|reader| reader.claim(hash)).ok_or(Unread)?,
        };
        let is_ours = row.as_ref().is_some_and(|row| row.execution == holder.into());
        let now = turn.wall();
        let claimed = |ContentLocation { uri, size_bytes }| ClaimRow {
            uri,
            size_bytes,
            execution: holder.into(),
            claimed_at: now.into(),
            result: String::new(),
        };
        Ok(match request {
            Request::Claim(_) if is_ours => Decision::Answer(Reply::Claimed),
            Request::Claim(place) => {
                if let Some(row) = row {
                    let earlier = turn.read(|reader| reader.summary(row.execution.into())).ok_or(Unread)?;
                    if holds(&row, earlier.as_ref()) {
                        return Ok(Decision::Answer(Reply::Earlier(Box::new(row), earlier.map(Box::new))));
                    }
                }
                Decision::Store(Some(claimed(place)), Reply::Claimed)
            }
            Request::Release => match row.filter(|_| is_ours) {
                Some(row) if row.result.is_empty() => Decision::Store(None, Reply::Released(true)),
                _ => Decision::Answer(Reply::Released(is_ours)),
            },
            Request::Record(place, result) => {
                let row = row.filter(|_| is_ours).unwrap_or_else(|| claimed(place));
                Decision::Store(Some(ClaimRow { result, ..row }), Reply::Recorded)
            }
        })
    }

    fn store(
        &mut self,
        turn: &mut Deciding<'_>,
        hash: String,
        row: Option<ClaimRow>,
        requester: Requester<Reply>,
        reply: Reply,
    ) {
        let mut commit = Commit::new();
        match &row {
            Some(row) => commit.put_claim(&hash, row),
            None => commit.delete_claim(&hash),
        };
        if let Some(number) = turn.settle(commit, requester, reply) {
            self.pending.put(number, hash, row);
        }
    }
}

/// Whether an earlier claim still holds: the content is processed, or whoever claimed it has not failed.
fn holds(row: &ClaimRow, holder: Option<&ExecutionSummary>) -> bool {
    !row.result.is_empty() || holder.is_some_and(|h| matches!(h.status, Status::Running | Status::Succeeded))
}
