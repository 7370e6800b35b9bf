//! The one binary: appliance, command line and, as `conveyor stage`, the sandboxed media child.

/// Rows are made by one thread and freed by another, many at a time, which the C library's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    conveyor::cli::main()
}
