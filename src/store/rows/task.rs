//! The row of a task that is issued again after a crash.

use std::sync::Arc;

use conveyor_base::{Attempt, BranchId, ExecutionId, TaskToken, Timestamp};
use conveyor_interpreter::RunTask;
use rkyv::{Archive, Serialize};

use super::Row;

#[derive(Archive, Serialize)]
pub(crate) struct TaskRow {
    pub branch: u32,
    pub state: String,
    pub resource: String,
    pub parameters: String,
    pub token_nonce: Option<u128>,
    pub timeout_ms: Option<i64>,
    pub heartbeat_ms: Option<i64>,
    pub retry_count: u32,
    pub scheduled_at: i64,
}

impl Row for TaskRow {}

impl From<&RunTask> for TaskRow {
    fn from(task: &RunTask) -> TaskRow {
        TaskRow {
            branch: task.branch.0,
            state: task.state.to_string(),
            resource: task.resource.clone(),
            parameters: task.parameters.to_string(),
            token_nonce: task.token.map(|t| t.nonce),
            timeout_ms: task.timeout_ms,
            heartbeat_ms: task.heartbeat_ms,
            retry_count: task.retry_count,
            scheduled_at: task.scheduled_at.0,
        }
    }
}

pub(crate) fn task_from(execution: ExecutionId, attempt: Attempt, row: &ArchivedTaskRow) -> RunTask {
    RunTask {
        attempt,
        branch: BranchId(row.branch.to_native()),
        state: Arc::from(row.state.as_str()),
        resource: row.resource.to_string(),
        parameters: Arc::from(row.parameters.as_str()),
        token: row.token_nonce.as_ref().map(|nonce| TaskToken { execution, attempt, nonce: nonce.to_native() }),
        timeout_ms: row.timeout_ms.as_ref().map(|ms| ms.to_native()),
        heartbeat_ms: row.heartbeat_ms.as_ref().map(|ms| ms.to_native()),
        retry_count: row.retry_count.to_native(),
        scheduled_at: Timestamp(row.scheduled_at.to_native()),
    }
}
