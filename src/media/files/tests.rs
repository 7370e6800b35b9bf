//! The promises of the file stages, each also from the state that a kill at that step leaves behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use conveyor_base::beneath::{Folder, Links};
use conveyor_base::{Shares, TaskError};
use conveyor_job::{Access, Job};
use conveyor_testing::rights;
use serde_json::{Value, json};

pub struct Appliance {
    dir: tempfile::TempDir,
}

impl Appliance {
    pub fn new() -> Appliance {
        let dir = tempfile::tempdir().unwrap();
        for share in ["in", "outputs", "archive", "quarantine"] {
            fs::create_dir(dir.path().join(share)).unwrap();
        }
        Appliance { dir }
    }

    pub fn path(&self, key: &str) -> PathBuf {
        self.dir.path().join(key)
    }

    pub fn write(&self, key: &str, text: &str) {
        fs::create_dir_all(self.path(key).parent().unwrap()).unwrap();
        fs::write(self.path(key), text).unwrap();
    }

    fn read(&self, key: &str) -> String {
        fs::read_to_string(self.path(key)).unwrap_or_else(|e| panic!("{key}: {e}"))
    }

    /// The hidden name beside a file, whose folder is made.
    fn hidden(&self, key: &str, what: &str) -> PathBuf {
        let path = self.path(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let folder = Arc::new(Folder::top(path.parent().unwrap()).unwrap());
        folder.entry(path.file_name().unwrap()).hidden(what).path()
    }

    pub fn run(&self, stage: &str, parameters: Value) -> Result<Value, TaskError> {
        let root = self.dir.path();
        let shares = ["in", "outputs", "archive", "quarantine"].map(|s| (s.to_owned(), root.join(s)));
        let work_dir = root.to_owned();
        let job = Job {
            stage: stage.into(),
            parameters,
            work_dir,
            shares: Shares::new(shares),
            threads: 1,
            access: Access::default(),
            device: None,
        };
        crate::run_here(&job)
    }

    /// Every file below a share, hidden ones too.
    pub fn all(&self, share: &str) -> Vec<String> {
        fn walk(dir: &Path, root: &Path, into: &mut Vec<String>) {
            for e in fs::read_dir(dir).unwrap().map(Result::unwrap) {
                match e.file_type().unwrap().is_dir() {
                    true => walk(&e.path(), root, into),
                    false => into.push(e.path().strip_prefix(root).unwrap().to_string_lossy().into_owned()),
                }
            }
        }
        let mut files = Vec::new();
        walk(&self.path(share), &self.path(share), &mut files);
        files.sort();
        files
    }
}

#[test]
fn a_fingerprint_follows_content_and_a_lost_share_is_told_from_a_lost_file() {
    let b = Appliance::new();
    b.write("in/a.mov", "hello");
    b.write("in/b.mov", "hello");
    let of = |name: &str| b.run("fingerprint", json!({ "input": format!("s3://in/{name}") }));
    assert_eq!(of("a.mov").unwrap()["blake3"], of("b.mov").unwrap()["blake3"]);
    assert_eq!(of("gone.mov").unwrap_err().error, "Files.Vanished");
    assert_eq!(of("../x").unwrap_err().error, "Files.InvalidParameter");
    fs::rename(b.path("in"), b.path("unmounted")).unwrap();
    assert_eq!(of("a.mov").unwrap_err().error, "Files.ShareUnreachable");
}

#[test]
fn archiving_ends_in_one_file_wherever_it_was_killed() {
    let b = Appliance::new();
    let hash = blake3::hash(b"film").to_hex().to_string();
    let go = |with_hash: bool| {
        let mut p = json!({ "input": "s3://in/a b.mov", "destination": "s3://archive/2026/" });
        if with_hash {
            p["blake3"] = json!(hash);
        }
        b.run("archive", p)
    };
    // Killed while copying: half a copy lies under its hidden name.
    b.write("in/a b.mov", "film");
    let half = b.hidden("archive/2026/a b.mov", "part");
    fs::write(&half, "fi").unwrap();
    assert_eq!(go(false).unwrap()["uri"], "s3://archive/2026/a b.mov");
    assert_eq!((b.all("archive"), b.all("in")), (vec!["2026/a b.mov".to_owned()], vec![]));
    // Killed after the rename: both are there.
    b.write("in/a b.mov", "film");
    assert_eq!(go(false).unwrap()["alreadyArchived"], true);
    assert_eq!((b.all("archive").len(), b.all("in").len()), (1, 0));
    // Killed after the removal: with the hash it is done, without it nobody can know.
    assert_eq!(go(true).unwrap()["removed"], true);
    assert_eq!(go(false).unwrap_err().error, "Files.Vanished");
    // The same name with other content is kept beside the first.
    b.write("in/a b.mov", "new film");
    assert_eq!(go(false).unwrap()["uri"], "s3://archive/2026/a b-1.mov");
    assert_eq!((b.read("archive/2026/a b.mov"), b.read("archive/2026/a b-1.mov")), ("film".into(), "new film".into()));
    // Content that the execution never saw is not removed.
    b.write("in/a b.mov", "replaced meanwhile");
    assert_eq!(go(true).unwrap_err().error, "Files.Changed");
    assert_eq!(b.read("in/a b.mov"), "replaced meanwhile");
}

/// It lay in a queue for hours, and another came in its place: what was made of that one is not this one's.
#[test]
fn outputs_of_a_file_that_was_replaced_are_not_published() {
    let b = Appliance::new();
    b.write("in/a.mov", "first");
    b.write("outputs/.staging/j/a.mp4", "of it");
    let version = Folder::top(&b.path("in")).unwrap().look("a.mov".as_ref(), Links::Refused).unwrap().version();
    let publish = |execution: &str| {
        let told = json!({"staging": "s3://outputs/.staging/j/", "destination": "s3://outputs/j/", "execution": execution,
            "input": "s3://in/a.mov", "metadata": {"version": version}});
        b.run("publish", told)
    };
    std::thread::sleep(std::time::Duration::from_millis(20));
    b.write("in/a.mov", "other");
    assert_eq!(publish("e").unwrap_err().error, "Files.Changed");
    assert!(!b.path("outputs/j").exists() && b.path("outputs/.staging/j/a.mp4").exists());
    fs::remove_file(b.path("in/a.mov")).unwrap();
    publish("e").unwrap();
    assert_eq!(b.read("outputs/j/a.mp4"), "of it");
}

/// A copy of reserved size and frozen times is not moved while it is written; what was seen of it stands in its reason.
#[test]
fn what_holds_something_else_than_what_was_judged_is_not_put_away() {
    let b = Appliance::new();
    b.write("in/x.mov", "half");
    let sample = || conveyor_base::Sample::of(&fs::File::open(b.path("in/x.mov")).unwrap()).unwrap().digest;
    let go = |sample: &str| {
        let version = Folder::top(&b.path("in")).unwrap().look("x.mov".as_ref(), Links::Refused).unwrap().version();
        b.run(
            "quarantine",
            json!({ "input": "s3://in/x.mov", "destination": "quarantine", "execution": "e",
            "version": version, "sample": sample }),
        )
    };
    let judged = sample();
    let file = fs::OpenOptions::new().write(true).open(b.path("in/x.mov")).unwrap();
    let before = file.metadata().unwrap().modified().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"full", 0).unwrap();
    file.set_modified(before).unwrap();
    assert_eq!(go(&judged).unwrap_err().error, "Files.Changed");
    assert_eq!((b.read("in/x.mov"), b.all("quarantine")), ("full".into(), vec![]));
    let judged = sample();
    go(&judged).unwrap();
    let reason: Value = serde_json::from_str(&b.read("quarantine/x.mov.error.json")).unwrap();
    assert_eq!((&reason["sample"], b.read("quarantine/x.mov")), (&json!(judged), "full".into()));
}

