//! How an HLS segment begins: with a keyframe or not, and at what time. Read from the segment itself, MPEG-TS or
//! fragmented MP4, not from what a playlist says.
//!
//! Reads the first pictures' headers and no more: nothing is decoded. Every length comes from outside and is checked.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::mp4::{child, children, u32_at, u64_at};

/// How much of a segment may lie before its first picture's first slice.
const HEAD_BYTES_MAX: usize = 2 << 20;
const PACKET: usize = 188;

/// The first picture of a segment, in the order of decoding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Opening {
    /// A decoder can start with it.
    pub keyframe: bool,
    /// Its time of showing, in seconds on the stream's own clock.
    pub at: Option<f64>,
    /// Seconds by which sound before it comes earlier.
    pub lead: f64,
    /// After how many seconds that clock starts again; 0 for never.
    pub wraps_after: f64,
}

/// What an initialisation section says about its video track.
#[derive(Clone, Copy, Debug)]
pub struct Init {
    track: u32,
    timescale: u32,
    default_flags: u32,
}

impl Init {
    /// None where it has no video track.
    pub fn read(path: &Path) -> Result<Option<Init>, String> {
        let bytes = head(path, HEAD_BYTES_MAX)?;
        let moov = child(&bytes, b"moov").ok_or("the initialisation section has no 'moov' box")?;
        for (_, trak) in children(moov).into_iter().filter(|(kind, _)| kind == b"trak") {
            let found = || {
                let (tkhd, mdia) = (child(trak, b"tkhd")?, child(trak, b"mdia")?);
                let (mdhd, hdlr) = (child(mdia, b"mdhd")?, child(mdia, b"hdlr")?);
                let wide = |b: &[u8]| b.first() == Some(&1);
                let track = u32_at(tkhd, if wide(tkhd) { 20 } else { 12 });
                let timescale = u32_at(mdhd, if wide(mdhd) { 20 } else { 12 });
                let mvex = child(moov, b"mvex").unwrap_or_default();
                let own = |(kind, b): &([u8; 4], &[u8])| kind == b"trex" && u32_at(b, 4) == track;
                let default_flags = children(mvex).iter().find(|b| own(b)).map_or(0, |(_, b)| u32_at(b, 20));
                (hdlr.get(8..12)? == b"vide").then_some(Init { track, timescale, default_flags })
            };
            if let Some(init) = found() {
                return Ok(Some(init));
            }
        }
        Ok(None)
    }
}

/// None where a segment has no pictures.
pub fn opening(path: &Path, init: Option<&Init>) -> Result<Option<Opening>, String> {
    match init {
        Some(init) => fragment(&head(path, HEAD_BYTES_MAX)?, init).map(Some),
        None => {
            // Most segments say enough in their first few packets.
            let first = transport(&head(path, 64 << 10)?);
            if matches!(first, Ok(Some(_))) { first } else { transport(&head(path, HEAD_BYTES_MAX)?) }
        }
    }
}

fn head(path: &Path, bytes_max: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| format!("cannot be read: {e}"))?;
    file.take(bytes_max as u64).read_to_end(&mut bytes).map_err(|e| format!("cannot be read: {e}"))?;
    Ok(bytes)
}

/// ISO/IEC 14496-12, 8.8: the first sample of the first fragment, by its flags and times.
fn fragment(bytes: &[u8], init: &Init) -> Result<Opening, String> {
    let moof = child(bytes, b"moof").ok_or("it has no 'moof' box")?;
    let of_video = |b: &[u8]| child(b, b"tfhd").is_some_and(|tfhd| u32_at(tfhd, 4) == init.track);
    let traf = children(moof).into_iter().find(|(kind, b)| kind == b"traf" && of_video(b));
    let (_, traf) = traf.ok_or("its first fragment holds no picture")?;
    let (tfhd, trun) = (child(traf, b"tfhd").unwrap_or_default(), child(traf, b"trun").unwrap_or_default());
    let (has, run) = (u32_at(tfhd, 0) & 0xff_ffff, u32_at(trun, 0) & 0xff_ffff);
    if u32_at(trun, 4) == 0 {
        return Err("its first fragment holds no picture".into());
    }
    let skip = |flags: u32, fields: &[(u32, usize)]| -> usize {
        fields.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, size)| size).sum()
    };
    let default = match has & 0x20 {
        0 => init.default_flags,
        _ => u32_at(tfhd, 8 + skip(has, &[(0x1, 8), (0x2, 4), (0x8, 4), (0x10, 4)])),
    };
    let first = 8 + skip(run, &[(0x1, 4), (0x4, 4)]);
    let flags = if run & 0x4 != 0 {
        u32_at(trun, 8 + skip(run, &[(0x1, 4)]))
    } else if run & 0x400 != 0 {
        u32_at(trun, first + skip(run, &[(0x100, 4), (0x200, 4)]))
    } else {
        default
    };
    let offset = match run & 0x800 {
        0 => 0,
        _ => i64::from(u32_at(trun, first + skip(run, &[(0x100, 4), (0x200, 4), (0x400, 4)])) as i32),
    };
    let start =
        child(traf, b"tfdt").map(|b| if b.first() == Some(&1) { u64_at(b, 4) } else { u64::from(u32_at(b, 4)) });
    let at = start.filter(|_| init.timescale > 0).map(|s| (s as f64 + offset as f64) / f64::from(init.timescale));
    Ok(Opening { keyframe: flags & 0x1_0000 == 0, at, lead: 0.0, wraps_after: 0.0 })
}

/// The codecs whose pictures are looked into, by their stream type (ISO/IEC 13818-1, table 2-34).
#[derive(Clone, Copy)]
enum Codec {
    Mpeg2,
    H264,
    Hevc,
}

