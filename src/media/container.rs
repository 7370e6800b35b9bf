//! What a file is by its first bytes, and whether its container is complete, without decoding anything.
//!
//! Must never trust a name: suffixes lie. Must stay cheap: reads headers and indexes, never the payload.

use conveyor_base::TaskError;

use super::input::Input;
use super::mp4::{self, Mp4};

/// Bytes at a file's beginning that tell what it is.
pub const HEAD_BYTES: usize = 4096;

/// The container a file turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Mp4,
    Matroska,
    MpegTs,
    MpegPs,
    Avi,
    Mxf,
    Flv,
    Asf,
    Ogg,
    /// Nothing known: GStreamer's own type finding decides.
    Other,
}

/// What was found out about a container.
#[derive(Clone, Debug)]
pub struct Container {
    pub kind: Kind,
    pub mp4: Option<Mp4>,
}

/// Looks at a file and refuses what is no media, a still image, or not all there.
pub fn check(input: &Input) -> Result<Container, TaskError> {
    let head = input.read_at(0, HEAD_BYTES)?;
    if let Some(image) = still_image(&head) {
        return Err(input.error(
            "Media.StillImage",
            format!("is a still image ({image}), whatever its name says; only moving pictures are processed"),
        ));
    }
    refuse_other(input, &head)?;
    let kind = kind(&head);
    let mut container = Container { kind, mp4: None };
    match kind {
        Kind::Mp4 => container.mp4 = Some(mp4::read(input)?),
        Kind::Matroska => matroska_complete(input, &head)?,
        Kind::Avi => avi_complete(input, &head)?,
        Kind::Mxf => mxf_complete(input, &head)?,
        _ => {}
    }
    Ok(container)
}

/// Refuses what is no media at all, and what only names media, by the first bytes.
pub fn refuse_other(input: &Input, head: &[u8]) -> Result<(), TaskError> {
    match not_media(head).filter(|_| kind(head) == Kind::Other) {
        None => Ok(()),
        Some(what) => Err(input.error(
            "Media.NotMedia",
            format!("is {what}, not a media file, whatever its name says; check what was exported and drop that"),
        )),
    }
}

/// The error for a container that ends before it should.
pub fn truncated(input: &Input, why: impl std::fmt::Display) -> TaskError {
    input.error(
        "Media.Truncated",
        format!(
            "is not all there ({} bytes): {why}. The copy or the recording was cut off; copy it again from where it was made",
            input.size
        ),
    )
}

fn kind(head: &[u8]) -> Kind {
    let box_type = head.get(4..8).unwrap_or_default();
    if [&b"ftyp"[..], b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp"].contains(&box_type) {
        Kind::Mp4
    } else if head.starts_with(&[0x1a, 0x45, 0xdf, 0xa3]) {
        Kind::Matroska
    } else if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"AVI ") {
        Kind::Avi
    } else if head.starts_with(&[0x06, 0x0e, 0x2b, 0x34, 0x02, 0x05, 0x01, 0x01]) {
        Kind::Mxf
    } else if head.starts_with(b"FLV\x01") {
        Kind::Flv
    } else if head.starts_with(&[0x30, 0x26, 0xb2, 0x75, 0x8e, 0x66, 0xcf, 0x11]) {
        Kind::Asf
    } else if head.starts_with(b"OggS") {
        Kind::Ogg
    } else if head.starts_with(&[0, 0, 1, 0xba]) {
        Kind::MpegPs
    } else if transport_stream(head, 188, 0) || transport_stream(head, 192, 4) {
        Kind::MpegTs
    } else {
        Kind::Other
    }
}

/// Sync bytes where packets of this size begin.
fn transport_stream(head: &[u8], packet: usize, first: usize) -> bool {
    head.len() > first + packet && (first..head.len()).step_by(packet).all(|at| head[at] == 0x47)
}

fn still_image(head: &[u8]) -> Option<&'static str> {
    let brand = if head.get(4..8) == Some(b"ftyp") { head.get(8..12).unwrap_or_default() } else { b"" };
    Some(match head {
        [0xff, 0xd8, 0xff, ..] => "JPEG",
        h if h.starts_with(b"\x89PNG\r\n\x1a\n") => "PNG",
        h if h.starts_with(b"GIF8") => "GIF",
        h if h.starts_with(b"BM") && h.get(6..10) == Some(&[0; 4]) => "BMP",
        h if h.starts_with(b"II*\0") || h.starts_with(b"MM\0*") => "TIFF",
        h if h.starts_with(b"RIFF") && h.get(8..12) == Some(b"WEBP") => "WebP",
        h if h.starts_with(b"8BPS") => "Photoshop",
        _ if [&b"heic"[..], b"heix", b"mif1", b"avif"].contains(&brand) => "HEIF or AVIF",
        _ => return None,
    })
}

