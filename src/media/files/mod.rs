//! What a stage does to files as files: hash, place, publish, archive, quarantine, offer again.
//!
//! Invariants, for every stage here: a file is removed only after its copy was synced and its content verified;
//! nothing that belongs to somebody else is overwritten; and a stage that was killed anywhere and runs again ends
//! in the same single result. It must never look into the content of a file: that is for the media stages.

pub mod archive;
pub mod disk;
pub mod fault;
pub mod fingerprint;
pub mod manifest;
pub mod offer;
pub mod place;
pub mod publish;
pub mod quarantine;
#[cfg(test)]
mod races;
#[cfg(test)]
mod tests;

/// Most entries of a list that go into a stage's result; the whole list is in a file (results are capped at 256 KiB).
pub const LISTED_MAX: usize = 100;
