//! What a file shows and says, found by measurement alone: shots, captions, speech-like sound, and a summary of facts.
//!
//! Each analysis writes its whole result as a JSON file under `destination` and returns a short form, since the output
//! of a state is capped. None of them recognises objects, faces or words; each result says so under `limits`.

pub mod captions;
pub mod decode;
pub mod report;
pub mod sound;
pub mod spans;
pub mod thumb;
