//! `repair` makes a store of what can still be read of one, and names what cannot.
//!
//! ```text
//! archives: rows that can be read ──> history-N.redb.new ──rename──> history-N.redb
//! state's rows that can be read ─┐
//! journal up to the first gap ───┴─> without executions that are not whole ──> state.redb.new ──rename──> state.redb
//! a new journal
//! ```
//!
//! Rows are found by walking redb's trees ([`pages`]); what lies under a page that cannot be read is gone. An execution of
//! which something is gone, or may be, is taken out whole ([`executions`]): part of it would pass for all. What is
//! derived (lists, names, counts, timers) is made anew from the executions. Of the journal what comes behind a batch that
//! has rotted is left out: the store is as it was at one moment.
//!
//! Where redb's header is gone, or the page that says where the tables are, nothing is done: only a backup helps then.
//!
//! Every file that is replaced is kept beside the new one, as `NAME.damaged`. What was interrupted is begun again.

mod executions;
pub(super) mod pages;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use conveyor_base::Fault;
use conveyor_base::escape::hex;

use self::executions::{Executions, OF_EXECUTIONS};
use self::pages::{Found, Keys, Pages, Root};
use super::archive::Archives;
use super::blocks::{BLOCK_BYTES, Blocks};
use super::check::{Report, check_locked};
use super::disk::{Backends, STATE, create_whole, file_fault};
use super::engine::APPLIED;
use super::envelope::{PLAIN, Sealed, seal};
use super::journal::{self, Journal, Salvaged, StoreId};
use super::open::{FORMAT, FORMAT_VERSION, SEGMENT_BYTES, STORE_ID, create_state, lock, must_be_there};
use super::record::{Op, changes};
use super::rows;
use super::tables::{self, Table};
use super::upgrade::{Batch, NewRow};

/// Made anew from the executions, not taken over.
const DERIVED: [Table; 6] =
    [Table::Counts, Table::ByMachine, Table::ByName, Table::Timers, Table::Submitted, Table::Archived];
const COPIED_BYTES: usize = 1 << 20;

/// What `repair` did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repair {
    /// Nothing was wrong, and nothing was done.
    pub nothing_to_do: bool,
    /// What is gone, each a sentence.
    pub lost: Vec<String>,
    /// The files as they were, under these names.
    pub kept: Vec<String>,
    /// What [`check`](super::check) says now.
    pub report: Report,
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nothing_to_do {
            return write!(f, "nothing to repair: the files are as they were written");
        }
        for lost in &self.lost {
            writeln!(f, "lost: {lost}")?;
        }
        for problem in &self.report.problems {
            writeln!(f, "left: {problem}")?;
        }
        for name in &self.kept {
            writeln!(f, "kept: {name}, as it was")?;
        }
        write!(f, "repaired: {} thing(s) lost, {} problem(s) left", self.lost.len(), self.report.problem_count)
    }
}

/// Repairs a store that is not open, where a check finds something.
///
/// # Errors
/// Files that are in use, of another release's format, or of which nothing can be found: they are then as they were. An error of
/// the disk: the repair is to be begun again.
pub fn repair(backends: &Arc<dyn Backends>) -> Result<Repair, Fault> {
    let _lock = lock(&**backends)?;
    must_be_there(&**backends)?;
    if let Ok(Ok(report)) = catch_unwind(AssertUnwindSafe(|| check_locked(backends)))
        && report.is_clean()
    {
        return Ok(Repair { nothing_to_do: true, report, ..Repair::default() });
    }
    let mut done = Repair::default();
    let disk = &**backends;
    let file = Blocks::open(disk, STATE).map_err(file_fault(disk, STATE))?;
    let nothing = |why: String| {
        let place = disk.place();
        Fault::damaged_plain(format!(
            "nothing of {place}/{STATE} can be found ({why}); restore the data directory from a backup. What ended before \
             is in the files history-*.redb"
        ))
    };
    let pages = Pages::open(&file).map_err(nothing)?;
    let mut old = Old::of(pages).map_err(nothing)?;
    let settings = old.settings()?;
    old.replay(journal::salvage(backends, settings.store_id)?, settings.applied, &mut done.lost)?;
    let store_id = settings.store_id.or(old.store_id).ok_or_else(|| nothing("its store's id is gone".to_owned()))?;

    let archives = Archives::new(backends.clone(), Arc::default());
    let mut in_archives = BTreeMap::new();
    for day in archives.days()? {
        let name = super::archive::file_name(day);
        let repaired = archives.repair(day, || {
            done.kept.push(keep(disk, &name)?);
            Ok(())
        });
        in_archives.insert(day, repaired?);
    }
    let mut executions = old.executions(&mut done.lost);
    done.lost.extend(executions.take_lost(&in_archives).into_values());

    done.kept.push(keep(disk, STATE)?);
    create_whole(disk, STATE, |temporary| old.write(disk, temporary, store_id, &executions))?;
    drop(old);
    for name in journal::names(disk)? {
        done.kept.push(keep(disk, &name)?);
        disk.remove(&name).map_err(file_fault(disk, &name))?;
    }
    Journal::create(disk, store_id, SEGMENT_BYTES)?;
    done.report = check_locked(backends)?;
    Ok(done)
}

