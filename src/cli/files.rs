//! `conveyor check` and `conveyor upgrade`: the store's files, while no appliance uses them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use conveyor_store::{self as store, Backends, Directory};

#[derive(Debug, Args)]
pub struct DataDir {
    /// The appliance's data directory.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/conveyor")]
    data_dir: PathBuf,
}

impl DataDir {
    fn backends(&self) -> Arc<dyn Backends> {
        Arc::new(Directory::new(self.data_dir.join("store")))
    }
}

#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    place: DataDir,
    /// Where something is damaged: make files of what can still be read, keep the damaged ones beside them, and say what is
    /// gone.
    #[arg(long)]
    repair: bool,
}

/// Verifies every row, the indexes against the rows, and the timers against the executions.
pub fn check(check: &Check) -> anyhow::Result<ExitCode> {
    let backends = check.place.backends();
    if check.repair {
        let done = store::repair(&backends)?;
        println!("{done}");
        let whole = done.lost.is_empty() && done.report.is_clean();
        return Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let report = store::check(&backends)?;
    for (table, rows) in &report.rows {
        println!("{table:<14} {rows} rows");
    }
    for problem in &report.problems {
        println!("problem: {problem}");
    }
    println!("{} problem(s)", report.problem_count);
    if !report.is_clean() {
        println!("`conveyor check --repair` mends what can be mended, and says what cannot");
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Brings the files of an older release to this one's form.
pub fn upgrade(place: &DataDir) -> anyhow::Result<ExitCode> {
    println!("{}", store::upgrade(&place.backends())?);
    Ok(ExitCode::SUCCESS)
}
