//! api

pub mod history;
