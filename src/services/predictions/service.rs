//! The service of predictions: learns one lesson after the other.

use conveyor_base::Fault;
use conveyor_run::service::{Service, Turn};
use conveyor_store::{Commit, Scans};

use super::{Lessons, Message, read};

pub(super) struct PredictionService(Lessons);

impl PredictionService {
    pub fn load(rows: &Scans) -> Result<PredictionService, Fault> {
        Ok(PredictionService(read(rows)?))
    }
}

impl Service for PredictionService {
    type Message = Message;

    fn handle(&mut self, turn: &mut Turn<'_, Message>, Message { lesson, asked }: Message) {
        let mut learnt = self.0;
        learnt.learn(lesson);
        let mut commit = Commit::new();
        commit.put_learnt(&learnt.row());
        if turn.settle(commit, asked, ()).is_some() {
            self.0 = learnt;
        }
    }
}
