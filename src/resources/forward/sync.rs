//! `.sync` of other services: a job that runs there, and is asked how it is until it has ended.
//!
//! ```text
//! start ──▶ row ──▶ submitted ──▶ ask, wait, ask … ──▶ ended ──▶ the attempt's outcome ──▶ the row goes
//!                                      └── nobody waits any more (stopped, timed out) ──▶ stop the job
//! ```
//!
//! The row is there from the job's start until its end was told, so that a restart neither starts it twice nor
//! forgets it. [`RULES`] says how each service's jobs are asked and read (AWS's developer guide, "Run a Job (.sync)").

use std::sync::Arc;
use std::time::Duration;

use conveyor_aws::{Operation, Service};
use conveyor_base::{Attempt, ExecutionId, Fault, TaskError};
use conveyor_run::{Handle, OnFailure};
use conveyor_store::{Commit, Reader, RemoteJobRow};
use serde_json::{Map, Value, json};

use super::{Endpoint, Names, call_raw, read};
use crate::Call;
use crate::aws::Integration;

/// Between two questions: the first comes soon, later ones less often.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// After so many refusals in a row the job counts as lost.
const REFUSALS_MAX: u32 = 10;

/// How the jobs of one operation are followed.
pub struct Rule {
    service: &'static str,
    start: &'static str,
    ask: &'static str,
    stop: Option<&'static str>,
    /// The field of the question, and of the request to stop, with where its value is found: in the answer to the
    /// start (`JobId`), in the parameters (`@JobName`), as a list (`[JobId]`), or a text as it is (`=text`).
    asks: &'static [(&'static str, &'static str)],
    stops: &'static [(&'static str, &'static str)],
    /// Where the job is in the answer; empty for the whole.
    job: &'static [&'static str],
    /// Where its state is in the job.
    state: &'static [&'static str],
    good: &'static [&'static str],
    bad: &'static [&'static str],
    /// The result has the job under its name, as CodeBuild's has `Build`.
    named: Option<&'static str>,
}

const STOPPED: &str = "=The execution that waited for it ended.";

macro_rules! sagemaker {
    ($start:literal, $ask:literal, $stop:literal, $name:literal, $state:literal) => {
        Rule {
            service: "sagemaker",
            start: $start,
            ask: $ask,
            stop: Some($stop),
            asks: &[($name, concat!("@", $name))],
            stops: &[($name, concat!("@", $name))],
            job: &[],
            state: &[$state],
            good: &["Completed"],
            bad: &["Failed", "Stopped"],
            named: None,
        }
    };
}

