//! How rows of a table are read, for whoever owns them: one by its key, those under a text, those with a number.

use std::ops::{Bound, ControlFlow};

use conveyor_base::Fault;

use super::{Reader, Scans};
use crate::overlay::Direction;
use crate::rows::{Catalog, damaged};
use crate::tables::{self, Table};

impl Reader {
    pub(crate) fn one<T: Catalog>(&self, table: Table, key: &[u8]) -> Result<Option<T>, Fault> {
        self.engine().get(table, key, T::read)
    }
}

impl Scans {
    /// Rows whose key is `prefix` and a text, by that text.
    pub(crate) fn under<T: Catalog>(
        &self,
        table: Table,
        prefix: &[u8],
        from: Bound<&str>,
        limit: usize,
    ) -> Result<Vec<(String, T)>, Fault> {
        let end = tables::after_prefix(prefix);
        let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut start = prefix.to_vec();
        if let Bound::Included(text) | Bound::Excluded(text) = from {
            tables::push_text(&mut start, text);
        }
        let start = match from {
            Bound::Excluded(_) => Bound::Excluded(start.as_slice()),
            Bound::Included(_) | Bound::Unbounded => Bound::Included(start.as_slice()),
        };
        self.collect(table, (start, end), Direction::Forward, limit, |key| {
            tables::take_text(key.get(prefix.len()..)?).map(|(text, _)| text)
        })
    }

    /// Rows whose key is a text and a number, from a number down.
    pub(crate) fn numbered<T: Catalog>(
        &self,
        table: Table,
        text: &str,
        highest: u64,
        limit: usize,
    ) -> Result<Vec<(u64, T)>, Fault> {
        let (first, last) = (tables::text_number(text, 0), tables::text_number(text, highest));
        let range = (Bound::Included(first.as_slice()), Bound::Included(last.as_slice()));
        self.collect(table, range, Direction::Backward, limit, |key| key.last_chunk().copied().map(u64::from_be_bytes))
    }

    pub(crate) fn collect<K, T: Catalog>(
        &self,
        table: Table,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        direction: Direction,
        limit: usize,
        name: impl Fn(&[u8]) -> Option<K>,
    ) -> Result<Vec<(K, T)>, Fault> {
        let mut found = Vec::new();
        if limit == 0 {
            return Ok(found);
        }
        self.engine().snapshot().scan(table, range, direction, |key, row| {
            let name = name(key).ok_or_else(|| damaged(table, "a key is not what was written"))?;
            found.push((name, T::read(row)?));
            Ok(if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(found)
    }
}
