//! Predictions: what past transcodes taught of how long the next ones take.
//!
//! Invariants: each sample moves what was learnt before it, whoever else learns meanwhile; what was learnt is one row, and
//! names the attempts that it was learnt from last, so that an attempt that is repeated after a crash counts once.

mod calibration;
mod service;

pub use calibration::{Calibration, Correction, JobSample};

use conveyor_base::{Attempt, ExecutionId, Fault};
use conveyor_run::Handle;
use conveyor_run::service::{Address, Requester};
use conveyor_store::Reader;

use service::PredictionService;

/// The predictions of this box. Cheap to clone.
#[derive(Clone, Default)]
pub struct Predictions(Address<Message>);

/// What the service is sent: a sample with the attempt that it is of, and who waits until it is learnt.
pub(crate) struct Message {
    of: (ExecutionId, Attempt),
    sample: JobSample,
    requester: Requester<()>,
}

impl Predictions {
    /// Starts the service, with what the store holds.
    pub async fn start(&self, handle: &Handle) -> Result<(), Fault> {
        handle.serve("the predictions", self.0.clone(), PredictionService::load).await
    }

    /// True once it is learnt. While the service is being started a sample is lost, and the next one counts. Not part
    /// of the attempt's end: an hour's work is not repeated for a sample that was lost.
    pub async fn learn(&self, of: (ExecutionId, Attempt), sample: JobSample) -> bool {
        self.0.ask(|requester| Message { of, sample, requester }).await.is_ok()
    }
}

/// What was learnt so far.
pub fn read(reader: &Reader) -> Result<Calibration, Fault> {
    Ok(reader.calibration()?.as_ref().map(Calibration::of_row).unwrap_or_default())
}
