//! `upgrade` brings the files of older releases to this release's form, before anything opens them.
//!
//! ```text
//! format 1 ──children move from an item table to a table of their own──> format 2
//! ```
//!
//! Invariant: the number of the format changes in the transaction that makes the last change, so that an upgrade that
//! was interrupted is begun again and finds what it needs.

use std::fmt;
use std::sync::Arc;

use redb::{Database, ReadableTable, WriteTransaction};

use super::disk::{Backends, Disk, STATE, state_fault};
use super::engine::Engine;
use super::open::{FORMAT, FORMAT_VERSION, format_of, lock, must_be_there, open_journal_of, recover};
use super::rows::{self, Catalog, HeaderRow, ItemRow, access};
use super::tables::{self, Table};
use crate::base::{Attempt, ExecutionId, Fault};

/// The item table in which format 1 kept which child an attempt waits for: `parent/attempt` → child.
const CHILDREN_OF_FORMAT_1: &str = "run.children";

/// What `upgrade` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upgrade {
    pub from: u32,
    pub to: u32,
}

impl fmt::Display for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from == self.to {
            write!(f, "the files have format {}, which is this release's: nothing to do", self.to)
        } else {
            write!(f, "upgraded the files from format {} to format {}", self.from, self.to)
        }
    }
}

/// Brings the files to this release's format.
pub fn upgrade(backends: &Arc<dyn Backends>) -> Result<Upgrade, Fault> {
    let _lock = lock(&**backends)?;
    must_be_there(&**backends)?;
    let place = backends.place();
    let state = open_state(&**backends)?;
    let from = format_of(&state)?;
    match from {
        FORMAT_VERSION => {}
        1 => {
            carry_over(backends, state)?;
            from_1(&open_state(&**backends)?)?;
        }
        newer if newer > FORMAT_VERSION => {
            return Err(Fault::fatal_plain(format!(
                "{place}/{STATE} has format {newer}, which a newer release wrote; this release knows formats up to \
                 {FORMAT_VERSION}: start the newer release, or restore a backup"
            )));
        }
        unknown => {
            return Err(Fault::fatal_plain(format!(
                "{place}/{STATE} says that it has format {unknown}, which never existed; restore a backup"
            )));
        }
    }
    Ok(Upgrade { from, to: FORMAT_VERSION })
}

fn open_state(backends: &dyn Backends) -> Result<Database, Fault> {
    let what = format!("{}/{STATE} cannot be opened", backends.place());
    let file = Disk(backends.open(STATE).map_err(|e| Fault::fatal(what, e))?);
    redb::Builder::new().create_with_backend(file).map_err(state_fault)
}

/// Brings what lies in the journal alone into the state file, so that there is one place to migrate.
fn carry_over(backends: &Arc<dyn Backends>, state: Database) -> Result<(), Fault> {
    // The tables that the older format lacks: an older release would not mind them.
    let mut transaction = state.begin_write().map_err(state_fault)?;
    transaction.set_quick_repair(true);
    for table in Table::ALL {
        transaction.open_table(table.definition()).map_err(state_fault)?;
    }
    transaction.commit().map_err(state_fault)?;
    let mut journal = open_journal_of(&**backends, &state)?;
    let (overlay, _) = recover(&state, &mut journal)?;
    let engine = Engine::new(overlay, state, Box::new(journal), backends.clone(), Box::new(()));
    engine.checkpoint()?;
    engine.tidy_journal()
}

fn from_1(state: &Database) -> Result<(), Fault> {
    let mut transaction = state.begin_write().map_err(state_fault)?;
    transaction.set_quick_repair(true);
    move_children(&transaction)?;
    transaction
        .open_table(Table::Settings.definition())
        .map_err(state_fault)?
        .insert(FORMAT, FORMAT_VERSION.to_le_bytes().as_slice())
        .map_err(state_fault)?;
    transaction.commit().map_err(state_fault)
}

fn move_children(transaction: &WriteTransaction) -> Result<(), Fault> {
    let mut items = transaction.open_table(Table::Items.definition()).map_err(state_fault)?;
    let executions = transaction.open_table(Table::Executions.definition()).map_err(state_fault)?;
    let mut children = transaction.open_table(Table::Children.definition()).map_err(state_fault)?;
    let prefix = tables::text(CHILDREN_OF_FORMAT_1);
    let end = tables::after_prefix(&prefix).unwrap_or_default();
    let moved = items.extract_from_if(prefix.as_slice()..end.as_slice(), |_, _| true).map_err(state_fault)?;
    for row in moved {
        let (key, value) = row.map_err(state_fault)?;
        let Some((parent, attempt)) = tables::take_text(&key.value()[prefix.len()..]).and_then(|(t, _)| parse(&t))
        else {
            continue;
        };
        let child: Option<ExecutionId> = ItemRow::read(Table::Items, value.value())?.json.parse().ok();
        let Some(child) = child else { continue };
        // A child that is no more has nobody to tell.
        let Some(header) = executions.get(child.to_bytes().as_slice()).map_err(state_fault)? else { continue };
        let Some(of) = access::<HeaderRow>(Table::Executions, header.value())?.parent() else { continue };
        let row = rows::child(child, &of.shape);
        children.insert(tables::attempt(parent, attempt).as_slice(), row.as_slice()).map_err(state_fault)?;
    }
    Ok(())
}

fn parse(key: &str) -> Option<(ExecutionId, Attempt)> {
    let (parent, attempt) = key.split_once('/')?;
    Some((parent.parse().ok()?, Attempt(attempt.parse().ok()?)))
}
