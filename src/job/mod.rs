//! What a stage's child process receives and what it says while it works: plain types that the kernel, which leases and
//! watches, shares with the media, which it must not see.
//!
//! Must never: do anything. Holds: what one release's appliance writes its own child reads, since both are one binary.

mod encoder;

use std::path::PathBuf;

use conveyor_base::Shares;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use encoder::Encoder;

/// Cores that a transcode gets where the box has as many: more make one file hardly faster, and all of them slower.
pub const TRANSCODE_CORES: u32 = 4;

/// One piece of work for one child process: JSON on its standard input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Which stage: `sanitize`, `probe`, `transcode`, `quality` ...
    pub stage: String,
    /// The Task's parameters, as the workflow gave them.
    pub parameters: Value,
    /// Where the stage writes while it works: private to this attempt, on the appliance's own disk, empty at
    /// the start. Results are moved from here into place by rename.
    pub work_dir: PathBuf,
    /// The shares that `s3://` names in the parameters refer to.
    pub shares: Shares,
    /// Cores that the lane leased to this stage.
    pub threads: usize,
    /// The GPU that was leased with them; without one everything runs on cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
}

/// The part of a GPU that a stage was leased. The child sees this GPU and no other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// As people and lanes call it: `gpu0`.
    pub name: String,
    /// As the driver calls it: `GPU-8f3c...`.
    pub uuid: String,
    /// The processors beside it, as the kernel lists them: `0-15,32-47`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<String>,
    /// Whether its decoder was leased, and its encoder.
    pub decode: bool,
    pub encode: bool,
}

/// How far a stage is.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// 0 to 1.
    pub fraction: f64,
    /// Frames a second, for stages that count frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fps: Option<f64>,
    /// Media seconds done per second of wall time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<f64>,
    /// What it is doing, in a few words: `encoding`, `measuring`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub doing: String,
}

/// Where a stage reports its progress. Calls are cheap and may be frequent: the receiver thins them out.
pub trait Reporter: Send + Sync {
    fn progress(&self, progress: Progress);
}

impl<F: Fn(Progress) + Send + Sync> Reporter for F {
    fn progress(&self, progress: Progress) {
        self(progress)
    }
}

/// Whether a job may, must or must not use a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acceleration {
    /// On a GPU where one can do it and that is faster; on cores otherwise.
    #[default]
    Preferred,
    /// On a GPU, and on no account on cores.
    Required,
    /// On cores.
    Disabled,
}
