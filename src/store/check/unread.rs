//! What `check` says where the state file cannot be read to its end: whose each part is that cannot. The rest of it is not
//! held against each other then, since rows are missing.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use conveyor_base::{Fault, fault};

use super::super::damages::Damages;
use super::super::disk::Backends;
use super::super::open::{Files, open_files, recover};
use super::super::overlay::Direction;
use super::super::tables::Table;
use super::Report;

/// Walks over every table, with the file opened anew after each that is damaged: redb gives nothing more out of it then.
pub(super) fn name_what_is_damaged(backends: &Arc<dyn Backends>, found: &Fault, report: &mut Report) {
    let damages: Arc<Damages> = Arc::default();
    let mut tables = Table::ALL.iter().peekable();
    while tables.peek().is_some() {
        let Ok(Files { state, journal: _, tail }) = open_files(backends, 0) else { break };
        let Ok((overlay, _)) = recover(&state, tail, &damages) else { break };
        let snapshot = overlay.snapshot();
        for table in tables.by_ref() {
            let all = (Bound::Unbounded, Bound::Unbounded);
            if snapshot.scan(*table, all, Direction::Forward, |_, _| Ok(ControlFlow::Continue(()))).is_err() {
                break;
            }
        }
    }
    let all = damages.all();
    if all.is_empty() {
        report.problem(fault::chain(found));
    }
    all.into_iter().for_each(|what| report.problem(what));
}