fn transport(bytes: &[u8]) -> Result<Option<Opening>, String> {
    if bytes.first() != Some(&0x47) || bytes.get(PACKET).is_some_and(|b| *b != 0x47) {
        return Err("it does not begin with an MPEG-TS packet".into());
    }
    let (mut map, mut video, mut stream, mut at) = (None, None, Vec::new(), None);
    let (mut begun, mut heard) = (false, None::<f64>);
    for packet in bytes.chunks_exact(PACKET).filter(|p| p[0] == 0x47) {
        let pid = u16::from_be_bytes([packet[1], packet[2]]) & 0x1fff;
        let (starts, payload) = (packet[1] & 0x40 != 0, payload(packet));
        if pid == 0 && starts {
            map = program_map_pid(payload);
        } else if Some(pid) == map && starts {
            match video_stream(payload) {
                Some(found) => video = Some(found),
                None => return Ok(None),
            }
        } else if let Some((_, codec)) = video.filter(|(v, _)| *v == pid) {
            if starts && begun {
                break;
            }
            if starts {
                (begun, at) = (true, shown_at(payload));
                stream.extend_from_slice(
                    payload.get(9 + usize::from(*payload.get(8).unwrap_or(&0))..).unwrap_or_default(),
                );
            } else if begun {
                stream.extend_from_slice(payload);
            } else {
                return Err("its pictures begin in the middle of one".into());
            }
            if let Some(keyframe) = first_picture(codec, &stream) {
                // Presentation times count 90 kHz in 33 bits.
                let lead = at.zip(heard).map_or(0.0, |(at, heard)| at - heard).max(0.0);
                return Ok(Some(Opening { keyframe, at, lead, wraps_after: (1u64 << 33) as f64 / 90_000.0 }));
            }
        } else if starts && heard.is_none() && matches!(payload, [0, 0, 1, 0xbd | 0xc0..=0xdf, ..]) {
            heard = shown_at(payload);
        }
    }
    if video.is_none() {
        return Err("it has no program tables in front of its pictures".into());
    }
    Err("it has no picture in its first part".into())
}

fn payload(packet: &[u8]) -> &[u8] {
    let start = match packet[3] >> 4 & 3 {
        1 => 4,
        3 => 5 + usize::from(packet[4]),
        _ => PACKET,
    };
    packet.get(start..).unwrap_or_default()
}

/// A table section behind its pointer field.
fn section(payload: &[u8]) -> Option<&[u8]> {
    let section = payload.get(1 + usize::from(*payload.first()?)..)?;
    let length = usize::from(u16::from_be_bytes([*section.get(1)?, *section.get(2)?]) & 0xfff);
    // Behind the length: at least the fixed part and the checksum, which is left out.
    section.get(..(3 + length).min(section.len()).checked_sub(4)?)
}

fn program_map_pid(payload: &[u8]) -> Option<u16> {
    let programs = section(payload)?.get(8..)?;
    programs.chunks_exact(4).find(|p| (p[0], p[1]) != (0, 0)).map(|p| u16::from_be_bytes([p[2], p[3]]) & 0x1fff)
}

fn video_stream(payload: &[u8]) -> Option<(u16, Codec)> {
    let section = section(payload)?;
    let length = |at: usize| Some(usize::from(u16::from_be_bytes([*section.get(at)?, *section.get(at + 1)?]) & 0xfff));
    let mut at = 12 + length(10)?;
    while at + 5 <= section.len() {
        let pid = u16::from_be_bytes([section[at + 1], section[at + 2]]) & 0x1fff;
        match section[at] {
            0x01 | 0x02 => return Some((pid, Codec::Mpeg2)),
            0x1b => return Some((pid, Codec::H264)),
            0x24 => return Some((pid, Codec::Hevc)),
            _ => at += 5 + length(at + 3)?,
        }
    }
    None
}

/// The presentation time in the head of a packetised elementary stream.
fn shown_at(pes: &[u8]) -> Option<f64> {
    let b = pes.get(9..14).filter(|_| pes.get(7).is_some_and(|flags| flags & 0x80 != 0))?;
    let bits = |byte: u8, shift: u32| u64::from(byte) << shift;
    let ticks = bits(b[0] >> 1 & 7, 30) | bits(b[1], 22) | bits(b[2] >> 1, 15) | bits(b[3], 7) | bits(b[4] >> 1, 0);
    Some(ticks as f64 / 90_000.0)
}

/// Whether the first picture is one to start at; none where it has not come yet.
fn first_picture(codec: Codec, stream: &[u8]) -> Option<bool> {
    let (mut parameters, mut recovery) = (false, false);
    for at in stream.windows(3).enumerate().filter(|(_, w)| *w == [0, 0, 1]).map(|(i, _)| i + 3) {
        let unit = stream.get(at..)?;
        let kind = *unit.first()?;
        match codec {
            Codec::Mpeg2 => match kind {
                0xb3 => parameters = true,
                0x00 => return Some(parameters && unit.get(2)? >> 3 & 7 == 1),
                _ => {}
            },
            Codec::H264 => match kind & 0x1f {
                7 => parameters = true,
                // Recovery point (D.1.8): a picture to start at that is no instantaneous refresh.
                6 => recovery |= *unit.get(1)? == 6,
                5 => return Some(parameters),
                1 => return Some(parameters && recovery),
                _ => {}
            },
            Codec::Hevc => match kind >> 1 & 0x3f {
                33 => parameters = true,
                16..=21 => return Some(parameters),
                0..=9 => return Some(false),
                _ => {}
            },
        }
    }
    None
}
