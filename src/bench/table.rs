//! The report as a table for the terminal.

use std::fmt::Write as _;

use super::compare::Comparison;
use super::report::{Figure, Report, Section};
use super::statistics::Verdict;

/// Figures of a comparison that are listed, the largest changes first.
const LISTED_MAX: usize = 20;

pub fn table(report: &Report) -> String {
    let mut page = String::new();
    let host = &report.host;
    // Writing to a string does not fail.
    let _ = writeln!(
        page,
        "{}, {} core{}, conveyor {} ({} run of {:.0} s)",
        host.cpu,
        host.cores,
        if host.cores == 1 { "" } else { "s" },
        report.version,
        report.mode.name(),
        report.took_seconds
    );
    for what in &report.disturbed {
        let _ = writeln!(page, "disturbed: {what}; the box can do more than these figures say");
    }
    for section in &report.sections {
        of_section(&mut page, section);
    }
    if let Some(capacity) = &report.capacity {
        let _ = writeln!(page, "\n{}", capacity.sentence);
    }
    for comparison in &report.comparisons {
        of_comparison(&mut page, comparison);
    }
    page
}

fn of_section(page: &mut String, section: &Section) {
    let others = section.others_cpu.filter(|part| *part >= 0.05);
    let others = others.map(|part| format!("  (others used {:.0} % of the cores)", part * 100.0)).unwrap_or_default();
    let _ = writeln!(page, "\n{}{others}", section.kind.title());
    let width = section.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    for row in &section.rows {
        let cells: Vec<String> = row.figures.iter().map(cell).collect();
        let _ = writeln!(page, "  {:<width$}  {}", row.name, cells.join("  "));
    }
    for what in &section.says {
        let _ = writeln!(page, "  - {what}");
    }
}

fn cell(figure: &Figure) -> String {
    let spread = match figure.samples.len() {
        0..=1 => String::new(),
        _ => format!(" ±{:.0} %", figure.spread * 100.0),
    };
    let unit = if figure.unit.is_empty() { String::new() } else { format!(" {}", figure.unit) };
    format!("{} {}{unit}{spread}", figure.name, number(figure.median))
}

/// Three digits that count.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn of_comparison(page: &mut String, comparison: &Comparison) {
    let _ = writeln!(
        page,
        "\nAgainst the {} of {}: {} better, {} worse, {} the same within noise",
        if comparison.against == "last run" {
            "last run".to_owned()
        } else {
            format!("baseline '{}'", comparison.against)
        },
        comparison.at,
        comparison.better,
        comparison.worse,
        comparison.same
    );
    for caveat in &comparison.caveats {
        let _ = writeln!(page, "  - with care: {caveat}");
    }
    let mut changed: Vec<_> = comparison.figures.iter().filter(|f| f.verdict != Verdict::Same).collect();
    changed.sort_by(|a, b| b.change.abs().total_cmp(&a.change.abs()));
    for figure in changed.iter().take(LISTED_MAX) {
        let verdict = if figure.verdict == Verdict::Better { "better" } else { "worse" };
        let _ = writeln!(
            page,
            "  {verdict:<6}  {:<40}  {} -> {} {}  ({:+.0} %, noise {:.1} %)",
            figure.key,
            number(figure.before),
            number(figure.now),
            figure.unit,
            figure.change * 100.0,
            figure.noise * 100.0
        );
    }
}