static RULES: &[Rule] = &[
    Rule {
        service: "batch",
        start: "SubmitJob",
        ask: "DescribeJobs",
        stop: Some("TerminateJob"),
        asks: &[("Jobs", "[JobId]")],
        stops: &[("JobId", "JobId"), ("Reason", STOPPED)],
        job: &["Jobs", "0"],
        state: &["Status"],
        good: &["SUCCEEDED"],
        bad: &["FAILED"],
        named: None,
    },
    Rule {
        service: "ecs",
        start: "RunTask",
        ask: "DescribeTasks",
        stop: Some("StopTask"),
        asks: &[("Cluster", "@Cluster"), ("Tasks", "[Tasks.0.TaskArn]")],
        stops: &[("Cluster", "@Cluster"), ("Task", "Tasks.0.TaskArn"), ("Reason", STOPPED)],
        job: &["Tasks", "0"],
        state: &["LastStatus"],
        good: &["STOPPED"],
        bad: &[],
        named: None,
    },
    Rule {
        service: "glue",
        start: "StartJobRun",
        ask: "GetJobRun",
        stop: Some("BatchStopJobRun"),
        asks: &[("JobName", "@JobName"), ("RunId", "JobRunId")],
        stops: &[("JobName", "@JobName"), ("JobRunIds", "[JobRunId]")],
        job: &["JobRun"],
        state: &["JobRunState"],
        good: &["SUCCEEDED"],
        bad: &["FAILED", "TIMEOUT", "STOPPED", "ERROR", "EXPIRED"],
        named: None,
    },
    Rule {
        service: "codebuild",
        start: "StartBuild",
        ask: "BatchGetBuilds",
        stop: Some("StopBuild"),
        asks: &[("Ids", "[Build.Id]")],
        stops: &[("Id", "Build.Id")],
        job: &["Builds", "0"],
        state: &["BuildStatus"],
        good: &["SUCCEEDED"],
        bad: &["FAILED", "FAULT", "TIMED_OUT", "STOPPED"],
        named: Some("Build"),
    },
    Rule {
        service: "codebuild",
        start: "StartBuildBatch",
        ask: "BatchGetBuildBatches",
        stop: Some("StopBuildBatch"),
        asks: &[("Ids", "[BuildBatch.Id]")],
        stops: &[("Id", "BuildBatch.Id")],
        job: &["BuildBatches", "0"],
        state: &["BuildBatchStatus"],
        good: &["SUCCEEDED"],
        bad: &["FAILED", "FAULT", "TIMED_OUT", "STOPPED"],
        named: Some("BuildBatch"),
    },
    Rule {
        service: "athena",
        start: "StartQueryExecution",
        ask: "GetQueryExecution",
        stop: Some("StopQueryExecution"),
        asks: &[("QueryExecutionId", "QueryExecutionId")],
        stops: &[("QueryExecutionId", "QueryExecutionId")],
        job: &["QueryExecution"],
        state: &["Status", "State"],
        good: &["SUCCEEDED"],
        bad: &["FAILED", "CANCELLED"],
        named: Some("QueryExecution"),
    },
    Rule {
        service: "emr-serverless",
        start: "StartJobRun",
        ask: "GetJobRun",
        stop: Some("CancelJobRun"),
        asks: &[("ApplicationId", "@ApplicationId"), ("JobRunId", "JobRunId")],
        stops: &[("ApplicationId", "@ApplicationId"), ("JobRunId", "JobRunId")],
        job: &["JobRun"],
        state: &["State"],
        good: &["SUCCESS"],
        bad: &["FAILED", "CANCELLED"],
        named: Some("JobRun"),
    },
    Rule {
        service: "emr-containers",
        start: "StartJobRun",
        ask: "DescribeJobRun",
        stop: Some("CancelJobRun"),
        asks: &[("VirtualClusterId", "@VirtualClusterId"), ("Id", "Id")],
        stops: &[("VirtualClusterId", "@VirtualClusterId"), ("Id", "Id")],
        job: &["JobRun"],
        state: &["State"],
        good: &["COMPLETED"],
        bad: &["FAILED", "CANCELLED"],
        named: None,
    },
    Rule {
        service: "databrew",
        start: "StartJobRun",
        ask: "DescribeJobRun",
        stop: Some("StopJobRun"),
        asks: &[("Name", "@Name"), ("RunId", "RunId")],
        stops: &[("Name", "@Name"), ("RunId", "RunId")],
        job: &[],
        state: &["State"],
        good: &["SUCCEEDED"],
        bad: &["FAILED", "TIMEOUT", "STOPPED"],
        named: None,
    },
    Rule {
        service: "bedrock",
        start: "CreateModelCustomizationJob",
        ask: "GetModelCustomizationJob",
        stop: Some("StopModelCustomizationJob"),
        asks: &[("JobIdentifier", "JobArn")],
        stops: &[("JobIdentifier", "JobArn")],
        job: &[],
        state: &["Status"],
        good: &["Completed"],
        bad: &["Failed", "Stopped"],
        named: None,
    },
    sagemaker!("CreateTrainingJob", "DescribeTrainingJob", "StopTrainingJob", "TrainingJobName", "TrainingJobStatus"),
    sagemaker!(
        "CreateTransformJob",
        "DescribeTransformJob",
        "StopTransformJob",
        "TransformJobName",
        "TransformJobStatus"
    ),
    sagemaker!(
        "CreateProcessingJob",
        "DescribeProcessingJob",
        "StopProcessingJob",
        "ProcessingJobName",
        "ProcessingJobStatus"
    ),
    sagemaker!(
        "CreateHyperParameterTuningJob",
        "DescribeHyperParameterTuningJob",
        "StopHyperParameterTuningJob",
        "HyperParameterTuningJobName",
        "HyperParameterTuningJobStatus"
    ),
    sagemaker!("CreateLabelingJob", "DescribeLabelingJob", "StopLabelingJob", "LabelingJobName", "LabelingJobStatus"),
];