/// Copies a file to a name of its own. Says which.
fn keep(disk: &dyn Backends, name: &str) -> Result<String, Fault> {
    let mut kept = format!("{name}.damaged");
    for number in 2.. {
        if !disk.exists(&kept).map_err(file_fault(disk, &kept))? {
            break;
        }
        kept = format!("{name}.damaged-{number}");
    }
    let from = disk.open(name).map_err(file_fault(disk, name))?;
    create_whole(disk, &kept, |temporary| {
        let fault = file_fault(disk, &kept);
        let to = disk.open(temporary).map_err(&fault)?;
        let length = from.len().map_err(&fault)?;
        let mut at = 0;
        while at < length {
            let mut bytes = vec![0; COPIED_BYTES.min((length - at) as usize)];
            if from.read(at, &mut bytes).is_err() {
                // What the disk does not give back is left blank.
                for (block, at) in bytes.chunks_mut(BLOCK_BYTES).zip((at..).step_by(BLOCK_BYTES)) {
                    if from.read(at, block).is_err() {
                        block.fill(0);
                    }
                }
            }
            to.write(at, &bytes).map_err(&fault)?;
            at += bytes.len() as u64;
        }
        to.sync_data().map_err(&fault)
    })?;
    Ok(kept)
}

#[derive(Default)]
struct Settings {
    store_id: Option<StoreId>,
    applied: Option<u64>,
}

/// What can still be read.
struct Old<'f> {
    pages: Pages<'f>,
    roots: BTreeMap<Table, Root>,
    /// By table: what the journal has and the state file has not. `None`: deleted.
    newer: Vec<BTreeMap<Vec<u8>, Option<Vec<u8>>>>,
    /// By the journal, where the state file does not say.
    store_id: Option<StoreId>,
    /// Above every batch of the old journal.
    newest: u64,
}

