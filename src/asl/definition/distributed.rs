//! `ItemReader`, `ItemBatcher` and `ResultWriter` of a distributed Map.

use super::checker::{Checker, Fields};
use super::json::{Kind as Json, Node};
use super::jsonata;
use super::state::SECONDS_MAX;
use crate::distributed::*;
use crate::template::Segment;
use crate::{Count, QueryLanguage, Template, Text};

/// Longest input of a child in bytes (AWS: 256 KiB).
const BATCH_BYTES_MAX: u64 = 262_144;
/// Most items that a reader may be told to read (AWS: 100,000,000).
const ITEMS_MAX: u64 = 100_000_000;

/// `CSVDelimiter`, as AWS names them.
const DELIMITERS: [(&str, char); 5] =
    [("COMMA", ','), ("PIPE", '|'), ("SEMICOLON", ';'), ("SPACE", ' '), ("TAB", '\t')];

const INPUT_TYPES: [(&str, InputType); 5] = [
    ("CSV", InputType::Csv),
    ("JSON", InputType::Json),
    ("MANIFEST", InputType::Manifest),
    ("JSONL", InputType::JsonLines),
    ("PARQUET", InputType::Parquet),
];

impl Checker<'_> {
    pub(super) fn distributed(&mut self, fields: &mut Fields) -> Distributed {
        Distributed {
            reader: self.field(fields, "ItemReader", Checker::item_reader),
            batcher: self.field(fields, "ItemBatcher", Checker::item_batcher),
            writer: self.field(fields, "ResultWriter", Checker::result_writer),
        }
    }

    fn is_jsonata(&self) -> bool {
        self.here == QueryLanguage::Jsonata
    }

    /// `Parameters`, which JSONata calls `Arguments`.
    fn call_parameters(&mut self, fields: &mut Fields) -> Option<Template> {
        match self.is_jsonata() {
            true => self.field(fields, "Arguments", |c, node| c.jsonata_template(node, jsonata::EVERYWHERE)),
            false => self.field(fields, "Parameters", |c, node| c.template(node)),
        }
    }

    fn bound(&mut self, fields: &mut Fields, name: &str, most: u64) -> Count {
        let whole = |c: &mut Self, node: &Node| c.integer(node, 1, most).map(|whole| whole as f64);
        match self.is_jsonata() {
            true => self.jsonata_count(fields, name, whole),
            false => self.count(fields, name, whole),
        }
    }

    fn item_reader(&mut self, node: &Node) -> Option<ItemReader> {
        let mut fields = self.object(node)?;
        self.require(&fields, &["Resource"]);
        let resource = self.field(&mut fields, "Resource", |c, node| {
            let text = c.string(node)?;
            let found = match text.rsplit_once(':').map_or("", |(_, action)| action) {
                "getObject" if text.ends_with(":s3:getObject") => Some(ReadWith::GetObject),
                "listObjectsV2" if text.ends_with(":s3:listObjectsV2") => Some(ReadWith::ListObjects),
                _ => None,
            };
            if found.is_none() {
                let message = format!(
                    "The resource '{text}' is not supported by ItemReader: use s3:getObject or s3:listObjectsV2"
                );
                c.fault(node.at, message);
            }
            found
        });
        let parameters = self.call_parameters(&mut fields);
        let (mut format, mut max_items, mut pointer) = (Format::default(), Count::Absent, Text::Absent);
        self.field(&mut fields, "ReaderConfig", |c, node| {
            let mut fields = c.object(node)?;
            format = c.reader_format(&mut fields);
            max_items = c.bound(&mut fields, "MaxItems", ITEMS_MAX);
            pointer = match c.is_jsonata() {
                true => c.jsonata_text(&mut fields, "ItemsPointer"),
                false => {
                    c.field(&mut fields, "ItemsPointer", |c, node| c.string(node)).map_or(Text::Absent, Text::Literal)
                }
            };
            c.refuse_rest(&fields);
            Some(())
        });
        self.refuse_rest(&fields);
        Some(ItemReader { resource: resource?, parameters, format, max_items, pointer })
    }

    fn reader_format(&mut self, fields: &mut Fields) -> Format {
        let input_type = self.field(fields, "InputType", |c, node| c.word(node, "InputType", &INPUT_TYPES));
        let given = self.field(fields, "CSVHeaderLocation", |c, node| {
            c.word(node, "CSVHeaderLocation", &[("FIRST_ROW", false), ("GIVEN", true)])
        });
        let headers = self.field(fields, "CSVHeaders", |c, node| {
            let Json::Array(items) = &node.kind else { return c.expected(node, "Array") };
            let name = |c: &mut Self, (at, item): (usize, &Node)| c.inside(Segment::Index(at), |c| c.string(item));
            items.iter().enumerate().map(|item| name(c, item)).collect::<Option<Vec<String>>>()
        });
        if given == Some(true) && headers.is_none() {
            self.fault(fields.at(), "The field 'CSVHeaders' is required when 'CSVHeaderLocation' is 'GIVEN'");
        }
        let csv_delimiter = self.field(fields, "CSVDelimiter", |c, node| c.word(node, "CSVDelimiter", &DELIMITERS));
        let athena = self.field(fields, "ManifestType", |c, node| {
            c.word(node, "ManifestType", &[("ATHENA_DATA", true), ("S3_INVENTORY", false)])
        });
        let flatten = self.field(fields, "Transformation", |c, node| {
            c.word(node, "Transformation", &[("NONE", false), ("LOAD_AND_FLATTEN", true)])
        });
        if flatten == Some(true) && input_type.is_none() {
            self.fault(fields.at(), "The field 'InputType' is required when 'Transformation' is 'LOAD_AND_FLATTEN'");
        }
        Format {
            input_type,
            csv_headers: headers.filter(|_| given == Some(true)),
            csv_delimiter,
            athena: athena == Some(true),
            flatten: flatten == Some(true),
        }
    }

    fn item_batcher(&mut self, node: &Node) -> Option<ItemBatcher> {
        let mut fields = self.object(node)?;
        let max_items = self.bound(&mut fields, "MaxItemsPerBatch", SECONDS_MAX);
        let max_bytes = self.bound(&mut fields, "MaxInputBytesPerBatch", BATCH_BYTES_MAX);
        let jsonata = self.is_jsonata();
        let input = self.field(&mut fields, "BatchInput", |c, node| match jsonata {
            true => c.jsonata_template(node, jsonata::EVERYWHERE),
            false => c.template(node),
        });
        if matches!((&max_items, &max_bytes), (Count::Absent, Count::Absent)) {
            let names = "MaxItemsPerBatch, MaxItemsPerBatchPath, MaxInputBytesPerBatch, MaxInputBytesPerBatchPath";
            self.fault(fields.at(), format!("At least one of these fields is required: [{names}]"));
        }
        self.refuse_rest(&fields);
        Some(ItemBatcher { max_items, max_bytes, input })
    }

    fn result_writer(&mut self, node: &Node) -> Option<ResultWriter> {
        let mut fields = self.object(node)?;
        let exports = self.field(&mut fields, "Resource", |c, node| {
            let text = c.string(node)?;
            if !text.ends_with(":s3:putObject") {
                c.fault(node.at, format!("The resource '{text}' is not supported by ResultWriter: use s3:putObject"));
            }
            Some(())
        });
        let parameters = self.call_parameters(&mut fields);
        let (mut transformation, mut lines) = (None, None);
        let config = self.field(&mut fields, "WriterConfig", |c, node| {
            let mut fields = c.object(node)?;
            const TRANSFORMATIONS: [(&str, Transformation); 3] = [
                ("NONE", Transformation::None),
                ("COMPACT", Transformation::Compact),
                ("FLATTEN", Transformation::Flatten),
            ];
            transformation =
                c.field(&mut fields, "Transformation", |c, node| c.word(node, "Transformation", &TRANSFORMATIONS));
            lines = c.field(&mut fields, "OutputType", |c, node| {
                c.word(node, "OutputType", &[("JSON", false), ("JSONL", true)])
            });
            c.refuse_rest(&fields);
            Some(())
        });
        if exports.is_none() && config.is_none() {
            self.fault(fields.at(), "At least one of these fields is required: [Resource, WriterConfig]");
        }
        self.refuse_rest(&fields);
        let form = ResultForm {
            transformation: transformation.unwrap_or(Transformation::None),
            lines: lines.unwrap_or(false),
        };
        Some(ResultWriter { parameters, exports: exports.is_some(), form })
    }
}
