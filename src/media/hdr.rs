//! A GStreamer element that makes BT.709 pictures of PQ or HLG ones.
//!
//! It takes ten-bit planar 4:2:0 and gives eight-bit of the same size. What it does follows from the caps alone: the
//! colorimetry, and the light levels that HDR10 carries. It must never pass the marks of HDR on.

use conveyor_pixels::hdr::{Grade, PQ_PEAK, Primaries, REFERENCE_WHITE, Transfer, USUAL_PEAK};
use gstreamer as gst;
use gstreamer::glib;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;
use gstreamer_video::{VideoColorMatrix, VideoColorPrimaries, VideoColorRange, VideoTransferFunction};

glib::wrapper! {
    pub struct ToneMapper(ObjectSubclass<imp::ToneMapper>)
        @extends gst_video::VideoFilter, gstreamer_base::BaseTransform, gst::Element, gst::Object;
}

/// Makes the element known under the name `conveyortonemap`.
pub fn register() -> Result<(), glib::BoolError> {
    gst::Element::register(None, "conveyortonemap", gst::Rank::NONE, ToneMapper::static_type())
}

/// What a stream's caps ask for; none where they are no high dynamic range that is known here.
pub fn grade(caps: &gst::CapsRef) -> Option<Grade> {
    let colour: gst_video::VideoColorimetry = caps.structure(0)?.get::<&str>("colorimetry").ok()?.parse().ok()?;
    let transfer = match colour.transfer() {
        VideoTransferFunction::Smpte2084 => Transfer::Pq,
        VideoTransferFunction::AribStdB67 => Transfer::Hlg,
        _ => return None,
    };
    let primaries = match colour.primaries() {
        // Unmarked HDR is BT.2020: nothing else is in use with these transfer functions.
        VideoColorPrimaries::Bt2020 | VideoColorPrimaries::Unknown => Primaries::Bt2020,
        VideoColorPrimaries::Smpteeg432 => Primaries::P3D65,
        VideoColorPrimaries::Bt709 => Primaries::Bt709,
        _ => return None,
    };
    Some(Grade {
        transfer,
        primaries,
        bt2020_matrix: colour.matrix() != VideoColorMatrix::Bt709,
        full_range: colour.range() == VideoColorRange::Range0_255,
        peak: if transfer == Transfer::Hlg { USUAL_PEAK } else { peak(caps) },
    })
}

/// The brightest light that a PQ programme says to hold: its own, else that of the display it was mastered on.
fn peak(caps: &gst::CapsRef) -> f64 {
    let content = gst_video::VideoContentLightLevel::from_caps(caps).map(|l| f64::from(l.max_content_light_level()));
    let display = gst_video::VideoMasteringDisplayInfo::from_caps(caps)
        .map(|d| f64::from(d.max_display_mastering_luminance()) / 10_000.0);
    let said = [content.ok(), display.ok()].into_iter().flatten().find(|v| *v > 0.0);
    said.unwrap_or(USUAL_PEAK).clamp(REFERENCE_WHITE, PQ_PEAK)
}

mod imp {
    use std::sync::LazyLock;

    use conveyor_pixels::hdr::Table;
    use conveyor_pixels::{View, ViewMut};
    use gstreamer_base::subclass::prelude::*;
    use gstreamer_video::prelude::*;
    use gstreamer_video::subclass::prelude::*;
    use parking_lot::Mutex;

    use super::{Grade, glib, grade, gst, gst_video};

    #[derive(Default)]
    pub struct ToneMapper {
        table: Mutex<Option<(Grade, Table)>>,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for ToneMapper {
        const NAME: &'static str = "ConveyorToneMap";
        type Type = super::ToneMapper;
        type ParentType = gst_video::VideoFilter;
    }

    impl ObjectImpl for ToneMapper {}
    impl GstObjectImpl for ToneMapper {}

