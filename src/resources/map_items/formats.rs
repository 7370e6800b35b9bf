//! What a file holds as items: CSV rows, JSON lines, the elements of a JSON array or the fields of a JSON object.

use std::collections::HashSet;
use std::fmt;
use std::io::{BufRead, BufReader, Read};

use conveyor_asl::Format;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{Out, Stop};

/// Longest line of a JSON Lines file, in bytes (AWS: 8 MB).
const LINE_BYTES_MAX: u64 = 8 << 20;
/// Longest header of a CSV file, in bytes (AWS: 10 KiB).
const HEADER_BYTES_MAX: usize = 10 << 10;

/// Rows as objects of texts. What a row lacks is empty; what it has beyond the header is left out.
pub fn csv(format: &Format, content: impl Read, source: Option<&str>, out: &mut Out) -> Result<(), Stop> {
    let delimiter = format.csv_delimiter.and_then(|c| u8::try_from(c).ok()).unwrap_or(b',');
    let mut rows =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter).from_reader(content);
    let (mut header, mut row) = (format.csv_headers.clone(), csv::StringRecord::new());
    if let Some(header) = &header {
        distinct(header)?;
    }
    while rows.read_record(&mut row).map_err(|e| format!("the CSV file cannot be read: {e}"))? {
        let Some(header) = &header else {
            let names: Vec<String> = row.iter().map(|name| name.trim_start_matches('\u{feff}').to_owned()).collect();
            distinct(&names)?;
            header = Some(names);
            continue;
        };
        let field = |(at, name): (usize, &String)| (name.clone(), Value::from(row.get(at).unwrap_or_default()));
        let item: Map<String, Value> = header.iter().enumerate().map(field).collect();
        out.put(&Value::Object(item), None, source)?;
    }
    Ok(())
}

fn distinct(header: &[String]) -> Result<(), Stop> {
    let mut seen = HashSet::new();
    if !header.iter().all(|name| seen.insert(name)) {
        return Err(Stop::Failed("CSV headers cannot contain duplicates.".to_owned()));
    }
    match header.iter().map(String::len).sum::<usize>() > HEADER_BYTES_MAX {
        true => Err(Stop::Failed(format!("the CSV header has more than {HEADER_BYTES_MAX} bytes"))),
        false => Ok(()),
    }
}

pub fn json_lines(content: impl Read, source: Option<&str>, out: &mut Out) -> Result<(), Stop> {
    let mut content = BufReader::new(content);
    let mut line = String::new();
    for number in 1.. {
        line.clear();
        let read = (&mut content).take(LINE_BYTES_MAX + 1).read_line(&mut line);
        let read = read.map_err(|e| format!("line {number} cannot be read: {e}"))?;
        if read == 0 {
            return Ok(());
        }
        if line.len() as u64 > LINE_BYTES_MAX {
            return Err(Stop::Failed(format!("line {number} has more than {LINE_BYTES_MAX} bytes")));
        }
        if line.trim().is_empty() {
            continue;
        }
        let item: Value = serde_json::from_str(&line).map_err(|e| format!("line {number} is no JSON: {e}"))?;
        out.put(&item, None, source)?;
    }
    Ok(())
}

/// The elements of an array or the fields of an object, at the top or where a pointer leads. Never held as a whole.
pub fn json(content: impl Read, pointer: Option<&str>, source: Option<&str>, out: &mut Out) -> Result<(), Stop> {
    let path: Vec<String> = match pointer.unwrap_or_default() {
        "" | "/" => Vec::new(),
        pointer => pointer
            .strip_prefix('/')
            .ok_or_else(|| format!("the ItemsPointer '{pointer}' is no JSON pointer: it begins with a slash"))?
            .split('/')
            .map(|part| part.replace("~1", "/").replace("~0", "~"))
            .collect(),
    };
    let (mut stop, mut found) = (None, false);
    let mut texts = serde_json::Deserializer::from_reader(BufReader::with_capacity(1 << 16, content));
    let walk = Walk { path: &path, source, out, stop: &mut stop, found: &mut found };
    let end = walk.deserialize(&mut texts).and_then(|()| texts.end());
    match (stop, end) {
        (Some(stop), _) => Err(stop),
        (None, Err(e)) => Err(Stop::Failed(format!("the file is no JSON: {e}"))),
        (None, Ok(())) if !found => {
            Err(Stop::Failed(format!("the ItemsPointer '{}' leads to nothing", pointer.unwrap_or_default())))
        }
        (None, Ok(())) => Ok(()),
    }
}

/// One value on the way: of what lies beside the way nothing is kept.
struct Walk<'w> {
    path: &'w [String],
    source: Option<&'w str>,
    out: &'w mut Out,
    stop: &'w mut Option<Stop>,
    found: &'w mut bool,
}

