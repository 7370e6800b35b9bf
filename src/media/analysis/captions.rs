//! Caption text: SubRip and WebVTT files, and the removal of markup.

use super::decode::TimedText;

/// Removes tags and resolves the entities that captions use.
pub fn without_markup(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        plain.push_str(&rest[..at]);
        match rest[at..].find('>') {
            // A lone `<` in the text is no tag.
            Some(end) if rest[at + 1..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/') => {
                rest = &rest[at + end + 1..]
            }
            _ => {
                plain.push('<');
                rest = &rest[at + 1..];
            }
        }
    }
    plain.push_str(rest);
    for (entity, is) in [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&apos;", "'"),
        ("&#39;", "'"),
        ("&quot;", "\""),
        ("&nbsp;", " "),
        ("&amp;", "&"),
    ] {
        plain = plain.replace(entity, is);
    }
    plain
}

/// Reads SubRip or WebVTT; blocks that are neither a cue nor a note are passed over and counted.
pub fn parse(text: &str, track: usize) -> (Vec<TimedText>, usize) {
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n").replace('\r', "\n");
    let (mut cues, mut odd) = (Vec::new(), 0);
    for block in text.split("\n\n").map(str::trim).filter(|b| !b.is_empty()) {
        let lines: Vec<&str> = block.lines().collect();
        let Some(at) = lines.iter().position(|l| l.contains("-->")) else {
            let known = ["WEBVTT", "NOTE", "STYLE", "REGION"].iter().any(|k| block.starts_with(k));
            odd += usize::from(!known);
            continue;
        };
        let times = lines[at]
            .split_once("-->")
            .and_then(|(from, to)| Some((seconds(from.trim())?, seconds(to.split_whitespace().next()?)?)));
        match times {
            Some((start, end)) if end >= start => {
                let text = without_markup(&lines[at + 1..].join("\n")).trim().to_owned();
                if !text.is_empty() {
                    cues.push(TimedText { track, start, end: Some(end), text });
                }
            }
            _ => odd += 1,
        }
    }
    (cues, odd)
}

/// `01:02:03,456`, `01:02:03.456` or `02:03.456`.
fn seconds(text: &str) -> Option<f64> {
    let text = text.replace(',', ".");
    let parts: Vec<&str> = text.split(':').collect();
    if !(2..=3).contains(&parts.len()) {
        return None;
    }
    parts.iter().try_fold(0.0, |sum, part| {
        Some(sum * 60.0 + part.trim().parse::<f64>().ok().filter(|v| v.is_finite() && *v >= 0.0)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_caption_files_are_read() {
        let srt = "\u{feff}1\r\n00:00:01,500 --> 00:00:03,000\r\n<i>Hello</i> &amp; welcome\r\nto 3 < 4\r\n\r\n2\r\nnonsense\r\n";
        let (cues, odd) = parse(srt, 0);
        assert_eq!((cues.len(), odd), (1, 1));
        assert_eq!((cues[0].start, cues[0].end, cues[0].text.as_str()), (1.5, Some(3.0), "Hello & welcome\nto 3 < 4"));
        let vtt = "WEBVTT\n\nNOTE x\n\nid\n00:01.000 --> 01:00:02.000 align:start\n<v Ann>Hi";
        let (cues, odd) = parse(vtt, 0);
        assert_eq!((cues[0].start, cues[0].end, cues[0].text.as_str(), odd), (1.0, Some(3602.0), "Hi", 0));
    }
}
