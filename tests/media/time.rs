//! Pictures and sound come when the source has them. Pictures carry their number as a bar code and flash at each full
//! second while the sound beeps, so order, loss, doubling and the distance between the two are read off what came out.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::{House, file_group, h264, job, output};

/// The source's sound and pictures may come apart by this, in seconds.
const APART_MAX: f64 = 0.005;

fn pictures(rate: &str, seconds: f64) -> String {
    format!(
        "-f lavfi -i color=black:s=320x180:r={rate}:d={seconds},format=yuv420p,geq=lum='if(lt(Y,H/2),if(mod(floor(N/pow(2,floor(X*10/W))),2),235,16),if(lt(mod(T+0.0005,1),0.1),235,60))':cb=128:cr=128"
    )
}

fn sound(rate: u32, seconds: f64) -> String {
    format!("-f lavfi -i aevalsrc='0.5*sin(2*PI*1000*t)*lt(mod(t+0.00001,1),0.1)':s={rate}:d={seconds}")
}

/// What a file shows and sounds like, by FFmpeg.
#[derive(Debug)]
struct Seen {
    /// Number and time of each picture.
    pictures: Vec<(u32, f64)>,
    flashes: Vec<f64>,
    beeps: Vec<f64>,
}

impl Seen {
    fn of(path: &Path) -> Seen {
        let dir = tempfile::tempdir().unwrap();
        let (video, audio) = (dir.path().join("v"), dir.path().join("a"));
        let told = Command::new("ffmpeg")
            .args(["-nostdin", "-y", "-v", "info", "-i"])
            .arg(path)
            .args(["-map", "0:v:0", "-vf", "scale=20:4:flags=area,format=gray,showinfo", "-fps_mode", "passthrough"])
            .args(["-f", "rawvideo"])
            .arg(&video)
            .args(["-map", "0:a:0", "-af", "aresample=async=1:first_pts=0", "-ac", "1", "-ar", "48000", "-f", "s16le"])
            .arg(&audio)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&told.stderr).into_owned();
        let times = told.lines().filter(|l| l.contains("showinfo")).filter_map(|l| l.split("pts_time:").nth(1));
        let times: Vec<f64> = times.map(|t| t.split_whitespace().next().unwrap().parse().unwrap()).collect();
        let pixels = std::fs::read(&video).unwrap();
        let number = |p: &[u8]| {
            let lit = |bit: usize| (u32::from(p[2 * bit]) + u32::from(p[2 * bit + 1])) / 2 > 120;
            (0..10).filter(|bit| lit(*bit)).map(|bit| 1 << bit).sum()
        };
        let pictures: Vec<(u32, f64)> = pixels.chunks_exact(80).map(number).zip(times.iter().copied()).collect();
        let lit: Vec<bool> = pixels.chunks_exact(80).map(|p| p[69] > 160).collect();
        let flashes = (0..times.len()).filter(|i| lit[*i] && (*i == 0 || !lit[i - 1])).map(|i| times[i]).collect();
        let samples = std::fs::read(&audio).unwrap();
        let (mut beeps, mut loud_at) = (Vec::new(), -1.0);
        for (i, sample) in samples.chunks_exact(2).enumerate() {
            if i16::from_le_bytes([sample[0], sample[1]]).unsigned_abs() > 1_200 {
                let at = i as f64 / 48_000.0;
                if at - loud_at > 0.2 {
                    beeps.push(at);
                }
                loud_at = at;
            }
        }
        Seen { pictures, flashes, beeps }
    }

    fn numbers(&self) -> Vec<u32> {
        self.pictures.iter().map(|p| p.0).collect()
    }

    /// Beeps against flashes, where both are within half a second.
    fn apart(&self) -> Vec<f64> {
        let nearest = |f: &f64| self.beeps.iter().map(|b| b - f).min_by(|a, b| a.abs().total_cmp(&b.abs()));
        self.flashes.iter().filter_map(nearest).filter(|apart| apart.abs() < 0.5).collect()
    }
}

