//! `conveyor bench` as people run it, on a box without a GPU and on a scripted one with two. No figure is tested for its
//! size, only for being there: how fast this machine is, is no fact about the program.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use conveyor_base::speeds::Speeds;
use conveyor_bench::{Mode, Report, SectionKind, compare, kept, page, table};
use conveyor_job::Encoder;
use conveyor_media::clip::{self, Clip};
use conveyor_testing::driver::FakeDriver;

fn bench(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(conveyor_testing::binary());
    command.arg("bench").args(arguments).arg("--data-dir").arg(dir.join("data")).env_remove("CUDA_VISIBLE_DEVICES");
    command
}

fn read(output: &Output, json: &Path) -> Report {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    kept::read(json).unwrap()
}

/// Names of what lies in a folder.
fn names(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn a_quick_run_measures_everything_and_leaves_nothing_but_its_report() {
    let dir = tempfile::tempdir().unwrap();
    let share = dir.path().join("in");
    std::fs::create_dir(&share).unwrap();
    std::fs::write(share.join("film.mp4"), "somebody's").unwrap();
    let config = dir.path().join("conveyor.toml");
    std::fs::write(&config, "[shares.incoming]\npath = \"in\"\n[shares.outputs]\npath = \"in/../out\"\n").unwrap();
    let (json, html) = (dir.path().join("r.json"), dir.path().join("r.html"));
    // A smaller film than the box's own, so that the test is over sooner.
    let clip = dir.path().join("clip.mp4");
    clip::make(&clip, Clip { width: 640, height: 360, fps: 25, seconds: 4 }).unwrap();
    let output = bench(dir.path(), &["--quick", "--patience", "0.3", "--save-baseline", "first"])
        .args(["--clip".as_ref(), clip.as_os_str()])
        .args(["--config".as_ref(), config.as_os_str(), "--json".as_ref(), json.as_os_str()])
        .args(["--html".as_ref(), html.as_os_str()])
        .output()
        .unwrap();
    let report = read(&output, &json);

    let kinds: Vec<SectionKind> = report.sections.iter().map(|section| section.kind).collect();
    assert_eq!(kinds, SectionKind::ALL);
    let [raw, graphs, cpu, shares, store] = &report.sections[..] else { panic!() };
    assert!(raw.rows.is_empty() && raw.says[0].contains("No GPU"), "{raw:?}");
    let ladder = graphs.row("cpu/ladder").unwrap_or_else(|| panic!("{:?}", graphs.says));
    assert!(ladder.median("speed").unwrap() > 0.0 && ladder.median("real time").unwrap() > 0.0);
    let rung = graphs.row("cpu/rung/360p").unwrap();
    assert!(rung.median("bitrate").unwrap() > 10.0 && rung.median("PSNR").unwrap() > 25.0, "{rung:?}");
    assert!((0.5..=1.0).contains(&rung.median("SSIM").unwrap()), "{rung:?}");
    // With little patience, or on a busy machine, a quick run leaves presets out, the first never.
    let veryfast = cpu.row("x264/veryfast/1080p").unwrap_or_else(|| panic!("{:?}", cpu.says));
    assert!(!veryfast.figures[0].samples.is_empty() && veryfast.median("PSNR").is_some());
    assert!(cpu.row("decode/h264/1080p").unwrap().median("speed").unwrap() > 0.0, "{:?}", cpu.says);
    // The first line says how it is measured.
    for (encoder, key) in Encoder::ALL.map(Encoder::name).iter().zip(["x264/", "x265/", "aom/", "svt/", "rav1e/"]) {
        let measured = cpu.rows.iter().any(|row| row.key.starts_with(key));
        assert!(measured || cpu.says[1..].iter().any(|why| why.contains(encoder)), "{encoder}: {:?}", cpu.says);
    }
    assert!(shares.row("incoming/sequential").is_some(), "{:?}", shares.says);
    assert!(shares.says.iter().any(|what| what.starts_with("outputs: ")), "a share that is not there is a line");
    for row in ["commit", "workflow", "crowd", "wake"] {
        assert!(store.row(row).is_some(), "{row}: {:?}", store.says);
    }
    let no_direct_writes = store.says.iter().any(|why| why.contains("takes no direct writes"));
    assert!(store.row("raw").is_some() != no_direct_writes, "{:?}", store.says);
    let capacity = report.capacity.as_ref().unwrap();
    assert!(capacity.sentence.contains("360p25") && capacity.sentence.contains("limited by"), "{}", capacity.sentence);

    let data = dir.path().join("data");
    assert_eq!(names(&share), ["film.mp4"], "the share is as it was");
    let mut left = names(&data);
    left.retain(|name| name != "benchmarks");
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(kept::run(&data, &report.id).unwrap(), report, "what is kept is what was written");
    assert_eq!(kept::baseline(&data, "first").unwrap(), report);
    let speeds = Speeds::read(&data).unwrap();
    let lane = &speeds.lanes["cpu"];
    assert!(lane.encode_mpix_s["h264/veryfast"] > 0.0 && lane.decode_mpix_s["h264"] > 0.0 && lane.ladder.is_some());

    let text = std::fs::read_to_string(html).unwrap();
    assert!(text.contains("<svg") && text.contains(&capacity.limited_by), "plots and the sentence");
    for from_elsewhere in ["<script", "http://", "https://", "<link", "@import"] {
        assert!(!text.contains(from_elsewhere), "{from_elsewhere}");
    }
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains(&capacity.sentence) && shown.contains("saved as baseline 'first'"), "{shown}");
    judged(&report);
}