fn not_media(head: &[u8]) -> Option<&'static str> {
    let text = head.iter().take(512).map(u8::to_ascii_lowercase).collect::<Vec<_>>();
    let start = text.iter().position(|b| !b.is_ascii_whitespace()).unwrap_or(0);
    let word = &text[start..];
    Some(match head {
        _ if head.iter().all(|&b| b == 0) => {
            "nothing but zero bytes so far (the space was reserved and the copy never arrived)"
        }
        h if h.starts_with(b"PK\x03\x04") || h.starts_with(b"PK\x05\x06") => "a ZIP archive (or an office document)",
        [0x1f, 0x8b, ..] => "gzip data",
        h if h.starts_with(b"Rar!") => "a RAR archive",
        h if h.starts_with(b"7z\xbc\xaf\x27\x1c") => "a 7z archive",
        h if h.starts_with(b"%PDF") => "a PDF document",
        h if h.starts_with(b"\x7fELF") || h.starts_with(b"MZ") => "a program",
        _ if playlist(head).is_some() => playlist(head)?,
        _ if word.starts_with(b"<!doctype html") || word.starts_with(b"<html") => "a web page (HTML)",
        _ if word.starts_with(b"<?xml") => "an XML document",
        _ if plain_text(head) => "plain text",
        _ => return None,
    })
}

/// What comes behind an ID3 tag, which players skip in front of anything (id3v2.4.0-structure, 3.1).
fn behind_tag(head: &[u8]) -> &[u8] {
    match head {
        [b'I', b'D', b'3', _, _, _, a, b, c, d, rest @ ..] => {
            let length = [a, b, c, d].iter().fold(0, |sum, part| sum << 7 | usize::from(**part & 0x7f));
            rest.get(length..).unwrap_or(head)
        }
        _ => head,
    }
}

/// A file that only names others. What is in front of its first word does not hide it: marks of an encoding, blanks, control
/// characters.
fn playlist(head: &[u8]) -> Option<&'static str> {
    let head = behind_tag(head);
    const KNOWN: &[(&str, &str)] = &[
        ("#extm3u", "a playlist (M3U, HLS), which names other files"),
        ("<mpd", "an MPEG-DASH manifest, which names other files"),
        ("<smoothstreamingmedia", "a Smooth Streaming manifest, which names other files"),
        ("v=0", "an SDP description of a stream, which names its address"),
        ("[playlist]", "a playlist (PLS), which names other files"),
        ("[reference]", "a playlist (ASX), which names other files"),
        ("<asx", "a playlist (ASX), which names other files"),
        ("<smil", "a presentation (SMIL), which names other files"),
        ("<playlist", "a playlist (XSPF), which names other files"),
        ("ffconcat", "a list of files (ffconcat)"),
        ("rtsptext", "a redirection, which names an address"),
        ("file \"", "a cue sheet, which names other files"),
        ("http:", "a list of addresses"),
        ("https:", "a list of addresses"),
        ("rtsp:", "a list of addresses"),
        ("file:", "a list of addresses"),
    ];
    let text: String = head.iter().filter(|byte| **byte != 0).map(|byte| byte.to_ascii_lowercase() as char).collect();
    let from = text.find(|c: char| c.is_ascii_graphic())?;
    let named = KNOWN.iter().find(|(word, _)| text[from..].starts_with(word));
    // Behind a declaration and comments of XML, and with whatever prefix its names have.
    let names = |word: &str| text.contains(word) || text.contains(&word.replace('<', ":"));
    let within = || KNOWN.iter().find(|(word, _)| word.starts_with('<') && names(word));
    let is_xml = text[from..].starts_with('<');
    // Cue sheets begin with what they please.
    let is_cue = || {
        text[from..].starts_with("rem ") || text[from..].starts_with("title ") || text[from..].starts_with("performer ")
    };
    let cue = || KNOWN.iter().find(|(word, _)| *word == "file \"" && is_cue() && text.contains(word));
    named.or_else(|| within().filter(|_| is_xml)).or_else(cue).map(|(_, what)| *what)
}

