//! Encode sessions on scripted GPUs: what comes out, what is given back and in which order, and what a fault says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::Cell;
use std::sync::Arc;

use conveyor_hw::{
    Codec, Context, Drivers, Fault, FaultKind, Frame, Nvenc, Picture, PixelFormat, Preset, Rate, Session,
    SessionSettings, Tuning,
};
use conveyor_testing::driver::FakeDriver;

fn settings(b_frames: u32) -> SessionSettings {
    SessionSettings {
        codec: Codec::H264,
        preset: Preset::P4,
        tuning: Tuning::HighQuality,
        format: PixelFormat::Nv12,
        width: 640,
        height: 360,
        frames_per_second: (30, 1),
        rate: Rate::Variable { bits_per_second: 2_000_000, max_bits_per_second: 3_000_000 },
        gop: 10,
        b_frames,
    }
}

struct Rig {
    nvenc: Arc<Nvenc>,
    contexts: Vec<Arc<Context>>,
}

fn rig(driver: &FakeDriver) -> Rig {
    let drivers = Drivers::open_in(Some(driver.path()));
    let cuda = drivers.cuda.unwrap();
    let contexts = cuda.devices().unwrap().into_iter().map(|device| device.unwrap().context().unwrap()).collect();
    Rig { nvenc: drivers.nvenc.unwrap(), contexts }
}

impl Rig {
    fn session(&self, gpu: usize, settings: SessionSettings) -> Result<Session, Fault> {
        self.nvenc.encoder(&self.contexts[gpu])?.configure(settings)
    }

    fn frame(&self, gpu: usize, luma: u8) -> Arc<Frame> {
        let mut frame = self.contexts[gpu].frame(PixelFormat::Nv12, 640, 360).unwrap();
        frame.upload(&vec![luma; frame.bytes()]).unwrap();
        Arc::new(frame)
    }
}

#[derive(Debug, PartialEq)]
struct Got {
    text: String,
    timestamp: u64,
    keyframe: bool,
}

/// Encodes so many pictures from three frames in turn.
fn encode(rig: &Rig, session: &mut Session, pictures: u64, got: &mut Vec<Got>) -> Result<(), Fault> {
    let frames = [rig.frame(0, 10), rig.frame(0, 11), rig.frame(0, 12)];
    let out = Cell::new(0);
    let mut sink = |packet: conveyor_hw::Packet<'_>| {
        out.set(out.get() + 1);
        let text = String::from_utf8(packet.bytes.to_vec()).unwrap();
        got.push(Got { text, timestamp: packet.timestamp, keyframe: packet.keyframe });
    };
    for n in 0..pictures {
        let picture = Picture { timestamp: n, force_keyframe: false };
        session.encode(&frames[n as usize % 3], picture, &mut sink)?;
        // A group that waits for its last picture, and a short pipeline.
        let held = n + 1 - out.get();
        assert!(held <= u64::from(session.settings().b_frames) + 4, "{held} pictures are held back");
    }
    session.drain(&mut sink)
}

#[test]
fn every_picture_comes_out_once_and_everything_is_given_back_in_order() {
    for b_frames in [0, 3] {
        let driver = FakeDriver::new("gpus 1\n");
        let rig = rig(&driver);
        let mut session = rig.session(0, settings(b_frames)).unwrap();
        let mut got = Vec::new();
        // Not a whole number of groups: the end of the stream releases the rest.
        encode(&rig, &mut session, 23, &mut got).unwrap();

        let keyframes: Vec<u64> = got.iter().filter(|got| got.keyframe).map(|got| got.timestamp).collect();
        assert_eq!(keyframes, [0, 10, 20]);
        if b_frames > 0 {
            let coded: Vec<u64> = got[..5].iter().map(|got| got.timestamp).collect();
            assert_eq!(coded, [0, 4, 1, 2, 3], "the picture that the others refer to comes before them");
        }
        got.sort_by_key(|got| got.timestamp);
        let expected = (0..23).map(|n| format!("gpu 0 picture {n} of {}", 10 + n % 3));
        assert!(got.iter().map(|got| got.text.clone()).eq(expected), "{got:?}");
        assert!(matches!(encode(&rig, &mut session, 1, &mut got), Err(Fault::Misuse(_))), "drained is the end");

        drop(session);
        drop(rig);
        assert_in_order(&driver.log());
    }
}

/// Outputs and inputs, then the session, then the context; nothing left, nothing out of turn.
fn assert_in_order(log: &[String]) {
    assert!(!log.iter().any(|line| line.chars().all(|c| c.is_uppercase() || c == ' ')), "{log:#?}");
    let last = |what: &str| log.iter().rposition(|line| line == what).unwrap_or_else(|| panic!("no {what}: {log:#?}"));
    assert!(last("destroy output") < last("destroy session"), "{log:#?}");
    assert!(last("unregister") < last("destroy session"), "{log:#?}");
    assert!(last("destroy session") < last("release context"), "{log:#?}");
    assert!(last("free memory") < last("release context"), "{log:#?}");
}

