//! Where a stage runs: a pure function of the lanes' state and the stage's work.
//!
//! A GPU's decoder and encoder are lanes of their own, and one lease may hold both: what is decoded, scaled and encoded
//! stays in that GPU's memory, so a stage never spans two GPUs. Among the ways that have room the fastest is taken, by
//! measured speeds and by what runs there already. A way that has no room now may still be worth waiting for: it counts
//! with the work that waits before it, and cores are taken when that would take longer.
//!
//! Invariants: no lane carries more than its capacity; a drained lane takes nothing; work that has a way in which
//! every lane is healthy is never refused, and what cannot run on this box is told why instead of waiting for ever.

use std::fmt::Write as _;

use conveyor_base::Timestamp;
use conveyor_job::Acceleration;

use super::demand::{Pictures, Work};
use super::health::Health;
use super::spec::{Gpu, Lanes};

/// One lane as it is now.
#[derive(Clone, Debug)]
pub struct Lane {
    pub name: String,
    pub capacity: u32,
    pub busy: u32,
    pub health: Health,
    /// The GPU that it is part of.
    pub gpu: Option<usize>,
    /// Why it never takes anything.
    pub absent: Option<String>,
}

/// All lanes of the box.
#[derive(Clone, Debug)]
pub struct LanePool {
    pub lanes: Vec<Lane>,
    pub gpus: Vec<Gpu>,
    cores: super::spec::CoreSpeed,
    /// What one stage gets at most.
    cores_most: u32,
    cpu: Option<usize>,
    io: Option<usize>,
    /// The lanes of each GPU.
    engines: Vec<Engines>,
}

#[derive(Clone, Copy, Debug)]
struct Engines {
    nvenc: usize,
    nvdec: usize,
    cuda: usize,
}

/// A way in which work can be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Allocation {
    /// Lanes and how much of each.
    pub shares: Vec<(usize, u32)>,
    pub gpu: Option<usize>,
    pub decodes: bool,
    pub encodes: bool,
    /// Threads that it may use.
    pub cores: u32,
    /// Seconds for a second of pictures, beside what runs there now.
    seconds: f64,
    /// The same, with the lanes for itself.
    seconds_alone: f64,
    /// Seconds that each stage of this kind that waits keeps its lanes busy.
    seconds_each: f64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Placement {
    Now(Allocation),
    /// These lanes have no room for it.
    Later {
        short_of: Vec<usize>,
    },
    /// This box cannot do it.
    Never(String),
}

impl LanePool {
    pub fn new(spec: Lanes) -> LanePool {
        let mut pool = LanePool {
            lanes: Vec::new(),
            gpus: Vec::new(),
            cores: spec.cores,
            cores_most: u32::MAX,
            cpu: None,
            io: None,
            engines: Vec::new(),
        };
        if spec.cpu > 0 {
            pool.cores_most = spec.cpu;
            pool.cpu = Some(pool.lane("cpu".into(), spec.cpu.saturating_add(spec.overlap), None, None));
        }
        pool.io = (spec.io > 0).then(|| pool.lane("io".into(), spec.io, None, None));
        for (index, gpu) in spec.gpus.into_iter().enumerate() {
            let off = || "switched off by the configuration".to_owned();
            let capacity = |capacity: Result<u32, String>| match capacity {
                Ok(0) => (0, Some(off())),
                Ok(capacity) => (capacity, None),
                Err(why) => (0, Some(why)),
            };
            let (nvenc, no_nvenc) = capacity(gpu.nvenc.as_ref().map(|e| e.capacity).map_err(Clone::clone));
            let (nvdec, no_nvdec) = capacity(gpu.nvdec.as_ref().map(|d| d.capacity).map_err(Clone::clone));
            let encoder = pool.lane(format!("{}.nvenc", gpu.name), nvenc, Some(index), no_nvenc);
            let decoder = pool.lane(format!("{}.nvdec", gpu.name), nvdec, Some(index), no_nvdec);
            let (cuda, no_cuda) = capacity(gpu.cuda.clone());
            let cuda = pool.lane(format!("{}.cuda", gpu.name), cuda, Some(index), no_cuda);
            pool.engines.push(Engines { nvenc: encoder, nvdec: decoder, cuda });
            pool.gpus.push(gpu);
        }
        pool
    }

