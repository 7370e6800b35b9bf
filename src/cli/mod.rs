//! Floor 7: one file per subcommand, the configuration, the wiring and the orderly shutdown.

/// Parses the command line and runs what it says.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
