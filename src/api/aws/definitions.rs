//! ValidateStateMachineDefinition: all problems of a definition, in AWS's shape.

use conveyor_asl::{self as asl, Problem, Severity, WorkflowType};
use conveyor_base::limits::quotas;
use serde_json::{Value, json};

use super::fields::Fields;
use crate::ApiError;

pub fn validate(mut fields: Fields) -> Result<Value, ApiError> {
    let definition = fields.named("definition", quotas().definition_bytes());
    let kind = fields.one_of("type", super::machines::TYPES);
    let severity = fields.one_of("severity", &["ERROR", "WARNING"]);
    let limit = fields.max_results(100, 100);
    fields.done()?;
    let (machine, mut problems) = asl::review(&definition, workflow_type(kind.as_deref()), None);
    let failed = machine.is_none();
    if !failed {
        // What can never happen is no reason to refuse: AWS takes the definition.
        problems.iter_mut().for_each(|problem| problem.severity = Severity::Warning);
    }
    let wanted = |p: &&Problem| p.severity == Severity::Error || severity.as_deref() == Some("WARNING");
    let shown: Vec<&Problem> = problems.iter().filter(wanted).collect();
    Ok(json!({
        "result": if failed { "FAIL" } else { "OK" },
        "diagnostics": shown.iter().take(limit).map(|p| diagnostic(p)).collect::<Vec<_>>(),
        "truncated": shown.len() > limit,
    }))
}

pub fn workflow_type(kind: Option<&str>) -> WorkflowType {
    match kind {
        Some("EXPRESS") => WorkflowType::Express,
        _ => WorkflowType::Standard,
    }
}

fn diagnostic(problem: &Problem) -> Value {
    let severity = match problem.severity {
        Severity::Error => "ERROR",
        Severity::Warning => "WARNING",
    };
    let mut shown = json!({"severity": severity, "code": problem.code, "message": problem.message});
    if let Some(location) = &problem.location {
        shown["location"] = location.as_str().into();
    }
    shown
}
