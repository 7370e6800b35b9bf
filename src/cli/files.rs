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

/// Verifies every row, the indexes against the rows, and the timers against the executions.
pub fn check(place: &DataDir) -> anyhow::Result<ExitCode> {
    let report = store::check(&place.backends())?;
    for (table, rows) in &report.rows {
        println!("{table:<14} {rows} rows");
    }
    for problem in &report.problems {
        println!("problem: {problem}");
    }
    println!("{} problem(s)", report.problem_count);
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Brings the files of an older release to this one's form.
pub fn upgrade(place: &DataDir) -> anyhow::Result<ExitCode> {
    println!("{}", store::upgrade(&place.backends())?);
    Ok(ExitCode::SUCCESS)
}
