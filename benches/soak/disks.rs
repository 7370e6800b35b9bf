//! Disks that are full or gone under a served box: the store's, that of the outputs, and shares that are unmounted while work
//! runs on them. Nothing acknowledged is lost, the box says what is wrong, and it goes on when there is room.
//!
//! The disks are mounts in a namespace of this process, which go with it. Where the kernel gives none, nothing is tried.

use std::fs;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use conveyor_testing::served::Served;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::clips;
use crate::house::{self, Verdict};
use crate::ledger::{self, Ledger};
use crate::lots::{Tell, Told};

/// How long anything may take once there is room.
const LIMIT: Duration = Duration::from_secs(300);
const STORE_BYTES: u64 = 96 << 20;
const OUTPUTS_BYTES: u64 = 64 << 20;
const FILM: &str = "film.mp4";

pub fn run(seeds: Range<u64>, tell: &Tell) {
    if let Err(why) = separate() {
        for seed in seeds {
            tell.tell(&Told { seed, tried: 0, what: format!("not tried: no mounts here ({why})"), fault: None });
        }
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for seed in seeds {
        tell.guarded(seed, || runtime.block_on(one(seed)));
    }
}

/// Mounts of our own, for this process and what it starts. Before it has other threads.
fn separate() -> nix::Result<()> {
    let (user, group) = (nix::unistd::getuid(), nix::unistd::getgid());
    if user.is_root() {
        unshare(CloneFlags::CLONE_NEWNS)?;
    } else {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
        for (file, text) in
            [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {user} 1")), ("gid_map", format!("0 {group} 1"))]
        {
            fs::write(format!("/proc/self/{file}"), text).map_err(|_| nix::Error::EPERM)?;
        }
    }
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
}

fn small_disk(at: &Path, bytes: u64) {
    fs::create_dir_all(at).unwrap();
    let size = format!("size={bytes}");
    mount(Some("small"), at, Some("tmpfs"), MsFlags::empty(), Some(size.as_str())).unwrap();
}

/// A share that can be unmounted, and keeps what it has.
fn attach(real: &Path, at: &Path) {
    mount(Some(real), at, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

/// As a network share that goes while its files are open.
fn detach(at: &Path) {
    umount2(at, MntFlags::MNT_DETACH).unwrap();
}

/// Takes the room of a disk but for so many bytes.
fn fill(disk: &Path, but: u64) -> PathBuf {
    let path = disk.join("ballast");
    let free = nix::sys::statvfs::statvfs(disk).unwrap();
    let free = free.blocks_available() * free.fragment_size();
    let mut bytes = free.saturating_sub(but);
    // What others take meanwhile is not there.
    while fs::write(&path, vec![1u8; bytes as usize]).is_err() && bytes > 1 << 20 {
        let _ = fs::remove_file(&path);
        bytes -= 1 << 20;
    }
    path
}

async fn one(seed: u64) -> (u64, String) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    house::lay_out(folder, ledger::CONFIGURATION);
    let what = match seed % 5 {
        0 => store_full(folder, &mut rng, false).await,
        1 => store_full(folder, &mut rng, true).await,
        2 => outputs_full(folder, &mut rng, seed).await,
        3 => share_gone(folder, &mut rng, seed, "outputs").await,
        _ => share_gone(folder, &mut rng, seed, "incoming").await,
    };
    // What is mounted below would keep its folder.
    for at in ["data", "outputs", "incoming", "real"] {
        let _ = umount2(&folder.join(at), MntFlags::MNT_DETACH);
    }
    (1, what.into())
}

fn says(text: &str, words: &[&str]) -> bool {
    let text = text.to_lowercase();
    words.iter().any(|word| text.contains(word))
}

/// The store's disk fills while executions begin; `is_killed`: and then the power goes too.
async fn store_full(folder: &Path, rng: &mut ChaCha8Rng, is_killed: bool) -> &'static str {
    small_disk(&folder.join("data"), STORE_BYTES);
    let mut served = Served::start(folder);
    ledger::create_machines(&served).await;
    let ledger = Ledger::default();
    let begin = Duration::from_millis(rng.random_range(100..1_500));
    let room = rng.random_range(0..600_000);
    let own = ChaCha8Rng::seed_from_u64(rng.next_u64());
    let address = served.address;
    let mut ballast = PathBuf::new();
    // Until the store takes no more, which it says to whoever starts, or by its end.
    let filled = async {
        tokio::time::sleep(begin).await;
        ballast = fill(&folder.join("data"), room);
        let refused = house::until(Duration::from_secs(120), "a store without room says so", async || {
            let is_gone = house_is_gone(&served);
            (is_gone || ledger.refused().iter().any(|text| !text.contains("Throttl"))).then_some(())
        });
        refused.await;
    };
    tokio::select! {
        () = filled => {}
        // It ends where nobody answers any more.
        () = async {
            ledger.starts(address, own, "full", 60_000).await;
            std::future::pending::<()>().await;
        } => {}
    }
    tokio::time::sleep(Duration::from_millis(rng.random_range(0..3_000))).await;
    let log = || fs::read_to_string(folder.join("log")).unwrap_or_default();
    let told = format!("{:?} {}", ledger.refused(), log());
    assert!(
        says(&told, &["no space", "is full", "disk full", "nearly full", "room"]),
        "a store's disk is full, and the box does not say so: {told}"
    );
    if is_killed {
        served.kill();
        // It serves, or says why not.
        match catch_unwind(AssertUnwindSafe(|| Served::start(folder))) {
            Ok(full) => full.kill(),
            Err(_) => assert!(says(&log(), &["no space", "full", "room"]), "it does not start, and says: {}", log()),
        }
        fs::remove_file(&ballast).unwrap();
        served = Served::start(folder);
    } else {
        fs::remove_file(&ballast).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let probe = ChaCha8Rng::seed_from_u64(rng.next_u64());
        let before = ledger.acknowledged();
        let some = ledger.starts(served.address, probe, "after", 0);
        let _ = tokio::time::timeout(Duration::from_secs(2), some).await;
        if ledger.acknowledged() == before {
            // A store that failed is not written to again: the box ends, and whoever keeps it up starts it again.
            let gone = house::until(Duration::from_secs(60), "a box that takes nothing ends", async || {
                house_is_gone(&served).then_some(())
            });
            gone.await;
            served.kill();
            served = Served::start(folder);
        }
    }
    ledger.judge(&served, LIMIT).await;
    served.kill();
    house::check(folder);
    if is_killed { "store full, killed" } else { "store full" }
}

/// Whether its process has ended (proc(5): state Z until it is waited for).
fn house_is_gone(served: &Served) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", served.id())).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

/// The disk of the outputs fills before or while a film is worked on.
async fn outputs_full(folder: &Path, rng: &mut ChaCha8Rng, seed: u64) -> &'static str {
    let outputs = folder.join("outputs");
    small_disk(&outputs, OUTPUTS_BYTES);
    let served = Served::start(folder);
    let bytes = clips::unlike(&format!("disks/{seed}"));
    let room = rng.random_range(0..120_000);
    let early = rng.random_range(0..2) == 0;
    let mut ballast = if early { Some(fill(&outputs, room)) } else { None };
    house::drop_file(&folder.join("incoming"), FILM, &bytes);
    if !early {
        begins(&served).await;
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..4_000))).await;
        ballast = Some(fill(&outputs, room));
    }
    tokio::time::sleep(Duration::from_millis(rng.random_range(1_000..15_000))).await;
    tells_of(&served, "outputs").await;
    fs::remove_file(ballast.unwrap()).unwrap();
    comes_through(folder, &served, &bytes, &["DiskFull"]).await;
    settles(folder, served).await;
    "outputs full"
}

