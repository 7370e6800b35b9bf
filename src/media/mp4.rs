//! The index of an MP4 or QuickTime file: what it claims, and whether the bytes it claims are there.
//!
//! Reads top-level box headers, then `moov` (and `moof`) into memory, never `mdat`. Every length comes from
//! outside and is checked before it is used.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use conveyor_base::TaskError;

use super::container::truncated;
use super::input::Input;

/// A `moov` larger than this is not read: 12 hours at 60 fps with every table in full stay well below.
const INDEX_BYTES_MAX: u64 = 256 << 20;

/// What the index claims.
#[derive(Clone, Debug, Default)]
pub struct Mp4 {
    pub brand: String,
    pub tracks: Vec<Track>,
    pub fragmented: bool,
    /// The index lies before the media, so that playback can start while the file still loads.
    pub faststart: bool,
    /// Pictures or sound lie in another file, which this one only names.
    elsewhere: bool,
}

/// One track of the index.
#[derive(Clone, Debug, Default)]
pub struct Track {
    pub id: u32,
    /// `vide`, `soun`, `tmcd`, `text`, `sbtl`, `subt`, `clcp` ...
    pub handler: String,
    /// Sample description, such as `avc1`.
    pub format: String,
    pub language: Option<String>,
    pub timescale: u32,
    pub samples: u64,
    /// Sum of the sample durations, in the timescale.
    pub ticks: u64,
    /// The most frequent sample duration, in the timescale.
    pub common_delta: u32,
    /// Share of the samples whose duration is not the common one.
    pub uncommon: f64,
    /// What the edit list presents, in seconds.
    pub presented_seconds: Option<f64>,
    /// First byte behind the last sample.
    pub data_end: u64,
    /// `hh:mm:ss:ff` of a timecode track.
    pub timecode: Option<String>,
    timecode_entry: Option<(u64, u32, u8, bool)>,
}

impl Track {
    pub fn seconds(&self) -> f64 {
        if self.timescale == 0 { 0.0 } else { self.ticks as f64 / f64::from(self.timescale) }
    }

    /// Frames that a decoder should show: those inside the edit list.
    pub fn presented_samples(&self) -> u64 {
        match self.presented_seconds {
            Some(shown) if self.seconds() > 0.0 && shown < self.seconds() => {
                (self.samples as f64 * shown / self.seconds()).floor() as u64
            }
            _ => self.samples,
        }
    }
}

/// Reads the index and verifies that the file holds what it lists.
pub fn read(input: &Input) -> Result<Mp4, TaskError> {
    let mut file = File::open(&input.path).map_err(|e| input.io_error(&e))?;
    let mut mp4 = Mp4::default();
    let (mut at, mut moov_at, mut mdat_at) = (0u64, None, None);
    while at + 8 <= input.size {
        let Some((kind, header, size)) = box_header(&mut file, at, input.size).map_err(|e| input.io_error(&e))? else {
            // Trailing rubbish behind a complete file is common (padding of tapes and cameras).
            if moov_at.is_some() && (mdat_at.is_some() || mp4.fragmented) {
                break;
            }
            return Err(truncated(input, format!("byte {at} should begin a box and does not")));
        };
        if at + size > input.size {
            let name = String::from_utf8_lossy(&kind).into_owned();
            return Err(truncated(input, format!("its '{name}' box should reach to byte {}", at + size)));
        }
        match &kind {
            b"ftyp" => {
                let body = body(&mut file, at + header, (size - header).min(64)).map_err(|e| input.io_error(&e))?;
                mp4.brand = String::from_utf8_lossy(body.get(..4).unwrap_or_default()).trim().to_owned();
            }
            b"mdat" => mdat_at = mdat_at.or(Some(at)),
            b"moov" | b"moof" if size > INDEX_BYTES_MAX => {
                return Err(
                    input.error("Media.Corrupt", format!("has an index of {size} bytes, which cannot be right"))
                );
            }
            b"moov" => {
                moov_at = Some(at);
                let body = body(&mut file, at + header, size - header).map_err(|e| input.io_error(&e))?;
                read_moov(&body, &mut mp4);
                if mp4.elsewhere {
                    return Err(input.error(
                        "Media.NotMedia",
                        "is a QuickTime reference movie: its media lie in another file, which it only names; export a self-contained one",
                    ));
                }
            }
            b"moof" => {
                mp4.fragmented = true;
                let body = body(&mut file, at + header, size - header).map_err(|e| input.io_error(&e))?;
                read_moof(&body, &mut mp4);
            }
            _ => {}
        }
        at += size;
    }
    if moov_at.is_none() {
        return Err(truncated(input, "its index (the 'moov' box, which recorders write last) is missing"));
    }
    mp4.faststart = moov_at < mdat_at;
    let end = mp4.tracks.iter().map(|t| t.data_end).max().unwrap_or(0);
    if end > input.size {
        return Err(truncated(input, format!("its index lists media up to byte {end}")));
    }
    if mdat_at.is_none() && mp4.tracks.iter().any(|t| t.samples > 0) {
        return Err(truncated(input, "it has an index and no media ('mdat' is missing)"));
    }
    for track in &mut mp4.tracks {
        if let Some((offset, rate, frames, drop)) = track.timecode_entry {
            let bytes = input.read_at(offset, 4)?;
            let count = bytes.try_into().map_or(0, u32::from_be_bytes);
            track.timecode = Some(timecode(count, u32::from(frames).max(1), drop && rate > 0));
        }
    }
    Ok(mp4)
}

