//! HLS playlists against the rules of RFC 8216, and the files that they name.

use std::path::PathBuf;

use conveyor_base::escape::unescaped;
use conveyor_base::{TaskError, Uri};
use conveyor_job::Job;
use m3u8_rs::{MasterPlaylist, MediaPlaylist, MediaPlaylistType, Playlist};

use crate::input::{self, Input};

use super::segment::{self, Init, Opening};

/// How far apart the pictures of two renditions may begin at a cut: less than half of the shortest usual picture.
const APART_SECONDS_MAX: f64 = 0.008;

/// A rule that was broken.
#[derive(Clone, Debug)]
pub struct Breach {
    /// Whether players fail, or merely may.
    pub critical: bool,
    pub message: String,
}

/// One media playlist with its files.
pub struct Rendition {
    pub uri: Uri,
    pub input: Input,
    /// Initialisation section, if any, then the segments.
    pub parts: Vec<PathBuf>,
    pub seconds: Vec<f64>,
    /// Whether the parts are MPEG-TS or fragmented MP4.
    pub init: bool,
    pub breaches: Vec<Breach>,
    /// How each segment begins, where it could be told and has pictures.
    pub openings: Vec<Result<Option<Opening>, String>>,
    /// Segments in front of which the clock may jump.
    jumps: Vec<bool>,
    /// The lengths are rounded to whole seconds.
    rounded: bool,
    /// As the master playlist has it.
    pub bandwidth: Option<u64>,
    pub size: Option<(u64, u64)>,
    /// Sound that lies in a playlist of its own.
    pub audio_group: Option<String>,
    pub audio_only: bool,
}

/// What a playlist's URI leads to.
pub struct Hls {
    pub renditions: Vec<Rendition>,
    pub breaches: Vec<Breach>,
    /// Where renditions are cut at different places.
    pub misaligned: Vec<String>,
}

/// Reads a master playlist with all it names, or a single media playlist.
pub fn read(job: &Job, uri: &Uri) -> Result<Hls, TaskError> {
    let (input, text) = text_of(job, uri)?;
    let mut hls = Hls { renditions: Vec::new(), breaches: general(&text), misaligned: Vec::new() };
    match m3u8_rs::parse_playlist_res(text.as_bytes()) {
        Ok(Playlist::MasterPlaylist(master)) => master_playlist(job, uri, &master, &mut hls)?,
        Ok(Playlist::MediaPlaylist(media)) => hls.renditions.push(rendition(job, uri.clone(), input, &text, &media)?),
        Err(_) => return Err(input.error("Media.InvalidPlaylist", "is no HLS playlist; run the transcode again")),
    }
    for rendition in hls.renditions.iter_mut().filter(|r| !r.audio_only) {
        rendition.open_segments();
    }
    aligned(&mut hls);
    Ok(hls)
}

fn text_of(job: &Job, uri: &Uri) -> Result<(Input, String), TaskError> {
    let input = Input::open(job, &uri.to_string())?;
    if input.size > 32 << 20 {
        return Err(input.error("Media.InvalidPlaylist", "is larger than any playlist"));
    }
    let text = std::fs::read(&input.path).map_err(|e| input.io_error(&e))?;
    Ok((input, String::from_utf8_lossy(&text).into_owned()))
}

fn general(text: &str) -> Vec<Breach> {
    let mut breaches = Vec::new();
    if text.lines().next().map(str::trim_end) != Some("#EXTM3U") {
        breaches.push(breach(true, "the first line is not #EXTM3U (RFC 8216, 4.3.1.1)"));
    }
    if text.lines().filter(|l| l.starts_with("#EXT-X-VERSION:")).count() > 1 {
        breaches.push(breach(true, "EXT-X-VERSION stands more than once (4.3.1.2)"));
    }
    breaches
}

fn master_playlist(job: &Job, uri: &Uri, master: &MasterPlaylist, hls: &mut Hls) -> Result<(), TaskError> {
    let variants: Vec<_> = master.variants.iter().filter(|v| !v.is_i_frame).collect();
    if variants.is_empty() {
        hls.breaches.push(breach(true, "the master playlist names no variant"));
    }
    for variant in &variants {
        let mut one = media_playlist(job, sibling(uri, &variant.uri))?;
        one.bandwidth = Some(variant.bandwidth);
        one.size = variant.resolution.map(|r| (r.width, r.height));
        one.audio_group = variant.audio.clone();
        if variant.codecs.is_none() {
            one.breaches.push(breach(false, "the master playlist gives no CODECS for it (4.3.4.2 asks for it)"));
        }
        hls.renditions.push(one);
    }
    for media in master.alternatives.iter().filter(|m| m.media_type == m3u8_rs::AlternativeMediaType::Audio) {
        let Some(name) = &media.uri else { continue };
        let mut one = media_playlist(job, sibling(uri, name))?;
        one.audio_only = true;
        one.audio_group = Some(media.group_id.clone());
        hls.renditions.push(one);
    }
    for (number, variant) in variants.iter().enumerate() {
        let group_missing =
            variant.audio.as_ref().is_some_and(|g| !master.alternatives.iter().any(|m| m.group_id == *g));
        if group_missing {
            hls.breaches.push(breach(true, &format!("variant {} uses an AUDIO group that is not defined", number + 1)));
        }
        if variants[..number].iter().any(|v| v.uri == variant.uri) {
            hls.breaches
                .push(breach(false, &format!("variant {} names the same playlist as an earlier one", number + 1)));
        }
    }
    Ok(())
}