/// A duplicate goes where the archive surely has its content in another file, and is archived itself where not.
#[test]
fn a_duplicate_is_removed_only_where_the_archive_has_its_content() {
    let b = Appliance::new();
    let hash = |text: &str| blake3::hash(text.as_bytes()).to_hex().to_string();
    let version = |key: &str| {
        let folder = Folder::top(&b.path("in")).unwrap();
        folder.look(key.as_ref(), Links::Refused).unwrap().version()
    };
    let go = |version: &str, more: Value| {
        let mut p = json!({ "input": "s3://in/copy.mov", "destination": "s3://archive/archived/job-2/copy.mov",
            "blake3": hash("film"), "held": "s3://archive/archived/job-1/", "version": version });
        p.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        b.run("archive", p)
    };
    let held = || b.write("archive/archived/job-1/day/film.mov", "film");
    b.write("in/copy.mov", "film");
    held();
    // Not the file that was seen, or not what it was done for: it stays.
    let seen = version("copy.mov");
    assert_eq!(go("4-1-1", json!({})).unwrap_err().error, "Files.Changed");
    b.write("archive/archived/job-1/day/film.mov", "mlif");
    b.write("in/copy.mov", "mlif");
    assert_eq!(go(&version("copy.mov"), json!({ "held": "s3://archive/none/" })).unwrap_err().error, "Files.Changed");
    assert_eq!((b.read("in/copy.mov"), b.all("archive").len()), ("mlif".into(), 1));
    // Rot in the archive, nothing there, or the file itself under another name: it is the last copy, and is kept.
    for other in ["rot!", "", "itself"] {
        let copy = b.path("archive/archived/job-1/day/film.mov");
        fs::remove_file(&copy).unwrap();
        b.write("in/copy.mov", "film");
        match other {
            "itself" => fs::hard_link(b.path("in/copy.mov"), &copy).unwrap(),
            other => fs::write(&copy, other).unwrap(),
        }
        let end = go(&version("copy.mov"), json!({})).unwrap();
        assert_eq!(
            (&end["removed"], &end["uri"]),
            (&json!(true), &json!("s3://archive/archived/job-2/copy.mov")),
            "{other}"
        );
        assert_eq!(b.read("archive/archived/job-2/copy.mov"), "film", "{other}");
        assert!(b.all("in").is_empty());
        fs::remove_file(b.path("archive/archived/job-2/copy.mov")).unwrap();
    }
    fs::remove_file(b.path("archive/archived/job-1/day/film.mov")).unwrap();
    b.write("in/copy.mov", "film");
    held();
    let seen_again = version("copy.mov");
    assert_ne!(seen, seen_again);
    // It stands for another file only once that is gone, and not where the archive has it.
    b.write("in/film.mov", "film");
    for _ in 0..2 {
        let end = go(&seen_again, json!({ "insteadOf": "s3://in/film.mov" })).unwrap();
        assert_eq!((&end["removed"], b.read("in/copy.mov")), (&json!(false), "film".into()));
        let _ = fs::remove_file(b.path("in/film.mov"));
    }
    // Twice, as where the box was killed after it.
    for _ in 0..2 {
        let end = go(&seen_again, json!({})).unwrap();
        assert_eq!(end["uri"], "s3://archive/archived/job-1/day/film.mov");
        assert_eq!((b.all("in"), b.all("archive")), (vec![], vec!["archived/job-1/day/film.mov".to_owned()]));
    }
}

