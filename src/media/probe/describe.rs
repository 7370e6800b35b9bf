//! A [`Media`] as the JSON that people, workflows and the dashboard read.
//!
//! The keys at the top in snake case are those of the common metadata function of cloud recipes; the rest is
//! camelCase.

use gstreamer as gst;
use gstreamer_audio as gst_audio;
use gstreamer_video as gst_video;
use serde_json::{Value, json};

use super::colour;
use super::inspect::{Audio, Media, Subtitle, Video};
use crate::container::Kind;
use crate::input::Input;

/// Everything about a file.
pub fn describe(input: &Input, media: &Media) -> Value {
    let seconds = media.duration_ns.map(|ns| ns as f64 / 1e9);
    let overall = seconds.map(|s| (input.size as f64 * 8.0 / s).round() as u64);
    let first = media.video.first();
    let codec = first.map(video_codec);
    let video: Vec<Value> = media.video.iter().map(|v| video_json(v, media, overall)).collect();
    let audio: Vec<Value> = media.audio.iter().enumerate().map(|(i, a)| audio_json(i, a)).collect();
    let subtitles: Vec<Value> = media.subtitles.iter().map(subtitle_json).collect();
    json!({
        "duration": seconds.map(round3),
        "width": first.map(|v| v.info.width()),
        "height": first.map(|v| v.info.height()),
        "fps": first.map(|v| round3(f64::from(v.fps.numer()) / f64::from(v.fps.denom().max(1)))),
        "bitrate": overall,
        "codec": codec,
        "audio_codec": media.audio.first().map(audio_codec),
        "file_size": input.size,
        "file": {
            "uri": input.uri,
            "name": input.uri.file_name(),
            "sizeBytes": input.size,
            "modifiedAt": modified(input),
        },
        "container": {
            "format": format_name(media),
            "description": media.container_name,
            "brand": media.container.mp4.as_ref().map(|m| m.brand.clone()),
            "fragmented": media.container.mp4.as_ref().map(|m| m.fragmented),
            "indexFirst": media.container.mp4.as_ref().map(|m| m.faststart),
            "durationSeconds": seconds.map(round3),
            "bitrateBps": overall,
            "seekable": media.seekable,
        },
        "video": video,
        "audio": audio,
        "subtitles": subtitles,
        "captions": first.map(|v| v.captions.clone()).unwrap_or_default(),
        "timecode": media.timecode,
        "unsupportedStreams": media.unknown,
    })
}

/// `h264`, `hevc`, `prores` ... as ffprobe names codecs.
pub fn video_codec(video: &Video) -> String {
    let Some(s) = video.coded.as_ref().and_then(|c| c.structure(0)) else { return "rawvideo".into() };
    let version = s.get::<i32>("mpegversion").ok();
    match s.name().as_str() {
        "video/x-h264" => "h264".into(),
        "video/x-h265" => "hevc".into(),
        "video/x-prores" => "prores".into(),
        "video/mpeg" if version == Some(4) => "mpeg4".into(),
        "video/mpeg" => format!("mpeg{}video", version.unwrap_or(2)),
        "image/jpeg" => "mjpeg".into(),
        other => other.trim_start_matches("video/").trim_start_matches("x-").to_owned(),
    }
}

/// `aac`, `mp3`, `pcm_s16le` ... as ffprobe names codecs.
pub fn audio_codec(audio: &Audio) -> String {
    let Some(s) = audio.coded.as_ref().and_then(|c| c.structure(0)) else {
        return format!("pcm_{}", audio.info.format().to_str().to_ascii_lowercase());
    };
    let (version, layer) = (s.get::<i32>("mpegversion").ok(), s.get::<i32>("layer").ok());
    match s.name().as_str() {
        "audio/mpeg" if matches!(version, Some(2 | 4)) => "aac".into(),
        "audio/mpeg" => format!("mp{}", layer.unwrap_or(3)),
        "audio/x-raw" => format!("pcm_{}", audio.info.format().to_str().to_ascii_lowercase()),
        other => other.trim_start_matches("audio/").trim_start_matches("x-").to_owned(),
    }
}

fn format_name(media: &Media) -> &'static str {
    match media.container.kind {
        Kind::Mp4 if media.container.mp4.as_ref().is_some_and(|m| m.brand == "qt") => "mov",
        Kind::Mp4 => "mp4",
        Kind::Matroska if media.container_name.as_deref().is_some_and(|n| n.contains("WebM")) => "webm",
        Kind::Matroska => "matroska",
        Kind::MpegTs => "mpegts",
        Kind::MpegPs => "mpegps",
        Kind::Avi => "avi",
        Kind::Mxf => "mxf",
        Kind::Flv => "flv",
        Kind::Asf => "asf",
        Kind::Ogg => "ogg",
        Kind::Other => "other",
    }
}