fn media_playlist(job: &Job, uri: Uri) -> Result<Rendition, TaskError> {
    let (input, text) = text_of(job, &uri)?;
    match m3u8_rs::parse_media_playlist_res(text.as_bytes()) {
        Ok(media) => rendition(job, uri, input, &text, &media),
        Err(_) => Err(input.error("Media.InvalidPlaylist", "is no HLS media playlist; run the transcode again")),
    }
}

fn rendition(job: &Job, uri: Uri, input: Input, text: &str, media: &MediaPlaylist) -> Result<Rendition, TaskError> {
    let mut breaches = general(text);
    let mut say = |critical, message: &str| breaches.push(breach(critical, message));
    if !text.contains("#EXT-X-TARGETDURATION:") {
        say(true, "EXT-X-TARGETDURATION is missing (4.3.3.1)");
    }
    if !media.end_list {
        say(true, "EXT-X-ENDLIST is missing: players take it for a live stream (4.3.3.4)");
    }
    if media.playlist_type != Some(MediaPlaylistType::Vod) {
        say(false, "EXT-X-PLAYLIST-TYPE is not VOD (4.3.3.5)");
    }
    let fractional = text.lines().filter(|l| l.starts_with("#EXTINF:")).any(|l| l.contains('.'));
    let map = media.segments.iter().find_map(|s| s.map.as_ref());
    let needed = if map.is_some() {
        6
    } else if fractional {
        3
    } else {
        1
    };
    if media.version.unwrap_or(1) < needed {
        say(true, &format!("EXT-X-VERSION must be at least {needed} for what it uses (section 7)"));
    }
    if media.segments.is_empty() {
        say(true, "it has no segments");
    }
    let mut parts = Vec::new();
    if let Some(map) = map {
        existing(job, &sibling(&uri, &map.uri), "initialisation section", &mut parts, &mut say);
    }
    let (mut seconds, mut jumps, mut missing) = (Vec::new(), Vec::new(), 0);
    let mut sealed = false;
    for (number, segment) in media.segments.iter().enumerate() {
        let length = f64::from(segment.duration);
        if length.round() > media.target_duration as f64 {
            say(
                true,
                &format!(
                    "segment {} lasts {length:.3} s, more than EXT-X-TARGETDURATION {} (4.3.3.1)",
                    number + 1,
                    media.target_duration
                ),
            );
        }
        if segment.byte_range.is_some() {
            say(false, &format!("segment {} is a byte range, which is not looked into", number + 1));
        }
        sealed |= segment.key.as_ref().is_some_and(|k| k.method != m3u8_rs::KeyMethod::None);
        seconds.push(length);
        jumps.push(segment.discontinuity);
        // One message for the first few: a lost share would give thousands.
        if missing < 3 {
            let before = parts.len();
            existing(job, &sibling(&uri, &segment.uri), &format!("segment {}", number + 1), &mut parts, &mut say);
            missing += usize::from(parts.len() == before);
        }
    }
    if sealed {
        say(false, "its segments are encrypted, and are not looked into");
    }
    // What is no file of its own, or cannot be read, is not opened.
    let plain = !sealed && !media.segments.iter().any(|s| s.byte_range.is_some());
    Ok(Rendition {
        openings: Vec::new(),
        jumps: if plain { jumps } else { Vec::new() },
        rounded: !fractional,
        uri,
        input,
        parts,
        seconds,
        init: map.is_some(),
        breaches,
        bandwidth: None,
        size: None,
        audio_group: None,
        audio_only: false,
    })
}

fn existing(job: &Job, uri: &Uri, what: &str, parts: &mut Vec<PathBuf>, say: &mut impl FnMut(bool, &str)) {
    match input::resolve(job, uri).map(|path| (std::fs::metadata(&path).map(|m| m.len()), path)) {
        Ok((Ok(0), _)) => say(true, &format!("{what} '{uri}' is empty")),
        Ok((Ok(_), path)) => parts.push(path),
        Ok((Err(e), _)) => say(true, &format!("{what} '{uri}' cannot be read: {e}")),
        Err(e) => say(true, &format!("{what}: {}", e.cause)),
    }
}

impl Rendition {
    /// Reads how each segment begins.
    fn open_segments(&mut self) {
        if self.jumps.is_empty() || self.parts.len() != self.seconds.len() + usize::from(self.init) {
            return;
        }
        let init = match self.init.then(|| Init::read(&self.parts[0])).transpose() {
            Ok(init) => init,
            Err(what) => return self.breaches.push(breach(true, &what)),
        };
        // An initialisation section without a video track: sound alone.
        if matches!(init, Some(None)) {
            return;
        }
        let init = init.flatten();
        let segments = &self.parts[usize::from(self.init)..];
        self.openings = segments.iter().map(|path| segment::opening(path, init.as_ref())).collect();
    }

