//! Files of days that are written anew: in this release's form, or of what can still be read of them.

use std::collections::{BTreeMap, BTreeSet};

use conveyor_base::{ExecutionId, Fault};
use redb::{Database, ReadableDatabase, ReadableTable, TableHandle};

use super::{
    Archives, Blobs, CACHE_BYTES, FORM_VERSION, HISTORIES, PAYLOADS, archive_fault, create_tables, does_not_unpack,
    file_name, form_of, packed,
};
use crate::blocks::{Blocks, Form};
use crate::disk::create_whole;
use crate::envelope::Sealed;
use crate::open::open_database;
use crate::repair::pages::{Found, Keys, Pages};
use crate::tables::Table;

/// Most executions in one transaction of a file that is rewritten.
const REWRITTEN_ROWS: usize = 500;

impl Archives {
    /// Rewrites a day's file that an older release wrote; `content` takes a row out of that release's form and says its
    /// version. Says whether there was anything to do. A crash leaves the old file or the new one.
    pub fn upgrade(&self, day: u32, content: OldContent) -> Result<bool, Fault> {
        let (name, io) = (file_name(day), |e: std::io::Error| archive_fault(day, redb::Error::Io(e)));
        let opened = open_database(&*self.disk, &name, CACHE_BYTES).map_err(|(_, e)| archive_fault(day, e))?;
        let mut old = opened.database;
        let form = form_of(day, &old)?;
        if form == Some(FORM_VERSION) {
            return Ok(false);
        }
        // It has no other checksums than redb's own.
        old.check_integrity().map_err(|e| archive_fault(day, e))?;
        create_whole(&*self.disk, &name, |temporary| {
            let new = create_tables(day, Blocks::open(&*self.disk, temporary).map_err(io)?)?;
            for blobs in [PAYLOADS, HISTORIES] {
                rewrite(day, blobs, &old, &new, form, content)?;
            }
            drop(old);
            Ok(())
        })?;
        Ok(true)
    }

    /// Writes a day's file anew, of what can be read of it, where not all of it can be: `before` that. Says which executions it
    /// has whole.
    pub fn repair(&self, day: u32, before: impl FnOnce() -> Result<(), Fault>) -> Result<BTreeSet<ExecutionId>, Fault> {
        let name = file_name(day);
        let io = |e: std::io::Error| archive_fault(day, redb::Error::Io(e));
        let file = Blocks::open(&*self.disk, &name).map_err(io)?;
        let mut found: [BTreeMap<ExecutionId, Vec<u8>>; 2] = Default::default();
        let mut whole = matches!(file.form(), Ok(Form::Blocks));
        if let Ok(pages) = Pages::open(&file) {
            let mut roots = BTreeMap::new();
            pages.tables(|table| match table {
                Ok((name, root)) => drop(roots.insert(name.to_owned(), root)),
                Err(_) => whole = false,
            });
            for (blobs, found) in [PAYLOADS, HISTORIES].into_iter().zip(&mut found) {
                let Some(root) = roots.get(blobs.definition.name()) else {
                    whole = false;
                    continue;
                };
                pages.each(*root, Keys::Fixed(16), &mut |row| match row {
                    Found::Row(key, blob) => {
                        let id = key.try_into().map(|key| ExecutionId(u128::from_le_bytes(key)));
                        match id {
                            Ok(id) if Sealed::new(blobs.of, &id.to_bytes(), blob).verify().is_ok() => {
                                found.insert(id, blob.to_vec());
                            }
                            _ => whole = false,
                        }
                    }
                    Found::Hole(_) => whole = false,
                });
            }
        } else {
            whole = false;
        }
        let [payloads, histories] = &mut found;
        payloads.retain(|id, _| histories.contains_key(id));
        histories.retain(|id, _| payloads.contains_key(id));
        let ids = payloads.keys().copied().collect();
        // redb's own tables of what is free are not among these.
        if whole && self.check_integrity(day).is_ok() {
            return Ok(ids);
        }
        before()?;
        create_whole(&*self.disk, &name, |temporary| {
            let database = create_tables(day, Blocks::open(&*self.disk, temporary).map_err(io)?)?;
            let mut transaction = database.begin_write().map_err(|e| archive_fault(day, e))?;
            transaction.set_quick_repair(true);
            for (blobs, found) in [PAYLOADS, HISTORIES].into_iter().zip(&found) {
                let mut table = transaction.open_table(blobs.definition).map_err(|e| archive_fault(day, e))?;
                for (id, blob) in found {
                    table.insert(id.0, blob.as_slice()).map_err(|e| archive_fault(day, e))?;
                }
            }
            transaction.commit().map_err(|e| archive_fault(day, e))
        })?;
        Ok(ids)
    }
}

/// How a release's archives are read: a row of that table, unpacked, to its version and content.
pub(super) type OldContent = fn(Table, &[u8]) -> Result<(u8, &[u8]), Fault>;

fn rewrite(
    day: u32,
    blobs: Blobs,
    old: &Database,
    new: &Database,
    form: Option<u32>,
    content: OldContent,
) -> Result<(), Fault> {
    let reading = old.begin_read().map_err(|e| archive_fault(day, e))?;
    let stored = reading.open_table(blobs.definition).map_err(|e| archive_fault(day, e))?;
    let mut rows = stored.iter().map_err(|e| archive_fault(day, e))?.peekable();
    while rows.peek().is_some() {
        let mut transaction = new.begin_write().map_err(|e| archive_fault(day, e))?;
        transaction.set_quick_repair(true);
        let mut table = transaction.open_table(blobs.definition).map_err(|e| archive_fault(day, e))?;
        for row in rows.by_ref().take(REWRITTEN_ROWS) {
            let (id, blob) = row.map_err(|e| archive_fault(day, e))?;
            let id = ExecutionId(id.value());
            let blob = match form {
                // Only what is under redb's pages is another since.
                Some(_) => blob.value().to_vec(),
                None => {
                    let row = zstd::stream::decode_all(blob.value()).map_err(|e| does_not_unpack(day, id, &e))?;
                    let (version, archive) = content(blobs.of, &row)?;
                    packed(blobs, id, version, archive)?
                }
            };
            Sealed::new(blobs.of, &id.to_bytes(), &blob).verify()?;
            table.insert(id.0, blob.as_slice()).map_err(|e| archive_fault(day, e))?;
        }
        drop(table);
        transaction.commit().map_err(|e| archive_fault(day, e))?;
    }
    Ok(())
}
