//! Leasing without actors: boxes of several GPUs, stages of all kinds, and devices that fail, in simulation.

use conveyor_base::Timestamp;
use conveyor_job::Acceleration;
use proptest::prelude::*;

use super::demand::{Codec, Encodes, Pictures, Work};
use super::health::{Health, device_failure};
use super::place::{Allocation, LanePool, Placement};
use super::queue::{Next, OVERTAKES_MAX, Queue, QueuePosition};
use super::spec::{CoreSpeed, Decoder, Encoder, EncoderCodec, Gpu, Lanes};

fn gpu(number: usize, sessions: Option<u32>) -> Gpu {
    let codecs = vec![EncoderCodec { name: "h264".into(), width_max: 4_096, height_max: 4_096 }];
    Gpu {
        name: format!("gpu{number}"),
        uuid: format!("GPU-{number}"),
        model: "Test".into(),
        cpus: None,
        nvenc: sessions
            .map(|capacity| Encoder { capacity, codecs, mpix_s: Encoder::MPIX_S })
            .ok_or_else(|| "this GPU has no NVENC".into()),
        nvdec: Ok(Decoder { capacity: 4, mpix_s: Decoder::MPIX_S }),
        cuda: Ok(1),
    }
}

fn pool(gpus: Vec<Gpu>) -> LanePool {
    let cores = CoreSpeed { decode_mpix_s: 1_000.0, encode_mpix_s: 280.0 };
    LanePool::new(Lanes { cpu: 4, io: 8, gpus, cores, overlap: 0 })
}

fn ladder(acceleration: Acceleration) -> Work {
    let encodes = Encodes::of(Codec::H264, [(1920, 1080), (1280, 720)], false);
    Work::Pictures(Pictures { cores: 4, encodes, acceleration })
}

fn now() -> Timestamp {
    Timestamp(1_000)
}

fn goes(pool: &LanePool, work: &Work) -> Allocation {
    match pool.place(work, 1, &[], now()) {
        Placement::Now(allocation) => allocation,
        other => panic!("{other:?}"),
    }
}

fn names(pool: &LanePool, allocation: &Allocation) -> Vec<String> {
    allocation.shares.iter().map(|(lane, weight)| format!("{} {weight}", pool.lanes[*lane].name)).collect()
}

#[test]
fn a_file_stays_on_one_gpu_and_files_spread_over_gpus() {
    let mut pool = pool(vec![gpu(0, Some(6)), gpu(1, Some(6))]);
    let work = ladder(Acceleration::Preferred);
    let first = goes(&pool, &work);
    assert_eq!(names(&pool, &first), ["gpu0.nvdec 1", "gpu0.nvenc 2", "cpu 1"]);
    pool.take(&first);
    let second = goes(&pool, &work);
    assert_eq!(names(&pool, &second), ["gpu1.nvdec 1", "gpu1.nvenc 2", "cpu 1"]);
    // A card that was measured to be four times as fast gets four files while the other gets one.
    if let Ok(encoder) = &mut pool.gpus[0].nvenc {
        encoder.mpix_s *= 4.0;
    }
    pool.take(&second);
    assert_eq!(goes(&pool, &work).gpu, Some(0));
}

#[test]
fn a_second_file_begins_on_the_same_cores_and_no_file_gets_more_than_there_are() {
    let lanes = Lanes { cpu: 2, overlap: 2, io: 8, gpus: vec![], cores: CoreSpeed::default() };
    let mut pool = LanePool::new(lanes);
    let work = ladder(Acceleration::Preferred);
    for _ in 0..2 {
        let allocation = goes(&pool, &work);
        assert_eq!((names(&pool, &allocation), allocation.cores), (vec!["cpu 2".to_owned()], 2));
        pool.take(&allocation);
    }
    assert!(matches!(pool.place(&work, 1, &[], now()), Placement::Later { .. }));
}

