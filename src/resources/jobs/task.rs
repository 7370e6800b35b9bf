//! `mediaconvert:createJob` and `mediaconvert:getJob` as Tasks.

use std::sync::Arc;

use conveyor_base::{TaskError, digest};
use conveyor_run::OWNED;
use serde_json::{Value, json};

use super::{Jobs, MACHINE};
use crate::aws;
use crate::executions::{Child, start};
use crate::{Adapter, Call, CallFuture, CallOutcome, Ended, OnChildEnded, fault};

pub const NAMES: &[&str] = &[
    "mediaconvert:createJob",
    "mediaconvert:createJob.sync",
    "aws-sdk:mediaconvert:createJob",
    "aws-sdk:mediaconvert:getJob",
];

pub fn adapter(name: &str, jobs: &Arc<Jobs>) -> Arc<dyn Adapter> {
    let jobs = jobs.clone();
    match name {
        "aws-sdk:mediaconvert:getJob" => Arc::new(Getting(jobs)),
        name => Arc::new(Creating { jobs, sync: name.ends_with(".sync") }),
    }
}

/// What the end of a job comes to for the `createJob.sync` that waits for it.
pub fn shapes(jobs: &Arc<Jobs>) -> [(&'static str, OnChildEnded); 1] {
    let jobs = jobs.clone();
    [(SHAPE, Box::new(move |job| jobs.delivered(job.header)))]
}

const SHAPE: &str = "job";

struct Creating {
    jobs: Arc<Jobs>,
    sync: bool,
}

impl Adapter for Creating {
    fn call<'a>(&'a self, call: &'a Call) -> CallFuture<'a> {
        Box::pin(self.create(call))
    }
}

impl Creating {
    async fn create(&self, call: &Call) -> Result<CallOutcome, TaskError> {
        let request_id = aws::request_id(call);
        let refused = |message: &str| {
            let sdk = call.task.resource.contains(":aws-sdk:");
            let cause = if sdk {
                aws::sdk_cause(message, "MediaConvert", 400, &request_id)
            } else {
                aws::optimised_cause(message, "AWSMediaConvert", 400, "BadRequestException", &request_id)
            };
            TaskError::new("MediaConvert.BadRequestException", cause)
        };
        let mut request = self.jobs.templates.resolve(&call.parameters).map_err(|e| refused(&e))?;
        self.inherit_priority(call, &mut request).await;
        conveyor_settings::parse(&request).map_err(|e| refused(&e.cause))?;
        let name = job_id(call, &request);
        let child = Child {
            machine: MACHINE.to_owned(),
            qualifier: None,
            name: name.clone(),
            input: request.to_string(),
            // Who polls the job may fail or be stopped: the job goes with it, and is shown below it.
            shape: Some(if self.sync { SHAPE } else { OWNED }),
        };
        let (jobs, sync, at) = (self.jobs.clone(), self.sync, call.handle.wall());
        Ok(start(call, child, move |started| {
            let started = started.map_err(|e| {
                let what = format!("the job could not be started: {}: {}", e.code, e.message);
                TaskError::new("MediaConvert.InternalServerErrorException", what)
            })?;
            let job = json!({ "Job": jobs.shape(&name, &request, "SUBMITTED", started.started_at) });
            let answer = aws::with_metadata(job, &request_id, "application/json", at, aws::HeaderStyle::Plain);
            Ok(if sync { Ended::Submitted(answer) } else { Ended::Done(answer) })
        }))
    }

    /// A job without a priority of its own has that of the execution that asks for it.
    async fn inherit_priority(&self, call: &Call, request: &mut Value) {
        if request.get("Priority").is_none()
            && let Ok(Some(asker)) = self.jobs.reader.header(call.execution).await
            && let Some(priority) = conveyor_run::priority_of(&asker.input)
        {
            request["Priority"] = json!(priority);
        }
    }
}

/// The service's form of ids: milliseconds, then six letters and digits.
fn job_id(call: &Call, request: &Value) -> String {
    let token = request.get("ClientRequestToken").and_then(Value::as_str).unwrap_or_default();
    let seed = format!("{}/{}/{token}", call.execution, call.task.attempt);
    let mut hash = digest(seed.as_bytes());
    let mut tail = String::new();
    for _ in 0..6 {
        tail.push(char::from(b"abcdefghijklmnopqrstuvwxyz0123456789"[(hash % 36) as usize]));
        hash /= 36;
    }
    format!("{:013}-{tail}", call.task.scheduled_at.0.max(0))
}

struct Getting(Arc<Jobs>);

impl Adapter for Getting {
    fn call<'a>(&'a self, call: &'a Call) -> CallFuture<'a> {
        Box::pin(self.get(call))
    }
}

impl Getting {
    async fn get(&self, call: &Call) -> Result<CallOutcome, TaskError> {
        let id = aws::require_text(&call.parameters, "Id", "mediaconvert:getJob")?;
        let header = self.0.job(id).await.map_err(|e| fault(&e))?.ok_or_else(|| {
            TaskError::new(
                "MediaConvert.NotFoundException",
                aws::sdk_cause(
                    &format!("The requested job with id {id} cannot be found"),
                    "MediaConvert",
                    404,
                    &aws::request_id(call),
                ),
            )
        })?;
        let fraction = call.handle.running_attempts(header.id).first().map(|running| running.progress.fraction);
        Ok(CallOutcome::done(json!({ "Job": self.0.describe(&header, fraction) })))
    }
}
