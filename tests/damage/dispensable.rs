//! Rows that a box can do without: it starts, and only what hangs on the damaged one is begun anew.

use conveyor_run::Handle;
use conveyor_services::sessions::Sessions;
use conveyor_store::sim::SimDisk;
use conveyor_store::{Reader, Scans, Writer};
use conveyor_testing::until::until;

use crate::actors::{BEGIN, Files, Work, boot, flip_where, is_hurt};

const PASSWORD: &str = "correct horse battery";
const CLOCK: &str = "run.clock";

/// So long that what the store has of each has a page of its own.
fn users() -> [String; 3] {
    ["ann", "bob", "eve"].map(|name| name.repeat(1_000))
}

fn hash_of(user: &str) -> String {
    format!("sessions.password.{user}")
}

/// The files of a box at which three people have signed in, and what their browsers show.
async fn signed_in() -> (Files, Vec<(String, String)>) {
    let disk = SimDisk::new(1);
    let (handle, writer, reader) = boot(&disk, BEGIN, Work::default()).await;
    let sessions = Sessions::default();
    sessions.start(&handle).await.unwrap();
    let mut all = Vec::new();
    for user in users() {
        let shown = sessions.begin(&handle, &user, PASSWORD).await.unwrap();
        all.push((user, shown));
    }
    until("the clock's mark is stored", || reader.setting(CLOCK).unwrap()).await;
    end(handle, writer, reader).await;
    (disk.files(), all)
}

async fn end(handle: Handle, writer: Writer, reader: Reader) {
    handle.shut_down().await;
    writer.close().unwrap();
    drop(reader);
}

/// Starts a box on the files, and says for whom of them what they showed is still good.
async fn starts(files: &Files, all: &[(String, String)]) -> Vec<bool> {
    let disk = SimDisk::of(files);
    let (handle, writer, reader) = boot(&disk, BEGIN.plus_ms(10_000), Work::default()).await;
    assert!(handle.now() >= BEGIN.plus_ms(10_000) && handle.now() < BEGIN.plus_ms(600_000), "{}", handle.now());
    let sessions = Sessions::default();
    sessions.start(&handle).await.unwrap();
    sessions.end_of_former_passwords(&handle, |_| Some(PASSWORD.to_owned())).await.unwrap();
    let mut good = Vec::new();
    for (user, shown) in all {
        let found = sessions.user(&handle, shown, |_| Some(PASSWORD)).await;
        assert!(found.as_ref().is_none_or(|found| found == user), "{found:?}");
        good.push(found.is_some());
        let anew = sessions.begin(&handle, user, PASSWORD).await.unwrap();
        assert_eq!(sessions.user(&handle, &anew, |_| Some(PASSWORD)).await.as_ref(), Some(user), "they sign in again");
    }
    assert!(!reader.damages().is_empty(), "an alarm says so");
    end(handle, writer, reader).await;
    good
}

/// The files with a bit flipped so that it is as it is to be.
fn hurt(files: &Files, is_it: impl Fn(&Scans) -> bool) -> Files {
    flip_where(files, "state.redb", None, is_it).expect("what is to be hurt has a page of its own")
}

fn is_of_some(good: &[bool]) -> bool {
    good.contains(&true) && good.contains(&false)
}

#[tokio::test]
async fn a_box_starts_without_a_session_that_is_damaged() {
    let (files, all) = signed_in().await;
    let files = hurt(&files, |rows| rows.sessions().map_or(true, |left| [1, 2].contains(&left.len())));
    let good = starts(&files, &all).await;
    assert!(is_of_some(&good), "{good:?}: those that can be read go on");
}

#[tokio::test]
async fn a_box_starts_without_the_hash_of_a_password() {
    let (files, all) = signed_in().await;
    let hashes = |rows: &Scans| users().map(|user| is_hurt(rows.setting(&hash_of(&user))));
    let files = hurt(&files, |rows| is_of_some(&hashes(rows)) && rows.sessions().is_ok_and(|all| all.len() == 3));
    let good = starts(&files, &all).await;
    assert!(is_of_some(&good), "{good:?}: nobody knows whether that is the same password");
}

#[tokio::test]
async fn a_box_starts_without_the_mark_of_its_clock() {
    let (files, all) = signed_in().await;
    starts(&hurt(&files, |rows| is_hurt(rows.setting(CLOCK))), &all).await;
}
