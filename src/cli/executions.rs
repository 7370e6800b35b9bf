//! `conveyor executions`: asks a running appliance through its REST API.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use conveyor_base::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use super::out;

#[derive(Debug, Args)]
pub struct Executions {
    /// The appliance.
    #[arg(long, env = "CONVEYOR_URL", default_value = "http://127.0.0.1:8080", global = true)]
    url: String,
    /// Where credentials are set: USER:PASSWORD, the same as for the dashboard.
    #[arg(long, env = "CONVEYOR_USER", hide_env_values = true, global = true)]
    user: Option<String>,
    /// Where it speaks TLS by an authority of its own: the authority's certificate, as PEM.
    #[arg(long, env = "CONVEYOR_CA", value_name = "FILE", global = true)]
    ca: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

const ID: &str = "Its id, as `executions list` shows it";

#[derive(Debug, Subcommand)]
enum What {
    /// The newest executions.
    List {
        /// RUNNING, SUCCEEDED, FAILED, TIMED_OUT or ABORTED.
        #[arg(long)]
        status: Option<String>,
        /// Of one workflow only.
        #[arg(long)]
        workflow: Option<String>,
        /// Also those that other executions started.
        #[arg(long)]
        nested: bool,
        /// The most to list.
        #[arg(long, default_value_t = 20)]
        limit: usize,
    },
    /// One execution: its states, and what failed with which input and error.
    Show {
        #[arg(help = ID)]
        id: String,
    },
    /// All events of an execution, one JSON object a line.
    History {
        #[arg(help = ID)]
        id: String,
    },
    /// Stop an execution that runs.
    Stop {
        #[arg(help = ID)]
        id: String,
        /// Why, for the history.
        #[arg(long)]
        cause: Option<String>,
    },
    /// Go on from the state that failed, keeping what succeeded.
    Redrive {
        #[arg(help = ID)]
        id: String,
    },
    /// Start the same workflow with the same input once more, from its first state.
    Rerun {
        #[arg(help = ID)]
        id: String,
    },
}

pub async fn run(arguments: Executions) -> anyhow::Result<ExitCode> {
    let api = Api { client: client(arguments.ca.as_deref())?, url: arguments.url, user: arguments.user };
    match arguments.what {
        What::List { status, workflow, nested, limit } => {
            let mut query = vec![("nested", nested.to_string())];
            query.extend(status.map(|status| ("status", status)));
            query.extend(workflow.map(|workflow| ("machine", workflow)));
            list(&api, &query, limit).await?;
        }
        What::Show { id } => show(&api.call(Method::GET, &format!("executions/{id}"), &[], None).await?)?,
        What::History { id } => history(&api, &id).await?,
        What::Stop { id, cause } => {
            let asked = Some(json!({ "cause": cause }));
            let answer = api.call(Method::POST, &format!("executions/{id}/stop"), &[], asked).await?;
            match text(&answer["was"]).as_str() {
                "RUNNING" => println!("stopped {id}"),
                ended => println!("{id} had ended already, as {ended}; nothing was stopped"),
            }
        }
        What::Redrive { id } => {
            api.call(Method::POST, &format!("executions/{id}/redrive"), &[], Some(json!({}))).await?;
            println!("{id} goes on");
        }
        What::Rerun { id } => {
            let first = api.call(Method::GET, &format!("executions/{id}"), &[], None).await?;
            let input: Value = serde_json::from_str(first["input"].as_str().unwrap_or("{}"))?;
            let body = json!({ "machine": first["machine"], "input": input });
            let started = api.call(Method::POST, "executions", &[], Some(body)).await?;
            println!("started {}", text(&started["id"]));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn client(ca: Option<&Path>) -> anyhow::Result<reqwest::Client> {
    let mut client = reqwest::Client::builder();
    if let Some(path) = ca {
        let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let all = reqwest::Certificate::from_pem_bundle(&pem)
            .with_context(|| format!("{} is no certificate", path.display()))?;
        client = all.into_iter().fold(client, reqwest::ClientBuilder::add_root_certificate);
    }
    Ok(client.build()?)
}

struct Api {
    client: reqwest::Client,
    url: String,
    user: Option<String>,
}

impl Api {
    async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<Value>,
    ) -> anyhow::Result<Value> {
        let mut request =
            self.client.request(method, format!("{}/api/v1/{path}", self.url.trim_end_matches('/'))).query(query);
        if let Some((user, password)) = self.user.as_deref().and_then(|user| user.split_once(':')) {
            request = request.basic_auth(user, Some(password));
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.map_err(|e| {
            let e = anyhow::Error::from(e);
            let what = match format!("{e:#}").contains("certificate") {
                true => "shows a certificate that this machine does not trust; name the authority's file with --ca",
                false => "does not answer; start one with `conveyor serve`, or name it with --url",
            };
            e.context(format!("the appliance at {} {what}", self.url))
        })?;
        let status = response.status();
        let text = response.text().await?;
        let answer: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        let message = answer["error"].as_str().map_or_else(|| status.to_string(), str::to_owned);
        anyhow::ensure!(status.is_success(), "the appliance refused: {message}");
        Ok(answer)
    }
}

/// Rows of one question; the box gives no more at once.
const PAGE_ROWS_MAX: usize = 500;

async fn list(api: &Api, filter: &[(&str, String)], limit: usize) -> anyhow::Result<()> {
    println!("{:<36}  {:<9}  {:<24}  {:<14}  {:<24}  FILE", "ID", "STATUS", "STARTED", "WORKFLOW", "ERROR");
    let (mut left, mut next) = (limit, None);
    while left > 0 && !out::is_closed() {
        let mut query = filter.to_vec();
        query.push(("limit", left.min(PAGE_ROWS_MAX).to_string()));
        query.extend(next.take().map(|next| ("next", next)));
        let page = api.call(Method::GET, "executions", &query, None).await?;
        let rows = page["executions"].as_array().map_or(&[][..], Vec::as_slice);
        rows.iter().for_each(row);
        left = left.saturating_sub(rows.len());
        next = page["next"].as_str().map(str::to_owned);
        if next.is_none() {
            break;
        }
    }
    Ok(())
}

fn row(row: &Value) {
    println!(
        "{:<36}  {:<9}  {:<24}  {:<14}  {:<24}  {}",
        text(&row["id"]),
        text(&row["status"]),
        moment(&row["startedAt"]),
        text(&row["machine"]),
        text(&row["error"]),
        text(&row["file"]).replace('\n', "?"),
    );
}

fn show(execution: &Value) -> anyhow::Result<()> {
    println!("{} {} {}", text(&execution["machine"]), text(&execution["name"]), text(&execution["status"]));
    println!("started {}   stopped {}", moment(&execution["startedAt"]), moment(&execution["stoppedAt"]));
    for state in execution["states"].as_array().into_iter().flatten() {
        let error = state["error"].as_str().map(|error| format!("  {error}")).unwrap_or_default();
        println!("  {:<28} {:<9} {}{error}", text(&state["name"]), text(&state["type"]), moment(&state["enteredAt"]));
    }
    for stage in execution["working"].as_array().into_iter().flatten().filter(|stage| stage["lane"] != "") {
        let percent = stage["progress"]["fraction"].as_f64().unwrap_or(0.0) * 100.0;
        println!(
            "runs     {:<21} on {} since {}, {percent:.0} %",
            text(&stage["state"]),
            text(&stage["lane"]),
            moment(&stage["startedAt"])
        );
    }
    for stage in execution["waiting"].as_array().into_iter().flatten() {
        let (state, why) = (text(&stage["state"]), text(&stage["why"]));
        let before = stage["before"].as_u64().filter(|n| *n > 0).map(|n| format!("; {n} of its kind go first"));
        println!(
            "waits    {state:<21} since {} ({}): {why}{}",
            moment(&stage["since"]),
            text(&stage["band"]),
            before.unwrap_or_default()
        );
        for moved in stage["moved"].as_array().into_iter().flatten() {
            println!("         after {}", text(moved));
        }
    }
    predictions(execution);
    if let Some(failure) = execution.get("failure").filter(|failure| !failure.is_null()) {
        println!("failed in state '{}' of '{}'", text(&failure["state"]), text(&failure["workflow"]));
        println!(
            "  error: {}\n  cause: {}\n  input: {}",
            text(&failure["error"]),
            text(&failure["cause"]),
            text(&failure["input"])
        );
    }
    Ok(())
}

/// What is expected of transcodes that wait or run, and how predictions came out.
fn predictions(execution: &Value) {
    for expected in execution["predictions"].as_array().into_iter().flatten() {
        let seconds = |key: &str| expected[key].as_f64().unwrap_or(0.0) / 1_000.0;
        let start = match expected["startedAt"].is_null() {
            true => format!("starts in about {:.0} s, ", seconds("startsInMs")),
            false => String::new(),
        };
        println!(
            "{}: {start}takes about {:.0} s, {:.0} s left (by {})",
            text(&expected["state"]),
            seconds("runMs"),
            seconds("leftMs"),
            text(&expected["by"])
        );
    }
    for checked in execution["predicted"].as_array().into_iter().flatten() {
        println!(
            "transcode: predicted {} s (by {}), took {} s",
            text(&checked["Seconds"]),
            text(&checked["By"]),
            text(&checked["TookSeconds"])
        );
    }
}

async fn history(api: &Api, id: &str) -> anyhow::Result<()> {
    let mut from = 0u64;
    loop {
        let query = [("from", from.to_string())];
        let page = api.call(Method::GET, &format!("executions/{id}/history"), &query, None).await?;
        for event in page["events"].as_array().into_iter().flatten() {
            println!("{event}");
        }
        match page["next"].as_u64() {
            Some(next) if !out::is_closed() => from = next,
            _ => return Ok(()),
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        // A file's name may hold line breaks and escape sequences, which must not reach the terminal.
        Value::String(text) => text.replace(|c: char| c.is_control() && c != '\n', "?"),
        other => other.to_string(),
    }
}

fn moment(ms: &Value) -> String {
    ms.as_i64().map_or_else(|| "-".to_owned(), |ms| Timestamp(ms).to_string())
}
