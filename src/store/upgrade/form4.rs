//! The form of release 0.1: what its files hold, and how each row lies in this release's.
//!
//! Rows had a version byte before the archive and no checksum; texts, ids and numbers had neither. What a Map works on
//! was one row, and no row led from a timer or a submitted attempt to the branch that waits. Schedules, alarms,
//! remote jobs, the keys of tables and what predictions learnt were JSON. The box's own records were JSON among the
//! users' items, in tables named `$audit`, `$uploads`, `$approvals`, `$delivered`, `.landings.SHARE` and
//! `conveyor.objects`; a workflow could put items there too, and those are told by their shape: in the first four, whose
//! names DynamoDB refuses, nobody could reach them any more and they are left out, elsewhere they stay the user's items.

use std::collections::BTreeMap;
use std::sync::Arc;

use conveyor_base::{Attempt, BranchId, ExecutionId, Fault};
use conveyor_interpreter::{Item, MapItems};
use redb::{Database, ReadableDatabase, ReadableTable};
use rkyv::{Archive, Serialize};
use serde::Deserialize;
use serde_json::Value;

use super::NewRow;
use crate::commit::{Commit, submitted};
use crate::disk::{Backends, state_fault};
use crate::engine::APPLIED;
use crate::envelope::{PLAIN, Sealed, seal};
use crate::journal::{Journal, StoreId, Tail};
use crate::open::{FORMAT as FORMAT_KEY, STORE_ID};
use crate::record::{Change, Op, changes};
use crate::rows::{
    self, AlarmChangeRow, AlarmRow, ApprovalRow, AuditKey, AuditRow, BranchRow, CalibrationRow, CorrectionRow,
    DeliveredRow, LandingRow, ObjectField, ObjectRow, RemoteJobRow, Row, ScheduleRow, Stamp, TableRow, UploadRow,
    damaged,
};
use crate::tables::{self, Table};

pub(super) const FORMAT: u32 = 4;
/// The form after it, whose rows are as they are now.
pub(super) const FORMAT_5: u32 = 5;
/// The version of every row of that release.
const VERSION: u8 = 1;

/// Items and documents: JSON in an archive.
#[derive(Archive, Serialize)]
struct JsonRow {
    json: String,
}

impl Row for JsonRow {}

/// What a Map works on, whole.
#[derive(Archive, Serialize)]
struct MapRow {
    input: String,
    items: String,
    keys: Vec<String>,
}

impl Row for MapRow {}

impl ArchivedMapRow {
    fn map(&self) -> Result<MapItems, Fault> {
        let no_json = |e| damaged(Table::MapItems, &format!("a row holds no JSON ({e})"));
        let values: Vec<Value> = serde_json::from_str(&self.items).map_err(no_json)?;
        let mut keys = self.keys.iter();
        let item = |value| Item { key: keys.next().map(|key| Arc::from(key.as_str())), ..Item::of(value) };
        let items = values.into_iter().map(item).collect();
        Ok(MapItems { input: serde_json::from_str::<Value>(&self.input).map_err(no_json)?.into(), items })
    }
}

/// The branches that timers wake, by the timers' keys: no row said so.
type Waiters = BTreeMap<Vec<u8>, BranchId>;

/// A row that is not taken along, by what it was found as.
pub(super) struct LeftOut(pub String);

type Converted = Result<NewRow, LeftOut>;

/// The files of a store of that release, or of form 5.
pub(super) struct Form4 {
    format: u32,
    pub store_id: StoreId,
    /// The newest batch of the journal.
    pub newest: u64,
    state: Database,
    /// By table: what the journal has and the state file has not. `None`: deleted.
    newer: Vec<BTreeMap<Vec<u8>, Option<Vec<u8>>>>,
    /// The same of counts: what was added.
    added: BTreeMap<Vec<u8>, i64>,
}

