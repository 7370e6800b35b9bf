//! `GET /devices`: what is in the box and what it is doing.
//!
//! What a device can do is read once and then seldom, since asking opens the driver; what it does now is read on each
//! request, at most once in [`NOW_FOR`]. Without a driver, or without NVML, the answer says so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use conveyor_hw::{Ask, CpuTime, Drivers, HostLoad, Inventory};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{JsonResult, NoStoreJson};
use crate::AppState;

const INVENTORY_FOR: Duration = Duration::from_secs(600);
const NOW_FOR: Duration = Duration::from_secs(2);
/// A page would rather say that a driver hangs than wait for it.
const DRIVER_ANSWERS_WITHIN: Duration = Duration::from_secs(8);

/// What was read last. Cheap to clone.
#[derive(Clone, Default)]
pub struct Devices(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    drivers: Option<Arc<Drivers>>,
    inventory: Option<(Instant, Value)>,
    cpu: Option<CpuTime>,
    now: Option<(Instant, Value)>,
}

pub async fn devices(State(app): State<AppState>) -> JsonResult {
    let devices = app.devices.clone();
    Ok(NoStoreJson(app.blocking(move || devices.read()).await?))
}

impl Devices {
    /// Waits for the driver where it has to; never on a thread that serves others.
    pub fn read(&self) -> Value {
        let mut seen = self.0.lock();
        if let Some((at, now)) = &seen.now
            && at.elapsed() < NOW_FOR
        {
            return now.clone();
        }
        if seen.inventory.as_ref().is_none_or(|(at, _)| at.elapsed() > INVENTORY_FOR) {
            let drivers = seen.drivers.get_or_insert_with(|| Arc::new(Drivers::open())).clone();
            let ask = Ask { driver_answers_within: DRIVER_ANSWERS_WITHIN, ..Ask::default() };
            seen.inventory = Some((Instant::now(), json!(Inventory::read(move || drivers, &ask))));
        }
        let mut shown = seen.inventory.as_ref().map(|(_, inventory)| inventory.clone()).unwrap_or_default();
        let load = HostLoad::read();
        let busy = seen.cpu.and_then(|earlier| load.cpu.percent_since(earlier));
        seen.cpu = Some(load.cpu);
        shown["now"] = json!({"cpu_percent": busy, "load_average": load.load_average,
            "temperatures": load.temperatures, "memory": conveyor_hw::Memory::read()});
        let drivers = seen.drivers.clone();
        for gpu in shown["gpus"].as_array_mut().into_iter().flatten() {
            if let (Some(uuid), Some(drivers)) = (gpu["uuid"].as_str(), &drivers) {
                gpu["health"] = json!(drivers.health(uuid));
            }
        }
        if let Some(shown) = shown.as_object_mut() {
            shown.remove("shares");
        }
        seen.now = Some((Instant::now(), shown.clone()));
        shown
    }
}
