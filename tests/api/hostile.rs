//! Requests that nobody in his right mind sends: every field of every operation, with values of every other kind.

use serde_json::{Value, json};

const MACHINE: &str = "arn:aws:states:us-east-1:000000000000:stateMachine:passes";

/// Operations with all that they may be asked; values are ones that are fine.
pub fn operations() -> Vec<(&'static str, Value)> {
    let definition = r#"{"StartAt": "B", "States": {"B": {"Type": "Succeed"}}}"#;
    let role = "arn:aws:iam::000000000000:role/any";
    let logging = json!({"level": "OFF", "includeExecutionData": true, "destinations": []});
    let tags = json!([{"key": "a", "value": "b"}]);
    let activity = "arn:aws:states:us-east-1:000000000000:activity:none";
    let execution = "arn:aws:states:us-east-1:000000000000:execution:passes:none";
    let map_run = "arn:aws:states:us-east-1:000000000000:mapRun:passes/M:0f0e0d0c";
    let (version, alias) = (format!("{MACHINE}:1"), format!("{MACHINE}:live"));
    let routes = json!([{"stateMachineVersionArn": version, "weight": 100}]);
    vec![
        (
            "CreateStateMachine",
            json!({"name": "new", "definition": definition, "roleArn": role, "type": "STANDARD", "publish": true,
                "loggingConfiguration": logging, "tracingConfiguration": {"enabled": true}, "tags": tags,
                "versionDescription": "v", "encryptionConfiguration": {"type": "AWS_OWNED_KEY"}}),
        ),
        (
            "UpdateStateMachine",
            json!({"stateMachineArn": MACHINE, "definition": definition, "roleArn": role, "publish": false,
                "loggingConfiguration": logging, "tracingConfiguration": {"enabled": true}}),
        ),
        ("DescribeStateMachine", json!({"stateMachineArn": MACHINE, "includedData": "ALL_DATA"})),
        ("DescribeStateMachineForExecution", json!({"executionArn": execution})),
        ("ListStateMachines", json!({"maxResults": 1, "nextToken": "YQ=="})),
        ("PublishStateMachineVersion", json!({"stateMachineArn": MACHINE, "revisionId": "x", "description": "d"})),
        ("ListStateMachineVersions", json!({"stateMachineArn": MACHINE, "maxResults": 1, "nextToken": "YQ=="})),
        ("DeleteStateMachineVersion", json!({"stateMachineVersionArn": version})),
        ("CreateStateMachineAlias", json!({"name": "live", "description": "d", "routingConfiguration": routes})),
        ("UpdateStateMachineAlias", json!({"stateMachineAliasArn": alias, "routingConfiguration": routes})),
        ("DescribeStateMachineAlias", json!({"stateMachineAliasArn": alias})),
        ("ListStateMachineAliases", json!({"stateMachineArn": MACHINE, "maxResults": 1, "nextToken": "YQ=="})),
        ("DeleteStateMachineAlias", json!({"stateMachineAliasArn": alias})),
        ("TagResource", json!({"resourceArn": MACHINE, "tags": tags})),
        ("UntagResource", json!({"resourceArn": MACHINE, "tagKeys": ["a"]})),
        ("ListTagsForResource", json!({"resourceArn": MACHINE})),
        (
            "ValidateStateMachineDefinition",
            json!({"definition": definition, "type": "EXPRESS", "severity": "WARNING", "maxResults": 3}),
        ),
        ("StartExecution", json!({"stateMachineArn": MACHINE, "name": "n", "input": "{}", "traceHeader": "t"})),
        ("StartSyncExecution", json!({"stateMachineArn": MACHINE, "name": "n", "input": "{}", "traceHeader": "t"})),
        ("StopExecution", json!({"executionArn": execution, "error": "E", "cause": "c"})),
        ("RedriveExecution", json!({"executionArn": execution, "clientToken": "t"})),
        ("DescribeExecution", json!({"executionArn": execution, "includedData": "ALL_DATA"})),
        (
            "ListExecutions",
            json!({"stateMachineArn": MACHINE, "statusFilter": "FAILED", "redriveFilter": "REDRIVEN", "maxResults": 1,
                "mapRunArn": map_run, "nextToken": "YQ=="}),
        ),
        (
            "GetExecutionHistory",
            json!({"executionArn": execution, "maxResults": 1, "reverseOrder": true, "includeExecutionData": true,
                "nextToken": "YQ=="}),
        ),
        ("ListMapRuns", json!({"executionArn": execution, "maxResults": 1, "nextToken": "YQ=="})),
        ("DescribeMapRun", json!({"mapRunArn": map_run})),
        ("UpdateMapRun", json!({"mapRunArn": map_run, "maxConcurrency": 1, "toleratedFailureCount": 1})),
        ("CreateActivity", json!({"name": "new", "tags": tags, "encryptionConfiguration": {"type": "AWS_OWNED_KEY"}})),
        ("DescribeActivity", json!({"activityArn": activity})),
        ("ListActivities", json!({"maxResults": 1, "nextToken": "YQ=="})),
        ("GetActivityTask", json!({"activityArn": activity, "workerName": "w"})),
        ("DeleteActivity", json!({"activityArn": activity})),
        ("SendTaskSuccess", json!({"taskToken": "t", "output": "{}"})),
        ("SendTaskFailure", json!({"taskToken": "t", "error": "E", "cause": "c"})),
        ("SendTaskHeartbeat", json!({"taskToken": "t"})),
        (
            "TestState",
            json!({"definition": definition, "stateName": "B", "roleArn": role, "input": "{}", "inspectionLevel": "TRACE",
                "revealSecrets": false, "variables": "{}", "context": "{}",
                "mock": {"result": "{}", "fieldValidationMode": "NONE"},
                "stateConfiguration": {"retrierRetryCount": 1, "mapItemReaderData": "[]"}}),
        ),
        ("DeleteStateMachine", json!({"stateMachineArn": format!("{MACHINE}x")})),
    ]
}

/// What stands in the place of each field, one after another.
pub fn values() -> Vec<Value> {
    let deep = (0..300).fold(json!(1), |inner, _| json!([inner]));
    vec![
        Value::Null,
        json!(true),
        json!(-1),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!("\u{0}"),
        json!("\u{10ffff}\u{202e}:/\\%"),
        json!("arn:aws:states:::"),
        json!("arn:aws:states:us-east-1:000000000000:stateMachine:"),
        json!("arn:aws:states:us-east-1:000000000000:stateMachine:passes:18446744073709551616"),
        json!("////"),
        json!("x".repeat(300_000)),
        json!("[".repeat(5_000)),
        json!([]),
        json!([null, 1, "a", {}]),
        json!([{"key": {}, "value": [], "stateMachineVersionArn": 1, "weight": "1"}]),
        json!({}),
        json!({"level": [], "destinations": [[]], "enabled": "x", "type": 1, "result": {}, "errorOutput": []}),
        deep,
    ]
}
