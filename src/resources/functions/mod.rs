//! Functions: Lambda's ARNs and `lambda:invoke`, carried out by a command, a URL or a Lambda Invoke endpoint.
//!
//! A command gets the event as JSON on its standard input and writes its result as JSON to its standard output. It
//! runs in a process group of its own, which dies with the attempt and with the appliance.

mod task;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use conveyor_base::{Span, TaskError};
use conveyor_job::Acceleration;
use conveyor_job::Device;
use conveyor_run::Demand;
use conveyor_sandbox::{Functions as Jail, process};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

pub use task::{ARN, NAMES, adapter};

use super::forward::{self, Endpoint};
use super::{aws, bounded};

/// Largest result of a function, in bytes (Lambda: 6 MB).
const RESULT_BYTES_MAX: usize = 6 * 1_048_576;
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
    /// Whether the command computes on a GPU: it is leased one, and sees that one alone.
    pub gpu: Option<Acceleration>,
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
    /// How commands are held; without one they are started as they are.
    jail: Option<Jail>,
    /// Where those are that neither a table nor `[lambda]` says.
    fallback: Option<Arc<Endpoint>>,
    /// `us-east-1:000000000000`, for the functions' ARNs.
    place: String,
    client: reqwest::Client,
}

impl Functions {
    pub fn new(
        configured: BTreeMap<String, FunctionSettings>,
        lambda: &LambdaSettings,
        fallback: Option<Arc<Endpoint>>,
        account: &str,
        region: &str,
    ) -> Functions {
        let endpoint = lambda.endpoint.as_ref().map(|e| e.trim_end_matches('/').to_owned());
        let place = format!("{region}:{account}");
        // A function's host shall not send the box elsewhere.
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap_or_default();
        Functions { configured, endpoint, jail: None, fallback, place, client }
    }

    /// With commands started in jail.
    pub fn in_jail(self, jail: Option<Jail>) -> Functions {
        Functions { jail, ..self }
    }

    /// What a function needs of the box.
    pub(super) fn demand(&self, function: &str) -> Demand {
        let gpu = self.configured.get(name_of(function)).and_then(|settings| settings.gpu);
        gpu.map_or_else(Demand::disks, Demand::inference)
    }

    /// Whether the configuration says where this function is.
    fn serves(&self, function: &str) -> bool {
        self.endpoint.is_some() || self.configured.contains_key(name_of(function))
    }

    /// Runs a function where it is: here, at `[lambda]`'s endpoint, or else at that of `[aws]`.
    async fn run(&self, invocation: &Invocation<'_>) -> Result<Invoked, TaskError> {
        let (Some(endpoint), false) = (&self.fallback, self.serves(invocation.function)) else {
            return self.run_here(invocation).await;
        };
        let mut parameters = json!({
            "FunctionName": invocation.function, "InvocationType": invocation.kind, "Payload": invocation.event,
        });
        for (name, value) in [
            ("Qualifier", invocation.qualifier),
            ("ClientContext", invocation.client_context),
            ("LogType", invocation.log_type),
        ] {
            if let Some(value) = value {
                parameters[name] = value.into();
            }
        }
        let response = forward::invoke(endpoint, &parameters).await;
        let response = response.map_err(|what| TaskError::new("Lambda.SdkClientException", what))?;
        let header = |name: &str| response.header(name).map(str::to_owned);
        let answer = Invoked {
            status: response.status,
            error: header("x-amz-function-error"),
            version: header("x-amz-executed-version"),
            log: header("x-amz-log-result"),
            payload: response.text(),
        };
        answer.judged(response.header("x-amzn-errortype"), invocation)
    }

    /// The function's result, for whom nothing else matters.
    pub async fn result(&self, function: &str, event: &str, id: &str) -> Result<Value, TaskError> {
        self.run(&Invocation::new(function, event, id)).await?.result()
    }

