//! What runs in the simulation, and how each of it must end. Written by hand: nothing here asks the interpreter.
//!
//! No outcome depends on when the power goes: what times out hangs for ever, what must not has hours.

use conveyor_base::Timestamp;
use serde_json::{Value, json};

#[derive(Clone, Debug)]
pub struct Spec {
    pub name: &'static str,
    pub definition: Value,
    pub input: Value,
    pub end: End,
    /// Every state that is entered, as often as it is entered.
    pub entered: &'static [&'static str],
    /// How many attempts are scheduled, where that does not depend on outages.
    pub attempts: Option<usize>,
    /// Least milliseconds between a failure and the next attempt of its state, in order.
    pub back_off_ms: &'static [i64],
    /// What somebody outside does to it.
    pub then: Then,
}

#[derive(Clone, Debug, PartialEq)]
pub enum End {
    Output(Value),
    TimedOut,
    Aborted,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Then {
    Nothing,
    Stop,
    /// As soon as it is seen, which is before whoever starts it hears of it.
    StopYoung,
    RepairAndRedrive,
}

/// The moment that `until` waits for: 150 s after the beginning.
pub const UNTIL: Timestamp = Timestamp(1_767_225_750_000);

/// What takes so many milliseconds, whatever becomes of it.
pub const LAST_MS: &[(&str, i64)] = &[
    ("sleeps", 400_000),
    ("gives-up", 90_000),
    ("silent", 3_000),
    ("late-token", 6_000),
    ("dropped-token", 2_000),
    ("limit", 10_000),
];

const WORK: &str = "arn:aws:states:::sim:work";
const TOKEN: &str = "arn:aws:states:::sim:job.waitForTaskToken";
const NESTED: &str = "arn:aws:states:::states:startExecution.sync:2";
const ACTIVITY: &str = "arn:aws:states:us-east-1:000000000000:activity:crop";

fn task(resource: &str, parameters: Value, more: Value) -> Value {
    let mut task = json!({"Type": "Task", "Resource": resource, "Parameters": parameters});
    for (key, value) in more.as_object().unwrap() {
        task[key] = value.clone();
    }
    task
}

fn chain(start: &str, states: Value) -> Value {
    json!({"StartAt": start, "States": states})
}

fn token_parameters(report_ms: i64, submit_ms: u64) -> Value {
    json!({"report_ms": report_ms, "submit_ms": submit_ms, "token.$": "$$.Task.Token"})
}

fn spec(name: &'static str, definition: Value, output: Value, entered: &'static [&'static str]) -> Spec {
    Spec {
        name,
        definition,
        input: json!({"n": 1}),
        end: End::Output(output),
        entered,
        attempts: None,
        back_off_ms: &[],
        then: Then::Nothing,
    }
}

fn caught_by(error: &str) -> Value {
    json!([{"ErrorEquals": [error], "ResultPath": null, "Next": "After"}])
}

fn after(seconds: Option<u64>) -> Value {
    match seconds {
        None => json!({"Type": "Pass", "Result": "caught", "End": true}),
        Some(seconds) => json!({"Type": "Wait", "Seconds": seconds, "Next": "Last"}),
    }
}

pub fn all() -> Vec<Spec> {
    [plain(), failing(), outside(), branching(), distributed(), ended_from_outside()].concat()
}

/// One task in the middle of states that have no effect, and waits.
fn plain() -> Vec<Spec> {
    let relay = chain(
        "First",
        json!({
            "First": {"Type": "Pass", "Next": "Work"},
            "Work": task(WORK, json!({"do": "ok", "ms": 300, "lane": "cpu"}), json!({"ResultPath": "$.work", "Next": "Ask"})),
            "Ask": {"Type": "Choice", "Choices": [{"Variable": "$.n", "NumericEquals": 1, "Next": "Last"}], "Default": "Wrong"},
            "Wrong": {"Type": "Fail"},
            "Last": {"Type": "Succeed"},
        }),
    );
    let sleeps = chain(
        "Long",
        json!({
            "Long": {"Type": "Wait", "Seconds": 400, "Next": "Now"},
            "Now": {"Type": "Wait", "Seconds": 0, "Next": "Last"},
            "Last": {"Type": "Pass", "Result": "awake", "End": true},
        }),
    );
    let direct = chain("Work", json!({"Work": task(WORK, json!({"do": "ok", "ms": 0}), json!({"End": true}))}));
    let until = chain(
        "Until",
        json!({
            "Until": {"Type": "Wait", "Timestamp": UNTIL.to_string(), "Next": "Last"},
            "Last": {"Type": "Pass", "Result": "it has come", "End": true},
        }),
    );
    let relay_output = json!({"n": 1, "work": {"did": "ok"}});
    vec![
        Spec { attempts: Some(1), ..spec("relay", relay, relay_output, &["Ask", "First", "Last", "Work"]) },
        spec("until", until, json!("it has come"), &["Last", "Until"]),
        spec("sleeps", sleeps, json!("awake"), &["Last", "Long", "Now"]),
        Spec { attempts: Some(1), ..spec("direct", direct, json!({"did": "ok"}), &["Work"]) },
    ]
}

/// Tasks that fail, hang, panic or fall silent.
fn failing() -> Vec<Spec> {
    let retry = json!([{"ErrorEquals": ["Sim.Flaky"], "IntervalSeconds": 2, "BackoffRate": 2.0, "MaxAttempts": 3}]);
    let once = json!([{"ErrorEquals": ["States.ALL"], "IntervalSeconds": 90, "MaxAttempts": 1}]);
    let flaky = json!({"Retry": retry, "End": true});
    let flaky = chain("Try", json!({"Try": task(WORK, json!({"do": "flaky", "fails": 2, "ms": 40}), flaky)}));
    let gives_up = json!({"Retry": once, "Catch": caught_by("Sim.Flaky"), "End": true});
    let gives_up =
        json!({"Try": task(WORK, json!({"do": "flaky", "fails": 9, "ms": 10}), gives_up), "After": after(None)});
    let hangs = json!({"TimeoutSeconds": 5, "Catch": caught_by("States.Timeout"), "End": true});
    let hangs = json!({
        "Hang": task(WORK, json!({"do": "hang", "lane": "io"}), hangs),
        "After": after(Some(3)),
        "Last": {"Type": "Pass", "Result": "caught", "End": true},
    });
    let panics = json!({"Catch": caught_by("Stage.Panicked"), "End": true});
    let panics = json!({"Panic": task(WORK, json!({"do": "panic", "lane": "io"}), panics), "After": after(None)});
    let silent = json!({"HeartbeatSeconds": 3, "Catch": caught_by("States.Timeout"), "End": true});
    let silent = json!({"Hang": task(WORK, json!({"do": "hang"}), silent), "After": after(None)});
    let again =
        json!([{"ErrorEquals": ["States.Timeout"], "IntervalSeconds": 1, "BackoffRate": 1.0, "MaxAttempts": 99}]);
    let beats = json!({"HeartbeatSeconds": 3, "Retry": again, "End": true});
    let beats = chain("Beat", json!({"Beat": task(WORK, json!({"do": "beat", "beats": 8}), beats)}));
    vec![
        Spec {
            attempts: Some(3),
            back_off_ms: &[2_000, 4_000],
            ..spec("flaky", flaky, json!({"did": "flaky"}), &["Try"])
        },
        Spec {
            attempts: Some(2),
            back_off_ms: &[90_000],
            ..spec("gives-up", chain("Try", gives_up), json!("caught"), &["After", "Try"])
        },
        Spec { attempts: Some(1), ..spec("hangs", chain("Hang", hangs), json!("caught"), &["After", "Hang", "Last"]) },
        Spec { attempts: Some(1), ..spec("panics", chain("Panic", panics), json!("caught"), &["After", "Panic"]) },
        Spec { attempts: Some(1), ..spec("silent", chain("Hang", silent), json!("caught"), &["After", "Hang"]) },
        spec("beats", beats, json!({"did": "beat"}), &["Beat"]),
    ]
}

/// Tasks whose end somebody else reports.
fn outside() -> Vec<Spec> {
    let end = || json!({"End": true});
    let late = chain("Ask", json!({"Ask": task(TOKEN, token_parameters(7_000, 20), end())}));
    let early = chain("Ask", json!({"Ask": task(TOKEN, token_parameters(0, 2_000), end())}));
    let never = json!({"TimeoutSeconds": 6, "Catch": caught_by("States.Timeout"), "End": true});
    let never = json!({"Ask": task(TOKEN, token_parameters(60_000, 20), never), "After": after(None)});
    let dropped = json!({"TimeoutSeconds": 2, "Catch": caught_by("States.Timeout"), "End": true});
    let dropped = json!({"Ask": task(TOKEN, token_parameters(0, 600_000), dropped), "After": after(None)});
    let nested = json!({"ResultPath": "$.child", "Next": "Last"});
    let nested = json!({
        "Call": task(NESTED, json!({"machine": "relay", "input": {"n": 1}}), nested),
        "Last": {"Type": "Pass", "End": true},
    });
    let again =
        json!([{"ErrorEquals": ["States.Timeout"], "IntervalSeconds": 1, "BackoffRate": 1.0, "MaxAttempts": 99}]);
    let activity = json!({"TimeoutSeconds": 20, "Retry": again, "End": true});
    let activity = chain("Crop", json!({"Crop": task(ACTIVITY, json!({"report_ms": 1_500}), activity)}));
    let child_output = json!({"n": 1, "child": {"n": 1, "work": {"did": "ok"}}});
    vec![
        Spec { attempts: Some(1), ..spec("token", late, json!({"reported": true}), &["Ask"]) },
        Spec { attempts: Some(1), ..spec("early-token", early, json!({"reported": true}), &["Ask"]) },
        Spec { attempts: Some(1), ..spec("late-token", chain("Ask", never), json!("caught"), &["After", "Ask"]) },
        Spec { attempts: Some(1), ..spec("dropped-token", chain("Ask", dropped), json!("caught"), &["After", "Ask"]) },
        Spec { attempts: Some(1), ..spec("parent", chain("Call", nested), child_output, &["Call", "Last"]) },
        spec("activity", activity, json!({"reported": true}), &["Crop"]),
    ]
}

fn branching() -> Vec<Spec> {
    let ok = |lane: &str| json!({"do": "ok", "ms": 700, "lane": lane});
    let work = |name: &str, parameters: Value| chain(name, json!({name: task(WORK, parameters, json!({"End": true}))}));
    let pause = chain("Pause", json!({"Pause": {"Type": "Wait", "Seconds": 0, "End": true}}));
    let fan = json!({
        "Fan": {
            "Type": "Parallel", "End": true,
            "Branches": [work("Cpu", ok("cpu")), work("Direct", json!({"do": "ok", "ms": 5})), pause, work("Gpu", ok("gpu"))],
        },
    });
    let fails = json!({
        "Fan": {
            "Type": "Parallel", "Catch": caught_by("Sim.Flaky"), "End": true,
            "Branches": [
                work("Hang", json!({"do": "hang", "lane": "io"})),
                work("Flaky", json!({"do": "flaky", "fails": 9, "ms": 1_000})),
                chain("Pause", json!({"Pause": {"Type": "Wait", "Seconds": 600, "End": true}})),
            ],
        },
        "After": after(None),
    });
    let many = json!({
        "Many": {
            "Type": "Map", "MaxConcurrency": 2, "ItemsPath": "$.items", "End": true,
            "ItemProcessor": work("Work", json!({"do": "ok", "ms": 200, "lane": "io"})),
        },
    });
    let did = json!({"did": "ok"});
    let fan_output = json!([did, did, {"n": 1}, did]);
    let work_entered = &["Many", "Work", "Work", "Work", "Work", "Work"];
    vec![
        Spec {
            attempts: Some(3),
            ..spec("fan", chain("Fan", fan), fan_output, &["Cpu", "Direct", "Fan", "Gpu", "Pause"])
        },
        Spec {
            attempts: Some(2),
            ..spec("fails", chain("Fan", fails), json!("caught"), &["After", "Fan", "Flaky", "Hang", "Pause"])
        },
        Spec {
            attempts: Some(5),
            input: json!({"items": [1, 2, 3, 4, 5]}),
            ..spec("many", chain("Many", many), json!([did, did, did, did, did]), work_entered)
        },
    ]
}

/// How many children the run of a spec's distributed Map has had when all is over, where it has one.
pub fn children_of(name: &str) -> Option<usize> {
    match name {
        "spread" => Some(5),
        "batched" => Some(2),
        "scattered" => Some(3),
        _ => None,
    }
}

/// Children of distributed Maps: executions of their own, whose events are not their parent's.
fn distributed() -> Vec<Spec> {
    let map = |processor: Value, more: Value| {
        let mut processor = processor;
        processor["ProcessorConfig"] = json!({"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"});
        let mut state = json!({"Type": "Map", "ItemsPath": "$.items", "End": true, "ItemProcessor": processor});
        for (field, value) in more.as_object().unwrap() {
            state[field] = value.clone();
        }
        chain("Spread", json!({"Spread": state}))
    };
    let work = json!({"Work": task(WORK, json!({"do": "ok", "ms": 200, "lane": "io"}), json!({"End": true}))});
    let spread = map(chain("Work", work), json!({"MaxConcurrency": 2}));
    let keep = json!({"Keep": {"Type": "Pass", "End": true}});
    let batched = map(chain("Keep", keep), json!({"ItemBatcher": {"MaxItemsPerBatch": 3}}));
    let sleep = json!({"Sleep": {"Type": "Wait", "Seconds": 90_000, "End": true}});
    let scattered = map(chain("Sleep", sleep), json!({"MaxConcurrency": 3}));
    let did = json!({"did": "ok"});
    let input = json!({"items": [1, 2, 3, 4, 5]});
    vec![
        Spec {
            attempts: Some(0),
            input: input.clone(),
            ..spec("spread", spread, json!([did, did, did, did, did]), &["Spread"])
        },
        Spec {
            attempts: Some(0),
            input: input.clone(),
            ..spec("batched", batched, json!([{"Items": [1, 2, 3]}, {"Items": [4, 5]}]), &["Spread"])
        },
        Spec {
            end: End::Aborted,
            then: Then::Stop,
            attempts: Some(0),
            input,
            ..spec("scattered", scattered, Value::Null, &["Spread"])
        },
    ]
}

fn ended_from_outside() -> Vec<Spec> {
    let mut limit = chain("Ask", json!({"Ask": task(TOKEN, token_parameters(90_000, 20), json!({"End": true}))}));
    limit["TimeoutSeconds"] = json!(10);
    let young = json!({"Hang": task(WORK, json!({"do": "hang"}), json!({"End": true}))});
    let hang = json!({"Hang": task(WORK, json!({"do": "hang", "lane": "io"}), json!({"End": true}))});
    let crowd = json!({
        "Crowd": {
            "Type": "Map", "MaxConcurrency": 3, "ItemsPath": "$.items", "End": true,
            "ItemProcessor": chain("Hang", hang),
        },
    });
    let endless = chain("Sleep", json!({"Sleep": {"Type": "Wait", "Seconds": 90_000, "End": true}}));
    let calls = task(NESTED, json!({"machine": "endless", "input": {"n": 1}}), json!({"End": true}));
    let broken = task(WORK, json!({"do": "broken", "ms": 30}), json!({"Next": "Last"}));
    let broken = json!({
        "Before": {"Type": "Pass", "Next": "Break"},
        "Break": broken,
        "Last": {"Type": "Pass", "End": true},
    });
    vec![
        Spec { end: End::TimedOut, attempts: Some(1), ..spec("limit", limit, Value::Null, &["Ask"]) },
        Spec {
            end: End::Aborted,
            then: Then::StopYoung,
            attempts: Some(1),
            ..spec("young", chain("Hang", young), Value::Null, &["Hang"])
        },
        Spec {
            end: End::Aborted,
            then: Then::Stop,
            attempts: Some(3),
            input: json!({"items": [1, 2, 3, 4]}),
            ..spec("crowd", chain("Crowd", crowd), Value::Null, &["Crowd", "Hang", "Hang", "Hang"])
        },
        Spec { end: End::Aborted, then: Then::Stop, ..spec("endless", endless, Value::Null, &["Sleep"]) },
        Spec {
            end: End::Aborted,
            then: Then::Stop,
            attempts: Some(1),
            ..spec("calls-endless", chain("Call", json!({"Call": calls})), Value::Null, &["Call"])
        },
        Spec {
            then: Then::RepairAndRedrive,
            attempts: Some(2),
            ..spec("broken", chain("Before", broken), json!({"did": "broken"}), &["Before", "Break", "Break", "Last"])
        },
    ]
}
