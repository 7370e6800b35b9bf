//! The rows: rkyv archives, read in place and never trusted. Each lies in an envelope that has its version and its
//! checksum ([`super::envelope`]).
//!
//! What one owner keeps is in one file: the rows, how a [`Commit`](super::Commit) stores them and how a
//! [`Reader`](super::Reader) finds them. Only executions, which a step changes as a whole, have theirs in `commit`.
//!
//! Row types are their own, apart from the interpreter's and the wire's, so that those may change without changing
//! what lies on disks. Every access is checked (`bytecheck`). Invariant: a row type is changed only together with
//! its `VERSION`, and the old reader stays until `upgrade` has left no such row behind.

mod actions;
mod activities;
mod alarms;
mod approvals;
mod audit;
mod catalog;
mod claims;
mod events;
mod execution;
mod history;
mod items;
mod landings;
mod machines;
mod map_run;
mod maps;
mod notifications;
mod objects;
mod predictions;
mod queues;
mod remote_jobs;
mod schedules;
mod sessions;
mod settings;
mod task;
mod uploads;

use conveyor_base::Fault;
use conveyor_interpreter::Status;
use rkyv::Portable;
use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;

use super::disk::REPAIR;
use super::tables::Table;

pub use actions::ActionRow;
pub use activities::ActivityRow;
pub use alarms::{AlarmChangeRow, AlarmRow};
pub use approvals::ApprovalRow;
pub use audit::{AuditKey, AuditRow, NotAnAuditKey};
pub(super) use catalog::Catalog;
use catalog::catalog;
pub use catalog::{Id, Stamp, Tag};
pub use claims::ClaimRow;
pub use events::EventRow;
pub(super) use execution::{
    ArchivedHeaderRow, BranchRow, HeaderRow, PayloadsRow, branch_from, child, child_from, header_from, payloads_from,
};
pub(super) use history::{HistoryRow, events_from, newest_at};
pub use items::{ItemRow, TableRow};
pub use landings::LandingRow;
pub use machines::{AliasRow, MachineKind, MachineRow, RevisionRow, Route, VersionRow};
pub use map_run::{MapRunRow, RunCounts, RunStatus};
pub(super) use maps::{ITEMS_PER_PAGE, MapPageRow, map_input_from, map_page_from, map_pages, pages_of};
pub use notifications::{DeliveredRow, OutboxRow};
pub use objects::{ObjectField, ObjectRow};
pub use predictions::{CalibratedByRow, CalibrationRow, CorrectionRow};
pub use queues::MessageRow;
pub use remote_jobs::RemoteJobRow;
pub use schedules::ScheduleRow;
pub use sessions::{SessionKey, SessionRow};
pub(super) use task::{TaskRow, task_from};
pub use uploads::UploadRow;

/// What can be stored: an archive of a known version.
pub(super) trait Row:
    for<'a> rkyv::Serialize<HighSerializer<Vec<u8>, ArenaHandle<'a>, rancor::Error>>
    + rkyv::Archive<Archived: Portable + for<'a> CheckBytes<HighValidator<'a, rancor::Error>>>
{
    const VERSION: u8 = 1;
}

/// Appends a row's archive. Archives hold relative pointers only, so any place in a buffer will do.
pub(super) fn write<T: Row>(row: &T, buffer: &mut Vec<u8>) {
    let taken = std::mem::take(buffer);
    #[expect(clippy::expect_used, reason = "a Vec takes every archive: it has no bound to reach")]
    let written = rkyv::api::high::to_bytes_in::<_, rancor::Error>(row, taken).expect("a Vec takes every archive");
    *buffer = written;
}

/// What is in a row's envelope, in place.
pub(super) fn archived<T: Row>(table: Table, content: &[u8]) -> Result<&T::Archived, Fault> {
    rkyv::access::<T::Archived, rancor::Error>(content)
        .map_err(|e| damaged(table, &format!("a row is not what was written ({e})")))
}

/// A row or key that cannot have been written by this store.
pub(super) fn damaged(table: Table, what: &str) -> Fault {
    Fault::damaged_plain(format!("table '{}' of the state file: {what}; {REPAIR}", table.name()))
}

/// A status as keys and rows hold it.
pub(super) fn status_code(status: Status) -> u8 {
    match status {
        Status::Running => 0,
        Status::Succeeded => 1,
        Status::Failed => 2,
        Status::TimedOut => 3,
        Status::Aborted => 4,
        Status::PendingRedrive => 5,
    }
}

pub(super) const STATUSES: [Status; 6] =
    [Status::Running, Status::Succeeded, Status::Failed, Status::TimedOut, Status::Aborted, Status::PendingRedrive];

pub(super) fn status_of(table: Table, code: u8) -> Result<Status, Fault> {
    STATUSES.get(usize::from(code)).copied().ok_or_else(|| damaged(table, &format!("there is no status {code}")))
}