/// Bytes that are text but for one in twenty. Raw pictures of one grey look like it, and say at their beginning what they are.
fn plain_text(head: &[u8]) -> bool {
    if head.is_empty() || head.contains(&0) || head.starts_with(b"YUV4MPEG2 ") {
        return false;
    }
    let text = String::from_utf8_lossy(head);
    let odd =
        |c: &char| *c == char::REPLACEMENT_CHARACTER || (c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{c}'));
    text.chars().filter(odd).count() * 20 <= text.chars().count()
}

/// An EBML number with its length marker removed, and the bytes it took.
fn ebml_size(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let length = first.leading_zeros() as usize + 1;
    if length > 8 || bytes.len() < length {
        return None;
    }
    let mut value = u64::from(first) & ((1u64 << (8 - length)) - 1);
    for b in &bytes[1..length] {
        value = value << 8 | u64::from(*b);
    }
    Some((value, length))
}

/// The Segment element says how long it is; a live recording says "unknown" and is taken as it is.
fn matroska_complete(input: &Input, head: &[u8]) -> Result<(), TaskError> {
    let Some((header, taken)) = head.get(4..).and_then(ebml_size) else { return Ok(()) };
    let at = 4 + taken + header as usize;
    if head.get(at..at + 4) != Some(&[0x18, 0x53, 0x80, 0x67]) {
        return Ok(());
    }
    let Some((size, taken)) = head.get(at + 4..).and_then(ebml_size) else { return Ok(()) };
    let unknown = (1u64 << (7 * taken)) - 1;
    let end = (at + 4 + taken) as u64 + size;
    if size != unknown && end > input.size {
        return Err(truncated(input, format!("its Segment should reach to byte {end}")));
    }
    Ok(())
}

fn avi_complete(input: &Input, head: &[u8]) -> Result<(), TaskError> {
    let size = head.get(4..8).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
    let end = u64::from(size) + 8;
    if end > input.size {
        return Err(truncated(input, format!("its RIFF header should reach to byte {end}")));
    }
    Ok(())
}

/// A header partition that is still open and no footer partition: the recorder never finished the file.
fn mxf_complete(input: &Input, head: &[u8]) -> Result<(), TaskError> {
    let open = matches!(head.get(14), Some(1 | 3));
    let tail_length = input.size.min(1 << 20);
    let tail = input.read_at(input.size - tail_length, tail_length as usize)?;
    let footer = [0x06, 0x0e, 0x2b, 0x34, 0x02, 0x05, 0x01, 0x01, 0x0d, 0x01, 0x02, 0x01, 0x01];
    let closed = tail.windows(14).any(|w| w[..13] == footer && matches!(w[13], 0x04 | 0x11));
    // A closed header names its footer (at offset 24 of the partition pack): it must lie within the file.
    let pack = ber_length(head.get(16..).unwrap_or_default()).map_or(0, |taken| 16 + taken);
    let at = head.get(pack + 24..pack + 32).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes);
    if (open && !closed) || at > input.size {
        return Err(truncated(input, "its MXF footer is missing"));
    }
    Ok(())
}

/// How many bytes a BER length field takes.
fn ber_length(bytes: &[u8]) -> Option<usize> {
    let first = *bytes.first()?;
    Some(if first & 0x80 == 0 { 1 } else { 1 + (first & 0x7f) as usize })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell_media_from_the_rest() {
        assert!(not_media(b"hello, this is my film\n").is_some());
        for (text, what) in [
            (&b"\x7f#EXTM3U\n#EXT-X-TARGETDURATION:4\n"[..], "a playlist (M3U, HLS)"),
            (b"\xff\xfe#\0E\0X\0T\0M\x003\0U\0\n\0", "a playlist (M3U, HLS)"),
            (b"<?xml version='1.0'?>\n<!-- \x01\x02 -->\n<MPD xmlns='urn'>", "an MPEG-DASH"),
            (b"<\0d\0:\0M\0P\0D\0 \0x\0", "an MPEG-DASH"),
            (b"ID3\x04\0\0\0\0\0\x05tag: #EXTM3U\n", "a playlist (M3U, HLS)"),
            (b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n", "an SDP"),
            (b"TITLE \"x\"\nFILE \"/etc/passwd\" WAVE\n", "a cue sheet"),
            (b"\0\0 file:///etc/passwd\n", "a list of addresses"),
            (b"a recipe\x01 in words alone, and so on\n", "plain text"),
        ] {
            assert!(not_media(text).is_some_and(|found| found.starts_with(what)), "{what}: {:?}", not_media(text));
        }
        assert!(not_media(&[b"YUV4MPEG2 W4 H4\nFRAME\n".as_slice(), &[b'P'; 512]].concat()).is_none());
        assert!(not_media(b"PK\x03\x04rest").is_some());
        assert!(not_media(b" <!DOCTYPE HTML><html>").is_some());
        assert!(not_media(&[0; 4096]).is_some());
        assert!(not_media(b"\0\0\0\x20ftypisom").is_none());
        assert_eq!(still_image(&[0xff, 0xd8, 0xff, 0xe0]), Some("JPEG"));
        assert_eq!(kind(b"\0\0\0\x20ftypisom"), Kind::Mp4);
        let mut ts = vec![0u8; 188 * 4];
        (0..4).for_each(|i| ts[i * 188] = 0x47);
        assert_eq!(kind(&ts), Kind::MpegTs);
    }

    #[test]
    fn ebml_numbers() {
        assert_eq!(ebml_size(&[0x81]), Some((1, 1)));
        assert_eq!(ebml_size(&[0x40, 0x02]), Some((2, 2)));
        assert_eq!(ebml_size(&[0x01, 0, 0, 0, 0, 0, 1, 0]), Some((256, 8)));
        assert_eq!(ebml_size(&[0x00]), None);
    }
}
