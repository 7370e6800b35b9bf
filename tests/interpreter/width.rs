//! What an event looks at does not grow with the Map around it.

use conveyor_asl as asl;
use conveyor_base::{ExecutionId, Timestamp};
use conveyor_interpreter::{Command, Entry, Env, Event, Execution, MachineRef, Pace, Partial, Step, step, step_partly};
use serde_json::json;

use crate::rows::Counted;

/// The rows that a sleeping execution reads for each of some events, with so many iterations under way: a sign of life,
/// an attempt that ends, one that fails and is tried again, and its back-off's end.
fn rows_read(items: u32, concurrency: u32) -> Vec<usize> {
    let task = json!({"Type": "Task", "Resource": "arn:aws:states:::sqs:sendMessage.waitForTaskToken",
        "Parameters": {"token.$": "$$.Task.Token"}, "HeartbeatSeconds": 60, "Next": "Done",
        "Retry": [{"ErrorEquals": ["States.ALL"]}]});
    let processor = json!({"StartAt": "T", "States": {"T": task, "Done": {"Type": "Pass", "End": true}}});
    let map = json!({"Type": "Map", "MaxConcurrency": concurrency, "ItemProcessor": processor, "End": true});
    let around = json!({"StartAt": "M", "States": {"M": map}});
    let definition = json!({"StartAt": "P", "States": {"P": {"Type": "Parallel", "Branches": [around], "End": true}}});
    let machine = asl::parse(&definition.to_string()).unwrap();
    let input = json!((0..items).collect::<Vec<_>>()).to_string();
    let mut env = Env::new("us-east-1", "000000000000", "wide", "arn:aws:iam::000000000000:role/r");
    env.history_events_max = u64::MAX;
    let reference = MachineRef { name: "wide".into(), revision: 1, qualifier: None };
    let mut execution = Execution::start(ExecutionId(1), "run".into(), reference, input.into(), Timestamp(0));
    let (mut events, mut attempts) = (vec![Event::Started], Vec::new());
    while let Some(event) = events.pop() {
        let step = step(&machine, &execution, &Entry { at: Timestamp(0), box_at: Timestamp(0), seed: 3, event }, &env);
        execution.apply(&step);
        for command in step.commands {
            match command {
                Command::RunTask(task) => attempts.push(task.attempt),
                Command::SetTimer { timer, due: Timestamp(0) } => events.push(Event::TimerFired { timer }),
                _ => {}
            }
        }
    }
    assert_eq!(attempts.len(), if concurrency == 0 { items } else { concurrency } as usize);
    let (one, other) = (attempts[7], attempts[23]);
    let decide = |execution: &mut Execution, event: Event| -> (usize, Step) {
        let rows = Counted::of(execution);
        let entry = Entry { at: Timestamp(1), box_at: Timestamp(1), seed: 3, event };
        let mut partial = Partial::of(execution.header.clone());
        if let Event::TimerFired { timer } = entry.event {
            partial.read_timer(timer, execution.branch_of_timer(timer), &rows).unwrap();
        }
        let step = rows.decide(&mut partial, |partial| step_partly(&machine, partial, &entry, &env, Pace::Brief));
        assert!(step.header.is_some(), "{:?} is current", entry.event);
        let read = rows.read.get();
        execution.apply(&step);
        (read, step)
    };
    let (beat, _) = decide(&mut execution, Event::HeartbeatSeen { attempt: one });
    let (ended, _) = decide(&mut execution, Event::TaskSucceeded { attempt: one, output: "1".into() });
    let (failed, step) = decide(&mut execution, Event::TaskFailed { attempt: other, error: None, cause: None });
    let backoff = step.commands.iter().find_map(|command| match command {
        Command::SetTimer { timer, .. } => Some(*timer),
        _ => None,
    });
    let (over, _) = decide(&mut execution, Event::TimerFired { timer: backoff.unwrap() });
    vec![beat, ended, failed, over]
}

#[test]
fn an_event_reads_as_many_rows_in_a_wide_map_as_in_a_narrow_one() {
    for concurrency in [0, 30] {
        let narrow = rows_read(50, concurrency);
        assert_eq!(rows_read(4_000, concurrency), narrow);
        // The index, the branch, the Map, the Parallel and the root; and the item that is next.
        assert!(narrow.iter().all(|rows| *rows <= 6), "{narrow:?}");
    }
}
