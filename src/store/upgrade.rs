//! `upgrade` brings the files of older releases to this release's form, before anything opens them.
//!
//! No release had another form so far. A migration belongs here as a function from one number to the next, which changes
//! the number in the transaction that makes its last change: one that was interrupted is then begun again.

use std::fmt;
use std::sync::Arc;

use super::disk::{Backends, Disk, STATE, file_fault, state_fault};
use super::open::{FORMAT_VERSION, format_of, lock, must_be_there};
use crate::base::Fault;

/// What `upgrade` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upgrade {
    pub from: u32,
    pub to: u32,
}

impl fmt::Display for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from == self.to {
            write!(f, "the files have format {}, which is this release's: nothing to do", self.to)
        } else {
            write!(f, "upgraded the files from format {} to format {}", self.from, self.to)
        }
    }
}

/// Brings the files to this release's format.
pub fn upgrade(backends: &Arc<dyn Backends>) -> Result<Upgrade, Fault> {
    let _lock = lock(&**backends)?;
    must_be_there(&**backends)?;
    let place = backends.place();
    let file = Disk(backends.open(STATE).map_err(file_fault(&**backends, STATE))?);
    let state = redb::Builder::new().create_with_backend(file).map_err(state_fault)?;
    match format_of(&state)? {
        FORMAT_VERSION => Ok(Upgrade { from: FORMAT_VERSION, to: FORMAT_VERSION }),
        newer if newer > FORMAT_VERSION => Err(Fault::fatal_plain(format!(
            "{place}/{STATE} has format {newer}, which a newer release wrote; this release knows formats up to \
             {FORMAT_VERSION}: start the newer release, or restore a backup"
        ))),
        unknown => Err(Fault::fatal_plain(format!(
            "{place}/{STATE} has format {unknown}, which no release wrote; begin with an empty data directory"
        ))),
    }
}
