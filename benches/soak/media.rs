//! Damaged files of ten containers, dropped together on the share of one served box: each comes to a verdict that is true.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use conveyor_testing::served::Served;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::house::{self, Verdict};
use crate::lots::{Tell, Told};
use crate::{clips, mutate};

/// How long a lot may take, on a machine that does much besides.
const LIMIT: Duration = Duration::from_secs(900);
/// Errors with which a damaged file may stay where it was dropped, to be tried again: those of the box's surroundings, which
/// a busy machine may have. All others are the file's own fault, and belong into quarantine.
const MAY_STAY: &[&str] = &[
    "ALREADY_PROCESSED",
    "Media.Stalled",
    "Media.ShareUnreachable",
    "Media.DiskFull",
    "Media.Vanished",
    "Files.ShareUnreachable",
    "Files.DiskFull",
    "States.Timeout",
    "States.HeartbeatTimeout",
];

/// Errors of the stages themselves, which no file is to be blamed for.
const OURS: &[&str] = &["Stage.BadReport", "Stage.Panicked"];

/// A file, and how it was damaged.
struct Dropped {
    seed: u64,
    name: String,
    bytes: Vec<u8>,
    how: String,
}

impl Dropped {
    fn new(seed: u64) -> Dropped {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (kind, _) = clips::KINDS[rng.random_range(0..clips::KINDS.len())];
        let mut bytes = clips::read(kind);
        let how = mutate::mutate(&mut rng, &mut bytes);
        Dropped { seed, name: format!("{seed}.{kind}"), bytes, how }
    }

    fn told(&self, verdict: Result<String, String>) -> Told {
        let (what, fault) = match verdict {
            Ok(what) => (what, None),
            Err(fault) => ("found".to_owned(), Some(format!("{} ({}): {fault}", self.name, self.how))),
        };
        Told { seed: self.seed, tried: 1, what, fault }
    }
}

pub fn run(seeds: Range<u64>, tell: &Tell) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(lot(seeds, tell));
}

async fn lot(seeds: Range<u64>, tell: &Tell) {
    let dir = tempfile::tempdir().unwrap();
    let (folder, first) = (dir.path(), seeds.start);
    house::lay_out(folder, "");
    let served = Served::start(folder);
    let mut open: BTreeMap<String, Dropped> = BTreeMap::new();
    for dropped in seeds.map(Dropped::new) {
        house::drop_file(&folder.join("incoming"), &dropped.name, &dropped.bytes);
        open.insert(dropped.name.clone(), dropped);
    }
    // The last one is told of when what all of them leave was looked at.
    let mut last = None;
    let begun = Instant::now();
    while !open.is_empty() && begun.elapsed() < LIMIT {
        for row in house::executions(&served, "machine=main").await {
            let name = row["file"].as_str().unwrap_or_default();
            if row["stoppedAt"].is_null() || !open.contains_key(name) {
                continue;
            }
            let dropped = open.remove(name).unwrap();
            let mut verdict = verdict(folder, &dropped, &row);
            if let Err(fault) = &mut verdict {
                *fault += &format!("; its execution: {}", house::cause(&served, &row).await);
            }
            let told = dropped.told(verdict);
            last.replace(told).iter().for_each(|told| tell.tell(told));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for dropped in open.into_values() {
        let told = dropped.told(waits(&served, &dropped).await);
        last.replace(told).iter().for_each(|told| tell.tell(told));
    }
    let mut last = last.unwrap_or(Told { seed: first, tried: 0, what: "nothing".into(), fault: None });
    if last.fault.is_none() {
        let left = leaves_nothing(folder, served).await;
        last.fault = left.err().map(|what| format!("the lot from seed {first} on: {what}"));
    }
    tell.tell(&last);
}

fn verdict(folder: &Path, dropped: &Dropped, row: &Value) -> Result<String, String> {
    if crate::is_planted() {
        for path in house::files_below(folder).iter().filter(|path| path.ends_with(&dropped.name)) {
            fs::remove_file(path).map_err(|e| e.to_string())?;
        }
    }
    match house::judge(folder, &dropped.name, &dropped.bytes, row)? {
        Verdict::Published => Ok("published".into()),
        Verdict::Quarantined(error) if OURS.contains(&error.as_str()) => {
            Err(format!("it is in quarantine for {error}, which is a fault of this program's and not the file's"))
        }
        Verdict::Quarantined(error) => Ok(format!("quarantined {error}")),
        Verdict::Kept(error) if MAY_STAY.contains(&error.as_str()) => Ok(format!("waits {error}")),
        Verdict::Kept(error) => {
            Err(format!("it stays on the share and is tried for ever for {error}, which is no fault of the box"))
        }
    }
}

/// Whether a file without a verdict may wait: for what the box lacks.
async fn waits(served: &Served, dropped: &Dropped) -> Result<String, String> {
    let Some(job) = house::jobs_of(served, &dropped.name).await.pop() else {
        return Err(format!("hangs: after {LIMIT:?} nothing was begun for it"));
    };
    let mut said = house::history(served, &job).await;
    for row in house::executions(served, "status=RUNNING&nested=true").await {
        said += &house::history(served, &row).await;
    }
    match ["ShareUnreachable", "DiskFull"].iter().find(|error| said.contains(**error)) {
        Some(error) => Ok(format!("waits {error}")),
        None => Err(format!("hangs: after {LIMIT:?} its execution {} has not ended", job["id"])),
    }
}

async fn leaves_nothing(folder: &Path, served: Served) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let running = house::executions(&served, "status=RUNNING&nested=true").await;
        let left = house::leftovers(folder);
        if running.is_empty() && left.is_empty() {
            break;
        }
        if begun.elapsed() > Duration::from_secs(60) {
            return Err(format!("left behind: {left:?}, and these still run: {running:?}"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    served.kill();
    let checked = std::panic::catch_unwind(|| house::check(folder));
    checked.map_err(|_| "`conveyor check` finds something".to_owned())
}
