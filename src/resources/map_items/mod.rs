//! Items of distributed Maps out of objects, and their results into objects (AWS: ItemReader, ResultWriter).
//!
//! ```text
//! getObject      JSON | JSONL | CSV | S3 inventory | Athena manifest ──┐
//! listObjectsV2  keys ─(LOAD_AND_FLATTEN: what those objects hold)─────┴─> lines ─> the run's pages
//! ```
//! A bucket is a share; one that is none is asked for at the endpoint of `[aws]`. Objects are read as streams: what is
//! held at a time is one item and one batch of lines, however many there are, and an item is bounded ([`meter`]).

mod formats;
mod meter;
mod value;

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::sync::Arc;

use conveyor_asl::{Format, InputType, ReadWith};
use conveyor_base::fault::chain;
use conveyor_base::{ShareIo, Shares, TaskError};
use conveyor_interpreter::map_run::ReadItems;
use conveyor_run::{Fill, ItemSink};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::forward::{self, Endpoint};
use super::objects;
use meter::Meter;

/// Items that are handed on together, and the bytes at which fewer are.
const LINES_PER_BATCH: usize = 256;
const BATCH_BYTES: usize = 1 << 20;
/// How many bytes of items one byte that was read may become: each row of a CSV file repeats the header, each item the name of
/// its file. A row of commas alone under names of ten letters becomes 15; what becomes more would fill the store.
const GROWTH_MAX: u64 = 32;
/// Bytes of items up to which that is not asked.
const GROWTH_FREE_BYTES: u64 = 64 << 20;
/// Most items of one Map (AWS: 100,000,000).
const ITEMS_MAX: u64 = 100_000_000;

/// Bytes of results that are sent to the endpoint as one object: they are held in memory for that.
const ENDPOINT_OBJECT_BYTES_MAX: usize = 256 << 20;

/// Why reading ended: the reason, or that enough was read.
pub(super) enum Stop {
    Enough,
    Failed(String),
}

impl From<String> for Stop {
    fn from(what: String) -> Stop {
        Stop::Failed(what)
    }
}

/// Where items and results lie.
#[derive(Clone)]
pub struct Buckets {
    io: ShareIo,
    /// For buckets that are no shares.
    endpoint: Option<Arc<Endpoint>>,
}

impl Buckets {
    pub fn new(io: ShareIo, endpoint: Option<Arc<Endpoint>>) -> Buckets {
        Buckets { io, endpoint }
    }

    /// Reads all items there are, or as many as are wanted.
    pub async fn read(self, reader: ReadItems, sink: ItemSink) -> Result<(), TaskError> {
        let failed = |cause: String| TaskError::new("States.ItemReaderFailed", cause);
        let runtime = Handle::current();
        let io = self.io.clone();
        let bucket = reader.parameters.get("Bucket").and_then(Value::as_str).unwrap_or_default();
        let share = objects::share_of(bucket).to_owned();
        let work = move |_: &Shares| {
            let most = reader.max_items.unwrap_or(u64::MAX);
            let mut out = Out::new(sink, most);
            let source = Source { buckets: &self, runtime };
            let end = match reader.with {
                ReadWith::GetObject => source.object(&reader, &mut out),
                ReadWith::ListObjects => source.listed(&reader, &mut out),
            };
            match end {
                Ok(()) | Err(Stop::Enough) => out.flush().map_err(|_| String::from("nobody takes the items")),
                Err(Stop::Failed(what)) => Err(what),
            }
        };
        match io.run_long(&[&share], work).await {
            Ok(end) => end.map_err(failed),
            Err(e) => Err(failed(format!("Reading the items broke off: {}", chain(&e)))),
        }
    }