    /// Segments that a player cannot start at, with the reason.
    pub fn without_keyframe(&self) -> Vec<String> {
        let why = |opening: &Result<Option<Opening>, String>| match opening {
            Ok(Some(o)) if !o.keyframe => Some("its first picture is no keyframe that can be decoded by itself".into()),
            Err(what) => Some(what.clone()),
            _ => None,
        };
        let found = self.openings.iter().enumerate();
        found.filter_map(|(i, o)| Some(format!("segment {}: {}", i + 1, why(o)?))).collect()
    }

    /// Segments whose pictures last another time than the playlist says.
    pub fn wrong_lengths(&self) -> Vec<String> {
        let slack = if self.rounded { 0.6 } else { 0.1 };
        let times: Vec<_> = self.starts().map(|(_, at)| at).collect();
        let lasting = times.windows(2).enumerate().filter(|(i, _)| !self.jumps[i + 1]);
        // The first one may begin with sound alone, which lasts as well.
        let opened = self.openings.first().and_then(|o| o.as_ref().ok().copied().flatten());
        let lead = opened.map_or(0.0, |o| o.lead);
        let off = |i: usize, is: f64| match i {
            0 => (is - self.seconds[0]).abs().min((is + lead - self.seconds[0]).abs()),
            _ => (is - self.seconds[i]).abs(),
        };
        lasting
            .filter_map(|(i, pair)| Some((i, pair[1]? - pair[0]?)))
            .filter(|(i, is)| off(*i, *is) > slack)
            .map(|(i, is)| format!("segment {} lasts {is:.3} s, and its EXTINF says {:.3}", i + 1, self.seconds[i]))
            .collect()
    }

    /// Number of each segment, from 1, and when it begins counted from the first.
    fn starts(&self) -> impl Iterator<Item = (usize, Option<f64>)> {
        let opened = |o: &Result<Option<Opening>, String>| o.as_ref().ok().copied().flatten();
        let first = self.openings.first().and_then(opened).and_then(|o| o.at);
        let mut jumped = false;
        self.openings.iter().zip(&self.jumps).enumerate().map(move |(i, (o, jump))| {
            jumped |= *jump && i > 0;
            let since = opened(o).filter(|_| !jumped).and_then(|o| {
                let since = o.at? - first?;
                Some(if since < -1.0 { since + o.wraps_after } else { since })
            });
            (i + 1, since)
        })
    }

    pub fn total_seconds(&self) -> f64 {
        self.seconds.iter().sum()
    }

    /// Bits a second of its segments: mean, and the fullest segment that is not a mere remainder.
    pub fn bitrates(&self) -> (f64, f64) {
        let segments = &self.parts[usize::from(self.init).min(self.parts.len())..];
        let longest = self.seconds.iter().copied().fold(0.0, f64::max);
        let (mut bits, mut peak) = (0.0, 0.0f64);
        for (path, &seconds) in segments.iter().zip(&self.seconds) {
            let size = std::fs::metadata(path).map_or(0, |m| m.len()) as f64 * 8.0;
            bits += size;
            if seconds >= longest / 2.0 {
                peak = peak.max(size / seconds.max(0.001));
            }
        }
        (bits / self.total_seconds().max(0.001), peak)
    }
}

/// Renditions of one presentation are cut at the same places (6.2.4): by their playlists, and by their pictures.
fn aligned(hls: &mut Hls) {
    let mut videos = hls.renditions.iter().filter(|r| !r.audio_only);
    let Some(first) = videos.next() else { return };
    for other in videos {
        let same = other.seconds.len() == first.seconds.len()
            && other.seconds.iter().zip(&first.seconds).all(|(a, b)| (a - b).abs() < 0.05);
        if !same {
            hls.misaligned.push(format!("'{}' is cut at other places than '{}' (6.2.4)", other.uri, first.uri));
            continue;
        }
        let mut apart = first.starts().zip(other.starts()).filter_map(|((n, a), (_, b))| Some((n, (a? - b?).abs())));
        if let Some((number, seconds)) = apart.find(|(_, s)| *s > APART_SECONDS_MAX) {
            hls.misaligned.push(format!(
                "segment {number} of '{}' begins {seconds:.3} s apart from that of '{}': players that change over repeat or skip pictures",
                other.uri, first.uri
            ));
        }
    }
}

fn breach(critical: bool, message: &str) -> Breach {
    Breach { critical, message: message.to_owned() }
}

/// A relative reference beside a playlist.
fn sibling(playlist: &Uri, name: &str) -> Uri {
    if let Ok(uri) = name.parse() {
        return uri;
    }
    let folder = &playlist.key[..playlist.key.len() - playlist.file_name().len()];
    Uri::new(playlist.share.clone(), format!("{folder}{}", unescaped(name)))
}
