//! `Retry` and `Catch`.

use super::checker::{Checker, Fields};
use super::json::Node;
use super::processor::Exits;
use super::state::SECONDS_MAX;
use crate::machine::{Catcher, Retrier};
use crate::template::Segment;

/// Largest `MaxAttempts` (AWS: 99999999).
const ATTEMPTS_MAX: u64 = 99_999_999;
/// `MaxDelaySeconds` is below this: 366 days.
const DELAY_SECONDS_END: u64 = 31_622_400;

impl Checker<'_> {
    pub(super) fn retriers(&mut self, node: &Node) -> Option<Vec<Retrier>> {
        let items = self.array(node)?;
        let mut retriers = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            let last = at + 1 == items.len();
            retriers.extend(self.inside(Segment::Index(at), |c| c.retrier(item, last)));
        }
        Some(retriers)
    }

    fn retrier(&mut self, node: &Node, last: bool) -> Option<Retrier> {
        let mut fields = self.object(node)?;
        let fields = &mut fields;
        self.require(fields, &["ErrorEquals"]);
        self.field(fields, "Comment", |c, node| c.string(node));
        let error_equals = self.field(fields, "ErrorEquals", |c, node| c.error_names(node, last));
        let interval = self.field(fields, "IntervalSeconds", |c, node| c.integer(node, 1, SECONDS_MAX)).unwrap_or(1);
        let attempts = self.field(fields, "MaxAttempts", |c, node| c.integer(node, 0, ATTEMPTS_MAX)).unwrap_or(3);
        let backoff_rate = self.field(fields, "BackoffRate", |c, node| c.number(node, 1.0, f64::MAX)).unwrap_or(2.0);
        let max_delay_seconds = self.field(fields, "MaxDelaySeconds", |c, node| {
            let seconds = c.integer(node, 1, DELAY_SECONDS_END - 1)?;
            if seconds <= interval {
                c.fault(node.at, "MaxDelaySeconds must be greater than IntervalSeconds");
            }
            Some(seconds)
        });
        let jitter = self.field(fields, "JitterStrategy", |c, node| {
            c.word(node, "JitterStrategy", &[("FULL", true), ("NONE", false)])
        });
        self.refuse_rest(fields);
        Some(Retrier {
            error_equals: error_equals?,
            interval_seconds: interval,
            max_attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
            backoff_rate,
            max_delay_seconds,
            full_jitter: jitter.unwrap_or(false),
        })
    }

    pub(super) fn catchers(&mut self, node: &Node, exits: &mut Exits, jsonata: bool) -> Option<Vec<Catcher>> {
        let items = self.array(node)?;
        let mut catchers = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            let last = at + 1 == items.len();
            catchers.extend(self.inside(Segment::Index(at), |c| {
                let mut fields = c.object(item)?;
                c.catcher(&mut fields, last, exits, jsonata)
            }));
        }
        Some(catchers)
    }

    fn catcher(&mut self, fields: &mut Fields, last: bool, exits: &mut Exits, jsonata: bool) -> Option<Catcher> {
        self.require(fields, &["ErrorEquals", "Next"]);
        self.field(fields, "Comment", |c, node| c.string(node));
        let error_equals = self.field(fields, "ErrorEquals", |c, node| c.error_names(node, last));
        let next = self.target(fields, "Next", exits);
        let mut catcher = Catcher {
            error_equals: error_equals.unwrap_or_default(),
            next: next?,
            result_path: Default::default(),
            assign: None,
            output: None,
        };
        if jsonata {
            (catcher.assign, catcher.output) = self.assign_and_output(fields, super::jsonata::WITH_ERROR);
        } else {
            catcher.result_path = self.result_path(fields);
            catcher.assign = self.field(fields, "Assign", |c, node| c.assign(node));
        }
        self.refuse_rest(fields);
        Some(catcher)
    }

    /// `ErrorEquals`. `States.ALL` stands alone and last.
    fn error_names(&mut self, node: &Node, last: bool) -> Option<Vec<String>> {
        let items = self.filled_array(node)?;
        let mut names = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            names.extend(self.inside(Segment::Index(at), |c| c.string(item)));
        }
        if names.iter().any(|name| name == "States.ALL") {
            if names.len() > 1 {
                self.fault(node.at, "States.ALL must appear alone in ErrorEquals");
            }
            if !last {
                self.fault(node.at, "States.ALL must be in the last entry");
            }
        }
        Some(names)
    }
}