    /// Writes an object to a share, or to the endpoint.
    pub async fn write(self, bucket: String, key: String, fill: Fill) -> Result<u64, TaskError> {
        let failed = |cause: String| TaskError::new("States.ResultWriterFailed", cause);
        if let Some(endpoint) = self.remote(&bucket) {
            // It walks all the children: work for a thread that may block.
            let gathered = self.io.run_long(&[], move |_| {
                let mut body = InMemory(Vec::new());
                fill(&mut body).map(|()| body.0)
            });
            let body = match gathered.await {
                Ok(body) => body.map_err(|e| failed(e.to_string()))?,
                Err(e) => return Err(failed(format!("Writing the results broke off: {}", chain(&e)))),
            };
            let size = body.len() as u64;
            put(endpoint, &bucket, &key, body).await.map_err(failed)?;
            return Ok(size);
        }
        let share = objects::share_of(&bucket).to_owned();
        let work = move |shares: &Shares| objects::write_whole(shares, &bucket, &key, fill);
        match self.io.run_long(&[&share], work).await {
            Ok(end) => end.map_err(|e| failed(e.cause)),
            Err(e) => Err(failed(format!("Writing the results broke off: {}", chain(&e)))),
        }
    }

    /// The endpoint, where the bucket is no share and there is one.
    fn remote(&self, bucket: &str) -> Option<&Endpoint> {
        self.endpoint.as_deref().filter(|_| !objects::is_share(self.io.shares(), bucket))
    }
}

/// A request's body on its way to the endpoint, which gets it whole.
struct InMemory(Vec<u8>);

impl Write for InMemory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > ENDPOINT_OBJECT_BYTES_MAX {
            let what = "the results are longer than the 256 MiB that are sent to the endpoint as one object; write them to a share";
            return Err(io::Error::other(what));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn put(endpoint: &Endpoint, bucket: &str, key: &str, body: Vec<u8>) -> Result<(), String> {
    let (operation, _) = forward::find("aws-sdk", "s3:putObject").ok_or("there is no s3:putObject")?;
    forward::exchange(endpoint, operation, &json!({"Bucket": bucket, "Key": key}), Some(body)).await.map(drop)
}

/// Where items go.
pub(super) struct Out {
    sink: ItemSink,
    lines: Vec<String>,
    bytes: usize,
    /// Items that are still wanted.
    left: u64,
    put: u64,
    /// Bytes of all items, and those of all files before this one.
    made: u64,
    read_before: u64,
    meter: Option<Meter>,
}

impl Out {
    fn new(sink: ItemSink, most: u64) -> Out {
        Out { sink, lines: Vec::new(), bytes: 0, left: most, put: 0, made: 0, read_before: 0, meter: None }
    }

    /// From here on items are of the file that is counted there.
    pub fn begin(&mut self, meter: &Meter) {
        self.read_before += self.meter.replace(meter.clone()).map_or(0, |meter| meter.bytes());
    }

    fn check_growth(&self) -> Result<(), Stop> {
        let Some(meter) = &self.meter else { return Ok(()) };
        let read = self.read_before + meter.bytes();
        if self.made > GROWTH_FREE_BYTES && self.made / GROWTH_MAX > read {
            return Err(Stop::Failed(format!(
                "{read} bytes became {} bytes of items, and at most {GROWTH_MAX} times as many are kept beyond {} MiB: each row \
                 repeats the names of all columns. Shorten them, or leave out columns that are empty",
                self.made,
                GROWTH_FREE_BYTES >> 20
            )));
        }
        Ok(())
    }

    pub fn put(&mut self, value: &Value, key: Option<&str>, source: Option<&str>) -> Result<(), Stop> {
        if self.left == 0 {
            return Err(Stop::Enough);
        }
        (self.left, self.put) = (self.left - 1, self.put + 1);
        if self.put > ITEMS_MAX {
            let what = "the most that one Map goes over; give fewer files to it, or say MaxItems";
            return Err(Stop::Failed(format!("there are more than {ITEMS_MAX} items, {what}")));
        }
        let line = match (key, source) {
            (None, None) => format!("[{value}]"),
            (key, source) => json!([value, key, source]).to_string(),
        };
        self.bytes += line.len();
        self.made += line.len() as u64;
        self.check_growth()?;
        self.lines.push(line);
        if self.lines.len() >= LINES_PER_BATCH || self.bytes >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Stop> {
        if self.lines.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        // The run was stopped: its driver listens no more.
        self.sink.blocking_send(std::mem::take(&mut self.lines)).map_err(|_| Stop::Enough)
    }
}

/// The manifest of an S3 inventory, as far as it matters.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Inventory {
    file_format: Option<String>,
    file_schema: Option<String>,
    destination_bucket: Option<String>,
    files: Option<Vec<InventoryFile>>,
}

#[derive(Deserialize)]
struct InventoryFile {
    key: Option<String>,
}

struct Source<'s> {
    buckets: &'s Buckets,
    runtime: Handle,
}

