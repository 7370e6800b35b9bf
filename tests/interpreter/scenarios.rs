//! What people rely on, with the clock in hand.

use conveyor_asl::{self as asl, StateMachine};
use conveyor_base::{Attempt, ExecutionId, Timestamp, limits};
use conveyor_interpreter::{
    Command, Entry, Env, Event, Execution, HistoryKind, Lacks, MachineRef, Outcome, Pace, Partial, Status, step_partly,
};
use conveyor_logs::event::type_name;
use serde_json::{Value, json};

use crate::oracle::{Oracle, START};

fn machine(definition: Value) -> StateMachine {
    asl::parse(&definition.to_string()).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// One Task with these fields, then the end.
fn one_task(fields: Value) -> StateMachine {
    let mut task = json!({"Type": "Task", "Resource": "arn:aws:states:::conveyor:probe", "End": true});
    task.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let mut states = json!({"T": task});
    if states["T"].get("Catch").is_some() {
        states["Caught"] = json!({"Type": "Pass", "End": true});
    }
    machine(json!({"StartAt": "T", "States": states}))
}

fn started<'m>(machine: &'m StateMachine, input: &str) -> Oracle<'m> {
    let mut oracle = Oracle::new(machine, input);
    oracle.happens(Event::Started);
    oracle
}

fn current(oracle: &Oracle) -> Attempt {
    *oracle.tasks.keys().next().expect("a task runs")
}

fn fails(oracle: &mut Oracle, error: &str) {
    let attempt = current(oracle);
    oracle.happens(Event::TaskFailed { attempt, error: Some(error.into()), cause: Some("why".into()) });
}

fn succeeds(oracle: &mut Oracle, output: &str) {
    let attempt = current(oracle);
    oracle.happens(Event::TaskSucceeded { attempt, output: output.into() });
}

/// `type(previous)` of each event from the `from`th on.
fn told(oracle: &Oracle, from: usize) -> Vec<String> {
    let event = |e: &conveyor_interpreter::HistoryEvent| format!("{}({})", type_name(&e.kind), e.previous);
    oracle.history[from - 1..].iter().map(event).collect()
}

#[test]
fn back_off_grows_is_bounded_and_counts_per_retrier() {
    let retry = json!([
        {"ErrorEquals": ["A"], "IntervalSeconds": 3, "BackoffRate": 2, "MaxAttempts": 3, "MaxDelaySeconds": 10},
        {"ErrorEquals": ["States.TaskFailed"], "IntervalSeconds": 1, "MaxAttempts": 1},
    ]);
    let machine = one_task(json!({"Retry": retry}));
    let mut oracle = started(&machine, "{}");
    let mut waited = Vec::new();
    for error in ["A", "B", "A", "A"] {
        let before = oracle.now;
        fails(&mut oracle, error);
        oracle.fire_next();
        waited.push(oracle.now - before);
        assert_eq!(oracle.tasks.values().next().unwrap().retry_count as usize, waited.len());
    }
    assert_eq!(waited, [3_000, 1_000, 6_000, 10_000]);
    fails(&mut oracle, "A");
    assert_eq!(oracle.status(), Status::Failed);
    assert_eq!(
        told(&oracle, 2)[..6],
        [
            "TaskStateEntered(0)",
            "TaskScheduled(2)",
            "TaskStarted(3)",
            "TaskFailed(4)",
            "TaskScheduled(5)",
            "TaskStarted(6)"
        ]
    );
}

