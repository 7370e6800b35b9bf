//! What a file shows and says, found by measurement alone: shots, captions, speech-like sound, and a summary of facts.
//!
//! Each analysis writes its whole result as a JSON file under `destination` and returns a short form, since the output
//! of a state is capped. None of them recognises objects, faces or words; each result says so under `limits`.

pub mod brief;
pub mod captions;
mod cea608;
mod cea708;
pub mod closed;
pub mod decode;
pub mod labels;
pub mod meaning;
pub mod report;
pub mod shots;
pub mod sound;
pub mod spans;
#[cfg(test)]
mod tests;
pub mod thumb;
pub mod transcript;