impl Source<'_> {
    fn object(&self, reader: &ReadItems, out: &mut Out) -> Result<(), Stop> {
        let (bucket, key) = (text(reader, "Bucket")?, text(reader, "Key")?);
        let format = &reader.format;
        let content = self.open(bucket, key)?;
        if format.athena {
            let mut manifest = formats::Lines::of(content, &Meter::new());
            while let Some(line) = manifest.next().map_err(|e| of_object(e, bucket, key))? {
                let line = line.trim().trim_matches('"');
                if line.is_empty() {
                    continue;
                }
                let (bucket, key) = place(line).ok_or_else(|| format!("'{line}' is no s3:// URI of a data file"))?;
                let content = self.open(bucket, key)?;
                read_one(format, reader.pointer.as_deref(), content, Some(line), out)
                    .map_err(|e| of_object(e, bucket, key))?;
            }
            return Ok(());
        }
        if format.input_type == Some(InputType::Manifest) {
            return self.inventory(bucket, key, content, out);
        }
        read_one(format, reader.pointer.as_deref(), content, None, out).map_err(|e| of_object(e, bucket, key))
    }

    /// The objects that an S3 inventory lists: its data files are CSV, as a rule compressed.
    fn inventory(&self, bucket: &str, key: &str, content: impl Read, out: &mut Out) -> Result<(), Stop> {
        let wrong = |what: &str| Stop::Failed(format!("The S3 inventory manifest s3://{bucket}/{key} {what}"));
        let text = Meter::new().of(BufReader::with_capacity(1 << 16, content));
        let manifest: Inventory = serde_json::from_reader(text).map_err(|e| match e.is_io() {
            true => wrong(&format!("cannot be read: {e}")),
            false => wrong(&format!("is no inventory's JSON: {e}")),
        })?;
        if manifest.file_format.is_some_and(|format| format != "CSV") {
            return Err(wrong("lists files in another format than CSV"));
        }
        let schema = manifest.file_schema.ok_or_else(|| wrong("has no fileSchema"))?;
        let columns: Vec<String> = schema.split(',').map(|name| name.trim().to_owned()).collect();
        let format = Format { csv_headers: Some(columns), ..Format::default() };
        let files = manifest.files.ok_or_else(|| wrong("lists no files"))?;
        let from = manifest.destination_bucket.as_deref().unwrap_or(bucket).trim_start_matches("arn:aws:s3:::");
        for file in files {
            let name = &file.key.ok_or_else(|| wrong("lists a file without a key"))?;
            let (content, meter) = (self.open(from, name)?, Meter::new());
            let content: Box<dyn Read> = match name.ends_with(".gz") {
                true => Box::new(flate2::read::MultiGzDecoder::new(meter.packed(content))),
                false => content,
            };
            formats::csv(&format, content, &meter, None, out).map_err(|e| of_object(e, from, name))?;
        }
        Ok(())
    }

    /// The objects of a bucket, or what they hold.
    fn listed(&self, reader: &ReadItems, out: &mut Out) -> Result<(), Stop> {
        let bucket = text(reader, "Bucket")?;
        let prefix = reader.parameters.get("Prefix").and_then(Value::as_str).unwrap_or_default();
        let mut see = |item: Value| {
            let key = item.get("Key").and_then(Value::as_str).unwrap_or_default().to_owned();
            // S3 shows folders as empty objects; they hold nothing.
            if !reader.format.flatten {
                return out.put(&item, None, None);
            }
            if key.ends_with('/') {
                return Ok(());
            }
            let content = self.open(bucket, &key)?;
            let uri = format!("s3://{bucket}/{key}");
            read_one(&reader.format, reader.pointer.as_deref(), content, Some(&uri), out)
                .map_err(|e| of_object(e, bucket, &key))
        };
        match self.buckets.remote(bucket) {
            None => {
                let listed = objects::list_all(self.buckets.io.shares(), bucket, prefix).map_err(|e| e.cause)?;
                listed.into_iter().try_for_each(see)
            }
            Some(endpoint) => {
                let mut token: Option<String> = None;
                loop {
                    let (items, next) = self.runtime.block_on(list(endpoint, bucket, prefix, token))?;
                    items.into_iter().try_for_each(&mut see)?;
                    match next {
                        Some(next) => token = Some(next),
                        None => return Ok(()),
                    }
                }
            }
        }
    }

    fn open(&self, bucket: &str, key: &str) -> Result<Box<dyn Read>, Stop> {
        match self.buckets.remote(bucket) {
            None => {
                let file: File = objects::open(self.buckets.io.shares(), bucket, key).map_err(|e| e.cause)?;
                Ok(Box::new(BufReader::with_capacity(1 << 16, file)))
            }
            Some(endpoint) => {
                let (operation, _) =
                    forward::find("aws-sdk", "s3:getObject").ok_or_else(|| String::from("there is no s3:getObject"))?;
                let asked = json!({"Bucket": bucket, "Key": key});
                let answer = self.runtime.block_on(forward::exchange(endpoint, operation, &asked, None))?;
                Ok(Box::new(io::Cursor::new(answer.body)))
            }
        }
    }
}

