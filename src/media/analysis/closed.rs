//! Closed captions as they lie in video streams and caption tracks, brought into order and to their decoders.
//!
//! Caption data comes with coded pictures in the order of decoding; it is meant in the order of showing, so a few are
//! held back and sorted. Everything here comes from outside: what does not parse is counted, never an error.

use std::collections::BTreeMap;

use cea708_types::DTVCCPacket;
use gstreamer_video::VideoCaptionType;

use super::{cea608, cea708};

/// Pictures that are held back for sorting: as many as H.264 and HEVC may reorder, in fields.
const REORDERED_MAX: usize = 32;
/// Largest packet of the digital caption channel.
const PACKET_BYTES_MAX: usize = 128;

/// One caption.
#[derive(Clone, Debug, PartialEq)]
pub struct Cue {
    pub start: f64,
    pub end: f64,
    pub text: String,
}

/// One caption service that said something.
#[derive(Debug)]
pub struct Track {
    /// `CC1` to `CC4`, or `Service 1` and so on.
    pub service: String,
    /// `CEA-608` or `CEA-708`.
    pub standard: &'static str,
    pub cues: Vec<Cue>,
}

/// What the captions of a file came to.
#[derive(Debug, Default)]
pub struct Found {
    /// Pictures or samples that carry caption data.
    pub pictures: u64,
    /// Pairs, packets and samples that could not be read.
    pub unreadable: u64,
    pub tracks: Vec<Track>,
}

/// All caption data of a file.
#[derive(Default)]
pub struct Captions(BTreeMap<usize, Stream>);

impl Captions {
    /// Takes the caption data of one picture, at its time of showing where it has one.
    pub fn feed(&mut self, stream: usize, at: Option<f64>, form: VideoCaptionType, bytes: &[u8]) {
        let stream = self.0.entry(stream).or_default();
        let at = at.unwrap_or(stream.last);
        stream.last = at;
        stream.pictures += 1;
        // Microseconds order as the times do; the count keeps two fields of one picture in their order.
        let key = ((at.max(0.0) * 1e6) as u64, stream.pictures);
        stream.waiting.insert(key, (form, bytes.to_vec()));
        while stream.waiting.len() > REORDERED_MAX {
            stream.take_first();
        }
    }

    /// Everything that was said; what a caption track repeats of the pictures' own captions is said once.
    pub fn finish(self, end: f64) -> Found {
        let mut found = Found::default();
        for mut stream in self.0.into_values() {
            while stream.take_first() {}
            stream.finish(end, &mut found);
        }
        found
    }
}

/// One video stream or caption track.
#[derive(Default)]
struct Stream {
    pictures: u64,
    unreadable: u64,
    last: f64,
    waiting: BTreeMap<(u64, u64), (VideoCaptionType, Vec<u8>)>,
    fields: [cea608::Field; 2],
    packet: Vec<u8>,
    services: BTreeMap<u8, cea708::Service>,
}

impl Stream {
    fn take_first(&mut self) -> bool {
        let Some(((micros, _), (form, bytes))) = self.waiting.pop_first() else { return false };
        self.decode(micros as f64 / 1e6, form, &bytes);
        true
    }

    fn decode(&mut self, at: f64, form: VideoCaptionType, bytes: &[u8]) {
        match form {
            VideoCaptionType::Cea608Raw => {
                for pair in bytes.chunks_exact(2) {
                    self.fields[0].feed(at, [pair[0], pair[1]]);
                }
            }
            // SMPTE ST 334-1, annex A: field and line, then the pair.
            VideoCaptionType::Cea608S3341a => {
                for triplet in bytes.chunks_exact(3) {
                    self.fields[usize::from(triplet[0] & 0x80 == 0)].feed(at, [triplet[1], triplet[2]]);
                }
            }
            VideoCaptionType::Cea708Raw => self.cc_data(at, bytes),
            VideoCaptionType::Cea708Cdp => match cc_data_of(bytes) {
                Some(data) => self.cc_data(at, data),
                None => self.unreadable += 1,
            },
            _ => self.unreadable += 1,
        }
    }

    /// CTA-708-E, 4.4: marker, validity and type, then two bytes.
    fn cc_data(&mut self, at: f64, data: &[u8]) {
        for triplet in data.chunks_exact(3).filter(|t| t[0] & 0x04 != 0) {
            let pair = [triplet[1], triplet[2]];
            match triplet[0] & 0x03 {
                field @ (0 | 1) => self.fields[usize::from(field)].feed(at, pair),
                start_or_more => {
                    if start_or_more == 3 {
                        self.packet.clear();
                    }
                    if start_or_more == 3 || !self.packet.is_empty() {
                        self.packet.extend(pair);
                    }
                    self.packet_complete(at);
                }
            }
        }
    }

    fn packet_complete(&mut self, at: f64) {
        let Some(length) = self.packet.first().map(|head| match usize::from(head & 0x3f) {
            0 => PACKET_BYTES_MAX,
            pairs => pairs * 2,
        }) else {
            return;
        };
        if self.packet.len() < length {
            return;
        }
        match DTVCCPacket::parse(&self.packet[..length]) {
            Ok(packet) => {
                for service in packet.services().iter().filter(|s| s.number() > 0) {
                    let into = self.services.entry(service.number()).or_default();
                    service.codes().iter().for_each(|code| into.feed(at, code));
                }
            }
            Err(_) => self.unreadable += 1,
        }
        self.packet.clear();
    }

    fn finish(self, end: f64, found: &mut Found) {
        let end = end.max(self.last);
        found.pictures += self.pictures;
        found.unreadable += self.unreadable + self.fields.iter().map(|f| f.unreadable).sum::<u64>();
        let mut add = |service: String, standard: &'static str, cues: Vec<Cue>| {
            let repeats =
                |t: &Track| t.service == service && t.cues.iter().map(|c| &c.text).eq(cues.iter().map(|c| &c.text));
            if !cues.is_empty() && !found.tracks.iter().any(repeats) {
                found.tracks.push(Track { service, standard, cues });
            }
        };
        for (field, first) in self.fields.into_iter().zip([1, 3]) {
            for (cues, number) in field.finish(end).into_iter().zip(first..) {
                add(format!("CC{number}"), "CEA-608", cues);
            }
        }
        for (number, service) in self.services {
            add(format!("Service {number}"), "CEA-708", service.finish(end));
        }
    }
}

/// The caption data within a caption distribution packet (SMPTE ST 334-2): header, then sections with an id each.
fn cc_data_of(packet: &[u8]) -> Option<&[u8]> {
    if packet.get(..2)? != [0x96, 0x69] {
        return None;
    }
    let mut at = 7;
    loop {
        match *packet.get(at)? {
            0x71 => at += 5,
            0x72 => {
                let count = usize::from(packet.get(at + 1)? & 0x1f);
                return packet.get(at + 2..at + 2 + count * 3);
            }
            // The footer: there was no caption data.
            0x74 => return Some(&[]),
            0x73 => at += 2 + usize::from(packet.get(at + 1)? & 0x0f) * 7,
            _ => at += 2 + usize::from(*packet.get(at + 1)?),
        }
    }
}
