//! This run against another: the last one of this box, or a saved baseline. Pure.

use std::collections::BTreeMap;

use conveyor_base::Timestamp;
use serde::{Deserialize, Serialize};

use super::report::{Figure, Report, Section, SectionKind};
use super::statistics::{self, Verdict};

/// How one run stands against another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// `last run`, or the baseline's name.
    pub against: String,
    pub id: String,
    pub at: Timestamp,
    /// Why the verdicts are to be taken with care; with any of them no verdict is worse than a hint.
    pub caveats: Vec<String>,
    pub better: usize,
    pub worse: usize,
    pub same: usize,
    pub figures: Vec<Compared>,
}

/// One figure, then and now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    pub section: SectionKind,
    /// Row and figure: `x264/veryfast/720p speed`.
    pub key: String,
    pub unit: String,
    pub before: f64,
    pub now: f64,
    /// As a part of what it was: -0.1 is a tenth less.
    pub change: f64,
    pub noise: f64,
    pub verdict: Verdict,
}

type Key = (SectionKind, String);

/// Compares what both have measured. `history` holds earlier runs of the same mode, from which the noise between runs
/// is known.
pub fn compare(now: &Report, before: &Report, against: &str, history: &[Report]) -> Comparison {
    let medians = medians(history);
    let mut figures = Vec::new();
    for section in &now.sections {
        let Some(old) = before.section(section.kind) else { continue };
        let pooled = pooled_spread(section).max(pooled_spread(old));
        for ((key, figure), earlier) in figures_of(section).filter_map(|(key, figure)| {
            let earlier = figures_of(old).find(|(other, _)| *other == key)?.1;
            Some(((key, figure), earlier))
        }) {
            let known = medians.get(&(section.kind, key.clone())).map_or(&[][..], Vec::as_slice);
            let noise = statistics::noise(&figure.samples, &earlier.samples, pooled, known);
            let (change, verdict) = statistics::judge(&earlier.samples, &figure.samples, figure.better, noise);
            figures.push(Compared {
                section: section.kind,
                key,
                unit: figure.unit.clone(),
                before: earlier.median,
                now: figure.median,
                change,
                noise,
                verdict,
            });
        }
    }
    let count = |verdict| figures.iter().filter(|f| f.verdict == verdict).count();
    Comparison {
        against: against.to_owned(),
        id: before.id.clone(),
        at: before.started_at,
        caveats: caveats(now, before),
        better: count(Verdict::Better),
        worse: count(Verdict::Worse),
        same: count(Verdict::Same),
        figures,
    }
}

fn figures_of(section: &Section) -> impl Iterator<Item = (String, &Figure)> {
    section.rows.iter().flat_map(|row| row.figures.iter().map(move |f| (format!("{} {}", row.key, f.name), f)))
}

/// How much a section's figures usually lie around their medians.
fn pooled_spread(section: &Section) -> f64 {
    let spreads: Vec<f64> =
        figures_of(section).filter(|(_, f)| f.samples.len() > 2).map(|(_, f)| statistics::spread(&f.samples)).collect();
    statistics::median(&spreads)
}

fn medians(history: &[Report]) -> BTreeMap<Key, Vec<f64>> {
    let mut medians: BTreeMap<Key, Vec<f64>> = BTreeMap::new();
    for section in history.iter().flat_map(|report| &report.sections) {
        for (key, figure) in figures_of(section) {
            medians.entry((section.kind, key)).or_default().push(figure.median);
        }
    }
    medians
}

fn caveats(now: &Report, before: &Report) -> Vec<String> {
    let mut caveats = Vec::new();
    if now.mode != before.mode {
        caveats.push(format!("this run is {}, the other was {}", now.mode.name(), before.mode.name()));
    }
    if (&now.host.cpu, now.host.cores) != (&before.host.cpu, before.host.cores) {
        caveats.push(format!(
            "it ran on {} with {} cores, this one on {} with {}",
            before.host.cpu, before.host.cores, now.host.cpu, now.host.cores
        ));
    }
    if now.host.gpus != before.host.gpus {
        caveats.push("the GPUs are not the same".to_owned());
    }
    for (which, report) in [("this run", now), ("the other run", before)] {
        if !report.disturbed.is_empty() {
            caveats.push(format!("{which} was disturbed: {}", report.disturbed.join("; ")));
        }
    }
    caveats
}
