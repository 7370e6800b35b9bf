//! Hours of seeded harm, side by side: `make soak MINUTES=n`, and `make soak SEED=campaign:n` for one of its cases again.
//!
//! ```text
//! crashes  the whole box in simulation, whose power goes
//! kills    kill -9 of the served binary with executions, messages, uploads and media in flight
//! media    damaged files of ten containers, dropped on a served box's share
//! rot      damage to the files of a store, and to those of a simulated box between its lives
//! disks    disks that are full or gone, under a served box
//! ```
//!
//! Each campaign takes ever new seeds, a few at a time in a process of its own (`lots`), so that what hangs or dies takes
//! nothing else with it. What was found is printed with the seed that brings it back, and all of it goes to RELIABILITY.md
//! (`table`). Ends with 1 where something was found. What is not deterministic is what the kernel's threads and disks do;
//! a seed fixes everything that this program draws.
//!
//! `CONVEYOR_SOAK_MINUTES`, `CONVEYOR_SOAK_SEED` and `CONVEYOR_SOAK_ONLY` (names of campaigns) say what is run; without
//! one of the first two nothing is, so that benchmarks do not wait for it. `CONVEYOR_SOAK_PLANT=1` tries the judges: a counter
//! that is off by one (kills, and the disks that fill under the store), a file that is removed (media), a wrong answer (rot).
//! Each such case must then be found; no figures of it are kept.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

// The simulator is that of the tests, whose modules know each other by these names.
#[path = "../tests/sim/disk_time.rs"]
mod disk_time;
#[path = "../tests/sim/life.rs"]
mod life;
#[path = "../tests/sim/machines.rs"]
mod machines;
#[path = "../tests/sim/oracle.rs"]
mod oracle;
#[path = "../tests/sim/rot.rs"]
mod rotting;
#[path = "../tests/sim/services.rs"]
mod services;
#[path = "../tests/sim/world.rs"]
mod world;

#[path = "soak/clips.rs"]
mod clips;
#[path = "soak/crashes.rs"]
mod crashes;
#[path = "soak/disks.rs"]
mod disks;
#[path = "soak/house.rs"]
mod house;
#[path = "soak/kills.rs"]
mod kills;
#[path = "soak/ledger.rs"]
mod ledger;
#[path = "soak/lots.rs"]
mod lots;
#[path = "soak/media.rs"]
mod media;
#[path = "soak/mutate.rs"]
mod mutate;
#[path = "soak/rot.rs"]
mod rot;
#[path = "soak/table.rs"]
mod table;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use lots::{Campaign, Told};
use table::{Row, Table};

const CAMPAIGNS: &[Campaign] = &[
    Campaign {
        name: "crashes",
        unit: "simulated crashes",
        aim: 10_000,
        lot: 4,
        limit: Duration::from_secs(600),
        run: crashes::run,
    },
    Campaign {
        name: "kills",
        unit: "kill -9 of the real binary",
        aim: 1_000,
        lot: 1,
        limit: Duration::from_secs(1_200),
        run: kills::run,
    },
    Campaign {
        name: "media",
        unit: "mutated media files",
        aim: 5_000,
        lot: 12,
        limit: Duration::from_secs(1_200),
        run: media::run,
    },
    Campaign {
        name: "rot",
        unit: "damaged stores",
        aim: 2_000,
        lot: 10,
        limit: Duration::from_secs(240),
        run: rot::run,
    },
    Campaign {
        name: "disks",
        unit: "full and vanishing disks",
        aim: 100,
        lot: 1,
        limit: Duration::from_secs(900),
        run: disks::run,
    },
];
/// How often the table is written while the campaigns run, so that what breaks off a night costs little of it.
const WRITE_EVERY: Duration = Duration::from_secs(300);

/// What is not empty.
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.trim().is_empty())
}

/// Whether the judges are to meet a planted loss.
fn is_planted() -> bool {
    setting("CONVEYOR_SOAK_PLANT").is_some()
}

