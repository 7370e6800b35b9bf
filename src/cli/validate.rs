//! `conveyor validate`: all problems of a definition at once.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::asl;
use crate::base::limits::DEFINITION_BYTES_MAX;

/// Prints each problem as `file:line:column: /pointer: text [CODE]`; fails when any file has an error.
pub fn run(files: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let mut refused = 0;
    for file in files {
        let name = file.display();
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
        if text.len() > DEFINITION_BYTES_MAX {
            println!("{name}: {} bytes; a definition may have {DEFINITION_BYTES_MAX} at most", text.len());
            refused += 1;
            continue;
        }
        match asl::parse(&text) {
            Ok(machine) => println!("{name}: valid, {} states", machine.states.len()),
            Err(problems) => {
                refused += 1;
                problems.iter().for_each(|problem| println!("{name}:{problem}"));
            }
        }
    }
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