/// The rule of `batch`, `submitJob`.
pub fn rule(service: &str, operation: &str) -> Option<&'static Rule> {
    let start = conveyor_aws::pascal(operation);
    RULES.iter().find(|rule| rule.service == service && rule.start == start)
}

/// How a job stands.
#[derive(Debug, PartialEq)]
enum State {
    Running,
    Succeeded(Value),
    Failed(TaskError),
}

impl Rule {
    fn state(&self, answer: &Value) -> State {
        let Some(job) = at(answer, self.job) else { return State::Running };
        let status = at(job, self.state).and_then(Value::as_str).unwrap_or_default();
        let shown = || match self.named {
            Some(name) => json!({ name: job }),
            None => job.clone(),
        };
        let failed = || State::Failed(TaskError::new("States.TaskFailed", shown().to_string()));
        match status {
            // A stopped task has succeeded if all that ran in it ended with 0.
            "STOPPED" if self.service == "ecs" => {
                let containers = job["Containers"].as_array().map(Vec::as_slice).unwrap_or_default();
                let well = job["StopCode"] != "TaskFailedToStart" && containers.iter().all(|c| c["ExitCode"] == 0);
                if well { State::Succeeded(shown()) } else { failed() }
            }
            status if self.good.contains(&status) => State::Succeeded(shown()),
            status if self.bad.contains(&status) => failed(),
            _ => State::Running,
        }
    }

    fn operation(&self, name: &str) -> Option<Operation> {
        Service::find(self.service)?.operation(name)
    }
}

fn at<'v>(value: &'v Value, path: &[&str]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, part| match value {
        Value::Array(list) => list.get(part.parse::<usize>().ok()?),
        value => value.get(*part),
    })
}

/// The fields of a question, out of the answer to the start and its parameters.
fn filled(fields: &[(&str, &str)], answer: &Value, parameters: &Value) -> Value {
    let mut out = Map::new();
    for (name, from) in fields {
        let (list, from) = match from.strip_prefix('[').and_then(|from| from.strip_suffix(']')) {
            Some(from) => (true, from),
            None => (false, *from),
        };
        let value = match (from.strip_prefix('='), from.strip_prefix('@')) {
            (Some(text), _) => Some(json!(text)),
            (_, Some(parameter)) => parameters.get(parameter).cloned(),
            _ => at(answer, &from.split('.').collect::<Vec<_>>()).cloned(),
        };
        if let Some(value) = value {
            out.insert((*name).to_owned(), if list { json!([value]) } else { value });
        }
    }
    Value::Object(out)
}

/// JSON of a row, which was JSON when it was stored.
fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

/// The jobs at other services for whose end Tasks of this box wait.
#[derive(Clone)]
pub struct RemoteJobs {
    /// Without one any more, what is under way cannot be asked, and is asked again.
    endpoint: Option<Arc<Endpoint>>,
    reader: Reader,
}

impl RemoteJobs {
    pub fn new(endpoint: Option<Arc<Endpoint>>, reader: Reader) -> RemoteJobs {
        RemoteJobs { endpoint, reader }
    }

