//! `GET /benchmarks` and `GET /benchmarks/{id}`: what `conveyor bench` measured on this box.
//!
//! The list has the newest run first: `{"runs": [{"id", "startedAt", "tookSeconds", "mode", "version", "disturbed",
//! "capacity", "comparison"}], "speeds": …}`, where `speeds` is what lanes and predictions go by
//! ([`Speeds`](conveyor_base::speeds)), or null before the first run. One run is its whole report, as
//! `conveyor bench --json` writes it ([`Report`](conveyor_bench::Report)). Only files are read: a run that goes on in
//! another process is not disturbed.

use axum::extract::State;
use conveyor_base::fault;
use conveyor_base::speeds::Speeds;
use conveyor_bench::kept::{self, KeptError};
use serde_json::json;

use super::{JsonResult, NoStoreJson, Path};
use crate::{ApiError, AppState};

pub async fn all(State(app): State<AppState>) -> JsonResult {
    let data_dir = app.data_dir.clone();
    Ok(NoStoreJson(
        app.blocking(move || json!({"runs": kept::summaries(&data_dir), "speeds": Speeds::read(&data_dir)})).await?,
    ))
}

pub async fn one(State(app): State<AppState>, Path(id): Path<String>) -> JsonResult {
    let data_dir = app.data_dir.clone();
    match app.blocking(move || kept::run(&data_dir, &id)).await? {
        Ok(report) => Ok(NoStoreJson(json!(report))),
        Err(missing @ KeptError::Missing { .. }) => Err(ApiError::new("ResourceNotFound", missing.to_string())),
        Err(error) => Err(ApiError::new("InternalFailure", fault::chain(&error))),
    }
}
