//! What every other crate may use and what knows none of them.
//!
//! Typed ids and resource names, time, fault kinds, shares, and every bound of the program ([`limits`]).
//!
//! Must never: read or write a file of the appliance, or know a word of workflows, media or HTTP. Holds: an id that was
//! read back is the id that was written; a bound is looked up here and written nowhere else.

pub mod arn;
mod backoff;
pub mod beneath;
mod blocking;
mod box_clock;
mod clock;
mod digest;
mod eras;
pub mod escape;
pub mod fault;
mod ids;
pub mod limits;
pub mod names;
mod place;
mod sample;
mod share_io;
pub mod shares;
mod span;
pub mod speeds;

pub use backoff::Backoff;
pub use blocking::Blocking;
pub use box_clock::{BoxClock, ClockMark};
pub use clock::{Clock, Running, SystemClock, Timestamp};
pub use digest::digest;
pub use eras::Older;
pub use fault::{Fault, TaskError};
pub use ids::{Attempt, BranchId, EventId, ExecutionId, JOB_MACHINE, TaskToken, TimerId};
pub use place::Place;
pub use sample::Sample;
pub use share_io::ShareIo;
pub use shares::{Shares, Uri};
pub use span::Span;