#[test]
fn publishing_ends_in_one_folder_wherever_it_was_killed() {
    let b = Appliance::new();
    let stage = |text: &str| {
        b.write("outputs/.staging/e1/hls/index.m3u8", text);
        b.write("outputs/.staging/e1/a.mp4", text);
    };
    let go = |execution: &str| {
        b.run(
            "publish",
            json!({ "staging": "s3://outputs/.staging/e1/", "destination": "s3://outputs/clip/", "execution": execution,
                    "manifest": { "qualityScore": 0.97 } }),
        )
    };
    stage("one");
    let result = go("e1").unwrap();
    assert_eq!((result["count"].as_u64(), &result["manifest"]), (Some(2), &json!("s3://outputs/clip/manifest.json")));
    let manifest: Value = serde_json::from_str(&b.read("outputs/clip/manifest.json")).unwrap();
    assert_eq!(manifest["qualityScore"], 0.97);
    assert_eq!(manifest["files"][0]["blake3"], json!(blake3::hash(b"one").to_hex().to_string()));
    assert_eq!(manifest["files"][0]["type"], "video/mp4");
    // Killed after the rename: nothing is staged any more.
    assert_eq!(go("e1").unwrap()["count"], 2);
    assert_eq!(go("e2").unwrap_err().error, "Files.Vanished");
    // Another execution's folder is kept as a version.
    stage("two");
    assert_eq!(go("e2").unwrap()["kept"], "s3://outputs/clip.version-1/");
    assert_eq!((b.read("outputs/clip/a.mp4"), b.read("outputs/clip.version-1/a.mp4")), ("two".into(), "one".into()));
    // Killed between the exchange and putting the old version aside.
    fs::create_dir_all(b.path("outputs/.staging")).unwrap();
    fs::rename(b.path("outputs/clip.version-1"), b.path("outputs/.staging/e1")).unwrap();
    assert_eq!(go("e2").unwrap()["count"], 2);
    assert_eq!((b.read("outputs/clip/a.mp4"), b.read("outputs/clip.version-1/a.mp4")), ("two".into(), "one".into()));
    // The same execution publishes again (a redrive): replaced, not kept twice.
    stage("two, better");
    assert_eq!(go("e2").unwrap()["kept"], Value::Null);
    assert_eq!(b.read("outputs/clip/hls/index.m3u8"), "two, better");
    assert_eq!(b.all("outputs").iter().filter(|f| f.ends_with("a.mp4")).count(), 2);
}

