//! Settings: single values of other modules, under keys of their own; keys that begin with `store.` are the store's.

use conveyor_base::Fault;

use crate::commit::Commit;
use crate::reader::Reader;
use crate::record::Op;
use crate::tables::Table;

impl Commit {
    pub fn put_setting(&mut self, key: &str, value: &[u8]) -> &mut Commit {
        self.record.plain(Op::Put, Table::Settings, key.as_bytes(), value);
        self
    }

    pub fn delete_setting(&mut self, key: &str) -> &mut Commit {
        self.record.delete(Table::Settings, key.as_bytes());
        self
    }
}

impl Reader {
    pub fn setting(&self, key: &str) -> Result<Option<Vec<u8>>, Fault> {
        self.engine().get(Table::Settings, key.as_bytes(), |value| Ok(value.plain()?.to_vec()))
    }
}
