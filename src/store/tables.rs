//! The tables of the state file and how their keys are made.
//!
//! Keys are bytes that sort as people think: numbers big-endian, times with the sign bit flipped, texts ended by a
//! mark that sorts below every character. Invariant: the name of a table and the form of its keys never change
//! within a format version ([`super::open::FORMAT_VERSION`]).

use conveyor_base::{Attempt, BranchId, EventId, ExecutionId, TimerId, Timestamp};
use conveyor_interpreter::Status;
use redb::TableDefinition;

use super::rows::status_code;

pub(super) type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident = $number:literal $text:literal),* $(,)?) => {
        /// One table. The number stands in journal records.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
        #[repr(u8)]
        pub enum Table { $($(#[$doc])* $name = $number),* }

        impl Table {
            pub const ALL: &'static [Table] = &[$(Table::$name),*];

            pub fn name(self) -> &'static str {
                match self { $(Table::$name => $text),* }
            }

            pub(super) fn from_number(number: u8) -> Option<Table> {
                match number { $($number => Some(Table::$name),)* _ => None }
            }
        }
    };
}

tables! {
    /// name → [`super::MachineRow`]
    Machines = 0 "machines",
    /// name, revision → [`super::RevisionRow`]
    Revisions = 1 "revisions",
    /// name, version number → [`super::VersionRow`]
    Versions = 2 "versions",
    /// machine, alias → [`super::AliasRow`]
    Aliases = 3 "aliases",
    /// id → header, without its payloads, so that lists stay light
    Executions = 4 "executions",
    /// id, 0 (input) or 1 (output) → JSON as it was written
    Payloads = 5 "payloads",
    /// id, branch → branch
    Branches = 6 "branches",
    /// id, branch → the raw input of the Map that the branch is in, as JSON
    MapItems = 7 "map_items",
    /// id, number of the first event → the events of one step
    History = 8 "history",
    /// due, id, timer → the branch that it wakes; nothing where it is the execution's own
    Timers = 9 "timers",
    /// id, attempt → the task to issue again after a crash, until it is submitted or over
    Outstanding = 10 "outstanding",
    /// id → (): ended, and its parent has not been told yet
    Deliveries = 11 "deliveries",
    /// machine, status, id → (): every list of executions
    ByMachine = 12 "by_machine",
    /// machine, name → id
    ByName = 13 "by_name",
    /// machine, status → how many executions; where there are none, no row
    Counts = 14 "counts",
    /// content hash → [`super::ClaimRow`]
    Files = 15 "files",
    /// table, key → [`super::ItemRow`]
    Items = 16 "items",
    /// number → [`super::OutboxRow`]
    Outbox = 17 "outbox",
    /// name → [`super::ActivityRow`]
    Activities = 18 "activities",
    /// name → [`super::ScheduleRow`]
    Schedules = 19 "schedules",
    /// name → [`super::AlarmRow`]
    Alarms = 20 "alarms",
    /// key → bytes; the store's own keys begin with `store.`
    Settings = 21 "settings",
    /// id → the day whose archive file holds its history
    Archived = 22 "archived",
    /// parent, attempt → the child that the attempt started, until the child's end was told
    Children = 23 "children",
    /// queue, sequence number → [`super::MessageRow`]
    Queues = 24 "queues",
    /// event, the rule's target that it has not reached yet → [`super::EventRow`]
    Events = 25 "events",
    /// id, attempt → [`super::RemoteJobRow`]: the job at another service whose end the attempt waits for
    RemoteJobs = 26 "remote_jobs",
    /// parent, attempt → [`super::MapRunRow`]
    MapRuns = 27 "map_runs",
    /// the number of a Map run → parent, attempt
    MapRunNames = 28 "map_run_names",
    /// parent, attempt, page → items of a Map run that were read, one a line
    ItemPages = 29 "item_pages",
    /// time and number, newest first → [`super::AuditRow`]
    Audit = 30 "audit",
    /// id → [`super::UploadRow`]
    Uploads = 31 "uploads",
    /// id, attempt → [`super::ApprovalRow`]
    Approvals = 32 "approvals",
    /// number, newest first → [`super::DeliveredRow`]
    Delivered = 33 "delivered",
    /// share, key → [`super::LandingRow`]
    Landings = 34 "landings",
    /// share, key → [`super::ObjectRow`]
    Objects = 35 "objects",
    /// table of items → [`super::TableRow`]
    TableKeys = 36 "table_keys",
    /// `transcodes` → [`super::CalibrationRow`]
    Learnt = 37 "learnt",
    /// id, attempt → the branch that waits for the end of what the attempt submitted
    Submitted = 38 "submitted",
    /// id, branch, page → some of the items of the Map that the branch is in
    MapPages = 39 "map_pages",
    /// what the holder shows, hashed → [`super::SessionRow`]
    Sessions = 40 "sessions",
    /// id, time, number → [`super::ActionRow`]
    Actions = 41 "actions",
}

impl Table {
    pub const COUNT: usize = Table::ALL.len();

    pub(super) fn definition(self) -> Definition {
        TableDefinition::new(self.name())
    }
}

/// What ends a text within a key: sorts below every continuation, so that `a` stands before `ab`.
const TEXT_END: [u8; 2] = [0, 1];

/// A text as part of a key: NUL is escaped, so that no text can reach into the next part.
pub(super) fn push_text(key: &mut Vec<u8>, text: &str) {
    for &byte in text.as_bytes() {
        key.push(byte);
        if byte == 0 {
            key.push(0xff);
        }
    }
    key.extend_from_slice(&TEXT_END);
}

/// Takes a text off the front of a key.
pub(super) fn take_text(key: &[u8]) -> Option<(String, &[u8])> {
    let mut text = Vec::new();
    let mut at = 0;
    loop {
        match (*key.get(at)?, key.get(at + 1)) {
            (0, Some(1)) => return Some((String::from_utf8(text).ok()?, &key[at + 2..])),
            (0, Some(0xff)) => {
                text.push(0);
                at += 2;
            }
            (0, _) => return None,
            (byte, _) => {
                text.push(byte);
                at += 1;
            }
        }
    }
}

pub(super) fn text(text: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(text.len() + 2);
    push_text(&mut key, text);
    key
}

pub(super) fn texts(first: &str, second: &str) -> Vec<u8> {
    let mut key = text(first);
    push_text(&mut key, second);
    key
}

pub(super) fn text_number(first: &str, number: u64) -> Vec<u8> {
    let mut key = text(first);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

pub(super) fn branch(id: ExecutionId, branch: BranchId) -> Vec<u8> {
    id_number(id, branch.0)
}

/// A branch as a value: what waits is found by its attempt or its timer.
pub(super) fn waiter(branch: BranchId) -> [u8; 4] {
    branch.0.to_be_bytes()
}

pub(super) fn waiter_from(value: &[u8]) -> Option<BranchId> {
    Some(BranchId(u32::from_be_bytes(value.try_into().ok()?)))
}

pub(super) fn attempt(id: ExecutionId, attempt: Attempt) -> Vec<u8> {
    id_number(id, attempt.0)
}

pub(super) fn item_page(id: ExecutionId, attempt: Attempt, page: u32) -> Vec<u8> {
    let mut key = id_number(id, attempt.0);
    key.extend_from_slice(&page.to_be_bytes());
    key
}

pub(super) fn map_page(id: ExecutionId, branch: BranchId, page: u32) -> Vec<u8> {
    let mut key = id_number(id, branch.0);
    key.extend_from_slice(&page.to_be_bytes());
    key
}

fn id_number(id: ExecutionId, number: u32) -> Vec<u8> {
    let mut key = Vec::with_capacity(20);
    key.extend_from_slice(&id.to_bytes());
    key.extend_from_slice(&number.to_be_bytes());
    key
}

pub(super) fn history(id: ExecutionId, first: EventId) -> Vec<u8> {
    let mut key = Vec::with_capacity(24);
    key.extend_from_slice(&id.to_bytes());
    key.extend_from_slice(&first.0.to_be_bytes());
    key
}

/// Which of an execution's two texts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Payload {
    Input = 0,
    Output = 1,
}

pub(super) fn payload(id: ExecutionId, which: Payload) -> Vec<u8> {
    let mut key = id.to_bytes().to_vec();
    key.push(which as u8);
    key
}

pub(super) fn timer(due: Timestamp, id: ExecutionId, timer: TimerId) -> Vec<u8> {
    let mut key = Vec::with_capacity(28);
    key.extend_from_slice(&time(due));
    key.extend_from_slice(&id.to_bytes());
    key.extend_from_slice(&timer.0.to_be_bytes());
    key
}

pub(super) fn action(id: ExecutionId, at: Timestamp, number: u32) -> Vec<u8> {
    [id.to_bytes().as_slice(), &at.0.max(0).to_be_bytes(), &number.to_be_bytes()].concat()
}

pub(super) fn split_timer(key: &[u8]) -> Option<(Timestamp, ExecutionId, TimerId)> {
    let due = u64::from_be_bytes(key.get(..8)?.try_into().ok()?) ^ (1 << 63);
    let (id, timer) = split_id_number(key.get(8..)?)?;
    Some((Timestamp(due as i64), id, TimerId(timer)))
}

/// Flipping the sign bit makes two's complement sort as unsigned.
fn time(at: Timestamp) -> [u8; 8] {
    ((at.0 as u64) ^ (1 << 63)).to_be_bytes()
}

/// A number of which the largest sorts first.
pub(super) fn newest_first(number: u64) -> [u8; 8] {
    (u64::MAX - number).to_be_bytes()
}

pub(super) fn split_newest_first(key: &[u8]) -> Option<u64> {
    Some(u64::MAX - u64::from_be_bytes(key.try_into().ok()?))
}

pub(super) fn split_id(key: &[u8]) -> Option<(ExecutionId, &[u8])> {
    let (id, rest) = key.split_at_checked(16)?;
    Some((ExecutionId(u128::from_be_bytes(id.try_into().ok()?)), rest))
}

/// Whose a row is, for people: the execution's where its key says one.
pub(super) fn whose(table: Table, key: &[u8]) -> String {
    let id = match table {
        Table::Timers => key.get(8..).and_then(split_id),
        Table::Executions
        | Table::Payloads
        | Table::Branches
        | Table::MapItems
        | Table::History
        | Table::Outstanding
        | Table::Deliveries
        | Table::Archived
        | Table::Children
        | Table::RemoteJobs
        | Table::MapRuns
        | Table::ItemPages
        | Table::Approvals
        | Table::Submitted
        | Table::MapPages
        | Table::Actions => split_id(key),
        _ => None,
    };
    match (id, take_text(key)) {
        (Some((id, _)), _) => format!("what the table '{}' has of execution {id}", table.name()),
        (None, Some((first, _))) if !first.is_empty() => format!("what the table '{}' has of '{first}'", table.name()),
        _ => format!("a part of the table '{}'", table.name()),
    }
}

pub(super) fn split_id_number(key: &[u8]) -> Option<(ExecutionId, u32)> {
    let (id, rest) = split_id(key)?;
    Some((id, u32::from_be_bytes(rest.try_into().ok()?)))
}

/// The counts of a Map run's items beyond the first of each child, where those have several.
pub(super) fn more_items(list: &str) -> String {
    format!("{list}#items")
}

pub(super) fn machine_status(machine: &str, status: Status) -> Vec<u8> {
    let mut key = text(machine);
    key.push(status_code(status));
    key
}

/// Whether a count is of a state machine's executions, and not of a Map run's: only the latter's lists hold a slash.
pub(super) fn is_of_machine(count: &[u8]) -> bool {
    !count.contains(&b'/')
}

pub(super) fn by_machine(machine: &str, status: Status, id: ExecutionId) -> Vec<u8> {
    let mut key = machine_status(machine, status);
    key.extend_from_slice(&id.to_bytes());
    key
}

/// The first key that does not begin with `prefix`; `None` where there is none.
pub(super) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < 0xff {
            *last += 1;
            return Some(end);
        }
        end.pop();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_and_split() {
        let id = ExecutionId(7);
        assert!(timer(Timestamp(-5), id, TimerId(1)) < timer(Timestamp(3), id, TimerId(0)));
        assert_eq!(split_timer(&timer(Timestamp(-5), id, TimerId(9))), Some((Timestamp(-5), id, TimerId(9))));
        assert!(texts("a", "z") < texts("ab", "a"));
        assert_ne!(texts("a", "b\0\u{1}c"), texts("a\0\u{1}b", "c"));
        let key = texts("a\0b", "c");
        let (first, rest) = take_text(&key).unwrap();
        assert_eq!((first.as_str(), take_text(rest).unwrap().0.as_str()), ("a\0b", "c"));
        assert_eq!(after_prefix(&[1, 0xff]), Some(vec![2]));
        assert_eq!(after_prefix(&[0xff]), None);
    }

    #[test]
    fn numbers_of_tables_are_their_places() {
        for (place, table) in Table::ALL.iter().enumerate() {
            assert_eq!(*table as usize, place);
            assert_eq!(Table::from_number(*table as u8), Some(*table));
        }
    }
}
