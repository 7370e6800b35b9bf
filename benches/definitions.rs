//! What definitions of 1 MiB cost that somebody sends to hurt the box: CPU time and the peak of memory.
//!
//! `cargo bench -p conveyor-asl --bench definitions [-- part of a shape's name]`. The bound is 1 s and 64 MiB for each.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use conveyor_asl::{WorkflowType, check, review};
use conveyor_testing::hostile;

/// The system's, counted.
struct Counted;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counted = Counted;

// SAFETY: everything is the system allocator's; the counters beside it allocate nothing.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller's promises are those that are asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let held = HELD.fetch_add(size, Ordering::Relaxed).wrapping_add(size).wrapping_sub(layout.size());
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: as above. What is large is moved by its pages and never there twice.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// What this thread has computed, in milliseconds.
fn cpu_ms() -> f64 {
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    spent.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e6
}

/// CPU time in milliseconds and the peak of memory in MiB.
fn cost<T>(work: impl FnOnce() -> T) -> (T, f64, f64) {
    let (held, start) = (HELD.load(Ordering::Relaxed), cpu_ms());
    PEAK.store(held, Ordering::Relaxed);
    let done = work();
    let spent = cpu_ms() - start;
    (done, spent, PEAK.load(Ordering::Relaxed).saturating_sub(held) as f64 / f64::from(1 << 20))
}

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    println!("{:36} {:>9} {:>9} {:>9} {:>9}  found", "1 MiB of", "check ms", "MiB", "review ms", "MiB");
    let (mut slowest, mut largest) = (0.0_f64, 0.0_f64);
    for (name, text) in hostile::shapes(hostile::BYTES) {
        if !asked.is_empty() && !asked.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        let (_, check_ms, check_mib) = cost(|| check(&text, WorkflowType::Standard));
        let ((machine, problems), ms, mib) = cost(|| review(&text, WorkflowType::Standard, None));
        let cut = if problems.iter().any(|p| p.code == "NOT_FOLLOWED_FURTHER") { ", not followed further" } else { "" };
        let states = machine.map_or_else(|| "refused".to_owned(), |machine| format!("{} states", machine.states.len()));
        println!(
            "{name:36} {check_ms:9.0} {check_mib:9.1} {ms:9.0} {mib:9.1}  {states}, {} problems{cut}",
            problems.len()
        );
        (slowest, largest) = (slowest.max(ms), largest.max(mib));
    }
    println!("{:36} {:>9} {:>9} {slowest:9.0} {largest:9.1}", "most", "", "");
    for count in [1_000, 6_000, 16_300] {
        let states =
            (0..count).map(|n| format!(r#""S{n:05}":{{"Type":"Pass","Assign":{{"v{n}":1}},"Next":"S{:05}"}}"#, n + 1));
        let states = states.chain([format!(r#""S{count:05}":{{"Type":"Succeed"}}"#)]).collect::<Vec<_>>().join(",");
        let text = format!(r#"{{"StartAt":"S00000","States":{{{states}}}}}"#);
        let ((_, problems), ms, mib) = cost(|| review(&text, WorkflowType::Standard, None));
        println!(
            "{count:6} passes with one assign, {} KiB: {ms:.0} ms, {mib:.1} MiB, {} problems",
            text.len() >> 10,
            problems.len()
        );
    }
}
