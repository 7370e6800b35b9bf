//! The element `conveyorpictures`: a constant rate by the rules of [`Cadence`](super::pictures::Cadence).
//!
//! Pictures are handed on as they are, with new times; none is copied, whatever memory it lies in. One picture is held
//! until the next one's time is known.

use gstreamer as gst;
use gstreamer::glib;

use super::ends::Ends;
use super::pictures::{Cadence, Tally};

glib::wrapper! {
    /// The element; it comes configured.
    pub struct PictureTime(ObjectSubclass<imp::PictureTime>) @extends gst::Element, gst::Object;
}

impl PictureTime {
    /// Pictures at `rate`, which is that of the source or not; the last one stands until `until_ns`, which an index may tell,
    /// or until the `ends` of the sound. None where that is no rate.
    pub fn new(rate: gst::Fraction, same_rate: bool, until_ns: Option<u64>, ends: Ends) -> Option<PictureTime> {
        use glib::subclass::prelude::*;
        let cadence = Cadence::new(rate.numer(), rate.denom(), same_rate)?.until(until_ns);
        let element: PictureTime = glib::Object::new();
        element.imp().configure(rate, cadence, ends);
        Some(element)
    }

    /// When the first picture is shown, in nanoseconds of running time.
    pub fn first_ns(&self) -> Option<u64> {
        use glib::subclass::prelude::*;
        self.imp().first_ns()
    }

    /// What was shown so far.
    pub fn tally(&self) -> Tally {
        use glib::subclass::prelude::*;
        self.imp().tally()
    }
}

mod imp {
    use std::ops::Range;
    use std::sync::LazyLock;

    use gst::prelude::*;
    use gst::subclass::prelude::*;
    use gstreamer_video as gst_video;
    use parking_lot::Mutex;

    use super::{Cadence, Ends, Tally, glib, gst};

    pub struct PictureTime {
        sink: gst::Pad,
        src: gst::Pad,
        state: Mutex<State>,
    }

    #[derive(Default)]
    struct State {
        rate: Option<gst::Fraction>,
        cadence: Option<Cadence>,
        ends: Ends,
        segment: gst::FormattedSegment<gst::ClockTime>,
        segment_sent: bool,
        held: Option<gst::Buffer>,
    }

    impl PictureTime {
        pub fn configure(&self, rate: gst::Fraction, cadence: Cadence, ends: Ends) {
            let mut state = self.state.lock();
            (state.rate, state.cadence, state.ends) = (Some(rate), Some(cadence), ends);
        }

        pub fn tally(&self) -> Tally {
            self.state.lock().cadence.as_ref().map_or(Tally::default(), |c| c.tally)
        }

        pub fn first_ns(&self) -> Option<u64> {
            let state = self.state.lock();
            state.cadence.as_ref().filter(|c| c.tally.taken > 0).map(|c| c.tick(0).0)
        }

        fn chain(&self, buffer: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
            let shown = {
                let mut state = self.state.lock();
                let at = match buffer.pts() {
                    // What lies before the beginning is not to be shown.
                    Some(pts) => match state.segment.to_running_time(pts) {
                        Some(at) => Some(at.nseconds()),
                        None => return Ok(gst::FlowSuccess::Ok),
                    },
                    None => None,
                };
                let cadence = state.cadence.as_mut().ok_or(gst::FlowError::NotNegotiated)?;
                let ticks = cadence.picture(at, buffer.duration().map(|d| d.nseconds()));
                state.held.replace(buffer).map(|held| (held, ticks))
            };
            match shown {
                Some((held, ticks)) => self.show(held, ticks),
                None => Ok(gst::FlowSuccess::Ok),
            }
        }

        /// Hands a picture on at each of the ticks.
        fn show(&self, picture: gst::Buffer, ticks: Range<u64>) -> Result<gst::FlowSuccess, gst::FlowError> {
            let mut picture = Some(picture);
            for tick in ticks.clone() {
                let Some((at, length)) = self.state.lock().cadence.as_ref().map(|c| c.tick(tick)) else { break };
                let last = tick + 1 == ticks.end;
                let Some(mut shown) = (if last { picture.take() } else { picture.clone() }) else { break };
                // The pixels stay where they are: what is made writable is what is said of them.
                let buffer = shown.make_mut();
                buffer.set_pts(gst::ClockTime::from_nseconds(at));
                buffer.set_dts(gst::ClockTime::NONE);
                buffer.set_duration(gst::ClockTime::from_nseconds(length));
                if tick > ticks.start {
                    buffer.unset_flags(gst::BufferFlags::DISCONT);
                    said_once(buffer);
                }
                self.src.push(shown)?;
            }
            Ok(gst::FlowSuccess::Ok)
        }

        fn event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
            match event.view() {
                gst::EventView::Caps(caps) => {
                    let Some(rate) = self.state.lock().rate else { return false };
                    let mut caps = caps.caps_owned();
                    caps.make_mut().iter_mut().for_each(|s| s.set("framerate", rate));
                    self.src.push_event(gst::event::Caps::new(&caps))
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
                gst::EventView::Gap(_) => true,
                gst::EventView::Eos(_) => {
                    self.finish();
                    gst::Pad::event_default(pad, Some(&*self.obj()), event)
                }
                gst::EventView::FlushStop(_) => {
                    let mut state = self.state.lock();
                    (state.held, state.segment_sent) = (None, false);
                    drop(state);
                    gst::Pad::event_default(pad, Some(&*self.obj()), event)
                }
                _ => gst::Pad::event_default(pad, Some(&*self.obj()), event),
            }
        }

