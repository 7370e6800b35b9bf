//! The service of all approvals. Its memory is what is not durable yet.

use conveyor_base::Fault;
use conveyor_run::service::{Pending, Requester, Service, Turn};
use conveyor_run::{Handle, OnBehalf, Refused};
use conveyor_store::{ApprovalRow, Commit, Scans, unless_damaged};

use super::{Decision, Key, Message, Verdict};

/// How often to-dos are looked for whose Tasks have ended otherwise. Lists leave them out by themselves.
const SWEEP_MS: i64 = 60_000;
/// Rows read at once.
const PAGE: usize = 1_000;

#[derive(Default)]
pub(super) struct ApprovalService {
    pending: Pending<Key, ApprovalRow>,
}

type Deciding<'a> = Turn<'a, Message>;

impl Service for ApprovalService {
    type Message = Message;

    fn handle(&mut self, turn: &mut Deciding<'_>, message: Message) {
        self.pending.forget(turn.durable());
        match message {
            Message::Ask { key, row, requester } => {
                let mut commit = Commit::new();
                commit.put_approval(key.0, key.1, &row);
                if let Some(number) = turn.settle(commit, requester, ()) {
                    self.pending.put(number, key, Some(row));
                }
            }
            Message::Decide { key, decision, on_behalf, requester } => {
                self.decide(turn, key, decision, on_behalf, requester)
            }
            Message::Told { key, outcome, requester } => self.told(turn, key, outcome, requester),
            Message::Swept(gone) => {
                match gone {
                    Ok(gone) => self.drop_rows(turn, gone),
                    Err(fault) => turn.note(&fault),
                }
                turn.wake_at(turn.now().plus_ms(SWEEP_MS));
            }
            Message::Broken => {}
        }
    }

    fn wake(&mut self, turn: &mut Deciding<'_>) {
        let handle = turn.handle();
        let sweep = async move {
            let reader = handle.reader().clone();
            Message::Swept(reader.blocking(move |rows| gone(&handle, rows)).await)
        };
        turn.act(sweep, |_| Message::Swept(Ok(Vec::new())));
    }
}

impl ApprovalService {
    /// Tells the Task. Its end, the end of the to-do and the audit entry are one commit, which is the execution's.
    fn decide(
        &mut self,
        turn: &mut Deciding<'_>,
        key: Key,
        decision: Decision,
        on_behalf: Option<OnBehalf>,
        requester: Requester<Verdict>,
    ) {
        let row = match self.pending.get(&key) {
            Some(pending) => Some(pending.cloned()),
            None => turn.read(|reader| reader.approval(key.0, key.1)),
        };
        // Where the store cannot be read nobody is answered: the appliance ends.
        let Some(row) = row else { return };
        let Some(row) = row else { return turn.answer(requester, Verdict::Unknown) };
        let on_behalf = on_behalf.unwrap_or_default().with(move |commit| {
            commit.delete_approval(key.0, key.1);
        });
        let handle = turn.handle().on_behalf(on_behalf);
        let tell = async move {
            let outcome = match decision {
                Decision::Approve(output) => handle.send_task_success(&row.token, output).await,
                Decision::Reject { error, cause } => {
                    handle.send_task_failure(&row.token, Some(error), Some(cause)).await
                }
            };
            Message::Told { key, outcome, requester }
        };
        turn.act(tell, |_| Message::Broken);
    }

    fn told(&mut self, turn: &mut Deciding<'_>, key: Key, outcome: Result<(), Refused>, requester: Requester<Verdict>) {
        match outcome {
            Ok(()) => turn.answer(requester, Verdict::Counts),
            Err(refused) => {
                // The Task has ended otherwise, and nobody needs to decide any more.
                if ["TaskTimedOut", "InvalidToken", "ExecutionDoesNotExist"].contains(&refused.code) {
                    self.drop_rows(turn, vec![key]);
                }
                turn.answer(requester, Verdict::Refused(refused));
            }
        }
    }

    fn drop_rows(&mut self, turn: &mut Deciding<'_>, gone: Vec<Key>) {
        for some in gone.chunks(PAGE) {
            let mut commit = Commit::new();
            for (id, attempt) in some {
                commit.delete_approval(*id, *attempt);
            }
            let number = turn.commit(commit, || ());
            some.iter().for_each(|key| self.pending.put(number, *key, None));
        }
    }
}

/// The to-dos whose Tasks wait no more: stopped, timed out, or ended by somebody with the token.
fn gone(handle: &Handle, rows: &Scans) -> Result<Vec<Key>, Fault> {
    let (mut gone, mut after) = (Vec::new(), None);
    loop {
        let page = unless_damaged(rows.approvals(after, PAGE))?.unwrap_or_default();
        let Some((id, attempt, _)) = page.last() else { return Ok(gone) };
        after = Some((*id, *attempt));
        for (id, attempt, row) in page {
            if !handle.awaits(&row.token)? {
                gone.push((id, attempt));
            }
        }
    }
}
