//! The encoders that a box may have, as GStreamer elements at constant quality.
//!
//! Constant quality, so that a preset's price shows on both sides: in frames a second, and in bits for the same look.

use conveyor_job::Encoder;
use gstreamer as gst;

/// What GStreamer knows of an encoder.
pub(super) trait Element: Sized {
    /// The GStreamer element.
    fn element(self) -> &'static str;
    fn is_installed(&self) -> bool;
    /// The element with its settings, and the parser behind it.
    fn description(self, preset: &str, threads: usize) -> String;
    /// Decoders for what it makes, the preferred first.
    fn decoders(self) -> &'static [&'static str];
    /// What finds the pictures in its stream.
    fn parser(self) -> &'static str;
}

impl Element for Encoder {
    fn element(self) -> &'static str {
        match self {
            Encoder::X264 => "x264enc",
            Encoder::X265 => "x265enc",
            Encoder::Aom => "av1enc",
            Encoder::Svt => "svtav1enc",
            Encoder::Rav1e => "rav1enc",
        }
    }

    fn is_installed(&self) -> bool {
        gst::ElementFactory::find(self.element()).is_some()
    }

    fn description(self, preset: &str, threads: usize) -> String {
        // As many as x264 itself would take, and the media graphs do.
        let frame_threads = (threads.max(1) * 3).div_ceil(2);
        match self {
            Encoder::X264 => format!(
                "x264enc speed-preset={preset} pass=qual quantizer=23 bitrate=100000 key-int-max=60 threads={frame_threads} ! \
                 video/x-h264,profile=high ! h264parse"
            ),
            Encoder::X265 => format!(
                "x265enc speed-preset={preset} option-string=\"crf=26:pools={threads}:log-level=none\" key-int-max=60 \
                 ! h265parse"
            ),
            Encoder::Aom => {
                // Above 6 the good-quality profile grows no quicker; the realtime profile goes on from there.
                let profile =
                    if preset.parse::<u32>().is_ok_and(|speed| speed > 6) { "realtime" } else { "good-quality" };
                let lag = if profile == "realtime" { 0 } else { 16 };
                format!(
                    "av1enc cpu-used={preset} usage-profile={profile} end-usage=q min-quantizer=34 max-quantizer=34 \
                     threads={threads} row-mt=true lag-in-frames={lag} keyframe-max-dist=60 ! av1parse"
                )
            }
            Encoder::Svt => format!("svtav1enc preset={preset} crf=32 intra-period-length=60 ! av1parse"),
            Encoder::Rav1e => format!(
                "rav1enc speed-preset={preset} quantizer=100 threads={threads} max-key-frame-interval=60 ! av1parse"
            ),
        }
    }

    fn decoders(self) -> &'static [&'static str] {
        match self.codec() {
            "h264" => &["avdec_h264", "openh264dec"],
            "hevc" => &["avdec_h265", "libde265dec"],
            _ => &["dav1ddec", "av1dec", "avdec_av1"],
        }
    }

    fn parser(self) -> &'static str {
        match self.codec() {
            "h264" => "h264parse",
            "hevc" => "h265parse",
            _ => "av1parse",
        }
    }
}