    impl ElementImpl for ToneMapper {
        fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
            static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
                gst::subclass::ElementMetadata::new(
                    "Tone mapper",
                    "Filter/Converter/Video",
                    "Makes BT.709 pictures of PQ or HLG ones",
                    "Conveyor",
                )
            });
            Some(&*METADATA)
        }

        fn pad_templates() -> &'static [gst::PadTemplate] {
            static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
                let pads = [
                    ("sink", gst::PadDirection::Sink, gst_video::VideoFormat::I42010le),
                    ("src", gst::PadDirection::Src, gst_video::VideoFormat::I420),
                ];
                pads.into_iter()
                    .filter_map(|(name, direction, format)| {
                        let caps = gst_video::VideoCapsBuilder::new().format(format).build();
                        gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps).ok()
                    })
                    .collect()
            });
            &TEMPLATES
        }
    }

    impl BaseTransformImpl for ToneMapper {
        const MODE: gstreamer_base::subclass::BaseTransformMode =
            gstreamer_base::subclass::BaseTransformMode::NeverInPlace;
        const PASSTHROUGH_ON_SAME_CAPS: bool = false;
        const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

        /// Format and colours change; size, rate and shape stay.
        fn transform_caps(
            &self,
            direction: gst::PadDirection,
            caps: &gst::Caps,
            filter: Option<&gst::Caps>,
        ) -> Option<gst::Caps> {
            let mut other = caps.clone();
            for structure in other.make_mut().iter_mut() {
                for mark in ["mastering-display-info", "content-light-level", "hdr-format", "colorimetry"] {
                    structure.remove_field(mark);
                }
                if direction == gst::PadDirection::Sink {
                    structure.set("format", "I420");
                    structure.set("colorimetry", "bt709");
                } else {
                    structure.set("format", "I420_10LE");
                }
            }
            Some(match filter {
                Some(filter) => filter.intersect_with_mode(&other, gst::CapsIntersectMode::First),
                None => other,
            })
        }
    }

    impl VideoFilterImpl for ToneMapper {
        fn set_info(
            &self,
            incaps: &gst::Caps,
            _: &gst_video::VideoInfo,
            _: &gst::Caps,
            _: &gst_video::VideoInfo,
        ) -> Result<(), gst::LoggableError> {
            let Some(wanted) = grade(incaps) else {
                return Err(gst::loggable_error!(gst::CAT_RUST, "no known high dynamic range in {incaps}"));
            };
            let mut table = self.table.lock();
            // Light levels may come anew with every parameter set; mostly they are the same.
            if table.as_ref().is_none_or(|(known, _)| *known != wanted) {
                *table = Some((wanted, Table::new(&wanted)));
            }
            Ok(())
        }

        fn transform_frame(
            &self,
            source: &gst_video::VideoFrameRef<&gst::BufferRef>,
            target: &mut gst_video::VideoFrameRef<&mut gst::BufferRef>,
        ) -> Result<gst::FlowSuccess, gst::FlowError> {
            let table = self.table.lock();
            let Some((_, table)) = table.as_ref() else { return Err(gst::FlowError::NotNegotiated) };
            let size = (source.width() as usize, source.height() as usize);
            let mut planes = [None; 3];
            for (plane, index) in planes.iter_mut().zip(0u32..) {
                let bytes = source.plane_data(index).map_err(|_| gst::FlowError::Error)?;
                *plane = Some(View { bytes, stride: source.plane_stride()[index as usize] as usize });
            }
            let strides = [0, 1, 2].map(|i| target.plane_stride()[i] as usize);
            let [luma, blue, red, _] = target.planes_data_mut();
            if let [Some(y), Some(cb), Some(cr)] = planes {
                let target = [
                    ViewMut { bytes: luma, stride: strides[0] },
                    ViewMut { bytes: blue, stride: strides[1] },
                    ViewMut { bytes: red, stride: strides[2] },
                ];
                table.apply(size, [y, cb, cr], target);
            }
            Ok(gst::FlowSuccess::Ok)
        }
    }
}