/// Type, header length and whole length of the box at `at`; none where no box begins.
fn box_header(file: &mut File, at: u64, file_size: u64) -> io::Result<Option<([u8; 4], u64, u64)>> {
    file.seek(SeekFrom::Start(at))?;
    let mut head = [0u8; 16];
    let wanted = (file_size - at).min(16) as usize;
    file.read_exact(&mut head[..wanted])?;
    let kind = [head[4], head[5], head[6], head[7]];
    let printable = kind.iter().all(|b| b.is_ascii_graphic() || *b == b' ' || *b == 0xa9);
    let (header, size) = match u32_at(&head, 0) {
        0 => (8, file_size - at),
        1 if wanted == 16 => (16, u64_at(&head, 8)),
        n => (8, u64::from(n)),
    };
    Ok((printable && size >= header).then_some((kind, header, size)))
}

fn body(file: &mut File, at: u64, length: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = vec![0; length as usize];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The boxes within a box: type and content.
pub(crate) fn children(mut bytes: &[u8]) -> Vec<([u8; 4], &[u8])> {
    let mut found = Vec::new();
    while bytes.len() >= 8 {
        let size = match u32_at(bytes, 0) as usize {
            0 => bytes.len(),
            n if n < 8 || n > bytes.len() => break,
            n => n,
        };
        found.push(([bytes[4], bytes[5], bytes[6], bytes[7]], &bytes[8..size]));
        bytes = &bytes[size..];
    }
    found
}

pub(crate) fn child<'a>(bytes: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    children(bytes).into_iter().find(|(k, _)| k == kind).map(|(_, b)| b)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes)
}

fn read_moov(moov: &[u8], mp4: &mut Mp4) {
    let movie_scale = child(moov, b"mvhd").map_or(0, |b| u32_at(b, if b.first() == Some(&1) { 20 } else { 12 }));
    mp4.fragmented |= child(moov, b"mvex").is_some();
    // A list of other movies, of which a player picks one (QuickTime File Format, "Reference Movies").
    mp4.elsewhere |= child(moov, b"rmra").is_some();
    for (kind, trak) in children(moov) {
        if &kind == b"trak"
            && let Some(track) = read_track(trak, movie_scale)
        {
            mp4.elsewhere |= matches!(track.handler.as_str(), "vide" | "soun") && is_elsewhere(trak);
            mp4.tracks.push(track);
        }
    }
}

fn read_track(trak: &[u8], movie_scale: u32) -> Option<Track> {
    let mut track = Track::default();
    let tkhd = child(trak, b"tkhd")?;
    track.id = u32_at(tkhd, if tkhd.first() == Some(&1) { 20 } else { 12 });
    let mdia = child(trak, b"mdia")?;
    let mdhd = child(mdia, b"mdhd")?;
    let wide = mdhd.first() == Some(&1);
    track.timescale = u32_at(mdhd, if wide { 20 } else { 12 });
    track.language = language(u32_at(mdhd, if wide { 32 } else { 20 }) >> 16);
    track.handler = String::from_utf8_lossy(child(mdia, b"hdlr")?.get(8..12)?).into_owned();
    if let Some(elst) = child(trak, b"edts").and_then(|e| child(e, b"elst")) {
        track.presented_seconds = presented(elst, movie_scale);
    }
    let stbl = child(child(mdia, b"minf")?, b"stbl")?;
    if let Some(stsd) = child(stbl, b"stsd") {
        track.format = String::from_utf8_lossy(stsd.get(12..16).unwrap_or_default()).into_owned();
    }
    read_durations(child(stbl, b"stts").unwrap_or_default(), &mut track);
    read_extent(stbl, &mut track);
    if track.handler == "tmcd" {
        track.timecode_entry = timecode_entry(stbl);
    }
    Some(track)
}

