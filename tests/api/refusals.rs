//! Requests that are refused: the operation, what is asked, the exception's name, and its message as AWS words it.
//! Where AWS's words are not known the message is empty and not looked at.
//!
//! They are meant for an appliance that has the state machine `passes`.

use serde_json::{Value, json};

const MACHINE: &str = "arn:aws:states:us-east-1:000000000000:stateMachine:passes";
const EXECUTION: &str = "arn:aws:states:us-east-1:000000000000:execution:passes:none";

type Case = (&'static str, Value, &'static str, String);

pub fn cases() -> Vec<Case> {
    [starts(), lists(), machines(), reports()].concat()
}

fn case(operation: &'static str, request: Value, code: &'static str, message: &str) -> Case {
    (operation, request, code, message.to_owned())
}

/// One field against one constraint. Sensitive fields show no value.
fn invalid(operation: &'static str, request: Value, field: &str, constraint: &str) -> Case {
    let value = match &request[field] {
        _ if ["input", "cause"].contains(&field) => String::new(),
        Value::Null => " null".to_owned(),
        Value::String(text) => format!(" '{text}'"),
        other => format!(" '{other}'"),
    };
    let message =
        format!("1 validation error detected: Value{value} at '{field}' failed to satisfy constraint: {constraint}");
    (operation, request, "ValidationException", message)
}

fn long(chars: usize) -> String {
    "x".repeat(chars)
}

fn starts() -> Vec<Case> {
    let start = |mut request: Value| {
        request.as_object_mut().unwrap().entry("stateMachineArn").or_insert_with(|| MACHINE.into());
        request
    };
    let missing = |arn: String| {
        let message = format!("State Machine Does Not Exist: '{arn}'");
        case("StartExecution", json!({"stateMachineArn": arn}), "StateMachineDoesNotExist", &message)
    };
    let arn = |arn: &str, message: &str| case("StartExecution", json!({"stateMachineArn": arn}), "InvalidArn", message);
    let input = json!({"input": format!("\"{}\"", long(262_143))});
    vec![
        invalid("StartExecution", json!({}), "stateMachineArn", "Member must not be null"),
        invalid(
            "StartExecution",
            start(json!({"name": long(81)})),
            "name",
            "Member must have length less than or equal to 80",
        ),
        invalid("StartExecution", start(input), "input", "Member must have length less than or equal to 262144"),
        case(
            "StartExecution",
            json!({"stateMachineArn": 7}),
            "SerializationException",
            "NUMBER_VALUE cannot be converted to String",
        ),
        case(
            "StartExecution",
            start(json!({"input": {"a": 1}})),
            "SerializationException",
            "Start of structure or map found where not expected.",
        ),
        case("StartExecution", start(json!({"name": "a b"})), "InvalidName", "Invalid Name: 'a b'"),
        case("StartExecution", start(json!({"input": "{"})), "InvalidExecutionInput", ""),
        missing(format!("{MACHINE}x")),
        missing(format!("{MACHINE}:9")),
        arn("passes", "Invalid Arn: 'Invalid ARN prefix: passes'"),
        arn(EXECUTION, "Invalid Arn: 'Resource type not valid in this context: execution'"),
    ]
}

fn lists() -> Vec<Case> {
    let list = |field: &str, value: Value| json!({"stateMachineArn": MACHINE, field: value});
    vec![
        case(
            "ListExecutions",
            json!({"stateMachineArn": MACHINE, "maxResults": 1001, "statusFilter": "DONE"}),
            "ValidationException",
            "2 validation errors detected: Value 'DONE' at 'statusFilter' failed to satisfy constraint: Member must \
             satisfy enum value set: [SUCCEEDED, TIMED_OUT, PENDING_REDRIVE, ABORTED, FAILED, RUNNING]; Value '1001' at \
             'maxResults' failed to satisfy constraint: Member must have value less than or equal to 1000",
        ),
        case(
            "ListExecutions",
            list("maxResults", json!("many")),
            "SerializationException",
            "STRING_VALUE cannot be converted to Integer",
        ),
        case("ListExecutions", list("nextToken", json!("%")), "InvalidToken", "Invalid Token: 'Invalid token'"),
        invalid(
            "ListStateMachines",
            json!({"nextToken": ""}),
            "nextToken",
            "Member must have length greater than or equal to 1",
        ),
        invalid(
            "ListStateMachines",
            json!({"maxResults": -1}),
            "maxResults",
            "Member must have value greater than or equal to 0",
        ),
        case(
            "GetExecutionHistory",
            json!({"executionArn": EXECUTION, "reverseOrder": "yes"}),
            "SerializationException",
            "STRING_VALUE cannot be converted to Boolean",
        ),
    ]
}

fn machines() -> Vec<Case> {
    let create = |name: &str, definition: &str| json!({"name": name, "definition": definition, "roleArn": "arn:aws:iam::000000000000:role/any"});
    let other = r#"{"StartAt": "B", "States": {"B": {"Type": "Succeed"}}}"#;
    vec![
        case(
            "Nonsense",
            json!({}),
            "UnknownOperationException",
            "The operation 'Nonsense' is not supported by this box",
        ),
        case("CreateStateMachine", create("a/b", "{}"), "InvalidName", "Invalid Name: 'a/b'"),
        case(
            "CreateStateMachine",
            create("new", "{}"),
            "InvalidDefinition",
            "Invalid State Machine Definition: 'SCHEMA_VALIDATION_FAILED: These fields are required: [States, StartAt] at /'",
        ),
        case("CreateStateMachine", create("passes", other), "StateMachineAlreadyExists", ""),
        invalid(
            "CreateActivity",
            json!({"name": long(81)}),
            "name",
            "Member must have length less than or equal to 80",
        ),
    ]
}

fn reports() -> Vec<Case> {
    let missing = format!("Execution Does Not Exist: '{EXECUTION}'");
    let token = |more: Value| {
        let mut request = more;
        request["taskToken"] = json!("none");
        request
    };
    vec![
        case("DescribeExecution", json!({"executionArn": EXECUTION}), "ExecutionDoesNotExist", &missing),
        case("StopExecution", json!({"executionArn": EXECUTION}), "ExecutionDoesNotExist", &missing),
        case("SendTaskSuccess", token(json!({"output": "{}"})), "InvalidToken", "Invalid Token: 'Invalid token'"),
        case("SendTaskSuccess", token(json!({"output": "{"})), "InvalidToken", "Invalid Token: 'Invalid token'"),
        invalid(
            "SendTaskFailure",
            token(json!({"cause": long(32_769)})),
            "cause",
            "Member must have length less than or equal to 32768",
        ),
        invalid(
            "RedriveExecution",
            json!({"executionArn": EXECUTION, "clientToken": long(65)}),
            "clientToken",
            "Member must have length less than or equal to 64",
        ),
    ]
}
