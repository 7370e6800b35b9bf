//! The rows: rkyv archives with a version byte before them, read in place and never trusted.
//!
//! Row types are their own, apart from the interpreter's and the wire's, so that those may change without changing
//! what lies on disks. Every access is checked (`bytecheck`). Invariant: a row type is changed only together with
//! its `VERSION`, and the old reader stays until `upgrade` has left no such row behind.

mod catalog;
mod execution;
mod history;
mod map_run;
mod maps;
mod task;

use rkyv::Portable;
use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;

use super::tables::Table;
use crate::base::Fault;
use crate::interpreter::Status;

pub use catalog::{
    ActivityRow, AliasRow, EventRow, FileRow, Id, ItemRow, MachineKind, MachineRow, MessageRow, OutboxRow, RevisionRow,
    Route, Stamp, Tag, VersionRow,
};
pub(super) use catalog::{Catalog, DocumentRow};
pub(super) use execution::{
    ArchivedHeaderRow, BranchRow, HeaderRow, PayloadsRow, branch_from, child, child_from, header_from, payloads_from,
};
pub(super) use history::{HistoryRow, events_from};
pub use map_run::{MapRunRow, RunCounts, RunStatus};
pub(super) use maps::{ArchivedMapRow, MapRow, map_input_from, map_item_from, map_items_from};
pub(super) use task::{TaskRow, task_from};

/// What can be stored: an archive of a known version.
pub(super) trait Row:
    for<'a> rkyv::Serialize<HighSerializer<Vec<u8>, ArenaHandle<'a>, rancor::Error>>
    + rkyv::Archive<Archived: Portable + for<'a> CheckBytes<HighValidator<'a, rancor::Error>>>
{
    const VERSION: u8 = 1;
}

/// Appends a row's version and archive. Archives hold relative pointers only, so any place in a buffer will do.
pub(super) fn write<T: Row>(row: &T, buffer: &mut Vec<u8>) {
    buffer.push(T::VERSION);
    let taken = std::mem::take(buffer);
    *buffer = rkyv::api::high::to_bytes_in::<_, rancor::Error>(row, taken).expect("a Vec takes every archive");
}

/// A row, in place.
pub(super) fn access<T: Row>(table: Table, bytes: &[u8]) -> Result<&T::Archived, Fault> {
    let (&version, archive) = bytes.split_first().ok_or_else(|| damaged(table, "a row is empty"))?;
    if version != T::VERSION {
        let what = format!("a row has version {version}, and this release reads version {}", T::VERSION);
        return Err(damaged(table, &what));
    }
    rkyv::access::<T::Archived, rancor::Error>(archive)
        .map_err(|e| damaged(table, &format!("a row is not what was written ({e})")))
}

/// A row or key that cannot have been written by this store.
pub(super) fn damaged(table: Table, what: &str) -> Fault {
    Fault::fatal_plain(format!(
        "table '{}' of the state file: {what}; run `conveyor check` on the data directory and restore a backup if it \
         confirms the damage",
        table.name()
    ))
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
