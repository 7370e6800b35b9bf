//! MediaConvert's jobs. A job is an execution of the built-in machine [`MACHINE`], which has one Task,
//! `conveyor:transcode`: so jobs are durable, retried, stopped and shown like everything else.
//!
//! A job's id has the service's form, `<13 digits>-<6 letters>`, and is derived from the task's attempt, so that a
//! call that is issued again finds its job. Settings are checked before the job is taken, all faults at once.

mod task;

use std::collections::BTreeMap;

use conveyor_base::{Fault, JOB_MACHINE, TaskError, Timestamp};
use conveyor_interpreter::{Header, Outcome, Status};
use conveyor_store::Reader;
use serde_json::{Value, json};

pub use task::{NAMES, adapter, shapes};

use super::aws;

/// The machine whose executions are jobs.
pub const MACHINE: &str = JOB_MACHINE;

/// Job templates by name: `Settings` that a job's own are laid over.
#[derive(Clone, Debug, Default)]
pub struct Templates(BTreeMap<String, Value>);

impl Templates {
    /// Reads templates of the form `{"Name", "Settings"}`; the error names the one that is not.
    pub fn read<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Templates, String> {
        let mut templates = BTreeMap::new();
        for (file, text) in texts {
            let value: Value = serde_json::from_str(text).map_err(|e| format!("{file} is no JSON: {e}"))?;
            let name = value.get("Name").and_then(Value::as_str).ok_or_else(|| format!("{file} has no Name"))?;
            if !value.get("Settings").is_some_and(Value::is_object) {
                return Err(format!("{file} has no Settings"));
            }
            templates.insert(name.to_owned(), value);
        }
        Ok(Templates(templates))
    }

    /// The request with its template's settings under its own. `{Key}` in a template's text is filled in from the
    /// job's UserMetadata: that is how one template serves many destinations.
    fn resolve(&self, request: &Value) -> Result<Value, String> {
        let mut request = request.clone();
        let Some(name) = request.as_object_mut().and_then(|map| map.shift_remove("JobTemplate")) else {
            return Ok(request);
        };
        let name = name.as_str().map(aws::last_part).and_then(|n| n.rsplit('/').next()).unwrap_or_default().to_owned();
        let template = self.0.get(&name).ok_or_else(|| {
            let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
            format!("/JobTemplate: there is no job template '{name}'; there are: {}", known.join(", "))
        })?;
        let mut settings = template.get("Settings").cloned().unwrap_or_default();
        fill(&mut settings, request.get("UserMetadata"))?;
        if let (Some(own), Some(base)) = (request.get("Settings").and_then(Value::as_object), settings.as_object_mut())
        {
            base.extend(own.clone());
        }
        request["Settings"] = settings;
        Ok(request)
    }
}

fn fill(value: &mut Value, metadata: Option<&Value>) -> Result<(), String> {
    match value {
        Value::String(text) => {
            while let Some((start, end)) = text.find('{').and_then(|s| text[s..].find('}').map(|e| (s, s + e))) {
                let key = &text[start + 1..end];
                let given = metadata
                    .and_then(|m| m.get(key))
                    .and_then(Value::as_str)
                    .ok_or_else(|| format!("/UserMetadata/{key}: the job template asks for it in '{text}'"))?;
                if given.contains(['{', '}']) {
                    return Err(format!("/UserMetadata/{key}: braces cannot stand in a destination"));
                }
                *text = format!("{}{given}{}", &text[..start], &text[end + 1..]);
            }
            Ok(())
        }
        Value::Array(list) => list.iter_mut().try_for_each(|v| fill(v, metadata)),
        Value::Object(map) => map.values_mut().try_for_each(|v| fill(v, metadata)),
        _ => Ok(()),
    }
}

/// The jobs of this box.
pub struct Jobs {
    templates: Templates,
    reader: Reader,
    account: String,
    region: String,
}

impl Jobs {
    pub fn new(templates: Templates, reader: Reader, account: &str, region: &str) -> Jobs {
        Jobs { templates, reader, account: account.to_owned(), region: region.to_owned() }
    }

    /// The execution that is the job of that id.
    async fn job(&self, id: &str) -> Result<Option<Header>, Fault> {
        match self.reader.by_name(MACHINE, id)? {
            Some(execution) => self.reader.header(execution).await,
            None => Ok(None),
        }
    }

