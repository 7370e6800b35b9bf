//! The whole box in simulation: interpreter, actors, lanes, timers, services, adapters and store with their real cores, on
//! a disk that loses power at any write and sync, in a paused time.
//!
//! A life is a few boots. In each, people start executions (some twice by one name), stop them, redrive them, hold
//! tokens and fetch activities; scripted resources succeed, fail, hang, panic, fall silent, or submit and leave the
//! end to others. In the lives of `services` the resources are the box's own, and people also send, receive, decide,
//! create, upload and drop files, hang up at any await, and set the clock, while actors die at any message. The power goes
//! at a given write, sync, length change or rename; after an outage the next boot starts on what survived; the last boot
//! runs to the end, and `oracle` and `ledger` read what is stored and share no code with the interpreter and the services. In the lives
//! of `rot` bytes of the disk are others when it is on again.
//! Not in it: media, HTTP, log delivery, jobs at other services, the record of express starts (a thread of its own), and
//! shares that lose power (uploads and watched folders are real folders, which keep all).
//!
//! What is deterministic: time (it is tokio's, paused, and moves only when nothing can run), the order of tasks on
//! the one thread, the plans, delays and outages of a seed, which sectors of the disk survive. What is not: the
//! random bits of ids and tokens (they are as long each time, so the disk's operations keep their number but for
//! redb's choice of pages), which branch of a ready `select!` is looked at first, and in lives with files the threads that
//! read and write them. So a failure comes back with its seed and crash points nearly always, and not by proof.
//!
//! `CONVEYOR_SIM_SEEDS` widens the search; `CONVEYOR_SIM_FROM` is the first seed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "sim/disk_time.rs"]
mod disk_time;
#[path = "sim/life.rs"]
mod life;
#[path = "sim/machines.rs"]
mod machines;
#[path = "sim/oracle.rs"]
mod oracle;
#[path = "sim/rot.rs"]
mod rotting;
#[path = "sim/services.rs"]
mod services;
#[path = "sim/world.rs"]
mod world;

use life::{Life, Off, Starts};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use services::{Powers, ServiceLife, Size};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn seeds(default: u64) -> std::ops::Range<u64> {
    let from = number("CONVEYOR_SIM_FROM", 0);
    from..from + number("CONVEYOR_SIM_SEEDS", default)
}

#[test]
fn everything_ends_as_it_should() {
    for seed in seeds(4) {
        Life::new(seed, usize::MAX).live(&[]);
    }
}

/// Crashes at random points of random boots.
#[test]
fn crashes_lose_nothing_and_double_nothing() {
    for seed in seeds(6) {
        let operations = Life::new(seed, usize::MAX).live(&[]);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for _ in 0..4 {
            let boots = rng.random_range(1..4);
            let offs: Vec<Off> = (0..boots).map(|_| Off::Power(rng.random_range(1..=operations))).collect();
            Life::new(seed, usize::MAX).live(&offs);
        }
    }
}

/// Orderly shutdowns in the middle of the work, and power cuts between them.
#[test]
fn an_orderly_shutdown_loses_nothing() {
    for seed in seeds(12) {
        let mut rng = ChaCha8Rng::seed_from_u64(!seed);
        let mut offs = vec![Off::Order(rng.random_range(0..6_000)), Off::Order(rng.random_range(0..20_000))];
        offs.insert(rng.random_range(0..3), Off::Power(rng.random_range(1..1_500)));
        Life::new(seed, usize::MAX).live(&offs);
    }
}

/// The power goes at every single operation of a small life.
#[test]
fn a_crash_anywhere_is_survived() {
    for seed in seeds(1) {
        let operations = Life::new(seed, 2).live(&[]);
        for operation in 1..=operations {
            Life::new(seed, 2).live(&[Off::Power(operation)]);
        }
    }
}

/// The clock goes back and forth by hours, and the machine sleeps: what lasts lasts as long as it should.
#[test]
fn no_setting_of_the_clock_shortens_or_stops_what_lasts() {
    for seed in seeds(4) {
        Life::with_a_clock_that_is_set(seed).live(&[]);
        let mut rng = ChaCha8Rng::seed_from_u64(!seed);
        let offs = [Off::Power(rng.random_range(150..1_200)), Off::Order(rng.random_range(1_000..60_000))];
        Life::with_a_clock_that_is_set(seed).live(&offs);
    }
}

/// The machine starts in 1970, or a year ahead, and its clock is set right a while later.
#[test]
fn a_machine_that_starts_with_a_wrong_clock_does_all_it_should() {
    for seed in seeds(3) {
        for starts in [Starts::In1970, Starts::AYearAhead] {
            Life::with_a_clock_that_starts_wrong(seed, starts).live(&[]);
            let mut rng = ChaCha8Rng::seed_from_u64(!seed);
            let offs = [Off::Power(rng.random_range(150..1_200)), Off::Order(rng.random_range(1_000..60_000))];
            Life::with_a_clock_that_starts_wrong(seed, starts).live(&offs);
        }
    }
}

/// Bytes rot while the box is off: what was true is told, or it is an error by name.
#[test]
fn what_rots_between_lives_is_told_and_never_taken_for_true() {
    for seed in seeds(12) {
        println!("seed {seed}: {}", rotting::live(seed));
    }
}

/// The services: queues, items, events, claims, approvals, notifications, schedules, uploads, watched folders, the audit
/// log.
#[test]
fn services_do_each_thing_once() {
    for seed in seeds(6) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let powers = Powers::drawn(&mut rng);
        let operations = ServiceLife::new(seed, powers, Size::WHOLE).live(&[]);
        let boots = rng.random_range(1..4);
        let offs: Vec<u64> = (0..boots).map(|_| rng.random_range(1..=operations)).collect();
        ServiceLife::new(seed, powers, Size::WHOLE).live(&offs);
    }
}

/// The power goes at every single operation of a small life with services: at every twelfth of them by one seed, at
/// the next ones by the next, so that twelve seeds are one life.
#[test]
fn a_power_cut_anywhere_spares_what_was_promised() {
    const SEEDS_PER_LIFE: u64 = 12;
    for seed in seeds(1) {
        let (life, first) = (seed / SEEDS_PER_LIFE, 1 + seed % SEEDS_PER_LIFE);
        let powers = Powers::drawn(&mut ChaCha8Rng::seed_from_u64(life));
        let operations = ServiceLife::new(life, powers, Size::SMALL).live(&[]);
        for operation in (first..=operations).step_by(SEEDS_PER_LIFE as usize) {
            ServiceLife::new(life, powers, Size::SMALL).live(&[operation]);
        }
    }
}
