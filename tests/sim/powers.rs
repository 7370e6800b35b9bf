//! How bad the world is to the box in a life with services.

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

/// How bad the world is to the box.
#[derive(Clone, Copy, Debug, Default)]
pub struct Powers {
    /// Callers hang up.
    pub hang_ups: bool,
    /// Somebody sets the clock.
    pub clock: bool,
    /// An actor dies at some of its messages: of a hundred, at so many.
    pub deaths: u64,
    /// Somebody uploads files and drops them into a watched folder. Those are real folders, whose threads nobody orders.
    pub files: bool,
}

impl Powers {
    pub fn drawn(rng: &mut ChaCha8Rng) -> Powers {
        Powers {
            hang_ups: rng.random_range(0..3) > 0,
            clock: rng.random_range(0..3) == 0,
            deaths: [0, 0, 1, 4][rng.random_range(0..4)],
            files: rng.random_range(0..2) == 0,
        }
    }
}
