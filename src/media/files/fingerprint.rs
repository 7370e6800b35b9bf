//! The stage `fingerprint`: what a file's content is, so that the same content is known again under any name.

use conveyor_base::{TaskError, Timestamp, Uri};
use conveyor_job::{Job, Reporter};
use serde::Deserialize;
use serde_json::{Value, json};

use super::disk::{self, Meter, Stamp};
use super::fault::{self, About};

#[derive(Deserialize)]
struct Parameters {
    input: Uri,
}

/// `{"input": "s3://…"}` to `{"uri", "blake3", "size", "modified"}`.
pub fn run(job: &Job, reporter: &dyn Reporter) -> Result<Value, TaskError> {
    let Parameters { input } = fault::parameters(job)?;
    let place = fault::place(job, &input)?;
    let file = place.read().about("read", &input)?;
    let before = Stamp::of_open(&file).about("read", &input)?;
    let mut meter = Meter::new(reporter, "hashing", before.size);
    let blake3 = disk::hash(&file, &mut meter).about("read", &input)?;
    let after = Stamp::of(&place.look().about("read", &input)?).about("read", &input)?;
    if after != before {
        return Err(TaskError::new(
            "Files.Changed",
            format!("'{input}' changed while it was read; it is still being written. Retry when it is complete"),
        ));
    }
    Ok(json!({
        "uri": input,
        "blake3": blake3,
        "size": after.size,
        "modified": Timestamp((after.mtime_ns / 1_000_000) as i64).to_string(),
        "modifiedMs": (after.mtime_ns / 1_000_000) as i64,
    }))
}
