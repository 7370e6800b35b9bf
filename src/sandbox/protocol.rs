//! What a child says on its pipe: one JSON object a line.

use conveyor_base::TaskError;
use conveyor_job::{Placing, Progress};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Jail;

/// One line. `Result` or `Failed` is the last one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The first line: the jail is closed, and the file is not open yet.
    Jailed(Jail),
    Progress(Progress),
    /// A file that is to be placed when the stage has ended well.
    Made(Placing),
    Result(Value),
    Failed(TaskError),
}
