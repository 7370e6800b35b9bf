//! Leasing: what it costs to find who goes next and where, by how many stages wait.
//!
//! `cargo bench --bench lease`. A box of 16 cores and two GPUs; each round gives one lease back and grants what then can
//! go, as the lanes' actor does for each message. The bounds: under 1 ms, and no growth with the queue.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::VecDeque;

use conveyor_base::Timestamp;
use conveyor_job::Acceleration;
use conveyor_run::Lanes;
use conveyor_run::lanes::{
    Allocation, Codec, CoreSpeed, Decoder, Encoder, EncoderCodec, Encodes, Gpu, LanePool, Next, Pictures, Queue,
    QueuePosition, Work,
};
use conveyor_testing::yardstick;

/// As the appliance has it.
#[global_allocator]
static ALLOCATOR: yardstick::Allocator = yardstick::Allocator;

const ROUNDS: usize = 20_000;

fn gpu(number: usize) -> Gpu {
    let codecs = vec![EncoderCodec { name: "h264".into(), width_max: 4_096, height_max: 4_096 }];
    Gpu {
        name: format!("gpu{number}"),
        uuid: format!("GPU-{number}"),
        model: "bench".into(),
        cpus: None,
        nvenc: Ok(Encoder { capacity: 6, codecs, mpix_s: Encoder::MPIX_S }),
        nvdec: Ok(Decoder { capacity: 8, mpix_s: Decoder::MPIX_S }),
        cuda: Ok(1),
    }
}

/// Stages as files bring them: a dozen kinds of work.
fn work(number: usize) -> Work {
    let ladder = |sizes: &[(u32, u32)], acceleration| {
        let encodes = Encodes::of(Codec::H264, sizes.iter().copied(), false);
        Work::Pictures(Pictures { cores: 4, encodes, acceleration })
    };
    match number % 10 {
        0..=2 => ladder(&[(1920, 1080), (1280, 720)], Acceleration::Preferred),
        3 => ladder(&[(3840, 2160), (1920, 1080), (1280, 720)], Acceleration::Preferred),
        4 => ladder(&[(1280, 720)], Acceleration::Disabled),
        5 => ladder(&[], Acceleration::Preferred),
        6 => Work::Cores { weight: 2 },
        7 => Work::Disks { weight: 1 },
        8 => Work::Inference { acceleration: Acceleration::Preferred },
        _ => Work::Cores { weight: 1 },
    }
}

fn grant(pool: &mut LanePool, queue: &mut Queue<usize>, running: &mut VecDeque<Allocation>) -> usize {
    let mut granted = 0;
    while let Some(Next::Goes(_, _, allocation)) = queue.next(pool, Timestamp(0)) {
        pool.take(&allocation);
        running.push_back(allocation);
        granted += 1;
    }
    granted
}

fn main() {
    for waiting in [100usize, 1_000, 10_000, 100_000] {
        let mut pool = LanePool::new(Lanes {
            cpu: 16,
            overlap: 4,
            io: 8,
            gpus: vec![gpu(0), gpu(1)],
            cores: CoreSpeed::default(),
        });
        let (mut queue, mut running) = (Queue::default(), VecDeque::new());
        let mut number = 0;
        let push = |pool: &LanePool, queue: &mut Queue<usize>, number: &mut usize| {
            let position = QueuePosition::new((*number % 7) as i8 - 3, (*number % 80) as u8, *number as u64);
            queue.push(pool, work(*number), position, *number);
            *number += 1;
        };
        for _ in 0..waiting {
            push(&pool, &mut queue, &mut number);
        }
        grant(&mut pool, &mut queue, &mut running);
        let mut leases = 0;
        let rounds = yardstick::measure(ROUNDS, |_| {
            if let Some(allocation) = running.pop_front() {
                pool.give_back(&allocation.shares);
            }
            let granted = grant(&mut pool, &mut queue, &mut running);
            leases += granted;
            for _ in 0..granted {
                push(&pool, &mut queue, &mut number);
            }
        });
        let each = rounds.total() / leases.max(1) as f64;
        println!(
            "{waiting:>7} wait: give back and grant p50 {:6.1} \u{b5}s  p99 {:6.1} \u{b5}s; {each:6.1} \u{b5}s for each of {leases} leases",
            rounds.at(50),
            rounds.at(99)
        );
    }
}