/// Whether a track's samples lie in another file: an entry of its data references without the flag "self-contained" that
/// names something (ISO/IEC 14496-12, 8.7.2).
fn is_elsewhere(trak: &[u8]) -> bool {
    let path = [b"mdia", b"minf", b"dinf", b"dref"];
    let dref = path.into_iter().try_fold(trak, |within, kind| child(within, kind));
    let entries = dref.and_then(|dref| dref.get(8..)).unwrap_or_default();
    children(entries).into_iter().any(|(_, entry)| entry.len() > 4 && u32_at(entry, 0) & 1 == 0)
}

/// Three letters packed into 15 bits; Macintosh codes and "undetermined" are none.
fn language(packed: u32) -> Option<String> {
    let letters: String = [10, 5, 0].iter().map(|s| char::from((packed >> s & 0x1f) as u8 + 0x60)).collect();
    (packed >= 0x400 && letters != "und" && letters.chars().all(|c| c.is_ascii_lowercase())).then_some(letters)
}

fn presented(elst: &[u8], movie_scale: u32) -> Option<f64> {
    let wide = elst.first() == Some(&1);
    let entry = if wide { 20 } else { 12 };
    let count = (u32_at(elst, 4) as usize).min(elst.len() / entry);
    let mut total = 0u64;
    for i in 0..count {
        let at = 8 + i * entry;
        let (length, start) = if wide {
            (u64_at(elst, at), u64_at(elst, at + 8) as i64)
        } else {
            (u64::from(u32_at(elst, at)), i64::from(u32_at(elst, at + 4) as i32))
        };
        // An empty edit (start -1) shows nothing of the media; a length of zero means "all the rest".
        if start >= 0 {
            if length == 0 {
                return None;
            }
            total = total.saturating_add(length);
        }
    }
    (count > 0 && movie_scale > 0).then(|| total as f64 / f64::from(movie_scale))
}

fn read_durations(stts: &[u8], track: &mut Track) {
    let count = (u32_at(stts, 4) as usize).min(stts.len() / 8);
    let mut best = 0u64;
    let mut by_delta = std::collections::BTreeMap::<u32, u64>::new();
    let mut last = 0;
    for i in 0..count {
        let (n, delta) = (u64::from(u32_at(stts, 8 + i * 8)), u32_at(stts, 12 + i * 8));
        track.ticks = track.ticks.saturating_add(n.saturating_mul(u64::from(delta)));
        *by_delta.entry(delta).or_default() += n;
        last = delta;
    }
    // The last sample's duration is often arbitrary and says nothing about the rate.
    if by_delta.len() > 1 && by_delta.get(&last) == Some(&1) {
        by_delta.remove(&last);
    }
    let total: u64 = by_delta.values().sum();
    for (&delta, &n) in &by_delta {
        if n > best {
            (best, track.common_delta) = (n, delta);
        }
    }
    let slack = |a: u32, b: u32| a.abs_diff(b) <= 1 + b / 200;
    let common = track.common_delta;
    let near: u64 = by_delta.iter().filter(|(d, _)| slack(**d, common)).map(|(_, n)| n).sum();
    track.uncommon = if total == 0 { 0.0 } else { 1.0 - near as f64 / total as f64 };
}

/// Number of samples, and where the last of them ends.
fn read_extent(stbl: &[u8], track: &mut Track) {
    let stsz = child(stbl, b"stsz").unwrap_or_default();
    let (fixed, count) = (u32_at(stsz, 4), u64::from(u32_at(stsz, 8)));
    let listed = if fixed == 0 { count.min(stsz.len() as u64 / 4) } else { count };
    track.samples = listed;
    // Sound with a fixed size counts in PCM frames whose size `stsz` does not tell; chunk starts must do.
    let size_of =
        |sample: u64| if fixed != 0 { u64::from(fixed) } else { u64::from(u32_at(stsz, 12 + sample as usize * 4)) };
    let offsets: Vec<u64> = if let Some(stco) = child(stbl, b"stco") {
        (0..(u32_at(stco, 4) as usize).min(stco.len() / 4)).map(|i| u64::from(u32_at(stco, 8 + i * 4))).collect()
    } else if let Some(co64) = child(stbl, b"co64") {
        (0..(u32_at(co64, 4) as usize).min(co64.len() / 8)).map(|i| u64_at(co64, 8 + i * 8)).collect()
    } else {
        return;
    };
    let stsc = child(stbl, b"stsc").unwrap_or_default();
    let runs = (u32_at(stsc, 4) as usize).min(stsc.len() / 12);
    let (mut run, mut sample) = (0, 0u64);
    for (chunk, &offset) in offsets.iter().enumerate() {
        while run + 1 < runs && u32_at(stsc, 8 + (run + 1) * 12) as usize <= chunk + 1 {
            run += 1;
        }
        let samples = u64::from(u32_at(stsc, 12 + run * 12)).min(listed.saturating_sub(sample));
        let length: u64 =
            if fixed != 0 { samples * u64::from(fixed) } else { (sample..sample + samples).map(size_of).sum() };
        sample += samples;
        track.data_end = track.data_end.max(offset.saturating_add(length));
    }
}