impl Form4 {
    pub fn open(backends: &Arc<dyn Backends>, state: Database, format: u32) -> Result<Form4, Fault> {
        let setting = if format == FORMAT { plain_setting } else { crate::open::setting };
        let store_id = setting(&state, STORE_ID)?.and_then(|id| id.try_into().ok());
        let store_id = store_id.ok_or_else(|| damaged(Table::Settings, "the store's id is missing"))?;
        let applied = setting(&state, APPLIED)?.and_then(|number| number.try_into().ok());
        let applied = applied.map_or(0, u64::from_le_bytes);
        let (_, tail) = Journal::open(backends.clone(), store_id, 0, applied)?;
        let newest = tail.keys().next_back().copied().unwrap_or(applied);
        let newer = (0..Table::COUNT).map(|_| BTreeMap::new()).collect();
        let mut form4 = Form4 { format, store_id, newest, state, newer, added: BTreeMap::new() };
        form4.replay(tail)?;
        Ok(form4)
    }

    fn replay(&mut self, tail: Tail) -> Result<(), Fault> {
        for (number, records) in tail {
            let part = |(start, length): (u32, u32)| &records[start as usize..][..length as usize];
            for change in changes(&records) {
                let change =
                    change.map_err(|e| Fault::fatal(format!("batch {number} of the journal cannot be replayed"), e))?;
                let (key, value) = (part(change.key).to_vec(), part(change.value));
                let rows = &mut self.newer[change.table as usize];
                match change.op {
                    Op::Put | Op::PutNew => drop(rows.insert(key, Some(value.to_vec()))),
                    Op::Delete => drop(rows.insert(key, None)),
                    Op::Add => *self.added.entry(key).or_default() += number_of(change.table, value)?,
                }
            }
        }
        Ok(())
    }

    /// Hands over every row that the store has, converted; what is the store's own is left to the caller.
    pub fn each(&self, mut take: impl FnMut(Converted) -> Result<(), Fault>) -> Result<(), Fault> {
        let transaction = self.state.begin_read().map_err(state_fault)?;
        let mut waiters = Waiters::new();
        let tables = if self.format == FORMAT { TABLES } else { TABLES_OF_FORM_5 };
        let mut convert = |table: Table, key: &[u8], value: &[u8], take: &mut _| match self.format {
            FORMAT => convert(table, key, value, &mut waiters, take),
            _ => as_it_is(table, key, value, take),
        };
        for &table in Table::ALL.iter().filter(|table| (**table as u8) < tables && **table != Table::Counts) {
            let newer = &self.newer[table as usize];
            let stored = transaction.open_table(table.definition()).map_err(state_fault)?;
            for row in stored.iter().map_err(state_fault)? {
                let (key, value) = row.map_err(state_fault)?;
                if !newer.contains_key(key.value()) {
                    convert(table, key.value(), value.value(), &mut take)?;
                }
            }
            for (key, value) in newer {
                if let Some(value) = value {
                    convert(table, key, value, &mut take)?;
                }
            }
        }
        let mut counts = self.added.clone();
        let stored = transaction.open_table(Table::Counts.definition()).map_err(state_fault)?;
        for row in stored.iter().map_err(state_fault)? {
            let (key, value) = row.map_err(state_fault)?;
            let number = match self.format {
                FORMAT => value.value(),
                _ => Sealed::new(Table::Counts, key.value(), value.value()).plain()?,
            };
            *counts.entry(key.value().to_vec()).or_default() += number_of(Table::Counts, number)?;
        }
        for (key, count) in counts.into_iter().filter(|(_, count)| *count != 0) {
            take(Ok(sealed(Table::Counts, PLAIN, &key, &count.to_le_bytes())))?;
        }
        Ok(())
    }
}

/// A row of form 5.
fn as_it_is(
    table: Table,
    key: &[u8],
    value: &[u8],
    take: &mut impl FnMut(Converted) -> Result<(), Fault>,
) -> Result<(), Fault> {
    if table == Table::Settings && [FORMAT_KEY, STORE_ID, APPLIED].contains(&key) {
        return Ok(());
    }
    Sealed::new(table, key, value).verify()?;
    take(Ok(NewRow { table, key: key.to_vec(), value: value.to_vec() }))
}

