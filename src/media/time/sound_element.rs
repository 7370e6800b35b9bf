//! The element `conveyorsound`: one unbroken line of samples by the rules of [`Placer`](super::sound::Placer).
//!
//! Sound that lies where it belongs is handed on as it is.

use gstreamer as gst;
use gstreamer::glib;

use super::ends::Ends;

glib::wrapper! {
    /// The element; it comes configured.
    pub struct SoundTime(ObjectSubclass<imp::SoundTime>) @extends gst::Element, gst::Object;
}

impl SoundTime {
    /// Sound from `from_ns` of running time on; where it ends is told to `ends`. Behind the end come `tail_ns` of silence that
    /// count for nothing: an encoder that holds so much back gives the sound out only with them.
    pub fn new(from_ns: Option<u64>, tail_ns: u64, ends: Ends) -> SoundTime {
        use glib::subclass::prelude::*;
        ends.expect();
        let element: SoundTime = glib::Object::new();
        element.imp().configure(from_ns, tail_ns, ends);
        element
    }

    /// When the sound begins, with the silence before it, in nanoseconds of running time.
    pub fn first_ns(&self) -> Option<u64> {
        use glib::subclass::prelude::*;
        self.imp().first_ns()
    }

    /// Seconds of sound that went on from here.
    pub fn seconds(&self) -> f64 {
        use glib::subclass::prelude::*;
        self.imp().seconds()
    }
}

mod imp {
    use std::sync::LazyLock;

    use gst::prelude::*;
    use gst::subclass::prelude::*;
    use gstreamer_audio as gst_audio;
    use parking_lot::Mutex;

    use super::super::sound::{Placer, stretched};
    use super::{Ends, glib, gst};

    /// Silence is written in pieces of at most so many seconds.
    const SILENCE_SECONDS: u64 = 1;

    pub struct SoundTime {
        sink: gst::Pad,
        src: gst::Pad,
        state: Mutex<State>,
    }

    #[derive(Default)]
    struct State {
        from_ns: Option<u64>,
        tail_ns: u64,
        ends: Option<Ends>,
        info: Option<gst_audio::AudioInfo>,
        placer: Option<Placer>,
        segment: gst::FormattedSegment<gst::ClockTime>,
        segment_sent: bool,
        begun_ns: Option<u64>,
    }

    /// Frames to be written at a time, as silence or as what they are.
    struct Piece {
        at_ns: u64,
        end_ns: u64,
        silence: u64,
        frames: u64,
        info: gst_audio::AudioInfo,
    }

    impl SoundTime {
        pub fn configure(&self, from_ns: Option<u64>, tail_ns: u64, ends: Ends) {
            let mut state = self.state.lock();
            (state.from_ns, state.tail_ns, state.ends) = (from_ns, tail_ns, Some(ends));
        }

        pub fn seconds(&self) -> f64 {
            let state = self.state.lock();
            let ns = state.placer.as_ref().and_then(Placer::end_ns).zip(state.begun_ns);
            ns.map_or(0.0, |(end, begun)| end.saturating_sub(begun) as f64 / 1e9)
        }

        pub fn first_ns(&self) -> Option<u64> {
            self.state.lock().begun_ns
        }

