//! Functions: Lambda's ARNs and `lambda:invoke`, carried out by a command, a URL or a Lambda Invoke endpoint.
//!
//! A command gets the event as JSON on its standard input and writes its result as JSON to its standard output. It
//! runs in a process group of its own, which dies with the attempt and with the appliance.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;

use nix::libc;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::aws;
use super::{Answer, Call, Services, forward};
use crate::base::limits::STDERR_TAIL_BYTES_MAX;
use crate::base::{Span, TaskError};

/// Largest result of a function, in bytes (Lambda: 6 MB).
const RESULT_BYTES_MAX: u64 = 6 * 1_048_576;
/// How long a function may run where nothing is configured (Lambda's own maximum).
const TIMEOUT: Span = Span::seconds(900);

/// `[functions.NAME]`: one of `command` and `url`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionSettings {
    /// Program and arguments; relative to the folder of the configuration file where that is set as `dir`.
    pub command: Option<Vec<String>>,
    /// Gets the event by HTTP POST.
    pub url: Option<String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The command's working folder.
    pub dir: Option<PathBuf>,
    pub timeout: Option<Span>,
}

/// `[lambda]`: where functions without a table of their own are invoked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LambdaSettings {
    /// Base URL of a Lambda Invoke API, such as `http://127.0.0.1:9001`.
    pub endpoint: Option<String>,
}

impl FunctionSettings {
    /// What is wrong with the table, for the configuration's check.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        match (&self.command, &self.url) {
            (Some(_), Some(_)) => faults.push("has both command and url; keep one".to_owned()),
            (None, None) => faults.push("needs a command or a url".to_owned()),
            (Some(command), None) if command.is_empty() => faults.push("command: names no program".to_owned()),
            (None, Some(url)) if !url.starts_with("http://") && !url.starts_with("https://") => {
                faults.push(format!("url: '{url}' is neither http:// nor https://"));
            }
            _ => {}
        }
        faults
    }
}

/// The functions of this box.
pub struct Functions {
    configured: BTreeMap<String, FunctionSettings>,
    endpoint: Option<String>,
    client: reqwest::Client,
}

impl Functions {
    pub fn new(configured: BTreeMap<String, FunctionSettings>, lambda: &LambdaSettings) -> Functions {
        let endpoint = lambda.endpoint.as_ref().map(|e| e.trim_end_matches('/').to_owned());
        Functions { configured, endpoint, client: reqwest::Client::new() }
    }

    /// Whether the configuration says where this function is.
    fn serves(&self, function: &str) -> bool {
        self.endpoint.is_some() || self.configured.contains_key(name_of(function))
    }

    async fn run(&self, function: &str, event: &str, id: &str) -> Result<Value, TaskError> {
        let name = name_of(function);
        let (timeout, result) = match (self.configured.get(name), &self.endpoint) {
            (Some(settings), _) => {
                let timeout = settings.timeout.unwrap_or(TIMEOUT);
                let run = async {
                    match (&settings.command, &settings.url) {
                        (Some(command), _) => self.command(name, command, settings, event).await,
                        (None, Some(url)) => self.post(url, name, event, id).await,
                        (None, None) => Err(unknown(function, id)),
                    }
                };
                (timeout, tokio::time::timeout(timeout.duration(), run).await)
            }
            (None, Some(endpoint)) => {
                let url = format!("{endpoint}/2015-03-31/functions/{name}/invocations");
                (TIMEOUT, tokio::time::timeout(TIMEOUT.duration(), self.post(&url, name, event, id)).await)
            }
            (None, None) => return Err(unknown(function, id)),
        };
        result.unwrap_or_else(|_| {
            let message = format!("RequestId: {id} Error: Task timed out after {timeout}");
            let error = json!({ "errorType": "Sandbox.Timedout", "errorMessage": message });
            Err(TaskError::new("Sandbox.Timedout", error.to_string()))
        })
    }

