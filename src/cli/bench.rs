//! `conveyor bench`: measures the box, keeps the report, and says how it stands against the last one.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use conveyor_appliance::Config;
use conveyor_bench::{self as bench, Mode, Request, SectionKind, Tick, kept, page, table};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

/// The bar's own unit: thousandths.
const WHOLE: u64 = 1_000;

#[derive(Debug, Args)]
pub struct Bench {
    /// Everything once over in under two minutes; what is meant where neither is said.
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// All presets, sizes and numbers of files, with more repetitions; takes as long as it needs.
    #[arg(long)]
    full: bool,
    /// A quick run leaves out what it has not come to after this part of its usual time.
    #[arg(long, hide = true, default_value_t = 1.0, value_name = "PART")]
    patience: f64,
    /// Only these sections, with commas between them.
    #[arg(long, value_delimiter = ',', value_name = "SECTIONS")]
    only: Vec<SectionKind>,
    /// Write the report as JSON to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report as one HTML page with plots to this file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Compare with this saved baseline, or with the JSON report in this file.
    #[arg(long, value_name = "NAME|FILE")]
    baseline: Option<String>,
    /// Save this run as a baseline of that name.
    #[arg(long, value_name = "NAME")]
    save_baseline: Option<String>,
    /// Measure the media graphs with this file instead of conveyor's own film.
    #[arg(long, value_name = "FILE")]
    clip: Option<PathBuf>,
    /// The configuration whose shares and data directory are measured.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where reports are kept and the store is measured, instead of the configuration's `data_dir` [default:
    /// /var/lib/conveyor].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

pub async fn run(arguments: Bench) -> anyhow::Result<ExitCode> {
    let config = arguments.config.as_deref().map(Config::read).transpose()?.unwrap_or_default();
    if let Some(name) = arguments.save_baseline.as_deref().filter(|name| !kept::is_name(name)) {
        return Err(kept::KeptError::Name(name.to_owned()).into());
    }
    let data_dir = arguments.data_dir.clone().unwrap_or(config.data_dir);
    let bar = bar();
    let showing = bar.clone();
    let request = Request {
        mode: if arguments.full { Mode::Full } else { Mode::Quick },
        patience: arguments.patience,
        only: arguments.only,
        data_dir: data_dir.clone(),
        shares: config.shares.into_iter().map(|(name, share)| (name, share.path)).collect(),
        clip: arguments.clip,
        baseline: arguments.baseline,
        program: super::OWN_BINARY.into(),
        sandbox: config.sandbox,
        on_tick: Arc::new(move |tick| show(&showing, &tick)),
    };
    let report = tokio::select! {
        report = bench::run(request) => report?,
        // What was dropped with the run has ended its children and removed its folders.
        _ = stopped() => {
            bar.finish_and_clear();
            eprintln!("conveyor: stopped; nothing was kept");
            return Ok(ExitCode::from(130));
        }
    };
    bar.finish_and_clear();
    print!("{}", table::table(&report));
    if let Some(path) = &arguments.json {
        kept::write(path, &report)?;
    }
    if let Some(path) = &arguments.html {
        std::fs::write(path, page::page(&report)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("\nkept as run {} in {}", report.id, conveyor_base::speeds::Speeds::folder(&data_dir).display());
    if let Some(name) = &arguments.save_baseline {
        kept::save_baseline(&data_dir, name, &report)?;
        println!("saved as baseline '{name}'");
    }
    Ok(ExitCode::SUCCESS)
}

async fn stopped() {
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        },
        Err(_) => drop(tokio::signal::ctrl_c().await),
    }
}

/// On standard error, and only where that is a terminal.
fn bar() -> ProgressBar {
    let bar = ProgressBar::new(WHOLE);
    let style = ProgressStyle::with_template("{bar:30} {prefix:>10} {wide_msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

fn show(bar: &ProgressBar, tick: &Tick) {
    bar.set_position((tick.fraction.clamp(0.0, 1.0) * WHOLE as f64) as u64);
    let seconds = tick.seconds_left.ceil() as u64;
    bar.set_prefix(format!("{}:{:02} left", seconds / 60, seconds % 60));
    bar.set_message(tick.doing.clone());
}
