//! A life that is switched off in the middle, and whose disk then rots before the box is on again.
//!
//! What had ended is told as it ended, or it is an error that says what to do; what had not ends as it must, or fails by
//! that name, or stands where its rows cannot be read. A repair leaves a box that has no damage any more, and what it lost it named.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Once};
use std::time::Duration;

use conveyor_base::{EventId, ExecutionId, Fault, fault};
use conveyor_interpreter::{Outcome, Status};
use conveyor_run::{self as run, Config, Handle, Lanes};
use conveyor_store::sim::SimDisk;
use conveyor_store::{Backends, Direction, ExecutionFilter, Options, Scans, Threads, open, repair};
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tokio::time::sleep;

use crate::life::{Life, Off};
use crate::machines::{self, End, Then};
use crate::world::{PausedClock, World};

/// In the box's own time: longer than all that anything waits for.
const SERVED: Duration = Duration::from_secs(7_200);

/// Places of a file that are looked at for one in which something lies.
const DRAWS_MAX: usize = 1_000;

/// Executions that had ended, and all that is told of them.
type Truth = BTreeMap<ExecutionId, String>;

thread_local! {
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

/// Panics are caught in many places, and none of them may come.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            before(info);
        }));
    });
}

/// Says what came of it.
pub fn live(seed: u64) -> String {
    watch_panics();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut life = Life::new(seed, usize::MAX);
    let off = match rng.random_bool(0.5) {
        true => Off::Order(rng.random_range(1_000..30_000)),
        false => Off::Power(rng.random_range(200..1_500)),
    };
    let Some(disk) = life.until(off) else { return "it was through".to_owned() };
    let truth = ended(&disk);
    let disk = disk.restart();
    let at = format!("seed {seed}, {off:?}, {}", rot(&mut rng, &disk));

    let panics = PANICS.get();
    let end = serve(&life, &disk, &truth, "", &at);
    assert_eq!(PANICS.get(), panics, "{at}: something panicked");
    let disk = disk.restart();
    let backends: Arc<dyn Backends> = Arc::new(disk.clone());
    let done = match repair(&backends) {
        Ok(done) => done,
        Err(refused) => {
            let text = fault::chain(&refused);
            assert!(text.contains("nothing of") && text.contains("backup"), "{at}: {text}");
            return format!("{end}, and only a backup helps");
        }
    };
    let lost = done.lost.join("\n");
    let again = serve(&life, &disk, &truth, &lost, &at);
    assert!(again == "no damage" || lost.contains("'revisions'"), "{at}: after a repair that lost {lost}: {again}");
    format!("{end}, mended {}", if lost.is_empty() { "whole" } else { "in part" })
}

fn opened(disk: &SimDisk) -> Options {
    let threads = Threads::Caller { checkpoint_every: 5 };
    Options { threads, segment_bytes: 32 << 10, ..Options::on(Arc::new(disk.clone())) }
}

fn ended(disk: &SimDisk) -> Truth {
    let (writer, reader) = open(opened(disk)).unwrap();
    let rows = reader.on_this_thread();
    let all = rows.executions(&ExecutionFilter::default(), None, 10_000).unwrap().items;
    let over = all.into_iter().filter(|summary| summary.status != Status::Running);
    let truth = over.map(|summary| (summary.id, told(&rows, summary.id).unwrap().unwrap())).collect();
    drop(writer);
    truth
}

fn told(rows: &Scans, id: ExecutionId) -> Result<Option<String>, Fault> {
    let Some(header) = rows.header(id)? else { return Ok(None) };
    let history = rows.history(id, EventId(1), usize::MAX, Direction::Forward)?;
    Ok(Some(format!("{header:?} {history:?}")))
}

/// Up to three places of the disk are not as they were written.
fn rot(rng: &mut ChaCha8Rng, disk: &SimDisk) -> String {
    let names: Vec<String> = disk.names().unwrap();
    let mut what = Vec::new();
    for _ in 0..rng.random_range(1..4) {
        // Most bytes are the state's, and what is damaged there is met by most.
        let name = if rng.random_bool(0.7) { "state.redb" } else { names.choose(rng).unwrap() };
        let file = disk.open(name).unwrap();
        let length = file.len().unwrap() as usize;
        // Most of a small file is blank, and nobody misses anything there.
        let draw = || rng.random_range(0..length.max(1));
        let is_used = |byte: &usize| {
            let mut there = [0];
            file.read(*byte as u64, &mut there).is_ok() && there != [0]
        };
        let byte = std::iter::repeat_with(draw).take(DRAWS_MAX).find(is_used).unwrap_or_default();
        if rng.random_range(0..4) == 0 {
            disk.lose_sector(name, byte);
            what.push(format!("the sector of byte {byte} of {name} lost"));
        } else {
            let bit = rng.random_range(0..8);
            disk.flip(name, byte, bit);
            what.push(format!("bit {bit} of byte {byte} of {name} flipped"));
        }
    }
    what.join(", ")
}