#[test]
fn single_outputs_keep_their_places_and_an_interrupted_gathering_goes_on() {
    let b = Appliance::new();
    b.write("in/job/mp4/a.mp4", "a");
    b.write("in/job/hls/b.m3u8", "b");
    let p = json!({ "outputs": ["s3://in/job/mp4/a.mp4", "s3://in/job/hls/b.m3u8"], "destination": "s3://outputs/x",
                    "execution": "e" });
    // Killed after the first file was brought into the hidden folder.
    let tag = &blake3::hash(b"e").to_hex()[..12];
    let build = b.hidden("outputs/x", &format!("{tag}.publishing"));
    fs::create_dir_all(build.join("mp4")).unwrap();
    fs::rename(b.path("in/job/mp4/a.mp4"), build.join("mp4/a.mp4")).unwrap();
    b.run("publish", p.clone()).unwrap();
    assert_eq!(b.all("outputs"), ["x/hls/b.m3u8", "x/manifest.json", "x/mp4/a.mp4"]);
    b.run("publish", p).unwrap();
    assert_eq!(b.all("outputs").len(), 3);
}

#[test]
fn quarantine_keeps_every_file_and_every_reason() {
    let b = Appliance::new();
    let go = |execution: &str| {
        b.run(
            "quarantine",
            json!({ "input": "s3://in/bad.mov", "destination": "quarantine", "error": "Media.Truncated",
                    "cause": "it ends early", "execution": execution }),
        )
        .unwrap()
    };
    b.write("in/bad.mov", "1");
    assert_eq!(go("e1")["uri"], "s3://quarantine/bad.mov");
    let reason: Value = serde_json::from_str(&b.read("quarantine/bad.mov.error.json")).unwrap();
    assert_eq!((&reason["error"], &reason["original"]), (&json!("Media.Truncated"), &json!("s3://in/bad.mov")));
    // Run again after a crash: the same place.
    assert_eq!((&go("e1")["uri"], b.all("quarantine").len()), (&json!("s3://quarantine/bad.mov"), 2));
    // Killed between reason and file.
    fs::rename(b.path("quarantine/bad.mov"), b.path("in/bad.mov")).unwrap();
    assert_eq!((&go("e1")["uri"], b.all("quarantine").len()), (&json!("s3://quarantine/bad.mov"), 2));
    // Another file of that name, and one that has vanished.
    b.write("in/bad.mov", "2");
    assert_eq!(go("e2")["uri"], "s3://quarantine/bad-1.mov");
    let gone = go("e3");
    assert_eq!((&gone["vanished"], &gone["reason"]), (&json!(true), &json!("s3://quarantine/bad-2.mov.error.json")));
    assert_eq!((b.read("quarantine/bad.mov"), b.read("quarantine/bad-1.mov")), ("1".into(), "2".into()));
    // Another file has its name by now: it stays, and no reason is left of what did not come.
    let of = |version: &str| {
        b.run(
            "quarantine",
            json!({ "input": "s3://in/bad.mov", "destination": "quarantine", "execution": "e5",
                                    "error": "Nobody.KnowsThis", "version": version,
                                    "tried": { "runs": 8, "error": "Nobody.KnowsThis", "since": "then" } }),
        )
    };
    b.write("in/bad.mov", "another");
    let version = Folder::top(&b.path("in")).unwrap().look("bad.mov".as_ref(), Links::Refused).unwrap().version();
    let before = b.all("quarantine");
    assert_eq!(of("7-0-1").unwrap_err().error, "Files.Changed");
    assert_eq!((b.all("quarantine"), b.read("in/bad.mov")), (before.clone(), "another".into()));
    // Killed between the copy and the removal, as where the shares are different disks.
    assert_eq!(of(&version).unwrap()["uri"], "s3://quarantine/bad-3.mov");
    b.write("in/bad.mov", "another");
    assert_eq!(of("whichever").unwrap()["uri"], "s3://quarantine/bad-3.mov");
    assert_eq!((b.all("quarantine").len(), b.all("in").len()), (before.len() + 2, 0));
    let reason: Value = serde_json::from_str(&b.read("quarantine/bad-3.mov.error.json")).unwrap();
    // What an earlier run told stays, whatever becomes of this one.
    fs::rename(b.path("quarantine/bad-3.mov"), b.path("quarantine/kept.mov")).unwrap();
    b.write("in/bad.mov", "yet another");
    assert_eq!(of("7-0-1").unwrap_err().error, "Files.Changed");
    assert_eq!(b.read("in/bad.mov"), "yet another");
    assert!(b.path("quarantine/bad-3.mov.error.json").exists());
    fs::remove_file(b.path("in/bad.mov")).unwrap();
    assert!(reason["kind"] == "this box cannot" && reason["note"].as_str().unwrap().contains("9 runs"), "{reason}");
    // What cannot be moved, as on a disk that is full, leaves no reason.
    fs::create_dir(b.path("in/d")).unwrap();
    let into_itself = json!({ "input": "s3://in/d", "destination": "s3://in/d/", "execution": "e6" });
    assert!(b.run("quarantine", into_itself).is_err());
    assert_eq!(b.all("in"), Vec::<String>::new());
    // A name that leaves no room for the suffix.
    let long = format!("{}.mov", "é".repeat(120));
    b.write(&format!("in/{long}"), "3");
    let p = json!({ "input": format!("s3://in/{long}"), "destination": "s3://quarantine", "execution": "e4" });
    assert_eq!(b.run("quarantine", p).unwrap()["moved"], true);
    assert_eq!(b.all("in"), Vec::<String>::new());
}

