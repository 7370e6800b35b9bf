//! The analyses on clips whose content is known.

use std::process::Command;

use conveyor_base::Shares;
use conveyor_job::{Access, Job};
use serde_json::{Value, json};

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Option<Bench> {
        if Command::new("ffmpeg").arg("-version").output().is_err() {
            assert!(std::env::var_os("CI").is_none(), "ffmpeg is missing: run `make test`");
            eprintln!("skipped: ffmpeg, which makes the clips, is not installed");
            return None;
        }
        Some(Bench { dir: tempfile::tempdir().unwrap() })
    }

    fn ffmpeg(&self, arguments: &str) {
        let all = format!("-v error -y {arguments}");
        let output = Command::new("ffmpeg").args(all.split_whitespace()).current_dir(self.dir.path()).output().unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn run(&self, stage: &str, mut parameters: Value) -> Value {
        parameters["destination"] = json!("s3://s/full/");
        let shares = Shares::new([("s".to_owned(), self.dir.path().to_owned())]);
        let work_dir = self.dir.path().join("work");
        std::fs::create_dir_all(&work_dir).unwrap();
        let job = Job {
            stage: stage.into(),
            parameters,
            work_dir,
            shares,
            threads: 1,
            access: Access::default(),
            device: None,
        };
        crate::run_here(&job).unwrap_or_else(|e| panic!("{stage}: {e}"))
    }
}

const SRT: &str = "1\n00:00:00,500 --> 00:00:02,000\nThe river carries the boat to the harbour\n\n2\n00:00:03,000 --> 00:00:04,500\nand the harbour is full of boats on the river\n";

#[test]
fn three_shots_are_three_and_a_flash_is_none() {
    let Some(b) = Bench::new() else { return };
    b.ffmpeg(
        "-f lavfi -i testsrc2=size=320x180:rate=25:duration=3 -f lavfi -i color=red:size=320x180:rate=25:duration=2 \
         -f lavfi -i mandelbrot=size=320x180:rate=25 -f lavfi -i color=black:size=320x180:rate=25:duration=1 -filter_complex \
         [0:v]drawbox=c=white:t=fill:enable='between(n,30,31)',setsar=1,format=yuv420p[a];[1:v]setsar=1,format=yuv420p[b];\
         [2:v]trim=duration=2,setpts=PTS-STARTPTS,setsar=1,format=yuv420p[c];[3:v]setsar=1,format=yuv420p[d];[a][b][c][d]concat=n=4[v] \
         -map [v] -c:v libx264 -preset veryfast -crf 18 shots.mp4",
    );
    let labels = b.run("labels", json!({ "input": "s3://s/shots.mp4" }));
    let starts: Vec<f64> = labels["shots"].as_array().unwrap().iter().map(|s| s["start"].as_f64().unwrap()).collect();
    let near = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 0.09);
    assert!(near(&starts, &[0.0, 3.0, 5.0, 7.0]), "{labels:#}");
    let kinds: Vec<&str> = labels["shots"].as_array().unwrap().iter().map(|s| s["kind"].as_str().unwrap()).collect();
    assert_eq!((kinds[0], kinds[1], kinds[3]), ("motion", "still", "black"), "{labels:#}");
    let red = labels["shots"][1]["colours"][0].as_str().unwrap();
    assert!(
        u8::from_str_radix(&red[1..3], 16).unwrap() > 200 && u8::from_str_radix(&red[3..5], 16).unwrap() < 60,
        "{red}"
    );
    assert!((labels["black"][0]["start"].as_f64().unwrap() - 7.0).abs() < 0.1);
}

#[test]
fn captions_are_found_inside_and_beside_the_file() {
    let Some(b) = Bench::new() else { return };
    b.write("text.srt", SRT);
    let av = "-f lavfi -i testsrc2=size=160x90:rate=25:duration=5 -f lavfi -i sine=frequency=300:duration=5 -i text.srt -c:v libx264 -preset ultrafast -c:a aac";
    b.ffmpeg(&format!("{av} -map 0 -map 1 -map 2 -c:s mov_text inside.mp4"));
    b.ffmpeg(&format!("{av} -map 0 -map 1 -map 2 -c:s srt inside.mkv"));
    b.ffmpeg(&format!("{av} -map 0 -map 1 beside.mp4"));
    b.write("beside.en.srt", SRT);
    b.ffmpeg(&format!("{av} -map 0 nothing.mp4"));
    for name in ["inside.mp4", "inside.mkv", "beside.mp4"] {
        let t = b.run("transcript", json!({ "input": format!("s3://s/{name}") }));
        assert_eq!((t["cueCount"].as_u64(), t["speechRecognition"].as_bool()), (Some(2), Some(false)), "{name}: {t:#}");
        assert_eq!(t["cues"][0]["text"], "The river carries the boat to the harbour", "{name}");
        assert!((t["cues"][1]["start"].as_f64().unwrap() - 3.0).abs() < 0.05, "{name}");
        // A steady tone is not speech.
        assert_eq!(t["speechSeconds"].as_f64(), Some(0.0), "{name}");
    }
    let t = b.run("transcript", json!({ "input": "s3://s/nothing.mp4" }));
    assert_eq!((t["cueCount"].as_u64(), t["hasAudio"].as_bool()), (Some(0), Some(false)));
}

