//! Raw speeds of a GPU's engines: NVENC by codec, preset and size, sessions at once, and copies over the bus.
//!
//! Only times are taken here; what they mean, and how often to repeat, is for who asks. Frames lie in the device's memory
//! before the clock runs, so that an encode's speed is NVENC's and not the bus's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::cuda::{Context, Frame, PixelFormat};
use crate::fault::Fault;
use crate::nvenc::{Nvenc, Picture, SessionSettings};

/// Frames in the device's memory that each session encodes in turn.
const FRAMES: usize = 8;

/// What sessions did together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EncodeSpeed {
    /// Of all sessions.
    pub frames_per_second: f64,
    pub bytes_per_frame: f64,
}

/// Megabytes a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CopySpeed {
    pub to_device: f64,
    pub from_device: f64,
}

/// Encodes `pictures` over and over, in so many sessions at once, for so long; `stop` ends it early.
///
/// Every session is open before the clock runs, so that a device that has room for fewer says so by its fault.
pub fn encode(
    nvenc: &Arc<Nvenc>,
    context: &Arc<Context>,
    settings: &SessionSettings,
    pictures: &[Vec<u8>],
    sessions: usize,
    time: Duration,
    stop: &AtomicBool,
) -> Result<EncodeSpeed, Fault> {
    let mut frames = Vec::new();
    for picture in pictures.iter().take(FRAMES) {
        let mut frame = context.frame(settings.format, settings.width, settings.height)?;
        frame.upload(picture)?;
        frames.push(Arc::new(frame));
    }
    if frames.is_empty() {
        return Err(Fault::Misuse("no picture to encode".to_owned()));
    }
    let mut open = Vec::new();
    for _ in 0..sessions.max(1) {
        open.push(nvenc.encoder(context)?.configure(settings.clone())?);
    }
    let (bytes, encoded, begun) = (AtomicU64::new(0), AtomicU64::new(0), Instant::now());
    thread::scope(|scope| {
        let work = open.into_iter().map(|mut session| {
            let (frames, bytes, encoded) = (&frames, &bytes, &encoded);
            scope.spawn(move || {
                let mut sink = |packet: crate::nvenc::Packet<'_>| {
                    bytes.fetch_add(packet.bytes.len() as u64, Ordering::Relaxed);
                };
                let mut n = 0;
                while begun.elapsed() < time && !stop.load(Ordering::Relaxed) {
                    let picture = Picture { timestamp: n, force_keyframe: false };
                    session.encode(&frames[n as usize % frames.len()], picture, &mut sink)?;
                    n += 1;
                }
                session.drain(&mut sink)?;
                encoded.fetch_add(n, Ordering::Relaxed);
                Ok::<(), Fault>(())
            })
        });
        let work: Vec<_> = work.collect();
        for thread in work {
            thread.join().map_err(|_| Fault::Misuse("an encoding thread panicked".to_owned()))??;
        }
        Ok::<(), Fault>(())
    })?;
    let (seconds, frames) = (begun.elapsed().as_secs_f64(), encoded.load(Ordering::Relaxed) as f64);
    Ok(EncodeSpeed {
        frames_per_second: frames / seconds,
        bytes_per_frame: bytes.load(Ordering::Relaxed) as f64 / frames.max(1.0),
    })
}

/// Copies a picture to the device and back, again and again for so long. Ordinary memory: as pictures lie there.
pub fn copies(context: &Arc<Context>, width: u32, height: u32, time: Duration) -> Result<CopySpeed, Fault> {
    let mut frame = context.frame(PixelFormat::Nv12, width, height)?;
    let mut picture = vec![128; frame.bytes()];
    let rate = |frame: &mut Frame, copy: &mut dyn FnMut(&mut Frame) -> Result<(), Fault>| {
        // The first one pays for pages and for waking the device.
        copy(frame)?;
        let (begun, mut bytes) = (Instant::now(), 0.0);
        while begun.elapsed() < time / 2 {
            copy(frame)?;
            bytes += frame.bytes() as f64;
        }
        Ok::<f64, Fault>(bytes / 1e6 / begun.elapsed().as_secs_f64())
    };
    let to_device = rate(&mut frame, &mut |frame| frame.upload(&picture))?;
    let from_device = rate(&mut frame, &mut |frame| frame.download(&mut picture))?;
    Ok(CopySpeed { to_device, from_device })
}
