//! The service of predictions: learns from one sample after the other.

use conveyor_base::Fault;
use conveyor_run::service::{Service, Turn};
use conveyor_store::{CalibratedByRow, Commit, Scans, unless_damaged};

use super::{Calibration, Message};

/// Attempts that are known as learnt from. What a crash repeats was under way when it came: fewer than these.
const NEWEST_MAX: usize = 64;

#[derive(Default)]
pub(super) struct PredictionService {
    calibration: Calibration,
    newest: Vec<CalibratedByRow>,
}

impl PredictionService {
    pub fn load(rows: &Scans) -> Result<PredictionService, Fault> {
        let Some(row) = unless_damaged(rows.calibration())?.flatten() else { return Ok(PredictionService::default()) };
        Ok(PredictionService { calibration: Calibration::of_row(&row), newest: row.newest })
    }
}

impl Service for PredictionService {
    type Message = Message;

    fn handle(&mut self, turn: &mut Turn<'_, Message>, Message { of, sample, requester }: Message) {
        let of = CalibratedByRow { execution: of.0.into(), attempt: of.1.0 };
        if self.newest.contains(&of) {
            return turn.answer(requester, ());
        }
        let (mut calibration, mut newest) = (self.calibration, self.newest.clone());
        calibration.learn(sample);
        newest.push(of);
        newest.drain(..newest.len().saturating_sub(NEWEST_MAX));
        let mut commit = Commit::new();
        commit.put_calibration(&calibration.row(newest.clone()));
        if turn.settle(commit, requester, ()).is_some() {
            *self = PredictionService { calibration, newest };
        }
    }
}