    /// The answer to the start, where this very attempt has started its job before a crash.
    pub(super) fn started(&self, call: &Call) -> Result<Option<Value>, Fault> {
        let row = self.reader.remote_job(call.execution, call.task.attempt)?;
        Ok(row.map(|row| json_of(&row.answer)))
    }

    /// Remembers the job and follows it.
    pub(super) async fn follow(&self, call: &Call, rule: &'static Rule, answer: &Value) -> Result<(), Fault> {
        let row = RemoteJobRow {
            service: rule.service.to_owned(),
            start: rule.start.to_owned(),
            answer: answer.to_string(),
            ask: filled(rule.asks, answer, &call.parameters).to_string(),
            stop: filled(rule.stops, answer, &call.parameters).to_string(),
        };
        let mut commit = Commit::new();
        commit.put_remote_job(call.execution, call.task.attempt, &row);
        call.handle.commit(commit).await?;
        self.keep(&call.handle, call.execution, call.task.attempt).await
    }

    /// Resumes the jobs that were under way when the box went down.
    pub async fn resume(&self, handle: &Handle) -> Result<(), Fault> {
        for (id, attempt) in self.reader.blocking(|rows| rows.remote_jobs()).await? {
            self.keep(handle, id, attempt).await?;
        }
        Ok(())
    }

    /// Follows a job for as long as it takes; its row says which.
    async fn keep(&self, handle: &Handle, id: ExecutionId, attempt: Attempt) -> Result<(), Fault> {
        let name = format!("the follower of attempt {attempt} of execution {id}");
        let (jobs, following) = (self.clone(), handle.clone());
        let follow = move || {
            let (jobs, handle) = (jobs.clone(), following.clone());
            async move { jobs.watch(&handle, id, attempt).await }
        };
        handle.run_supervised(&name, OnFailure::Restart, follow).await
    }

    async fn watch(&self, handle: &Handle, id: ExecutionId, attempt: Attempt) -> Result<(), Fault> {
        let Some(row) = self.reader.remote_job(id, attempt)? else { return Ok(()) };
        let Some(rule) = rule(&row.service, &row.start) else { return forget(handle, id, attempt).await };
        let (question, request_to_stop) = (json_of(&row.ask), json_of(&row.stop));
        let (mut pause, mut refusals) = (PAUSE_MIN, 0);
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(PAUSE_MAX);
            if !handle.waits_for(id, attempt)? {
                self.stop(rule, &request_to_stop).await;
                return forget(handle, id, attempt).await;
            }
            let state = match self.ask(rule, &question).await {
                Ok(answer) => {
                    refusals = 0;
                    rule.state(&answer)
                }
                Err(AskError::Unreachable(what)) => {
                    tracing::warn!(%id, %attempt, what, "a job at another service cannot be asked; trying again");
                    State::Running
                }
                Err(AskError::Refused(error)) => {
                    refusals += 1;
                    if refusals < REFUSALS_MAX { State::Running } else { State::Failed(error) }
                }
            };
            let outcome = match state {
                State::Running => continue,
                State::Succeeded(job) => Ok(job.to_string().into()),
                State::Failed(error) => Err(error),
            };
            // Whoever is not there any more need not be told.
            match handle.report_end(id, attempt, outcome).await {
                Err(refused) if refused.is_transient() => return Ok(()),
                _ => return forget(handle, id, attempt).await,
            }
        }
    }

    async fn ask(&self, rule: &Rule, question: &Value) -> Result<Value, AskError> {
        let unreachable = |what: &str| AskError::Unreachable(what.to_owned());
        let endpoint = self.endpoint.as_ref().ok_or_else(|| unreachable("no endpoint is configured any more"))?;
        let operation = rule.operation(rule.ask).ok_or_else(|| unreachable("its model is missing"))?;
        let answer = call_raw(endpoint, operation, question).await.map_err(AskError::Unreachable)?;
        if (200..300).contains(&answer.status) {
            return read::answer(operation, &answer).map_err(AskError::Unreachable);
        }
        let error = read::error(operation.service, &answer);
        if answer.status >= 500 || answer.status == 429 || error.code.starts_with("Throttling") {
            return Err(AskError::Unreachable(format!("{}: {}", error.code, error.message)));
        }
        let names = Names::of(operation.service, Integration::Optimised);
        Err(AskError::Refused(names.error(&error, answer.status, "")))
    }

    /// As well as it goes: that the job ends is the service's affair.
    async fn stop(&self, rule: &Rule, request: &Value) {
        let operation = rule.stop.and_then(|stop| rule.operation(stop));
        if let (Some(endpoint), Some(operation)) = (&self.endpoint, operation)
            && let Err(what) = call_raw(endpoint, operation, request).await
        {
            tracing::warn!(what, "a job at another service could not be stopped");
        }
    }
}

