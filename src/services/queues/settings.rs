//! `[queues.NAME]`: SQS's queue attributes.

use conveyor_base::Span;
use serde::Deserialize;

/// Longest visibility time-out, delay and retention, as SQS has them.
const VISIBILITY_MAX: Span = Span::seconds(43_200);
const DELAY_MAX: Span = Span::seconds(900);
const RETENTION_MAX: Span = Span::days(14);
const WAIT_MAX: Span = Span::seconds(20);
/// Largest message in bytes (SQS since 2025).
pub const MESSAGE_BYTES_MAX: u64 = 1_048_576;

/// What is absent is as in SQS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueSettings {
    /// How long a received message is kept from others.
    pub visibility_timeout: Option<Span>,
    /// How long a new message waits.
    pub delay: Option<Span>,
    pub retention: Option<Span>,
    /// How long a receiver that does not say waits for a message.
    pub receive_wait: Option<Span>,
    pub max_message_bytes: Option<u64>,
    /// Of a FIFO queue: copies are known by their content.
    #[serde(default)]
    pub content_based_deduplication: bool,
    /// The queue that gets what was received more than `max_receives` times without being deleted.
    pub dead_letter: Option<String>,
    pub max_receives: Option<u32>,
}

impl QueueSettings {
    /// What is wrong with the table, for the configuration's check.
    pub fn faults(&self, name: &str, has_queue: impl Fn(&str) -> bool) -> Vec<String> {
        let mut faults = Vec::new();
        let stem = name.strip_suffix(".fifo").unwrap_or(name);
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if stem.is_empty() || name.len() > 80 || !stem.bytes().all(allowed) {
            faults.push("a queue's name has 1 to 80 of A-Z, a-z, 0-9, '-', '_', and may end in .fifo".to_owned());
        }
        for (key, set, most) in [
            ("visibility_timeout", self.visibility_timeout, VISIBILITY_MAX),
            ("delay", self.delay, DELAY_MAX),
            ("retention", self.retention, RETENTION_MAX),
            ("receive_wait", self.receive_wait, WAIT_MAX),
        ] {
            if let Some(set) = set.filter(|set| *set > most) {
                faults.push(format!("{key}: {set} is more than {most}"));
            }
        }
        if self.max_message_bytes.is_some_and(|most| !(1_024..=MESSAGE_BYTES_MAX).contains(&most)) {
            faults.push(format!("max_message_bytes: is between 1024 and {MESSAGE_BYTES_MAX}"));
        }
        if self.content_based_deduplication && !name.ends_with(".fifo") {
            faults.push("content_based_deduplication: is for queues whose name ends in .fifo".to_owned());
        }
        match (&self.dead_letter, self.max_receives) {
            (None, None) => {}
            (Some(_), None) | (None, Some(_)) => {
                faults.push("dead_letter: and max_receives come together".to_owned());
            }
            (Some(_), Some(0)) => faults.push("max_receives: is 1 or more".to_owned()),
            (Some(target), _) if target == name => {
                faults.push("dead_letter: is the queue itself".to_owned());
            }
            (Some(target), _) if !has_queue(target) => {
                faults.push(format!("dead_letter: there is no queue '{target}'; add [queues.{target}]"));
            }
            (Some(target), _) if target.ends_with(".fifo") != name.ends_with(".fifo") => {
                faults.push("dead_letter: a FIFO queue's is a FIFO queue, and no other's is".to_owned());
            }
            _ => {}
        }
        faults
    }

    pub fn visibility(&self) -> Span {
        self.visibility_timeout.unwrap_or(Span::seconds(30))
    }

    pub fn delay_ms(&self) -> i64 {
        self.delay.map_or(0, |delay| i64::try_from(delay.ms).unwrap_or(i64::MAX))
    }

    pub fn retention(&self) -> Span {
        self.retention.unwrap_or(Span::days(4))
    }

    pub fn bytes_max(&self) -> u64 {
        self.max_message_bytes.unwrap_or(MESSAGE_BYTES_MAX)
    }
}
