//! Names as parts of URIs, and back (RFC 3986, section 2): spaces and reserved characters travel as `%20`.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Everything but the unreserved characters.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One path segment.
pub fn escaped(segment: &str) -> String {
    utf8_percent_encode(segment, SEGMENT).to_string()
}

/// What an escaped text stands for; a text that would not be UTF-8 stays as it is written.
pub fn unescaped(text: &str) -> String {
    percent_decode_str(text).decode_utf8().map_or_else(|_| text.to_owned(), std::borrow::Cow::into_owned)
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
}