        fn chain(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
            let piece = {
                let mut state = self.state.lock();
                let at = match buffer.pts() {
                    Some(pts) => match state.segment.to_running_time(pts) {
                        Some(at) => Some(at.nseconds()),
                        None => return Ok(gst::FlowSuccess::Ok),
                    },
                    None => None,
                };
                let info = state.info.clone().ok_or(gst::FlowError::NotNegotiated)?;
                let from_ns = state.from_ns;
                let placer = state.placer.get_or_insert_with(|| Placer::new(info.rate(), from_ns));
                let frames = (buffer.size() / info.bpf().max(1) as usize) as u64;
                let told = placer.sound(at, frames);
                let end_ns = placer.next_ns();
                let ns = |frames: u64| frames * 1_000_000_000 / u64::from(info.rate().max(1));
                let at_ns = end_ns.saturating_sub(ns(told.frames + told.silence));
                state.begun_ns.get_or_insert(at_ns);
                Piece { at_ns, end_ns, silence: told.silence, frames: told.frames, info }
            };
            self.silence(&piece)?;
            let ns = piece.frames * 1_000_000_000 / u64::from(piece.info.rate().max(1));
            let own = buffer.size() / piece.info.bpf().max(1) as usize;
            let mut buffer = if own as u64 == piece.frames { buffer } else { resized(&buffer, &piece)? };
            let said = buffer.make_mut();
            let at = piece.end_ns.saturating_sub(ns);
            said.set_pts(gst::ClockTime::from_nseconds(at));
            said.set_dts(gst::ClockTime::NONE);
            said.set_duration(gst::ClockTime::from_nseconds(piece.end_ns - at));
            said.set_offset(gst::format::Buffers::OFFSET_NONE);
            said.set_offset_end(gst::format::Buffers::OFFSET_NONE);
            said.unset_flags(gst::BufferFlags::DISCONT | gst::BufferFlags::RESYNC);
            self.src.push(buffer)
        }

        fn silence(&self, piece: &Piece) -> Result<gst::FlowSuccess, gst::FlowError> {
            let (rate, bytes) = (u64::from(piece.info.rate().max(1)), piece.info.bpf() as usize);
            let (mut left, mut done) = (piece.silence, 0);
            while left > 0 {
                let frames = left.min(rate * SILENCE_SECONDS);
                let mut buffer = gst::Buffer::from_mut_slice(vec![0u8; frames as usize * bytes]);
                if let Some(buffer) = buffer.get_mut() {
                    buffer.set_pts(gst::ClockTime::from_nseconds(piece.at_ns + done * 1_000_000_000 / rate));
                    buffer.set_duration(gst::ClockTime::from_nseconds(frames * 1_000_000_000 / rate));
                }
                self.src.push(buffer)?;
                (left, done) = (left - frames, done + frames);
            }
            Ok(gst::FlowSuccess::Ok)
        }

        fn event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
            match event.view() {
                gst::EventView::Caps(caps) => {
                    let Ok(info) = gst_audio::AudioInfo::from_caps(caps.caps()) else { return false };
                    let mut state = self.state.lock();
                    if let Some(placer) = &mut state.placer {
                        placer.set_rate(info.rate());
                    }
                    state.info = Some(info);
                    drop(state);
                    gst::Pad::event_default(pad, Some(&*self.obj()), event)
                }
                gst::EventView::Segment(segment) => {
                    let Some(own) = segment.segment().downcast_ref::<gst::ClockTime>() else { return false };
                    let first = {
                        let mut state = self.state.lock();
                        state.segment = own.clone();
                        !std::mem::replace(&mut state.segment_sent, true)
                    };
                    // What goes on from here is in running time.
                    let plain = gst::FormattedSegment::<gst::ClockTime>::new();
                    !first || self.src.push_event(gst::event::Segment::new(&plain))
                }
                gst::EventView::Gap(gap) => self.announced(gap),
                gst::EventView::Eos(_) => {
                    self.finish();
                    self.tail();
                    gst::Pad::event_default(pad, Some(&*self.obj()), event)
                }
                _ => gst::Pad::event_default(pad, Some(&*self.obj()), event),
            }
        }

        fn announced(&self, gap: &gst::event::Gap) -> bool {
            let (at, length) = gap.get();
            let piece = {
                let mut state = self.state.lock();
                let end = at + length.unwrap_or(gst::ClockTime::ZERO);
                let Some(end) = state.segment.to_running_time(end) else { return true };
                let (Some(info), Some(placer)) = (state.info.clone(), state.placer.as_mut()) else { return true };
                let at_ns = placer.next_ns();
                let silence = placer.gap(end.nseconds());
                Piece { at_ns, end_ns: placer.next_ns(), silence, frames: 0, info }
            };
            self.silence(&piece).is_ok()
        }

