//! From the queue into the files: the lines as AWS writes them.

use std::path::PathBuf;
use std::sync::Arc;

use conveyor_base::{BoxClock, Timestamp};
use conveyor_interpreter::HistoryEvent;
use conveyor_run::LogBatch;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::event;
use super::files::{LogFiles, LogSettings};

/// Batches that are written in one go.
const BATCHES_MAX: usize = 1_024;
/// Longest input, output or parameters of a line, in bytes (AWS: 248 KB; beyond it they are cut off).
const DATA_BYTES_MAX: usize = 248 * 1_024;
/// A disk that takes no lines is complained of no more often than this.
const COMPLAINT_EVERY_MS: i64 = 60_000;

/// The one that writes log lines. Clones are the same: one of them works at a time, and where it breaks off the next
/// goes on.
#[derive(Clone)]
pub struct Delivery {
    queue: Arc<tokio::sync::Mutex<Queue>>,
    files: Arc<Mutex<LogFiles>>,
    clock: Arc<BoxClock>,
    keep_ms: i64,
}

struct Queue {
    receiver: mpsc::UnboundedReceiver<LogBatch>,
    /// Taken and not handed to the files yet.
    taken: Vec<LogBatch>,
    complained_at: Option<Timestamp>,
}

impl Delivery {
    /// Writes below `root`, which is made when the first line comes.
    pub fn new(
        queue: mpsc::UnboundedReceiver<LogBatch>,
        root: PathBuf,
        settings: LogSettings,
        clock: Arc<BoxClock>,
    ) -> Delivery {
        let queue = Queue { receiver: queue, taken: Vec::new(), complained_at: None };
        let keep_ms = i64::try_from(settings.keep.ms).unwrap_or(i64::MAX);
        let files = Arc::new(Mutex::new(LogFiles::new(root, settings)));
        Delivery { queue: Arc::new(tokio::sync::Mutex::new(queue)), files, clock, keep_ms }
    }

    /// Until the queue is closed and empty.
    pub async fn run(&self) {
        let queue = &mut *self.queue.lock().await;
        loop {
            if queue.taken.is_empty() && queue.receiver.recv_many(&mut queue.taken, BATCHES_MAX).await == 0 {
                return;
            }
            self.write(queue).await;
        }
    }

    /// Closes the queue and writes what it holds still. To be called when nobody else writes any more.
    pub async fn finish(&self) {
        self.queue.lock().await.receiver.close();
        self.run().await;
    }

    async fn write(&self, queue: &mut Queue) {
        let (files, now, old) = (self.files.clone(), self.clock.wall(), self.clock.older_than(self.keep_ms));
        let batches = std::mem::take(&mut queue.taken);
        let written = tokio::task::spawn_blocking(move || {
            let mut files = files.lock();
            let mut lost = (0, None);
            for batch in batches {
                let mut text = String::new();
                for event in &batch.events {
                    text.push_str(&line(event, &batch).to_string());
                    text.push('\n');
                }
                if let Err(fault) = files.append(&batch.target.group, &text, now, &old) {
                    lost = (lost.0 + batch.events.len(), Some(fault));
                }
            }
            lost
        });
        let Ok((lost, Some(fault))) = written.await else { return };
        metrics::counter!("conveyor_log_lines_dropped_total").increment(lost as u64);
        if queue.complained_at.is_none_or(|at| now.since_ms(at).abs() >= COMPLAINT_EVERY_MS) {
            queue.complained_at = Some(now);
            tracing::warn!("{lost} log lines of executions were dropped: {fault}");
        }
    }
}

/// One event as CloudWatch Logs shows it: numbers are text there.
fn line(event: &HistoryEvent, batch: &LogBatch) -> Value {
    let mut details = event::details(&event.kind, batch.target.include_execution_data);
    truncate(&mut details);
    json!({
        "id": event.id.to_string(),
        "type": event::type_name(&event.kind),
        "details": details,
        "redrive_count": batch.redrive_count.to_string(),
        "previous_event_id": event.previous.to_string(),
        "event_timestamp": event.at.0.to_string(),
        "execution_arn": batch.execution_arn,
    })
}

fn truncate(details: &mut Map<String, Value>) {
    for (key, note) in [("input", "inputDetails"), ("output", "outputDetails"), ("parameters", "parametersDetails")] {
        let Some(Value::String(text)) = details.get_mut(key) else { continue };
        if text.len() > DATA_BYTES_MAX {
            let whole = (0..=DATA_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text.truncate(whole);
            details.insert(note.to_owned(), json!({"truncated": true}));
        }
    }
}