    fn lane(&mut self, name: String, capacity: u32, gpu: Option<usize>, absent: Option<String>) -> usize {
        self.lanes.push(Lane { name, capacity, busy: 0, health: Health::Open, gpu, absent });
        self.lanes.len() - 1
    }

    /// Where work goes now. `ahead`: how much of the same work waits, this included; lanes that are `reserved` are kept
    /// for work that goes first.
    pub fn place(&self, work: &Work, ahead: usize, reserved: &[bool], now: Timestamp) -> Placement {
        let allocations: Vec<Allocation> = self.allocations(work);
        let has_room =
            |allocation: &&Allocation| allocation.shares.iter().all(|share| self.has_room(*share, reserved, now));
        let by = |key: fn(&Allocation) -> f64| move |a: &&Allocation, b: &&Allocation| key(a).total_cmp(&key(b));
        let free = allocations.iter().filter(has_room).min_by(by(|allocation| allocation.seconds));
        // What is drained may come back much later, or never: nobody waits for it who has another way.
        let healthy = |allocation: &&Allocation| {
            allocation.shares.iter().all(|(lane, _)| self.lanes[*lane].health == Health::Open)
        };
        let worth = |allocation: &Allocation| ahead as f64 * allocation.seconds_each + allocation.seconds_alone;
        let full = allocations.iter().filter(|allocation| !has_room(allocation));
        let awaited = full.clone().filter(healthy).min_by(|a, b| worth(a).total_cmp(&worth(b)));
        match (free, awaited.or_else(|| full.clone().next())) {
            (Some(free), Some(awaited)) if healthy(&awaited) && worth(awaited) < free.seconds => {
                self.later(awaited, reserved, now)
            }
            (Some(free), _) => Placement::Now(free.clone()),
            (None, Some(awaited)) => self.later(awaited, reserved, now),
            (None, None) => Placement::Never(self.why_not(work)),
        }
    }

    fn later(&self, allocation: &Allocation, reserved: &[bool], now: Timestamp) -> Placement {
        let short = allocation.shares.iter().filter(|share| !self.has_room(**share, reserved, now));
        Placement::Later { short_of: short.map(|(lane, _)| *lane).collect() }
    }

    fn has_room(&self, (lane, weight): (usize, u32), reserved: &[bool], now: Timestamp) -> bool {
        let there = &self.lanes[lane];
        let kept = reserved.get(lane).copied().unwrap_or(false);
        !kept && there.busy + weight <= there.capacity && there.health.admits(there.busy, now)
    }

    pub fn take(&mut self, allocation: &Allocation) {
        allocation.shares.iter().for_each(|(lane, weight)| self.lanes[*lane].busy += weight);
    }

    pub fn give_back(&mut self, shares: &[(usize, u32)]) {
        for (lane, weight) in shares {
            self.lanes[*lane].busy = self.lanes[*lane].busy.saturating_sub(*weight);
        }
    }

    /// Lanes on which the work could run, now or some time.
    pub fn lanes_for(&self, work: &Work) -> Vec<usize> {
        let mut lanes: Vec<usize> =
            self.allocations(work).iter().flat_map(|allocation| &allocation.shares).map(|(lane, _)| *lane).collect();
        lanes.sort_unstable();
        lanes.dedup();
        lanes
    }

    /// Every way in which this box can do the work, whether there is room or not.
    fn allocations(&self, work: &Work) -> Vec<Allocation> {
        match work {
            Work::Disks { weight } => vec![self.plain(self.io, *weight, 1)],
            Work::Cores { weight } => {
                let weight = self.cores(*weight);
                vec![self.plain(self.cpu, weight, weight)]
            }
            Work::Inference { acceleration } => self.inference(*acceleration),
            Work::Pictures(pictures) => {
                let mut allocations = Vec::new();
                if pictures.acceleration != Acceleration::Disabled {
                    (0..self.gpus.len()).for_each(|gpu| self.allocations_on(gpu, pictures, &mut allocations));
                }
                if pictures.acceleration != Acceleration::Required {
                    allocations.push(self.allocation(None, pictures, (false, false), pictures.cores));
                }
                allocations
            }
        }
    }

