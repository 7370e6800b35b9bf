//! Floor 0: what every other module may use and what knows none of them.
//!
//! Typed ids and resource names, time, fault kinds, shares, and every bound of the program ([`limits`]).

pub mod arn;
pub mod blocking;
pub mod clock;
pub mod escape;
pub mod fault;
pub mod ids;
pub mod limits;
pub mod shares;
pub mod span;
pub mod speeds;

pub use blocking::Blocking;
pub use clock::{Clock, SystemClock, Timestamp};
pub use fault::{Fault, TaskError};
pub use ids::{Attempt, BranchId, EventId, ExecutionId, JOB_MACHINE, TaskToken, TimerId};
pub use shares::{Shares, Uri};
pub use span::Span;