#[test]
fn what_is_held_open_where_it_lies_leaves_no_copy() {
    let b = Appliance::new();
    b.write("in/bad.mov", "1");
    let go = |execution: &str| {
        let p = json!({ "input": "s3://in/bad.mov", "destination": "quarantine", "execution": execution });
        b.run("quarantine", p)
    };
    let allowed = rights::with_mounts(|| {
        rights::mount_small(&b.path("quarantine"), 1 << 20);
        rights::mount_over_itself(&b.path("in/bad.mov"));
        for execution in ["e1", "e2"] {
            assert!(go(execution).unwrap_err().cause.contains("busy"));
        }
        assert_eq!((b.all("quarantine"), b.all("in")), (vec![], vec!["bad.mov".to_owned()]));
        rights::unmount(&b.path("in/bad.mov"));
        assert_eq!(go("e3").unwrap()["uri"], "s3://quarantine/bad.mov");
        assert_eq!((b.read("quarantine/bad.mov"), b.all("in")), ("1".into(), vec![]));
    });
    assert!(!allowed || !b.path("in/bad.mov").exists());
}

#[test]
fn a_name_that_cannot_be_looked_at_is_not_a_taken_one() {
    let b = Appliance::new();
    // Numbered, it is longer than a name may be.
    let name = format!("{}.mov", "n".repeat(250));
    b.write(&format!("archive/{name}"), "film");
    b.write(&format!("in/{name}"), "other");
    let error = b.run("archive", json!({ "input": format!("s3://in/{name}"), "destination": "s3://archive/" }));
    let cause = error.unwrap_err().cause;
    assert!(cause.contains("cannot look at") && cause.contains("too long"), "{cause}");
    assert_eq!(b.read(&format!("in/{name}")), "other");
    // Nor does it tell that the archive holds nothing of what is gone.
    let p = json!({ "input": format!("s3://in/gone/{name}"), "destination": "s3://archive/", "blake3": "0" });
    assert!(b.run("archive", p).unwrap_err().cause.contains("too long"));
}

