//! The answer to a question about hardware: a value, a plain "there is none", or the reason why nobody knows.

use serde::Serialize;

/// In JSON the value itself, `{"absent": why}` or `{"unknown": why}`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer<T> {
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

impl<T> Answer<T> {
    pub fn absent(why: impl Into<String>) -> Answer<T> {
        Answer::Absent { absent: why.into() }
    }

    pub fn unknown(why: impl ToString) -> Answer<T> {
        Answer::Unknown { unknown: why.to_string() }
    }

    pub fn known(&self) -> Option<&T> {
        match self {
            Answer::Known(value) => Some(value),
            Answer::Absent { .. } | Answer::Unknown { .. } => None,
        }
    }

    /// Why there is no value.
    pub fn why(&self) -> Option<&str> {
        match self {
            Answer::Known(_) => None,
            Answer::Absent { absent: why } | Answer::Unknown { unknown: why } => Some(why),
        }
    }
}

impl<T, E: std::fmt::Display> From<Result<T, E>> for Answer<T> {
    fn from(result: Result<T, E>) -> Answer<T> {
        result.map_or_else(Answer::unknown, Answer::Known)
    }
}
