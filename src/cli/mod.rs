//! Floor 7: one file per subcommand, the configuration, the wiring and the orderly shutdown.

mod config;
mod terminal;
mod validate;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{media, sandbox};

/// The runtime of an on-prem media appliance.
#[derive(Debug, Parser)]
#[command(name = "conveyor", version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print all problems of one or more definitions, each with line, column and JSON pointer.
    Validate {
        /// Amazon States Language, as JSON.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Run one stage's job from standard input: what the appliance starts for each media stage.
    #[command(hide = true)]
    Stage,
}

/// Parses the command line and runs what it says.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let end = match arguments.command {
        Command::Validate { files } => validate::run(&files),
        Command::Stage => Ok(sandbox::child_main(media::run)),
    };
    end.unwrap_or_else(|error| {
        eprintln!("conveyor: {error:#}");
        ExitCode::FAILURE
    })
}