/// Transcodes into MP4 and HLS, has the judge pass what came out, and looks at both.
fn through(house: &House, name: &str) -> [Seen; 2] {
    let pictures = || h264(320, 180, 7, 1_000_000);
    let hls = json!({"OutputGroupSettings": {"Type": "HLS_GROUP_SETTINGS", "HlsGroupSettings": {
        "Destination": "s3://out/hls/", "SegmentLength": 4, "MinSegmentLength": 0}},
        "Outputs": [output("_h", "M3U8", pictures())]});
    let groups = json!([file_group("mp4", json!([output("_s", "MP4", pictures())])), hls]);
    let made = house.run("transcode", job(name, groups)).unwrap();
    let judged = json!({"input": format!("s3://in/{name}"), "outputs": made["OutputGroupDetails"]});
    let judged = house.run("quality", judged).unwrap();
    let failed: Vec<&Value> =
        judged["checks"].as_array().unwrap().iter().filter(|c| c["passed"] == Value::Bool(false)).collect();
    assert!(judged["passed"] == Value::Bool(true) && failed.is_empty(), "{name}: {failed:#?}");
    let stem = name.rsplit_once('.').unwrap().0;
    let out = |path: String| -> PathBuf { house.path("out").join(path) };
    let seen = [out(format!("mp4/{stem}_s.mp4")), out(format!("hls/{stem}_h.m3u8"))].map(|path| Seen::of(&path));
    for seen in &seen {
        assert!(seen.pictures.windows(2).all(|w| w[0].1 < w[1].1), "{name}: times ascend: {seen:?}");
    }
    seen
}

fn close(name: &str, got: &[f64], due: &[f64], within: f64) {
    let fits = got.len() == due.len() && got.iter().zip(due).all(|(g, d)| (g - d).abs() <= within);
    assert!(fits, "{name}: {got:?} for {due:?}");
}

#[test]
fn each_picture_is_shown_once_and_the_sound_stays_with_it() {
    let house = House::new();
    let coded = "-c:v libx264 -preset veryfast -g 50";
    let cases = [
        ("aac.mkv", 25.0, 48_000, "-c:a aac"),
        ("ntsc.mkv", 30_000.0 / 1001.0, 48_000, "-c:a ac3"),
        ("aac.mp4", 30_000.0 / 1001.0, 44_100, "-c:a aac"),
        ("pcm.mov", 25.0, 44_100, "-c:a pcm_s16le"),
        ("mp2.ts", 25.0, 48_000, "-c:a mp2"),
    ];
    for (name, fps, rate, audio) in cases {
        let rate_of_pictures = if fps == 25.0 { "25" } else { "30000/1001" };
        house.clip(name, &format!("{} {} {coded} {audio}", pictures(rate_of_pictures, 4.0), sound(rate, 4.0)));
        let source = Seen::of(&house.path("in").join(name));
        for seen in through(&house, name) {
            assert_eq!(seen.numbers(), source.numbers(), "{name}");
            close(name, &seen.apart(), &source.apart(), APART_MAX);
            // Each lies a whole number of periods behind the first, to what containers round by.
            let first = seen.pictures[0].1;
            let even = |(i, p): (usize, &(u32, f64))| (p.1 - first - i as f64 / fps).abs() < 0.001;
            assert!(seen.pictures.iter().enumerate().all(even), "{name}: {seen:?}");
        }
    }
}