#[test]
fn a_gpu_without_an_encoder_decodes_and_required_work_never_runs_on_cores() {
    let pool = pool(vec![gpu(0, None)]);
    let allocation = goes(&pool, &ladder(Acceleration::Preferred));
    assert_eq!(names(&pool, &allocation), ["gpu0.nvdec 1", "cpu 4"]);
    assert_eq!(names(&pool, &goes(&pool, &ladder(Acceleration::Disabled))), ["cpu 4"]);
    let Placement::Never(why) = pool.place(&ladder(Acceleration::Required), 1, &[], now()) else { panic!() };
    assert!(why.contains("gpu0.nvenc: this GPU has no NVENC"), "{why}");
    // More encodes at once than the card grants sessions, or larger than it makes.
    let small = super::tests::pool(vec![gpu(0, Some(1))]);
    let Placement::Never(why) = small.place(&ladder(Acceleration::Required), 1, &[], now()) else { panic!() };
    assert!(why.contains("gpu0.nvenc has 1 sessions, and 2 are needed"), "{why}");
    assert_eq!(names(&small, &goes(&small, &ladder(Acceleration::Preferred))), ["gpu0.nvdec 1", "cpu 4"]);
}

#[test]
fn cores_are_taken_when_waiting_for_a_gpu_takes_longer() {
    let mut pool = pool(vec![gpu(0, Some(2))]);
    pool.lanes[3].absent = Some("its decoder is left out of this".into());
    let work = ladder(Acceleration::Preferred);
    pool.take(&goes(&pool, &work));
    // The one core beside the GPU's stage leaves three; cores work when those four are there.
    pool.lanes[0].capacity = 8;
    let Placement::Later { short_of } = pool.place(&work, 1, &[], now()) else { panic!("the card is soon free") };
    assert_eq!(short_of, [2]);
    assert!(pool.explain(&work, now()).contains("gpu0.nvenc is busy: 2 of 2, and 2 are needed"));
    let Placement::Now(allocation) = pool.place(&work, 50, &[], now()) else { panic!("fifty wait for it") };
    assert_eq!(names(&pool, &allocation), ["cpu 4"]);
}

#[test]
fn functions_spread_over_gpus_and_go_without_where_they_may() {
    let mut pool = pool(vec![gpu(0, None), gpu(1, None)]);
    let work = |acceleration| Work::Inference { acceleration };
    for expected in [["gpu0.cuda 1", "io 1"].as_slice(), &["gpu1.cuda 1", "io 1"]] {
        let allocation = goes(&pool, &work(Acceleration::Required));
        assert_eq!(names(&pool, &allocation), expected);
        pool.take(&allocation);
    }
    assert!(matches!(pool.place(&work(Acceleration::Required), 1, &[], now()), Placement::Later { .. }));
    let Placement::Now(allocation) = pool.place(&work(Acceleration::Preferred), 20, &[], now()) else {
        panic!("a long queue")
    };
    assert_eq!(names(&pool, &allocation), ["io 1"]);
}

#[test]
fn a_drained_gpu_takes_nothing_until_its_time_and_then_one_stage() {
    let mut pool = pool(vec![gpu(0, Some(6))]);
    let work = ladder(Acceleration::Preferred);
    for lane in pool.lanes.iter_mut().filter(|lane| lane.gpu.is_some()) {
        lane.health.failed(device_failure("Device.Lost").unwrap(), "Device.Lost: gone", now());
    }
    assert_eq!(names(&pool, &goes(&pool, &work)), ["cpu 4"]);
    let required = ladder(Acceleration::Required);
    assert!(matches!(pool.place(&required, 1, &[], now()), Placement::Later { .. }));
    assert!(
        pool.explain(&required, now()).contains("gpu0.nvdec is drained until"),
        "{}",
        pool.explain(&required, now())
    );
    let later = Timestamp(now().0 + 30_000);
    let Placement::Now(allocation) = pool.place(&work, 1, &[], later) else { panic!() };
    pool.take(&allocation);
    assert!(matches!(pool.place(&required, 1, &[], later), Placement::Later { .. }), "one stage tries it");
}

/// Runs what waits, one finished stage after the other, and returns the order in which they went.
fn drain(
    pool: &mut LanePool,
    queue: &mut Queue<u64>,
    mut each: impl FnMut(&mut Queue<u64>, &LanePool, u64),
) -> Vec<u64> {
    let mut order = Vec::new();
    let mut running: std::collections::VecDeque<Allocation> = Default::default();
    loop {
        while let Some(next) = queue.next(pool, now()) {
            let Next::Goes(_, who, allocation) = next else { panic!("nothing here is impossible") };
            pool.take(&allocation);
            running.push_back(allocation);
            order.push(who);
            each(queue, pool, who);
        }
        match running.pop_front() {
            Some(allocation) => pool.give_back(&allocation.shares),
            None => return order,
        }
    }
}