fn campaign(name: &str) -> &'static Campaign {
    let names: Vec<&str> = CAMPAIGNS.iter().map(|campaign| campaign.name).collect();
    CAMPAIGNS.iter().find(|campaign| campaign.name == name).unwrap_or_else(|| panic!("'{name}' is none of {names:?}"))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if let [of, from, to] = &arguments[..] {
        lots::run_here(campaign(of), from.parse().unwrap()..to.parse().unwrap());
        return ExitCode::SUCCESS;
    }
    if let Some(seed) = setting("CONVEYOR_SOAK_SEED") {
        let (of, seed) = seed.split_once(':').unwrap_or_else(|| panic!("SEED={seed}: write it as rot:17"));
        let seed: u64 = seed.trim().parse().unwrap_or_else(|_| panic!("SEED={seed} is no number"));
        clips::make_all();
        return one_again(campaign(of.trim()), seed);
    }
    let Some(minutes) = setting("CONVEYOR_SOAK_MINUTES") else {
        println!("soak: runs by `make soak MINUTES=n` only");
        return ExitCode::SUCCESS;
    };
    let minutes: f64 = minutes.trim().parse().unwrap_or_else(|_| panic!("MINUTES={minutes} is no number"));
    clips::make_all();
    soak(minutes)
}

fn one_again(campaign: &'static Campaign, seed: u64) -> ExitCode {
    let (tell, told) = mpsc::channel();
    lots::run_apart(campaign, seed..seed + 1, &tell);
    drop(tell);
    let mut code = ExitCode::SUCCESS;
    for told in told {
        println!("{}:{}: {}", campaign.name, told.seed, told.fault.as_deref().unwrap_or(&told.what));
        if told.fault.is_some() {
            code = ExitCode::FAILURE;
        }
    }
    code
}

fn soak(minutes: f64) -> ExitCode {
    let place = table_path();
    let mut table = Table::read(&place).unwrap_or_else(|what| panic!("{}: {what}", place.display()));
    let only = setting("CONVEYOR_SOAK_ONLY").unwrap_or_default();
    let is_wanted = |campaign: &&Campaign| only.is_empty() || only.split([',', ' ']).any(|name| name == campaign.name);
    let wanted: Vec<&'static Campaign> = CAMPAIGNS.iter().filter(is_wanted).collect();
    let (begun, time) = (Instant::now(), Duration::from_secs_f64(minutes * 60.0));
    let (commit, date) = (table::commit(), table::date());
    let (tell, told) = mpsc::channel();
    // What a process of these does by itself is one thread's work; the boxes of the others use all cores.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for campaign in &wanted {
        let crew = if ["crashes", "rot"].contains(&campaign.name) { cores.div_ceil(4) } else { 1 };
        lots::start(campaign, table.next_seed(campaign.name), crew, begun + time, &tell);
    }
    drop(tell);
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    let (mut found, mut written) = (0, Instant::now());
    for (campaign, Told { seed, tried, what, fault }) in told {
        let row = rows.entry(campaign).or_insert_with(|| Row::new(&date, &commit, campaign));
        row.add(seed, tried, &what, fault.is_some());
        if let Some(fault) = fault {
            found += 1;
            println!("FOUND {campaign}:{seed}: {fault}\n      again: make soak SEED={campaign}:{seed}");
            table.found(&date, &commit, &format!("{campaign}:{seed}"), &fault);
        }
        if written.elapsed() > WRITE_EVERY {
            written = Instant::now();
            let minutes = begun.elapsed().as_secs_f64() / 60.0;
            table.with(rows.values(), minutes).write(&place);
        }
    }
    let whole = table.with(rows.values(), begun.elapsed().as_secs_f64() / 60.0);
    whole.write(&place);
    for row in whole.newest(rows.len()) {
        println!("{row}");
    }
    println!("{found} found; {}", place.display());
    if found == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// With a planted loss no figure is to be kept.
fn table_path() -> PathBuf {
    let name = if is_planted() { "target/soak/RELIABILITY.md" } else { "RELIABILITY.md" };
    conveyor_testing::root().join(name)
}