    /// On a GPU, or without one; a process that computes waits like one that moves bytes. Its speed is not known, and a
    /// GPU that is free is always taken.
    fn inference(&self, acceleration: Acceleration) -> Vec<Allocation> {
        let (on_gpu, without) = (1.0, 10.0);
        let plain =
            Allocation { seconds: without, seconds_alone: without, seconds_each: without, ..self.plain(self.io, 1, 1) };
        let of = |gpu: usize| {
            let lane = self.engines[gpu].cuda;
            let shares = std::iter::once((lane, 1)).chain(plain.shares.iter().copied()).collect();
            let seconds = on_gpu * f64::from(self.lanes[lane].busy + 1);
            Allocation { shares, gpu: Some(gpu), seconds, seconds_alone: on_gpu, seconds_each: on_gpu, ..plain.clone() }
        };
        let there = (0..self.gpus.len()).filter(|gpu| self.lanes[self.engines[*gpu].cuda].absent.is_none());
        let gpus = there.filter(|_| acceleration != Acceleration::Disabled).map(of);
        let without = (acceleration != Acceleration::Required).then(|| plain.clone());
        gpus.chain(without).collect()
    }

    /// A share of one lane, or nothing where the box has no such lane.
    fn plain(&self, lane: Option<usize>, weight: u32, cores: u32) -> Allocation {
        let shares = lane.map(|lane| (lane, weight.clamp(1, self.lanes[lane].capacity))).into_iter().collect();
        let (gpu, decodes, encodes, cores) = (None, false, false, cores.max(1));
        Allocation { shares, gpu, decodes, encodes, cores, seconds: 0.0, seconds_alone: 0.0, seconds_each: 0.0 }
    }

    fn cores(&self, weight: u32) -> u32 {
        weight.clamp(1, self.cores_most)
    }

    fn allocations_on(&self, gpu: usize, pictures: &Pictures, allocations: &mut Vec<Allocation>) {
        /// Cores for containers and sound, and for a decoder.
        const CORES_BESIDE: u32 = 1;
        const CORES_TO_DECODE: u32 = 2;
        let decodes = self.decoder_for(gpu).is_ok();
        if self.encoder_for(gpu, pictures).is_ok() {
            if decodes {
                allocations.push(self.allocation(Some(gpu), pictures, (true, true), CORES_BESIDE));
            }
            allocations.push(self.allocation(Some(gpu), pictures, (false, true), CORES_TO_DECODE));
        }
        // With encodes that must not run on cores, decoding alone is not what was asked for.
        if decodes && (pictures.acceleration != Acceleration::Required || pictures.encodes.is_none()) {
            allocations.push(self.allocation(Some(gpu), pictures, (true, false), pictures.cores));
        }
    }

    fn encoder_for(&self, gpu: usize, pictures: &Pictures) -> Result<(), String> {
        let Some(encodes) = &pictures.encodes else { return Err("there is nothing to encode".into()) };
        let lane = &self.lanes[self.engines[gpu].nvenc];
        if let Some(why) = &lane.absent {
            return Err(format!("{}: {why}", lane.name));
        }
        if encodes.cores_only {
            return Err(format!("{} cannot make what the job's settings ask for", lane.name));
        }
        let Ok(encoder) = &self.gpus[gpu].nvenc else { return Err(lane.name.clone()) };
        let codec = encoder.codecs.iter().find(|codec| codec.name == encodes.codec.name());
        let Some(codec) = codec else {
            return Err(format!("{} makes no {}", lane.name, encodes.codec.name()));
        };
        if encodes.width_max > codec.width_max || encodes.height_max > codec.height_max {
            return Err(format!("{} makes at most {}x{}", lane.name, codec.width_max, codec.height_max));
        }
        if encodes.sessions > lane.capacity {
            let (has, needs) = (lane.capacity, encodes.sessions);
            return Err(format!("{} has {has} sessions, and {needs} are needed at once", lane.name));
        }
        Ok(())
    }

    fn decoder_for(&self, gpu: usize) -> Result<(), String> {
        let lane = &self.lanes[self.engines[gpu].nvdec];
        lane.absent.as_ref().map_or(Ok(()), |why| Err(format!("{}: {why}", lane.name)))
    }

