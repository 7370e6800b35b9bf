//! Floor 5: what a Task may name, one file per family.

pub mod items;
