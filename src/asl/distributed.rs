//! What a distributed Map has beside other Maps: where its items come from, how they are grouped, where its results go.
//!
//! Terms: AWS Step Functions developer guide, "Map state input and output fields".

use serde::{Deserialize, Serialize};

use super::machine::{Count, Text, of_template};
use super::{ContextUse, Template};

/// `ItemReader`, `ItemBatcher`, `ResultWriter`.
#[derive(Debug, Default)]
pub struct Distributed {
    pub reader: Option<ItemReader>,
    pub batcher: Option<ItemBatcher>,
    pub writer: Option<ResultWriter>,
}

/// Items out of objects rather than out of the state's input.
#[derive(Debug)]
pub struct ItemReader {
    pub resource: ReadWith,
    /// `Parameters`, or JSONata's `Arguments`: bucket, key, prefix.
    pub parameters: Option<Template>,
    pub format: Format,
    pub max_items: Count,
    /// Where in a JSON file the items lie.
    pub pointer: Text,
}

/// The action that reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadWith {
    /// `s3:getObject`: the items are what the object holds.
    GetObject,
    /// `s3:listObjectsV2`: the items are the objects themselves.
    ListObjects,
}

/// `ReaderConfig`, but for what may be a path or an expression.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    pub input_type: Option<InputType>,
    /// `CSVHeaders`, where `CSVHeaderLocation` is `GIVEN`; otherwise the first row holds them.
    pub csv_headers: Option<Vec<String>>,
    pub csv_delimiter: Option<char>,
    /// `ManifestType: ATHENA_DATA`; otherwise a manifest is an S3 inventory.
    pub athena: bool,
    /// `Transformation: LOAD_AND_FLATTEN`: the items are what the listed objects hold.
    pub flatten: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputType {
    Csv,
    Json,
    JsonLines,
    Parquet,
    Manifest,
}

/// One child for some items together.
#[derive(Debug)]
pub struct ItemBatcher {
    pub max_items: Count,
    pub max_bytes: Count,
    /// `BatchInput`: what every child is given beside its items.
    pub input: Option<Template>,
}

#[derive(Debug)]
pub struct ResultWriter {
    /// `Parameters` or `Arguments` beside a `Resource`: bucket and prefix. Without, results only take their form.
    pub parameters: Option<Template>,
    /// Whether a `Resource` stands there.
    pub exports: bool,
    pub form: ResultForm,
}

/// `WriterConfig`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultForm {
    pub transformation: Transformation,
    pub lines: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transformation {
    /// Each child's output with what DescribeExecution says about it.
    None,
    /// Each child's output.
    Compact,
    /// The same; arrays among them are taken apart.
    Flatten,
}

impl Distributed {
    pub fn context_use(&self) -> ContextUse {
        let reader = self.reader.iter().flat_map(|reader| {
            [of_template(&reader.parameters), reader.max_items.context_use(), reader.pointer.context_use()]
        });
        let batcher = self.batcher.iter().flat_map(|batcher| {
            [of_template(&batcher.input), batcher.max_items.context_use(), batcher.max_bytes.context_use()]
        });
        let writer = self.writer.iter().map(|writer| of_template(&writer.parameters));
        ContextUse::most(reader.chain(batcher).chain(writer))
    }
}
