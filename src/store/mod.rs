//! The store. What was decided becomes durable here, and is read from here.
//!
//! Two places with one writer each: the *journal*, preallocated files to which the writing thread appends whole batches
//! of commits with one durable write, and the *state*, a redb file to which a checkpointer carries the surviving rows.
//! Until then rows live in memory ([`overlay`](self)), and a [`Reader`] sees both as one: single rows from anywhere, and
//! walks over them ([`Scans`]) on threads that may block.
//!
//! ```text
//! Commit --encode--> queue --batch--> journal (sync) --publish--> overlay --checkpoint--> state (sync)
//!                                        |                          \__ Reader, Rows ____/
//!                                        +--> acknowledged
//! ```
//!
//! Every row lies in an [`envelope`](self): a version, and a checksum. Every row has an owner, who
//! has a table of its own and one file of [`rows`](self).
//!
//! Stored bytes are verified whenever they are read ([`Blocks`] under redb's pages, sectors of the journal, envelopes of rows) and
//! once a day in any case (`scrub`). What has rotted is a [`Fault::Damaged`](conveyor_base::Fault) of whoever reads it, and
//! [`Reader::damages`] has it for the alarm; others go on, and what nobody can do without ends the process in order. A
//! checkpoint that comes upon damage where a row belongs is put off: all that is new stays in the journal and in memory
//! until there is so much of it that the process ends in order, or a repair has taken it along.
//!
//! Ended executions leave the state file for compressed files of their days (`archive`), and after their time leave
//! altogether (`retention`): the files stop growing.
//!
//! Must never: decide what becomes of an execution or a service, or know who else reads and writes. Holds: a commit is
//! stored whole or not at all; it is acknowledged after its sync, never before; an I/O error is fatal, and nothing is
//! written after it.

mod archive;
mod blocks;
mod check;
mod commit;
mod damages;
mod disk;
mod engine;
mod envelope;
mod journal;
mod open;
mod overlay;
mod reader;
mod record;
mod repair;
mod retention;
mod rows;
mod scrub;
pub mod sim;
mod tables;
mod upgrade;
mod writer;

#[cfg(test)]
mod tests;

pub use blocks::Blocks;
pub use check::{Report, check};
pub use commit::Commit;
pub use damages::{STORE_DAMAGED, damage_cause, is_damaged, unless_damaged};
pub use disk::{Backends, Directory};
pub use open::{Options, open};
pub use overlay::Direction;
pub use reader::{Child, ExecutionFilter, ExecutionSummary, NotRead, Page, Reader, RunChild, Scans, StoredRows};
pub use repair::{Repair, repair};
pub use retention::{EndedBefore, Pass};
pub use rows::{
    ActionRow, ActivityRow, AlarmChangeRow, AlarmRow, AliasRow, ApprovalRow, AuditKey, AuditRow, CalibratedByRow,
    CalibrationRow, ClaimRow, CorrectionRow, DeliveredRow, EventRow, Id, ItemRow, LandingRow, MachineKind, MachineRow,
    MapRunRow, MessageRow, NotAnAuditKey, ObjectField, ObjectRow, OutboxRow, RemoteJobRow, RevisionRow, Route,
    RunCounts, RunStatus, ScheduleRow, SessionKey, SessionRow, Stamp, TableRow, Tag, UploadRow, VersionRow,
};
pub use tables::Table;
pub use upgrade::{Upgrade, upgrade};
pub use writer::{Durable, Threads, Writer};
