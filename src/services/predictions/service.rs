//! The service of predictions: learns from one sample after the other.

use conveyor_base::Fault;
use conveyor_run::service::{Service, Turn};
use conveyor_store::{Commit, Scans};

use super::{Calibration, Message, read};

pub(super) struct PredictionService(Calibration);

impl PredictionService {
    pub fn load(rows: &Scans) -> Result<PredictionService, Fault> {
        Ok(PredictionService(read(rows)?))
    }
}

impl Service for PredictionService {
    type Message = Message;

    fn handle(&mut self, turn: &mut Turn<'_, Message>, Message { sample, requester }: Message) {
        let mut learnt = self.0;
        learnt.learn(sample);
        let mut commit = Commit::new();
        commit.put_learnt(&learnt.row());
        if turn.settle(commit, requester, ()).is_some() {
            self.0 = learnt;
        }
    }
}
