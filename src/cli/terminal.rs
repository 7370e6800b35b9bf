//! Progress for people: bars on a terminal, plain lines elsewhere (a pipe, a log, CI).

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use conveyor_job::Progress;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// A plain line is printed for every this many hundredths of progress.
const PLAIN_STEP_PERCENT: u64 = 25;

/// What a follower of an execution sees.
pub enum Screen {
    Bars { bars: MultiProgress, stages: BTreeMap<String, ProgressBar> },
    Lines { printed: BTreeMap<String, u64> },
}

impl Screen {
    /// Bars where standard error is a terminal.
    pub fn new() -> Screen {
        if std::io::stderr().is_terminal() {
            Screen::Bars { bars: MultiProgress::new(), stages: BTreeMap::new() }
        } else {
            Screen::Lines { printed: BTreeMap::new() }
        }
    }

    /// Prints a line that stays.
    pub fn print_line(&self, line: &str) {
        match self {
            // A terminal that cannot be written to is no reason to stop the work.
            Screen::Bars { bars, .. } => drop(bars.println(line)),
            Screen::Lines { .. } => eprintln!("{line}"),
        }
    }

    /// How far a stage is.
    pub fn progress(&mut self, stage: &str, progress: &Progress) {
        let percent = (progress.fraction.clamp(0.0, 1.0) * 100.0) as u64;
        let detail = detail(progress);
        match self {
            Screen::Bars { bars, stages } => {
                let bar = stages.entry(stage.to_owned()).or_insert_with(|| bars.add(new_bar(stage)));
                bar.set_position(percent);
                bar.set_message(detail);
            }
            Screen::Lines { printed } => {
                let step = percent / PLAIN_STEP_PERCENT;
                let last = printed.entry(stage.to_owned()).or_insert(0);
                if step > *last {
                    *last = step;
                    eprintln!("  {stage}: {percent} % {detail}");
                }
            }
        }
    }

    /// Something ended: its bar goes. Those of what still runs come back with their next progress.
    pub fn clear(&mut self) {
        match self {
            Screen::Bars { stages, .. } => std::mem::take(stages).into_values().for_each(|bar| bar.finish_and_clear()),
            Screen::Lines { printed } => printed.clear(),
        }
    }
}

fn new_bar(stage: &str) -> ProgressBar {
    let bar = ProgressBar::new(100).with_prefix(stage.to_owned());
    if let Ok(style) = ProgressStyle::with_template("  {prefix:<14} {bar:32} {percent:>3} % {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

fn detail(progress: &Progress) -> String {
    let mut parts = Vec::new();
    if !progress.doing.is_empty() {
        parts.push(progress.doing.clone());
    }
    if let Some(fps) = progress.fps {
        parts.push(format!("{fps:.0} fps"));
    }
    if let Some(speed) = progress.speed {
        parts.push(format!("{speed:.1}x real time"));
    }
    parts.join(", ")
}
