//! What becomes of an execution whose rows cannot be read: it fails by that name, and nobody else does.
//!
//! One whose header cannot be read either cannot even fail. It stands as it is, each question about it is answered with
//! the damage, and the alarm names it; after a repair of the files the next start takes it up again, or it is gone and named.

use conveyor_base::{Attempt, Fault, fault};
use conveyor_interpreter::{Event, Status};
use conveyor_store::Commit;

use super::State;
use crate::{events, guarded};

impl State {
    /// Takes note of rows that could not be read.
    pub(super) fn met(&mut self, fault: &Fault) {
        self.core.note(fault);
        match fault {
            Fault::Damaged { .. } => self.unread = Some(Fault::damaged_plain(fault::chain(fault))),
            Fault::Retryable { .. } if self.unread.is_none() => {
                self.unread = Some(Fault::Retryable { what: fault::chain(fault), source: None });
            }
            Fault::Retryable { .. } | Fault::Fatal { .. } => {}
        }
    }

    /// Once a message is through that needed rows which could not be read.
    pub(super) async fn after_unread(&mut self) {
        match self.unread.take() {
            Some(Fault::Damaged { what, .. }) => self.fail_damaged(&what).await,
            // What was to be decided is decided anew from the rows.
            Some(Fault::Retryable { .. }) if !self.core.is_closing() => {
                self.resume_from_rows();
            }
            _ => {}
        }
    }

    /// Nothing that waits for the execution would ever come.
    async fn fail_damaged(&mut self, what: &str) {
        (self.execution, self.machine) = (None, None);
        self.early.clear();
        self.ready.clear();
        let (core, id) = (self.core.clone(), self.id);
        let loaded = self.load().await;
        self.unread = None;
        if self.execution.is_none() {
            if let Err(Fault::Retryable { .. }) = &loaded {
                // That passes, and then the damage is met once more.
                self.resume_from_rows();
            } else if loaded.is_err() {
                events::ExecutionDamaged { id, what, stands: true }.emit();
            }
            return;
        }
        let known = core.reader.blocking(move |rows| rows.attempts_of(id)).await;
        let running: Vec<Attempt> = self.stages.keys().copied().collect();
        self.stages.drain().for_each(|(_, stage)| stage.kill());
        let Some(execution) = &self.execution else { return };
        let header = execution.header();
        if header.status != Status::Running {
            return;
        }
        events::ExecutionDamaged { id, what, stands: false }.emit();
        // Its definition may be what is damaged.
        if self.machine.is_none() {
            self.machine = core.stand_in(&header.machine.name);
        }
        let Some(machine) = &self.machine else { return };
        let at = core.entry_of(execution, Event::Started).map_or_else(|_| core.clock.wall(), |entry| entry.at);
        let step = guarded::damaged(machine, header, &known.unwrap_or(running), at, what);
        let mut commit = Commit::new();
        commit.step_of(execution, &step);
        let announced = core.status_changed(machine, header, &step, &mut commit);
        match core.commit(commit).await {
            Ok(()) => self.carry_out(step, announced).await,
            Err(_) => self.execution = None,
        }
    }
}
