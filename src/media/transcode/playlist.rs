//! HLS playlists (RFC 8216) for the segments that a transcode left behind.

use conveyor_base::escape::escaped;
use std::path::{Path, PathBuf};

use m3u8_rs::{MasterPlaylist, MediaPlaylist, MediaPlaylistType, MediaSegment, Resolution, VariantStream};

use super::plan::Encode;

/// The segments of one rendition.
#[derive(Clone, Debug)]
pub struct Segments {
    /// Names and durations in seconds, in order.
    pub list: Vec<(PathBuf, f64)>,
    /// Bits a second of the largest segment, and of all together.
    pub peak: u64,
    pub average: u64,
}

/// Sound before the first picture that is too short to be told in a playlist, in seconds.
const LEAD_SECONDS_MIN: f64 = 0.1;

impl Segments {
    /// The first segment begins with so many seconds of sound alone.
    pub fn lead_in(&mut self, seconds: f64) {
        if let Some((_, first)) = self.list.first_mut().filter(|_| seconds > LEAD_SECONDS_MIN) {
            *first += seconds;
        }
    }
}

/// Finds the segments `<stem>_00001.ts` ... in a folder. Their durations follow from the frames that were encoded:
/// every segment holds `gops` GOPs but the last, which holds the rest.
pub fn segments(folder: &Path, stem: &str, encode: &Encode, gops: u32, frames: u64) -> Result<Segments, String> {
    let per_segment = (u64::from(encode.gop_frames) * u64::from(gops)).max(1);
    let name = |number: u64| folder.join(format!("{stem}_{number:05}.ts"));
    let expected = frames.div_ceil(per_segment).max(1);
    let found = (1..=expected + 1).take_while(|n| name(*n).exists()).count() as u64;
    // A rest of a single frame is not worth a segment: the splitter keeps it with the one before.
    let kept = found + 1 == expected && frames - found * per_segment <= 1 && found > 0;
    if found != expected && !kept {
        return Err(format!("{frames} frames need {expected} segments, and {found} are there"));
    }
    let mut list = Vec::new();
    let (mut peak, mut bytes) = (0f64, 0u64);
    for number in 1..=found {
        let path = name(number);
        let size = std::fs::metadata(&path).map_err(|e| format!("segment {number} of {found}: {e}"))?.len();
        let rest = frames - (number - 1) * per_segment;
        let seconds = if number == found { rest } else { per_segment } as f64 / encode.fps();
        bytes += size;
        // A last segment of a few frames would claim an absurd rate.
        if seconds >= 0.5 || found == 1 {
            peak = peak.max(size as f64 * 8.0 / seconds);
        }
        list.push((path, seconds));
    }
    let total = frames as f64 / encode.fps();
    Ok(Segments { list, peak: peak.ceil() as u64, average: (bytes as f64 * 8.0 / total.max(0.001)).ceil() as u64 })
}

/// The playlist of one rendition.
pub fn media(segments: &Segments, fractions: bool) -> Result<Vec<u8>, String> {
    let longest = segments.list.iter().map(|(_, s)| *s).fold(0.0, f64::max);
    let playlist = MediaPlaylist {
        version: Some(if fractions { 3 } else { 2 }),
        // Each EXTINF, rounded, must not exceed this (RFC 8216, 4.3.3.1).
        target_duration: longest.round().max(1.0) as u64,
        media_sequence: 1,
        playlist_type: Some(MediaPlaylistType::Vod),
        end_list: true,
        independent_segments: true,
        segments: segments
            .list
            .iter()
            .map(|(path, seconds)| MediaSegment {
                uri: file_name(path),
                duration: if fractions { *seconds as f32 } else { seconds.round().max(1.0) as f32 },
                ..MediaSegment::default()
            })
            .collect(),
        ..MediaPlaylist::default()
    };
    let mut text = Vec::new();
    playlist.write_to(&mut text).map_err(|e| e.to_string())?;
    Ok(text)
}

/// One line of the master playlist.
pub struct Variant<'a> {
    pub name: String,
    pub segments: &'a Segments,
    pub encode: &'a Encode,
    pub codecs: String,
    pub resolution: bool,
}

/// The master playlist.
pub fn master(variants: &[Variant]) -> Result<Vec<u8>, String> {
    let playlist = MasterPlaylist {
        version: Some(3),
        independent_segments: true,
        variants: variants
            .iter()
            .map(|v| VariantStream {
                uri: v.name.clone(),
                bandwidth: v.segments.peak.max(1),
                average_bandwidth: Some(v.segments.average.max(1)),
                codecs: Some(v.codecs.clone()),
                resolution: v.resolution.then_some(Resolution {
                    width: u64::from(v.encode.geometry.frame.0),
                    height: u64::from(v.encode.geometry.frame.1),
                }),
                frame_rate: Some((v.encode.fps() * 1000.0).round() / 1000.0),
                ..VariantStream::default()
            })
            .collect(),
        ..MasterPlaylist::default()
    };
    let mut text = Vec::new();
    playlist.write_to(&mut text).map_err(|e| e.to_string())?;
    Ok(text)
}

/// The last part of a path, as playlists name files beside them; reserved characters of URIs are escaped.
fn file_name(path: &Path) -> String {
    escaped(&path.file_name().unwrap_or_default().to_string_lossy())
}
