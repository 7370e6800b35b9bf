//! What a state machine's logging configuration asks for, and the queue between those who run executions and the one
//! who writes the lines.
//!
//! Owns which event belongs to which level. Best effort, as on AWS: executions never wait for their log. What does not
//! fit into the queue is dropped and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use conveyor_base::limits::LOG_QUEUE_BYTES_MAX;
use conveyor_interpreter::{Header, HistoryEvent, HistoryKind as K, StateType};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::mpsc;

use super::catalog::Machine;
use super::events;

/// Where a machine's events go, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogTarget {
    /// The name of the log group.
    pub group: String,
    pub level: LogLevel,
    pub include_execution_data: bool,
}

/// In the order of what they let through (AWS developer guide, "Log levels for Step Functions execution events").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    All,
    Error,
    Fatal,
}

/// Events of one execution that were decided together.
pub struct LogBatch {
    pub target: Arc<LogTarget>,
    pub execution_arn: String,
    pub redrive_count: u32,
    pub events: Vec<HistoryEvent>,
    _room: Room,
}

/// A batch's share of the queue, given back when the batch is dropped.
struct Room {
    used: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl LogTarget {
    /// Out of a revision's settings; `None` where nothing is to be logged.
    pub(super) fn of(settings: &str) -> Option<Arc<LogTarget>> {
        let settings: Value = serde_json::from_str(settings).ok()?;
        let logging = &settings["loggingConfiguration"];
        let level = match logging["level"].as_str()? {
            "ALL" => LogLevel::All,
            "ERROR" => LogLevel::Error,
            "FATAL" => LogLevel::Fatal,
            _ => return None,
        };
        let arn = logging["destinations"][0]["cloudWatchLogsLogGroup"]["logGroupArn"].as_str()?;
        // arn:aws:logs:REGION:ACCOUNT:log-group:NAME:*
        let group = arn.split(':').nth(6)?.to_owned();
        let include_execution_data = logging["includeExecutionData"].as_bool().unwrap_or(false);
        Some(Arc::new(LogTarget { group, level, include_execution_data }))
    }
}

/// The mildest level at which the event is still left in.
fn level_of(kind: &K) -> LogLevel {
    match kind {
        K::ExecutionFailed(_) | K::ExecutionAborted(_) | K::ExecutionTimedOut(_) => LogLevel::Fatal,
        K::StateEntered { state_type: StateType::Fail, .. }
        | K::StateAborted { .. }
        | K::ParallelStateFailed(_)
        | K::MapStateFailed(_)
        | K::MapRunFailed(_)
        | K::MapRunAborted
        | K::MapIterationFailed { .. }
        | K::MapIterationAborted { .. }
        | K::TaskFailed { .. }
        | K::TaskTimedOut { .. }
        | K::TaskStartFailed { .. }
        | K::TaskSubmitFailed { .. }
        | K::ActivityFailed(_)
        | K::ActivityTimedOut(_)
        | K::ActivityScheduleFailed(_)
        | K::LambdaFunctionFailed(_)
        | K::LambdaFunctionTimedOut(_)
        | K::LambdaFunctionScheduleFailed(_)
        | K::LambdaFunctionStartFailed(_)
        | K::EvaluationFailed { .. } => LogLevel::Error,
        _ => LogLevel::All,
    }
}

/// The queue. Until somebody takes its end, nothing is queued.
pub(super) struct LogQueue {
    sender: mpsc::UnboundedSender<LogBatch>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<LogBatch>>>,
    taken: AtomicBool,
    used: Arc<AtomicUsize>,
}

impl LogQueue {
    pub fn new() -> LogQueue {
        let (sender, receiver) = mpsc::unbounded_channel();
        LogQueue { sender, receiver: Mutex::new(Some(receiver)), taken: AtomicBool::new(false), used: Arc::default() }
    }

    /// The end from which lines are written; there is one.
    pub fn take(&self) -> Option<mpsc::UnboundedReceiver<LogBatch>> {
        self.taken.store(true, Ordering::Release);
        self.receiver.lock().take()
    }

    /// Queues what the machine's configuration asks for of these events.
    pub fn push(&self, machine: &Machine, header: &Header, mut history: Vec<HistoryEvent>) {
        let Some(target) = &machine.logging else { return };
        if !self.taken.load(Ordering::Acquire) {
            return;
        }
        history.retain(|event| level_of(&event.kind) >= target.level);
        if history.is_empty() {
            return;
        }
        let bytes = history.iter().map(weight).sum();
        if self.used.fetch_add(bytes, Ordering::Relaxed) + bytes > LOG_QUEUE_BYTES_MAX {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            events::LogLinesDropped { group: &target.group, lines: history.len() }.emit();
            return;
        }
        let batch = LogBatch {
            target: target.clone(),
            execution_arn: machine.env.execution_arn(header),
            redrive_count: header.redrive_count,
            events: history,
            _room: Room { used: self.used.clone(), bytes },
        };
        // The writer is gone only when the appliance is.
        let _ = self.sender.send(batch);
    }
}

/// About how much memory an event holds.
fn weight(event: &HistoryEvent) -> usize {
    let data = match &event.kind {
        K::ExecutionStarted { input: text, .. }
        | K::ExecutionSucceeded { output: text }
        | K::StateEntered { input: text, .. }
        | K::StateExited { output: text, .. }
        | K::TaskScheduled { parameters: text, .. }
        | K::TaskSubmitted { output: text, .. }
        | K::TaskSucceeded { output: text, .. }
        | K::ActivityScheduled { input: text, .. }
        | K::ActivitySucceeded { output: text }
        | K::LambdaFunctionScheduled { input: text, .. }
        | K::LambdaFunctionSucceeded { output: text } => text.len(),
        _ => 0,
    };
    std::mem::size_of::<HistoryEvent>() + data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_say_where_and_what() {
        let settings = |level: &str| {
            format!(
                r#"{{"loggingConfiguration": {{"level": "{level}", "includeExecutionData": true, "destinations":
                [{{"cloudWatchLogsLogGroup": {{"logGroupArn": "arn:aws:logs:us-east-1:0:log-group:/aws/x:*"}}}}]}}}}"#
            )
        };
        let target = LogTarget::of(&settings("ERROR")).unwrap();
        assert_eq!((target.group.as_str(), target.level), ("/aws/x", LogLevel::Error));
        assert_eq!(LogTarget::of(&settings("OFF")), None);
        assert_eq!(LogTarget::of(""), None);
    }

    #[test]
    fn each_level_lets_through_what_the_stricter_ones_do() {
        let fail = K::StateEntered { state_type: StateType::Fail, name: "F".into(), input: "{}".into() };
        let pass = K::StateEntered { state_type: StateType::Pass, name: "P".into(), input: "{}".into() };
        assert!(level_of(&K::ExecutionFailed(Default::default())) >= LogLevel::Fatal);
        assert!(level_of(&fail) >= LogLevel::Error && level_of(&fail) < LogLevel::Fatal);
        assert!(level_of(&pass) < LogLevel::Error);
    }
}