fn video_json(video: &Video, media: &Media, overall: Option<u64>) -> Value {
    let info = &video.info;
    let coded = video.coded.as_ref().and_then(|c| c.structure(0));
    let (par, display) = (info.par(), display_aspect(info));
    let colour = info.colorimetry();
    let text = |key: &str| coded.and_then(|s| s.get::<String>(key).ok());
    let bitrate = bitrate(&video.tags).or_else(|| {
        let others: u64 = media.audio.iter().filter_map(|a| bitrate(&a.tags)).sum();
        (media.video.len() == 1).then(|| overall.map(|o| o.saturating_sub(others))).flatten()
    });
    json!({
        "codec": video_codec(video),
        "profile": text("profile"),
        "level": text("level"),
        "tier": text("tier"),
        "width": info.width(),
        "height": info.height(),
        "fps": f64::from(video.fps.numer()) / f64::from(video.fps.denom().max(1)),
        "fpsRational": format!("{}/{}", video.fps.numer(), video.fps.denom()),
        "variableFrameRate": video.variable,
        "frames": video.frames,
        "bitrateBps": bitrate,
        "rotation": video.rotation,
        "mirrored": video.mirrored,
        "interlaced": video.interlaced,
        "fieldOrder": if !video.interlaced { "progressive" } else if video.top_field_first { "top-field-first" } else { "bottom-field-first" },
        "pixelAspectRatio": format!("{}:{}", par.numer(), par.denom()),
        "displayAspectRatio": format!("{}:{}", display.0, display.1),
        "pixelFormat": info.format().to_str().to_string(),
        "bitDepth": info.comp_depth(0),
        "chromaSubsampling": chroma(info),
        "colourPrimaries": colour::primaries(&colour),
        "colourTransfer": colour::transfer(&colour),
        "colourMatrix": colour::matrix(&colour),
        "colourRange": colour::range(&colour),
        "hdr": video.hdr.name(),
        "masteringDisplay": text_or_string(video.coded.as_ref(), "mastering-display-info"),
        "contentLightLevel": text_or_string(video.coded.as_ref(), "content-light-level"),
        "captions": video.captions,
    })
}

fn audio_json(index: usize, audio: &Audio) -> Value {
    let info = &audio.info;
    json!({
        "track": index + 1,
        "codec": audio_codec(audio),
        "channels": info.channels(),
        "layout": layout(info),
        "sampleRate": info.rate(),
        "bitDepth": info.depth(),
        "bitrateBps": bitrate(&audio.tags),
        "language": language(&audio.tags),
    })
}

fn subtitle_json(subtitle: &Subtitle) -> Value {
    json!({
        "format": subtitle.caps.structure(0).map(|s| s.name().to_string()),
        "language": language(&subtitle.tags),
    })
}

fn text_or_string(caps: Option<&gst::Caps>, key: &str) -> Option<String> {
    caps?.structure(0)?.get::<String>(key).ok()
}

fn language(tags: &gst::TagList) -> Option<String> {
    tags.get::<gst::tags::LanguageCode>().map(|v| v.get().to_owned()).filter(|l| l != "und")
}

fn bitrate(tags: &gst::TagList) -> Option<u64> {
    tags.get::<gst::tags::Bitrate>()
        .map(|v| u64::from(v.get()))
        .or_else(|| tags.get::<gst::tags::NominalBitrate>().map(|v| u64::from(v.get())))
        .filter(|b| *b > 0)
}

fn layout(info: &gst_audio::AudioInfo) -> Option<String> {
    use gst_audio::AudioChannelPosition as P;
    let positions = info.positions()?;
    Some(match info.channels() {
        1 => "mono".into(),
        2 if positions.starts_with(&[P::FrontLeft]) => "stereo".into(),
        6 if positions.contains(&P::Lfe1) => "5.1".into(),
        8 if positions.contains(&P::Lfe1) => "7.1".into(),
        n if positions.contains(&P::None) => format!("{n} channels, unpositioned"),
        n => format!("{n} channels"),
    })
}

fn chroma(info: &gst_video::VideoInfo) -> &'static str {
    let format = info.format_info();
    if !format.is_yuv() {
        return if format.is_gray() { "4:0:0" } else { "RGB" };
    }
    match (format.w_sub().get(1), format.h_sub().get(1)) {
        (Some(1), Some(1)) => "4:2:0",
        (Some(1), Some(0)) => "4:2:2",
        (Some(2), Some(0)) => "4:1:1",
        _ => "4:4:4",
    }
}

/// Display aspect as small whole numbers.
fn display_aspect(info: &gst_video::VideoInfo) -> (u64, u64) {
    let (n, d) = (
        u64::from(info.width()) * info.par().numer().max(1) as u64,
        u64::from(info.height()) * info.par().denom().max(1) as u64,
    );
    let mut a = (n.max(1), d.max(1));
    while a.1 != 0 {
        a = (a.1, a.0 % a.1);
    }
    (n / a.0, d / a.0)
}

fn modified(input: &Input) -> Option<String> {
    let time = std::fs::metadata(&input.path).ok()?.modified().ok()?;
    let ms = time.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis();
    Some(conveyor_base::Timestamp(i64::try_from(ms).ok()?).to_string())
}

fn round3(x: f64) -> f64 {
    (x * 1000.0).round() / 1000.0
}
