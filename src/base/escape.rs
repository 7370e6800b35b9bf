//! Text and bytes in other notations: URIs, XML, hexadecimal.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Everything but the unreserved characters.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A name as one segment of a URI's path (RFC 3986, section 2): spaces and reserved characters travel as `%20`.
pub fn escaped(segment: &str) -> String {
    utf8_percent_encode(segment, SEGMENT).to_string()
}

/// What an escaped text stands for; a text that would not be UTF-8 stays as it is written.
pub fn unescaped(text: &str) -> String {
    percent_decode_str(text).decode_utf8().map_or_else(|_| text.to_owned(), std::borrow::Cow::into_owned)
}

/// Text as the content of an element or the value of an attribute, of XML and of HTML. A carriage return goes as a
/// reference: readers take a bare one for the end of a line (XML 1.0, section 2.11).
pub fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\r' => out.push_str("&#xD;"),
            c => out.push(c),
        }
    }
    out
}

/// Two lowercase digits for each byte.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_travel_there_and_back() {
        for name in ["film_00001.ts", "a b#1?.ts", "100%.mp4", "Öffnung/§.mov"] {
            assert_eq!(unescaped(&escaped(name)), name);
        }
        assert_eq!(escaped("a b#1?.ts"), "a%20b%231%3F.ts");
        assert_eq!(unescaped("%FF"), "%FF");
    }
    #[test]
    fn bytes_are_two_digits_each() {
        assert_eq!(hex(&[0, 9, 10, 0x7f, 0xff]), "00090a7fff");
    }
}