    async fn run_here(&self, invocation: &Invocation<'_>) -> Result<Invoked, TaskError> {
        let name = name_of(invocation.function);
        let (timeout, result) = match (self.configured.get(name), &self.endpoint) {
            (Some(settings), _) => {
                let timeout = settings.timeout.unwrap_or(TIMEOUT);
                let run = async {
                    match (&settings.command, &settings.url) {
                        (Some(command), _) => self.command(name, command, settings, invocation).await,
                        (None, Some(url)) => self.post(url, name, invocation).await,
                        (None, None) => Err(self.unknown(invocation)),
                    }
                };
                (timeout, tokio::time::timeout(timeout.duration(), run).await)
            }
            (None, Some(endpoint)) => {
                let mut url = format!("{endpoint}/2015-03-31/functions/{name}/invocations");
                if let Some(qualifier) = invocation.qualifier() {
                    url.push_str(&format!("?Qualifier={}", conveyor_base::escape::escaped(qualifier)));
                }
                (TIMEOUT, tokio::time::timeout(TIMEOUT.duration(), self.post(&url, name, invocation)).await)
            }
            (None, None) => return Err(self.unknown(invocation)),
        };
        result.unwrap_or_else(|_| {
            let seconds = timeout.ms as f64 / 1000.0;
            let message = format!("RequestId: {} Error: Task timed out after {seconds:.2} seconds", invocation.id);
            let error = json!({ "errorType": "Sandbox.Timedout", "errorMessage": message });
            Ok(Invoked::failed(error.to_string()))
        })
    }

    fn unknown(&self, invocation: &Invocation<'_>) -> TaskError {
        let name = name_of(invocation.function);
        tracing::warn!(
            "there is no function '{name}'; add [functions.{name}] or [lambda] endpoint to the configuration"
        );
        let qualifier = invocation.qualifier().map(|qualifier| format!(":{qualifier}")).unwrap_or_default();
        let message = format!("Function not found: arn:aws:lambda:{}:function:{name}{qualifier}", self.place);
        TaskError::new("Lambda.ResourceNotFoundException", aws::sdk_cause(&message, "Lambda", 404, invocation.id))
    }

    async fn command(
        &self,
        name: &str,
        command: &[String],
        settings: &FunctionSettings,
        invocation: &Invocation<'_>,
    ) -> Result<Invoked, TaskError> {
        let ended = self.ran(name, command, settings, invocation).await;
        Ok(ended.unwrap_or_else(|message| Invoked::exited(&message)))
    }

    /// What the command wrote; or how it ended instead.
    async fn ran(
        &self,
        name: &str,
        command: &[String],
        settings: &FunctionSettings,
        invocation: &Invocation<'_>,
    ) -> Result<Invoked, String> {
        let exit_error = |message: String| message;
        let (program, arguments) =
            command.split_first().ok_or_else(|| exit_error(format!("{name} names no program")))?;
        let mut builder = match &self.jail {
            Some(jail) => jail.command(program, arguments),
            None => {
                let mut builder = tokio::process::Command::new(program);
                builder.args(arguments);
                builder
            }
        };
        builder.envs(&settings.env).env("AWS_LAMBDA_FUNCTION_NAME", name);
        builder.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if settings.gpu.is_some() {
            // Without a lease it sees none.
            builder.env("CUDA_VISIBLE_DEVICES", invocation.device.map_or("", |device| &device.uuid));
            builder.env("CUDA_DEVICE_ORDER", "PCI_BUS_ID");
        }
        if let Some(dir) = &settings.dir {
            builder.current_dir(dir);
        }
        let (mut child, group) = process::start(builder)
            .await
            .map_err(|e| exit_error(format!("the function '{name}' could not be started: {program}: {e}")))?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let said = async {
            match stderr {
                Some(stderr) => process::tail(stderr).await,
                None => String::new(),
            }
        };
        let give = async {
            if let Some(mut stdin) = stdin {
                // A function that does not read its event closes the pipe; that is no fault.
                let _ = stdin.write_all(invocation.event.as_bytes()).await;
            }
        };
        let end = async {
            let status = child.wait().await;
            // What the function left running would hold the pipes open.
            drop(group);
            status
        };
        let ((), out, err, status) = tokio::join!(give, all_of(stdout, RESULT_BYTES_MAX), said, end);
        let status = status.map_err(|e| exit_error(format!("the function '{name}' was lost: {e}")))?;
        let out = out.ok_or_else(|| exit_error(too_long(name)))?;
        let result: Option<Value> = serde_json::from_slice(&out).ok();
        if !status.success() {
            if result.is_some_and(|r| r.get("errorType").is_some()) {
                return Ok(Invoked::failed(String::from_utf8_lossy(&out).trim().to_owned()));
            }
            let said = if err.is_empty() { String::new() } else { format!("; it said: {err}") };
            return Err(exit_error(format!("Runtime exited with error: {status}{said}")));
        }
        if out.trim_ascii().is_empty() {
            return Ok(Invoked::done("null".to_owned()));
        }
        result.map(|result| Invoked::done(result.to_string())).ok_or_else(|| {
            let start = String::from_utf8_lossy(&out[..out.len().min(200)]).into_owned();
            exit_error(format!(
                "the function '{name}' must write one JSON value to its standard output; it wrote: {start}"
            ))
        })
    }

