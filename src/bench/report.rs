//! The report: what was measured, with every repetition, in the form in which it is kept and shown.

use conveyor_base::Timestamp;
use serde::{Deserialize, Serialize};

use super::compare::Comparison;
use super::statistics::{Better, median, spread};

/// The form of the JSON; another one is not read.
pub const FORMAT: u32 = 1;

/// How thorough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    Quick,
    Full,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Quick => "quick",
            Mode::Full => "full",
        }
    }

    /// One of the two.
    pub fn pick<T>(self, quick: T, full: T) -> T {
        match self {
            Mode::Quick => quick,
            Mode::Full => full,
        }
    }
}

/// The parts of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum SectionKind {
    Raw,
    Graphs,
    Cpu,
    Shares,
    Store,
}

impl SectionKind {
    pub const ALL: [SectionKind; 5] =
        [SectionKind::Raw, SectionKind::Graphs, SectionKind::Cpu, SectionKind::Shares, SectionKind::Store];

    pub fn title(self) -> &'static str {
        match self {
            SectionKind::Raw => "Raw engines",
            SectionKind::Graphs => "Media graphs",
            SectionKind::Cpu => "Encoders and decoders on cores",
            SectionKind::Shares => "Shares",
            SectionKind::Store => "Store",
        }
    }
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub format: u32,
    /// `20261121T145912Z`: the time in UTC, as files are named.
    pub id: String,
    pub started_at: Timestamp,
    pub took_seconds: f64,
    pub mode: Mode,
    /// Of conveyor.
    pub version: String,
    #[serde(rename = "box")]
    pub host: Host,
    /// What makes the figures lower than the box can; empty where nothing did.
    pub disturbed: Vec<String>,
    pub sections: Vec<Section>,
    /// What the media graphs were measured with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<Clip>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    #[serde(default)]
    pub comparisons: Vec<Comparison>,
}

/// A film as the media graphs were measured with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Clip {
    /// `s3://share/key`, of this run's own shares.
    pub uri: String,
    pub name: String,
    pub seconds: f64,
    pub fps: f64,
    pub width: u64,
    pub height: u64,
    pub bytes: u64,
}

impl Clip {
    pub fn frames(&self) -> f64 {
        self.seconds * self.fps
    }

    pub fn bits_per_second(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.seconds.max(0.001)
    }
}

/// What was measured on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    pub cpu: String,
    pub cores: usize,
    pub memory_bytes: Option<u64>,
    pub gpus: Vec<String>,
    pub kernel: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Section {
    pub kind: SectionKind,
    /// What has to be known to read the figures, and what could not be measured.
    pub says: Vec<String>,
    pub rows: Vec<Row>,
    pub curves: Vec<Curve>,
    /// The part of all cores that others used meanwhile; absent where the kernel does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub others_cpu: Option<f64>,
}

impl Section {
    pub fn new(kind: SectionKind) -> Section {
        Section { kind, says: Vec::new(), rows: Vec::new(), curves: Vec::new(), others_cpu: None }
    }

    pub fn say(&mut self, what: impl Into<String>) {
        self.says.push(what.into());
    }

    pub fn row(&self, key: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.key == key)
    }
}

/// What was measured, and all figures of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The same in every run: `x264/veryfast/720p`.
    pub key: String,
    pub name: String,
    pub figures: Vec<Figure>,
}

impl Row {
    pub fn new(key: impl Into<String>, name: impl Into<String>) -> Row {
        Row { key: key.into(), name: name.into(), figures: Vec::new() }
    }

    pub fn with(mut self, name: &str, unit: &str, better: Better, samples: Vec<f64>) -> Row {
        if !samples.is_empty() {
            self.figures.push(Figure::new(name, unit, better, samples));
        }
        self
    }

    pub fn median(&self, figure: &str) -> Option<f64> {
        self.figures.iter().find(|f| f.name == figure).map(|f| f.median)
    }
}

/// One figure with its repetitions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    pub name: String,
    pub unit: String,
    pub better: Better,
    pub samples: Vec<f64>,
    pub median: f64,
    /// As a part of the median.
    pub spread: f64,
}

impl Figure {
    pub fn new(name: &str, unit: &str, better: Better, samples: Vec<f64>) -> Figure {
        let (median, spread) = (median(&samples), spread(&samples));
        Figure { name: name.to_owned(), unit: unit.to_owned(), better, samples, median, spread }
    }
}

/// How something grows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    pub key: String,
    pub title: String,
    pub x: String,
    pub y: String,
    pub points: Vec<(f64, f64)>,
}

/// What the box carries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Capacity {
    /// Whole ladders of the measured kind of film at once in real time: 1080p30 unless another clip was given.
    pub ladders: u32,
    /// The same with its fraction.
    pub ladders_exact: f64,
    pub limited_by: String,
    pub sentence: String,
    /// Every bound that was measured, the lowest first: what, and how many ladders it allows.
    pub bounds: Vec<(String, f64)>,
}

impl Report {
    pub fn section(&self, kind: SectionKind) -> Option<&Section> {
        self.sections.iter().find(|section| section.kind == kind)
    }
}
