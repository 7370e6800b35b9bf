//! What a stage's child process receives and what it says while it works: plain types that the kernel, which leases and
//! watches, shares with the media, which it must not see.
//!
//! Must never: do anything. Holds: what one release's appliance writes its own child reads, since both are one binary.

mod encoder;

use std::path::PathBuf;

use conveyor_base::{Shares, Uri};
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
    /// What of them it may see.
    pub access: Access,
    /// Cores that the lane leased to this stage.
    pub threads: usize,
    /// The GPU that was leased with them; without one everything runs on cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
}

/// What of the shares a stage may see; everything else is not there for it. What is empty is none, not all.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// Files that it reads, and folders that it reads with all that is in them.
    pub reads: Vec<Uri>,
    /// Files whose captions it reads too: `clip.srt` and `clip.en.vtt` beside `clip.mp4`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub captions_of: Vec<Uri>,
    /// Where the files that it makes may be placed: a file's URI must begin with one of these. The stage itself writes
    /// below its work folder; the files are moved when it has ended well.
    pub places: Vec<Uri>,
    /// Shares that it reads and writes as a whole: for stages that move files and open none.
    pub shares: Vec<String>,
}

impl Access {
    /// Reads these and writes nothing but its results.
    pub fn reading(reads: impl IntoIterator<Item = Uri>) -> Access {
        Access { reads: reads.into_iter().collect(), ..Access::default() }
    }

    /// Whether a result may name a file: one that the stage reads or makes, or the captions beside one.
    pub fn may_name(&self, uri: &Uri) -> bool {
        let within = |folder: &Uri| {
            let rest = uri.key.strip_prefix(folder.key.trim_end_matches('/'));
            folder.share == uri.share
                && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || folder.key.is_empty())
        };
        let beside = |file: &Uri| {
            let folder = |uri: &Uri| uri.key.rsplit_once('/').map(|(folder, _)| folder.to_owned());
            file.share == uri.share && folder(file) == folder(uri) && uri.file_name().starts_with(file.stem())
        };
        let makes =
            |place: &Uri| place.share == uri.share && place.key.trim_end_matches('/') == uri.key.trim_end_matches('/');
        self.may_place(uri)
            || self.places.iter().any(makes)
            || self.reads.iter().any(within)
            || self.captions_of.iter().any(beside)
    }

    /// Whether a file may be placed under this name.
    pub fn may_place(&self, to: &Uri) -> bool {
        self.places.iter().any(|place| place.share == to.share && to.key.starts_with(&place.key))
    }
}

/// A finished file of a stage, and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placing {
    /// Relative to the work folder.
    pub from: PathBuf,
    pub to: Uri,
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

/// Where a stage says how far it is and what it has made.
pub trait Reporter: Send + Sync {
    /// Calls are cheap and may be frequent: the receiver thins them out.
    fn progress(&self, progress: Progress);

    /// A file is finished. Once the stage has ended well, the files are placed in the order in which they were told:
    /// what others refer to comes before what refers to it.
    fn made(&self, file: Placing);
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