/// Tables of that release have numbers below this.
const TABLES: u8 = 30;
/// How many form 5 had.
const TABLES_OF_FORM_5: u8 = 40;

fn plain_setting(state: &Database, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    let transaction = state.begin_read().map_err(state_fault)?;
    let settings = transaction.open_table(Table::Settings.definition()).map_err(state_fault)?;
    Ok(settings.get(key).map_err(state_fault)?.map(|value| value.value().to_vec()))
}

fn number_of(table: Table, value: &[u8]) -> Result<i64, Fault> {
    value.try_into().map(i64::from_le_bytes).map_err(|_| damaged(table, "a row is no count"))
}

fn sealed(table: Table, version: u8, key: &[u8], content: &[u8]) -> NewRow {
    NewRow { table, key: key.to_vec(), value: seal(table, version, key, content) }
}

/// An archive of that release, without its version.
pub(super) fn without_version(table: Table, row: &[u8]) -> Result<(u8, &[u8]), Fault> {
    match row.split_first() {
        Some((&VERSION, archive)) => Ok((VERSION, archive)),
        _ => Err(damaged(table, "a row is not of the version that release 0.1 wrote")),
    }
}

fn convert(
    table: Table,
    key: &[u8],
    value: &[u8],
    waiters: &mut Waiters,
    take: &mut impl FnMut(Converted) -> Result<(), Fault>,
) -> Result<(), Fault> {
    match table {
        // Those of branches were found before: their table comes first.
        Table::Timers => {
            let waiter = waiters.remove(key).map(tables::waiter);
            take(Ok(sealed(table, PLAIN, key, waiter.as_ref().map_or(&[], |waiter| waiter))))
        }
        Table::Branches => {
            let (version, archive) = without_version(table, value)?;
            take(Ok(sealed(table, version, key, archive)))?;
            let (id, number) = tables::split_id_number(key).ok_or_else(|| damaged(table, "a key is no branch"))?;
            let branch = rows::branch_from(rows::archived::<BranchRow>(table, archive)?)?;
            let number = BranchId(number);
            waiters.extend(branch.doing.timers().map(|(timer, due)| (tables::timer(due, id, timer), number)));
            if let Some(attempt) = submitted(&branch.doing) {
                let key = tables::attempt(id, attempt);
                take(Ok(sealed(Table::Submitted, PLAIN, &key, &tables::waiter(number))))?;
            }
            Ok(())
        }
        Table::MapItems => {
            let (_, archive) = without_version(table, value)?;
            let (id, branch) = tables::split_id_number(key).ok_or_else(|| damaged(table, "a key is no branch"))?;
            let map = rows::archived::<MapRow>(table, archive)?.map()?;
            let mut commit = Commit::new();
            commit.map_items(id, BranchId(branch), 0, Some(&map));
            rows_of(commit).into_iter().try_for_each(|row| take(Ok(row)))
        }
        Table::Payloads
        | Table::Deliveries
        | Table::ByMachine
        | Table::ByName
        | Table::Archived
        | Table::Children
        | Table::MapRunNames
        | Table::ItemPages => take(Ok(sealed(table, PLAIN, key, value))),
        Table::Settings if [FORMAT_KEY, STORE_ID, APPLIED].contains(&key) => Ok(()),
        Table::Settings => take(setting(key, value)),
        Table::Items | Table::Schedules | Table::Alarms | Table::RemoteJobs => {
            let (version, archive) = without_version(table, value)?;
            let json = rows::archived::<JsonRow>(table, archive)?.json.as_str();
            let found = if table == Table::Items { item(key, json) } else { document(table, key, json) };
            take(found.unwrap_or_else(|| Ok(sealed(table, version, key, archive))))
        }
        _ => {
            let (version, archive) = without_version(table, value)?;
            take(Ok(sealed(table, version, key, archive)))
        }
    }
}

/// A row as a commit of this release would store it.
fn row(build: impl FnOnce(&mut Commit) -> &mut Commit) -> Option<NewRow> {
    let mut commit = Commit::new();
    build(&mut commit);
    rows_of(commit).into_iter().next()
}

