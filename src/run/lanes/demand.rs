//! What a stage needs: work to be done, never the name of a lane. Which lane does it, [`super::place`] decides.

use conveyor_job::Acceleration;
use serde::Serialize;

/// Lowest and highest priority of a job, as MediaConvert has them; what has none stands at 0.
pub(crate) const PRIORITY_MIN: i8 = -50;
pub(crate) const PRIORITY_MAX: i8 = 50;

/// What a stage demands of the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    pub work: Work,
    /// Among stages of one priority the lower rank goes first.
    pub rank: u8,
    /// Higher goes first: above 0 is urgent, below it background. `None`: what the execution's input says.
    pub priority: Option<i8>,
}

/// Kinds of work. Equal work waits in one queue, so there must be few different ones: sizes are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// Moves bytes, or waits for somebody outside.
    Disks { weight: u32 },
    /// Computes on cores.
    Cores { weight: u32 },
    /// Decodes moving pictures, and encodes them.
    Pictures(Pictures),
    /// Computes on a GPU, or waits for a process that does without.
    Inference { acceleration: Acceleration },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pictures {
    /// Cores where no GPU takes part.
    pub cores: u32,
    pub encodes: Option<Encodes>,
    pub acceleration: Acceleration,
}

/// All encodes of one stage, which run side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Encodes {
    pub codec: Codec,
    pub sessions: u32,
    /// The largest side lengths among them, rounded up.
    pub width_max: u32,
    pub height_max: u32,
    /// Luma megapixels of one frame in all sizes together, rounded up.
    pub mpix: u32,
    /// Why no GPU can make them, where it is known beforehand.
    pub cores_only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    H264,
}

impl Codec {
    pub fn name(self) -> &'static str {
        match self {
            Codec::H264 => "h264",
        }
    }
}

impl Work {
    pub fn acceleration_mut(&mut self) -> Option<&mut Acceleration> {
        match self {
            Work::Pictures(Pictures { acceleration, .. }) | Work::Inference { acceleration } => Some(acceleration),
            Work::Disks { .. } | Work::Cores { .. } => None,
        }
    }
}

impl Demand {
    pub fn disks() -> Demand {
        Demand { work: Work::Disks { weight: 1 }, rank: Demand::RANK, priority: None }
    }

    pub fn cores(weight: u32) -> Demand {
        Demand { work: Work::Cores { weight }, rank: Demand::RANK, priority: None }
    }

    pub fn inference(acceleration: Acceleration) -> Demand {
        Demand { work: Work::Inference { acceleration }, ..Demand::disks() }
    }

    /// What has no rank of its own stands in the midst.
    pub const RANK: u8 = 50;

    /// Whether it keeps neither cores nor engines busy.
    pub fn is_light(&self) -> bool {
        matches!(self.work, Work::Disks { .. } | Work::Inference { .. })
    }
}

impl Encodes {
    /// One encode after the other is added.
    pub fn of(codec: Codec, sizes: impl IntoIterator<Item = (u32, u32)>, cores_only: bool) -> Option<Encodes> {
        /// What tells GPUs apart; everything between is one kind of work.
        const SIDES: [u32; 4] = [1_280, 1_920, 4_096, 8_192];
        const SESSIONS_TOLD_APART: u32 = 16;
        let round = |side: u32| SIDES.into_iter().find(|limit| side <= *limit).unwrap_or(u32::MAX);
        let (mut sessions, mut pixels) = (0u32, 0u64);
        let (mut width_max, mut height_max) = (0, 0);
        for (width, height) in sizes {
            sessions += 1;
            pixels += u64::from(width) * u64::from(height);
            width_max = width_max.max(width);
            height_max = height_max.max(height);
        }
        let mpix = u32::try_from(pixels.div_ceil(1_000_000)).unwrap_or(u32::MAX).max(1).next_power_of_two();
        let (width_max, height_max) = (round(width_max), round(height_max));
        let sessions = sessions.min(SESSIONS_TOLD_APART);
        (sessions > 0).then_some(Encodes { codec, sessions, width_max, height_max, mpix, cores_only })
    }
}

/// The word for a priority.
pub(super) fn band(priority: i8) -> &'static str {
    match priority {
        1.. => "urgent",
        0 => "normal",
        _ => "background",
    }
}
