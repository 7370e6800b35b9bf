//! The box in simulation, whose power goes: the plans of `tests/sim.rs`, with ever new seeds.

use std::ops::Range;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::life::{Life, Off, Starts};
use crate::lots::Tell;
use crate::services::{Powers, ServiceLife, Size};

/// Lives of one seed with services that do little each.
const SMALL_LIVES: u64 = 8;

pub fn run(seeds: Range<u64>, tell: &Tell) {
    for seed in seeds {
        tell.guarded(seed, || match seed % 8 {
            0 | 3 => (executions(seed), "executions".into()),
            1 | 4 | 6 => (services(seed), "services".into()),
            2 | 5 => (small_services(seed), "services, one thing each".into()),
            _ => (set_clocks(seed), "clocks that are set".into()),
        });
    }
}

/// How often the power went, or somebody switched the box off.
fn executions(seed: u64) -> u64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let operations = Life::new(seed, usize::MAX).live(&[]);
    let mut cuts = 0;
    for life in 0..4 {
        let boots = rng.random_range(1..4);
        let mut offs: Vec<Off> = (0..boots).map(|_| Off::Power(rng.random_range(1..=operations))).collect();
        if life == 0 {
            offs.insert(rng.random_range(0..=offs.len()), Off::Order(rng.random_range(0..20_000)));
        }
        let mut life = Life::new(seed, usize::MAX);
        life.live(&offs);
        cuts += life.world.0.lock().outages.len() as u64;
    }
    cuts
}

/// The clock goes back and forth by hours, or is wrong whenever the machine starts.
fn set_clocks(seed: u64) -> u64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut cuts = 0;
    for starts in [None, Some(Starts::In1970), Some(Starts::AYearAhead)] {
        let offs = [Off::Power(rng.random_range(150..1_200)), Off::Order(rng.random_range(1_000..60_000))];
        let mut life = match starts {
            None => Life::with_a_clock_that_is_set(seed),
            Some(starts) => Life::with_a_clock_that_starts_wrong(seed, starts),
        };
        life.live(&offs);
        cuts += life.world.0.lock().outages.len() as u64;
    }
    cuts
}

fn services(seed: u64) -> u64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let powers = Powers::drawn(&mut rng);
    let operations = ServiceLife::new(seed, powers, Size::WHOLE).live(&[]);
    let mut cuts = 0;
    for _ in 0..3 {
        let boots = rng.random_range(1..4);
        let offs: Vec<u64> = (0..boots).map(|_| rng.random_range(1..=operations)).collect();
        let mut life = ServiceLife::new(seed, powers, Size::WHOLE);
        life.live(&offs);
        cuts += life.cuts;
    }
    cuts
}

fn small_services(seed: u64) -> u64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let powers = Powers::drawn(&mut rng);
    let operations = ServiceLife::new(seed, powers, Size::SMALL).live(&[]);
    let mut cuts = 0;
    for _ in 0..SMALL_LIVES {
        let mut life = ServiceLife::new(seed, powers, Size::SMALL);
        life.live(&[rng.random_range(1..=operations)]);
        cuts += life.cuts;
    }
    cuts
}