#[test]
fn a_brief_states_what_was_measured_and_what_is_missing() {
    let Some(b) = Bench::new() else { return };
    b.ffmpeg("-f lavfi -i testsrc2=size=160x90:rate=25:duration=5 -c:v libx264 -preset ultrafast my_river-trip.mp4");
    b.write("my_river-trip.srt", SRT);
    let input = json!({ "input": "s3://s/my_river-trip.mp4" });
    let (labels, transcript) = (b.run("labels", input.clone()), b.run("transcript", input));
    let metadata = json!({ "width": 160, "height": 90, "video": [{ "hdr": "HLG" }] });
    let meaning = b.run("meaning", json!({ "metadata": metadata, "labels": labels, "transcript": transcript }));
    assert_eq!((&meaning["title"], &meaning["language"]), (&json!("my river trip"), &json!("en")), "{meaning:#}");
    let keywords: Vec<&str> = meaning["keywords"].as_array().unwrap().iter().map(|k| k.as_str().unwrap()).collect();
    assert!(keywords[..3].contains(&"river") && keywords[..3].contains(&"harbour"), "{keywords:?}");
    let brief = b.run(
        "brief",
        json!({ "metadata": metadata, "labels": { "Error": "x" }, "transcript": transcript, "meaning": meaning }),
    );
    assert_eq!(brief["markdown"], "s3://s/full/brief.md");
    let text = std::fs::read_to_string(b.dir.path().join("full/brief.md")).unwrap();
    assert!(text.starts_with("# my river trip\n") && text.contains("The river carries the boat"), "{text}");
    assert!(text.contains("It is high dynamic range (HLG)"), "{text}");
    let brief = b.run("brief", json!({ "transcript": transcript }));
    assert_eq!(brief["missing"], json!(["metadata", "labels", "meaning"]));
}

/// Odd parity, as line 21 has it.
fn odd(byte: u8) -> u8 {
    if byte.count_ones().is_multiple_of(2) { byte | 0x80 } else { byte }
}

/// Pop-on captions as cc_data, one list of triplets for each of 30 pictures a second. Each caption is loaded, shown at
/// its first picture and erased at its second. A caption of the digital service 1 stands from picture 45 to 75.
fn cc_data(pictures: usize, captions: &[(usize, usize, &str)]) -> Vec<Vec<u8>> {
    let mut pairs = vec![[0u8, 0]; pictures];
    for (show, erase, text) in captions {
        let mut load = vec![[0x14, 0x20], [0x14, 0x20], [0x14, 0x2e], [0x14, 0x2e]];
        for (row, line) in text.lines().enumerate() {
            load.extend([[0x14, 0x50 + 0x20 * row as u8]; 2]);
            load.extend(line.as_bytes().chunks(2).map(|c| [c[0], c.get(1).copied().unwrap_or(0)]));
        }
        pairs[show - load.len()..*show].copy_from_slice(&load);
        (pairs[*show], pairs[*show + 1]) = ([0x14, 0x2f], [0x14, 0x2f]);
        (pairs[*erase], pairs[*erase + 1]) = ([0x14, 0x2c], [0x14, 0x2c]);
    }
    let mut data: Vec<Vec<u8>> = pairs.iter().map(|p| vec![0xfc, odd(p[0]), odd(p[1]), 0xf9, 0x80, 0x80]).collect();
    // Define window 0, visible, two rows of 32 columns; later: delete it.
    let mut define = vec![0x98, 0x38, 0x00, 0x00, 0x01, 0x1f, 0x11];
    define.extend(b"Digital");
    for (at, sequence, block) in [(45, 0u8, define), (75, 1, vec![0x8c, 0x01])] {
        let mut packet = vec![0x20 | block.len() as u8];
        packet.extend(block);
        packet.push(0);
        packet.truncate(packet.len() / 2 * 2 + 1);
        packet.insert(0, sequence << 6 | packet.len().div_ceil(2) as u8);
        for (i, pair) in packet.chunks(2).enumerate() {
            data[at].extend([if i == 0 { 0xff } else { 0xfe }, pair[0], pair.get(1).copied().unwrap_or(0)]);
        }
    }
    data
}

