//! Whether a job may, must or must not use a GPU.

use conveyor_job::Acceleration;

use super::reader::Reader;

/// `AccelerationSettings.Mode` of a job: `PREFERRED`, `ENABLED`, `DISABLED`.
pub(super) fn read(job: &Reader) -> Option<Acceleration> {
    use Acceleration::{Disabled, Preferred, Required};
    let settings = job.object("AccelerationSettings")?;
    if !settings.has("Mode") {
        settings.fault("Mode", "is missing; AccelerationSettings needs it");
    }
    settings.choose("Mode", &[("PREFERRED", Preferred), ("ENABLED", Required), ("DISABLED", Disabled)])
}