#[test]
fn a_session_dropped_in_the_middle_leaves_nothing_behind() {
    let driver = FakeDriver::new("gpus 1\n");
    let rig = rig(&driver);
    let mut session = rig.session(0, settings(2)).unwrap();
    let frame = rig.frame(0, 1);
    for n in 0..8 {
        session.encode(&frame, Picture { timestamp: n, force_keyframe: n == 5 }, &mut |_| {}).unwrap();
    }
    drop((rig, frame));
    drop(session);
    assert_in_order(&driver.log());
}

#[test]
fn a_device_lost_in_the_middle_is_told_once_and_for_all_and_the_other_gpu_goes_on() {
    let driver = FakeDriver::new("gpus 2\ngpu0.lost_after_pictures 7\n");
    let rig = rig(&driver);
    let mut session = rig.session(0, settings(0)).unwrap();
    let mut got = Vec::new();
    let fault = encode(&rig, &mut session, 20, &mut got).unwrap_err();
    assert_eq!(fault.kind(), FaultKind::DeviceLost);
    assert!(fault.to_string().contains("NvEncEncodePicture: NV_ENC_ERR_DEVICE_NOT_EXIST"), "{fault}");
    assert!(got.len() < 7 && !got.is_empty(), "what was finished was handed out: {got:?}");
    assert_eq!(session.drain(&mut |_| {}).unwrap_err(), fault, "a lost device is not asked again");
    assert_eq!(rig.session(0, settings(0)).err().unwrap().kind(), FaultKind::DeviceLost);

    let mut other = rig.session(1, settings(0)).unwrap();
    let frame = rig.frame(1, 9);
    let mut count = 0;
    for n in 0..20 {
        other.encode(&frame, Picture { timestamp: n, force_keyframe: false }, &mut |_| count += 1).unwrap();
    }
    other.drain(&mut |_| count += 1).unwrap();
    assert_eq!(count, 20);

    drop((session, other, frame, rig));
    assert_in_order(&driver.log());
}

#[test]
fn the_driver_s_limit_of_sessions_is_named_and_a_closed_one_makes_room() {
    let driver = FakeDriver::new("gpus 1\ngpu0.sessions_max 2\n");
    let rig = rig(&driver);
    let first = rig.session(0, settings(0)).unwrap();
    let _second = rig.session(0, settings(0)).unwrap();
    let fault = rig.session(0, settings(0)).err().unwrap();
    assert_eq!(fault.kind(), FaultKind::Exhausted);
    assert!(
        fault.to_string().contains("NV_ENC_ERR_OUT_OF_MEMORY (no memory is left, or no encode session)"),
        "{fault}"
    );
    drop(first);
    rig.session(0, settings(0)).unwrap();
}

#[test]
fn what_an_encoder_cannot_do_is_refused_in_the_words_of_the_settings() {
    let driver = FakeDriver::new("gpus 2\ngpu0.b_frames 0\ngpu0.width_max 4096\n");
    let rig = rig(&driver);
    let refused = |settings: SessionSettings| rig.session(0, settings).err().unwrap().to_string();
    assert_eq!(refused(SessionSettings { codec: Codec::Av1, ..settings(0) }), "this GPU's encoder makes no AV1");
    assert_eq!(refused(settings(2)), "H.264 with 2 B-frames: it makes at most 0");
    let large = SessionSettings { width: 7680, height: 4320, ..settings(0) };
    assert_eq!(refused(large), "H.264 of 7680x4320: this GPU's encoder takes 128x128 to 4096x4096");
    let ten_bit = SessionSettings { format: PixelFormat::P010, ..settings(0) };
    assert_eq!(refused(ten_bit), "H.264 of ten bits: this GPU's encoder makes eight only");

    let mut session = rig.session(0, settings(0)).unwrap();
    let mut give = |frame: &Arc<Frame>| session.encode(frame, Picture::default(), &mut |_| {}).unwrap_err().to_string();
    assert!(give(&rig.frame(1, 0)).contains("another GPU's memory"));
    let small = Arc::new(rig.contexts[0].frame(PixelFormat::Nv12, 320, 180).unwrap());
    assert_eq!(give(&small), "a frame of Nv12 320x180 in a session of Nv12 640x360");
    assert!(rig.contexts[0].frame(PixelFormat::Nv12, 641, 360).is_err());
}

#[test]
fn memory_that_a_gpu_does_not_have_is_named_so() {
    let driver = FakeDriver::new("gpus 1\ngpu0.memory 1000\n");
    let fault = rig(&driver).contexts[0].frame(PixelFormat::Nv12, 640, 360).err().unwrap();
    assert_eq!(fault.kind(), FaultKind::Exhausted);
    assert!(fault.to_string().starts_with("cuMemAllocPitch: CUDA_ERROR_OUT_OF_MEMORY"), "{fault}");
}
