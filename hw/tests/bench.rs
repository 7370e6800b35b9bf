//! Raw speeds on scripted GPUs: what is counted, and what a device that cannot do it says. Times mean nothing here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use conveyor_hw::{Codec, Drivers, PixelFormat, Preset, Rate, SessionSettings, Tuning, bench};
use conveyor_testing::driver::FakeDriver;

const SOON: Duration = Duration::from_millis(30);

fn settings(codec: Codec) -> SessionSettings {
    SessionSettings {
        codec,
        preset: Preset::P4,
        tuning: Tuning::HighQuality,
        format: PixelFormat::Nv12,
        width: 640,
        height: 360,
        frames_per_second: (30, 1),
        rate: Rate::Variable { bits_per_second: 2_000_000, max_bits_per_second: 3_000_000 },
        gop: 60,
        b_frames: 0,
    }
}

#[test]
fn sessions_count_together_and_one_too_many_is_the_drivers_word() {
    let driver = FakeDriver::new("gpus 1\ngpu0.codecs h264\ngpu0.sessions_max 3\n");
    let drivers = Drivers::open_in(Some(driver.path()));
    let context = drivers.cuda.unwrap().devices().unwrap().remove(0).unwrap().context().unwrap();
    let nvenc = drivers.nvenc.unwrap();
    let pictures = vec![vec![16; 640 * 360 * 3 / 2]; 2];
    let run = |codec, sessions, stopped| {
        let stop = AtomicBool::new(stopped);
        bench::encode(&nvenc, &context, &settings(codec), &pictures, sessions, SOON, &stop)
    };
    for sessions in [1, 3] {
        let speed = run(Codec::H264, sessions, false).unwrap();
        assert!(speed.frames_per_second > 0.0 && speed.bytes_per_frame > 0.0, "{speed:?}");
    }
    assert!(run(Codec::H264, 4, false).is_err(), "the fourth session");
    assert!(run(Codec::Hevc, 1, false).is_err(), "a codec that it has not");
    assert_eq!(run(Codec::H264, 1, true).unwrap().frames_per_second, 0.0, "stopped before it began");
    let copies = bench::copies(&context, 640, 360, SOON).unwrap();
    assert!(copies.to_device > 0.0 && copies.from_device > 0.0);
}

#[test]
fn a_picture_comes_back_from_the_device_as_it_went() {
    let driver = FakeDriver::new("gpus 1\n");
    let drivers = Drivers::open_in(Some(driver.path()));
    let context = drivers.cuda.unwrap().devices().unwrap().remove(0).unwrap().context().unwrap();
    let mut frame = context.frame(PixelFormat::P010, 50, 20).unwrap();
    let picture: Vec<u8> = (0..frame.bytes()).map(|n| (n % 251) as u8).collect();
    frame.upload(&picture).unwrap();
    let mut back = vec![0; picture.len()];
    frame.download(&mut back).unwrap();
    assert_eq!(back, picture);
    assert!(frame.download(&mut back[1..]).is_err());
}
