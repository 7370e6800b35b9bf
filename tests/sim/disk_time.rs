//! The time that a disk takes: what was handed to the store is stored and seen some turns later, in batches of any size,
//! while everybody else goes on with what was there before.

use std::time::Duration;

use conveyor_store::Writer;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Does the work of the store's writing thread, for as long as it is polled. Now and then the disk stalls for up to so
/// long: parts that failed meanwhile are started again with commits of theirs still under way.
pub async fn stores(writer: Writer, seed: u64, stall_ms_max: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    loop {
        writer.awaits_turn().await;
        match rng.random_range(0..32) {
            0 if stall_ms_max > 0 => tokio::time::sleep(Duration::from_millis(rng.random_range(0..stall_ms_max))).await,
            0..8 => tokio::time::sleep(Duration::from_micros(rng.random_range(0..4_000))).await,
            _ => {
                for _ in 0..rng.random_range(0..8) {
                    tokio::task::yield_now().await;
                }
            }
        }
        let most = if rng.random_range(0..3) == 0 { 1 } else { rng.random_range(1..16) };
        writer.turn(most);
    }
}
