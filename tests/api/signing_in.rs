//! Who may come in, for how long, and what is kept of it.

use std::time::Duration;

use conveyor_api::Role;
use conveyor_testing::api::Appliance;
use conveyor_testing::served::{Served, folder};
use futures::StreamExt as _;
use reqwest::header::{COOKIE, RETRY_AFTER, SET_COOKIE};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

const OPS: (&str, &str) = ("ops", "correct horse battery");
const NOBODY: (&str, &str) = ("watcher", "looks and does nothing");
const BOSS: (&str, &str) = ("boss", "a staple of some length");

async fn appliance() -> Appliance {
    Appliance::start_for(&[
        (OPS.0, OPS.1, Role::Operator),
        (BOSS.0, BOSS.1, Role::Admin),
        (NOBODY.0, NOBODY.1, Role::Viewer),
    ])
    .await
}

fn path(appliance: &Appliance, path: &str) -> String {
    format!("{}/api/v1/{path}", appliance.url())
}

async fn sign_in(appliance: &Appliance, user: &str, password: &str) -> Response {
    let body = json!({"user": user, "password": password});
    appliance.client.post(path(appliance, "session")).json(&body).send().await.unwrap()
}

/// The cookie that a browser keeps of an answer.
fn cookie(response: &Response) -> String {
    let set = response.headers()[SET_COOKIE].to_str().unwrap();
    set.split(';').next().unwrap().to_owned()
}

fn get(appliance: &Appliance, what: &str, cookie: &str) -> RequestBuilder {
    appliance.client.get(path(appliance, what)).header(COOKIE, cookie)
}

