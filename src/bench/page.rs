//! The report as one HTML page that needs nothing else: styles and plots (SVG) stand in it, no script, no request.

use std::fmt::Write as _;

use conveyor_base::escape::xml;

use super::compare::Comparison;
use super::report::{Curve, Figure, Report, Row, Section, SectionKind};
use super::statistics::Verdict;
use super::table::number;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#667;--line:#d8dce2;--bar:#3b7dd8;--good:#1a7f4b;--bad:#c0392b;--ground:#fff}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--soft:#99a;--line:#343a44;--bar:#5b9bf0;--good:#4fc38a;--bad:#ff7b6b;--ground:#14171c}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--ground);max-width:62rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.6rem;margin:0}h2{margin:2.5rem 0 .5rem;font-size:1.2rem;border-bottom:1px solid var(--line)}\
p,li{max-width:48rem}.soft{color:var(--soft)}.big{font-size:1.25rem;font-weight:600;margin:1rem 0}\
.warn{border-left:4px solid var(--bad);padding:.3rem .8rem;margin:.5rem 0}\
table{border-collapse:collapse;margin:.8rem 0;font-variant-numeric:tabular-nums}td,th{padding:.15rem .8rem .15rem 0;text-align:left;border-bottom:1px solid var(--line)}\
td.n{text-align:right;white-space:nowrap}.better{color:var(--good)}.worse{color:var(--bad)}\
svg{max-width:100%;height:auto;display:block;margin:1rem 0}svg text{fill:var(--ink);font:12px system-ui,sans-serif}\
svg .soft{fill:var(--soft)}svg .bar{fill:var(--bar)}svg .axis{stroke:var(--line);fill:none}svg .curve{stroke:var(--bar);fill:none;stroke-width:2}\
svg .span{stroke:var(--ink);stroke-width:1.5}svg .dot{fill:var(--bar)}";

pub fn page(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>conveyor bench {id}</title><style>{STYLE}</style></head><body>\
         <h1>What this box can do</h1><p class=\"soft\">{cpu}, {cores} cores{gpus}, Linux {kernel}; conveyor {version}; {mode} \
         run of {took:.0} s, begun {at}</p>",
        id = xml(&report.id),
        cpu = xml(&report.host.cpu),
        cores = report.host.cores,
        gpus = report.host.gpus.iter().map(|gpu| format!(", {}", xml(gpu))).collect::<String>(),
        kernel = xml(&report.host.kernel),
        version = xml(&report.version),
        mode = report.mode.name(),
        took = report.took_seconds,
        at = report.started_at,
    );
    for what in &report.disturbed {
        let _ =
            write!(out, "<p class=\"warn\">Disturbed: {}. The box can do more than these figures say.</p>", xml(what));
    }
    if let Some(capacity) = &report.capacity {
        let _ = write!(out, "<p class=\"big\">{}</p><table><tr><th>bound<th>ladders", xml(&capacity.sentence));
        for (what, ladders) in &capacity.bounds {
            let _ = write!(out, "<tr><td>{}<td class=\"n\">{}", xml(what), number(*ladders));
        }
        out.push_str("</table>");
    }
    report.comparisons.iter().for_each(|comparison| compared(&mut out, comparison));
    report.sections.iter().for_each(|section| of_section(&mut out, section));
    out.push_str("</body></html>\n");
    out
}

fn of_section(out: &mut String, section: &Section) {
    let _ = write!(out, "<h2>{}</h2>", section.kind.title());
    if let Some(part) = section.others_cpu.filter(|part| *part >= 0.05) {
        let _ = write!(out, "<p class=\"warn\">Others used {:.0} % of the cores meanwhile.</p>", part * 100.0);
    }
    if !section.says.is_empty() {
        let says: String = section.says.iter().map(|what| format!("<li>{}", xml(what))).collect();
        let _ = write!(out, "<ul class=\"soft\">{says}</ul>");
    }
    for unit in ["fps", "MB/s", "files/s", "/s"] {
        bars(out, section, unit);
    }
    if section.kind == SectionKind::Cpu {
        speed_and_quality(out, section);
    }
    section.curves.iter().for_each(|curve| line(out, curve));
    if !section.rows.is_empty() {
        out.push_str("<table>");
        section.rows.iter().for_each(|row| {
            let cells: String = row.figures.iter().map(|figure| format!("<td class=\"n\">{}", cell(figure))).collect();
            let _ = write!(out, "<tr><td>{}{cells}", xml(&row.name));
        });
        out.push_str("</table>");
    }
}

fn cell(figure: &Figure) -> String {
    let spread = match figure.samples.len() {
        0..=1 => String::new(),
        _ => format!(" <span class=\"soft\">±{:.1} %</span>", figure.spread * 100.0),
    };
    let (name, unit) = (xml(&figure.name), xml(&figure.unit));
    format!("<span class=\"soft\">{name}</span> {} {unit}{spread}", number(figure.median))
}

