//! What a file holds as items: CSV rows, JSON lines, the elements of a JSON array or the fields of a JSON object. Each is
//! bounded, whoever wrote the file: by the [`Meter`] as it stands there, by [`value`] as it is held.

use std::collections::HashSet;
use std::fmt;
use std::io::{BufRead, BufReader, Read};

use conveyor_asl::Format;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::meter::{ITEM_BYTES_MAX, Meter};
use super::value::{self, Held, Passed};
use super::{Out, Stop};

/// Longest header of a CSV file, in bytes (AWS: 10 KiB).
const HEADER_BYTES_MAX: usize = 10 << 10;
/// The same as it stands in the file, where names may be quoted.
const HEADER_WRITTEN_BYTES_MAX: u64 = 4 * HEADER_BYTES_MAX as u64;

/// Rows as objects of texts. What a row lacks is empty; what it has beyond the header is left out.
pub fn csv(
    format: &Format,
    content: impl Read,
    meter: &Meter,
    source: Option<&str>,
    out: &mut Out,
) -> Result<(), Stop> {
    out.begin(meter);
    let content = meter.of(content);
    let delimiter = format.csv_delimiter.and_then(|c| u8::try_from(c).ok()).unwrap_or(b',');
    let mut rows =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter).from_reader(content);
    let (mut header, mut row) = (format.csv_headers.clone(), csv::StringRecord::new());
    match &header {
        Some(header) => distinct(header)?,
        None => meter.begin(HEADER_WRITTEN_BYTES_MAX),
    }
    while rows.read_record(&mut row).map_err(|e| format!("the CSV file cannot be read: {e}"))? {
        let Some(header) = &header else {
            meter.begin(ITEM_BYTES_MAX);
            let names: Vec<String> = row.iter().map(|name| name.trim_start_matches('\u{feff}').to_owned()).collect();
            distinct(&names)?;
            header = Some(names);
            continue;
        };
        let field = |(at, name): (usize, &String)| (name.clone(), Value::from(row.get(at).unwrap_or_default()));
        let item: Map<String, Value> = header.iter().enumerate().map(field).collect();
        out.put(&Value::Object(item), None, source)?;
        meter.next();
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

pub fn json_lines(content: impl Read, meter: &Meter, source: Option<&str>, out: &mut Out) -> Result<(), Stop> {
    out.begin(meter);
    let mut lines = Lines::of(content, meter);
    while let Some(line) = lines.next()? {
        if line.trim().is_empty() {
            continue;
        }
        let item = value::from_text(line).map_err(|e| format!("line {} is no JSON item: {e}", lines.number))?;
        out.put(&item, None, source)?;
    }
    Ok(())
}

/// The lines of a file, one at a time.
pub struct Lines<R> {
    content: BufReader<R>,
    meter: Meter,
    line: String,
    number: u64,
}

impl<R: Read> Lines<R> {
    pub fn of(content: R, meter: &Meter) -> Lines<impl Read + use<R>> {
        Lines { content: BufReader::new(meter.of(content)), meter: meter.clone(), line: String::new(), number: 0 }
    }

    /// The next line, with its end.
    pub fn next(&mut self) -> Result<Option<&str>, Stop> {
        self.line.clear();
        self.meter.next();
        self.number += 1;
        let read = (&mut self.content).take(ITEM_BYTES_MAX + 1).read_line(&mut self.line);
        let read = read.map_err(|e| format!("line {} cannot be read: {e}", self.number))?;
        if read as u64 > ITEM_BYTES_MAX {
            let what = "the most that are read of one; split it, or name the file that holds it instead";
            return Err(Stop::Failed(format!("line {} has more than {ITEM_BYTES_MAX} bytes, {what}", self.number)));
        }
        Ok((read > 0).then_some(&self.line))
    }
}

/// The elements of an array or the fields of an object, at the top or where a pointer leads. Never held as a whole.
pub fn json(
    content: impl Read,
    meter: &Meter,
    pointer: Option<&str>,
    source: Option<&str>,
    out: &mut Out,
) -> Result<(), Stop> {
    let path: Vec<String> = match pointer.unwrap_or_default() {
        "" | "/" => Vec::new(),
        pointer => pointer
            .strip_prefix('/')
            .ok_or_else(|| format!("the ItemsPointer '{pointer}' is no JSON pointer: it begins with a slash"))?
            .split('/')
            .map(|part| part.replace("~1", "/").replace("~0", "~"))
            .collect(),
    };
    out.begin(meter);
    let (mut stop, mut found) = (None, false);
    let content = meter.of(BufReader::with_capacity(1 << 16, content));
    let mut texts = serde_json::Deserializer::from_reader(content);
    let walk = Walk { path: &path, source, out, meter, stop: &mut stop, found: &mut found };
    let end = walk.deserialize(&mut texts).and_then(|()| texts.end());
    match (stop, end) {
        (Some(stop), _) => Err(stop),
        (None, Err(e)) if e.is_io() => Err(Stop::Failed(format!("the file cannot be read: {e}"))),
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
    meter: &'w Meter,
    stop: &'w mut Option<Stop>,
    found: &'w mut bool,
}

impl Walk<'_> {
    fn below(&mut self) -> Walk<'_> {
        let Walk { path, source, out, meter, stop, found } = self;
        Walk { path: &path[1..], source: *source, out, meter, stop, found }
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
            self.meter.next();
            while let Some(item) = items.next_element_seed(Held { left: &mut value::room() })? {
                self.put(&item, None)?;
                self.meter.next();
            }
            return Ok(());
        }
        let wanted: Option<usize> = self.path[0].parse().ok();
        for at in 0.. {
            self.meter.next();
            let more = match Some(at) == wanted {
                true => items.next_element_seed(self.below())?.is_some(),
                false => items.next_element_seed(Passed(self.meter))?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<(), A::Error> {
        *self.found |= self.path.is_empty();
        self.meter.next();
        while let Some(name) = fields.next_key::<String>()? {
            match self.path.first() {
                None => {
                    let value = fields.next_value_seed(Held { left: &mut value::room() })?;
                    self.put(&value, Some(&name))?;
                }
                Some(wanted) if *wanted == name => fields.next_value_seed(self.below())?,
                Some(_) => fields.next_value_seed(Passed(self.meter))?,
            }
            self.meter.next();
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
        let mut out = Out::new(sink, most);
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
        let rows = |format: &Format, text: &str, most| {
            items(|out| csv(format, text.as_bytes(), &Meter::new(), None, out), most)
        };
        let quoted = "id,name\n1,\"a, \"\"b\"\"\nc\"\n2\n3,x,beyond\n";
        let read = rows(&plain, quoted, 9).unwrap();
        let expected =
            [r#"[{"id":"1","name":"a, \"b\"\nc"}]"#, r#"[{"id":"2","name":""}]"#, r#"[{"id":"3","name":"x"}]"#];
        assert_eq!(read, expected);
        assert_eq!(rows(&plain, quoted, 1).unwrap().len(), 1);
        let given = Format { csv_headers: Some(vec!["k".into()]), csv_delimiter: Some('|'), ..Format::default() };
        assert_eq!(rows(&given, "a|b\nc", 9).unwrap(), [r#"[{"k":"a"}]"#, r#"[{"k":"c"}]"#]);
        assert_eq!(rows(&plain, "a,a\n1,2", 9).unwrap_err(), "CSV headers cannot contain duplicates.");

        let lines = |text: &str| items(|out| json_lines(text.as_bytes(), &Meter::new(), Some("s3://b/k"), out), 9);
        assert_eq!(lines("{\"a\":1}\n\n2").unwrap(), [r#"[{"a":1},null,"s3://b/k"]"#, r#"[2,null,"s3://b/k"]"#]);
        assert!(lines("1\nx").unwrap_err().starts_with("line 2 is no JSON"));

        let whole = |text: &str, at| items(|out| json(text.as_bytes(), &Meter::new(), at, None, out), 9);
        assert_eq!(whole("[1,[2]]", None).unwrap(), ["[1]", "[[2]]"]);
        assert_eq!(whole(r#"{"a":1}"#, None).unwrap(), [r#"[1,"a",null]"#]);
        assert_eq!(whole(r#"{"x":{"y":[7]},"z":0}"#, Some("/x/y")).unwrap(), ["[7]"]);
        assert_eq!(whole("7", None).unwrap_err(), "Attempting to map over non-iterable node.");
        assert!(whole("{}", Some("/x")).unwrap_err().contains("leads to nothing"));
        assert!(whole("[1,", None).unwrap_err().contains("no JSON"));
    }

    /// What a stranger's file says for ever; each way to hold all of it is tried with more than the box has memory.
    struct Endless {
        begin: &'static str,
        again: &'static str,
        read: u64,
    }

    impl Read for Endless {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let (begin, again) = (self.begin.as_bytes(), self.again.as_bytes());
            for byte in into.iter_mut() {
                let at = self.read as usize;
                *byte = begin.get(at).copied().unwrap_or_else(|| again[(at - begin.len()) % again.len()]);
                self.read += 1;
            }
            Ok(into.len())
        }
    }

    #[test]
    fn an_item_without_end_ends_the_reading_soon() {
        type Read = fn(&mut Endless, &mut Out) -> Result<(), Stop>;
        let rows: Read = |content, out| csv(&Format::default(), content, &Meter::new(), None, out);
        let lines: Read = |content, out| json_lines(content, &Meter::new(), None, out);
        let whole: Read = |content, out| json(content, &Meter::new(), None, None, out);
        let below: Read = |content, out| json(content, &Meter::new(), Some("/items"), None, out);
        for (case, read, begin, again, said) in [
            ("a field", rows, "a\n1\n", "x", "one item has more than 8388608 bytes"),
            ("a quoted field", rows, "a\n\"", "x\n", "one item has more than 8388608 bytes"),
            ("fields", rows, "a\n", ",", "one item has more than 8388608 bytes"),
            ("empty rows", rows, "a\n", "\n", "one item has more than 8388608 bytes"),
            ("a header", rows, "", "a,", "one item has more than 40960 bytes"),
            ("a line", lines, "1\n", "7", "line 2 has more than 8388608 bytes"),
            ("a text", whole, "[1, \"", "x", "one item has more than 8388608 bytes"),
            ("spaces", whole, "[1, ", " ", "one item has more than 8388608 bytes"),
            ("an item", whole, "[[1", ",1", "one item "),
            ("small parts", whole, "[[[]", ",[[]]", "one item takes more than 67108864 bytes of memory"),
            ("small fields", whole, "[{", "\"a\":{\"\":1},", "one item takes more than 67108864 bytes of memory"),
            ("a depth", whole, "", "[", "recursion limit"),
            ("a depth beside the way", below, "{\"x\":", "[", "recursion limit"),
            ("a text beside the way", below, "{\"x\":\"", "x", "one item has more than 8388608 bytes"),
            ("a name", below, "{\"", "x", "one item has more than 8388608 bytes"),
        ] {
            let mut content = Endless { begin, again, read: 0 };
            let said_at_last = items(|out| read(&mut content, out), 9).unwrap_err();
            assert!(said_at_last.contains(said), "{case}: {said_at_last}");
            assert!(content.read <= ITEM_BYTES_MAX + (256 << 10), "{case}: {} bytes were read", content.read);
        }
        // What lies beside the way may be long, as long as its parts are not.
        let beside = format!("{{\"x\":[{}0],\"items\":[7]}}", "\"a text of some length\",".repeat(1 << 19));
        assert!(beside.len() as u64 > ITEM_BYTES_MAX);
        assert_eq!(items(|out| json(beside.as_bytes(), &Meter::new(), Some("/items"), None, out), 9).unwrap(), ["[7]"]);
    }

    #[test]
    fn a_long_header_over_short_rows_does_not_fill_the_store() {
        let read = |content: &mut dyn Read, most: u64| -> (String, usize) {
            let (sink, mut taken) = tokio::sync::mpsc::channel::<Vec<String>>(1);
            let took = std::thread::spawn(move || {
                let mut bytes = 0_usize;
                while let Some(lines) = taken.blocking_recv() {
                    bytes += lines.iter().map(String::len).sum::<usize>();
                }
                bytes
            });
            let mut out = Out::new(sink, most);
            let end = csv(&Format::default(), content, &Meter::new(), None, &mut out);
            drop(out);
            let said = if let Err(Stop::Failed(what)) = end { what } else { String::new() };
            (said, took.join().unwrap())
        };
        let header = (0..64).map(|n| format!("{n:0>120}")).collect::<Vec<_>>().join(",");
        let mut wide = header.as_bytes().chain(Endless { begin: "\n", again: "1\n", read: 0 });
        let (said, bytes) = read(&mut wide, u64::MAX);
        assert!(said.contains("repeats the names of all columns"), "{said}");
        assert!(bytes <= 66 << 20, "{bytes}");
        // Rows of commas alone, under names of ten letters.
        let header = (0..100).map(|n| format!("{n:0>10}")).collect::<Vec<_>>().join(",");
        let row: &'static str = Box::leak(format!("{}\n", ",".repeat(99)).into_boxed_str());
        let mut sparse = header.as_bytes().chain(Endless { begin: "\n", again: row, read: 0 });
        let (said, bytes) = read(&mut sparse, 60_000);
        assert!(said.is_empty() && bytes > 70 << 20, "{bytes}: {said}");
    }

    #[test]
    fn an_item_just_below_the_bound_is_read() {
        let text = "x".repeat(ITEM_BYTES_MAX as usize - 10);
        let read = items(|out| csv(&Format::default(), format!("a\n{text}\n").as_bytes(), &Meter::new(), None, out), 9);
        assert_eq!(read.unwrap()[0].len(), text.len() + "[{\"a\":\"\"}]".len());
        let read = items(|out| json_lines(format!("\"{text}\"\n").as_bytes(), &Meter::new(), None, out), 9);
        assert_eq!(read.unwrap().len(), 1);
        let numbers = format!("[[{}0]]", "0.125,".repeat(500_000));
        assert_eq!(items(|out| json(numbers.as_bytes(), &Meter::new(), None, None, out), 9).unwrap().len(), 1);
    }

    #[test]
    fn what_blows_up_is_no_file_and_what_packs_well_is_one() {
        use std::io::Write as _;
        let member = |text: &[u8]| {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            packer.write_all(text).unwrap();
            packer.finish().unwrap()
        };
        let unpacked = |packed: &[u8]| {
            let meter = Meter::new();
            let mut content = meter.of(flate2::read::MultiGzDecoder::new(meter.packed(packed)));
            let (mut some, mut all) = (vec![0; 1 << 16], 0);
            loop {
                meter.next();
                match content.read(&mut some) {
                    Ok(0) => return Ok(all),
                    Ok(read) => all += read as u64,
                    Err(e) => return Err((all, e.to_string())),
                }
            }
        };
        // Members one after the other are one file.
        let zeros = member(&vec![b'\n'; 1 << 20]).repeat(3_072);
        let (read, said) = unpacked(&zeros).unwrap_err();
        assert!(read <= 17 << 20 && said.contains("more than 200 times as long"), "{read}: {said}");
        let rows: String =
            (0..40_000).map(|n| format!("\"bucket\",\"folder/of/a/day/{n}.mov\",{}\n", n * 7_919)).collect();
        let inventory = member(rows.as_bytes()).repeat(60);
        assert_eq!(unpacked(&inventory).unwrap(), rows.len() as u64 * 60);
        assert!(rows.len() as u64 * 60 > 16 << 20, "beyond what is free");
    }
}
