//! Moments as definitions and data write them: RFC 3339 with a `T` and a zone.

use conveyor_base::Timestamp;

/// Reads `2016-03-14T01:59:00Z`, with any fraction of a second and `Z` or a numeric offset.
///
/// A text without a zone, with a space for the `T`, or with a date that does not exist is no timestamp.
pub fn parse_timestamp(text: &str) -> Option<jiff::Timestamp> {
    let bytes = text.as_bytes();
    let (date_time, rest) = text.split_at_checked(19)?;
    let shaped = date_time.bytes().zip(b"dddd-dd-ddTdd:dd:dd").all(|(byte, shape)| match shape {
        b'd' => byte.is_ascii_digit(),
        other => byte == *other,
    });
    let fraction = rest.strip_prefix('.').map_or(0, |rest| 1 + rest.bytes().take_while(u8::is_ascii_digit).count());
    let zone = rest.get(fraction..)?.as_bytes();
    let zoned = match zone {
        b"Z" => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => [h1, h2, m1, m2].iter().all(|byte| byte.is_ascii_digit()),
        _ => false,
    };
    // jiff knows nine digits of a second; more are cut off.
    let kept = fraction.min(10);
    if !shaped || !zoned || fraction == 1 || bytes.len() > 64 {
        return None;
    }
    if kept == fraction {
        return text.parse().ok();
    }
    format!("{date_time}{}{}", &rest[..kept], &rest[fraction..]).parse().ok()
}

/// Until when a Wait waits: AWS leaves out what is below a second.
pub fn whole_seconds(moment: jiff::Timestamp) -> Timestamp {
    Timestamp(moment.as_second().saturating_mul(1_000))
}

#[cfg(test)]
mod tests {
    use super::parse_timestamp;

    #[test]
    fn only_rfc_3339_with_a_zone_is_a_timestamp() {
        for text in [
            "2016-03-14T01:59:00Z",
            "2016-03-14T01:59:00.000001Z",
            "2016-03-14T01:59:00.123456789012Z",
            "2016-03-14T01:59:00+01:00",
        ] {
            assert!(parse_timestamp(text).is_some(), "{text}");
        }
        for text in [
            "",
            "2016",
            "2016-03-14",
            "2016-03-14T01:59:00",
            "2016-03-14 01:59:00Z",
            "2016-13-14T01:59:00Z",
            "14-03-2016T01:59:00Z",
            "2016-03-14T25:59:00Z",
            "2016-03-14T01:59:00.Z",
            "2016-03-14t01:59:00z",
            "2016-03-14T01:59:00Z ",
            "2016-03-14T01:59:00[UTC]",
            "aaaaaaaaaaaaaaaaaaüZ",
            "2016-03-14T01:59:00+1:00",
        ] {
            assert!(parse_timestamp(text).is_none(), "{text}");
        }
        assert_eq!(parse_timestamp("2012-10-09T19:00:55+01:00"), parse_timestamp("2012-10-09T18:00:55Z"));
    }
}
