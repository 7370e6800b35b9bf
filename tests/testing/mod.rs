//! What tests and benchmarks share: boxes to test against, a scripted GPU driver, and where things lie. No part of the
//! appliance, and nothing that the appliance depends on.
//!
//! ```text
//! served      the real binary, serving on a folder, killed as by a power cut; its port's client, also one that hangs up
//! appliance   in this process: real store, actors, resources and workflows; the media child is a script
//! api         in this process: real store, actors and API; every Task is a script
//! driver      an NVIDIA driver that does what a script says, for boxes without a GPU
//! exchange    somebody who swaps a file for a link, over and over
//! hostile     definitions that somebody could send to hurt a box
//! rights      what is mounted for one test alone, and tests without the rights of root
//! until       waiting with an end
//! yardstick   what benchmarks measure against, and how
//! ```

// As in tests (clippy.toml): what fails here fails the test, with its place.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[cfg(feature = "appliance")]
pub mod api;
#[cfg(feature = "appliance")]
pub mod appliance;
pub mod driver;
pub mod exchange;
pub mod hostile;
pub mod rights;
pub mod served;
pub mod until;
#[cfg(feature = "bench")]
pub mod yardstick;

use std::path::{Path, PathBuf};

/// The repository's top folder. A crate's tests run in that crate's own folder.
pub fn root() -> &'static Path {
    static ROOT: std::sync::LazyLock<PathBuf> =
        std::sync::LazyLock::new(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap());
    &ROOT
}

/// What lies beside the repository and may be absent: recordings, other people's files.
pub fn shared(name: &str) -> PathBuf {
    root().join("../shared").join(name)
}

/// The folder of this build's programs: the running test or benchmark lies in `deps` there.
pub fn built() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned()
}

/// The appliance's binary: `CONVEYOR_SERVED` names another build of it, so that one test or benchmark can look at
/// several. Cargo builds ours before the tests of the package that it belongs to.
pub fn binary() -> PathBuf {
    std::env::var_os("CONVEYOR_SERVED").map_or_else(|| built().join("conveyor"), PathBuf::from)
}
