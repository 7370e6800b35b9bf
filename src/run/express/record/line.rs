//! The lines of the record, and what they say when they are read back.

use std::collections::HashMap;
use std::io::BufRead;

use conveyor_base::ExecutionId;
use conveyor_interpreter::{Header, Qualifier};
use serde::{Deserialize, Serialize};

use crate::handle::StartRequest;

/// One line: a start, an end, or that an execution is run anew.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Line<'s> {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    start: Option<std::borrow::Cow<'s, StartLine>>,
    /// An execution that ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    end: Option<String>,
    /// An execution that is run anew.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    again: Option<String>,
    /// The appliance ended in order: what was under way did not take it down.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    orderly: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StartLine {
    id: String,
    machine: String,
    revision: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    alias: Option<String>,
    name: String,
    input: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    trace_header: Option<String>,
    /// How often it was begun, but for those times after which the appliance ended in order.
    #[serde(default)]
    pub runs: u32,
}

impl StartLine {
    pub fn of(header: &Header) -> StartLine {
        let qualifier = header.machine.qualifier.as_ref();
        StartLine {
            id: header.id.to_string(),
            machine: header.machine.name.clone(),
            revision: header.machine.revision,
            version: qualifier.map(Qualifier::version),
            alias: qualifier.and_then(|q| q.alias().map(str::to_owned)),
            name: header.name.clone(),
            input: header.input.to_string(),
            trace_header: header.trace_header.clone(),
            runs: 1,
        }
    }

    pub fn text(&self) -> String {
        text(&Line { start: Some(std::borrow::Cow::Borrowed(self)), ..Line::default() })
    }
}

pub(super) fn ended(id: ExecutionId) -> String {
    text(&Line { end: Some(id.to_string()), ..Line::default() })
}

pub(super) fn again(id: ExecutionId) -> String {
    text(&Line { again: Some(id.to_string()), ..Line::default() })
}

pub(super) fn orderly() -> String {
    text(&Line { orderly: true, ..Line::default() })
}

fn text(line: &Line<'_>) -> String {
    // Nothing in a line can fail to be written as JSON.
    let mut text = serde_json::to_string(line).unwrap_or_default();
    text.push('\n');
    text
}

/// A start that has no end.
#[derive(Debug)]
pub(in crate::express) struct Recorded {
    pub id: ExecutionId,
    pub(super) line: StartLine,
}

impl Recorded {
    pub fn machine(&self) -> &str {
        &self.line.machine
    }

    pub fn revision(&self) -> u64 {
        self.line.revision
    }

    /// How often it was begun and the appliance ended out of order.
    pub fn runs(&self) -> u32 {
        self.line.runs
    }

    pub fn to_start(&self) -> StartRequest {
        StartRequest {
            machine: self.line.machine.clone(),
            name: Some(self.line.name.clone()),
            input: self.line.input.as_str().into(),
            trace_header: self.line.trace_header.clone(),
            ..StartRequest::default()
        }
    }

    pub fn qualifier(&self) -> Option<Qualifier> {
        let version = self.line.version?;
        Some(match &self.line.alias {
            Some(name) => Qualifier::Alias { name: name.clone(), version },
            None => Qualifier::Version(version),
        })
    }
}

/// What the files of a record say together, read one after another.
#[derive(Default)]
pub(super) struct Reading {
    found: Vec<Option<Recorded>>,
    places: HashMap<String, usize>,
}

impl Reading {
    /// Reads one file. A line that is none, such as one that a power cut tore, is passed over.
    pub fn read(&mut self, lines: impl BufRead) -> std::io::Result<()> {
        for line in lines.split(b'\n') {
            let Ok(line) = serde_json::from_slice::<Line>(&line?) else { continue };
            if let Some(place) = line.end.and_then(|id| self.places.remove(&id)) {
                self.found[place] = None;
            }
            if line.orderly {
                let open = self.found.iter_mut().flatten();
                open.for_each(|recorded| recorded.line.runs = recorded.line.runs.saturating_sub(1));
            }
            let again = line.again.and_then(|id| self.places.get(&id));
            if let Some(recorded) = again.and_then(|place| self.found[*place].as_mut()) {
                recorded.line.runs += 1;
            }
            if let Some(start) = line.start.map(std::borrow::Cow::into_owned)
                && let Ok(id) = start.id.parse()
            {
                // One that was copied out of an older file stands where it stood there.
                let place = *self.places.entry(start.id.clone()).or_insert(self.found.len());
                self.found.resize_with(self.found.len().max(place + 1), || None);
                self.found[place] = Some(Recorded { id, line: start });
            }
        }
        Ok(())
    }

    /// The starts without an end, oldest first.
    pub fn unfinished(self) -> Vec<Recorded> {
        self.found.into_iter().flatten().collect()
    }
}
