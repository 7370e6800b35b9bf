//! The one binary: appliance, command line and, as `conveyor stage`, the sandboxed media child.

fn main() -> std::process::ExitCode {
    conveyor::cli::main()
}