/// Serves the disk for long enough, and compares what is told then. `lost`: what a repair has named.
fn serve(life: &Life, disk: &SimDisk, truth: &Truth, lost: &str, at: &str) -> &'static str {
    let boot = {
        let mut world = life.world.0.lock();
        world.boot += 1;
        world.boot
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let (writer, reader) = match open(opened(disk)) {
            Ok(both) => both,
            Err(refused) => {
                says_what_to_do(&fault::chain(&refused), at);
                return "it is not opened";
            }
        };
        let config = Config {
            writer: writer.clone(),
            reader: reader.clone(),
            resources: Arc::new(life.world.clone()),
            clock: Arc::new(PausedClock::at(
                life.now().plus_ms(i64::from(boot) * 10_000_000),
                u128::from(boot),
                life.world.clone(),
            )),
            lanes: Lanes::of_cores(2, 1),
            account: "000000000000".into(),
            region: "us-east-1".into(),
            express_record: None,
        };
        let handle = match run::start(config).await {
            Ok(handle) => handle,
            Err(refused) => {
                says_what_to_do(&fault::chain(&refused), at);
                return "it does not start";
            }
        };
        let people = [
            tokio::spawn(fetch(handle.clone(), life.world.clone())),
            tokio::spawn(report(handle.clone(), life.world.clone())),
        ];
        let mut fatal = handle.fatal();
        let stopped = tokio::time::timeout(SERVED, fatal.wait_for(Option::is_some)).await.is_ok();
        people.iter().for_each(tokio::task::JoinHandle::abort);
        if stopped {
            says_what_to_do(&handle.fatal().borrow().clone().unwrap(), at);
        }
        let rows = reader.on_this_thread();
        compare(&rows, truth, lost, at);
        let damages = rows.damages();
        // With a definition, or steps of the journal, goes what others need.
        if !stopped && !["journal", "'revisions'"].iter().any(|word| lost.contains(word)) {
            others_go_on(&rows, &format!("{}\n{lost}", damages.join("\n")), at);
        }
        handle.shut_down().await;
        // One that has stopped says so.
        let _ = writer.close();
        match (stopped, damages.is_empty()) {
            (true, _) => "it ends in order",
            (false, true) => "no damage",
            (false, false) => "some errors",
        }
    })
}

fn says_what_to_do(text: &str, at: &str) {
    assert!(text.contains("conveyor check --repair") || text.contains("the store stopped"), "{at}: {text}");
}

fn compare(rows: &Scans, truth: &Truth, lost: &str, at: &str) {
    for (id, was) in truth {
        match told(rows, *id) {
            Ok(Some(is)) => assert!(is == *was || lost.contains("journal"), "{at}: WRONG: {is} was {was}"),
            Ok(None) => assert!(lost.contains(&id.to_string()) || lost.contains("journal"), "{at}: {id} is gone"),
            Err(Fault::Retryable { what, .. }) => panic!("{at}: {id}: {what}"),
            Err(fault) => says_what_to_do(&fault::chain(&fault), at),
        }
    }
}

/// Those that nobody has a hand in, and that have no children, are through or are told as damaged.
fn others_go_on(rows: &Scans, damages: &str, at: &str) {
    let Ok(all) = rows.executions(&ExecutionFilter::default(), None, 10_000) else { return };
    for summary in all.items.into_iter().filter(|summary| summary.parent.is_none()) {
        let spec = machines::all().into_iter().find(|spec| spec.name == summary.machine.name).unwrap();
        let End::Output(want) = &spec.end else { continue };
        let waits_for_people =
            ["waitForTaskToken", ":activity:"].map(|word| spec.definition.to_string().contains(word));
        let is_alone = spec.then == Then::Nothing
            && spec.name != "parent"
            && machines::children_of(spec.name).is_none()
            && waits_for_people == [false, false];
        let Ok(Some(header)) = rows.header(summary.id) else { continue };
        match &header.outcome {
            Some(Outcome::Succeeded { output }) if is_alone => {
                assert_eq!(serde_json::from_str::<Value>(output).unwrap(), *want, "{at}: WRONG: {}", spec.name);
            }
            // Lanes are kept for ever by what nobody stops.
            None if is_alone && !spec.definition.to_string().contains("\"lane\"") => {
                assert!(damages.contains(&summary.id.to_string()), "{at}: {} is stuck: {damages}", spec.name);
            }
            Some(_) if is_alone => {
                assert_eq!(header.failure().0, Some("Store.Damaged"), "{at}: {} ended wrongly", spec.name);
            }
            _ => {}
        }
    }
}

async fn fetch(handle: Handle, world: World) {
    loop {
        match handle.activity_task("crop", None).await {
            Ok(Some(task)) => world.hold(task.token.to_string(), handle.now()),
            Ok(None) => {}
            Err(_) => sleep(Duration::from_secs(1)).await,
        }
    }
}

/// Whoever holds a token reports until he is heard.
async fn report(handle: Handle, world: World) {
    loop {
        let tokens: Vec<String> = {
            let inner = world.0.lock();
            inner.tokens.iter().filter(|(_, token)| token.answer.is_none()).map(|(token, _)| token.clone()).collect()
        };
        for token in tokens {
            let _ = handle.send_task_success(&token, "{\"reported\":true}".into()).await;
        }
        sleep(Duration::from_secs(10)).await;
    }
}