/// Encodes test pictures that carry caption data, and finishes the file with the rest of the pipeline.
fn captioned(path: &std::path::Path, data: Vec<Vec<u8>>, rest: &str) {
    use gstreamer as gst;
    use gstreamer::prelude::*;
    use gstreamer_video::{VideoCaptionMeta, VideoCaptionType};
    crate::init().unwrap();
    let text = format!(
        "videotestsrc num-buffers={} pattern=ball ! video/x-raw,format=I420,width=320,height=180,framerate=30/1 ! identity name=cc ! {rest} ! filesink location={}",
        data.len(),
        path.display()
    );
    let pipeline = gst::parse::launch(&text).unwrap().downcast::<gst::Pipeline>().unwrap();
    let mut next = data.into_iter();
    let next = parking_lot::Mutex::new(move || next.next());
    let pad = pipeline.by_name("cc").unwrap().static_pad("src").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let (Some(buffer), Some(data)) = (info.buffer_mut(), (*next.lock())()) {
            VideoCaptionMeta::add(buffer.make_mut(), VideoCaptionType::Cea708Raw, &data);
        }
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let ended = pipeline
        .bus()
        .unwrap()
        .timed_pop_filtered(gst::ClockTime::from_seconds(60), &[gst::MessageType::Eos, gst::MessageType::Error]);
    pipeline.set_state(gst::State::Null).unwrap();
    let ended = ended.unwrap();
    assert_eq!(ended.type_(), gst::MessageType::Eos, "{ended:?}");
}

#[test]
fn closed_captions_become_cues_with_their_times() {
    let Some(b) = Bench::new() else { return };
    let data = cc_data(150, &[(30, 60, "Hello from\nthe harbour"), (90, 135, "All aboard")]);
    // Pictures are reordered by the encoder: the captions must come back in the order of showing.
    let x264 = "x264enc speed-preset=veryfast bframes=3 key-int-max=30";
    captioned(&b.dir.path().join("sei.mp4"), data.clone(), &format!("{x264} ! h264parse ! mp4mux"));
    // A track of its own, as broadcast MOV files have it, and nothing in the pictures.
    let track = format!(
        "ccextractor name=e remove-caption-meta=true e.src ! queue ! {x264} ! h264parse ! qtmux name=m e.caption ! queue \
         ! ccconverter ! closedcaption/x-cea-608,format=s334-1a,framerate=30/1 ! m.caption_0 m."
    );
    captioned(&b.dir.path().join("track.mov"), data.clone(), &track);
    captioned(&b.dir.path().join("sei.ts"), data, &format!("{x264} ! h264parse ! mpegtsmux"));
    // FFmpeg finds the captions in what was made here: the test stands on more than our own reading.
    b.ffmpeg("-f lavfi -i movie=sei.mp4[out0+subcc] -map 0:s judge.srt");
    let judge = std::fs::read_to_string(b.dir.path().join("judge.srt")).unwrap();
    assert!(judge.contains("Hello from") && judge.contains("All aboard"), "{judge}");
    for name in ["sei.mp4", "sei.ts", "track.mov"] {
        let t = b.run("transcript", json!({ "input": format!("s3://s/{name}") }));
        let cues: Vec<(u64, f64, f64, &str)> = t["cues"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| {
                let number = |key: &str| c[key].as_f64().unwrap();
                (c["track"].as_u64().unwrap(), number("start"), number("end"), c["text"].as_str().unwrap())
            })
            .collect();
        let expected =
            [(0, 1.0, 2.0, "Hello from\nthe harbour"), (0, 3.0, 4.5, "All aboard"), (1, 1.5, 2.5, "Digital")];
        // CEA-608 tracks have no room for CEA-708.
        let expected = if name == "track.mov" { &expected[..2] } else { &expected[..] };
        assert_eq!(cues.len(), expected.len(), "{name}: {t:#}");
        for (found, due) in cues.iter().zip(expected) {
            assert_eq!((found.0, found.3), (due.0, due.3), "{name}");
            assert!((found.1 - due.1).abs() < 0.04 && (found.2 - due.2).abs() < 0.04, "{name}: {found:?} {due:?}");
        }
        let services = &t["closedCaptions"]["services"];
        assert_eq!((&services[0]["service"], &t["tracks"][0]["from"]), (&json!("CC1"), &json!("closed-captions")));
        assert!(name == "track.mov" || services[1]["service"] == "Service 1", "{name}: {t:#}");
        assert_eq!(t["text"], "Hello from the harbour All aboard");
        assert_eq!(t["closedCaptions"]["unreadable"], 0, "{name}");
    }
}