async fn list(
    endpoint: &Endpoint,
    bucket: &str,
    prefix: &str,
    token: Option<String>,
) -> Result<(Vec<Value>, Option<String>), String> {
    let (operation, _) = forward::find("aws-sdk", "s3:listObjectsV2").ok_or("there is no s3:listObjectsV2")?;
    let mut asked = json!({"Bucket": bucket, "Prefix": prefix});
    if let Some(token) = token {
        asked["ContinuationToken"] = token.into();
    }
    let answer = forward::exchange(endpoint, operation, &asked, None).await?;
    let answer = forward::answer(operation, &answer)?;
    let shown = |found: &Value| {
        let at = found.get("LastModified").and_then(Value::as_str).and_then(conveyor_asl::parse_timestamp);
        json!({
            "Etag": found.get("ETag"), "Key": found.get("Key"), "LastModified": at.map(jiff::Timestamp::as_second),
            "Size": found.get("Size"), "StorageClass": found.get("StorageClass"),
        })
    };
    let items = answer.get("Contents").and_then(Value::as_array).map(|all| all.iter().map(shown).collect());
    let next = answer.get("NextContinuationToken").and_then(Value::as_str).map(str::to_owned);
    Ok((items.unwrap_or_default(), next))
}

fn read_one(
    format: &Format,
    pointer: Option<&str>,
    content: Box<dyn Read>,
    source: Option<&str>,
    out: &mut Out,
) -> Result<(), Stop> {
    let meter = Meter::new();
    match format.input_type {
        Some(InputType::Csv) => formats::csv(format, content, &meter, source, out),
        Some(InputType::JsonLines) => formats::json_lines(content, &meter, source, out),
        Some(InputType::Json) | None => formats::json(content, &meter, pointer, source, out),
        Some(InputType::Parquet) => Err(Stop::Failed(
            "This box does not read Parquet files: write the data as CSV, JSON or JSON Lines".to_owned(),
        )),
        Some(InputType::Manifest) => Err(Stop::Failed("A manifest cannot list manifests".to_owned())),
    }
}

fn text<'r>(reader: &'r ReadItems, name: &str) -> Result<&'r str, Stop> {
    let found = reader.parameters.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    found.ok_or_else(|| Stop::Failed(format!("The ItemReader's field '{name}' must be a string that is not empty")))
}

fn place(uri: &str) -> Option<(&str, &str)> {
    uri.strip_prefix("s3://")?.split_once('/')
}

/// AWS's sentences stand alone; others say which object they are about.
fn of_object(stop: Stop, bucket: &str, key: &str) -> Stop {
    match stop {
        Stop::Failed(what) if what.ends_with('.') || what.starts_with("s3://") => Stop::Failed(what),
        Stop::Failed(what) => Stop::Failed(format!("s3://{bucket}/{key}: {what}")),
        enough => enough,
    }
}