    /// What the end of a job means to the `createJob.sync` that waits for it.
    fn delivered(&self, job: &Header) -> Result<Value, TaskError> {
        let description = self.describe(job, None);
        if job.status == Status::Succeeded {
            return Ok(json!({ "Job": description }));
        }
        Err(TaskError::new("States.TaskFailed", json!({ "Job": description }).to_string()))
    }

    fn describe(&self, header: &Header, fraction: Option<f64>) -> Value {
        let request: Value = serde_json::from_str(&header.input).unwrap_or_default();
        let status = match (header.status, fraction) {
            (Status::Running, None) => "SUBMITTED",
            (Status::Running | Status::PendingRedrive, _) => "PROGRESSING",
            (Status::Succeeded, _) => "COMPLETE",
            (Status::Failed | Status::TimedOut, _) => "ERROR",
            (Status::Aborted, _) => "CANCELED",
        };
        let mut job = self.shape(&header.name, &request, status, header.started_at);
        if let Some(fraction) = fraction {
            job["JobPercentComplete"] = json!((fraction * 100.0).clamp(0.0, 100.0) as u64);
            job["CurrentPhase"] = json!("TRANSCODING");
        }
        if let Some(at) = header.stopped_at {
            job["Timing"]["FinishTime"] = json!(at.to_string());
        }
        match &header.outcome {
            Some(Outcome::Succeeded { output }) => {
                let result: Value = serde_json::from_str(output).unwrap_or_default();
                job["JobPercentComplete"] = json!(100);
                for key in ["OutputGroupDetails", "InputDetails", "ToneMapping", "Warnings", "Prediction", "Energy"] {
                    if let Some(value) = result.get(key) {
                        job[key] = value.clone();
                    }
                }
            }
            Some(Outcome::Failed { error, cause } | Outcome::TimedOut { error, cause }) => {
                let error = error.as_deref().unwrap_or("States.Timeout");
                let cause = cause.as_deref().unwrap_or("the job ran longer than its timeout");
                job["ErrorCode"] = json!(error_code(error));
                job["ErrorMessage"] = json!(format!("{error}: {cause}"));
                // Not the service's: both parts of the message, for who passes them on.
                job["Failure"] = json!({ "Error": error, "Cause": cause });
            }
            _ => {}
        }
        job
    }

    fn shape(&self, id: &str, request: &Value, status: &str, at: Timestamp) -> Value {
        let mut job = json!({
            "Arn": format!("arn:aws:mediaconvert:{}:{}:jobs/{id}", self.region, self.account),
            "CreatedAt": at.to_string(),
            "Id": id,
            "Queue": format!("arn:aws:mediaconvert:{}:{}:queues/Default", self.region, self.account),
            "Role": request.get("Role").cloned().unwrap_or_else(|| json!("")),
            "Settings": request.get("Settings").cloned().unwrap_or_default(),
            "Status": status,
            "Timing": { "SubmitTime": at.to_string() },
        });
        for key in ["UserMetadata", "StatusUpdateInterval", "ClientRequestToken", "Priority", "AccelerationSettings"] {
            if let Some(value) = request.get(key) {
                job[key] = value.clone();
            }
        }
        job
    }
}

/// The service's numbers for what is wrong with the settings, the input and everything else.
fn error_code(error: &str) -> u32 {
    match error {
        "Media.UnsupportedSetting" | "Media.InvalidParameter" => 1010,
        "Media.ShareUnreachable" | "Media.Unreadable" | "Media.Vanished" => 1401,
        e if e.starts_with("Media.") => 1040,
        _ => 1999,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_lies_under_the_jobs_own_settings() {
        let templates = Templates::read(super::super::builtin::JOB_TEMPLATES.iter().copied()).unwrap();
        let request = json!({
            "JobTemplate": "ladder",
            "Settings": { "Inputs": [{ "FileInput": "s3://in/a.mp4" }] },
            "UserMetadata": { "Destination": "s3://outputs/j" },
        });
        let resolved = templates.resolve(&request).unwrap();
        assert_eq!(resolved["Settings"]["Inputs"][0]["FileInput"], "s3://in/a.mp4");
        let destination = "/Settings/OutputGroups/0/OutputGroupSettings/FileGroupSettings/Destination";
        assert_eq!(resolved.pointer(destination).unwrap(), "s3://outputs/j/mp4/");
        conveyor_settings::parse(&resolved).unwrap();
        for bad in [json!({"JobTemplate": "none"}), json!({"JobTemplate": "ladder"})] {
            assert!(templates.resolve(&bad).is_err());
        }
    }
}
