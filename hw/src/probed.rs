//! What probing the hardware gave: a value, a plain "there is none", or the reason why nobody knows.

use serde::Serialize;

/// In JSON the value itself, `{"absent": why}` or `{"unknown": why}`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Probed<T> {
    Known(T),
    /// The hardware was asked and has none.
    Absent {
        absent: String,
    },
    /// It could not be asked.
    Unknown {
        unknown: String,
    },
}

impl<T> Probed<T> {
    pub fn absent(why: impl Into<String>) -> Probed<T> {
        Probed::Absent { absent: why.into() }
    }

    pub fn unknown(why: impl ToString) -> Probed<T> {
        Probed::Unknown { unknown: why.to_string() }
    }

    pub fn known(&self) -> Option<&T> {
        match self {
            Probed::Known(value) => Some(value),
            Probed::Absent { .. } | Probed::Unknown { .. } => None,
        }
    }

    /// Why there is no value.
    pub fn why(&self) -> Option<&str> {
        match self {
            Probed::Known(_) => None,
            Probed::Absent { absent: why } | Probed::Unknown { unknown: why } => Some(why),
        }
    }
}

impl<T, E: std::fmt::Display> From<Result<T, E>> for Probed<T> {
    fn from(result: Result<T, E>) -> Probed<T> {
        result.map_or_else(Probed::unknown, Probed::Known)
    }
}
