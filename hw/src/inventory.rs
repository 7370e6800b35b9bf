//! The whole inventory of a box, in the form that people and programs read.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

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
#[derive(Clone, Debug)]
pub struct Ask {
    /// Names and folders.
    pub shares: Vec<(String, PathBuf)>,
    /// Open encode sessions until the driver refuses one. For a moment nobody else gets any, so not while work runs.
    pub count_sessions: bool,
    /// A driver of a broken GPU may never answer; nobody waits longer for it than this.
    pub driver_answers_within: Duration,
}

impl Default for Ask {
    fn default() -> Ask {
        Ask { shares: Vec::new(), count_sessions: false, driver_answers_within: Duration::from_secs(60) }
    }
}

impl Inventory {
    /// Never fails: what cannot be read is a line that says why. `drivers` opens the driver, or hands over an open one;
    /// it runs on the thread that is given up where the driver hangs.
    pub fn read(drivers: impl FnOnce() -> Arc<Drivers> + Send + 'static, ask: &Ask) -> Inventory {
        let (answer, waits) = mpsc::channel();
        let count_sessions = ask.count_sessions;
        thread::spawn(move || {
            let drivers = drivers();
            // The asker may have given up; then nobody wants the answer.
            let _ = answer.send((drivers.report(), gpu::read_all(&drivers, count_sessions)));
        });
        let shares = Share::read_all(&ask.shares);
        let (driver, gpus) = waits.recv_timeout(ask.driver_answers_within).unwrap_or_else(|_| {
            let seconds = ask.driver_answers_within.as_secs();
            (DriverReport::silent(&format!("the NVIDIA driver did not answer within {seconds} s")), Vec::new())
        });
        Inventory { cpu: Cpu::read(), memory: Memory::read(), driver, gpus, shares }
    }
}
