//! What came of a run's children: the state's result, or files on a share (AWS: ResultWriter).
//!
//! Results stand in the order of their children. Files are written anew when a crash interrupts, and are the same then.

use std::io::{self, Write};
use std::sync::Arc;

use conveyor_asl::{ResultForm, Transformation};
use conveyor_base::limits::{REDRIVABLE_MS, quotas};
use conveyor_base::{ExecutionId, Fault, Older, arn, fault};
use conveyor_interpreter::{Failure, Header, Json, Outcome, Status};
use conveyor_store::Scans;
use serde_json::{Map, Value, json};

use super::drive::Run;
use crate::not_redrivable;
use crate::resource::Fill;

/// What the parent is told.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Gathered {
    pub output: Json,
    /// Results that were written to files.
    pub written: u64,
}

impl Default for Gathered {
    fn default() -> Gathered {
        Gathered { output: "null".into(), written: 0 }
    }
}

/// Results of COMPACT form, where no ResultWriter says otherwise.
const PLAIN: ResultForm = ResultForm { transformation: Transformation::Compact, lines: false };

pub(super) async fn gather(run: &mut Run<'_>) -> Result<Result<Gathered, Failure>, Fault> {
    match run.plan.writer.clone() {
        Some(writer) => match &writer.parameters {
            Some(parameters) => export(run, parameters, writer.form).await,
            None => collect(run, writer.form).await,
        },
        None => collect(run, PLAIN).await,
    }
}

/// The children of a run in that status, in their order.
fn children(rows: &Scans, list: &str, status: Status) -> Result<Vec<ExecutionId>, Fault> {
    let mut children = rows.run_children(list, status)?;
    children.sort_unstable_by_key(|child| child.number);
    Ok(children.into_iter().map(|child| child.id).collect())
}

/// The state's own result: what the children that succeeded gave back.
async fn collect(run: &Run<'_>, form: ResultForm) -> Result<Result<Gathered, Failure>, Fault> {
    let (view, of_list) = (View::of(run), run.list.clone());
    let collected = move |rows: &Scans| {
        let mut text = Vec::new();
        let mut list = List::of(&mut text, form.lines);
        for id in children(rows, &of_list, Status::Succeeded)? {
            let Some(header) = rows.header(id)? else { continue };
            // Writing to memory does not fail.
            let _ = view.write(&header, form.transformation, &mut list);
            if list.bytes > quotas().payload_bytes() {
                return Ok::<_, Fault>(None);
            }
        }
        let _ = list.end();
        let text = String::from_utf8(text).unwrap_or_default();
        // Lines are no JSON: they come as a text.
        let output = if form.lines { Value::from(text).to_string() } else { text };
        Ok(Some(output).filter(|output| output.len() <= quotas().payload_bytes()))
    };
    Ok(match run.core.reader.blocking(collected).await? {
        Some(output) => Ok(Gathered { output: output.into(), written: 0 }),
        None => Err(too_large(&run.task.state)),
    })
}

fn too_large(state: &str) -> Failure {
    let cause = format!(
        "The state/task '{state}' returned a result with a size exceeding the maximum number of bytes service limit."
    );
    Failure { error: Some("States.DataLimitExceeded".into()), cause: Some(cause) }
}

