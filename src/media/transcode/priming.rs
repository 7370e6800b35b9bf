//! What an encoder of sound puts before the sound, written into the container so that players leave it out.
//!
//! An AAC encoder begins with a frame that only brings its filters up, and pads the last one. In MP4 and QuickTime the
//! edit list says which part of the track is to be heard (ISO/IEC 14496-12, 8.6.6; QuickTime File Format, appendix "Audio
//! Priming"). The muxer writes an edit list and does not know what to say in it; here its entry is corrected in place, so
//! no byte moves. MPEG-TS has no such thing: there the pictures come later by as much.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use crate::mp4::{u32_at, u64_at};

/// Samples that FFmpeg's AAC encoder puts before the sound (`initial_padding` in libavcodec/aacenc.c).
pub const AAC_FRAMES: u32 = 1024;

/// How long that lasts at so many samples a second, in nanoseconds.
pub fn ns(rate: u32) -> u64 {
    u64::from(AAC_FRAMES) * 1_000_000_000 / u64::from(rate.max(1))
}

/// Has players begin `frames` samples of `rate` a second into the sound of this file, and end after `seconds` of it.
pub fn write(path: &Path, (frames, rate): (u32, u32), seconds: f64) -> Result<(), Error> {
    let mut file = File::options().read(true).write(true).open(path)?;
    let at = moov_at(&mut file)?;
    let mut moov = vec![0; (at.end - at.start) as usize];
    file.seek(SeekFrom::Start(at.start))?;
    file.read_exact(&mut moov)?;
    correct(&mut moov, (frames, rate), seconds).ok_or_else(|| odd("its index has no edit list for the sound"))?;
    file.seek(SeekFrom::Start(at.start))?;
    file.write_all(&moov)
}

fn odd(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

/// The content of the `moov` box within the file.
fn moov_at(file: &mut File) -> Result<Range<u64>, Error> {
    let end = file.metadata()?.len();
    let mut at = 0;
    while at + 8 <= end {
        let mut head = [0u8; 16];
        file.seek(SeekFrom::Start(at))?;
        let wanted = (end - at).min(16) as usize;
        file.read_exact(&mut head[..wanted])?;
        let (header, size) = match u32_at(&head, 0) {
            0 => (8, end - at),
            1 => (16, u64_at(&head, 8)),
            n => (8, u64::from(n)),
        };
        if size < header || at + size > end {
            break;
        }
        if &head[4..8] == b"moov" {
            return Ok(at + header..at + size);
        }
        at += size;
    }
    Err(odd("it has no index"))
}

/// The boxes within a stretch of bytes: type, and where their content lies.
fn boxes(bytes: &[u8], within: Range<usize>) -> Vec<([u8; 4], Range<usize>)> {
    let (mut found, mut at) = (Vec::new(), within.start);
    while at + 8 <= within.end {
        let size = u32_at(bytes, at) as usize;
        if size < 8 || at + size > within.end {
            break;
        }
        found.push(([bytes[at + 4], bytes[at + 5], bytes[at + 6], bytes[at + 7]], at + 8..at + size));
        at += size;
    }
    found
}

fn inner(bytes: &[u8], within: Range<usize>, path: &[&[u8; 4]]) -> Option<Range<usize>> {
    path.iter().try_fold(within, |within, kind| {
        boxes(bytes, within).into_iter().find(|(own, _)| own == *kind).map(|(_, range)| range)
    })
}

fn correct(moov: &mut [u8], (frames, rate): (u32, u32), seconds: f64) -> Option<()> {
    let all = 0..moov.len();
    let mvhd = inner(moov, all.clone(), &[b"mvhd"])?;
    let movie_scale = time_field(moov, &mvhd, (12, 20)).filter(|scale| *scale > 0)?;
    let traks = || boxes(moov, all.clone()).into_iter().filter(|(kind, _)| kind == b"trak").map(|(_, range)| range);
    let is_sound = |trak: &Range<usize>| {
        let hdlr = inner(moov, trak.clone(), &[b"mdia", b"hdlr"]);
        hdlr.is_some_and(|hdlr| moov.get(hdlr.start + 8..hdlr.start + 12) == Some(b"soun"))
    };
    let trak = traks().find(is_sound)?;
    let tracks: Vec<Range<usize>> = traks().filter_map(|trak| inner(moov, trak, &[b"tkhd"])).collect();
    let mdhd = inner(moov, trak.clone(), &[b"mdia", b"mdhd"])?;
    let media_scale = time_field(moov, &mdhd, (12, 20))?;
    let tkhd = inner(moov, trak.clone(), &[b"tkhd"])?;
    let elst = inner(moov, trak, &[b"edts", b"elst"])?;
    let wide = moov.get(elst.start) == Some(&1);
    let (entry, count) = (if wide { 20 } else { 12 }, u32_at(moov, elst.start + 4) as usize);
    let last = elst.start + 8 + count.checked_sub(1)? * entry;
    if last + entry > elst.end {
        return None;
    }
    let skipped = u64::from(frames) * u64::from(media_scale) / u64::from(rate.max(1));
    let heard = (seconds * f64::from(movie_scale)).round() as u64;
    if wide {
        let begin = u64_at(moov, last + 8).checked_add(skipped)?;
        put(moov, last, &heard.to_be_bytes())?;
        put(moov, last + 8, &begin.to_be_bytes())?;
    } else {
        let begin = u32_at(moov, last + 4).checked_add(u32::try_from(skipped).ok()?)?;
        put(moov, last, &u32::try_from(heard).ok()?.to_be_bytes())?;
        put(moov, last + 4, &begin.to_be_bytes())?;
    }
    let lead: u64 = (0..count - 1)
        .map(|i| elst.start + 8 + i * entry)
        .map(|at| if wide { u64_at(moov, at) } else { u64::from(u32_at(moov, at)) })
        .sum();
    set_duration(moov, &tkhd, (20, 28), lead + heard)?;
    let longest = tracks.iter().map(|tkhd| duration(moov, tkhd, (20, 28))).max()?;
    set_duration(moov, &mvhd, (16, 24), longest)
}

/// A field of 32 bits whose place depends on whether times in the box are of 32 or 64 bits.
fn time_field(bytes: &[u8], within: &Range<usize>, (narrow, wide): (usize, usize)) -> Option<u32> {
    let at = if bytes.get(within.start) == Some(&1) { wide } else { narrow };
    (within.start + at + 4 <= within.end).then(|| u32_at(bytes, within.start + at))
}

fn duration(bytes: &[u8], within: &Range<usize>, (narrow, wide): (usize, usize)) -> u64 {
    match bytes.get(within.start) {
        Some(1) => u64_at(bytes, within.start + wide),
        _ => u64::from(u32_at(bytes, within.start + narrow)),
    }
}

fn set_duration(bytes: &mut [u8], within: &Range<usize>, (narrow, wide): (usize, usize), ticks: u64) -> Option<()> {
    match bytes.get(within.start) {
        Some(1) => put(bytes, within.start + wide, &ticks.to_be_bytes()),
        _ => put(bytes, within.start + narrow, &u32::try_from(ticks).ok()?.to_be_bytes()),
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) -> Option<()> {
    bytes.get_mut(at..at + value.len())?.copy_from_slice(value);
    Some(())
}