/// A share is unmounted while a film is worked on, and comes back with what it had.
async fn share_gone(folder: &Path, rng: &mut ChaCha8Rng, seed: u64, share: &'static str) -> &'static str {
    let (at, real) = (folder.join(share), folder.join("real"));
    // A file system of its own, as a network share is one.
    small_disk(&real, OUTPUTS_BYTES);
    attach(&real, &at);
    let served = Served::start(folder);
    // So that the box has seen it mounted.
    let first = clips::unlike(&format!("disks/{seed}/first"));
    house::drop_file(&folder.join("incoming"), "first.mp4", &first);
    let row = house::ended(&served, "first.mp4", LIMIT).await;
    house::judge(folder, "first.mp4", &first, &row).unwrap();
    let bytes = clips::unlike(&format!("disks/{seed}"));
    house::drop_file(&folder.join("incoming"), FILM, &bytes);
    if rng.random_range(0..3) > 0 {
        begins(&served).await;
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..6_000))).await;
    }
    detach(&at);
    let away = Duration::from_millis(rng.random_range(500..20_000));
    tokio::time::sleep(away).await;
    // Unless it was done before.
    let is_done = house::jobs_of(&served, FILM).await.pop().is_some_and(|row| row["status"] == "SUCCEEDED");
    if away > Duration::from_secs(8) && !is_done {
        says_away(&served, share).await;
    }
    let stray = house::files_below(&at);
    assert!(stray.is_empty(), "written where the share '{share}' is not: {stray:?}");
    attach(&real, &at);
    comes_through(folder, &served, &bytes, &["ShareUnreachable"]).await;
    settles(folder, served).await;
    if share == "outputs" { "outputs unmounted" } else { "incoming unmounted" }
}

