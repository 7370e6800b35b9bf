//! Seeds, a lot at a time, each lot in a process of its own: who hangs is killed with all that it started, and who dies is
//! found, by the first seed of which nothing was heard.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::ops::Range;
use std::os::unix::process::CommandExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// One kind of harm.
pub struct Campaign {
    /// As seeds and the table name it.
    pub name: &'static str,
    /// What is counted.
    pub unit: &'static str,
    /// How many there should be over time.
    pub aim: u64,
    /// Seeds that one process takes.
    pub lot: u64,
    /// Who says nothing for this long hangs.
    pub limit: Duration,
    /// Tries these seeds, and tells of each.
    pub run: fn(Range<u64>, &Tell),
}

/// What came of a seed.
#[derive(Clone, Debug)]
pub struct Told {
    pub seed: u64,
    /// How many of what the campaign counts.
    pub tried: u64,
    /// In a word or two, for the table.
    pub what: String,
    pub fault: Option<String>,
}

/// Tells the process that waits for it.
pub struct Tell;

impl Tell {
    pub fn tell(&self, told: &Told) {
        let Told { seed, tried, what, fault } = told;
        let line = json!({"soak": seed, "tried": tried, "what": what, "fault": fault});
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).expect("somebody listens");
    }

    /// Tries a seed; what it panics with is what was found. It says how much it tried, and what came of it.
    pub fn guarded(&self, seed: u64, work: impl FnOnce() -> (u64, String)) {
        LAST_WORDS.lock().unwrap().clear();
        let told = match catch_unwind(AssertUnwindSafe(work)) {
            Ok((tried, what)) => Told { seed, tried, what, fault: None },
            Err(payload) => {
                let text = payload.downcast_ref::<String>().cloned();
                let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                let words = LAST_WORDS.lock().unwrap().join("; ");
                Told {
                    seed,
                    tried: 1,
                    what: "found".into(),
                    fault: Some(format!("{}: {words}", text.unwrap_or_default())),
                }
            }
        };
        self.tell(&told);
    }
}

/// Where the panics of a seed were.
static LAST_WORDS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// In the process of a lot.
pub fn run_here(campaign: &Campaign, seeds: Range<u64>) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let place = info.location().map_or_else(String::new, ToString::to_string);
        let mut words = LAST_WORDS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if words.len() < 4 {
            words.push(place);
        }
        drop(words);
        before(info);
    }));
    (campaign.run)(seeds, &Tell);
}

/// Where this program works: what was found leaves its folder there.
pub fn folder() -> PathBuf {
    conveyor_testing::root().join("target/soak")
}

/// Runs lots with so many processes at once until the time is over, from that seed on.
pub fn start(
    campaign: &'static Campaign,
    first: u64,
    crew: usize,
    until: Instant,
    tell: &mpsc::Sender<(&'static str, Told)>,
) {
    let next = Arc::new(AtomicU64::new(first));
    for _ in 0..crew {
        let (next, tell) = (next.clone(), tell.clone());
        std::thread::spawn(move || {
            while Instant::now() < until {
                let from = next.fetch_add(campaign.lot, Ordering::Relaxed);
                let (of_lot, told) = mpsc::channel();
                run_apart(campaign, from..from + campaign.lot, &of_lot);
                drop(of_lot);
                for told in told {
                    let _ = tell.send((campaign.name, told));
                }
            }
        });
    }
}

/// One lot in a process of its own. Returns when nothing of it runs any more.
pub fn run_apart(campaign: &Campaign, seeds: Range<u64>, tell: &mpsc::Sender<Told>) {
    let place = folder().join(format!("{}-{}", campaign.name, seeds.start));
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place).unwrap();
    let log = fs::File::create(place.join("log")).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([campaign.name, &seeds.start.to_string(), &seeds.end.to_string()]);
    command.env("TMPDIR", &place).env_remove("CONVEYOR_SOAK_MINUTES").env_remove("CONVEYOR_SOAK_SEED");
    let mut child = command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
    let group = Pid::from_raw(child.id() as i32);
    let out = child.stdout.take().unwrap();
    let (send, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            let _ = send.send(line);
        }
    });
    let mut missing: BTreeSet<u64> = seeds.collect();
    let mut is_clean = true;
    let mut say = |told: Told, missing: &mut BTreeSet<u64>| {
        missing.remove(&told.seed);
        is_clean &= told.fault.is_none();
        let _ = tell.send(told);
    };
    let end = loop {
        match lines.recv_timeout(campaign.limit) {
            Ok(line) => {
                if let Some(told) = read(&line) {
                    say(told, &mut missing);
                }
                if missing.is_empty() {
                    break None;
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => break Some(format!("hangs: silent for {:?}", campaign.limit)),
            Err(mpsc::RecvTimeoutError::Disconnected) => break Some("its process ended before it".to_owned()),
        }
    };
    // The boxes that it started too. A lot that has told everything may still look after what it leaves.
    let mut status = None;
    let asked = Instant::now();
    while status.is_none() && (end.is_none() || asked.elapsed() < Duration::from_secs(1)) {
        status = child.try_wait().unwrap();
        if status.is_none() && asked.elapsed() > Duration::from_secs(60) {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = killpg(group, Signal::SIGKILL);
    let status = child.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
    // What it had said last.
    while let Ok(line) = lines.try_recv() {
        if let Some(told) = read(&line) {
            say(told, &mut missing);
        }
    }
    if let (Some(end), Some(seed)) = (end, missing.first().copied()) {
        let log = fs::read_to_string(place.join("log")).unwrap_or_default();
        let tail: String = log.chars().rev().take(600).collect::<Vec<_>>().into_iter().rev().collect();
        say(
            Told { seed, tried: 1, what: "found".into(), fault: Some(format!("{end} ({status}): {tail}")) },
            &mut missing,
        );
    }
    if is_clean {
        let _ = fs::remove_dir_all(&place);
    }
}

fn read(line: &str) -> Option<Told> {
    let told: Value = serde_json::from_str(line).ok()?;
    Some(Told {
        seed: told["soak"].as_u64()?,
        tried: told["tried"].as_u64()?,
        what: told["what"].as_str()?.to_owned(),
        fault: told["fault"].as_str().map(str::to_owned),
    })
}
