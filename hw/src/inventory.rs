//! The whole inventory of a box, in the form that people and programs read.

use std::path::PathBuf;

use serde::Serialize;

use crate::drivers::{DriverReport, Drivers};
use crate::gpu::{self, Gpu};
use crate::host::{Cpu, Memory};
use crate::share::Share;

/// What is in the box, read at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inventory {
    pub cpu: Cpu,
    pub memory: Memory,
    pub driver: DriverReport,
    pub gpus: Vec<Gpu>,
    pub shares: Vec<Share>,
}

/// What the inventory is to look at besides the box itself.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// Names and folders.
    pub shares: Vec<(String, PathBuf)>,
    /// Open encode sessions until the driver refuses one. For a moment nobody else gets any, so not while work runs.
    pub count_sessions: bool,
}

impl Inventory {
    /// Never fails: what cannot be read is a line that says why.
    pub fn read(drivers: &Drivers, ask: &Ask) -> Inventory {
        Inventory {
            cpu: Cpu::read(),
            memory: Memory::read(),
            driver: drivers.report(),
            gpus: gpu::read_all(drivers, ask),
            shares: Share::read_all(&ask.shares),
        }
    }
}
