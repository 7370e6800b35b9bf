//! Section `cpu`: encoders on cores by preset, each with the bitrate and the likeness of what came out, and decoders.

use conveyor_job::Encoder;
use serde_json::{Value, json};

use super::report::{Mode, Row, Section, SectionKind};
use super::statistics::Better;
use super::work::{SHARE, Work};

/// Name, width and height.
pub type Size = (&'static str, usize, usize);
pub const SIZES: [Size; 3] = [("720p", 1280, 720), ("1080p", 1920, 1080), ("2160p", 3840, 2160)];

/// Into a quick run, after which no other preset is begun.
const LATE_SECONDS: f64 = 85.0;

/// What is measured: encoder, preset, size.
type Item = (Encoder, &'static str, Size);

fn items(mode: Mode) -> Vec<Item> {
    let [hd, full, ultra] = SIZES;
    let presets = |encoder: Encoder| -> &'static [&'static str] {
        match (mode, encoder) {
            (Mode::Quick, Encoder::X264) => &["superfast", "veryfast", "medium"],
            (Mode::Quick, Encoder::X265) => &["ultrafast", "fast"],
            (Mode::Quick, Encoder::Aom) => &["9"],
            (Mode::Quick, Encoder::Svt) => &["10"],
            (Mode::Quick, Encoder::Rav1e) => &["10"],
            (Mode::Full, Encoder::X264) => {
                &["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower"]
            }
            (Mode::Full, Encoder::X265) => &["ultrafast", "superfast", "veryfast", "fast", "medium", "slow"],
            (Mode::Full, Encoder::Aom) => &["9", "8", "6", "4"],
            (Mode::Full, Encoder::Svt) => &["12", "10", "8", "6", "4"],
            (Mode::Full, Encoder::Rav1e) => &["10", "8", "6"],
        }
    };
    // The ladder's own preset first, at the size of its larger rung: lanes and predictions go by it.
    let mut items = match mode {
        Mode::Quick => vec![(Encoder::X264, "veryfast", full)],
        Mode::Full => Vec::new(),
    };
    for encoder in Encoder::ALL {
        let sizes: &[Size] = if mode == Mode::Quick { &[hd] } else { &[hd, full, ultra] };
        for size in sizes {
            items.extend(presets(encoder).iter().map(|preset| (encoder, *preset, *size)));
        }
    }
    items
}

/// A guess, for the time left.
fn seconds(mode: Mode, (encoder, ..): &Item) -> f64 {
    match encoder {
        Encoder::X264 | Encoder::Svt => mode.pick(3.0, 20.0),
        Encoder::X265 => mode.pick(6.0, 35.0),
        Encoder::Aom | Encoder::Rav1e => mode.pick(7.0, 45.0),
    }
}

pub fn expected_seconds(mode: Mode) -> f64 {
    let items = items(mode);
    items.iter().map(|item| seconds(mode, item)).sum::<f64>() + mode.pick(3.0, 40.0)
}

pub async fn measure(work: &Work) -> Section {
    let mut section = Section::new(SectionKind::Cpu);
    section.say(
        "Constant quality (x264 CRF 23, x265 CRF 26, AV1 quantizer 34 of 63), all cores; PSNR and SSIM of luma against the \
         frames that went in: conveyor's film of dead leaves with grain, 30 frames a second.",
    );
    decoders(work, &mut section).await;
    let mut absent: Vec<Encoder> = Vec::new();
    let mut left_out: Vec<String> = Vec::new();
    for (n, item) in items(work.mode).into_iter().enumerate() {
        let (encoder, preset, (size, width, height)) = item;
        if absent.contains(&encoder) {
            continue;
        }
        if n > 0 && work.is_late(LATE_SECONDS) {
            left_out.push(format!("{} {preset} {size}", encoder.name()));
            continue;
        }
        let parameters = json!({
            "encoder": encoder, "preset": preset, "width": width, "height": height,
            "frames": work.mode.pick(45, if height > 1080 { 40 } else { 120 }),
            "repetitions": work.mode.pick(3, 5), "secondsMax": work.mode.pick(1.5, 20.0),
        });
        let doing = format!("{} {preset} {size}", encoder.name());
        let end =
            work.step(&doing, seconds(work.mode, &item), work.stage("bench-encode", parameters, work.cores)).await;
        match end {
            Ok(result) if result["absent"].is_string() => {
                section.say(format!("{}: {}", encoder.name(), result["absent"].as_str().unwrap_or_default()));
                absent.push(encoder);
            }
            Ok(result) => {
                let key = format!("{}/{preset}/{size}", encoder_key(encoder));
                section.rows.push(encode_row(Row::new(key, doing), &result));
            }
            Err(error) => section.say(format!("{doing} failed: {}", error.cause)),
        }
    }
    if !left_out.is_empty() {
        section.say(format!("Left out, so that a quick run ends in time: {}.", left_out.join(", ")));
    }
    section
}

fn encoder_key(encoder: Encoder) -> &'static str {
    match encoder {
        Encoder::X264 => "x264",
        Encoder::X265 => "x265",
        Encoder::Aom => "aom",
        Encoder::Svt => "svt",
        Encoder::Rav1e => "rav1e",
    }
}

fn encode_row(row: Row, result: &Value) -> Row {
    let one = |key: &str| result[key].as_f64().into_iter().collect::<Vec<f64>>();
    row.with("speed", "fps", Better::Higher, samples(&result["fps"]))
        .with("bitrate", "kbit/s", Better::Lower, one("bitrateKbps"))
        .with("PSNR", "dB", Better::Higher, one("psnrDb"))
        .with("SSIM", "", Better::Higher, one("ssim"))
}

pub fn samples(list: &Value) -> Vec<f64> {
    list.as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
}

/// Codec, the encoder that makes the file, the decoder, and its parser.
const DECODERS: [(&str, Encoder, &str, &str); 3] = [
    ("h264", Encoder::X264, "avdec_h264", "h264parse"),
    ("hevc", Encoder::X265, "avdec_h265", "h265parse"),
    ("av1", Encoder::Aom, "av1dec", "av1parse"),
];

async fn decoders(work: &Work, section: &mut Section) {
    for (codec, encoder, element, parser) in DECODERS {
        // Making the files of the others takes longer than a quick run may.
        if work.mode == Mode::Quick && codec != "h264" {
            continue;
        }
        let file = format!("s3://{SHARE}/decode-{codec}.mp4");
        let clip = json!({
            "destination": file, "width": 1920, "height": 1080, "seconds": work.mode.pick(2, 5), "encoder": encoder,
        });
        let parameters = json!({
            "file": file, "element": element, "parser": parser, "repetitions": work.mode.pick(5, 9), "secondsMax": 10.0,
        });
        let measuring = async {
            work.stage("bench-clip", clip, work.cores).await?;
            work.stage("bench-decode", parameters, work.cores).await
        };
        let doing = format!("decoding {codec} 1080p");
        match work.step(&doing, work.mode.pick(3.0, 13.0), measuring).await {
            Ok(result) if result["absent"].is_string() => {
                section.say(format!("{doing}: {}", result["absent"].as_str().unwrap_or_default()));
            }
            Ok(result) => {
                let row = Row::new(format!("decode/{codec}/1080p"), format!("{element}, decoding 1080p"));
                section.rows.push(row.with("speed", "fps", Better::Higher, samples(&result["fps"])));
            }
            Err(error) => section.say(format!("{doing} failed: {}", error.cause)),
        }
    }
}