#[test]
fn what_another_run_publishes_at_the_same_time_is_kept() {
    let b = Appliance::new();
    for round in 0..300 {
        let share = format!("outputs/{round}");
        for (folder, execution) in [("clip", "e1"), ("one", "e1"), ("other", "e2")] {
            b.write(&format!("{share}/{folder}/manifest.json"), &json!({ "execution": execution }).to_string());
        }
        b.write(&format!("{share}/other/a.mp4"), "");
        let top = Arc::new(Folder::top(&b.path(&share)).unwrap());
        let start = std::sync::Barrier::new(2);
        let publish = |staged: &str, execution: &str| {
            let (staged, place) = (top.entry(staged), top.entry("clip"));
            let folder = staged.open_folder().unwrap();
            start.wait();
            // One of them may not be what is published in the end.
            let _ = super::publish::put_in_place(&staged, &folder, &place, execution);
        };
        std::thread::scope(|scope| {
            scope.spawn(|| publish("one", "e1"));
            publish("other", "e2");
        });
        let left = b.all(&share);
        assert!(left.iter().any(|file| file.ends_with("a.mp4")), "{left:?}");
    }
}

#[test]
fn what_the_box_could_not_open_is_offered_once_to_each_release() {
    let b = Appliance::new();
    let reject = |key: &str, error: &str, tools: &str, execution: &str| {
        let p = json!({ "input": format!("s3://in/{key}"), "destination": "quarantine", "error": error, "cause": "why",
                        "execution": execution, "tools": tools });
        b.run("quarantine", p).unwrap()
    };
    let offer = |tools: &str, watched: Value| {
        let p = json!({ "quarantine": "s3://quarantine/", "tools": tools, "watched": watched });
        let done = b.run("offer", p).unwrap();
        (done["offered"].as_u64().unwrap(), done["kept"].as_u64().unwrap())
    };
    for (key, error) in
        [("day/odd.mxf", "Media.UnsupportedCodec"), ("bad.mov", "Media.Truncated"), ("hdr.mov", "Media.UnsupportedHdr")]
    {
        b.write(&format!("in/{key}"), key);
        reject(key, error, "1", "e1");
    }
    let kind = |name: &str| {
        serde_json::from_str::<Value>(&b.read(&format!("quarantine/{name}.error.json"))).unwrap()["kind"].clone()
    };
    assert_eq!((kind("odd.mxf"), kind("bad.mov")), (json!("this box cannot"), json!("the file")));
    // Something else has the name meanwhile.
    b.write("in/hdr.mov", "another");
    assert_eq!(offer("1", json!(["in"])), (0, 0), "it was refused with these very tools");
    assert_eq!(offer("2", json!(["outputs"])), (0, 0), "nobody watches where it came from");
    assert_eq!(offer("2", json!(["in"])), (1, 1));
    assert_eq!((b.read("in/day/odd.mxf"), b.read("in/hdr.mov")), ("day/odd.mxf".into(), "another".into()));
    assert_eq!(b.all("quarantine"), ["bad.mov", "bad.mov.error.json", "hdr.mov", "hdr.mov.error.json"]);
    // It is refused again, and stays.
    reject("day/odd.mxf", "Media.UnsupportedCodec", "2", "e2");
    assert_eq!(offer("2", json!(["in"])), (0, 1));
    assert!(b.all("in").iter().all(|name| !name.contains("odd")));
    // A reason that somebody wrote leads nowhere but to a watched share, and to no taken name.
    b.write("quarantine/x.mov", "x");
    let told = json!({ "kind": "this box cannot", "original": "s3://archive/x.mov" });
    b.write("quarantine/x.mov.error.json", &told.to_string());
    b.write("quarantine/y.mov.error.json", &"[".repeat(1 << 21));
    assert_eq!(offer("3", json!(["in"])), (1, 1), "the first file alone");
    assert!(b.all("archive").is_empty());
}
