//! `step` against properties and against the clock. Everything here is pure: no store, no actors.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "interpreter/machines.rs"]
mod machines;
#[path = "interpreter/oracle.rs"]
mod oracle;
#[path = "interpreter/rows.rs"]
mod rows;
#[path = "interpreter/scenarios.rs"]
mod scenarios;
#[path = "interpreter/width.rs"]
mod width;

use conveyor_asl as asl;
use conveyor_interpreter::{Event, Status};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Any definition, any order of events, stale and wrong ones among them.
    #[test]
    fn every_step_keeps_the_books(
        definition in machines::definition(),
        choices in prop::collection::vec((any::<u32>(), 0u8..24), 0..60),
    ) {
        let machine = asl::parse(&definition.to_string())
            .map_err(|problems| TestCaseError::fail(format!("{problems:?}\n{definition}")))?;
        let mut oracle = oracle::Oracle::new(&machine, "{\"list\": [1, 2, 3]}");
        oracle.happens(Event::Started);
        for (choice, kind) in choices {
            oracle.happens_any(choice, kind);
        }
        oracle.drive_to_the_end();
        prop_assert!(oracle.status() != Status::Running);
    }
}