    fn allocation(
        &self,
        gpu: Option<usize>,
        pictures: &Pictures,
        (decodes, encodes): (bool, bool),
        cores: u32,
    ) -> Allocation {
        let cores = self.cores(cores);
        let mut shares: Vec<(usize, u32)> = Vec::new();
        let mix = |seconds: &mut [f64; 3], add: [f64; 3]| seconds.iter_mut().zip(add).for_each(|(s, a)| *s += a);
        // On cores one after the other, on engines side by side.
        let (mut on_cores, mut on_gpu) = ([0.0; 3], [0f64; 3]);
        let share = f64::from(self.cpu.map_or(cores, |_| self.cores_most)) / f64::from(cores);
        let core_work = |mpix: f64, speed: f64| [mpix / speed * share, mpix / speed * share, mpix / speed];
        let (frame, renditions, sessions) =
            pictures.encodes.map_or((2.0, 0.0, 0), |e| (f64::from(e.mpix).min(9.0), f64::from(e.mpix), e.sessions));
        let engine_work = |mpix: f64, speed: f64, lane: usize, weight: u32| {
            let busy = f64::from(self.lanes[lane].busy + weight) / f64::from(weight.max(1));
            [mpix / speed * busy, mpix / speed, mpix / speed]
        };
        let engines = gpu.map(|gpu| (&self.gpus[gpu], self.engines[gpu]));
        match engines {
            Some((spec, Engines { nvdec: lane, .. })) if decodes => {
                let speed = spec.nvdec.as_ref().map_or(1.0, |d| d.mpix_s);
                shares.push((lane, 1));
                on_gpu = engine_work(frame, speed, lane, 1);
            }
            _ => mix(&mut on_cores, core_work(frame, self.cores.decode_mpix_s)),
        }
        match engines {
            Some((spec, Engines { nvenc: lane, .. })) if encodes => {
                let speed = spec.nvenc.as_ref().map_or(1.0, |e| e.mpix_s);
                shares.push((lane, sessions));
                let more = engine_work(renditions, speed, lane, sessions);
                on_gpu.iter_mut().zip(more).for_each(|(a, b)| *a = a.max(b));
            }
            _ => mix(&mut on_cores, core_work(renditions, self.cores.encode_mpix_s)),
        }
        shares.extend(self.cpu.map(|cpu| (cpu, cores)));
        let [seconds, seconds_alone, seconds_each] = [0, 1, 2].map(|i: usize| on_cores[i].max(on_gpu[i]));
        Allocation { shares, gpu, decodes, encodes, cores, seconds, seconds_alone, seconds_each }
    }

    /// Why the work waits, or would: one clause for each lane that has no room.
    pub fn explain(&self, work: &Work, now: Timestamp) -> String {
        let mut needs: Vec<(usize, u32)> = Vec::new();
        for (lane, weight) in self.allocations(work).into_iter().flat_map(|allocation| allocation.shares) {
            match needs.iter_mut().find(|(known, _)| *known == lane) {
                // Of several ways over one lane the one that takes most of it says most.
                Some((_, most)) => *most = weight.max(*most),
                None => needs.push((lane, weight)),
            }
        }
        let clauses: Vec<String> =
            needs.into_iter().filter_map(|(lane, weight)| self.lanes[lane].obstacle(weight, now)).collect();
        if clauses.is_empty() { "others go first".to_owned() } else { clauses.join("; ") }
    }

    fn why_not(&self, work: &Work) -> String {
        let mut text = "it must run on a GPU (acceleration is required), and no GPU of this box can take it".to_owned();
        let whys = (0..self.gpus.len()).filter_map(|gpu| match work {
            Work::Pictures(pictures @ Pictures { encodes: Some(_), .. }) => self.encoder_for(gpu, pictures).err(),
            Work::Pictures(_) => self.decoder_for(gpu).err(),
            _ => self.lanes[self.engines[gpu].cuda].absent.clone(),
        });
        let whys: Vec<String> = whys.collect();
        let _ = match whys.is_empty() {
            true => write!(text, ": it has none (`conveyor hw` tells what the driver says)"),
            false => write!(text, ": {}", whys.join("; ")),
        };
        text
    }
}

impl Lane {
    /// What keeps a stage of that weight from this lane now.
    fn obstacle(&self, weight: u32, now: Timestamp) -> Option<String> {
        match &self.health {
            Health::Drained { until, why, .. } if *until > now => {
                return Some(format!("{} is drained until {until} ({why})", self.name));
            }
            Health::Drained { why, .. } if self.busy > 0 => {
                return Some(format!("{} is on trial with one stage after a failure ({why})", self.name));
            }
            _ => {}
        }
        let needs = if weight > 1 { format!(", and {weight} are needed") } else { String::new() };
        let full = self.busy + weight > self.capacity;
        full.then(|| format!("{} is busy: {} of {}{needs}", self.name, self.busy, self.capacity))
    }
}
