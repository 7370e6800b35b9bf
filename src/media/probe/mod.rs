//! The `probe` stage: everything that people and later stages want to know about a file, as JSON.
//!
//! Says `null` for what is not known; never a guess.

pub mod colour;
pub mod describe;
pub mod inspect;

use conveyor_base::TaskError;
use conveyor_job::{Job, Progress, Reporter};
use serde_json::Value;

use super::input::Input;

pub use inspect::{Media, inspect};

/// `{"input": "s3://share/key"}` to the file's metadata.
pub fn run(job: &Job, reporter: &dyn Reporter) -> Result<Value, TaskError> {
    let input = Input::from_parameter(job, "input")?;
    reporter.progress(Progress { doing: "probing".into(), ..Progress::default() });
    let media = inspect(&input, job.threads)?;
    reporter.progress(Progress { fraction: 1.0, doing: "probing".into(), ..Progress::default() });
    Ok(describe::describe(&input, &media))
}
