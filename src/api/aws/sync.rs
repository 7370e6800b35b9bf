//! StartSyncExecution: an express execution, and what came of it in the same answer.

use conveyor_interpreter::Header;
use conveyor_store::MachineKind;
use serde_json::{Value, json};

use super::executions::{StartExecutionInput, put_data, put_outcome, put_time};
use super::fields::Fields;
use crate::{ApiError, AppState};

/// AWS bills by the started 100 ms and the started 64 MB.
const BILLED_STEP_MS: i64 = 100;
const BILLED_MEMORY_MB: u64 = 64;

pub async fn start(app: &AppState, mut fields: Fields) -> Result<Value, ApiError> {
    let asked = StartExecutionInput::of(app, &mut fields)?;
    if asked.kind != MachineKind::Express {
        return Err(ApiError::wrong_type());
    }
    let header = app.handle.start_sync(asked.start).await?;
    Ok(answer(app, &header, asked.with_data))
}

fn answer(app: &AppState, header: &Header, with_data: bool) -> Value {
    let stopped_at = header.stopped_at.unwrap_or(header.started_at);
    let lasted_ms = stopped_at.since_ms(header.started_at).max(1);
    let billed_ms = (lasted_ms + BILLED_STEP_MS - 1) / BILLED_STEP_MS * BILLED_STEP_MS;
    let machine = &header.machine.name;
    let mut answer = json!({
        "executionArn": app.arns.express(machine, &header.name, header.id),
        "stateMachineArn": app.arns.machine(machine),
        "name": header.name,
        "status": header.status.name(),
        "startDate": header.started_at.as_seconds(),
        "billingDetails": {"billedMemoryUsedInMB": BILLED_MEMORY_MB, "billedDurationInMilliseconds": billed_ms},
    });
    put_time(&mut answer, "stopDate", Some(stopped_at));
    put_data(&mut answer, "input", &header.input, with_data);
    put_outcome(&mut answer, header.outcome.as_ref(), with_data);
    if let Some(trace) = &header.trace_header {
        answer["traceHeader"] = trace.as_str().into();
    }
    answer
}
