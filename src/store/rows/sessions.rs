//! Rows of the dashboard's sessions. Owned by the sessions.

use std::ops::{Bound, ControlFlow};

use conveyor_base::Fault;
use rkyv::{Archive, Deserialize, Serialize};

use super::{Catalog as _, Stamp};
use crate::commit::Commit;
use crate::damages::unless_damaged;
use crate::overlay::Direction;
use crate::reader::Scans;
use crate::record::Op;
use crate::tables::Table;

super::catalog!(SessionRow);

/// What a session is found by: the SHA-256 of what its holder shows.
pub type SessionKey = [u8; 32];

/// Somebody who signed in. Who reads the row can neither come in with it nor try passwords on it: for both it takes what
/// only the holder has. A slow hash of the password lies beside it, in a setting.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct SessionRow {
    pub user: String,
    /// The password that it was begun with, sealed with what its holder shows.
    pub seal: [u8; 32],
    pub began: Stamp,
    pub until: Stamp,
}

impl Commit {
    pub fn put_session(&mut self, key: &SessionKey, row: &SessionRow) -> &mut Commit {
        self.record.row(Op::Put, Table::Sessions, key, row);
        self
    }

    pub fn delete_session(&mut self, key: &SessionKey) -> &mut Commit {
        self.record.delete(Table::Sessions, key);
        self
    }
}

impl Scans {
    /// Every session whose row is not damaged, nor behind a page that is: who had one of those signs in again.
    pub fn sessions(&self) -> Result<Vec<(SessionKey, SessionRow)>, Fault> {
        let (all, mut sessions) = ((Bound::Unbounded, Bound::Unbounded), Vec::new());
        let walked = self.engine().snapshot().scan(Table::Sessions, all, Direction::Forward, |key, row| {
            let row = SessionRow::read(row).inspect_err(|fault| self.engine().damages.note(fault));
            if let (Ok(key), Some(row)) = (SessionKey::try_from(key), unless_damaged(row)?) {
                sessions.push((key, row));
            }
            Ok(ControlFlow::Continue(()))
        });
        unless_damaged(walked)?;
        Ok(sessions)
    }
}