/// A bar for each row's figures of one unit, from 0, with the range of the repetitions.
fn bars(out: &mut String, section: &Section, unit: &str) {
    const HEIGHT: usize = 22;
    const LEFT: usize = 340;
    const WIDTH: usize = 800;
    let found: Vec<(&Row, &Figure)> = section
        .rows
        .iter()
        .flat_map(|row| row.figures.iter().filter(|figure| figure.unit == unit).map(move |figure| (row, figure)))
        .collect();
    let all = found.iter().flat_map(|(_, figure)| figure.samples.iter().copied());
    let most = all.fold(0.0f64, f64::max);
    if found.len() < 2 || most <= 0.0 {
        return;
    }
    let room = (WIDTH - LEFT - 70) as f64;
    let at = |value: f64| LEFT as f64 + value / most * room;
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{} in {unit}\">",
        found.len() * HEIGHT + 4,
        section.kind.title()
    );
    for (n, (row, figure)) in found.iter().enumerate() {
        let top = n * HEIGHT + 3;
        let name = if row.figures.iter().filter(|f| f.unit == unit).count() > 1 {
            format!("{}, {}", row.name, figure.name)
        } else {
            row.name.clone()
        };
        let low = figure.samples.iter().copied().fold(f64::INFINITY, f64::min);
        let high = figure.samples.iter().copied().fold(0.0, f64::max);
        let _ = write!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text><rect class=\"bar\" x=\"{LEFT}\" y=\"{top}\" width=\"{:.1}\" \
             height=\"15\" rx=\"2\"/><path class=\"span\" d=\"M{:.1} {y}H{:.1}\"/><text x=\"{:.1}\" y=\"{}\" \
             class=\"soft\">{} {unit}</text>",
            LEFT - 8,
            top + 12,
            xml(&shortened(&name)),
            (at(figure.median) - LEFT as f64).max(1.0),
            at(low),
            at(high),
            at(high) + 6.0,
            top + 12,
            number(figure.median),
            y = top + 7,
        );
    }
    out.push_str("</svg>");
}

