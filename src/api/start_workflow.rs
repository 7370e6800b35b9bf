//! `POST /start-workflow`: the recipe's own route, for scripts and web forms that know a bucket and a key.

use axum::body::Bytes;
use axum::extract::Extension;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use conveyor_base::{Uri, fault};
use conveyor_run::StartRequest;
use serde_json::{Value, json};

use super::gate::Caller;
use super::{ApiError, AppState, audit};

pub async fn start(app: AppState, Extension(caller): Extension<Caller>, body: Bytes) -> Response {
    let app = app.on_behalf(&audit::unlisted(&app, &caller, "rest", "POST /start-workflow"));
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |key: &str| body[key].as_str().filter(|text| !text.is_empty());
    let (Some(bucket), Some(key)) = (text("bucket"), text("key")) else {
        return answer(StatusCode::BAD_REQUEST, &json!({"error": "Missing bucket or key parameter"}));
    };
    match begin(&app, &Uri::new(bucket, key)).await {
        Ok(body) => answer(StatusCode::OK, &body),
        Err(refusal) => answer(refusal.status(), &json!({"error": refusal.message})),
    }
}

async fn begin(app: &AppState, file: &Uri) -> Result<Value, ApiError> {
    // With no share configured there is nothing to check the name against: the workflow may mean another store.
    if app.io.shares().names().next().is_some() {
        let (share, file) = (&file.share, file.clone());
        let found = app.io.run(&[share], move |shares| shares.place(&file)?.check()).await?;
        found.map_err(|e| ApiError::validation(fault::chain(&e)))?;
    }
    let machine = app.workflows.get(&file.share).map_or("main", String::as_str).to_owned();
    let job_id = uuid::Uuid::new_v4().to_string();
    let input = json!({
        "jobId": job_id,
        "bucket": file.share,
        "key": file.key,
        "requestedAt": app.handle.wall().to_string(),
    });
    let new = StartRequest {
        machine: machine.clone(),
        name: Some(format!("video-workflow-{job_id}")),
        input: input.to_string().into(),
        ..StartRequest::default()
    };
    let started = app.handle.start(new).await?;
    Ok(json!({
        "jobId": job_id,
        "executionArn": app.arns.execution(&machine, &started.name),
        "message": "Video processing workflow started successfully",
    }))
}

fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