async fn begins(served: &Served) {
    let begun = house::until(LIMIT, "the film's beginning", async || house::jobs_of(served, FILM).await.pop());
    begun.await;
}

/// Waits until an alarm names the share.
async fn tells_of(served: &Served, share: &str) {
    let told = house::until(Duration::from_secs(60), format!("an alarm that names the share '{share}'"), async || {
        let alarms = served.get("/alarms").await;
        let all = alarms["alarms"].as_array()?.clone();
        all.into_iter().find(|alarm| alarm["raised"] == true && alarm.to_string().contains(share))
    });
    told.await;
}

/// An alarm, or what an attempt at the film failed with.
async fn says_away(served: &Served, share: &str) {
    let told = house::until(Duration::from_secs(90), format!("word of the share '{share}' that is away"), async || {
        let alarms = served.get("/alarms").await;
        let raised = alarms["alarms"].as_array()?.iter().any(|alarm| {
            alarm["raised"] == true
                && alarm.to_string().contains(&format!("share {share}"))
                && !alarm.to_string().contains("nearly full")
        });
        let mut said = String::new();
        for row in house::executions(served, "nested=true").await {
            said += &house::history(served, &row).await;
        }
        (raised || said.contains("ShareUnreachable")).then_some(())
    });
    told.await;
}

/// The film is published, at once or when the watch has tried it again; until then it was kept, and the error was this.
async fn comes_through(folder: &Path, served: &Served, bytes: &[u8], errors: &[&str]) {
    let published = house::until(LIMIT, "the film's publication", async || {
        let row = house::jobs_of(served, FILM).await.pop().filter(|row| !row["stoppedAt"].is_null())?;
        match house::judge(folder, FILM, bytes, &row).unwrap_or_else(|what| panic!("{what}")) {
            Verdict::Published => Some(()),
            Verdict::Kept(error) if errors.iter().any(|known| error.contains(known)) => None,
            other => panic!("a whole film became {other:?}, and it was the disk: {}", house::cause(served, &row).await),
        }
    });
    published.await;
}

/// Ends the box, and looks what it leaves.
async fn settles(folder: &Path, served: Served) {
    let rests = house::until(LIMIT, "the last execution, and its folders", async || {
        let running = house::executions(&served, "status=RUNNING&nested=true").await;
        (running.is_empty()
            && house::leftovers(folder).iter().all(|path| path.to_string_lossy().contains("/.staging/")))
        .then_some(())
    });
    rests.await;
    served.kill();
    house::check(folder);
}
