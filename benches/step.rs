//! What a decision costs, without store and actors: effect-free states, a task's way, a Map of 10,000.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use conveyor_asl::{self as asl, StateMachine};
use conveyor_base::{ExecutionId, Timestamp};
use conveyor_interpreter::{Command, Entry, Env, Event, Execution, MachineRef, Status, Step, step};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value, json};

const MAP_ITEMS: u32 = 10_000;

struct Bed {
    machine: StateMachine,
    env: Env,
}

impl Bed {
    fn of(definition: Value) -> Bed {
        let machine = asl::parse(&definition.to_string()).expect("the definition is valid");
        let mut env = Env::new("us-east-1", "000000000000", "bench", "arn:aws:iam::000000000000:role/bench");
        env.history_events_max = u64::MAX;
        Bed { machine, env }
    }

    fn execution(&self, input: &str) -> Execution {
        let reference = MachineRef { name: "bench".into(), revision: 1, qualifier: None };
        Execution::start(ExecutionId(1), "run".into(), reference, input.into(), Timestamp(0))
    }

    fn step(&self, execution: &Execution, event: Event) -> Step {
        step(&self.machine, execution, &Entry { at: Timestamp(0), box_at: Timestamp(0), seed: 7, event }, &self.env)
    }

    /// Runs to the end: timers fire and tasks succeed at once. How many steps it took.
    fn run(&self, mut execution: Execution) -> u32 {
        let (mut events, mut steps) = (vec![Event::Started], 0);
        while let Some(event) = events.pop() {
            let step = self.step(&execution, event);
            execution.apply(&step);
            steps += 1;
            events.extend(step.commands.into_iter().filter_map(|command| match command {
                Command::RunTask(task) => {
                    Some(Event::TaskSucceeded { attempt: task.attempt, output: "{\"ok\":true}".into() })
                }
                Command::SetTimer { timer, .. } => Some(Event::TimerFired { timer }),
                _ => None,
            }));
        }
        assert_eq!(execution.header.status, Status::Succeeded);
        steps
    }
}

fn task() -> Value {
    json!({"Type": "Task", "Resource": "arn:aws:states:::conveyor:probe", "End": true})
}

fn effect_free(c: &mut Criterion) {
    let mut states = serde_json::Map::new();
    for n in 0..10 {
        let mut pass = json!({"Type": "Pass", "Parameters": {"n": n, "name.$": "$.name"}});
        match n {
            9 => pass["End"] = json!(true),
            n => pass["Next"] = json!(format!("P{}", n + 1)),
        }
        states.insert(format!("P{n}"), pass);
    }
    let bed = Bed::of(json!({"StartAt": "P0", "States": states}));
    let execution = bed.execution("{\"name\":\"clip.mp4\"}");
    c.bench_function("ten effect-free states", |b| b.iter(|| bed.step(&execution, Event::Started)));
}

fn task_round_trip(c: &mut Criterion) {
    let bed = Bed::of(json!({"StartAt": "T", "States": {"T": task()}}));
    c.bench_function("a task, scheduled and succeeded", |b| {
        b.iter_batched(
            || bed.execution("{\"name\":\"clip.mp4\"}"),
            |execution| bed.run(execution),
            BatchSize::SmallInput,
        );
    });
}

fn large_map(c: &mut Criterion) {
    let processor = json!({"StartAt": "T", "States": {"T": task()}});
    let mut group = c.benchmark_group("map");
    group.sample_size(10).throughput(Throughput::Elements(u64::from(MAP_ITEMS)));
    let items: Vec<u32> = (0..MAP_ITEMS).collect();
    let input = serde_json::to_string(&items).expect("numbers are JSON");
    for concurrency in [0, 40] {
        let map = json!({"Type": "Map", "MaxConcurrency": concurrency, "ItemProcessor": processor, "ResultPath": null, "End": true});
        let bed = Bed::of(json!({"StartAt": "M", "States": {"M": map}}));
        group.bench_function(format!("{MAP_ITEMS} tasks, concurrency {concurrency}"), |b| {
            b.iter_batched(|| bed.execution(&input), |execution| bed.run(execution), BatchSize::LargeInput);
        });
    }
    group.finish();
}

criterion_group!(benches, effect_free, task_round_trip, large_map);
criterion_main!(benches);