/// Why a question has no answer.
enum AskError {
    Unreachable(String),
    Refused(TaskError),
}

async fn forget(handle: &Handle, id: ExecutionId, attempt: Attempt) -> Result<(), Fault> {
    let mut commit = Commit::new();
    commit.drop_remote_job(id, attempt);
    handle.commit(commit).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_names_operations_and_fields_that_their_services_have() {
        for rule in RULES {
            let has = |operation: &str, fields: &[(&str, &str)]| {
                let operation =
                    rule.operation(operation).unwrap_or_else(|| panic!("{} has no {operation}", rule.service));
                let shape = rule.operation(operation.name).and_then(Operation::input).unwrap_or_default();
                let members = operation.service.shape(shape)["m"].as_object().cloned().unwrap_or_default();
                for (field, _) in fields {
                    let known = members.keys().any(|name| conveyor_aws::pascal(name) == *field);
                    assert!(known, "{}:{} has no {field}", rule.service, operation.name);
                }
            };
            has(rule.start, &[]);
            has(rule.ask, rule.asks);
            rule.stop.iter().for_each(|stop| has(stop, rule.stops));
        }
    }

    #[test]
    fn jobs_are_asked_for_and_read() {
        let batch = rule("batch", "submitJob").unwrap();
        assert_eq!(filled(batch.asks, &json!({"JobId": "j"}), &json!({})), json!({"Jobs": ["j"]}));
        assert_eq!(batch.state(&json!({"Jobs": [{"Status": "RUNNABLE"}]})), State::Running);
        assert_eq!(batch.state(&json!({"Jobs": []})), State::Running);
        let done = json!({"Status": "SUCCEEDED"});
        assert_eq!(batch.state(&json!({"Jobs": [done]})), State::Succeeded(done));
        let State::Failed(error) = batch.state(&json!({"Jobs": [{"Status": "FAILED"}]})) else { panic!() };
        assert_eq!((error.error.as_str(), error.cause.as_str()), ("States.TaskFailed", r#"{"Status":"FAILED"}"#));
        let ecs = rule("ecs", "runTask").unwrap();
        let answer = json!({"Tasks": [{"TaskArn": "t"}]});
        let asked = filled(ecs.asks, &answer, &json!({"Cluster": "c"}));
        assert_eq!(asked, json!({"Cluster": "c", "Tasks": ["t"]}));
        let ended = |code: i32| json!({"Tasks": [{"LastStatus": "STOPPED", "Containers": [{"ExitCode": code}]}]});
        assert!(
            matches!(ecs.state(&ended(0)), State::Succeeded(_)) && matches!(ecs.state(&ended(1)), State::Failed(_))
        );
        let build = rule("codebuild", "startBuild").unwrap();
        let ended = json!({"Builds": [{"BuildStatus": "SUCCEEDED"}]});
        assert_eq!(build.state(&ended), State::Succeeded(json!({"Build": {"BuildStatus": "SUCCEEDED"}})));
    }
}
