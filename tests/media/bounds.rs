//! Small files that ask for much: refused as what they are, in seconds, wherever the container says it or hides it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::House;

/// Far above what a refusal takes, and far below what the work would.
const SOON: Duration = Duration::from_secs(30);

fn refused(house: &House, stage: &str, name: &str, says: &[&str]) {
    let begun = Instant::now();
    let error = house.run(stage, json!({ "input": format!("s3://in/{name}") })).unwrap_err();
    assert_eq!(error.error, "Media.TooLarge", "{stage} {name}: {error}");
    for part in says.iter().chain(&["[limits]", name]) {
        assert!(error.cause.contains(part), "{stage} {name}: {error}");
    }
    assert!(begun.elapsed() < SOON, "{stage} {name}: {:?}", begun.elapsed());
}

#[test]
fn pictures_beyond_the_limit_are_refused_before_they_are_decoded() {
    let house = House::new();
    let black = "-f lavfi -i color=size=9000x8000:rate=5:duration=1";
    house.clip("png.mov", &format!("{black} -c:v png"));
    house.clip("jpeg.avi", &format!("{black} -pix_fmt yuvj420p -c:v mjpeg"));
    house.clip("jpeg.mkv", &format!("{black} -pix_fmt yuvj420p -c:v mjpeg"));
    let says = ["9000 x 8000", "72000000 pixels", "67108864", "'pixels'"];
    for name in ["png.mov", "jpeg.avi", "jpeg.mkv"] {
        refused(&house, "sanitize", name, &says);
        refused(&house, "labels", name, &says);
    }
    // The container says something else: only the pictures themselves know.
    let mut bytes = std::fs::read(house.path("in/png.mov")).unwrap();
    let entry = bytes.windows(4).rposition(|four| four == b"png ").unwrap();
    assert_eq!(bytes[entry + 28..entry + 32], [0x23, 0x28, 0x1f, 0x40]);
    bytes[entry + 28..entry + 32].copy_from_slice(&[0, 64, 0, 64]);
    std::fs::write(house.path("in/lies.mov"), bytes).unwrap();
    refused(&house, "sanitize", "lies.mov", &says);
    refused(&house, "labels", "lies.mov", &says);
    // 8K goes on.
    house.clip("8k.avi", "-f lavfi -i testsrc2=size=7680x4320:rate=5:duration=1 -pix_fmt yuvj420p -c:v mjpeg");
    let found = house.run("probe", json!({ "input": "s3://in/8k.avi" })).unwrap();
    assert!(found.to_string().contains("7680"), "{found}");
}

#[test]
fn pictures_that_grow_in_mid_stream_are_refused_there() {
    let house = House::new();
    let coded = "-pix_fmt yuv420p -c:v libx264 -preset ultrafast -threads 1 -bf 0 -g 25";
    house.clip("small.ts", &format!("-f lavfi -i testsrc2=size=320x180:rate=25:duration=6 {coded}"));
    house.clip("large.ts", &format!("-f lavfi -i color=size=8704x8192:rate=25:duration=0.08 {coded}"));
    let film = [std::fs::read(house.path("in/small.ts")).unwrap(), std::fs::read(house.path("in/large.ts")).unwrap()];
    std::fs::write(house.path("in/film.ts"), film.concat()).unwrap();
    refused(&house, "labels", "film.ts", &["8704 x 8192", "'pixels'"]);
    assert!(house.run("labels", json!({ "input": "s3://in/small.ts" })).is_ok());
}

#[test]
fn a_thousand_pictures_a_second_are_refused_and_slow_motion_is_not() {
    let house = House::new();
    let coded = "-c:v libx264 -preset ultrafast";
    for name in ["fast.mp4", "fast.mkv"] {
        house.clip(name, &format!("-f lavfi -i testsrc2=size=64x64:rate=1000:duration=4 {coded}"));
        refused(&house, "sanitize", name, &[" pictures a second", "at most 300", "'frames_per_second'"]);
    }
    // Of the short one each look at it shows the same pictures again.
    for (name, seconds) in [("slow.mp4", 4.0), ("slow.mkv", 4.0), ("short.mp4", 1.4)] {
        house.clip(name, &format!("-f lavfi -i testsrc2=size=64x64:rate=240:duration={seconds} {coded}"));
        let done = house.run("sanitize", json!({ "input": format!("s3://in/{name}") })).unwrap();
        assert_eq!(done["accepted"], Value::Bool(true), "{name}");
    }
    // Its start, its middle and its end are sampled from the one keyframe, and are the same pictures.
    house.clip("short.mp4", &format!("-f lavfi -i testsrc2=size=64x64:rate=240:duration=1 {coded} -g 1000"));
    let done = house.run("sanitize", json!({ "input": "s3://in/short.mp4" })).unwrap();
    assert_eq!(done["sampledFrames"], json!([240, 240, 240]));
    // Only its end is fast: neither its beginning nor the average say so, and whoever decodes it finds out.
    let two =
        "-f lavfi -i testsrc2=size=64x64:rate=25:duration=20 -f lavfi -i testsrc2=size=64x64:rate=1000:duration=3";
    house.clip("late.mkv", &format!("{two} -filter_complex [0:v][1:v]concat=n=2:v=1 -fps_mode passthrough {coded}"));
    refused(&house, "labels", "late.mkv", &["more than 300 pictures a second", "'frames_per_second'"]);
    let error = house.run("transcode", super::small("late.mkv")).unwrap_err();
    assert_eq!(error.error, "Media.TooLarge", "{error}");
    // The rate that a container claims is no work: a few pictures with the clock's tick for a rate go on.
    house.clip(
        "ticks.mp4",
        &format!("-f lavfi -i testsrc2=size=64x64:rate=2:duration=3 {coded} -video_track_timescale 90000"),
    );
    assert!(house.run("probe", json!({ "input": "s3://in/ticks.mp4" })).is_ok());
}

#[test]
fn a_file_of_hundreds_of_streams_is_refused() {
    let house = House::new();
    let film =
        "-f lavfi -i testsrc2=size=64x64:rate=25:duration=1 -f lavfi -i sine=duration=1:sample_rate=8000 -map 0:v";
    let sound =
        |tracks: usize| format!("{film}{} -c:v libx264 -preset ultrafast -c:a pcm_s16le", " -map 1:a".repeat(tracks));
    for name in ["many.mov", "many.mkv"] {
        house.clip(name, &sound(400));
        refused(&house, "sanitize", name, &["streams", "256", "'streams'"]);
    }
    refused(&house, "labels", "many.mkv", &["streams", "256"]);
    house.clip("some.mkv", &sound(16));
    let found = house.run("probe", json!({ "input": "s3://in/some.mkv" })).unwrap();
    assert_eq!(found["audio"].as_array().map(Vec::len), Some(16), "{found}");
}
