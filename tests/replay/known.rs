//! Recorded cases that this box does not answer as AWS did yet. The lists may only shrink.

pub const API: &[&str] = &[];
pub const TESTSTATE: &[&str] = &[];
pub const ENGINE: &[&str] = &[];
