//! The one binary: appliance, command line and, as `conveyor stage`, the sandboxed media child.
//!
//! Each folder beside this file is a crate, and the crates are floors: each sees the lower ones that its Cargo.toml names,
//! and `tests/tidy.rs` holds the order. What a crate owns, must never do, and what holds in it stands at its head.
//!
//! ```text
//! floor 9  cli
//! floor 8  appliance     the settings, and the box put together from them
//! floor 7  api
//! floor 6  resources  ingest  bench  dashboard
//! floor 5  services  logs
//! floor 4  run
//! floor 3  store  media
//! floor 2  interpreter  settings  sandbox
//! floor 1  asl  job
//! floor 0  base  jsonata  aws  pixels  hw
//! ```
//!
//! The kernel is `jsonata`, `asl`, `interpreter`, `store` and `run`: it knows nothing of media and nothing of HTTP. Only
//! this crate and `cli` are built with `media`, and so with GStreamer.
//!
//! Three words carry the design: decide, commit, act. `conveyor_interpreter::step` decides and touches nothing,
//! `conveyor_store` makes one durable commit of the decision, and `conveyor_run` carries it out. Services do the same.

/// Rows are made by one thread and freed by another, many at a time, which the C library's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    conveyor_cli::main()
}