#[test]
fn a_lost_heartbeat_and_a_timeout_end_the_attempt() {
    let machine = one_task(json!({"TimeoutSeconds": 60, "HeartbeatSeconds": 10,
        "Catch": [{"ErrorEquals": ["States.Timeout"], "Next": "Caught"}]}));
    let mut oracle = started(&machine, "{}");
    oracle.now += 9_000;
    let attempt = current(&oracle);
    oracle.happens(Event::HeartbeatSeen { attempt });
    oracle.fire_next();
    assert_eq!(oracle.now, START + 19_000);
    assert!(oracle.tasks.is_empty() && oracle.timers.is_empty());
    assert_eq!(oracle.delivered, [Outcome::Succeeded { output: r#"{"Error":"States.Timeout"}"#.into() }]);

    let machine = one_task(json!({"TimeoutSeconds": 5}));
    let mut oracle = started(&machine, "{}");
    oracle.fire_next();
    assert_eq!(oracle.now, START + 5_000);
    assert_eq!(oracle.delivered, [Outcome::Failed { error: Some("States.Timeout".into()), cause: None }]);

    // The box was off when the time was over, and the outcome comes before the timer is fired.
    for (ms, ends_in_time) in [(4_999, true), (5_000, false), (60_000, false)] {
        let mut oracle = started(&machine, "{}");
        oracle.now += ms;
        succeeds(&mut oracle, "1");
        let is_success = matches!(oracle.delivered[..], [Outcome::Succeeded { .. }]);
        assert_eq!(is_success, ends_in_time, "{:?}", oracle.delivered);
        assert!(oracle.timers.is_empty());
    }
}

#[test]
fn the_definition_has_a_timeout_of_its_own() {
    let machine = machine(json!({"StartAt": "W", "TimeoutSeconds": 5,
        "States": {"W": {"Type": "Wait", "Seconds": 60, "End": true}}}));
    let mut oracle = started(&machine, "{}");
    oracle.fire_next();
    assert_eq!((oracle.status(), oracle.now), (Status::TimedOut, START + 5_000));
}

#[test]
fn what_runs_beside_a_failed_branch_is_aborted_in_order() {
    let task =
        |name: &str| json!({"Type": "Task", "Resource": format!("arn:aws:states:::conveyor:{name}"), "End": true});
    let each = json!({"StartAt": "C", "States": {"C": task("c")}});
    let machine = machine(json!({"StartAt": "P", "States": {"P": {"Type": "Parallel", "End": true, "Branches": [
        {"StartAt": "A", "States": {"A": task("a")}},
        {"StartAt": "M", "States": {"M": {"Type": "Map", "ItemProcessor": each, "End": true}}},
        {"StartAt": "B", "States": {"B": {"Type": "Wait", "Seconds": 9, "End": true}}},
    ]}}}));
    let mut oracle = started(&machine, "[1,2]");
    let before = oracle.history.len();
    fails(&mut oracle, "A");
    let failed = before + 1;
    let aborted = [
        "TaskStateAborted",
        "MapIterationAborted",
        "TaskStateAborted",
        "MapIterationAborted",
        "MapStateAborted",
        "WaitStateAborted",
        "ParallelStateFailed",
    ];
    let mut expected: Vec<String> = aborted.iter().map(|kind| format!("{kind}({failed})")).collect();
    expected.push(format!("ExecutionFailed({})", failed + aborted.len()));
    assert_eq!(told(&oracle, failed + 1), expected);
}

#[test]
fn redrive_runs_what_failed_and_keeps_what_succeeded() {
    let task = json!({"Type": "Task", "Resource": "arn:aws:states:::conveyor:probe", "End": true});
    let machine = machine(json!({"StartAt": "M", "States": {"M": {"Type": "Map", "MaxConcurrency": 2, "End": true,
        "ItemProcessor": {"StartAt": "T", "States": {"T": task}}}}}));
    let mut oracle = started(&machine, "[10,11,12,13]");
    succeeds(&mut oracle, "0");
    fails(&mut oracle, "A");
    assert_eq!(oracle.status(), Status::Failed);
    let before = oracle.history.len();
    oracle.happens(Event::Redriven);
    let again: Vec<&str> = oracle.tasks.values().map(|task| &*task.parameters).collect();
    assert_eq!((oracle.status(), again), (Status::Running, vec!["11", "12"]));
    assert_eq!(told(&oracle, before + 1)[0], format!("ExecutionRedriven({before})"));
    for output in ["1", "2", "3"] {
        succeeds(&mut oracle, output);
    }
    assert_eq!(oracle.delivered.last(), Some(&Outcome::Succeeded { output: "[0,1,2,3]".into() }));
    // What succeeded is not redriven.
    oracle.happens(Event::Redriven);
    assert_eq!(oracle.status(), Status::Succeeded);
}

#[test]
fn nothing_catches_a_runtime_error_but_everything_else_is_caught() {
    let catch = json!([{"ErrorEquals": ["States.Runtime"], "Next": "Caught"}, {"ErrorEquals": ["States.ALL"], "Next": "Caught"}]);
    let machine = one_task(json!({"InputPath": "$.missing", "Catch": catch}));
    let oracle = started(&machine, "{}");
    assert!(matches!(&oracle.delivered[0], Outcome::Failed { error: Some(error), .. } if error == "States.Runtime"));

    let machine = one_task(json!({"Catch": catch}));
    let mut oracle = started(&machine, "{}");
    succeeds(&mut oracle, &format!("\"{}\"", "x".repeat(limits::PAYLOAD_BYTES_MAX)));
    assert!(matches!(&oracle.delivered[0], Outcome::Failed { error: Some(e), .. } if e == "States.DataLimitExceeded"));

    let mut oracle = started(&machine, "{}");
    fails(&mut oracle, "Any");
    assert_eq!(oracle.delivered, [Outcome::Succeeded { output: r#"{"Error":"Any","Cause":"why"}"#.into() }]);
}

#[test]
fn the_context_object_holds_the_input_for_those_who_read_it() {
    let pass = |parameters: Value, next: &str| json!({"Type": "Pass", "Parameters": parameters, "Next": next});
    let jsonata = json!({"Type": "Pass", "QueryLanguage": "JSONata", "Next": "C",
        "Output": "{% [$states.input.name, $states.context.Execution.Input.list[1]] %}"});
    let machine = machine(json!({"StartAt": "A", "States": {
        "A": pass(json!({"name.$": "$$.State.Name"}), "B"),
        "B": jsonata,
        "C": pass(json!({"all.$": "$", "in.$": "$$.Execution.Input.list", "name.$": "$$.Execution.Name"}), "D"),
        "D": {"Type": "Succeed"}}}));
    let oracle = started(&machine, "{\"list\": [1, 2]}");
    let output = oracle.execution.header.output().unwrap();
    let output: Value = serde_json::from_str(output).unwrap();
    assert_eq!(output, json!({"all": ["A", 2], "in": [1, 2], "name": "run"}));
}

#[test]
fn a_loop_without_an_end_yields_and_ends_at_the_history_s_limit() {
    let pass = |next: &str| json!({"Type": "Pass", "Next": next});
    let machine = machine(json!({"StartAt": "A", "States": {"A": pass("B"), "B": {"Type": "Choice", "Default": "A",
        "Choices": [{"Variable": "$.done", "IsPresent": true, "Next": "C"}]}, "C": {"Type": "Succeed"}}}));
    let mut oracle = started(&machine, "{}");
    assert_eq!(oracle.status(), Status::Running);
    assert_eq!(oracle.history.len(), 1 + 2 * limits::STATES_PER_STEP_MAX);
    oracle.drive_to_the_end();
    assert_eq!(oracle.now, START);
    assert_eq!(oracle.history.len() as u64, limits::HISTORY_EVENTS_MAX);
    assert!(matches!(oracle.history.last().unwrap().kind, HistoryKind::ExecutionFailed(_)));
}

/// What an actor does: at the pace of its thread, and at its own where that is not enough. How often that was.
fn paced(machine: &StateMachine, input: &str) -> (Execution, Vec<HistoryKind>, usize, usize) {
    let env = Env::new("us-east-1", "000000000000", "paced", "");
    let reference = MachineRef { name: "paced".into(), revision: 1, qualifier: None };
    let at = Timestamp(1);
    let execution = Execution::start(ExecutionId(1), "run".into(), reference, input.into(), at);
    let mut partial = Partial::from(execution.clone());
    let (mut whole, mut history, mut events) = (execution, Vec::new(), vec![Event::Started]);
    let (mut briefly, mut long) = (0, 0);
    while let Some(event) = events.pop() {
        let entry = Entry { at, box_at: at, seed: 7, event };
        let step = match step_partly(machine, &partial, &entry, &env, Pace::Brief) {
            Ok(step) => {
                briefly += 1;
                step
            }
            Err(lacks) => {
                assert_eq!(lacks, Lacks::Time);
                assert!(entry.event != Event::Started, "a first step is put off");
                long += 1;
                step_partly(machine, &partial, &entry, &env, Pace::Whole).unwrap()
            }
        };
        assert!(step.header.is_some(), "{:?} is current", entry.event);
        for command in &step.commands {
            if let Command::SetTimer { timer, due } = command {
                assert_eq!(*due, at, "nobody waits");
                events.push(Event::TimerFired { timer: *timer });
            }
        }
        partial.apply(&step);
        whole.apply(&step);
        // Nobody has to read it.
        assert!(step.history.is_empty() || partial.last_event_at() == Some(at));
        history.extend(step.history.into_iter().map(|event| event.kind));
    }
    (whole, history, briefly, long)
}

#[test]
fn what_takes_long_is_put_off_and_comes_to_the_same() {
    let heavy = "{% $sum($map([1..200], function($v) { $v * $states.input })) %}";
    let definition = |output: &str| {
        machine(json!({"QueryLanguage": "JSONata", "StartAt": "M", "States": {
            "M": {"Type": "Map", "Items": "{% [1..300] %}", "Next": "Sum", "ItemProcessor": {"StartAt": "P", "States": {
                "P": {"Type": "Pass", "Output": output, "End": true}}}},
            "Sum": {"Type": "Pass", "Output": "{% $sum($states.input) %}", "End": true}}}))
    };
    let machine = definition(heavy);
    let (execution, history, briefly, long) = paced(&machine, "{}");
    assert_eq!(execution.header.output().unwrap(), &(45_150 * 20_100).to_string());
    // 300 items of some 2,000 units each, and 50,000 at a time.
    assert!((10..100).contains(&briefly), "{briefly} short steps");
    assert_eq!(long, 0);
    let mut oracle = started(&machine, "{}");
    oracle.drive_to_the_end();
    let all: Vec<HistoryKind> = oracle.history.into_iter().map(|event| event.kind).collect();
    assert_eq!(history.len(), all.len());
    assert_eq!(history.last(), all.last());

    // A single state that takes longer than a thread of the runtime may be held, and one that takes too long for any.
    let (execution, _, _, long) = paced(&definition("{% $sum([1..30000]) %}"), "{}");
    assert_eq!((execution.header.status, long > 0), (Status::Succeeded, true));
    let sums: serde_json::Map<_, _> =
        (0..30).map(|n| (format!("s{n}"), json!("{% $count([1..100000][$ % 2 = 0]) %}"))).collect();
    let endless = self::machine(json!({"QueryLanguage": "JSONata", "StartAt": "A", "States": {
        "A": {"Type": "Pass", "Output": sums, "End": true}}}));
    let (execution, ..) = paced(&endless, "{}");
    let Some(Outcome::Failed { error, cause }) = execution.header.outcome else { panic!("too much work") };
    assert_eq!(error.as_deref(), Some("States.QueryEvaluationError"));
    assert!(cause.unwrap().contains("Expression evaluation timeout"));
}

#[test]
fn a_path_over_paths_is_counted() {
    let many: Vec<_> = (0..400).map(|n| format!("@..a{n} == 1")).collect();
    let path = format!("$..[?({})]", many.join(" || "));
    let machine = machine(json!({"StartAt": "A", "States": {"A": {"Type": "Pass", "InputPath": path, "End": true}}}));
    let mut deep = json!([1]);
    for _ in 0..60 {
        deep = json!([deep, [1, 2, 3, 4], {"b": [1, 2, 3]}]);
    }
    let wide = Value::Array(vec![deep; 40]);
    let (execution, ..) = paced(&machine, &wide.to_string());
    let Some(Outcome::Failed { error, cause }) = execution.header.outcome else { panic!("too much work") };
    assert_eq!(error.as_deref(), Some("States.Runtime"));
    assert!(cause.unwrap().contains("looks at more values than one state may"));
}

#[test]
fn a_large_map_yields_and_a_step_touches_few_rows() {
    let task = json!({"Type": "Task", "Resource": "arn:aws:states:::conveyor:probe", "End": true});
    let machine = machine(json!({"StartAt": "M", "States": {"M": {"Type": "Map", "End": true,
        "ItemProcessor": {"StartAt": "T", "States": {"T": task}}}}}));
    let items: Vec<u32> = (0..2_500).collect();
    let mut oracle = started(&machine, &serde_json::to_string(&items).unwrap());
    while oracle.tasks.len() < items.len() {
        oracle.fire_next();
    }
    let attempt = current(&oracle);
    let entry = Entry {
        at: Timestamp(oracle.now),
        box_at: Timestamp(oracle.now),
        seed: 1,
        event: Event::TaskSucceeded { attempt, output: "1".into() },
    };
    let step = conveyor_interpreter::step(&machine, &oracle.execution, &entry, &oracle.env);
    assert_eq!((step.branches.len(), step.items.len()), (2, 0));
}

#[test]
fn a_stop_cancels_all_and_says_why() {
    let machine = one_task(json!({"TimeoutSeconds": 60}));
    let mut oracle = started(&machine, "{}");
    oracle.happens(Event::Stopped { error: None, cause: Some("enough".into()) });
    assert_eq!(oracle.status(), Status::Aborted);
    assert_eq!(told(&oracle, 5), ["ExecutionAborted(0)"]);
    assert_eq!(oracle.delivered, [Outcome::Aborted { error: None, cause: Some("enough".into()) }]);
}