    async fn command(
        &self,
        name: &str,
        command: &[String],
        settings: &FunctionSettings,
        event: &str,
    ) -> Result<Value, TaskError> {
        let exit_error = |message: String| {
            let error = json!({ "errorType": "Runtime.ExitError", "errorMessage": message });
            TaskError::new("Runtime.ExitError", error.to_string())
        };
        let (program, arguments) =
            command.split_first().ok_or_else(|| exit_error(format!("{name} names no program")))?;
        let mut builder = tokio::process::Command::new(program);
        builder.args(arguments).envs(&settings.env).env("AWS_LAMBDA_FUNCTION_NAME", name);
        builder.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        if let Some(dir) = &settings.dir {
            builder.current_dir(dir);
        }
        // SAFETY: prctl is async-signal-safe and touches nothing but the new process's own death signal.
        unsafe {
            builder.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let mut child = builder
            .spawn()
            .map_err(|e| exit_error(format!("the function '{name}' could not be started: {program}: {e}")))?;
        let group = Group::of(&child);
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let give = async {
            if let Some(mut stdin) = stdin {
                // A function that does not read its event closes the pipe; that is no fault.
                let _ = stdin.write_all(event.as_bytes()).await;
            }
        };
        let end = async {
            let status = child.wait().await;
            // What the function left running would hold the pipes open.
            drop(group);
            status
        };
        let ((), out, err, status) = tokio::join!(give, all_of(stdout, RESULT_BYTES_MAX), tail_of(stderr), end);
        let status = status.map_err(|e| exit_error(format!("the function '{name}' was lost: {e}")))?;
        let out =
            out.ok_or_else(|| exit_error(format!("the function '{name}' wrote more than {RESULT_BYTES_MAX} bytes")))?;
        let result: Option<Value> = serde_json::from_slice(&out).ok();
        if !status.success() {
            if let Some(error) = result.filter(|r| r.get("errorType").is_some()) {
                return Err(function_error(&error));
            }
            let said = if err.is_empty() { String::new() } else { format!("; it said: {err}") };
            return Err(exit_error(format!("Runtime exited with error: {status}{said}")));
        }
        if out.trim_ascii().is_empty() {
            return Ok(Value::Null);
        }
        result.ok_or_else(|| {
            let start = String::from_utf8_lossy(&out[..out.len().min(200)]).into_owned();
            exit_error(format!(
                "the function '{name}' must write one JSON value to its standard output; it wrote: {start}"
            ))
        })
    }

    async fn post(&self, url: &str, name: &str, event: &str, id: &str) -> Result<Value, TaskError> {
        let lost = |e: reqwest::Error| {
            let cause = crate::base::fault::chain(&e);
            TaskError::new(
                "Lambda.SdkClientException",
                format!("the function '{name}' cannot be reached at {url}: {cause}"),
            )
        };
        let request = self.client.post(url).header("Content-Type", "application/json");
        let request = request.header("X-Amz-Invocation-Type", "RequestResponse").body(event.to_owned());
        let response = request.send().await.map_err(lost)?;
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let (failed, kind) = (header("x-amz-function-error").is_some(), header("x-amzn-errortype"));
        let status = response.status().as_u16();
        let text = response.text().await.map_err(lost)?;
        judged(status, failed, kind.as_deref(), &text, id)
    }
}

/// The answer of a Lambda Invoke API as the function's result.
fn judged(status: u16, failed: bool, kind: Option<&str>, text: &str, id: &str) -> Result<Value, TaskError> {
    let payload: Value = serde_json::from_str(text).unwrap_or_else(|_| json!(text));
    if failed {
        return Err(function_error(&payload));
    }
    if (200..300).contains(&status) {
        return Ok(if text.is_empty() { Value::Null } else { payload });
    }
    let message = payload.get("Message").or(payload.get("message")).and_then(Value::as_str).unwrap_or(text);
    let kind = match kind.and_then(|k| k.split(':').next()) {
        Some(kind) => kind.trim_end_matches("Exception").to_owned(),
        None if status == 404 => "ResourceNotFound".to_owned(),
        None if status == 429 => "TooManyRequests".to_owned(),
        None if status >= 500 => "Service".to_owned(),
        None => "InvalidRequestContent".to_owned(),
    };
    Err(TaskError::new(format!("Lambda.{kind}Exception"), aws::sdk_cause(message, "Lambda", status, id)))
}

/// Runs a function where it is: here, at `[lambda]`'s endpoint, or else at that of `[aws]`.
pub(super) async fn run(services: &Services, function: &str, event: &str, id: &str) -> Result<Value, TaskError> {
    let functions = &services.functions;
    let (Some(endpoint), false) = (&services.endpoint, functions.serves(function)) else {
        return functions.run(function, event, id).await;
    };
    let response = forward::invoke(endpoint, function, event).await;
    let response = response.map_err(|what| TaskError::new("Lambda.SdkClientException", what))?;
    let failed = response.header("x-amz-function-error").is_some();
    judged(response.status, failed, response.header("x-amzn-errortype"), &response.text(), id)
}

/// A task whose Resource is the function's ARN: the event is the task's input, the result is the task's.
pub async fn call(call: &Call) -> Result<Answer, TaskError> {
    let event = call.parameters.to_string();
    let id = aws::request_id(call);
    run(&call.services, &call.task.resource, &event, &id).await.map(Answer::Done)
}

/// `lambda:invoke`.
pub async fn invoke(call: &Call) -> Result<Answer, TaskError> {
    let function = aws::need_text(&call.parameters, "FunctionName", "lambda:invoke")?;
    let event = call.parameters.get("Payload").map_or_else(|| "{}".to_owned(), Value::to_string);
    let id = aws::request_id(call);
    if call.parameters.get("InvocationType").is_some_and(|t| t == "Event") {
        let (services, function, event, id_) = (call.services.clone(), function.to_owned(), event, id.clone());
        tokio::spawn(async move {
            if let Err(error) = run(&services, &function, &event, &id_).await {
                tracing::warn!(function, %error, "a function that nobody waits for failed");
            }
        });
        return Ok(Answer::Done(aws::with_metadata(json!({ "StatusCode": 202 }), &id, "application/json")));
    }
    let payload = run(&call.services, function, &event, &id).await?;
    let answer = json!({ "ExecutedVersion": "$LATEST", "Payload": payload });
    let mut answer = aws::with_metadata(answer, &id, "application/json");
    answer["StatusCode"] = json!(200);
    Ok(Answer::Done(answer))
}

/// Name of the function in an ARN, with or without a qualifier, or of a bare name.
fn name_of(function: &str) -> &str {
    let rest = function.split_once(":function:").map_or(function, |(_, rest)| rest);
    rest.split(':').next().unwrap_or(rest)
}

fn unknown(function: &str, id: &str) -> TaskError {
    let message = format!(
        "Function not found: {function}; add [functions.{}] or [lambda] endpoint to the configuration",
        name_of(function)
    );
    TaskError::new("Lambda.ResourceNotFoundException", aws::sdk_cause(&message, "Lambda", 404, id))
}

/// A function's own error: its type is the error's name, the whole object the cause, as AWS has it.
fn function_error(payload: &Value) -> TaskError {
    let kind = payload.get("errorType").and_then(Value::as_str).unwrap_or("Lambda.Unknown");
    TaskError::new(kind, payload.to_string())
}

/// Kills the function's whole process group when the attempt ends or is dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &tokio::process::Child) -> Group {
        Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It fails where all of the group has ended, which is what is wanted.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// All of it, or `None` where there is more than allowed. Reads to the end either way, so that nobody blocks.
async fn all_of(stream: Option<impl AsyncRead + Unpin>, bytes_max: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        let _ = (&mut stream).take(bytes_max + 1).read_to_end(&mut bytes).await;
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
    (bytes.len() as u64 <= bytes_max).then_some(bytes)
}

async fn tail_of(stream: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let mut tail = Vec::new();
    let mut chunk = [0u8; 4096];
    while let Ok(n @ 1..) = stream.read(&mut chunk).await {
        tail.extend_from_slice(&chunk[..n]);
        if tail.len() > STDERR_TAIL_BYTES_MAX {
            tail.drain(..tail.len() - STDERR_TAIL_BYTES_MAX);
        }
    }
    String::from_utf8_lossy(&tail).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn functions(script: &str) -> Functions {
        let command = Some(vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()]);
        let settings = FunctionSettings { command, timeout: Some(Span::seconds(20)), ..FunctionSettings::default() };
        Functions::new(BTreeMap::from([("f".to_owned(), settings)]), &LambdaSettings::default())
    }

    async fn run(script: &str) -> Result<Value, TaskError> {
        functions(script).run("arn:aws:lambda:us-east-1:000000000000:function:f:live", "{\"a\":1}", "id").await
    }

    #[tokio::test]
    async fn a_command_is_a_function() {
        assert_eq!(run("cat").await.unwrap(), json!({ "a": 1 }));
        let own = run(r#"echo '{"errorType":"BadClip","errorMessage":"m"}'; exit 1"#).await.unwrap_err();
        assert_eq!(own.error, "BadClip");
        let exit = run("echo broken >&2; exit 3").await.unwrap_err();
        assert!(exit.error == "Runtime.ExitError" && exit.cause.contains("broken"), "{exit}");
        assert!(run("echo nonsense").await.unwrap_err().cause.contains("nonsense"));
        assert_eq!(run("sleep 60 & echo 1").await.unwrap(), json!(1), "what it left running is not waited for");
        let missing = functions("cat").run("other", "{}", "id").await.unwrap_err();
        assert_eq!(missing.error, "Lambda.ResourceNotFoundException");
    }
}
