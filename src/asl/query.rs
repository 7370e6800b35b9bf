//! What a definition asks of its data, compiled: paths, intrinsic calls, templates, conditions.

/// A JSONPath.
#[derive(Debug)]
pub struct Path;
/// Where a result goes.
#[derive(Debug)]
pub struct ReferencePath;
/// A payload template.
#[derive(Debug)]
pub struct Template;
/// A path or an intrinsic call.
#[derive(Debug)]
pub struct Query;
/// The test of a choice rule.
#[derive(Debug)]
pub struct Condition;
