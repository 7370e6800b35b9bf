//! The settings, and the box put together from them: which parts it has, what each is built with, what state machines
//! may call, and the orderly end.
//!
//! ```text
//! config ── document   conveyor.toml: read, checked whole, every fault with its place
//!   │       effective  what of it screens may show
//!   ├── lanes          where stages may run, from the settings and from what the box measured
//!   ├── wiring         services and integrations: each built with what it needs, registered by name
//!   └── running        the box from start to stop, and the router of its HTTP side
//!         └ conditions what alarms look at
//! ```
//!
//! Whoever serves, tests or simulates a box builds it here. Must never: open media (the child does, which it only
//! starts), decide what an execution does next, or keep state of its own. Holds: a configuration with a fault opens
//! nothing; what runs for as long as the box does runs supervised; the store is the last to close.

mod conditions;
mod config;
mod document;
mod effective;
mod lanes;
mod running;
mod wiring;

pub use config::{Config, ShareSettings};
pub use running::Appliance;
pub use wiring::{Parts, is_local};
