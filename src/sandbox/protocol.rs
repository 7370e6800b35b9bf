//! What a child says on its pipe: one JSON object a line.

use conveyor_base::TaskError;
use conveyor_job::Progress;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One line. `Result` or `Failed` is the last one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    Progress(Progress),
    Result(Value),
    Failed(TaskError),
}