/// Files of what succeeded, failed and never began, and a manifest that names them.
async fn export(run: &mut Run<'_>, parameters: &Value, form: ResultForm) -> Result<Result<Gathered, Failure>, Fault> {
    let text = |name: &str| parameters.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (bucket, prefix) = (text("Bucket"), text("Prefix"));
    let run_id = uuid::Uuid::from_u128(run.row.run.0);
    let folder = match prefix.trim_end_matches('/') {
        "" => run_id.to_string(),
        prefix => format!("{prefix}/{run_id}"),
    };
    let (mut files, mut written) = (Map::new(), 0);
    for name in ["FAILED", "PENDING", "SUCCEEDED"] {
        files.insert(name.to_owned(), json!([]));
    }
    let suffix = if form.lines { "jsonl" } else { "json" };
    let groups: [(&str, &'static [Status], Transformation); 2] = [
        ("FAILED", &[Status::Failed, Status::TimedOut, Status::Aborted], Transformation::None),
        ("SUCCEEDED", &[Status::Succeeded], form.transformation),
    ];
    for (name, statuses, transformation) in groups {
        let list = run.list.clone();
        let ended = move |rows: &Scans| -> Result<Vec<ExecutionId>, Fault> {
            let mut ids = Vec::new();
            for status in statuses {
                ids.extend(children(rows, &list, *status)?);
            }
            Ok(ids)
        };
        let ids = run.core.reader.blocking(ended).await?;
        let mut listed = Vec::new();
        if !ids.is_empty() {
            written += ids.len() as u64;
            let (view, reader) = (View::of(run), run.core.reader.clone());
            let fill =
                move |to: &mut dyn Write| fill(to, &reader.on_this_thread(), &view, &ids, transformation, form.lines);
            let key = format!("{folder}/{name}_0.{suffix}");
            match run.core.resources.write_object(bucket.clone(), key.clone(), Box::new(fill)).await {
                Ok(size) => listed.push(json!({"Key": key, "Size": size})),
                Err(e) => return Ok(Err(refused(e.cause))),
            }
        }
        files.insert(name.to_owned(), listed.into());
    }
    let mut listed = Vec::new();
    if run.row.next_item < run.row.items {
        let key = format!("{folder}/PENDING_0.{suffix}");
        match run.core.resources.write_object(bucket.clone(), key.clone(), pending(run, form.lines)).await {
            Ok(size) => listed.push(json!({"Key": key, "Size": size})),
            Err(e) => return Ok(Err(refused(e.cause))),
        }
    }
    files.insert("PENDING".to_owned(), listed.into());
    let manifest = json!({"DestinationBucket": bucket, "MapRunArn": run.task.resource, "ResultFiles": files});
    let key = format!("{folder}/manifest.json");
    let text = manifest.to_string();
    let fill: Fill = Box::new(move |to: &mut dyn Write| to.write_all(text.as_bytes()));
    if let Err(e) = run.core.resources.write_object(bucket.clone(), key.clone(), fill).await {
        return Ok(Err(refused(e.cause)));
    }
    let details = json!({"Bucket": bucket, "Key": key});
    let output = json!({"MapRunArn": run.task.resource, "ResultWriterDetails": details}).to_string();
    Ok(Ok(Gathered { output: output.into(), written }))
}

fn refused(cause: String) -> Failure {
    Failure { error: Some("States.ResultWriterFailed".into()), cause: Some(cause) }
}

fn fill(
    to: &mut dyn Write,
    rows: &Scans,
    view: &View,
    ids: &[ExecutionId],
    transformation: Transformation,
    lines: bool,
) -> io::Result<()> {
    let mut list = List::of(to, lines);
    for id in ids {
        let header = rows.header(*id).map_err(|e| io::Error::other(fault::chain(&e)))?;
        if let Some(header) = header {
            view.write(&header, transformation, &mut list)?;
        }
    }
    list.end()
}

/// The inputs that were given to no child.
fn pending(run: &Run<'_>, lines: bool) -> Fill {
    let (machine_arn, inputs) = (View::of(run).machine_arn(), run.pending_inputs());
    Box::new(move |to: &mut dyn Write| {
        let mut list = List::of(to, lines);
        inputs(&mut |input| {
            let entry = json!({
                "Input": input, "InputDetails": {"Included": true}, "StateMachineArn": machine_arn,
                "Status": "PENDING",
            });
            list.put(&entry.to_string())
        })?;
        list.end()
    })
}

/// What a child is called on the wire.
struct View {
    region: Arc<str>,
    account: Arc<str>,
    machine: String,
    express: bool,
    /// What can be redriven no more.
    over: Older,
}

impl View {
    fn of(run: &Run) -> View {
        View {
            region: run.core.region.as_str().into(),
            account: run.core.account.as_str().into(),
            machine: format!("{}/{}", run.row.machine, run.row.label),
            express: run.row.express,
            over: run.core.clock.older_than(REDRIVABLE_MS),
        }
    }

    fn machine_arn(&self) -> String {
        arn::machine(&self.region, &self.account, &self.machine)
    }

    fn write(&self, header: &Header, transformation: Transformation, list: &mut List) -> io::Result<()> {
        let Some(Outcome::Succeeded { output }) = &header.outcome else {
            return list.put(&self.described(header).to_string());
        };
        match transformation {
            Transformation::None => list.put(&self.described(header).to_string()),
            Transformation::Compact => list.put(output),
            Transformation::Flatten => match serde_json::from_str(output) {
                Ok(Value::Array(items)) => items.iter().try_for_each(|item| list.put(&item.to_string())),
                _ => list.put(output),
            },
        }
    }

    /// As DescribeExecution would say it, in the integrations' spelling.
    fn described(&self, header: &Header) -> Value {
        let mut entry = Map::new();
        let mut put = |key: &str, value: Value| drop(entry.insert(key.to_owned(), value));
        let name = &header.name;
        let (error, cause, output) = match &header.outcome {
            Some(Outcome::Succeeded { output }) => (None, None, Some(output)),
            Some(
                Outcome::Failed { error, cause }
                | Outcome::TimedOut { error, cause }
                | Outcome::Aborted { error, cause },
            ) => (error.as_ref(), cause.as_ref(), None),
            None => (None, None, None),
        };
        if let Some(cause) = cause {
            put("Cause", json!(cause));
        }
        if let Some(error) = error {
            put("Error", json!(error));
        }
        put(
            "ExecutionArn",
            json!(match self.express {
                false => arn::execution(&self.region, &self.account, &self.machine, name),
                true => arn::express(&self.region, &self.account, &self.machine, name, header.id),
            }),
        );
        put("Input", json!(&*header.input));
        put("InputDetails", json!({"Included": true}));
        put("Name", json!(name));
        if let Some(output) = output {
            put("Output", json!(&**output));
            put("OutputDetails", json!({"Included": true}));
        }
        if !self.express {
            put("RedriveCount", json!(header.redrive_count));
            match not_redrivable(header, &self.over) {
                None => put("RedriveStatus", json!("REDRIVABLE_BY_MAP_RUN")),
                Some(reason) => {
                    put("RedriveStatus", json!("NOT_REDRIVABLE"));
                    put("RedriveStatusReason", json!(reason));
                }
            }
        }
        put("StartDate", json!(header.started_at.to_string()));
        put("StateMachineArn", json!(self.machine_arn()));
        put("Status", json!(header.status.name()));
        if let Some(at) = header.stopped_at {
            put("StopDate", json!(at.to_string()));
        }
        Value::Object(entry)
    }
}

/// A JSON array, or JSON texts line by line.
struct List<'w> {
    to: &'w mut dyn Write,
    lines: bool,
    bytes: usize,
    any: bool,
}

impl<'w> List<'w> {
    fn of(to: &'w mut dyn Write, lines: bool) -> List<'w> {
        List { to, lines, bytes: 0, any: false }
    }

    fn put(&mut self, text: &str) -> io::Result<()> {
        let before: &[u8] = match (self.lines, self.any) {
            (true, false) => b"",
            (true, true) => b"\n",
            (false, false) => b"[",
            (false, true) => b",",
        };
        self.any = true;
        self.bytes += before.len() + text.len();
        self.to.write_all(before)?;
        self.to.write_all(text.as_bytes())
    }

    fn end(self) -> io::Result<()> {
        match (self.lines, self.any) {
            (true, _) => Ok(()),
            (false, true) => self.to.write_all(b"]"),
            (false, false) => self.to.write_all(b"[]"),
        }
    }
}
