//! Floor 6: files that people drop on a share become executions.
//!
//! [`settle`] says when a file is whole, [`name`] which names count and what an execution for a file is called.

pub mod name;
pub mod settle;
