//! Requests that are refused: the operation, what is asked, the exception's name, and its message as AWS words it.
//! Where AWS's words are not known the message is empty and not looked at.
//!
//! They are meant for an appliance that has the state machine `passes`.

use serde_json::{Value, json};

const MACHINE: &str = "arn:aws:states:us-east-1:000000000000:stateMachine:passes";
const EXECUTION: &str = "arn:aws:states:us-east-1:000000000000:execution:passes:none";

type Case = (&'static str, Value, &'static str, String);

pub fn cases() -> Vec<Case> {
    [starts(), lists(), machines(), settings(), tags(), versions(), aliases(), trials(), reports()].concat()
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

fn settings() -> Vec<Case> {
    let create = |field: &str, value: Value| {
        json!({"name": "new", "roleArn": "arn:aws:iam::000000000000:role/any", field: value,
            "definition": r#"{"StartAt": "B", "States": {"B": {"Type": "Succeed"}}}"#})
    };
    let logging = |value: Value| create("loggingConfiguration", value);
    let log_group = |name: &str| json!({"cloudWatchLogsLogGroup": {"logGroupArn": name}});
    let several = "Invalid Logging Configuration: Must specify exactly one Log Destination.";
    let invalid = "InvalidLoggingConfiguration";
    let group = log_group("arn:aws:logs:us-east-1:000000000000:log-group:/aws/states/main:*");
    vec![
        case("CreateStateMachine", logging(json!({"level": "ALL"})), invalid, several),
        case("CreateStateMachine", logging(json!({"destinations": [group, group]})), invalid, several),
        case("CreateStateMachine", logging(json!({"destinations": [log_group("somewhere")]})), invalid, ""),
        case(
            "CreateStateMachine",
            logging(json!({"level": "SOME"})),
            "ValidationException",
            "1 validation error detected: Value 'SOME' at 'loggingConfiguration.level' failed to satisfy constraint: \
             Member must satisfy enum value set: [ALL, ERROR, FATAL, OFF]",
        ),
        case(
            "CreateStateMachine",
            create("tracingConfiguration", json!("on")),
            "SerializationException",
            "Expected structure or null",
        ),
        case(
            "CreateStateMachine",
            create("versionDescription", json!("no version")),
            "ValidationException",
            "Version description can only be set when publish is true",
        ),
        case("CreateStateMachine", create("encryptionConfiguration", json!({})), "ValidationException", ""),
        case("UpdateStateMachine", json!({"stateMachineArn": MACHINE}), "MissingRequiredParameter", ""),
    ]
}

fn tags() -> Vec<Case> {
    let many: Vec<Value> = (0..51).map(|n| json!({"key": n.to_string(), "value": ""})).collect();
    let missing = format!("{MACHINE}x");
    let no_resource = format!("Resource not found: '{missing}'");
    vec![
        case("TagResource", json!({"resourceArn": MACHINE, "tags": many}), "TooManyTags", ""),
        case(
            "TagResource",
            json!({"resourceArn": MACHINE, "tags": [{"key": ""}]}),
            "ValidationException",
            "1 validation error detected: Value '' at 'tags.1.member.key' failed to satisfy constraint: Member must have \
             length greater than or equal to 1",
        ),
        invalid("TagResource", json!({"resourceArn": MACHINE}), "tags", "Member must not be null"),
        case("ListTagsForResource", json!({"resourceArn": missing}), "ResourceNotFound", &no_resource),
        case("UntagResource", json!({"resourceArn": missing, "tagKeys": []}), "ResourceNotFound", &no_resource),
    ]
}

fn versions() -> Vec<Case> {
    let no_machine = |arn: &str| format!("State Machine Does Not Exist: '{arn}'");
    let (version, missing) = (format!("{MACHINE}:1"), format!("{MACHINE}x"));
    vec![
        case(
            "PublishStateMachineVersion",
            json!({"stateMachineArn": missing}),
            "StateMachineDoesNotExist",
            &no_machine(&missing),
        ),
        case(
            "PublishStateMachineVersion",
            json!({"stateMachineArn": MACHINE, "revisionId": "other"}),
            "ConflictException",
            "Failed to publish the State Machine version for revision other. The current State Machine revision is \
             INITIAL.",
        ),
        case(
            "UpdateStateMachine",
            json!({"stateMachineArn": version, "roleArn": "arn:aws:iam::000000000000:role/any"}),
            "StateMachineDoesNotExist",
            &no_machine(&version),
        ),
        case(
            "DescribeStateMachine",
            json!({"stateMachineArn": version}),
            "StateMachineDoesNotExist",
            &no_machine(&version),
        ),
        case("DeleteStateMachineVersion", json!({"stateMachineVersionArn": MACHINE}), "InvalidArn", ""),
        case("StartSyncExecution", json!({"stateMachineArn": MACHINE}), "StateMachineTypeNotSupported", ""),
    ]
}

fn aliases() -> Vec<Case> {
    let create = |name: &str, routes: &[(&str, i64)]| {
        let route = |(version, weight): &(&str, i64)| json!({"stateMachineVersionArn": format!("{MACHINE}{version}"), "weight": weight});
        json!({"name": name, "routingConfiguration": routes.iter().map(route).collect::<Vec<_>>()})
    };
    let one = |name: &str, routes: &[(&str, i64)], message: &str| {
        case("CreateStateMachineAlias", create(name, routes), "ValidationException", message)
    };
    let received =
        |versions: &[&str]| versions.iter().map(|version| format!("{MACHINE}{version}")).collect::<Vec<_>>().join(", ");
    vec![
        one(
            "7",
            &[(":1", 100)],
            "1 validation error detected: Value '7' at 'name' failed to satisfy constraint: Member must satisfy regular \
             expression pattern: ^(?=.*[a-zA-Z_\\-\\.])[a-zA-Z0-9_\\-\\.]+$",
        ),
        one(
            "live",
            &[(":1", 30), (":2", 30)],
            "Sum of routing configuration weights must equal 100. Received: [30, 30]",
        ),
        one(
            "live",
            &[(":1", 50), (":1", 50)],
            &format!(
                "Routing configuration must contain distinct state machine version ARNs. Received: [{}]",
                received(&[":1", ":1"])
            ),
        ),
        one(
            "live",
            &[("", 100)],
            &format!("Routing configuration must contain state machine version ARNs. Received: [{}]", received(&[""])),
        ),
        case("CreateStateMachineAlias", create("live", &[(":1", 100)]), "ResourceNotFound", ""),
        case("DescribeStateMachineAlias", json!({"stateMachineAliasArn": MACHINE}), "InvalidArn", ""),
        case(
            "DeleteStateMachineAlias",
            json!({"stateMachineAliasArn": format!("{MACHINE}:live")}),
            "ResourceNotFound",
            "",
        ),
    ]
}

fn trials() -> Vec<Case> {
    let pass = r#"{"Type": "Pass", "End": true}"#;
    let map =
        r#"{"Type": "Map", "End": true, "ItemProcessor": {"StartAt": "A", "States": {"A": {"Type": "Succeed"}}}}"#;
    let queue = r#"{"Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage", "End": true}"#;
    let trial = |definition: &str, field: &str, value: Value, message: &str| {
        case("TestState", json!({"definition": definition, field: value}), "ValidationException", message)
    };
    let one_of_two = "A test mock should have only one of the following fields: [result, errorOutput].";
    vec![
        trial(pass, "mock", json!({"result": "{}"}), "State type 'Pass' is not supported when a mock is specified"),
        trial(map, "mock", json!({"result": "{}"}), "Mocked result must be an array."),
        trial(queue, "mock", json!({}), one_of_two),
        trial(queue, "mock", json!({"result": "{}", "errorOutput": {"error": "E"}}), one_of_two),
        trial(
            queue,
            "mock",
            json!({"result": "{\"MessageId\": 7}"}),
            "Mock result schema validation error: Field 'MessageId' must be a string",
        ),
        trial(
            queue,
            "mock",
            json!({"result": "{}", "fieldValidationMode": "LOOSE"}),
            "1 validation error detected: Value 'LOOSE' at 'mock.fieldValidationMode' failed to satisfy constraint: Member \
             must satisfy enum value set: [STRICT, PRESENT, NONE]",
        ),
        trial(map, "revealSecrets", json!(true), ""),
        case("TestState", json!({"definition": pass, "input": "{"}), "InvalidExecutionInput", ""),
        case("TestState", json!({"definition": "{}"}), "InvalidDefinition", ""),
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