fn shortened(name: &str) -> String {
    const CHARS: usize = 50;
    match name.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// A plot's axes, with room for words on the left and below.
struct Axes {
    x_most: f64,
    y: (f64, f64),
}

impl Axes {
    const WIDTH: f64 = 800.0;
    const HEIGHT: f64 = 300.0;
    const LEFT: f64 = 60.0;
    const RIGHT: f64 = 120.0;
    const BELOW: f64 = 44.0;

    fn x(&self, value: f64) -> f64 {
        Axes::LEFT + value / self.x_most * (Axes::WIDTH - Axes::LEFT - Axes::RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let (low, high) = self.y;
        12.0 + (high - value) / (high - low).max(1e-9) * (Axes::HEIGHT - Axes::BELOW - 12.0)
    }

    fn draw(&self, out: &mut String, title: &str, x: &str, y: &str) {
        let bottom = Axes::HEIGHT - Axes::BELOW;
        let _ = write!(
            out,
            "<p><b>{}</b> <span class=\"soft\">({})</span></p><svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\
             <path class=\"axis\" d=\"M{l} 8V{bottom}H{}\"/><text class=\"soft\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            xml(title),
            xml(y),
            Axes::WIDTH,
            Axes::HEIGHT,
            xml(title),
            Axes::WIDTH - Axes::RIGHT,
            (Axes::LEFT + Axes::WIDTH - Axes::RIGHT) / 2.0,
            Axes::HEIGHT - 6.0,
            xml(x),
            l = Axes::LEFT,
        );
        for value in ticks(self.y.0, self.y.1) {
            let (left, y) = (Axes::LEFT - 6.0, self.y(value) + 4.0);
            let _ = write!(out, "<text class=\"soft\" x=\"{left}\" y=\"{y:.1}\" text-anchor=\"end\">{value}</text>");
        }
        for along in ticks(0.0, self.x_most) {
            let (x, y) = (self.x(along), bottom + 16.0);
            let _ = write!(out, "<text class=\"soft\" x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{along}</text>");
        }
    }
}

/// Round values between two: at most six, 1, 2 or 5 times a power of ten apart, and whole where both ends are.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    const MOST: f64 = 6.0;
    let rough = ((high - low) / MOST).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(rough.log10().floor());
    let round = [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * power).find(|step| *step >= rough);
    let whole = low.fract() == 0.0 && high.fract() == 0.0;
    let step = round.unwrap_or(rough).max(if whole { 1.0 } else { 0.0 });
    let first = (low / step).ceil();
    let count = ((high / step).floor() - first).max(0.0) as u32;
    // Rounded, so that 0.1 times 3 is written as 0.3.
    let places = (-step.log10().floor()).max(0.0) as i32;
    let scale = 10f64.powi(places);
    (0..=count).map(|n| ((first + f64::from(n)) * step * scale).round() / scale).collect()
}

/// How something grows: from 0 in both directions.
fn line(out: &mut String, curve: &Curve) {
    let most = |pick: fn(&(f64, f64)) -> f64| curve.points.iter().map(pick).fold(0.0f64, f64::max);
    let axes = Axes { x_most: most(|p| p.0).max(1.0), y: (0.0, most(|p| p.1).max(1e-9) * 1.05) };
    axes.draw(out, &curve.title, &curve.x, &curve.y);
    let path: Vec<String> = curve.points.iter().map(|(x, y)| format!("{:.1} {:.1}", axes.x(*x), axes.y(*y))).collect();
    let _ = write!(out, "<path class=\"curve\" d=\"M{}\"/>", path.join("L"));
    for (x, y) in &curve.points {
        let (x, y, said) = (axes.x(*x), axes.y(*y), number(*y));
        let _ = write!(
            out,
            "<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/><text x=\"{:.1}\" y=\"{:.1}\">{said}</text>",
            x + 7.0,
            y - 6.0
        );
    }
    out.push_str("</svg>");
}

/// What a preset costs on both sides: how fast against how alike for the bits.
fn speed_and_quality(out: &mut String, section: &Section) {
    let points: Vec<(&str, f64, f64, f64)> = section
        .rows
        .iter()
        .filter(|row| row.key.ends_with("/720p"))
        .filter_map(|row| Some((row.name.as_str(), row.median("speed")?, row.median("PSNR")?, row.median("bitrate")?)))
        .collect();
    if points.len() < 2 {
        return;
    }
    let psnr = |fold: fn(f64, f64) -> f64, from: f64| points.iter().map(|p| p.2).fold(from, fold);
    let (low, high) = (psnr(f64::min, f64::INFINITY), psnr(f64::max, 0.0));
    let axes = Axes {
        x_most: points.iter().map(|p| p.1).fold(1.0, f64::max) * 1.02,
        y: ((low - 0.5).floor(), (high + 0.5).ceil()),
    };
    axes.draw(out, "Speed and likeness at 720p", "frames a second", "PSNR in dB; the circle's area is the bitrate");
    let most = points.iter().map(|p| p.3).fold(1.0, f64::max);
    for (name, fps, psnr, kbps) in points {
        let radius = 3.0 + 13.0 * (kbps / most).sqrt();
        let (x, y) = (axes.x(fps), axes.y(psnr));
        let _ = write!(
            out,
            "<circle class=\"dot\" fill-opacity=\"0.45\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x + radius + 3.0,
            y + 4.0,
            xml(name.trim_end_matches(" 720p")),
        );
    }
    out.push_str("</svg>");
}

fn compared(out: &mut String, comparison: &Comparison) {
    let _ = write!(
        out,
        "<h2>Against {} of {}</h2><p>{} better, {} worse, {} the same within noise.</p>",
        xml(&comparison.against),
        comparison.at,
        comparison.better,
        comparison.worse,
        comparison.same
    );
    for caveat in &comparison.caveats {
        let _ = write!(out, "<p class=\"warn\">With care: {}.</p>", xml(caveat));
    }
    let mut figures: Vec<_> = comparison.figures.iter().collect();
    figures.sort_by(|a, b| {
        let changed = |verdict: Verdict| verdict == Verdict::Same;
        changed(a.verdict).cmp(&changed(b.verdict)).then(b.change.abs().total_cmp(&a.change.abs()))
    });
    out.push_str(
        "<details><summary>All figures</summary><table><tr><th>figure<th>before<th>now<th>change<th>noise<th>",
    );
    for figure in figures {
        let (class, word) = match figure.verdict {
            Verdict::Better => ("better", "better"),
            Verdict::Worse => ("worse", "worse"),
            Verdict::Same => ("soft", "same"),
        };
        let _ = write!(
            out,
            "<tr><td>{}<td class=\"n\">{}<td class=\"n\">{} {}<td class=\"n\">{:+.1} %<td class=\"n\">{:.1} %<td class=\"{class}\">{word}",
            xml(&figure.key),
            number(figure.before),
            number(figure.now),
            xml(&figure.unit),
            figure.change * 100.0,
            figure.noise * 100.0,
        );
    }
    out.push_str("</table></details>");
}

#[cfg(test)]
mod tests {
    use super::ticks;

    #[test]
    fn axes_have_round_and_few_numbers() {
        assert_eq!(ticks(0.0, 2.0), [0.0, 1.0, 2.0]);
        assert_eq!(ticks(0.0, 194.8), [0.0, 50.0, 100.0, 150.0]);
        assert_eq!(ticks(33.0, 39.0), [33.0, 34.0, 35.0, 36.0, 37.0, 38.0, 39.0]);
        assert_eq!(ticks(0.0, 0.57), [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]);
        assert_eq!(ticks(0.0, 123_456.0).len(), 3);
    }
}
