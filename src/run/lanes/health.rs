//! Whether a lane takes work: open, drained after a failure, or on trial afterwards. Pure.
//!
//! ```text
//!        failure                    its time is over              a stage ends
//! open ──────────> drained until … ──────────────────> on trial ───────────────> open
//!                       ^                                  │ failure: twice as long
//!                       └──────────────────────────────────┘
//! ```
//!
//! A drained lane takes nothing; what runs on it runs on. On trial it takes one stage.

use conveyor_base::Timestamp;

/// What a device's failure means for its lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceFailure {
    /// Whether the whole GPU is meant, or its encoder alone.
    pub whole_gpu: bool,
    pub first_ms: i64,
    pub longest_ms: i64,
}

/// The errors by which a stage says that its device failed, and not its file.
///
/// | error | when | drained |
/// |---|---|---|
/// | `Device.Lost` | the GPU is gone, or its driver answers no more | the GPU, 30 s to 30 min |
/// | `Device.Failed` | the driver reports an error that it does not explain | the GPU, 5 s to 10 min |
/// | `Device.OutOfMemory` | the GPU's memory is full | the GPU, 5 s to 1 min |
/// | `Device.OutOfSessions` | the driver grants no further encode session | its encoder, 2 s to 1 min |
/// | `Device.Unusable` | GStreamer cannot use the GPU on this box | the GPU, 10 min to 1 h |
/// | `Device.Unsupported` | this GPU does not do what this file or job needs | nothing |
pub fn device_failure(error: &str) -> Option<DeviceFailure> {
    const SECOND: i64 = 1_000;
    const MINUTE: i64 = 60 * SECOND;
    let (whole_gpu, first_ms, longest_ms) = match error {
        "Device.Lost" => (true, 30 * SECOND, 30 * MINUTE),
        "Device.Failed" => (true, 5 * SECOND, 10 * MINUTE),
        "Device.OutOfMemory" => (true, 5 * SECOND, MINUTE),
        "Device.OutOfSessions" => (false, 2 * SECOND, MINUTE),
        "Device.Unusable" => (true, 10 * MINUTE, 60 * MINUTE),
        _ => return None,
    };
    Some(DeviceFailure { whole_gpu, first_ms, longest_ms })
}

/// Errors that end an attempt on a GPU and that cores may not meet: a crash or a standstill may be the driver's.
pub fn may_pass_elsewhere(error: &str) -> bool {
    error.starts_with("Device.") || matches!(error, "Stage.Crashed" | "Media.Stalled")
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    Open,
    Drained { until: Timestamp, why: String, failures: u32 },
}

impl Health {
    /// Whether the lane may take one more stage while it carries `busy`.
    pub fn admits(&self, busy: u32, now: Timestamp) -> bool {
        match self {
            Health::Open => true,
            Health::Drained { until, .. } => now >= *until && busy == 0,
        }
    }

    pub fn failed(&mut self, failure: DeviceFailure, why: &str, now: Timestamp) {
        let failures = match self {
            // Stages that fail together are one failure.
            Health::Drained { until, .. } if *until > now => return,
            Health::Drained { failures, .. } => *failures + 1,
            Health::Open => 1,
        };
        let ms = failure.first_ms.saturating_mul(1 << (failures - 1).min(20)).min(failure.longest_ms);
        *self = Health::Drained { until: Timestamp(now.0 + ms), why: why.to_owned(), failures };
    }

    /// A stage on it ended without blaming it.
    pub fn worked(&mut self, now: Timestamp) -> bool {
        let passed = matches!(self, Health::Drained { until, .. } if *until <= now);
        if passed {
            *self = Health::Open;
        }
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_that_fails_again_rests_longer_and_one_success_forgives_it() {
        let lost = device_failure("Device.Lost").unwrap();
        let mut health = Health::Open;
        let mut rests = Vec::new();
        let mut now = Timestamp(0);
        for _ in 0..8 {
            health.failed(lost, "gone", now);
            health.failed(lost, "gone too", now);
            let Health::Drained { until, .. } = health else { panic!("{health:?}") };
            assert!(!health.admits(0, now) && health.admits(0, until) && !health.admits(1, until));
            rests.push((until.0 - now.0) / 1000);
            now = until;
        }
        assert_eq!(rests, [30, 60, 120, 240, 480, 960, 1800, 1800]);
        assert!(health.worked(now) && health == Health::Open && !health.worked(now));
        assert!(device_failure("Device.Unsupported").is_none() && may_pass_elsewhere("Device.Unsupported"));
    }
}
