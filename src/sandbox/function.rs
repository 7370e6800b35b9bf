//! The owner's own programs, such as `[functions]` name: they use the network, files and devices as they please, but are not
//! the appliance. This same binary starts them, as `conveyor function`, in a jail of their own ([`jail::function`]).

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use tokio::process::Command;

use super::jail::{self, Entered, Mode};

/// How a program ends that was not started, as shells and `env` have it.
const NOT_STARTED: u8 = 125;

/// How they are started.
#[derive(Clone, Debug)]
pub struct Functions {
    /// This same binary.
    pub program: PathBuf,
    pub mode: Mode,
    /// What they do not see: the store, the configuration with its secrets.
    pub hidden: Vec<PathBuf>,
}

impl Functions {
    /// A command that starts this program with these arguments, in jail.
    pub fn command(&self, program: &str, arguments: &[String]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("function");
        if self.mode == Mode::BestEffort {
            command.arg("--best-effort");
        }
        for path in &self.hidden {
            command.arg("--hide").arg(path);
        }
        command.arg("--").arg(program).args(arguments);
        command
    }
}

/// The child's side: goes to jail and becomes the program. Must be called while the process has one thread.
pub fn function_main(mode: Mode, hidden: &[PathBuf], command: &[String]) -> ExitCode {
    let Some((program, arguments)) = command.split_first() else {
        eprintln!("no program is named");
        return ExitCode::from(NOT_STARTED);
    };
    match jail::function::enter(mode, hidden) {
        Ok(Entered::Over { code, .. }) => code,
        Ok(Entered::Worker(_)) => {
            let error = std::process::Command::new(program).args(arguments).exec();
            eprintln!("{program} could not be started: {error}");
            ExitCode::from(NOT_STARTED)
        }
        Err(why) => {
            eprintln!(
                "{program} was not started, since the jail around it does not close: {why}. \
                 [sandbox] mode = \"best-effort\" starts it behind what does close"
            );
            ExitCode::from(NOT_STARTED)
        }
    }
}