/// Where the first timecode sample lies, its rate, frames a second, and whether it drops frames.
fn timecode_entry(stbl: &[u8]) -> Option<(u64, u32, u8, bool)> {
    let entry = child(stbl, b"stsd")?.get(8..)?;
    // Size, type, 6 reserved, reference; then reserved, flags, timescale, frame duration, frames a second.
    let (flags, scale, frames) = (u32_at(entry, 20), u32_at(entry, 24), *entry.get(32)?);
    let offset =
        child(stbl, b"stco").map(|b| u64::from(u32_at(b, 8))).or_else(|| child(stbl, b"co64").map(|b| u64_at(b, 8)))?;
    Some((offset, scale, frames, flags & 1 != 0))
}

/// A frame count as `hh:mm:ss:ff` (`;` before the frames where two or four numbers a minute are dropped).
fn timecode(count: u32, rate: u32, drop: bool) -> String {
    let mut n = u64::from(count);
    let rate = u64::from(rate);
    if drop {
        let dropped = rate / 15;
        let (ten, minute) = (rate * 600 - dropped * 9, rate * 60 - dropped);
        let (tens, rest) = (n / ten, n % ten);
        n += dropped * 9 * tens;
        if rest >= rate * 60 {
            n += dropped * ((rest - rate * 60) / minute + 1);
        }
    }
    let (ff, s) = (n % rate, n / rate);
    format!("{:02}:{:02}:{:02}{}{ff:02}", s / 3600 % 24, s / 60 % 60, s % 60, if drop { ';' } else { ':' })
}

fn read_moof(moof: &[u8], mp4: &mut Mp4) {
    for (kind, traf) in children(moof) {
        if &kind != b"traf" {
            continue;
        }
        let tfhd = child(traf, b"tfhd").unwrap_or_default();
        let id = u32_at(tfhd, 4);
        let flags = u32_at(tfhd, 0);
        let mut at = 8;
        at += if flags & 0x1 != 0 { 8 } else { 0 };
        at += if flags & 0x2 != 0 { 4 } else { 0 };
        let default = if flags & 0x8 != 0 { u32_at(tfhd, at) } else { 0 };
        let Some(track) = mp4.tracks.iter_mut().find(|t| t.id == id) else { continue };
        for (_, trun) in children(traf).into_iter().filter(|(k, _)| k == b"trun") {
            read_run(trun, default, track);
        }
    }
}

fn read_run(trun: &[u8], default_duration: u32, track: &mut Track) {
    let flags = u32_at(trun, 0);
    let count = u64::from(u32_at(trun, 4)).min(trun.len() as u64);
    track.samples += count;
    if flags & 0x100 == 0 {
        track.ticks += count * u64::from(default_duration);
        if default_duration > 0 {
            track.common_delta = default_duration;
        }
        return;
    }
    let width = 4 * (flags >> 8 & 0xf).count_ones() as usize;
    let start = 8 + if flags & 0x1 != 0 { 4 } else { 0 } + if flags & 0x4 != 0 { 4 } else { 0 };
    for i in 0..count as usize {
        let delta = u32_at(trun, start + i * width);
        track.ticks += u64::from(delta);
        track.common_delta = if track.common_delta == 0 { delta } else { track.common_delta };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timecodes_count_dropped_numbers() {
        assert_eq!(timecode(0, 25, false), "00:00:00:00");
        assert_eq!(timecode(90_000, 25, false), "01:00:00:00");
        assert_eq!(timecode(1_800, 30, true), "00:01:00;02");
        assert_eq!(timecode(17_982, 30, true), "00:10:00;00");
    }

    #[test]
    fn a_track_whose_samples_lie_elsewhere_is_told_by_its_reference() {
        let boxed =
            |kind: &[u8; 4], body: &[u8]| [&(body.len() as u32 + 8).to_be_bytes(), kind.as_slice(), body].concat();
        let track = |entry: &[u8]| {
            let dref = boxed(b"dref", &[&[0, 0, 0, 0, 0, 0, 0, 1], entry].concat());
            boxed(b"mdia", &boxed(b"minf", &boxed(b"dinf", &dref)))
        };
        assert!(!is_elsewhere(&track(&boxed(b"url ", &[0, 0, 0, 1]))));
        assert!(is_elsewhere(&track(&boxed(b"url ", b"\0\0\0\0http://127.0.0.1/film.mov"))));
        assert!(!is_elsewhere(&[]));
    }

    #[test]
    fn languages_unpack() {
        assert_eq!(language(0x15c7), Some("eng".into()));
        assert_eq!(language(0x55c4), None);
    }
}
