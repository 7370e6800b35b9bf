//! Yardsticks and steps that the benchmarks share: absolute times move between machines, ratios do not.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use conveyor_base::{Attempt, BranchId, EventId, ExecutionId, TimerId, Timestamp};
use conveyor_interpreter::{
    Branch, Command, Doing, Execution, Header, HistoryEvent, HistoryKind, MachineRef, RunTask, StateType, Status, Step,
    TaskPhase,
};

/// The appliance's own. Each benchmark names it as its global one: a library that did so would change it for tests too.
pub use mimalloc::MiMalloc as Allocator;

/// An empty folder on the disk that is measured: in `CONVEYOR_BENCH_DIR`, or in cargo's `target/tmp`.
pub fn folder(name: &str) -> PathBuf {
    let root = std::env::var_os("CONVEYOR_BENCH_DIR").map_or_else(|| crate::built().join("../tmp"), PathBuf::from);
    let path = root.join(format!("bench-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// Times, shortest first.
pub struct Series(Vec<Duration>);

impl Series {
    pub fn new(mut times: Vec<Duration>) -> Series {
        times.sort();
        Series(times)
    }

    /// All together, in microseconds.
    pub fn total(&self) -> f64 {
        self.0.iter().map(Duration::as_secs_f64).sum::<f64>() * 1e6
    }

    /// A percentile, in microseconds.
    pub fn at(&self, percent: usize) -> f64 {
        self.0[(self.0.len() - 1) * percent / 100].as_secs_f64() * 1e6
    }
}

/// The time of each round. `work` gets the round's number.
pub fn measure(rounds: usize, mut work: impl FnMut(usize)) -> Series {
    let time = |n| {
        let start = Instant::now();
        work(n);
        start.elapsed()
    };
    Series::new((0..rounds).map(time).collect())
}

/// Memory that O_DIRECT accepts.
#[repr(align(4096))]
struct Page([u8; 4096]);

/// How long each part of a bench runs: `CONVEYOR_BENCH_SECONDS`.
pub fn seconds() -> Duration {
    let told = std::env::var("CONVEYOR_BENCH_SECONDS").ok().and_then(|s| s.parse().ok());
    Duration::from_secs_f64(told.unwrap_or(3.0))
}

/// Measures and prints what the disk can do, where it has direct writes.
pub fn print_raw() -> Option<Series> {
    let raw = raw_write(1_000)?;
    println!("raw 4 KiB O_DIRECT|O_DSYNC     p50 {:6.0} µs   p99 {:6.0} µs", raw.at(50), raw.at(99));
    Some(raw)
}

/// What the disk can do: 4 KiB, written with O_DIRECT and O_DSYNC into a file that is filled already.
fn raw_write(rounds: usize) -> Option<Series> {
    let folder = folder("raw");
    let path = folder.join("raw");
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(&vec![0; 4 << 20]).unwrap();
    file.sync_all().unwrap();
    let flags = nix::libc::O_DIRECT | nix::libc::O_DSYNC;
    let file = std::fs::OpenOptions::new().write(true).custom_flags(flags).open(&path).ok()?;
    let page = Page([7; 4096]);
    file.write_at(&page.0, 0).ok()?;
    let series = measure(rounds, |n| file.write_all_at(&page.0, (n % 1024 * 4096) as u64).unwrap());
    std::fs::remove_dir_all(folder).unwrap();
    Some(series)
}

/// What redb can do: one row of 256 bytes in a commit of its own.
pub fn redb_commit(rounds: usize) -> Series {
    let folder = folder("redb");
    let database = redb::Database::create(folder.join("redb")).unwrap();
    let rows = redb::TableDefinition::<u64, &[u8]>::new("rows");
    let series = measure(rounds, |n| {
        let transaction = database.begin_write().unwrap();
        transaction.open_table(rows).unwrap().insert(n as u64, [7; 256].as_slice()).unwrap();
        transaction.commit().unwrap();
    });
    std::fs::remove_dir_all(folder).unwrap();
    series
}

/// An execution of `main` that has just begun.
pub fn header(id: ExecutionId) -> Header {
    Header {
        id,
        name: id.to_string(),
        machine: MachineRef { name: "main".into(), revision: 1, qualifier: None },
        status: Status::Running,
        started_at: Timestamp(1),
        stopped_at: None,
        input: Arc::from(r#"{"bucket":"incoming","key":"clips/interview-014.mov","size":734003200}"#),
        outcome: None,
        last_event: EventId(0),
        next_branch: BranchId(1),
        next_attempt: Attempt(0),
        next_timer: TimerId(0),
        timeout_timer: None,
        parent: None,
        child: None,
        redrive_count: 0,
        redriven_at: None,
        trace_header: None,
    }
}

fn branch(header: &Header, doing: Doing) -> Branch {
    Branch {
        parent: None,
        state: Arc::from("TranscodeRenditions"),
        state_entered_at: Timestamp(1),
        state_entered_event: header.last_event,
        input: Arc::new(serde_json::from_str(&header.input).unwrap()),
        previous_event: header.last_event,
        variables: BTreeMap::new(),
        map_item: None,
        retries: Vec::new(),
        doing,
    }
}

/// A transition as most are: a task ends, the next state is entered and its task scheduled.
pub fn transition(before: &Execution) -> Step {
    let mut header = before.header.clone();
    let attempt = header.next_attempt;
    header.next_attempt = Attempt(attempt.0 + 1);
    let first = header.last_event.0 + 1;
    header.last_event = EventId(first + 3);
    let json = header.input.clone();
    let (state_type, name): (_, Arc<str>) = (StateType::Task, Arc::from("TranscodeRenditions"));
    let (resource_type, resource) = ("conveyor".to_owned(), "transcode".to_owned());
    let kinds = [
        HistoryKind::TaskSucceeded {
            resource_type: resource_type.clone(),
            resource: resource.clone(),
            output: json.clone(),
        },
        HistoryKind::StateExited { state_type, name: name.clone(), output: json.clone(), assigned: Vec::new() },
        HistoryKind::StateEntered { state_type, name: name.clone(), input: json.clone() },
        HistoryKind::TaskScheduled {
            resource_type,
            resource,
            region: "us-east-1".into(),
            parameters: json.clone(),
            timeout_seconds: Some(60),
            heartbeat_seconds: None,
        },
    ];
    let event = |(n, kind)| HistoryEvent { id: EventId(n), previous: EventId(n - 1), at: Timestamp(2), kind };
    let doing = Doing::Task {
        attempt,
        phase: TaskPhase::Scheduled,
        nonce: 1,
        timeout: None,
        heartbeat: None,
        heartbeat_ms: None,
    };
    let task = RunTask {
        attempt,
        branch: BranchId::ROOT,
        state: name,
        resource: "arn:aws:states:::conveyor:transcode".into(),
        parameters: json,
        token: None,
        timeout_ms: Some(60_000),
        heartbeat_ms: None,
        retry_count: 0,
        scheduled_at: Timestamp(2),
    };
    Step {
        branches: BTreeMap::from([(BranchId::ROOT, Some(branch(&header, doing)))]),
        header: Some(header),
        history: (first..).zip(kinds).map(event).collect(),
        commands: vec![Command::RunTask(Box::new(task))],
        ..Step::default()
    }
}

/// A start that goes to sleep at once.
pub fn sleeping(id: ExecutionId, due: Timestamp) -> Step {
    let mut header = header(id);
    header.last_event = EventId(2);
    header.next_timer = TimerId(1);
    let kinds = [
        HistoryKind::ExecutionStarted {
            input: header.input.clone(),
            role_arn: "arn:aws:iam::000000000000:role/box".into(),
        },
        HistoryKind::StateEntered {
            state_type: StateType::Wait,
            name: Arc::from("WaitForJob"),
            input: header.input.clone(),
        },
    ];
    let event = |(n, kind)| HistoryEvent { id: EventId(n), previous: EventId(n - 1), at: Timestamp(2), kind };
    Step {
        branches: BTreeMap::from([(BranchId::ROOT, Some(branch(&header, Doing::Wait { timer: TimerId(0), due })))]),
        header: Some(header),
        history: (1..).zip(kinds).map(event).collect(),
        commands: vec![Command::SetTimer { timer: TimerId(0), due }],
        ..Step::default()
    }
}

/// How much memory this process holds, in MiB.
pub fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|l| l.split_whitespace().nth(1)?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}
