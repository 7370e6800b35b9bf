//! A GStreamer element that crops, scales and pads planar 4:2:0 pictures in one pass.
//!
//! GStreamer's own bicubic scaler costs several times the CPU of this one, and its bilinear one costs visible quality.
//! The element only knows 8-bit I420; whoever builds the graph converts before it.

use conveyor_pixels::Siting;
use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;

use super::geometry::Geometry;

glib::wrapper! {
    /// The element; give it its [`Geometry`] before it starts.
    pub struct Scaler(ObjectSubclass<imp::Scaler>)
        @extends gst_video::VideoFilter, gstreamer_base::BaseTransform, gst::Element, gst::Object;
}

impl Scaler {
    pub fn new(geometry: Geometry) -> Scaler {
        let scaler: Scaler = glib::Object::new();
        scaler.configure(geometry);
        scaler
    }

    fn configure(&self, geometry: Geometry) {
        use glib::subclass::prelude::*;
        *self.imp().geometry.lock() = Some(geometry);
    }
}

/// Makes the element known under the name `conveyorscale`.
pub fn register() -> Result<(), glib::BoolError> {
    gst::Element::register(None, "conveyorscale", gst::Rank::NONE, Scaler::static_type())
}

/// Where chroma lies; unmarked pictures are of MPEG's family, which has it on the left.
pub fn siting(info: &gst_video::VideoInfo) -> Siting {
    use gst_video::VideoChromaSite as Site;
    let site = info.chroma_site();
    let unmarked = !site.intersects(Site::NONE | Site::H_COSITED | Site::V_COSITED);
    Siting { left: unmarked || site.contains(Site::H_COSITED), top: site.contains(Site::V_COSITED) }
}

mod imp {
    use std::sync::LazyLock;

    use conveyor_pixels::{Resampler, Siting, View, ViewMut};
    use gstreamer_base::subclass::prelude::*;
    use gstreamer_video::prelude::*;
    use gstreamer_video::subclass::prelude::*;
    use parking_lot::Mutex;

    use super::{Geometry, glib, gst, gst_video, siting};

    #[derive(Default)]
    pub struct Scaler {
        pub geometry: Mutex<Option<Geometry>>,
        prepared: Mutex<Option<Prepared>>,
    }

    /// What all pictures of one size share.
    struct Prepared {
        source: (u32, u32),
        siting: Siting,
        crop: (u32, u32, u32, u32),
        luma: Resampler,
        chroma: Resampler,
    }

    impl Prepared {
        fn new(geometry: &Geometry, source: (u32, u32), siting: Siting) -> Prepared {
            // The picture may have grown or shrunk in the middle of the stream: then the whole of it is used.
            let crop = if source == geometry.source { geometry.crop } else { (0, 0, source.0, source.1) };
            let (from, to) = ((crop.2, crop.3), geometry.content);
            let size = |chroma, size: (u32, u32)| (samples(chroma, size.0), samples(chroma, size.1));
            let resampler = |chroma, siting| Resampler::new(size(chroma, from), size(chroma, to), siting);
            Prepared {
                source,
                siting,
                crop,
                luma: resampler(false, Siting::default()),
                chroma: resampler(true, siting),
            }
        }
    }

    /// Pixels to samples of a plane of 4:2:0.
    fn samples(chroma: bool, pixels: u32) -> usize {
        (if chroma { pixels.div_ceil(2) } else { pixels }) as usize
    }

    #[glib::object_subclass]
    impl ObjectSubclass for Scaler {
        const NAME: &'static str = "ConveyorScale";
        type Type = super::Scaler;
        type ParentType = gst_video::VideoFilter;
    }

    impl ObjectImpl for Scaler {}
    impl GstObjectImpl for Scaler {}

    impl ElementImpl for Scaler {
        fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
            static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
                gst::subclass::ElementMetadata::new(
                    "Scaler",
                    "Filter/Converter/Video/Scaler",
                    "Crops, scales and pads planar 4:2:0 pictures",
                    "Conveyor",
                )
            });
            Some(&*METADATA)
        }

        fn pad_templates() -> &'static [gst::PadTemplate] {
            static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
                let caps = gst_video::VideoCapsBuilder::new().format(gst_video::VideoFormat::I420).build();
                [("sink", gst::PadDirection::Sink), ("src", gst::PadDirection::Src)]
                    .into_iter()
                    .filter_map(|(name, direction)| {
                        gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps).ok()
                    })
                    .collect()
            });
            &TEMPLATES
        }
    }

    impl BaseTransformImpl for Scaler {
        const MODE: gstreamer_base::subclass::BaseTransformMode =
            gstreamer_base::subclass::BaseTransformMode::NeverInPlace;
        const PASSTHROUGH_ON_SAME_CAPS: bool = false;
        const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

        /// Everything stays but the size and the shape of the pixels.
        fn transform_caps(
            &self,
            direction: gst::PadDirection,
            caps: &gst::Caps,
            filter: Option<&gst::Caps>,
        ) -> Option<gst::Caps> {
            let geometry = (*self.geometry.lock())?;
            let mut other = caps.clone();
            for structure in other.make_mut().iter_mut() {
                if direction == gst::PadDirection::Sink {
                    structure.set("width", geometry.frame.0 as i32);
                    structure.set("height", geometry.frame.1 as i32);
                    structure.set("pixel-aspect-ratio", gst::Fraction::new(1, 1));
                } else {
                    structure.set("width", gst::IntRange::new(1, i32::MAX));
                    structure.set("height", gst::IntRange::new(1, i32::MAX));
                    structure.remove_field("pixel-aspect-ratio");
                }
            }
            Some(match filter {
                Some(filter) => filter.intersect_with_mode(&other, gst::CapsIntersectMode::First),
                None => other,
            })
        }
    }

    impl VideoFilterImpl for Scaler {
        fn transform_frame(
            &self,
            source: &gst_video::VideoFrameRef<&gst::BufferRef>,
            target: &mut gst_video::VideoFrameRef<&mut gst::BufferRef>,
        ) -> Result<gst::FlowSuccess, gst::FlowError> {
            let Some(geometry) = *self.geometry.lock() else { return Err(gst::FlowError::NotNegotiated) };
            let (size, siting) = ((source.width(), source.height()), siting(source.info()));
            let mut prepared = self.prepared.lock();
            if prepared.as_ref().is_some_and(|p| (p.source, p.siting) != (size, siting)) {
                *prepared = None;
            }
            let prepared = prepared.get_or_insert_with(|| Prepared::new(&geometry, size, siting));
            let strides = [0, 1, 2].map(|i| target.plane_stride()[i] as usize);
            let [luma, blue, red, _] = target.planes_data_mut();
            for (plane, (bytes, stride)) in [luma, blue, red].into_iter().zip(strides).enumerate() {
                let chroma = plane > 0;
                if geometry.content != geometry.frame {
                    bytes.fill(if chroma { 128 } else { 16 });
                }
                let pixels = source.plane_data(plane as u32).map_err(|_| gst::FlowError::Error)?;
                let view = View { bytes: pixels, stride: source.plane_stride()[plane] as usize };
                let (crop, at) = (prepared.crop, geometry.at);
                let resampler = if chroma { &mut prepared.chroma } else { &mut prepared.luma };
                resampler.run(
                    view.from(samples(chroma, crop.0), samples(chroma, crop.1)),
                    ViewMut { bytes, stride }.from(samples(chroma, at.0), samples(chroma, at.1)),
                );
            }
            Ok(gst::FlowSuccess::Ok)
        }
    }
}
