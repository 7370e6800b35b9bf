//! Queues, events with rules and HTTP calls, on the served binary: boto3 as client and worker, a real receiver, and
//! kill -9 with events under way.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, Method, StatusCode, Uri};
use conveyor_testing::served::{Served, folder};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// Takes webhooks once it is told to, hands out tokens, and says what it was asked.
#[derive(Default)]
struct Receiver {
    takes: AtomicBool,
    /// Keys and bodies of what was taken.
    taken: Mutex<Vec<(String, Value)>>,
}

impl Receiver {
    async fn start() -> (Arc<Receiver>, String) {
        let receiver = Arc::new(Receiver::default());
        let answering = receiver.clone();
        let answer = move |method: Method, uri: Uri, headers: HeaderMap, body: String| {
            let answer = answering.answer(&method, &uri, &headers, &body);
            async move { (answer.0, [("content-type", "application/json")], answer.1.to_string()) }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
        (receiver, address)
    }

    fn answer(&self, method: &Method, uri: &Uri, headers: &HeaderMap, body: &str) -> (StatusCode, Value) {
        let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        match uri.path() {
            "/hook" if !self.takes.load(Ordering::SeqCst) => (StatusCode::SERVICE_UNAVAILABLE, json!({})),
            "/hook" => {
                assert_eq!(header("x-key").as_deref(), Some("a secret key"));
                self.taken.lock().push((header("idempotency-key").unwrap(), serde_json::from_str(body).unwrap()));
                (StatusCode::OK, json!({}))
            }
            "/token" => {
                let credentials = header("authorization") == Some("Basic aWQ6c2VjcmV0".to_owned());
                assert!(credentials && body == "grant_type=client_credentials", "{body}");
                (StatusCode::OK, json!({ "access_token": "the token", "expires_in": 3600 }))
            }
            // Secrets Manager's GetSecretValue.
            "/" if header("x-amz-target").as_deref() == Some("secretsmanager.GetSecretValue") => {
                assert!(header("authorization").unwrap().contains("Credential=AKID/"));
                (StatusCode::OK, json!({ "Name": "n", "SecretString": body }))
            }
            "/prod/missing" => (StatusCode::FORBIDDEN, json!({ "message": "Missing Authentication Token" })),
            "/missing" => (StatusCode::NOT_FOUND, json!({ "no": "such" })),
            _ => {
                let said = json!({ "method": method.as_str(), "host": header("host"), "path": uri.path(),
                    "query": uri.query(), "body": body, "bearer": header("authorization"),
                    "has_key": header("x-key").is_some() });
                (StatusCode::OK, said)
            }
        }
    }
}

fn configuration(receiver: &str) -> String {
    format!(
        r#"
        listen = "127.0.0.1:0"
        data_dir = "data"
        [queues.work]
        visibility_timeout = "1s"
        dead_letter = "dead"
        max_receives = 2
        [queues.dead]
        [queues.seen]
        [queues."orders.fifo"]
        content_based_deduplication = true
        [rules.ended]
        pattern = {{ source = ["aws.states"], detail = {{ status = ["SUCCEEDED", "FAILED"] }} }}
        [[rules.ended.targets]]
        workflow = "after"
        [[rules.ended.targets]]
        queue = "seen"
        input_path = "$.detail"
        [rules.hook]
        pattern = '{{"source": ["studio"], "detail": {{"n": [{{"numeric": [">", 1]}}]}}}}'
        [[rules.hook.targets]]
        webhook = "http://{receiver}/hook"
        connection = "receiver"
        [connections.receiver]
        hosts = ["{receiver}"]
        api_key = {{ name = "X-Key", value = "a secret key" }}
        [connections.token]
        hosts = ["{receiver}"]
        oauth = {{ endpoint = "http://{receiver}/token", client_id = "id", client_secret = "secret" }}
        [connections.anywhere]
        "#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boto3_sends_receives_works_and_puts_events() {
    let python = conveyor_testing::root().join("target/venv/bin/python");
    if !python.exists() {
        assert!(std::env::var_os("CI").is_none(), "target/venv is missing: run `make test`");
        eprintln!("skipped: there is no target/venv with boto3; `make test` makes it");
        return;
    }
    let (receiver, address) = Receiver::start().await;
    receiver.takes.store(true, Ordering::SeqCst);
    let dir = folder(&configuration(&address));
    let served = Served::start(dir.path());
    let mut command = Command::new(python);
    command.arg(conveyor_testing::root().join("tests/services/client.py"));
    command.args([&served.url(), &address]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let shown = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{shown}");
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(!log.contains("a secret key") && !log.contains("the token"), "secrets stay out of logs");
}

/// What the box does not have goes to the endpoint of `[aws]`, signed where the service asks for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_serve_is_asked_of_the_endpoint() {
    let (_receiver, address) = Receiver::start().await;
    let dir = folder(&format!(
        r#"
        listen = "127.0.0.1:0"
        data_dir = "data"
        [aws]
        endpoint = "http://{address}"
        access_key_id = "AKID"
        secret_access_key = "secret"
        "#
    ));
    let served = Served::start(dir.path());
    let host = "abc123.execute-api.us-east-1.amazonaws.com";
    let api = |more: Value| {
        let mut parameters = json!({"ApiEndpoint": host, "Method": "GET", "Stage": "prod"});
        parameters.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        parameters
    };

    let parameters =
        json!({"Path": "/bills of may", "QueryParameters": {"id": ["1", "a&b"]}, "Headers": {"k": ["v", "w"]}});
    let said = served.run("apigateway:invoke", api(parameters)).await.unwrap();
    assert_eq!((&said["StatusCode"], &said["StatusText"]), (&json!(200), &json!("OK")));
    let seen = &said["ResponseBody"];
    assert_eq!((&seen["host"], &seen["path"]), (&json!(host), &json!("/prod/bills%20of%20may")));
    assert_eq!((&seen["query"], &seen["bearer"]), (&json!("id=1&id=a%26b"), &Value::Null));

    let post = json!({"Method": "POST", "RequestBody": {"a": 1}, "AuthType": "IAM_ROLE"});
    let said = served.run("apigateway:invoke", api(post)).await.unwrap();
    let signature = said["ResponseBody"]["bearer"].as_str().unwrap();
    assert!(signature.contains("/us-east-1/execute-api/aws4_request") && signature.contains("host;"), "{signature}");
    assert_eq!(said["ResponseBody"]["body"], "{\"a\":1}");

    let cause = json!({"message": "Missing Authentication Token"}).to_string();
    for (more, expected) in [
        (json!({"Path": "missing"}), ("ApiGateway.403", cause.as_str())),
        (json!({"Headers": {"X-Amz-Date": "1"}}), ("States.Runtime", "The header 'X-Amz-Date' cannot be set")),
        (json!({"ApiEndpoint": "127.0.0.1:80/x"}), ("States.Runtime", "'ApiEndpoint' must be an API's host")),
        (json!({"Method": "BREW"}), ("States.Runtime", "unsupported value: \"BREW\"")),
    ] {
        let (error, cause) = served.run("apigateway:invoke", api(more)).await.unwrap_err();
        assert!(error == expected.0 && cause.contains(expected.1), "{error}: {cause}");
    }
    let secret = served.run("aws-sdk:secretsmanager:getSecretValue", json!({"SecretId": "s"})).await.unwrap();
    assert_eq!(secret, json!({"Name": "n", "SecretString": "{\"SecretId\":\"s\"}"}));
}

/// Statuses that were reached and events that were acknowledged get to their targets, whatever happens in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_outlive_kill_9() {
    let (receiver, address) = Receiver::start().await;
    let dir = folder(&configuration(&address));
    let served = Served::start(dir.path());
    let machine = json!({"StartAt": "P", "States": {"P": {"Type": "Pass", "End": true}}}).to_string();
    for name in ["after", "first"] {
        let request = json!({"name": name, "definition": machine, "roleArn": "arn:aws:iam::000000000000:role/r"});
        served.call("AWSStepFunctions.CreateStateMachine", request).await;
    }
    let first = "arn:aws:states:us-east-1:000000000000:stateMachine:first";
    let mut names = BTreeSet::new();
    for n in 0..20 {
        let name = format!("run-{n}");
        served.call("AWSStepFunctions.StartExecution", json!({"stateMachineArn": first, "name": name})).await;
        names.insert(name);
    }
    // The receiver refuses everything for now.
    let entry = |n: i32| json!({"Source": "studio", "DetailType": "t", "Detail": json!({"n": n}).to_string()});
    let put = served.call("AWSEvents.PutEvents", json!({"Entries": (1..=4).map(entry).collect::<Vec<_>>()})).await;
    let sent =
        served.call("AmazonSQS.SendMessage", json!({"QueueUrl": "http://any/1/work", "MessageBody": "kept"})).await;
    served.kill();

    receiver.takes.store(true, Ordering::SeqCst);
    let served = Served::start(dir.path());
    let begun = Instant::now();
    let seen_all = |seen: &BTreeSet<String>| names.iter().all(|name| seen.contains(name));
    let mut seen = BTreeSet::new();
    while !seen_all(&seen) || receiver.taken.lock().len() < 3 {
        assert!(begun.elapsed() < Duration::from_secs(60), "seen: {seen:?}, taken: {:?}", receiver.taken.lock());
        let request = json!({"QueueUrl": "seen", "MaxNumberOfMessages": 10, "WaitTimeSeconds": 1});
        let got = served.call("AmazonSQS.ReceiveMessage", request).await;
        for message in got["Messages"].as_array().into_iter().flatten() {
            let detail: Value = serde_json::from_str(message["Body"].as_str().unwrap()).unwrap();
            assert_eq!(detail["status"], "SUCCEEDED");
            seen.insert(detail["name"].as_str().unwrap().to_owned());
        }
    }
    // What was acknowledged came, under the id that was answered; what no rule wants did not.
    let ids: BTreeSet<&str> = (1..4).filter_map(|n| put["Entries"][n]["EventId"].as_str()).collect();
    let taken: BTreeSet<String> = receiver.taken.lock().iter().map(|(_, e)| e["id"].as_str().unwrap().into()).collect();
    assert_eq!(taken.iter().map(String::as_str).collect::<BTreeSet<_>>(), ids);
    let kept = served.call("AmazonSQS.ReceiveMessage", json!({"QueueUrl": "work", "WaitTimeSeconds": 5})).await;
    assert_eq!(kept["Messages"][0]["MessageId"], sent["MessageId"]);
    // One execution of the rule's workflow for each that ended, and none for those.
    let after = json!({"stateMachineArn": "arn:aws:states:us-east-1:000000000000:stateMachine:after"});
    loop {
        let listed = served.call("AWSStepFunctions.ListExecutions", after.clone()).await;
        let listed = listed["executions"].as_array().unwrap();
        assert!(listed.len() <= names.len(), "{listed:?}");
        if listed.len() == names.len() {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{} executions of the rule", listed.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    served.kill();
}
