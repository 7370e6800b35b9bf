//! Floor 6: what starts by the clock.

pub mod rule;

pub use rule::{Rule, RuleError};