impl<'f> Old<'f> {
    fn of(pages: Pages<'f>) -> Result<Old<'f>, String> {
        let (mut roots, mut hole) = (BTreeMap::new(), None);
        pages.tables(|found| match found {
            Ok((name, root)) => {
                if let Some(table) = Table::ALL.iter().find(|table| table.name() == name) {
                    roots.insert(*table, root);
                }
            }
            Err(why) => hole = Some(why.to_owned()),
        });
        // All tables are in one or two pages: nearly all of the rows would be gone.
        if let Some(why) = hole {
            return Err(format!("where its tables are: {why}"));
        }
        let newer = (0..Table::COUNT).map(|_| BTreeMap::new()).collect();
        Ok(Old { pages, roots, newer, store_id: None, newest: 0 })
    }

    fn settings(&self) -> Result<Settings, Fault> {
        let (mut settings, mut format) = (Settings::default(), FORMAT_VERSION);
        self.rows(Table::Settings, &mut |row| {
            let Row::Whole(key, value) = row else { return };
            let content = Sealed::new(Table::Settings, key, value).plain().unwrap_or_default();
            match key {
                FORMAT => format = value.try_into().map_or(0, u32::from_le_bytes),
                STORE_ID => settings.store_id = content.try_into().ok(),
                APPLIED => settings.applied = content.try_into().ok().map(u64::from_le_bytes),
                _ => {}
            }
        });
        match format {
            FORMAT_VERSION => Ok(settings),
            format => Err(Fault::fatal_plain(format!(
                "{STATE} has format {format}, and this release repairs format {FORMAT_VERSION}; use the release that wrote it"
            ))),
        }
    }

    /// Takes the batches after `applied` up to the first that is not whole. Where it is not known what the state file has,
    /// more of them: what is there already is only put there again.
    fn replay(&mut self, found: Salvaged, applied: Option<u64>, lost: &mut Vec<String>) -> Result<(), Fault> {
        let Salvaged { store_id, batches, damaged, newest, problems } = found;
        lost.extend(problems);
        let last = batches.keys().next_back().copied().unwrap_or(0);
        let applied = applied.unwrap_or_else(|| {
            let run = batches.keys().rev().zip((0..=last).rev()).take_while(|(number, expected)| *number == expected);
            run.last().map_or(last, |(number, _)| *number).saturating_sub(1)
        });
        self.store_id = store_id;
        self.newest = newest.max(applied);
        let whole = (applied + 1..).take_while(|number| batches.contains_key(number)).last().unwrap_or(applied);
        for number in (whole + 1..=last.max(damaged.last().copied().unwrap_or(0))).filter(|number| *number > applied) {
            let what = match batches.get(&number) {
                Some(records) => format!("it changed {}", changed(records)),
                None if damaged.contains(&number) => {
                    "it cannot be read, and was the newest or one before it".to_owned()
                }
                None => "it is missing".to_owned(),
            };
            lost.push(format!("batch {number} of the journal: {what}"));
        }
        for (number, records) in batches.range(applied + 1..).take_while(|(number, _)| **number <= whole) {
            let part = |(start, length): (u32, u32)| &records[start as usize..][..length as usize];
            for change in changes(records) {
                let change =
                    change.map_err(|e| Fault::fatal(format!("batch {number} of the journal cannot be replayed"), e))?;
                let rows = &mut self.newer[change.table as usize];
                match change.op {
                    Op::Put | Op::PutNew => {
                        drop(rows.insert(part(change.key).to_vec(), Some(part(change.value).to_vec())))
                    }
                    Op::Delete => drop(rows.insert(part(change.key).to_vec(), None)),
                    // Counts are made anew.
                    Op::Add => {}
                }
            }
        }
        Ok(())
    }

    /// The rows of a table and the holes in it: of the state file in order, then those that only the journal has.
    fn rows(&self, table: Table, look: &mut impl FnMut(Row<'_>)) {
        let newer = &self.newer[table as usize];
        // Where all definitions could be read the table that has none has no row.
        let root = self.roots.get(&table).unwrap_or(&None);
        let mut last: Option<Vec<u8>> = None;
        let mut hole: Option<String> = None;
        self.pages.each(*root, Keys::Variable, &mut |found| match found {
            Found::Row(key, value) => {
                if let Some(why) = hole.take() {
                    look(Row::Hole { after: last.as_deref(), before: Some(key), why: &why });
                }
                if newer.contains_key(key) {
                } else if key == FORMAT || Sealed::new(table, key, value).verify().is_ok() {
                    look(Row::Whole(key, value));
                } else {
                    look(Row::Hole {
                        after: Some(key),
                        before: Some(key),
                        why: "a row's checksum is not that of its content",
                    });
                }
                last = Some(key.to_vec());
            }
            Found::Hole(why) => drop(hole.get_or_insert_with(|| why.to_owned())),
        });
        if let Some(why) = hole {
            look(Row::Hole { after: last.as_deref(), before: None, why: &why });
        }
        for (key, value) in newer.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))) {
            look(Row::Whole(key, value));
        }
    }

    /// Learns of the executions, and names the holes in other tables.
    fn executions(&self, lost: &mut Vec<String>) -> Executions {
        let mut executions = Executions::default();
        for &table in Table::ALL.iter().filter(|table| !DERIVED.contains(table) || **table == Table::Archived) {
            self.rows(table, &mut |row| match row {
                Row::Whole(key, value) => {
                    if executions.see(table, key, Sealed::new(table, key, value)).is_err() {
                        executions.hole(table, Some(key), Some(key));
                    }
                }
                Row::Hole { after, before, why } => {
                    executions.hole(table, after, before);
                    let end = |key: Option<&[u8]>, none: &str| key.map_or_else(|| none.to_owned(), shown);
                    let (after, before) = (end(after, "the first"), end(before, "the last"));
                    lost.push(format!("rows of the table '{}' from {after} to {before}: {why}", table.name()));
                }
            });
        }
        for table in [Table::ByMachine, Table::ByName] {
            self.rows(table, &mut |row| {
                if let Row::Whole(key, value) = row {
                    executions.mention(table, key, Sealed::new(table, key, value));
                }
            });
        }
        executions
    }

    fn write(&self, disk: &dyn Backends, name: &str, store_id: StoreId, executions: &Executions) -> Result<(), Fault> {
        let database = create_state(Blocks::open(disk, name).map_err(file_fault(disk, STATE))?, store_id, self.newest)?;
        let mut batch = Batch::new(&database);
        let mut written = Ok(());
        for &table in Table::ALL.iter().filter(|table| !DERIVED.contains(table)) {
            self.rows(table, &mut |row| {
                let Row::Whole(key, value) = row else { return };
                let is_kept = match table {
                    Table::Settings if [FORMAT, STORE_ID, APPLIED].contains(&key) => return,
                    // A child is found from its parent for as long as there is the child.
                    Table::Children => {
                        let content = Sealed::new(table, key, value).plain();
                        content.and_then(rows::child_from).ok().is_none_or(|(child, _)| executions.keeps(table, child))
                    }
                    _ => tables::split_id(key)
                        .filter(|_| OF_EXECUTIONS.contains(&table))
                        .is_none_or(|(id, _)| executions.keeps(table, id)),
                };
                if is_kept && written.is_ok() {
                    written = batch.put(NewRow { table, key: key.to_vec(), value: value.to_vec() });
                }
            });
        }
        written?;
        for row in derived(executions) {
            batch.put(row)?;
        }
        batch.flush()
    }
}