#[test]
fn a_picture_stands_until_the_next_ones_time_and_the_last_as_long_as_the_sound() {
    let house = House::new();
    // One second of motion, 1.4 s standing, and so on.
    let holds = "-vf setpts=(N/30+1.4*floor(N/30))/TB -fps_mode passthrough -video_track_timescale 90000";
    let coded = "-c:v libx264 -preset veryfast -bf 0 -g 30";
    house.clip("v.mp4", &format!("{} {holds} {coded}", pictures("30", 3.0)));
    let v = house.path("in").join("v.mp4");
    house.clip("holds.mp4", &format!("-i {} {} -map 0:v -map 1:a -c:v copy -c:a aac", v.display(), sound(48_000, 9.0)));
    for seen in through(&house, "holds.mp4") {
        let first = seen.pictures[0].1;
        let flashes: Vec<f64> = seen.flashes.iter().map(|f| f - first).collect();
        close("holds.mp4", &flashes, &[0.0, 2.4, 4.8], 0.034);
        let mut numbers = seen.numbers();
        numbers.dedup();
        assert_eq!(numbers, (0..90).collect::<Vec<_>>());
        // Nine seconds of sound, but for the rest of a packet.
        assert!((268..=270).contains(&seen.pictures.len()) && seen.beeps.len() == 9, "{seen:?}");
    }
    // Four seconds of pictures, nine of sound; and slides that last five seconds each.
    house.clip("song.mp4", &format!("{} {} {coded} -c:a aac", pictures("25", 4.0), sound(48_000, 9.0)));
    for seen in through(&house, "song.mp4") {
        assert_eq!((seen.pictures.len(), seen.beeps.len()), (225, 9));
        close("song.mp4", &seen.apart(), &[0.0; 4], APART_MAX);
    }
    house.clip("slides.mp4", &format!("{} {} {coded} -c:a aac", pictures("1/5", 30.0), sound(48_000, 30.0)));
    for seen in through(&house, "slides.mp4") {
        let first = seen.pictures[0].1;
        let mut slides = seen.pictures.clone();
        slides.dedup_by_key(|p| p.0);
        let times: Vec<f64> = slides.iter().map(|p| p.1 - first).collect();
        close("slides.mp4", &times, &[0.0, 5.0, 10.0, 15.0, 20.0, 25.0], 0.001);
        let beeps: Vec<f64> = seen.beeps.iter().map(|b| b - first).collect();
        close("slides.mp4", &beeps, &(0..30).map(f64::from).collect::<Vec<_>>(), APART_MAX);
    }
}

#[test]
fn interlaced_pictures_come_at_their_own_times_to_the_last() {
    let house = House::new();
    for (name, scan, top) in [("tff.ts", "tff", 1), ("bff.ts", "bff", 0)] {
        let fields =
            format!("-vf interlace=scan={scan}:lowpass=0 -c:v mpeg2video -flags +ildct+ilme -top {top} -b:v 4M");
        house.clip(name, &format!("{} {} {fields} -c:a mp2", pictures("50", 3.0), sound(48_000, 3.0)));
        let source = Seen::of(&house.path("in").join(name));
        for seen in through(&house, name) {
            assert_eq!(seen.pictures.len(), 75, "{name}");
            close(name, &seen.apart(), &source.apart(), APART_MAX);
        }
    }
}

#[test]
fn where_the_source_is_silent_or_begins_late_so_do_the_outputs() {
    let house = House::new();
    let (pictures, coded) = (pictures("25", 6.0), "-c:v libx264 -preset veryfast -bf 2 -g 25");
    // Sound from 1.96 s on; sound without packets from 2 to 4 s; pictures from 0.6 s on.
    house.clip("v.mkv", &format!("{pictures} {coded}"));
    let v = house.path("in").join("v.mkv");
    let v = v.display();
    house.clip(
        "late.mkv",
        &format!("-i {v} -itsoffset 1.96 {} -map 0:v -map 1:a -c:v copy -c:a ac3", sound(48_000, 4.0)),
    );
    let gap = "-af aselect='not(between(t,2,4))' -c:a pcm_s16le";
    house.clip("gap.mkv", &format!("-i {v} {} -map 0:v -map 1:a -c:v copy {gap}", sound(48_000, 6.0)));
    house.clip(
        "first.mp4",
        &format!("-itsoffset 0.6 -i {v} {} -map 0:v -map 1:a -c:v copy -c:a aac", sound(48_000, 6.0)),
    );
    for name in ["late.mkv", "gap.mkv", "first.mp4"] {
        let source = Seen::of(&house.path("in").join(name));
        for seen in through(&house, name) {
            assert_eq!(seen.numbers(), (0..150).collect::<Vec<_>>(), "{name}");
            let from_first = |s: &Seen| s.beeps.iter().map(|b| b - s.pictures[0].1).collect::<Vec<f64>>();
            close(name, &from_first(&seen), &from_first(&source), APART_MAX);
        }
    }
}