        /// The last picture, once it is known how long it stands.
        fn finish(&self) {
            let ends = self.state.lock().ends.clone();
            let sound_end = ends.wait();
            let shown = {
                let mut state = self.state.lock();
                let ticks = state.cadence.as_mut().map(|cadence| cadence.end(sound_end));
                state.held.take().zip(ticks)
            };
            if let Some((held, ticks)) = shown {
                // Who does not take the last picture says why on the bus.
                let _ = self.show(held, ticks);
            }
        }

        fn query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
            if let gst::QueryViewMut::Caps(caps) = query.view_mut() {
                let own = if *pad == self.sink {
                    self.caps(&self.src, caps.filter(), None)
                } else {
                    let rate = self.state.lock().rate;
                    self.caps(&self.sink, caps.filter(), rate)
                };
                caps.set_result(&own);
                return true;
            }
            gst::Pad::query_default(pad, Some(&*self.obj()), query)
        }

        /// What the other side takes or gives, at any rate or at this one.
        fn caps(&self, other: &gst::Pad, filter: Option<&gst::CapsRef>, rate: Option<gst::Fraction>) -> gst::Caps {
            let asked = filter.map(|filter| {
                let mut asked = filter.to_owned();
                asked.make_mut().iter_mut().for_each(|s| s.remove_field("framerate"));
                asked
            });
            let mut caps = other.peer_query_caps(asked.as_ref());
            for structure in caps.make_mut().iter_mut() {
                match rate {
                    Some(rate) => structure.set("framerate", rate),
                    None => structure.remove_field("framerate"),
                }
            }
            match filter {
                Some(filter) => filter.intersect_with_mode(&caps, gst::CapsIntersectMode::First),
                None => caps,
            }
        }
    }

    /// Takes off what is said once of a picture and would be said again with each time that it is shown.
    fn said_once(buffer: &mut gst::BufferRef) {
        buffer.foreach_meta_mut(|meta| {
            let api = meta.api();
            let once =
                api == gst_video::VideoCaptionMeta::meta_api() || api == gst_video::VideoTimeCodeMeta::meta_api();
            std::ops::ControlFlow::Continue(if once {
                gst::buffer::BufferMetaForeachAction::Remove
            } else {
                gst::buffer::BufferMetaForeachAction::Keep
            })
        });
    }

    #[glib::object_subclass]
    impl ObjectSubclass for PictureTime {
        const NAME: &'static str = "ConveyorPictureTime";
        type Type = super::PictureTime;
        type ParentType = gst::Element;

        fn with_class(class: &Self::Class) -> PictureTime {
            let template = |name: &str| class.pad_template(name);
            let sink = pad_of(template("sink"), gst::PadDirection::Sink)
                .chain_function(|_, parent, buffer| {
                    PictureTime::catch_panic_pad_function(
                        parent,
                        || Err(gst::FlowError::Error),
                        |this| this.chain(buffer),
                    )
                })
                .event_function(|pad, parent, event| {
                    PictureTime::catch_panic_pad_function(parent, || false, |this| this.event(pad, event))
                })
                .query_function(|pad, parent, query| {
                    PictureTime::catch_panic_pad_function(parent, || false, |this| this.query(pad, query))
                })
                .flags(gst::PadFlags::PROXY_ALLOCATION | gst::PadFlags::PROXY_SCHEDULING)
                .build();
            let src = pad_of(template("src"), gst::PadDirection::Src)
                .query_function(|pad, parent, query| {
                    PictureTime::catch_panic_pad_function(parent, || false, |this| this.query(pad, query))
                })
                .build();
            PictureTime { sink, src, state: Mutex::default() }
        }
    }

    fn pad_of(template: Option<gst::PadTemplate>, direction: gst::PadDirection) -> gst::PadBuilder<gst::Pad> {
        match template {
            Some(template) => gst::Pad::builder_from_template(&template),
            None => gst::Pad::builder(direction),
        }
    }

    impl ObjectImpl for PictureTime {
        fn constructed(&self) {
            self.parent_constructed();
            let object = self.obj();
            // Both are new, and of names that nothing else has here.
            let _ = object.add_pad(&self.sink);
            let _ = object.add_pad(&self.src);
        }
    }

    impl GstObjectImpl for PictureTime {}

    impl ElementImpl for PictureTime {
        fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
            static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
                gst::subclass::ElementMetadata::new(
                    "Picture time",
                    "Filter/Effect/Video",
                    "Shows pictures at a constant rate, each from its own time until the next one's",
                    "Conveyor",
                )
            });
            Some(&*METADATA)
        }

        fn pad_templates() -> &'static [gst::PadTemplate] {
            static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
                let caps = gst::Caps::builder("video/x-raw").any_features().build();
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
                // Whoever waits for the sound holds the stream that is about to be stopped.
                let ends = self.state.lock().ends.clone();
                ends.stop();
            }
            self.parent_change_state(transition)
        }
    }
}
