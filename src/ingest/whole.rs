//! Is there more of a file to come? A look at where its container says that it ends, by plain reads: the headers of the
//! outermost boxes alone, and of those a bounded number.
//!
//! Nothing is decoded and no length is believed: sums are checked, and what is not known is taken for whole. Whether a file is
//! media, and undamaged, only a stage says, in its jail.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use conveyor_base::Sample;

/// Most boxes whose headers are read.
const BOXES_MAX: usize = 256;
/// The beginning that is looked at for what the file is.
const HEAD_BYTES: usize = 4096;
/// The end of an MXF file that is looked at for its footer.
const FOOTER_BYTES: u64 = 64 << 10;
/// Recorders count the RIFF header in, or a padding byte that is not there.
const RIFF_TOLERANCE: u64 = 16;

/// What a look at a file showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Another digest means other content.
    pub sample: Sample,
    /// Why there seems to be more to come.
    pub missing: Option<String>,
}

impl Look {
    /// # Errors
    /// Those of reading the file, and that it got shorter meanwhile.
    pub fn at(file: &File) -> io::Result<Look> {
        let sample = Sample::of(file)?;
        let size = conveyor_base::beneath::Meta::of(file)?.size;
        let missing = missing(size, &sample, &mut |at, bytes| file.read_exact_at(bytes, at))?;
        Ok(Look { sample, missing })
    }
}

type Read<'a> = &'a mut dyn FnMut(u64, &mut [u8]) -> io::Result<()>;

/// What the container says.
enum Says {
    /// It ends with its index, and from there on there is nothing but padding.
    PaddedFrom(u64),
    Unknown,
    Missing(String),
}

fn missing(size: u64, sample: &Sample, read: Read<'_>) -> io::Result<Option<String>> {
    let mut head = vec![0; HEAD_BYTES.min(usize::try_from(size).unwrap_or(HEAD_BYTES))];
    read(0, &mut head)?;
    let says = match &head[..] {
        _ if head.get(4..8).is_some_and(is_first_box) => boxes(size, read)?,
        [0x1a, 0x45, 0xdf, 0xa3, ..] => matroska(size, &head),
        [b'R', b'I', b'F', b'F', ..] => riff(size, read)?,
        [0x06, 0x0e, 0x2b, 0x34, 0x02, 0x05, 0x01, 0x01, ..] => mxf(size, &head, read)?,
        _ => Says::Unknown,
    };
    Ok(match (says, sample.hole, sample.zeros_from) {
        (Says::Missing(why), ..) => Some(why),
        (_, Some(hole), _) => Some(format!("nothing was written yet from byte {hole} on")),
        (Says::PaddedFrom(end), _, Some(zeros)) if zeros >= end => None,
        (_, _, Some(zeros)) => Some(format!("it holds nothing but zeros from about byte {zeros} to its end")),
        (_, _, None) => None,
    })
}