/// The same run against itself and against one that was twice as fast, and both as text.
fn judged(report: &Report) {
    let same = compare::compare(report, report, "last run", &[]);
    assert!(same.better == 0 && same.worse == 0 && same.same > 5, "{same:?}");
    let mut before = report.clone();
    for section in &mut before.sections {
        for figure in section.rows.iter_mut().flat_map(|row| &mut row.figures).filter(|f| f.name == "speed") {
            figure.samples.iter_mut().for_each(|sample| *sample = (*sample).max(figure.median) * 20.0);
            figure.median *= 20.0;
        }
    }
    before.mode = Mode::Full;
    let mut now = report.clone();
    now.comparisons = vec![compare::compare(report, &before, "a faster <box>", &[])];
    assert!(now.comparisons[0].worse > 0 && now.comparisons[0].better == 0, "{:?}", now.comparisons[0]);
    assert!(now.comparisons[0].caveats.iter().any(|what| what.contains("full")));
    assert!(table::table(&now).contains("worse") && page::page(&now).contains("a faster &lt;box&gt;"));
}

#[test]
fn each_gpu_is_measured_or_says_why_not() {
    let driver = FakeDriver::new(
        "gpus 3\ngpu0.name Fake L4\ngpu0.codecs h264\ngpu0.sessions_max 2\ngpu1.name Fake H200\ngpu1.codecs none\ngpu2.lost 1\n",
    );
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("r.json");
    let output = bench(dir.path(), &["--only", "raw"])
        .arg("--json")
        .arg(&json)
        .env("LD_LIBRARY_PATH", driver.path())
        .output()
        .unwrap();
    let report = read(&output, &json);
    assert_eq!(report.host.gpus[..2], ["Fake L4", "Fake H200"]);
    let raw = report.section(SectionKind::Raw).unwrap();
    for preset in ["P1", "P4", "P7"] {
        assert!(raw.row(&format!("gpu0.nvenc/h264/{preset}/1080p")).is_some(), "{preset}: {:?}", raw.says);
    }
    assert!(raw.row("gpu0/copies").is_some(), "{:?}", raw.says);
    let sessions = raw.curves.iter().find(|curve| curve.key == "gpu0.nvenc/sessions").unwrap();
    assert!((1..=2).contains(&sessions.points.len()), "as many as the driver grants: {sessions:?}");
    assert!(raw.says.iter().any(|what| what.contains("Fake H200") && what.contains("NVENC")), "{:?}", raw.says);
    assert!(raw.says.iter().any(|what| what.starts_with("GPU 2")), "{:?}", raw.says);
    assert!(Speeds::read(&dir.path().join("data")).unwrap().lanes["gpu0.nvenc"].encode_mpix_s["h264/P4"] > 0.0);
}

#[test]
fn a_stopped_run_takes_its_folders_and_children_along() {
    let dir = tempfile::tempdir().unwrap();
    let mut child =
        bench(dir.path(), &["--only", "graphs"]).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let data = dir.path().join("data");
    let begun = || std::fs::read_dir(&data).is_ok_and(|mut folder| folder.next().is_some());
    for _ in 0..600 {
        if begun() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(begun(), "it begins");
    std::thread::sleep(std::time::Duration::from_millis(300));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(names(&data), Vec::<String>::new());
}

#[test]
fn a_wrong_name_is_refused_before_anything_is_measured() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, word) in [
        (&["--save-baseline", "../up"][..], "cannot name a baseline"),
        (&["--baseline", "nobody"], "no baseline 'nobody'"),
        (&["--clip", "/nowhere.mp4"], "/nowhere.mp4"),
        (&["--only", "disks"], "disks"),
        (&["--quick", "--full"], "--full"),
    ] {
        let output = bench(dir.path(), arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(word), "{arguments:?}: {text}");
    }
    assert!(!dir.path().join("data").exists());
}
