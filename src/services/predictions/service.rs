//! The service of predictions: learns one lesson after the other.

use super::{Lessons, Message, read};
use crate::base::Fault;
use crate::run::service::{Service, Turn};
use crate::store::{Commit, Scans};

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
