//! What the lanes of this box were measured to do: the file `data_dir/benchmarks/speeds.json`.
//!
//! `conveyor bench` writes it, whole or not at all; the lanes read it when the appliance starts and balance by it, and
//! predictions of a transcode's time begin with it. Where it is missing, unreadable or of another format there are
//! simply no measured speeds: nobody may depend on it to work at all.
//!
//! ```json
//! {"format": 1, "measured_at": 1763736000000, "mode": "quick", "disturbed": false,
//!  "lanes": {"cpu": {"decode_mpix_s": {"h264": 400.0}, "encode_mpix_s": {"h264/veryfast": 130.0},
//!                    "ladder": {"fps_alone": 31.0, "fps_best": 33.5, "files_best": 2, "overhead": 1.1}},
//!            "gpu0.nvenc": {"encode_mpix_s": {"h264/P4": 900.0}, "sessions_best": 3},
//!            "gpu0.nvdec": {"decode_mpix_s": {"h264": 3100.0}}}}
//! ```
//!
//! Invariants: every figure is of the whole lane with nothing else on it; units are luma megapixels a second, so that
//! they carry over to other sizes of pictures; a lane's name is the one that the appliance gives it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// The form of the file; another one is not read.
pub const FORMAT: u32 = 1;

/// Measured speeds by lane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speeds {
    pub format: u32,
    pub measured_at: Timestamp,
    /// `quick` or `full`.
    pub mode: String,
    /// Something else used the box meanwhile: the figures are lower than it can.
    pub disturbed: bool,
    /// By lane: `cpu`, `gpu0.nvenc`, `gpu0.nvdec` ...
    pub lanes: BTreeMap<String, LaneSpeed>,
}

/// What one lane does when it does nothing else. What was not measured is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LaneSpeed {
    /// Luma megapixels decoded a second, by codec: `h264`, `hevc`, `av1`.
    pub decode_mpix_s: BTreeMap<String, f64>,
    /// Luma megapixels encoded a second, by codec and preset: `h264/veryfast` on cores, `h264/P4` on NVENC.
    pub encode_mpix_s: BTreeMap<String, f64>,
    /// The recipe's ladder from a 1080p30 file, through the same graphs as every job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ladder: Option<LadderSpeed>,
    /// Parallel sessions above which the throughput grew no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions_best: Option<u32>,
}

/// The ladder's speed, in frames of the source a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LadderSpeed {
    /// One file that has the lane for itself.
    pub fps_alone: f64,
    /// All files together, at the number of files at which that is highest.
    pub fps_best: f64,
    pub files_best: u32,
    /// How much longer it took than its decode and encodes alone: scaling, sound, containers, starting.
    pub overhead: f64,
}

impl Speeds {
    /// Where reports and speeds are kept.
    pub fn folder(data_dir: &Path) -> PathBuf {
        data_dir.join("benchmarks")
    }

    /// Where the file is.
    pub fn path(data_dir: &Path) -> PathBuf {
        Speeds::folder(data_dir).join("speeds.json")
    }

    /// The last measured speeds, where there are any that this release understands.
    pub fn read(data_dir: &Path) -> Option<Speeds> {
        let text = std::fs::read(Speeds::path(data_dir)).ok()?;
        let speeds: Speeds = serde_json::from_slice(&text).ok()?;
        let sound = |speed: &f64| speed.is_finite() && *speed > 0.0;
        let all_sound = speeds.lanes.values().all(|lane| {
            let ladder = lane.ladder.map(|ladder| [ladder.fps_alone, ladder.fps_best, ladder.overhead]);
            lane.decode_mpix_s.values().chain(lane.encode_mpix_s.values()).all(sound)
                && ladder.iter().flatten().all(sound)
        });
        (speeds.format == FORMAT && all_sound).then_some(speeds)
    }

    /// Replaces the file: readers see the old one or the new one.
    pub fn write(&self, data_dir: &Path) -> io::Result<()> {
        std::fs::create_dir_all(Speeds::folder(data_dir))?;
        let path = Speeds::path(data_dir);
        let new = path.with_extension("new");
        std::fs::write(&new, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(new, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_come_back_as_written_and_anything_else_is_no_speeds() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Speeds::read(dir.path()), None);
        let ladder = LadderSpeed { fps_alone: 31.5, fps_best: 33.0, files_best: 2, overhead: 1.1 };
        let cpu = LaneSpeed {
            encode_mpix_s: [("h264/veryfast".to_owned(), 130.0)].into(),
            ladder: Some(ladder),
            ..LaneSpeed::default()
        };
        let mut speeds = Speeds {
            format: FORMAT,
            measured_at: Timestamp(1),
            mode: "quick".into(),
            disturbed: false,
            lanes: [("cpu".to_owned(), cpu)].into(),
        };
        speeds.write(dir.path()).unwrap();
        assert_eq!(Speeds::read(dir.path()), Some(speeds.clone()));
        speeds.format += 1;
        speeds.write(dir.path()).unwrap();
        assert_eq!(Speeds::read(dir.path()), None, "another format");
        std::fs::write(Speeds::path(dir.path()), "{").unwrap();
        assert_eq!(Speeds::read(dir.path()), None, "torn");
    }
}