/// The rows of a commit that only puts some.
fn rows_of(mut commit: Commit) -> Vec<NewRow> {
    let Ok(record) = std::mem::take(&mut commit.record).into_shared() else { return Vec::new() };
    let part = |(start, length): (u32, u32)| record[start as usize..][..length as usize].to_vec();
    let row = |change: Change| NewRow { table: change.table, key: part(change.key), value: part(change.value) };
    changes(&record).map_while(Result::ok).map(row).collect()
}

/// A setting that became a row of its own, or stays one.
fn setting(key: &[u8], value: &[u8]) -> Converted {
    let name = std::str::from_utf8(key).unwrap_or_default();
    let left_out = || LeftOut(format!("the setting '{name}'"));
    if let Some(table) = name.strip_prefix("tables.") {
        let of_the_box = OWN.contains(&table);
        let read = serde_json::from_slice::<TableKey>(value).ok().filter(|_| !of_the_box);
        let put = |found: TableKey| row(|c| c.put_table(table, &TableRow { key: found.key, range: found.range }));
        return read.and_then(put).ok_or_else(left_out);
    }
    if name == "predict.learnt" {
        let read = serde_json::from_slice::<Lessons>(value).ok();
        return read.and_then(|lessons| row(|c| c.put_calibration(&lessons.row()))).ok_or_else(left_out);
    }
    Ok(sealed(Table::Settings, PLAIN, key, value))
}

/// A schedule, an alarm or a remote job.
fn document(table: Table, key: &[u8], json: &str) -> Option<Converted> {
    let read = || match table {
        Table::Schedules => {
            let (name, _) = tables::take_text(key)?;
            let last = serde_json::from_str::<Value>(json).ok()?.get("last")?.as_i64()?;
            row(|c| c.put_schedule(&name, &ScheduleRow { last: Stamp(last) }))
        }
        Table::Alarms => {
            let (name, _) = tables::take_text(key)?;
            let alarm: Alarm = serde_json::from_str(json).ok()?;
            row(|c| c.put_alarm(&name, &alarm.row()))
        }
        _ => {
            let (id, attempt) = tables::split_id_number(key)?;
            let job: RemoteJob = serde_json::from_str(json).ok()?;
            row(|c| c.put_remote_job(id, Attempt(attempt), &job.row()))
        }
    };
    Some(read().ok_or_else(|| LeftOut(format!("table '{}'", table.name()))))
}

/// The box's own tables whose names DynamoDB refuses: whatever else lay there, nobody can reach.
const OWN: [&str; 4] = ["$audit", "$uploads", "$approvals", "$delivered"];

/// A record of the box's own that lay among the items; nothing where it is a user's item.
fn item(key: &[u8], json: &str) -> Option<Converted> {
    let (table, rest) = tables::take_text(key)?;
    let (key, _) = tables::take_text(rest)?;
    match own_record(&table, &key, json) {
        Some(row) => Some(Ok(row)),
        None if OWN.contains(&table.as_str()) => Some(Err(LeftOut(format!("table '{table}'")))),
        None => None,
    }
}