/// A row that can be read, or some that cannot.
enum Row<'a> {
    Whole(&'a [u8], &'a [u8]),
    Hole { after: Option<&'a [u8]>, before: Option<&'a [u8]>, why: &'a str },
}

/// The rows that follow from others.
fn derived(executions: &Executions) -> Vec<NewRow> {
    let mut found = Vec::new();
    let mut counts: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
    let mut put = |table: Table, key: Vec<u8>, content: &[u8]| {
        let value = seal(table, PLAIN, &key, content);
        found.push(NewRow { table, key, value });
    };
    for (id, about, branches, archived) in executions.each() {
        put(Table::ByMachine, tables::by_machine(&about.list, about.status, id), &[]);
        *counts.entry(tables::machine_status(&about.list, about.status)).or_default() += 1;
        if about.items > 1 {
            let key = tables::machine_status(&tables::more_items(&about.list), about.status);
            *counts.entry(key).or_default() += i64::from(about.items - 1);
        }
        if !about.is_child {
            put(Table::ByName, tables::texts(&about.list, &about.name), &id.to_bytes());
        }
        if let Some(day) = archived {
            put(Table::Archived, id.to_bytes().to_vec(), &day.to_be_bytes());
        }
        if about.status == conveyor_interpreter::Status::Running
            && let Some((timer, due)) = about.timeout
        {
            put(Table::Timers, tables::timer(due, id, timer), &[]);
        }
        for (branch, waits) in branches {
            for (timer, due) in &waits.timers {
                put(Table::Timers, tables::timer(*due, id, *timer), &tables::waiter(*branch));
            }
            if let Some(attempt) = waits.submitted {
                put(Table::Submitted, tables::attempt(id, attempt), &tables::waiter(*branch));
            }
        }
    }
    for (key, count) in counts {
        put(Table::Counts, key, &count.to_le_bytes());
    }
    found
}

/// Whose rows a batch changed, for people.
fn changed(records: &[u8]) -> String {
    let of: BTreeSet<String> = changes(records)
        .map_while(Result::ok)
        .filter(|change| !DERIVED.contains(&change.table))
        .map(|change| tables::whose(change.table, &records[change.key.0 as usize..][..change.key.1 as usize]))
        .collect();
    of.into_iter().collect::<Vec<_>>().join(", ")
}

/// A key as people may know it.
fn shown(key: &[u8]) -> String {
    match (tables::take_text(key), tables::split_id(key)) {
        (Some((first, rest)), _) if !first.is_empty() => match tables::take_text(rest) {
            Some((second, _)) => format!("'{first}', '{second}'"),
            None => format!("'{first}' {}", hex(rest)),
        },
        (_, Some((id, _))) if key.len() <= 28 => format!("execution {id}"),
        _ => hex(key),
    }
}
