//! What past jobs taught of how long jobs take. Owned by the predictions.

use conveyor_base::Fault;
use rkyv::{Archive, Deserialize, Serialize};

use super::Id;

use crate::commit::Commit;
use crate::reader::Reader;
use crate::record::Op;
use crate::tables::{self, Table};

super::catalog!(CalibrationRow = 2);

/// The only key of the table.
const TRANSCODES: &str = "transcodes";

/// Of cores and of GPUs apart: by how much the model of a transcode's time was off.
#[derive(Clone, PartialEq, Debug, Archive, Serialize, Deserialize)]
pub struct CalibrationRow {
    pub cores: CorrectionRow,
    pub gpus: CorrectionRow,
    /// The last job was encoded on a GPU.
    pub last_on_gpu: bool,
    /// The attempts that were learnt from last, the newest last: one that is repeated teaches nothing new.
    pub newest: Vec<CalibratedByRow>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct CalibratedByRow {
    pub execution: Id,
    pub attempt: u32,
}

#[derive(Clone, Copy, PartialEq, Debug, Archive, Serialize, Deserialize)]
pub struct CorrectionRow {
    /// How many jobs it was learnt from.
    pub jobs: u32,
    /// The natural logarithm of how many times longer than the model said they took.
    pub log_ratio: f64,
}

impl Commit {
    pub fn put_calibration(&mut self, row: &CalibrationRow) -> &mut Commit {
        self.record.row(Op::Put, Table::Learnt, &tables::text(TRANSCODES), row);
        self
    }
}

impl Reader {
    pub fn calibration(&self) -> Result<Option<CalibrationRow>, Fault> {
        self.one(Table::Learnt, &tables::text(TRANSCODES))
    }
}