async fn status(request: RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

/// Who tried a state out, what it calls, and the status.
async fn tried(appliance: &Appliance) -> Vec<(String, String, u64)> {
    let asked = appliance.client.get(path(appliance, "audit")).basic_auth(BOSS.0, Some(BOSS.1));
    let shown: Value = asked.send().await.unwrap().json().await.unwrap();
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
    let entries = shown["entries"].as_array().unwrap().iter().filter(|e| text(e, "what").ends_with("/test-state"));
    entries.map(|e| (text(e, "who"), text(e, "to"), e["status"].as_u64().unwrap())).collect()
}

/// The newest audit entries: who, what, status.
async fn audited(appliance: &Appliance) -> Vec<(String, String, u64)> {
    let asked = appliance.client.get(path(appliance, "audit")).basic_auth(BOSS.0, Some(BOSS.1));
    let shown: Value = asked.send().await.unwrap().json().await.unwrap();
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
    let entries = shown["entries"].as_array().unwrap().iter();
    entries.map(|e| (text(e, "who"), text(e, "what"), e["status"].as_u64().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_random_and_over_once_its_holder_says_so() {
    let appliance = appliance().await;
    let (first, second) = (sign_in(&appliance, OPS.0, OPS.1).await, sign_in(&appliance, OPS.0, OPS.1).await);
    assert_eq!((first.status(), second.status()), (200.try_into().unwrap(), 200.try_into().unwrap()));
    let (first, second) = (cookie(&first), cookie(&second));
    assert_ne!(first, second, "what two sign-ins of one person have in common can be worked out");
    assert_eq!(status(get(&appliance, "overview", &first)).await, 200);
    let (name, token) = first.split_once('=').unwrap();
    let altered = format!("{name}={}{}", if token.starts_with('x') { 'y' } else { 'x' }, &token[1..]);
    assert_eq!(status(get(&appliance, "overview", &altered)).await, 401);

    // What is open ends with it as well.
    let stream = get(&appliance, "events", &first).send().await.unwrap();
    assert_eq!(stream.status(), 200);
    let out = appliance.client.delete(path(&appliance, "session")).header(COOKIE, &first);
    assert_eq!(status(out).await, 200);
    assert_eq!(status(get(&appliance, "overview", &first)).await, 401, "whoever kept the cookie");
    assert_eq!(status(get(&appliance, "overview", &second)).await, 200, "another browser's");
    let rest = tokio::time::timeout(Duration::from_secs(5), stream.bytes_stream().for_each(async |_| {}));
    rest.await.expect("the stream of events goes on after its session");

    let entry = |what: &str| (OPS.0.to_owned(), what.to_owned(), 200);
    let kept = audited(&appliance).await;
    let sign_ins = kept.iter().filter(|e| **e == entry("sign in")).count();
    assert_eq!((sign_ins, kept.contains(&entry("sign out"))), (2, true), "{kept:?}");
}

/// Of three starts with a cookie of the first: nobody's, once the password was another one meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_stays_over_a_restart_and_does_not_come_back_with_its_password() {
    let configuration = |password: &str| {
        let credential = |(id, secret): (&str, &str)| {
            format!("[[credentials]]\naccess_key_id = \"{id}\"\nsecret_access_key = \"{secret}\"\n")
        };
        format!("data_dir = \"data\"\nlisten = \"127.0.0.1:0\"\n{}{}", credential((OPS.0, password)), credential(BOSS))
    };
    let (dir, client) = (folder(&configuration(OPS.1)), reqwest::Client::new());
    let mut served = Served::start(dir.path());
    let mut cookies = Vec::new();
    for (user, password) in [OPS, BOSS] {
        let body = json!({"user": user, "password": password});
        let answer = client.post(format!("{}/api/v1/session", served.url())).json(&body).send().await.unwrap();
        cookies.push(cookie(&answer));
    }
    // Nobody shows it while there is the other password.
    for (password, of_ops) in [(OPS.1, Some(200)), ("another of some length", None), (OPS.1, Some(401))] {
        served.kill();
        std::fs::write(dir.path().join("conveyor.toml"), configuration(password)).unwrap();
        served = Served::start(dir.path());
        let overview =
            |cookie: &str| status(client.get(format!("{}/api/v1/overview", served.url())).header(COOKIE, cookie));
        if let Some(expected) = of_ops {
            assert_eq!(overview(&cookies[0]).await, expected, "{password}");
        }
        assert_eq!(overview(&cookies[1]).await, 200, "who has the same password all the time");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guessing_is_slow_and_leaves_its_marks() {
    let appliance = appliance().await;
    // The one who works here has come in before, and works on.
    assert_eq!(status(get(&appliance, "overview", "").basic_auth(BOSS.0, Some(BOSS.1))).await, 200);
    let mut told = Vec::new();
    for n in 0..40 {
        // By all ways in.
        let answer = match n % 2 {
            0 => sign_in(&appliance, OPS.0, &format!("guess number {n}")).await,
            _ => get(&appliance, "overview", "").basic_auth(OPS.0, Some(format!("guess {n}"))).send().await.unwrap(),
        };
        if answer.status() == 429 {
            let secs: u64 = answer.headers()[RETRY_AFTER].to_str().unwrap().parse().unwrap();
            assert!((1..=61).contains(&secs), "{secs}");
        }
        told.push(answer.status().as_u16());
    }
    let looked_at = told.iter().filter(|status| **status == 401).count();
    assert!((5..=7).contains(&looked_at), "{told:?}");
    assert_eq!(told.iter().filter(|status| **status == 429).count(), told.len() - looked_at, "{told:?}");
    assert_eq!(sign_in(&appliance, OPS.0, OPS.1).await.status(), 429, "a right one that comes too early says nothing");
    assert_eq!(status(get(&appliance, "overview", "").basic_auth(BOSS.0, Some(BOSS.1))).await, 200);

    let kept = audited(&appliance).await;
    let of = |status| kept.iter().filter(|(who, _, s)| who == OPS.0 && *s == status).count();
    assert_eq!(of(401), looked_at, "{kept:?}");
    assert!((1..=3).contains(&of(429)), "each closing is told once: {kept:?}");
    // Names of nobody are not kept: they may be passwords in the wrong field.
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(sign_in(&appliance, "my secret password", "ops").await.status(), 401);
    assert!(!format!("{:?}", audited(&appliance).await).contains("my secret"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_tries_a_task_out_with_a_mock_only() {
    let appliance = appliance().await;
    let task = json!({"Type": "Task", "Resource": "arn:aws:states:::conveyor:scripted", "End": true,
        "Parameters": {"panic": null, "output": {"done": true}}})
    .to_string();
    let pass = json!({"Type": "Pass", "End": true}).to_string();
    let with_mock = json!({"definition": task, "roleArn": "arn:aws:iam::000000000000:role/any",
        "mock": {"result": "{\"done\": \"mocked\"}", "fieldValidationMode": "NONE"}});
    let try_out = |(user, password): (&'static str, &'static str), body: Value| {
        let asked = appliance.client.post(path(&appliance, "test-state")).basic_auth(user, Some(password)).json(&body);
        status(asked)
    };
    assert_eq!(try_out(OPS, json!({"definition": task})).await, 403);
    assert_eq!(try_out(OPS, with_mock.clone()).await, 200);
    assert_eq!(try_out(OPS, json!({"definition": pass})).await, 200);
    assert_eq!(try_out(BOSS, json!({"definition": task})).await, 200);
    // What was tried is kept, also where it was refused, and also of a state that is one of many.
    let long = json!({"StartAt": "P", "States": {"P": {"Type": "Parallel", "End": true, "Branches": [
        {"StartAt": "T", "States": {"T": {"Type": "Task", "Resource": "x".repeat(9_000), "End": true}}}]}}});
    assert_eq!(try_out(BOSS, json!({"definition": long.to_string(), "stateName": "T"})).await, 400);
    assert_eq!(try_out(NOBODY, json!({"definition": task})).await, 403);
    let called = "arn:aws:states:::conveyor:scripted".to_owned();
    let mut kept = tried(&appliance).await;
    kept.sort();
    let entry = |who: &str, to: &str, status| (who.to_owned(), to.to_owned(), status);
    let expected = [
        entry(BOSS.0, &called, 200),
        entry(BOSS.0, &"x".repeat(256), 400),
        entry(OPS.0, "/test-state", 200),
        entry(OPS.0, &called, 200),
        entry(OPS.0, &called, 403),
        entry(NOBODY.0, &called, 403),
    ];
    assert_eq!(kept, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_execution_keeps_who_started_and_who_stopped_it() {
    let appliance = appliance().await;
    let post = |what: &str, (user, password): (&str, &str), body: Value| {
        appliance.client.post(path(&appliance, what)).basic_auth(user, Some(password)).json(&body)
    };
    let waits = json!({"StartAt": "W", "States": {"W": {"Type": "Wait", "Seconds": 600, "End": true}}}).to_string();
    assert_eq!(status(post("machines", BOSS, json!({"name": "waits", "definition": waits}))).await, 200);
    let started: Value =
        post("executions", OPS, json!({"machine": "waits", "input": {}})).send().await.unwrap().json().await.unwrap();
    let id = started["id"].as_str().unwrap();
    assert_eq!(status(post(&format!("executions/{id}/stop"), BOSS, json!({"cause": "enough"}))).await, 200);
    let shown = get(&appliance, &format!("executions/{id}"), "").basic_auth(OPS.0, Some(OPS.1));
    let shown: Value = shown.send().await.unwrap().json().await.unwrap();
    let action = |n: usize| {
        let action = &shown["doneBy"][n];
        (action["who"].as_str().unwrap(), action["role"].as_str().unwrap(), action["what"].as_str().unwrap())
    };
    assert_eq!(action(0), (OPS.0, "operator", "POST /executions"), "{shown}");
    assert_eq!(action(1), (BOSS.0, "admin", "POST /executions/{id}/stop"), "{shown}");
    // An express one is on the board alone, and so is whose doing it was.
    let express = json!({"name": "fast", "definition": waits, "express": true});
    assert_eq!(status(post("machines", BOSS, express)).await, 200);
    assert_eq!(status(post("executions", OPS, json!({"machine": "fast", "input": {}}))).await, 200);
    let board = async || -> Value {
        let shown = get(&appliance, "express", "").basic_auth(OPS.0, Some(OPS.1));
        shown.send().await.unwrap().json().await.unwrap()
    };
    let running = board().await["running"][0].clone();
    assert_eq!(running["startedBy"], OPS.0, "{running}");
    let id = running["id"].as_str().unwrap();
    assert_eq!(status(post(&format!("express/{id}/stop"), BOSS, json!({}))).await, 200);
    let ended = async || board().await["ended"].get(0).cloned().ok_or("none has ended");
    let ended = conveyor_testing::until::until_ok("it has ended", ended).await;
    assert_eq!((&ended["startedBy"], &ended["stoppedBy"]), (&json!(OPS.0), &json!(BOSS.0)), "{ended}");
}
