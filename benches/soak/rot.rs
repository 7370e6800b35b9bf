//! Damage to the files of a store: the damage and the judge are those of `tests/store_rot.rs`, with ever new seeds; and, now
//! and then, to those of a whole box that is off: `tests/sim/rot.rs`.

#[path = "../../tests/store_rot/filled.rs"]
mod filled;
#[path = "../../tests/store_rot/judged.rs"]
mod judged;

use std::ops::Range;
use std::sync::Arc;

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use crate::lots::Tell;

/// One of so many seeds is a life of the simulated box.
const LIFE_EVERY: u64 = 8;

pub fn run(seeds: Range<u64>, tell: &Tell) {
    let (images, mut truth) = filled::images();
    if crate::is_planted() {
        // One answer of all is to count as wrong.
        let answers = Arc::get_mut(&mut truth).unwrap();
        answers.insert("counts".into(), Ok("none".into()));
    }
    for seed in seeds {
        // A life costs as much as many stores.
        if seed % LIFE_EVERY == LIFE_EVERY - 1 && !crate::is_planted() {
            tell.guarded(seed, || (1, format!("a life: {}", crate::rotting::live(seed))));
            continue;
        }
        tell.guarded(seed, || {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut files = images[usize::from(seed % 2 == 1)].clone();
            let what = judged::damage(&mut rng, &mut files);
            let at = format!("seed {seed}, {what}");
            let (behaviour, mended) = (judged::behave(&files, &truth, &at), judged::mend(&files, &truth, &at));
            (1, format!("{behaviour:?}, mended {mended:?}"))
        });
    }
}
