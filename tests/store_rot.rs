//! Bytes rot in every file of a store: whatever is read then is right or an error, and nothing panics.
//!
//! The truth is what the same readers said before. Damage is drawn by a seed: flipped bits, runs of other bytes, blank sectors
//! and pages, sectors that the disk does not give back, pages in each other's place, and files that end early. `STORE_ROT_MUTATIONS` says how many are tried.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "store_rot/filled.rs"]
mod filled;
#[path = "store_rot/judged.rs"]
mod judged;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::Duration;

use filled::images;
use judged::{Behaviour, Mended, behave, damage, mend};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

#[test]
fn whatever_rots_is_an_error_and_never_an_answer() {
    let count = std::env::var("STORE_ROT_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let (images, truth) = images();
    for (image, name) in images.iter().zip(["killed", "closed"]) {
        assert_eq!(behave(image, &truth, name), Behaviour::Harmless);
    }

    let mut table: BTreeMap<(String, Behaviour, Mended), u32> = BTreeMap::new();
    for seed in 0..count {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut files = images[usize::from(seed % 2 == 1)].clone();
        let what = damage(&mut rng, &mut files);
        let (at, truth) = (format!("seed {seed}, {what}"), truth.clone());
        let (tell, told) = mpsc::channel();
        let label = at.clone();
        let thread = std::thread::spawn(move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| (behave(&files, &truth, &at), mend(&files, &truth, &at))));
            let _ = tell.send(outcome);
        });
        let outcome = told.recv_timeout(Duration::from_secs(120)).unwrap_or_else(|_| panic!("{label}: it hangs"));
        thread.join().unwrap();
        let (behaviour, mended) = outcome.unwrap_or_else(|_| panic!("{label}: see above"));
        let file = what.split(['.', '-']).next().unwrap().to_owned();
        *table.entry((file, behaviour, mended)).or_default() += 1;
    }
    for ((file, behaviour, mended), times) in &table {
        println!("{file:<8} {behaviour:?}, mended {mended:?}: {times}");
    }
    assert!(table.keys().any(|(_, behaviour, _)| *behaviour == Behaviour::SomeErrors), "damage is met: {table:?}");
    assert!(table.keys().any(|(_, _, mended)| *mended == Mended::InPart), "something is lost: {table:?}");
}