    async fn post(&self, url: &str, name: &str, invocation: &Invocation<'_>) -> Result<Invoked, TaskError> {
        let lost = |e: reqwest::Error| {
            let cause = conveyor_base::fault::chain(&e.without_url());
            TaskError::new(
                "Lambda.SdkClientException",
                format!("the function '{name}' cannot be reached at {}: {cause}", url.split('?').next().unwrap_or(url)),
            )
        };
        let request = self.client.post(url).header("Content-Type", "application/json");
        let mut request = request.header("X-Amz-Invocation-Type", invocation.kind).body(invocation.event.to_owned());
        if let Some(context) = invocation.client_context {
            request = request.header("X-Amz-Client-Context", context);
        }
        if let Some(log_type) = invocation.log_type {
            request = request.header("X-Amz-Log-Type", log_type);
        }
        let response = request.send().await.map_err(lost)?;
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let mut answer = Invoked {
            status: response.status().as_u16(),
            error: header("x-amz-function-error"),
            version: header("x-amz-executed-version"),
            log: header("x-amz-log-result"),
            payload: String::new(),
        };
        let kind = header("x-amzn-errortype");
        let Some(payload) = bounded::body(response, RESULT_BYTES_MAX).await.map_err(lost)? else {
            return Ok(Invoked::exited(&too_long(name)));
        };
        answer.payload = String::from_utf8_lossy(&payload).into_owned();
        answer.judged(kind.as_deref(), invocation)
    }
}

/// A call of a function.
pub(super) struct Invocation<'a> {
    /// ARN, partial ARN or name; with or without a qualifier.
    pub function: &'a str,
    pub qualifier: Option<&'a str>,
    pub event: &'a str,
    /// `RequestResponse`, `Event` or `DryRun`.
    pub kind: &'a str,
    pub client_context: Option<&'a str>,
    pub log_type: Option<&'a str>,
    pub id: &'a str,
    /// The GPU that was leased for it.
    pub device: Option<&'a Device>,
}

impl<'a> Invocation<'a> {
    fn new(function: &'a str, event: &'a str, id: &'a str) -> Invocation<'a> {
        let kind = "RequestResponse";
        let (qualifier, client_context, log_type, device) = (None, None, None, None);
        Invocation { function, qualifier, event, kind, client_context, log_type, id, device }
    }

    /// Version or alias: said beside the function, or in its name.
    fn qualifier(&self) -> Option<&str> {
        let rest = self.function.split_once("function:").map_or(self.function, |(_, rest)| rest);
        self.qualifier.or_else(|| rest.split_once(':').map(|(_, qualifier)| qualifier))
    }
}

/// What a function answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Invoked {
    status: u16,
    /// Set where the function failed.
    error: Option<String>,
    version: Option<String>,
    /// The end of its log, where that was asked for.
    log: Option<String>,
    /// As it was written.
    payload: String,
}

impl Invoked {
    fn done(payload: String) -> Invoked {
        Invoked { status: 200, payload, ..Invoked::default() }
    }

    fn failed(payload: String) -> Invoked {
        Invoked { error: Some("Unhandled".to_owned()), ..Invoked::done(payload) }
    }

    /// One of which nothing came but how it ended.
    fn exited(message: &str) -> Invoked {
        Invoked::failed(json!({ "errorType": "Runtime.ExitError", "errorMessage": message }).to_string())
    }

    fn version(&self) -> &str {
        self.version.as_deref().unwrap_or("$LATEST")
    }

    /// The service's own refusal is an error; what the function said is not looked at.
    fn judged(self, kind: Option<&str>, invocation: &Invocation<'_>) -> Result<Invoked, TaskError> {
        if (200..300).contains(&self.status) || self.error.is_some() {
            return Ok(self);
        }
        let said: Value = serde_json::from_str(&self.payload).unwrap_or_default();
        let message = said.get("Message").or(said.get("message")).and_then(Value::as_str).unwrap_or(&self.payload);
        let kind = match kind.or(said["__type"].as_str()).map(|k| k.split(':').next().unwrap_or(k)) {
            Some(kind) => kind.rsplit('#').next().unwrap_or(kind).trim_end_matches("Exception").to_owned(),
            None if self.status == 404 => "ResourceNotFound".to_owned(),
            None if self.status == 429 => "TooManyRequests".to_owned(),
            None if self.status >= 500 => "Service".to_owned(),
            None => "InvalidRequestContent".to_owned(),
        };
        let cause = aws::sdk_cause(message, "Lambda", self.status, invocation.id);
        Err(TaskError::new(format!("Lambda.{kind}Exception"), cause))
    }

