//! The same calls on the GPUs of this machine, where there are any. What is not there is skipped, and says why.
//!
//! `cargo test -p conveyor-hw --test real -- --nocapture` shows what was found.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use conveyor_hw::{
    Ask, Drivers, Fault, FaultKind, Inventory, Picture, PixelFormat, Preset, Rate, SessionSettings, Tuning,
};

/// Opens the driver, or prints why the test is skipped.
fn drivers(test: &str) -> Option<Drivers> {
    let drivers = Drivers::open();
    match &drivers.cuda {
        Ok(_) => Some(drivers),
        Err(fault) => {
            println!("SKIPPED {test}: {fault}");
            None
        }
    }
}

#[test]
fn the_inventory_knows_every_gpu_of_this_machine() {
    let Some(drivers) = drivers("the_inventory_knows_every_gpu_of_this_machine") else { return };
    let inventory = Inventory::read(move || Arc::new(drivers), &Ask::default());
    println!("{}", serde_json::to_string_pretty(&inventory).unwrap());
    let usable = inventory.gpus.iter().filter(|gpu| gpu.fault.is_none());
    for gpu in usable {
        assert!(gpu.uuid.as_ref().is_some_and(|uuid| uuid.contains('-')), "{gpu:?}");
        assert!(gpu.name.is_some() && gpu.memory.is_some_and(|bytes| bytes > 1 << 28), "{gpu:?}");
        assert!(gpu.pci.is_some() && gpu.compute_capability.is_some(), "{gpu:?}");
        if let Some(decoding) = gpu.nvdec.known() {
            assert!(decoding.streams.iter().all(|stream| stream.width_max >= 1920 && stream.bit_depth >= 8));
        }
    }
}

#[test]
fn each_gpu_with_an_encoder_codes_what_it_says_it_can() {
    let test = "each_gpu_with_an_encoder_codes_what_it_says_it_can";
    let Some(drivers) = drivers(test) else { return };
    let nvenc = match &drivers.nvenc {
        Ok(nvenc) => nvenc,
        Err(fault) => return println!("SKIPPED {test}: {fault}"),
    };
    for device in drivers.cuda.as_ref().unwrap().devices().unwrap() {
        let device = device.unwrap();
        let context = device.context().unwrap();
        let codecs = match nvenc.encoder(&context).and_then(|encoder| encoder.codecs()) {
            Ok(codecs) => codecs,
            Err(fault) if fault.kind() == FaultKind::Unsupported => {
                println!("SKIPPED {test} on {}: {fault}", device.name);
                continue;
            }
            Err(fault) => panic!("{}: {fault}", device.name),
        };
        let mut frame = context.frame(PixelFormat::Nv12, 1280, 720).unwrap();
        frame.upload(&vec![128; frame.bytes()]).unwrap();
        let frame = Arc::new(frame);
        for codec in codecs {
            let settings = SessionSettings {
                codec,
                preset: Preset::P4,
                tuning: Tuning::HighQuality,
                format: PixelFormat::Nv12,
                width: 1280,
                height: 720,
                frames_per_second: (30, 1),
                rate: Rate::ConstantQuantiser(24),
                gop: 30,
                b_frames: 0,
            };
            let (mut packets, mut keyframes, mut bytes) = (0, 0, 0);
            let coded = || -> Result<(), Fault> {
                let mut session = nvenc.encoder(&context)?.configure(settings)?;
                let mut sink = |packet: conveyor_hw::Packet<'_>| {
                    packets += 1;
                    keyframes += u32::from(packet.keyframe);
                    bytes += packet.bytes.len();
                };
                for n in 0..90 {
                    session.encode(&frame, Picture { timestamp: n, force_keyframe: false }, &mut sink)?;
                }
                session.drain(&mut sink)
            };
            coded().unwrap_or_else(|fault| panic!("{} {codec}: {fault}", device.name));
            println!("{} {codec}: {packets} packets, {keyframes} keyframes, {bytes} bytes", device.name);
            assert_eq!((packets, keyframes), (90, 3), "{} {codec}", device.name);
        }
    }
}
