//! `conveyor validate`: all problems of a definition at once, and what can never happen in it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use conveyor_appliance::Config;
use conveyor_appliance::is_local;
use conveyor_asl::{self as asl, Problem, Severity, WorkflowType};
use conveyor_resources::{covers, forward, functions, task_name};
use serde_json::{Value, json};

#[derive(Debug, Args)]
pub struct Validate {
    /// Amazon States Language, as JSON.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// For an express state machine, which allows less.
    #[arg(long)]
    express: bool,
    /// The appliance's configuration: also say which Tasks name what that box does not have.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What can happen to an execution that is started with this input, instead of with any.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Only errors.
    #[arg(long)]
    no_warnings: bool,
    /// One JSON object for each problem.
    #[arg(long)]
    json: bool,
}

/// Prints each problem as `file:line:column: /pointer: text [CODE]`; fails when any file has an error.
pub fn run(asked: &Validate) -> anyhow::Result<ExitCode> {
    let config = asked.config.as_deref().map(Config::read).transpose()?;
    let workflow = if asked.express { WorkflowType::Express } else { WorkflowType::Standard };
    let input = asked.input.as_deref().map(read_json).transpose()?;
    let mut refused = false;
    for file in &asked.files {
        let name = file.display();
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
        let (machine, mut problems) = asl::review(&text, workflow, input.as_ref());
        if let (Some(config), true) = (&config, machine.is_some()) {
            problems.extend(not_here(&text, workflow, config));
            problems.sort_by_key(|problem| (problem.line, problem.column));
        }
        let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
        let warnings = problems.len() - errors;
        refused |= errors > 0;
        for problem in problems.iter().filter(|p| p.severity == Severity::Error || !asked.no_warnings) {
            match asked.json {
                true => println!("{}", as_json(&name.to_string(), problem)),
                false => println!("{name}:{problem} [{}]", problem.code),
            }
        }
        if !asked.json {
            let states = machine.map(|machine| format!("{} states, ", machine.states.len())).unwrap_or_default();
            let verdict = if errors == 0 { "valid" } else { "not valid" };
            println!("{name}: {verdict}: {states}{}, {}", counted(errors, "error"), counted(warnings, "warning"));
        }
    }
    Ok(if refused { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn read_json(path: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn as_json(file: &str, problem: &Problem) -> Value {
    let severity = if problem.severity == Severity::Error { "ERROR" } else { "WARNING" };
    json!({"file": file, "severity": severity, "code": problem.code, "message": problem.message,
        "pointer": problem.pointer, "line": problem.line, "column": problem.column})
}

/// Tasks whose Resource the configured box has not, as far as the configuration tells.
fn not_here(text: &str, workflow: WorkflowType, config: &Config) -> Vec<Problem> {
    let aws = config.aws.clone().or_environment(|name| std::env::var(name).ok());
    let elsewhere = aws.endpoint.is_some();
    let mut problems = Vec::new();
    for (resource, mut problem) in asl::resources(text, workflow) {
        let function = covers(functions::ARN, &resource);
        let name = resource.split_once(":function:").map(|(_, rest)| rest.split(':').next().unwrap_or(rest));
        let served = |name| config.functions.contains_key(name) || config.lambda.endpoint.is_some() || elsewhere;
        let message = match name.filter(|_| function) {
            // Activities are created at run time.
            _ if resource.contains(":activity:") => continue,
            Some(name) if !served(name) => {
                format!("There is no function '{name}': give it a table [functions.{name}], or set [lambda] endpoint.")
            }
            _ if is_local(&resource) => continue,
            _ if !task_name(&resource).is_some_and(forward::is_operation) => {
                format!("This box has no resource '{resource}'.")
            }
            _ if elsewhere => continue,
            _ => format!("'{resource}' is an operation of AWS: it needs an endpoint under [aws], or AWS_ENDPOINT_URL."),
        };
        problem.message = message;
        problems.push(problem);
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_without_endpoint_and_functions_says_what_it_has_not() {
        let said = |resource: &str| {
            let text = json!({"StartAt": "A", "States": {"A": {"Type": "Task", "Resource": resource, "End": true}}});
            let problems = not_here(&text.to_string(), WorkflowType::Standard, &Config::default());
            problems.into_iter().map(|problem| problem.message).collect::<String>()
        };
        for here in ["conveyor:claim", "aws-sdk:s3:getObject", "aws-sdk:sqs:sendMessage", "sqs:sendMessage"] {
            assert_eq!(said(&format!("arn:aws:states:::{here}")), "", "{here}");
        }
        assert_eq!(said("arn:aws:states:us-east-1:000000000000:activity:encode"), "");
        for (resource, words) in [
            ("arn:aws:states:::conveyor:nonsense", "no resource"),
            ("arn:aws:states:::aws-sdk:sfn:deleteStateMachine", "no resource"),
            ("arn:aws:states:::ecs:runTask", "an operation of AWS"),
            ("arn:aws:states:::aws-sdk:sqs:addPermission", "an operation of AWS"),
            ("arn:aws:lambda:us-east-1:000000000000:function:qc:live", "no function 'qc'"),
        ] {
            assert!(said(resource).contains(words), "{resource}: {}", said(resource));
        }
    }
}