fn is_first_box(kind: &[u8]) -> bool {
    [&b"ftyp"[..], b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp"].contains(&kind)
}

/// ISO base media and QuickTime (ISO/IEC 14496-12, 4.2): boxes to the end, one of them the index.
fn boxes(size: u64, read: Read<'_>) -> io::Result<Says> {
    let (mut at, mut indexed, mut index_is_last) = (0u64, false, false);
    for _ in 0..BOXES_MAX {
        let left = size - at;
        if left < 8 {
            // A few bytes behind the last box mean nothing.
            return Ok(if indexed { Says::Unknown } else { no_index() });
        }
        let mut header = [0; 16];
        let length = if left < 16 { 8 } else { 16 };
        read(at, &mut header[..length])?;
        let (short, kind) = (u64::from(be32(&header)), [header[4], header[5], header[6], header[7]]);
        if short == 0 && kind == [0; 4] {
            // Padding behind the index, or what is not there yet.
            return Ok(match index_is_last {
                true => Says::PaddedFrom(at),
                false => Says::Missing(format!("there are zeros where its next box begins, at byte {at}")),
            });
        }
        let length = match short {
            0 => left,
            1 if length == 16 => u64::from_be_bytes([8, 9, 10, 11, 12, 13, 14, 15].map(|byte: usize| header[byte])),
            short => short,
        };
        if length < 8 || !kind.iter().all(|byte| byte.is_ascii_graphic() || matches!(byte, b' ' | 0xa9)) {
            return Ok(Says::Unknown);
        }
        let name = kind.escape_ascii();
        match at.checked_add(length) {
            Some(end) if end <= size => at = end,
            _ => {
                return Ok(Says::Missing(format!(
                    "its box '{name}' at byte {at} is {length} bytes long, beyond the end"
                )));
            }
        }
        match &kind {
            b"moov" => (indexed, index_is_last) = (true, true),
            b"moof" => indexed = true,
            b"mdat" => index_is_last = false,
            _ => {}
        }
    }
    Ok(Says::Unknown)
}

fn no_index() -> Says {
    Says::Missing("it has no index ('moov') yet".to_owned())
}

/// The Segment says how long it is, or that nobody knows (RFC 8794, 6; RFC 9559, 5.1).
fn matroska(size: u64, head: &[u8]) -> Says {
    let segment = || {
        let (header, taken) = ebml_number(head.get(4..)?)?;
        let at = usize::try_from(header).ok()?.checked_add(4 + taken)?;
        let behind = head.get(at..)?.strip_prefix(&[0x18, 0x53, 0x80, 0x67])?;
        let (length, taken) = ebml_number(behind)?;
        let is_known = length != (1u64 << (7 * taken)) - 1;
        is_known.then(|| length.saturating_add((at + 4 + taken) as u64))
    };
    match segment() {
        Some(end) if end > size => Says::Missing(format!("its Segment reaches to byte {end}, beyond the end")),
        _ => Says::Unknown,
    }
}

/// A number, and how many bytes it took.
fn ebml_number(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let taken = first.leading_zeros() as usize + 1;
    let rest = bytes.get(1..taken).filter(|_| taken <= 8)?;
    let own = u64::from(first) & ((1u64 << (8 - taken)) - 1);
    Some((rest.iter().fold(own, |sum, byte| sum << 8 | u64::from(*byte)), taken))
}

/// AVI and what else is RIFF; OpenDML has several of them, one behind the other.
fn riff(size: u64, read: Read<'_>) -> io::Result<Says> {
    let mut at = 0u64;
    for _ in 0..BOXES_MAX {
        if size - at < 12 {
            break;
        }
        let mut header = [0; 8];
        read(at, &mut header)?;
        if !header.starts_with(b"RIFF") {
            break;
        }
        let length = u64::from(u32::from_le_bytes([header[4], header[5], header[6], header[7]]));
        // Written last by some recorders, and never by those that stream.
        if length == 0 || length == u64::from(u32::MAX) {
            break;
        }
        let end = at.saturating_add(8).saturating_add(length).saturating_add(length % 2);
        if end > size.saturating_add(RIFF_TOLERANCE) {
            return Ok(Says::Missing(format!("its RIFF chunk at byte {at} reaches to byte {end}, beyond the end")));
        }
        if end >= size {
            break;
        }
        at = end;
    }
    Ok(Says::Unknown)
}

/// The header says where the footer is, or that it is not known yet (SMPTE ST 377-1, 7).
fn mxf(size: u64, head: &[u8], read: Read<'_>) -> io::Result<Says> {
    const PARTITION: [u8; 13] = [0x06, 0x0e, 0x2b, 0x34, 0x02, 0x05, 0x01, 0x01, 0x0d, 0x01, 0x02, 0x01, 0x01];
    let pack = head.get(16).map(|first| 17 + if *first < 0x80 { 0 } else { usize::from(*first & 0x7f) });
    let footer = pack.and_then(|pack| head.get(pack + 24..pack + 32));
    let footer = footer.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
    let missing = |what: &str| Ok(Says::Missing(what.to_owned()));
    if footer > 0 {
        if footer.checked_add(PARTITION.len() as u64).is_none_or(|end| end > size) {
            return missing("its footer partition is not there yet");
        }
        let mut key = [0; PARTITION.len()];
        read(footer, &mut key)?;
        return if key == PARTITION { Ok(Says::Unknown) } else { missing("its footer partition is not there yet") };
    }
    if !matches!(head.get(14), Some(1 | 3)) {
        return Ok(Says::Unknown);
    }
    let length = size.min(FOOTER_BYTES);
    let mut tail = vec![0; usize::try_from(length).unwrap_or_default()];
    read(size - length, &mut tail)?;
    let is_footer = |bytes: &[u8]| bytes.starts_with(&PARTITION) && matches!(bytes[PARTITION.len()], 0x04 | 0x11);
    match tail.windows(PARTITION.len() + 1).any(is_footer) {
        true => Ok(Says::Unknown),
        false => missing("its header is open, and it has no footer partition yet"),
    }
}

fn be32(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn look(bytes: &[u8]) -> Option<String> {
        use std::io::Write as _;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Look::at(&file).unwrap().missing
    }

    fn a_box(kind: &str, body: &[u8]) -> Vec<u8> {
        [&u32::to_be_bytes(body.len() as u32 + 8)[..], kind.as_bytes(), body].concat()
    }

    fn mxf_file(status: u8, footer: u64) -> Vec<u8> {
        let key = [6, 14, 43, 52, 2, 5, 1, 1, 13, 1, 2, 1, 1];
        let mut file = [&key[..], &[2, status, 0, 0x83, 0, 0, 88], &[0; 24], &footer.to_be_bytes(), &[1; 56]].concat();
        file.extend([5; 9_000]);
        file.extend([&key[..], &[4, 4, 0, 0x83, 0, 0, 88], &[1; 88]].concat());
        file
    }

    /// A film of each container that tells where it ends: whole it is whole, and cut anywhere it is not.
    #[test]
    fn what_was_cut_off_is_told_wherever_the_container_tells() {
        let body = [7u8; 5_000];
        let index_last = [a_box("ftyp", b"qt  "), a_box("mdat", &body), a_box("moov", &body)].concat();
        let index_first = [a_box("ftyp", b"qt  "), a_box("moov", &body), a_box("mdat", &body)].concat();
        let fragments =
            [a_box("ftyp", b"iso6"), a_box("moov", b""), a_box("moof", &body), a_box("mdat", &body)].concat();
        let long = [&[0, 0, 0, 1][..], b"mdat", &5_016u64.to_be_bytes(), &body].concat();
        let long = [a_box("ftyp", b"mp42"), long, a_box("moov", &body)].concat();
        let known = [&[0x1a, 0x45, 0xdf, 0xa3, 0x82, 1, 1, 0x18, 0x53, 0x80, 0x67, 0x53, 0x88][..], &body].concat();
        let riff = |kind: &[u8]| [b"RIFF", &5_004u32.to_le_bytes()[..], kind, &body].concat();
        let open_dml = [riff(b"AVI "), riff(b"AVIX")].concat();
        let footer = mxf_file(4, 0).len() as u64 - 108;
        for (name, film) in [
            ("index last", &index_last),
            ("index first", &index_first),
            ("64 bits", &long),
            ("matroska", &known),
            ("avi", &open_dml),
            ("mxf", &mxf_file(4, footer)),
            ("mxf, open header", &mxf_file(1, 0)),
        ] {
            assert_eq!(look(film), None, "{name}");
            for cut in [film.len() / 3, film.len() / 2 + 100, film.len() - 200] {
                assert!(look(&film[..cut]).is_some(), "{name} cut at {cut}");
            }
            // The same in space that was reserved: the rest is zeros.
            let mut reserved = film.clone();
            let from = film.len() - 4_900;
            reserved[from..].fill(0);
            assert!(look(&reserved).is_some(), "{name} with {from} bytes of {}", film.len());
        }
        assert_eq!(look(&fragments), None);
        // What players play as well: padding behind the index, a length that counts its own header, one that nobody knows.
        assert_eq!(look(&[&index_last[..], &[0; 9_000]].concat()), None);
        assert_eq!(look(&riff(b"AVI ")[..5_004]), None);
        let live =
            [&[0x1a, 0x45, 0xdf, 0xa3, 0x82, 1, 1, 0x18, 0x53, 0x80, 0x67, 0x01][..], &[0xff; 7], &body].concat();
        assert_eq!(look(&live), None);
        assert_eq!(look(b"no film"), None);
        assert_eq!(look(b""), None);
        assert!(look(&a_box("ftyp", b"qt  ")).is_some_and(|why| why.contains("moov")));
    }

    proptest! {
        /// Whatever the bytes are, and whatever size is said of them: an answer, by few reads, all of them within.
        #[test]
        fn any_bytes_get_an_answer(
            magic in 0usize..6,
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            boxes in proptest::collection::vec((any::<u32>(), 0usize..6), 0..8),
            size in prop_oneof![Just(None), any::<u64>().prop_map(Some)],
        ) {
            let magics: [&[u8]; 6] = [b"", b"\0\0\0\x08ftyp", &[0x1a, 0x45, 0xdf, 0xa3], b"RIFF",
                &[6, 14, 43, 52, 2, 5, 1, 1, 13, 1, 2, 1, 1, 2, 1, 0, 0x83, 0, 0, 88], b"\0\0\0\0mdat"];
            let kinds = [&b"moov"[..], b"mdat", b"moof", b"RIFF", b"\0\0\0\0", b"free"];
            let mut file = magics[magic].to_vec();
            for (length, kind) in boxes {
                file.extend((length >> (length % 32)).to_be_bytes());
                file.extend(kinds[kind]);
            }
            file.extend(bytes);
            let size = size.unwrap_or(file.len() as u64).max(file.len() as u64);
            let mut reads = 0;
            let sample = Sample { digest: String::new(), hole: None, zeros_from: None };
            let mut read = |at: u64, into: &mut [u8]| {
                reads += 1;
                let end = at.checked_add(into.len() as u64);
                assert!(end.is_some_and(|end| end <= size), "{at} and {} of {size}", into.len());
                for (n, byte) in into.iter_mut().enumerate() {
                    *byte = usize::try_from(at).ok().and_then(|at| file.get(at + n).copied()).unwrap_or_default();
                }
                Ok(())
            };
            let _ = missing(size, &sample, &mut read).unwrap();
            prop_assert!(reads <= BOXES_MAX + 3);
        }
    }
}
