//! Where an analysis puts its whole result, and how it says how far it is.

use std::time::Instant;

use conveyor_base::{TaskError, Uri};
use conveyor_job::{Job, Placing, Progress, Reporter};
use serde_json::{Value, json};

use crate::files::fault::About;

/// Most entries of a list in a stage's result: several analyses travel in one state, whose size is capped.
pub const LISTED_MAX: usize = 40;

/// Writes a whole result that belongs below `destination`, if the Task names one; returns the file's URI or null.
pub fn write(job: &Job, reporter: &dyn Reporter, name: &str, content: &Value) -> Result<Value, TaskError> {
    write_text(job, reporter, name, &format!("{content:#}\n"))
}

/// As [`write`], for text that is made already.
pub fn write_text(job: &Job, reporter: &dyn Reporter, name: &str, text: &str) -> Result<Value, TaskError> {
    let Some(prefix) = job.parameters.get("destination").and_then(Value::as_str) else { return Ok(Value::Null) };
    let uri: Uri = format!("{}/{name}", prefix.trim_end_matches('/')).parse().map_err(|e| {
        TaskError::new("Files.InvalidParameter", format!("'destination' is no s3://share/prefix/: {e}"))
    })?;
    std::fs::write(job.work_dir.join(name), text).about("write", &uri)?;
    let result = json!(uri);
    reporter.made(Placing { from: name.into(), to: uri });
    Ok(result)
}

/// Progress over media time.
pub struct Ticker<'a> {
    reporter: &'a dyn Reporter,
    doing: &'static str,
    duration: f64,
    start: Instant,
    frames: u64,
}

impl<'a> Ticker<'a> {
    pub fn new(reporter: &'a dyn Reporter, doing: &'static str, duration: f64) -> Ticker<'a> {
        Ticker { reporter, doing, duration, start: Instant::now(), frames: 0 }
    }

    /// How long the whole lasts, in seconds, once it is known.
    pub fn lasting(&mut self, seconds: f64) {
        self.duration = seconds;
    }

    /// One picture at this time is done.
    pub fn frame(&mut self, at: f64) {
        self.frames += 1;
        if self.frames.is_multiple_of(16) {
            let wall = self.start.elapsed().as_secs_f64().max(1e-3);
            self.reporter.progress(Progress {
                fraction: if self.duration > 0.0 { (at / self.duration).clamp(0.0, 1.0) } else { 0.0 },
                fps: Some(self.frames as f64 / wall),
                speed: Some(at / wall),
                doing: self.doing.into(),
            });
        }
    }
}

/// `value` with `digits` digits after the point.
pub fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}
