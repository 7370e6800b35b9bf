//! The file stages while somebody who may write to a share exchanges its files and folders with links that lead out: nothing
//! outside is read, and nothing comes there.

use std::fs;
use std::path::Path;

use conveyor_testing::exchange::{Exchange, beside};
use serde_json::{Value, json};

use super::tests::Appliance;

const ROUNDS: usize = 60;
const INSIDE: &str = "inside";
const SECRET: &str = "a secret";

struct Race {
    appliance: Appliance,
    outside: tempfile::TempDir,
}

impl Race {
    fn new() -> Race {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("a.mov"), SECRET).unwrap();
        Race { appliance: Appliance::new(), outside }
    }

    /// Runs a stage while `exchanged`, which is new each time, and the link change places; how often it succeeded.
    fn run(&self, exchanged: &str, stage: &str, mut prepare: impl FnMut(usize) -> Value) -> usize {
        let path = self.appliance.path(exchanged);
        let is_file = path.extension().is_some();
        let to = if is_file { self.outside.path().join("a.mov") } else { self.outside.path().to_owned() };
        let once = |round: usize| {
            remove(&path);
            remove(&beside(&path));
            if is_file {
                self.appliance.write(exchanged, INSIDE);
            } else {
                fs::create_dir_all(&path).unwrap();
            }
            let parameters = prepare(round);
            let exchanging = Exchange::with_link(&path, &to);
            let succeeded = self.appliance.run(stage, parameters).is_ok();
            drop(exchanging);
            self.look();
            usize::from(succeeded)
        };
        (0..ROUNDS).map(once).sum()
    }

    /// No file of a share holds the secret, and nothing is outside but that.
    fn look(&self) {
        for share in ["outputs", "archive", "quarantine"] {
            let files = self.appliance.all(share).into_iter().map(|file| self.appliance.path(share).join(file));
            for file in files.filter(|file| file.symlink_metadata().is_ok_and(|meta| meta.is_file())) {
                assert_ne!(fs::read_to_string(&file).unwrap_or_default(), SECRET, "{}", file.display());
            }
        }
        let names = fs::read_dir(self.outside.path()).unwrap().flatten().map(|entry| entry.file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["a.mov"], "nothing came and nothing went");
        assert_eq!(fs::read_to_string(self.outside.path().join("a.mov")).unwrap(), SECRET);
    }
}

fn remove(path: &Path) {
    match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

#[test]
fn an_exchanged_source_is_neither_archived_nor_hashed() {
    let race = Race::new();
    let secret = json!(blake3::hash(SECRET.as_bytes()).to_hex().to_string());
    let inside = json!(blake3::hash(INSIDE.as_bytes()).to_hex().to_string());
    let done = race.run("in/a.mov", "archive", |round| {
        // Whether the workflow says what it worked on or not.
        let blake3 = if round % 2 == 0 { Value::Null } else { inside.clone() };
        json!({ "input": "s3://in/a.mov", "destination": format!("s3://archive/{round}.mov"), "blake3": blake3 })
    });
    assert!(done > 0, "it goes on in between");
    race.appliance.write("in/b.mov", INSIDE);
    let _exchanging = Exchange::with_link(race.appliance.path("in/b.mov"), &race.outside.path().join("a.mov"));
    for _ in 0..ROUNDS * 10 {
        if let Ok(fingerprint) = race.appliance.run("fingerprint", json!({ "input": "s3://in/b.mov" })) {
            assert_ne!(fingerprint["blake3"], secret);
        }
    }
}

#[test]
fn no_exchanged_folder_takes_what_stages_write() {
    let race = Race::new();
    let file = |key: &str| race.appliance.write(key, INSIDE);
    let archived = race.run("archive/day", "archive", |_| {
        file("in/a.mov");
        json!({ "input": "s3://in/a.mov", "destination": "s3://archive/day/new.mov" })
    });
    let quarantined = race.run("quarantine/day", "quarantine", |round| {
        file("in/a.mov");
        json!({ "input": "s3://in/a.mov", "destination": "s3://quarantine/day/", "execution": round.to_string() })
    });
    let placed = race.run("outputs/day", "place", |_| {
        file("made.ts");
        json!({ "files": [{ "from": "made.ts", "to": "s3://outputs/day/deep/a_00001.ts" }] })
    });
    let published = race.run("outputs/day", "publish", |_| {
        file("outputs/.staging/e/a.mp4");
        json!({ "staging": "s3://outputs/.staging/e/", "destination": "s3://outputs/day/clip/", "execution": "e" })
    });
    assert!([archived, quarantined, placed, published].iter().all(|done| *done > 0), "it goes on in between");
}

#[test]
fn what_was_made_is_published_and_no_exchanged_link() {
    let race = Race::new();
    let published = race.run("outputs/.staging/e/a.mp4", "publish", |round| {
        race.appliance.write("outputs/.staging/e/b.mp4", INSIDE);
        let destination = format!("s3://outputs/clip {round}/");
        json!({ "staging": "s3://outputs/.staging/e/", "destination": destination, "execution": "e" })
    });
    for round in 0..ROUNDS {
        let path = race.appliance.path(&format!("outputs/clip {round}/manifest.json"));
        let Ok(text) = fs::read_to_string(path) else { continue };
        let manifest: Value = serde_json::from_str(&text).unwrap();
        let files = manifest["files"].as_array().unwrap();
        assert!(files.iter().all(|file| file["size"] == INSIDE.len()), "{manifest}");
    }
    let placed = race.run(
        "made.ts",
        "place",
        |round| json!({ "files": [{ "from": "made.ts", "to": format!("s3://outputs/placed/{round}.ts") }] }),
    );
    assert!(published > 0 && placed > 0, "it goes on in between");
}
