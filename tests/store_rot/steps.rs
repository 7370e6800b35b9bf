//! Executions that wait for a timer and end: what the tests of the store's crashes and rot write.

use std::collections::BTreeMap;
use std::sync::Arc;

use conveyor_base::{BranchId, EventId, ExecutionId, TimerId, Timestamp};
use conveyor_interpreter::{
    Branch, Command, Doing, Execution, Header, HistoryEvent, HistoryKind, MachineRef, Outcome, Status, Step,
};
use conveyor_store::RevisionRow;

/// One of them.
pub struct Sleeper {
    pub id: u128,
    pub input: String,
    pub due: Timestamp,
    pub output: String,
    pub stopped_at: Timestamp,
}

impl Sleeper {
    pub fn header(&self) -> Header {
        Header {
            child: None,
            id: ExecutionId(self.id),
            name: format!("run-{}", self.id),
            machine: MachineRef { name: format!("m{}", self.id % 3), revision: 1, qualifier: None },
            status: Status::Running,
            started_at: Timestamp(1),
            stopped_at: None,
            input: Arc::from(self.input.as_str()),
            outcome: None,
            last_event: EventId(1),
            next_branch: BranchId(1),
            next_attempt: Default::default(),
            next_timer: TimerId(1),
            timeout_timer: None,
            parent: None,
            redrive_count: 0,
            redriven_at: None,
            trace_header: None,
        }
    }

    pub fn start(&self) -> Step {
        let branch = Branch {
            parent: None,
            state: Arc::from("Wait"),
            state_entered_at: Timestamp(1),
            state_entered_event: EventId(1),
            input: Arc::new(serde_json::json!({ "n": self.id as u64 })),
            previous_event: EventId(1),
            variables: BTreeMap::new(),
            map_item: None,
            retries: Vec::new(),
            doing: Doing::Wait { timer: TimerId(0), due: self.due },
        };
        Step {
            header: Some(self.header()),
            branches: BTreeMap::from([(BranchId(0), Some(branch))]),
            history: vec![event(1, HistoryKind::ParallelStateStarted)],
            commands: vec![Command::SetTimer { timer: TimerId(0), due: self.due }],
            ..Step::default()
        }
    }

    /// Its end, and how it is before.
    pub fn end(&self) -> (Execution, Step) {
        let mut before = Execution::load(self.header(), BTreeMap::new(), BTreeMap::new());
        before.apply(&self.start());
        let output: Arc<str> = Arc::from(self.output.as_str());
        let mut header = self.header();
        header.status = Status::Succeeded;
        header.stopped_at = Some(self.stopped_at);
        header.outcome = Some(Outcome::Succeeded { output: output.clone() });
        header.last_event = EventId(2);
        let step = Step {
            header: Some(header),
            branches: BTreeMap::from([(BranchId(0), None)]),
            history: vec![event(2, HistoryKind::ExecutionSucceeded { output })],
            commands: vec![Command::ClearTimer { timer: TimerId(0), due: self.due }],
            ..Step::default()
        };
        (before, step)
    }
}

fn event(number: u64, kind: HistoryKind) -> HistoryEvent {
    HistoryEvent { id: EventId(number), previous: EventId(number - 1), at: Timestamp(1), kind }
}

pub fn revision() -> RevisionRow {
    let text = String::new;
    RevisionRow {
        definition: text(),
        role_arn: text(),
        settings: text(),
        revision_id: None,
        created_at: Timestamp(1).into(),
    }
}