impl Walk<'_> {
    fn below(&mut self) -> Walk<'_> {
        Walk { path: &self.path[1..], source: self.source, out: self.out, stop: self.stop, found: self.found }
    }

    fn no_collection<E: serde::de::Error>(self) -> Result<(), E> {
        if self.path.is_empty() {
            *self.stop = Some(Stop::Failed("Attempting to map over non-iterable node.".to_owned()));
        }
        Ok(())
    }

    /// Ends the parser, whose own error then says nothing.
    fn put<E: serde::de::Error>(&mut self, value: &Value, key: Option<&str>) -> Result<(), E> {
        self.out.put(value, key, self.source).map_err(|stop| {
            *self.stop = Some(stop);
            E::custom("stopped")
        })
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        if self.path.is_empty() {
            *self.found = true;
            while let Some(item) = items.next_element::<Value>()? {
                self.put(&item, None)?;
            }
            return Ok(());
        }
        let wanted: Option<usize> = self.path[0].parse().ok();
        for at in 0.. {
            let more = match Some(at) == wanted {
                true => items.next_element_seed(self.below())?.is_some(),
                false => items.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<(), A::Error> {
        *self.found |= self.path.is_empty();
        while let Some(name) = fields.next_key::<String>()? {
            match self.path.first() {
                None => {
                    let value = fields.next_value::<Value>()?;
                    self.put(&value, Some(&name))?;
                }
                Some(wanted) if *wanted == name => fields.next_value_seed(self.below())?,
                Some(_) => drop(fields.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        self.no_collection()
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.no_collection()
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.no_collection()
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.no_collection()
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        self.no_collection()
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.no_collection()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(read: impl FnOnce(&mut Out) -> Result<(), Stop>, most: u64) -> Result<Vec<String>, String> {
        let (sink, mut taken) = tokio::sync::mpsc::channel(100);
        let mut out = Out { sink, lines: Vec::new(), left: most };
        match read(&mut out) {
            Ok(()) | Err(Stop::Enough) => drop(out.flush()),
            Err(Stop::Failed(what)) => return Err(what),
        }
        drop(out);
        let mut lines = Vec::new();
        while let Some(some) = taken.blocking_recv() {
            lines.extend(some);
        }
        Ok(lines)
    }

    #[test]
    fn rows_lines_elements_and_fields_are_items() {
        let plain = Format::default();
        let rows = |format: &Format, text: &str, most| items(|out| csv(format, text.as_bytes(), None, out), most);
        let quoted = "id,name\n1,\"a, \"\"b\"\"\nc\"\n2\n3,x,beyond\n";
        let read = rows(&plain, quoted, 9).unwrap();
        let expected =
            [r#"[{"id":"1","name":"a, \"b\"\nc"}]"#, r#"[{"id":"2","name":""}]"#, r#"[{"id":"3","name":"x"}]"#];
        assert_eq!(read, expected);
        assert_eq!(rows(&plain, quoted, 1).unwrap().len(), 1);
        let given = Format { csv_headers: Some(vec!["k".into()]), csv_delimiter: Some('|'), ..Format::default() };
        assert_eq!(rows(&given, "a|b\nc", 9).unwrap(), [r#"[{"k":"a"}]"#, r#"[{"k":"c"}]"#]);
        assert_eq!(rows(&plain, "a,a\n1,2", 9).unwrap_err(), "CSV headers cannot contain duplicates.");

        let lines = |text: &str| items(|out| json_lines(text.as_bytes(), Some("s3://b/k"), out), 9);
        assert_eq!(lines("{\"a\":1}\n\n2").unwrap(), [r#"[{"a":1},null,"s3://b/k"]"#, r#"[2,null,"s3://b/k"]"#]);
        assert!(lines("1\nx").unwrap_err().starts_with("line 2 is no JSON"));

        let whole = |text: &str, at| items(|out| json(text.as_bytes(), at, None, out), 9);
        assert_eq!(whole("[1,[2]]", None).unwrap(), ["[1]", "[[2]]"]);
        assert_eq!(whole(r#"{"a":1}"#, None).unwrap(), [r#"[1,"a",null]"#]);
        assert_eq!(whole(r#"{"x":{"y":[7]},"z":0}"#, Some("/x/y")).unwrap(), ["[7]"]);
        assert_eq!(whole("7", None).unwrap_err(), "Attempting to map over non-iterable node.");
        assert!(whole("{}", Some("/x")).unwrap_err().contains("leads to nothing"));
        assert!(whole("[1,", None).unwrap_err().contains("no JSON"));
    }
}
