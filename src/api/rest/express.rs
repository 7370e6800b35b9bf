//! Express executions over REST: what runs, what ended lately, counts since the appliance started; and stopping one.

use axum::extract::{Json, State};
use conveyor_base::ExecutionId;
use conveyor_interpreter::Status;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::executions::StopBody;
use super::{Body, JsonResult, NoStoreJson, Path, Query};
use crate::{ApiError, AppState};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BoardQuery {
    machine: Option<String>,
    /// Of those that ended: `FAILED` shows all that did not succeed.
    status: Option<String>,
}

pub async fn board(State(app): State<AppState>, Query(query): Query<BoardQuery>) -> JsonResult {
    let board = app.handle.express();
    let of = |machine: &str| query.machine.as_deref().filter(|m| !m.is_empty()).is_none_or(|wanted| wanted == machine);
    let only_failed = query.status.as_deref() == Some("FAILED");
    let running = board.running.iter().filter(|one| of(&one.machine)).map(|one| {
        json!({"id": one.id.to_string(), "arn": one.arn, "machine": one.machine, "name": one.name,
            "startedAt": one.started_at.0, "sync": one.sync, "startedBy": one.by.started})
    });
    let ended = board.ended.iter().filter(|one| of(&one.machine) && !(only_failed && one.status == Status::Succeeded));
    let ended = ended.map(|one| {
        json!({"arn": one.arn, "machine": one.machine, "name": one.name, "status": one.status.name(),
            "startedAt": one.started_at.0, "stoppedAt": one.stopped_at.0, "events": one.events,
            "error": one.error, "cause": one.cause, "startedBy": one.by.started, "stoppedBy": one.by.stopped})
    });
    let counts: Map<String, Value> = board
        .counts
        .iter()
        .filter(|(machine, _)| of(machine))
        .map(|(machine, c)| {
            let counts = json!({"started": c.started, "succeeded": c.succeeded, "failed": c.failed,
                "timedOut": c.timed_out, "aborted": c.aborted});
            (machine.clone(), counts)
        })
        .collect();
    Ok(NoStoreJson(json!({
        "running": running.collect::<Vec<_>>(),
        "runningTotal": board.running_total,
        "ended": ended.collect::<Vec<_>>(),
        "machines": counts,
    })))
}

pub async fn stop(app: AppState, Path(id): Path<String>, body: Body<StopBody>) -> JsonResult {
    let Json(body) = super::body(body)?;
    let missing = || ApiError::no_execution(&id);
    let number: ExecutionId = id.parse().map_err(|_| missing())?;
    let stopped = app.handle.stop_express(number, body.error, body.cause).await;
    if stopped { Ok(NoStoreJson(json!({"stoppedAt": app.handle.wall().0}))) } else { Err(missing()) }
}