        /// Pushes the encoder's own delay out of it.
        fn tail(&self) {
            let piece = {
                let state = self.state.lock();
                let Some((info, at_ns)) = state.info.clone().zip(state.placer.as_ref().and_then(Placer::end_ns)) else {
                    return;
                };
                let silence = (state.tail_ns * u64::from(info.rate())).div_ceil(1_000_000_000);
                Piece { at_ns, end_ns: at_ns + state.tail_ns, silence, frames: 0, info }
            };
            // Who does not take it says why on the bus.
            let _ = self.silence(&piece);
        }

        fn finish(&self) {
            let mut state = self.state.lock();
            let end = state.placer.as_ref().and_then(Placer::end_ns);
            if let Some(ends) = state.ends.take() {
                ends.ended(end);
            }
        }
    }

    /// The same sound in another number of frames.
    fn resized(buffer: &gst::Buffer, piece: &Piece) -> Result<gst::Buffer, gst::FlowError> {
        let map = buffer.map_readable().map_err(|_| gst::FlowError::Error)?;
        let samples: Vec<f32> =
            map.as_slice().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let out = stretched(&samples, piece.info.channels() as usize, piece.frames as usize);
        Ok(gst::Buffer::from_mut_slice(out.iter().flat_map(|s| s.to_le_bytes()).collect::<Vec<u8>>()))
    }

    #[glib::object_subclass]
    impl ObjectSubclass for SoundTime {
        const NAME: &'static str = "ConveyorSoundTime";
        type Type = super::SoundTime;
        type ParentType = gst::Element;

        fn with_class(class: &Self::Class) -> SoundTime {
            let sink = match class.pad_template("sink") {
                Some(template) => gst::Pad::builder_from_template(&template),
                None => gst::Pad::builder(gst::PadDirection::Sink),
            };
            let sink = sink
                .chain_function(|_, parent, buffer| {
                    SoundTime::catch_panic_pad_function(
                        parent,
                        || Err(gst::FlowError::Error),
                        |this| this.chain(buffer),
                    )
                })
                .event_function(|pad, parent, event| {
                    SoundTime::catch_panic_pad_function(parent, || false, |this| this.event(pad, event))
                })
                .flags(gst::PadFlags::PROXY_CAPS | gst::PadFlags::PROXY_ALLOCATION | gst::PadFlags::PROXY_SCHEDULING)
                .build();
            let src = match class.pad_template("src") {
                Some(template) => gst::Pad::builder_from_template(&template),
                None => gst::Pad::builder(gst::PadDirection::Src),
            };
            SoundTime { sink, src: src.flags(gst::PadFlags::PROXY_CAPS).build(), state: Mutex::default() }
        }
    }

    impl ObjectImpl for SoundTime {
        fn constructed(&self) {
            self.parent_constructed();
            let object = self.obj();
            // Both are new, and of names that nothing else has here.
            let _ = object.add_pad(&self.sink);
            let _ = object.add_pad(&self.src);
        }
    }

    impl GstObjectImpl for SoundTime {}

    impl ElementImpl for SoundTime {
        fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
            static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
                gst::subclass::ElementMetadata::new(
                    "Sound time",
                    "Filter/Effect/Audio",
                    "Places sound by its timestamps on one unbroken line of samples",
                    "Conveyor",
                )
            });
            Some(&*METADATA)
        }

        fn pad_templates() -> &'static [gst::PadTemplate] {
            static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
                let caps = gst::Caps::builder("audio/x-raw")
                    .field("format", "F32LE")
                    .field("layout", "interleaved")
                    .field("rate", gst::IntRange::new(1, i32::MAX))
                    .field("channels", gst::IntRange::new(1, i32::MAX))
                    .build();
                [("sink", gst::PadDirection::Sink), ("src", gst::PadDirection::Src)]
                    .into_iter()
                    .filter_map(|(name, direction)| {
                        gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps).ok()
                    })
                    .collect()
            });
            &TEMPLATES
        }

        fn change_state(&self, transition: gst::StateChange) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
            if transition == gst::StateChange::PausedToReady {
                self.finish();
            }
            self.parent_change_state(transition)
        }
    }
}
