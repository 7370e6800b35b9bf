//! Whether a job may, must or must not use a GPU.

use serde::{Deserialize, Serialize};

use super::reader::Reader;

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

/// `AccelerationSettings.Mode` of a job: `PREFERRED`, `ENABLED`, `DISABLED`.
pub(super) fn read(job: &Reader) -> Option<Acceleration> {
    use Acceleration::{Disabled, Preferred, Required};
    let settings = job.object("AccelerationSettings")?;
    if !settings.has("Mode") {
        settings.fault("Mode", "is missing; AccelerationSettings needs it");
    }
    settings.choose("Mode", &[("PREFERRED", Preferred), ("ENABLED", Required), ("DISABLED", Disabled)])
}