fn own_record(table: &str, key: &str, json: &str) -> Option<NewRow> {
    match table {
        "$audit" => {
            let entry: Audit = serde_json::from_str(json).ok()?;
            let key: AuditKey = key.parse().ok()?;
            row(|c| c.put_audit(key, &entry.row()))
        }
        "$uploads" => {
            let Upload { share, key: path, part, bytes, by } = serde_json::from_str(json).ok()?;
            row(|c| c.put_upload(key, &UploadRow { share, key: path, part, bytes, by }))
        }
        "$approvals" => {
            let (id, attempt) = key.rsplit_once('-')?;
            let (id, attempt): (ExecutionId, u32) = (id.parse().ok()?, attempt.parse().ok()?);
            let Approval { token, state, title, asked, since } = serde_json::from_str(json).ok()?;
            let asked = asked.to_string();
            let since = Stamp(since);
            row(|c| c.put_approval(id, Attempt(attempt), &ApprovalRow { token, state, title, asked, since }))
        }
        "$delivered" => {
            let number = u64::MAX - key.parse::<u64>().ok()?;
            let found: Delivered = serde_json::from_str(json).ok()?;
            row(|c| c.put_delivered(number, &found.row()))
        }
        "conveyor.objects" => {
            let (share, path) = key.split_once('/')?;
            let Value::Object(mut fields) = serde_json::from_str(json).ok()? else { return None };
            let Value::String(etag) = fields.shift_remove("ETag")? else { return None };
            let fields = fields.into_iter().map(|(name, value)| ObjectField { name, json: value.to_string() });
            let fields = fields.collect();
            row(|c| c.put_object(share, path, &ObjectRow { etag, fields }))
        }
        _ => {
            let share = table.strip_prefix(".landings.")?;
            let Landing { sight, execution } = serde_json::from_str(json).ok()?;
            let sight = sight.parse().ok()?;
            row(|c| c.put_landing(share, key, &LandingRow { sight, execution }))
        }
    }
}

#[derive(Deserialize)]
struct TableKey {
    key: String,
    range: Option<String>,
}

#[derive(Deserialize)]
struct Lessons {
    cores: Learnt,
    gpus: Learnt,
    last_on_gpu: bool,
}

#[derive(Deserialize)]
struct Learnt {
    jobs: u32,
    log_ratio: f64,
}

impl Lessons {
    fn row(self) -> CalibrationRow {
        let of = |learnt: Learnt| CorrectionRow { jobs: learnt.jobs, log_ratio: learnt.log_ratio };
        CalibrationRow { cores: of(self.cores), gpus: of(self.gpus), last_on_gpu: self.last_on_gpu, newest: Vec::new() }
    }
}

#[derive(Deserialize)]
struct Alarm {
    raised: bool,
    reason: String,
    since: i64,
    history: Vec<AlarmChange>,
}

#[derive(Deserialize)]
struct AlarmChange {
    at: i64,
    raised: bool,
    reason: String,
}

impl Alarm {
    fn row(self) -> AlarmRow {
        let change = |c: AlarmChange| AlarmChangeRow { at: Stamp(c.at), raised: c.raised, reason: c.reason };
        let history = self.history.into_iter().map(change).collect();
        AlarmRow { raised: self.raised, reason: self.reason, since: Stamp(self.since), history }
    }
}

#[derive(Deserialize)]
struct RemoteJob {
    service: String,
    start: String,
    answer: Value,
    ask: Value,
    stop: Value,
}

impl RemoteJob {
    fn row(self) -> RemoteJobRow {
        let (answer, ask, stop) = (self.answer.to_string(), self.ask.to_string(), self.stop.to_string());
        RemoteJobRow { service: self.service, start: self.start, answer, ask, stop }
    }
}

#[derive(Deserialize)]
struct Audit {
    at: i64,
    who: String,
    role: String,
    door: String,
    what: String,
    to: String,
    status: u16,
}

impl Audit {
    fn row(self) -> AuditRow {
        let Audit { at, who, role, door, what, to, status } = self;
        AuditRow { at: Stamp(at), who, role, api: door, what, to, status }
    }
}

#[derive(Deserialize)]
struct Upload {
    share: String,
    key: String,
    part: String,
    bytes: u64,
    by: String,
}

#[derive(Deserialize)]
struct Approval {
    token: String,
    state: String,
    title: String,
    asked: Value,
    since: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Delivered {
    target: String,
    body: String,
    attempts: u32,
    created_at: i64,
    delivered_at: i64,
}

impl Delivered {
    fn row(self) -> DeliveredRow {
        let (created_at, delivered_at) = (Stamp(self.created_at), Stamp(self.delivered_at));
        DeliveredRow { target: self.target, body: self.body, created_at, delivered_at, attempts: self.attempts }
    }
}

#[derive(Deserialize)]
struct Landing {
    /// A number, as text.
    sight: String,
    execution: String,
}