#[test]
fn of_one_priority_the_lower_rank_goes_first_and_a_large_need_is_not_overtaken() {
    let mut pool = pool(Vec::new());
    let mut queue = Queue::default();
    pool.lanes[0].busy = 3;
    let cores = |weight| Work::Cores { weight };
    for (number, weight, rank) in [(0, 1, 60), (1, 4, 20), (2, 1, 60), (3, 1, 10)] {
        queue.push(&pool, cores(weight), QueuePosition::new(0, rank, number), number);
    }
    assert!(matches!(queue.next(&pool, now()), Some(Next::Goes(_, 3, _))));
    assert!(queue.next(&pool, now()).is_none(), "the one free core is kept for the large demand");
    pool.lanes[0].busy = 0;
    assert_eq!(drain(&mut pool, &mut queue, |_, _, _| {}), [1, 0, 2]);
}

#[test]
fn a_stream_of_urgent_work_does_not_starve_the_background() {
    let mut pool = pool(Vec::new());
    let mut queue = Queue::default();
    let work = Work::Cores { weight: 4 };
    queue.push(&pool, work, QueuePosition::new(-50, 70, 0), 0);
    queue.push(&pool, work, QueuePosition::new(50, 70, 1), 1);
    let mut last = 1;
    let order = drain(&mut pool, &mut queue, |queue, pool, _| {
        if last < 100 {
            last += 1;
            queue.push(pool, work, QueuePosition::new(50, 70, last), last);
        }
    });
    assert_eq!(order.iter().position(|who| *who == 0), Some(OVERTAKES_MAX as usize));
}

fn works() -> impl Strategy<Value = Work> {
    let acceleration = prop_oneof![Just(Acceleration::Preferred), Just(Acceleration::Disabled)];
    let pictures = (1u32..9, 0usize..4, acceleration).prop_map(|(cores, renditions, acceleration)| {
        let encodes = Encodes::of(Codec::H264, std::iter::repeat_n((1280, 720), renditions), false);
        Work::Pictures(Pictures { cores, encodes, acceleration })
    });
    prop_oneof![
        Just(Work::Inference { acceleration: Acceleration::Preferred }),
        (1u32..9).prop_map(|weight| Work::Cores { weight }),
        (1u32..3).prop_map(|weight| Work::Disks { weight }),
        pictures,
    ]
}

proptest! {
    /// Whatever comes and whatever fails: no lane carries too much, nothing spans two GPUs, and all get their turn.
    #[test]
    fn all_get_their_turn_and_no_lane_carries_too_much(
        stages in prop::collection::vec((works(), -50i8..=50, 0u8..90), 1..60),
        sessions in prop::collection::vec(prop::option::of(1u32..5), 0..4),
        failures in prop::collection::vec(0usize..4, 0..3),
    ) {
        let gpus: Vec<Gpu> = sessions.iter().enumerate().map(|(n, sessions)| gpu(n, *sessions)).collect();
        let mut pool = pool(gpus);
        for lane in pool.lanes.iter_mut().filter(|lane| lane.gpu.is_some_and(|gpu| failures.contains(&gpu))) {
            lane.health.failed(device_failure("Device.Lost").unwrap(), "gone", now());
        }
        let mut queue = Queue::default();
        for (number, (work, priority, rank)) in stages.iter().enumerate() {
            queue.push(&pool, *work, QueuePosition::new(*priority, *rank, number as u64), number as u64);
        }
        let mut running: Vec<Allocation> = Vec::new();
        let mut gone = 0;
        loop {
            while let Some(next) = queue.next(&pool, now()) {
                let Next::Goes(position, who, allocation) = next else { panic!("cores can do all of it") };
                prop_assert_eq!(position.priority(), stages[who as usize].1);
                pool.take(&allocation);
                for (lane, _) in &allocation.shares {
                    let lane = &pool.lanes[*lane];
                    prop_assert!(lane.busy <= lane.capacity && lane.health == Health::Open && lane.absent.is_none());
                    prop_assert!(lane.gpu.is_none() || lane.gpu == allocation.gpu);
                }
                running.push(allocation);
                gone += 1;
            }
            match running.pop() {
                Some(allocation) => pool.give_back(&allocation.shares),
                None => break,
            }
        }
        prop_assert_eq!((gone, queue.is_empty()), (stages.len(), true));
        prop_assert!(pool.lanes.iter().all(|lane| lane.busy == 0));
    }
}
