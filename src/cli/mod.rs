//! The command line: one file per subcommand.
//!
//! Owns what a person at a shell types and reads. Must never: build a box otherwise than by `conveyor_appliance`, or know
//! more of a running one than its HTTP side tells. Holds: what fails says why on standard error and ends with a code that is
//! not 0; the stage's child, which is this binary too, says nothing but its reports.

#[macro_use]
mod out;

mod bench;
mod demo;
mod executions;
mod files;
mod follow;
mod hw;
mod logs;
mod serve;
mod terminal;
mod tls;
mod validate;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use conveyor_base::limits::set_quotas;
use conveyor_sandbox::Mode;
use tracing_subscriber::EnvFilter;

pub use serve::serve;

/// The runtime of an on-prem media appliance.
#[derive(Debug, Parser)]
#[command(name = "conveyor", version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the appliance: workflows, watched shares, API and dashboard.
    Serve(serve::Serve),
    /// Make a clip, drop it on a share, follow it to the end and print where the results are.
    Demo(demo::Demo),
    /// Run one file through a workflow, without a server.
    Run(demo::Run),
    /// Print all problems of one or more definitions and what can never happen in them, with line and column.
    Validate(validate::Validate),
    /// List and show the executions of a running appliance and their histories; stop, redrive and rerun them.
    Executions(executions::Executions),
    /// Print what executions logged, from the appliance's files.
    Logs(logs::Logs),
    /// Show what is in this box: CPU, memory, GPUs with their encoders and decoders, shares.
    Hw(hw::Hw),
    /// Measure the box: engines, media graphs, encoders, shares, store; keep the report and compare it.
    Bench(bench::Bench),
    /// Make a certificate of the box's own, and renew it.
    Tls(tls::Tls),
    /// Verify the store's files; with --repair, mend what can be mended.
    Check(files::Check),
    /// Bring the store's files to this release's form.
    Upgrade(files::DataDir),
    /// Start a program of the owner in its jail: what the appliance starts for each of `[functions]`.
    #[command(hide = true)]
    Function {
        #[arg(long)]
        best_effort: bool,
        /// What it does not see.
        #[arg(long)]
        hide: Vec<PathBuf>,
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Run one stage's job from standard input: what the appliance starts for each media stage.
    #[command(hide = true)]
    Stage {
        /// How it is held, as JSON.
        #[arg(long)]
        sandbox: Option<String>,
        /// What is in force of [limits], as JSON.
        #[arg(long)]
        limits: Option<String>,
    },
}

/// This very binary: children are started from it.
const OWN_BINARY: &str = "/proc/self/exe";

/// Turns of a thread until it looks at sockets and clocks again, though there is other work.
const TURNS_BETWEEN_LOOKS: u32 = 7;

/// Parses the command line and runs what it says.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // The child logs plainly: its last lines become the cause that people read.
    if !matches!(arguments.command, Command::Stage { .. } | Command::Function { .. }) {
        log_to_stderr(matches!(arguments.command, Command::Serve(_)));
    }
    let end = match arguments.command {
        Command::Serve(arguments) => on_runtime(serve::run(arguments)),
        Command::Demo(arguments) => on_runtime(demo::demo(arguments)),
        Command::Run(arguments) => on_runtime(demo::run(arguments)),
        Command::Executions(arguments) => on_runtime(executions::run(arguments)),
        Command::Validate(arguments) => validate::run(&arguments),
        Command::Logs(arguments) => logs::run(&arguments),
        Command::Hw(arguments) => hw::run(&arguments),
        Command::Bench(arguments) => on_runtime(bench::run(arguments)),
        Command::Tls(arguments) => tls::run(&arguments),
        Command::Check(arguments) => files::check(&arguments),
        Command::Upgrade(place) => files::upgrade(&place),
        Command::Stage { sandbox, limits } => stage(sandbox.as_deref(), limits.as_deref()),
        Command::Function { best_effort, hide, command } => {
            let mode = if best_effort { Mode::BestEffort } else { Mode::Enforce };
            Ok(conveyor_sandbox::function_main(mode, &hide, &command))
        }
    };
    let end = end.unwrap_or_else(|error| {
        eprintln!("conveyor: {error:#}");
        ExitCode::FAILURE
    });
    if out::is_whole() { end } else { ExitCode::FAILURE }
}

/// The child's side. What it is told of its jail comes from the appliance; by hand it is the strictest.
fn stage(sandbox: Option<&str>, limits: Option<&str>) -> anyhow::Result<ExitCode> {
    let sandbox = sandbox.map(serde_json::from_str).transpose()?.unwrap_or_default();
    // Nothing was read of them before.
    let _ = set_quotas(limits.map(serde_json::from_str).transpose()?.unwrap_or_default());
    Ok(conveyor_sandbox::child_main(&sandbox, conveyor_media::run))
}

fn on_runtime(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    // Where every thread is busy, sockets are looked at after so many turns: at Tokio's 61, turns of a tenth of a second that
    // large executions take keep whoever asks waiting for six.
    runtime.event_interval(TURNS_BETWEEN_LOOKS).enable_all().build()?.block_on(work)
}

/// `RUST_LOG` says otherwise: by default a server tells what an operator may want to know, and the rest only warns.
fn log_to_stderr(serves: bool) {
    let default = if serves { "info" } else { "warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}
