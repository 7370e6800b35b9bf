//! StartSyncExecution: an express execution, and what came of it in the same answer.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout_at};

use super::executions::{Asked, put_data, put_outcome, put_time};
use super::fields::Fields;
use crate::api::{Doors, Refused};
use crate::base::ExecutionId;
use crate::interpreter::{Header, Outcome, Status};
use crate::run::Notice;
use crate::store::MachineKind;

/// Longest that an express execution may take (AWS: five minutes).
const LASTS_MAX: Duration = Duration::from_secs(300);
/// AWS bills by the started 100 ms and the started 64 MB.
const BILLED_STEP_MS: i64 = 100;
const BILLED_MEMORY_MB: u64 = 64;

pub async fn start(doors: &Doors, mut fields: Fields) -> Result<Value, Refused> {
    let asked = Asked::of(doors, &mut fields)?;
    if asked.kind != MachineKind::Express {
        return Err(Refused::wrong_type());
    }
    let machine = asked.start.machine.clone();
    // Listened to before it starts, so that its end is not missed.
    let mut notices = doors.handle.subscribe();
    let started = doors.handle.start(asked.start).await?;
    let until = Instant::now() + LASTS_MAX;
    let header = loop {
        let header = doors.reader.header(started.id)?.ok_or_else(|| Refused::no_execution(started.id))?;
        if header.status != Status::Running {
            break header;
        }
        if timeout_at(until, changed(&mut notices, started.id)).await.is_err() {
            doors.handle.stop(started.id, Some("States.Timeout".into()), None).await?;
        }
    };
    Ok(answer(doors, &machine, &header))
}

/// Until something was committed of the execution, or may have been.
async fn changed(notices: &mut tokio::sync::broadcast::Receiver<Notice>, id: ExecutionId) {
    loop {
        match notices.recv().await {
            Ok(Notice::Changed { execution, .. }) if execution == id => return,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return,
            // The appliance shuts down: whoever waits is cut off with it.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

fn answer(doors: &Doors, machine: &str, header: &Header) -> Value {
    let stopped_at = header.stopped_at.unwrap_or(header.started_at);
    let lasted_ms = stopped_at.since_ms(header.started_at).max(1);
    let billed_ms = (lasted_ms + BILLED_STEP_MS - 1) / BILLED_STEP_MS * BILLED_STEP_MS;
    // An express execution fails or times out; it is not aborted.
    let status = match header.outcome {
        Some(Outcome::Aborted { .. }) => Status::TimedOut,
        _ => header.status,
    };
    let mut answer = json!({
        "executionArn": doors.place.express(machine, &header.name, header.id),
        "stateMachineArn": doors.place.machine(machine),
        "name": header.name,
        "status": status.name(),
        "startDate": header.started_at.as_seconds(),
        "billingDetails": {"billedMemoryUsedInMB": BILLED_MEMORY_MB, "billedDurationInMilliseconds": billed_ms},
    });
    put_time(&mut answer, "stopDate", Some(stopped_at));
    put_data(&mut answer, "input", &header.input, true);
    put_outcome(&mut answer, header.outcome.as_ref(), true);
    if let Some(trace) = &header.trace_header {
        answer["traceHeader"] = trace.as_str().into();
    }
    answer
}
