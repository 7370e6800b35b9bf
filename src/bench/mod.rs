//! `conveyor bench`: what this box can do, in figures that can be believed, kept and compared.
//!
//! ```text
//!   section ── measure ──> rows of figures, each with all its repetitions ──┐
//!   surroundings: who else used the box meanwhile ──────────────────────────┼─> Report ─> kept as a file, table, page
//!   kept: the last run of this box, a saved baseline ─> compare ────────────┤
//!   capacity: ladders in real time and what limits them; speeds.json ───────┘
//! ```
//!
//! | file | owns |
//! |---|---|
//! | `report` | the report's form, as JSON keeps it |
//! | `statistics`, `compare` | medians, spreads, and when a difference is one |
//! | `kept` | the files of earlier runs and baselines |
//! | `surroundings` | what else happens on the box |
//! | `raw`, `graphs`, `cores`, `disks`, `engine` | one section each |
//! | `capacity` | what the figures mean for the recipe, and for the lanes |
//! | `table`, `page` | the report for people |
//!
//! Must never: open media (child processes do), guess a figure, or stand on the appliance's own path. Holds: whatever
//! is written lies in a folder of this run's own, which is removed however the run ends; a figure that could not be
//! measured is a line that says why.

mod capacity;
pub mod compare;
mod cores;
mod disks;
mod engine;
mod graphs;
pub mod kept;
pub mod page;
mod raw;
mod report;
mod run;
mod statistics;
mod surroundings;
pub mod table;
mod work;

pub use report::{Mode, Report, SectionKind};
pub use run::{Request, Tick, run};