    /// The function's result. Its own error is the Task's: its type is the error's name, all that it said the cause.
    fn result(&self) -> Result<Value, TaskError> {
        if self.error.is_some() {
            let said: Value = serde_json::from_str(&self.payload).unwrap_or_default();
            let kind = said.get("errorType").and_then(Value::as_str).unwrap_or("Lambda.Unknown");
            return Err(TaskError::new(kind, self.payload.clone()));
        }
        if self.payload.is_empty() {
            return Ok(Value::Null);
        }
        Ok(serde_json::from_str(&self.payload).unwrap_or_else(|_| json!(self.payload)))
    }
}

/// Name of the function in an ARN, whole or in part, with or without a qualifier, or of a bare name.
fn name_of(function: &str) -> &str {
    let rest = function.split_once("function:").map_or(function, |(_, rest)| rest);
    rest.split(':').next().unwrap_or(rest)
}

/// All of it, or `None` where there is more than allowed. Reads to the end either way, so that nobody blocks.
async fn all_of(stream: Option<impl AsyncRead + Unpin>, bytes_max: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        let _ = (&mut stream).take(bytes_max as u64 + 1).read_to_end(&mut bytes).await;
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
    (bytes.len() <= bytes_max).then_some(bytes)
}

fn too_long(name: &str) -> String {
    format!("the function '{name}' wrote more than {RESULT_BYTES_MAX} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn functions(script: &str) -> Functions {
        let command = Some(vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()]);
        configured(FunctionSettings { command, ..FunctionSettings::default() })
    }

    fn configured(settings: FunctionSettings) -> Functions {
        let settings = FunctionSettings { timeout: Some(Span::seconds(20)), ..settings };
        let configured = BTreeMap::from([("f".to_owned(), settings)]);
        Functions::new(configured, &LambdaSettings::default(), None, "000000000000", "us-east-1")
    }

    async fn run(script: &str) -> Result<Value, TaskError> {
        functions(script).run(&invocation("arn:aws:lambda:us-east-1:000000000000:function:f:live")).await?.result()
    }

    fn invocation(function: &str) -> Invocation<'_> {
        Invocation::new(function, r#"{"a":1}"#, "id")
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
        let missing = functions("cat").run(&invocation("123456789012:function:other:live")).await.unwrap_err();
        assert_eq!(missing.error, "Lambda.ResourceNotFoundException");
        let arn = "arn:aws:lambda:us-east-1:000000000000:function:other:live";
        assert_eq!(
            missing.cause,
            format!("Function not found: {arn} (Service: Lambda, Status Code: 404, Request ID: id)")
        );
    }

    /// A server that answers every call with so many bytes, and does not say how many beforehand.
    async fn server_of(bytes: usize) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut asked = [0; 4_096];
                let _ = stream.read(&mut asked).await;
                let answer = [&b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n1"[..], &vec![b' '; bytes - 1]].concat();
                // Who has read enough hangs up.
                let _ = stream.write_all(&answer).await;
            }
        });
        url
    }

    #[tokio::test]
    async fn an_answer_has_a_longest_length_wherever_it_comes_from() {
        for (bytes, fits) in [(RESULT_BYTES_MAX, true), (RESULT_BYTES_MAX + 1, false)] {
            let url = Some(server_of(bytes).await);
            let by_url = configured(FunctionSettings { url, ..FunctionSettings::default() });
            let by_command = functions(&format!("printf 1; head -c {} /dev/zero | tr '\\0' ' '", bytes - 1));
            for functions in [by_url, by_command] {
                let result = functions.run(&invocation("f")).await.unwrap().result();
                match fits {
                    true => assert_eq!(result.unwrap(), json!(1)),
                    false => {
                        let error = result.unwrap_err();
                        assert!(error.error == "Runtime.ExitError" && error.cause.contains("more than"), "{error}");
                    }
                }
            }
        }
    }
}
