//! Predictions: what past transcodes taught of how long the next ones take.
//!
//! Invariants: each lesson moves what was learnt before it, whoever else learns meanwhile; what was learnt is one row.

mod lessons;
mod service;

pub use lessons::{Learnt, Lesson, Lessons};

use conveyor_base::Fault;
use conveyor_run::Handle;
use conveyor_run::service::{Address, Asked};
use conveyor_store::Reader;

use service::PredictionService;

/// The lessons of this box. Cheap to clone.
#[derive(Clone, Default)]
pub struct Predictions(Address<Message>);

/// What the service is sent: a lesson, and who waits until it is learnt.
pub(crate) struct Message {
    lesson: Lesson,
    asked: Asked<()>,
}

impl Predictions {
    /// Starts the service, with what the store holds.
    pub async fn start(&self, handle: &Handle) -> Result<(), Fault> {
        handle.serve("the predictions", self.0.clone(), PredictionService::load).await
    }

    /// Resolves once it is learnt. While the service is being started a lesson is lost, and the next one counts.
    pub async fn learn(&self, lesson: Lesson) {
        // As said.
        let _ = self.0.ask(|asked| Message { lesson, asked }).await;
    }
}

/// What was learnt so far.
pub fn read(reader: &Reader) -> Result<Lessons, Fault> {
    Ok(reader.learnt()?.map(Lessons::of_row).unwrap_or_default())
}
