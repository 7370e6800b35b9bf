//! What pictures and sound are coded as.

use super::reader::Reader;

/// The pictures of an output.
#[derive(Clone, Debug, PartialEq)]
pub struct VideoSpec {
    pub width: Option<u32>,
    pub height: Option<u32>,
    pub scaling: Scaling,
    pub code: VideoCode,
    pub deinterlace: Deinterlace,
    /// The colours are to be those of BT.709, whatever they were.
    pub force_709: bool,
}

/// How a picture whose shape or size differs is brought into the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scaling {
    /// Whole picture, bars around it, never larger than the source.
    Default,
    /// Exactly the frame, distorted if need be.
    Stretch,
    /// Whole picture, frame cut down to it.
    Fit,
    FitNoUpscale,
    /// Whole frame, what sticks out is cut off.
    Fill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Deinterlace {
    /// Where the source is interlaced: adaptive to motion.
    Adaptive,
    /// Where the source is interlaced: lines interpolated within one field.
    Interpolate,
}

#[derive(Clone, Debug, PartialEq)]
pub enum VideoCode {
    H264(H264),
    Capture(Capture),
}

/// Still pictures taken from the film.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capture {
    /// One picture each `seconds_n / seconds_d` seconds.
    pub seconds_n: u64,
    pub seconds_d: u64,
    pub captures_max: u64,
    pub quality: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct H264 {
    pub control: RateControl,
    pub gop: GopSize,
    pub rate: Rate,
    /// `baseline`, `main`, `high`.
    pub profile: &'static str,
    /// Ten times the level, such as 41.
    pub level: Option<u8>,
    /// x264's name for the balance of speed and quality.
    pub preset: &'static str,
    pub bframes: Option<u8>,
    pub refs: Option<u8>,
    pub buffer_bits: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RateControl {
    /// Constant quality with a cap. Quality in tenths, 10 to 100.
    Qvbr {
        level_tenths: u32,
        bits_max: u64,
    },
    Vbr {
        bits: u64,
        bits_max: u64,
    },
    Cbr {
        bits: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GopSize {
    Frames(u32),
    Millis(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rate {
    Source,
    Fixed { numerator: i32, denominator: i32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AudioCode {
    pub bitrate: u32,
    pub channels: u8,
    pub rate: u32,
}

impl H264 {
    /// What NVENC cannot be told through GStreamer 1.22: such encodes are made on cores, wherever the rest runs.
    pub fn only_on_cores(&self) -> Option<&'static str> {
        if self.level.is_some() {
            return Some("CodecLevel");
        }
        self.refs.is_some().then_some("NumberReferenceFrames")
    }
}

impl RateControl {
    /// x264's constant rate factor for a QVBR level: 10 → 17, 9 → 19, 8 → 21, 7 → 23 ... 1 → 35. Levels 8 and 7 are what
    /// the service recommends for 1080p and 720p; 21 and 23 look the same there at the presets used here.
    pub fn crf(level_tenths: u32) -> u32 {
        (370u32.saturating_sub(2 * level_tenths) + 5) / 10
    }
}

pub(super) fn read(video: &Reader) -> Option<VideoSpec> {
    let size = |key| video.number(key, 32, 8192).map(|n| n as u32);
    let (width, height) = (size("Width"), size("Height"));
    for (key, value) in [("Width", width), ("Height", height)] {
        if value.is_some_and(|v| v % 2 != 0) {
            video.fault(key, "must be even");
        }
    }
    let scaling = video.choice(
        "ScalingBehavior",
        &[
            ("DEFAULT", Scaling::Default),
            ("STRETCH_TO_OUTPUT", Scaling::Stretch),
            ("FIT", Scaling::Fit),
            ("FIT_NO_UPSCALE", Scaling::FitNoUpscale),
            ("FILL", Scaling::Fill),
        ],
        Scaling::Default,
    );
    video.only("AfdSignaling", &["NONE"]);
    video.only("AntiAlias", &["ENABLED"]);
    video.only("ColorMetadata", &["INSERT"]);
    video.only("DropFrameTimecode", &["ENABLED", "DISABLED"]);
    video.only("RespondToAfd", &["NONE"]);
    video.only("TimecodeInsertion", &["DISABLED"]);
    // The middle of the scale means "as it is".
    video.number("Sharpness", 50, 50);
    let mut deinterlace = Deinterlace::Adaptive;
    let mut force_709 = false;
    if let Some(filters) = video.object("VideoPreprocessors") {
        if let Some(filter) = filters.object("Deinterlacer") {
            filter.only("Mode", &["DEINTERLACE", "ADAPTIVE"]);
            filter.only("Control", &["NORMAL"]);
            deinterlace = filter.choice(
                "Algorithm",
                &[("INTERPOLATE", Deinterlace::Adaptive), ("BLEND", Deinterlace::Interpolate)],
                deinterlace,
            );
        }
        force_709 = filters.object("ColorCorrector").is_some_and(|c| read_corrector(&c));
    }
    let codec = video.require_object("CodecSettings")?;
    #[derive(Clone, Copy)]
    enum Codec {
        H264,
        Capture,
    }
    if !codec.has("Codec") {
        codec.fault("Codec", "is missing");
    }
    let code = match codec.choose("Codec", &[("H_264", Codec::H264), ("FRAME_CAPTURE", Codec::Capture)])? {
        Codec::H264 => VideoCode::H264(read_h264(&codec.require_object("H264Settings")?)?),
        Codec::Capture => VideoCode::Capture(read_capture(codec.object("FrameCaptureSettings").as_ref())),
    };
    Some(VideoSpec { width, height, scaling, code, deinterlace, force_709 })
}

/// High dynamic range becomes BT.709 in any case, since no output here can carry it; `FORCE_709` asks for it of every
/// source. True where it does.
fn read_corrector(corrector: &Reader) -> bool {
    let force = corrector.choice("ColorSpaceConversion", &[("NONE", false), ("FORCE_709", true)], false);
    corrector.only("HdrToSdrToneMapper", &["PRESERVE_DETAILS"]);
    // The middles of their scales mean "as it is".
    for (key, neutral) in [("Brightness", 50), ("Contrast", 50), ("Saturation", 50), ("Hue", 0)] {
        corrector.number(key, neutral, neutral);
    }
    force
}

fn read_capture(settings: Option<&Reader>) -> Capture {
    let number = |key, max, default| settings.and_then(|s| s.number(key, 1, max)).unwrap_or(default);
    Capture {
        seconds_n: number("FramerateDenominator", 1_000_000, 1),
        seconds_d: number("FramerateNumerator", 1_000_000, 1),
        captures_max: number("MaxCaptures", 10_000_000, 10_000_000),
        quality: number("Quality", 100, 80) as u8,
    }
}

fn read_h264(h264: &Reader) -> Option<H264> {
    let control = read_control(h264);
    let gop = read_gop(h264);
    let rate = read_rate(h264);
    let profile = h264.choice("CodecProfile", &[("HIGH", "high"), ("MAIN", "main"), ("BASELINE", "baseline")], "high");
    let preset = h264.choice(
        "QualityTuningLevel",
        &[("SINGLE_PASS", "veryfast"), ("SINGLE_PASS_HQ", "medium"), ("MULTI_PASS_HQ", "slow")],
        "veryfast",
    );
    let buffer_bits = h264.number("HrdBufferSize", 1, 1_152_000_000);
    // What x264 starts with.
    h264.number("HrdBufferInitialFillPercentage", 90, 90);
    let bframes = h264.number("NumberBFramesBetweenReferenceFrames", 0, 7).map(|n| n as u8);
    let refs = h264.number("NumberReferenceFrames", 1, 6).map(|n| n as u8);
    h264.only("AdaptiveQuantization", &["AUTO"]);
    h264.only("InterlaceMode", &["PROGRESSIVE"]);
    h264.only("ScanTypeConversionMode", &["INTERLACED", "INTERLACED_OPTIMIZE"]);
    h264.only("EntropyEncoding", if profile == "baseline" { &["CAVLC"] } else { &["CABAC"] });
    // Keyframes at scene cuts would tear renditions and segments apart.
    h264.only("SceneChangeDetect", &["DISABLED"]);
    h264.only("DynamicSubGop", &["ADAPTIVE", "STATIC"]);
    h264.only("FlickerAdaptiveQuantization", &["DISABLED"]);
    h264.only("SpatialAdaptiveQuantization", &["ENABLED"]);
    h264.only("TemporalAdaptiveQuantization", &["ENABLED"]);
    h264.only("GopBReference", &["DISABLED", "ENABLED"]);
    h264.only("ParControl", &["INITIALIZE_FROM_SOURCE"]);
    h264.only("RepeatPps", &["DISABLED"]);
    h264.only("SlowPal", &["DISABLED"]);
    h264.only("Syntax", &["DEFAULT"]);
    h264.only("Telecine", &["NONE"]);
    h264.only("UnregisteredSeiTimecode", &["DISABLED"]);
    h264.only("FieldEncoding", &["PAFF", "FORCE_FIELD", "MBAFF"]);
    if h264.has("Slices") {
        h264.number("Slices", 1, 1);
    }
    if h264.has("Softness") {
        h264.number("Softness", 0, 0);
    }
    if h264.has("GopClosedCadence") {
        h264.number("GopClosedCadence", 1, 1);
    }
    if h264.has("MinIInterval") {
        h264.number("MinIInterval", 0, 0);
    }
    const LEVELS: [(&str, Option<u8>); 17] = [
        ("AUTO", None),
        ("LEVEL_1", Some(10)),
        ("LEVEL_1_1", Some(11)),
        ("LEVEL_1_2", Some(12)),
        ("LEVEL_1_3", Some(13)),
        ("LEVEL_2", Some(20)),
        ("LEVEL_2_1", Some(21)),
        ("LEVEL_2_2", Some(22)),
        ("LEVEL_3", Some(30)),
        ("LEVEL_3_1", Some(31)),
        ("LEVEL_3_2", Some(32)),
        ("LEVEL_4", Some(40)),
        ("LEVEL_4_1", Some(41)),
        ("LEVEL_4_2", Some(42)),
        ("LEVEL_5", Some(50)),
        ("LEVEL_5_1", Some(51)),
        ("LEVEL_5_2", Some(52)),
    ];
    let level = h264.choice("CodecLevel", &LEVELS, None);
    Some(H264 { control: control?, gop, rate, profile, level, preset, bframes, refs, buffer_bits })
}

fn read_control(h264: &Reader) -> Option<RateControl> {
    #[derive(Clone, Copy)]
    enum Mode {
        Qvbr,
        Vbr,
        Cbr,
    }
    let mode =
        h264.choice("RateControlMode", &[("QVBR", Mode::Qvbr), ("VBR", Mode::Vbr), ("CBR", Mode::Cbr)], Mode::Qvbr);
    let need = |key: &str| {
        let value = h264.number(key, 1_000, 1_152_000_000);
        if !h264.has(key) {
            h264.fault(key, "is needed for this RateControlMode");
        }
        value
    };
    match mode {
        Mode::Qvbr => {
            let bits_max = need("MaxBitrate");
            let mut level_tenths = 70;
            if let Some(qvbr) = h264.object("QvbrSettings") {
                level_tenths = qvbr.number("QvbrQualityLevel", 1, 10).unwrap_or(7) as u32 * 10;
                level_tenths += (qvbr.decimal("QvbrQualityLevelFineTune", 0.0, 0.99).unwrap_or(0.0) * 10.0) as u32;
                qvbr.number("MaxAverageBitrate", 1_000, 1_152_000_000).inspect(|_| {
                    qvbr.fault("MaxAverageBitrate", "a cap on the average is not supported; use MaxBitrate");
                });
            }
            Some(RateControl::Qvbr { level_tenths, bits_max: bits_max? })
        }
        Mode::Vbr => {
            let bits = need("Bitrate")?;
            Some(RateControl::Vbr {
                bits,
                bits_max: h264.number("MaxBitrate", bits, 1_152_000_000).unwrap_or(bits * 2),
            })
        }
        Mode::Cbr => Some(RateControl::Cbr { bits: need("Bitrate")? }),
    }
}

fn read_gop(h264: &Reader) -> GopSize {
    #[derive(Clone, Copy, PartialEq)]
    enum Units {
        Frames,
        Seconds,
        Auto,
    }
    // Two seconds, closed: what segments of any even length can be cut at.
    let standard = GopSize::Millis(2_000);
    let units = h264.choice(
        "GopSizeUnits",
        &[("FRAMES", Units::Frames), ("SECONDS", Units::Seconds), ("AUTO", Units::Auto)],
        if h264.has("GopSize") { Units::Frames } else { Units::Auto },
    );
    let Some(size) = h264.decimal("GopSize", 0.001, 10_000.0) else { return standard };
    match units {
        Units::Frames if size.fract() == 0.0 => GopSize::Frames(size as u32),
        Units::Frames => {
            h264.fault("GopSize", format!("must be a whole number of frames, is {size}"));
            standard
        }
        Units::Seconds => GopSize::Millis((size * 1000.0).round().max(1.0) as u32),
        Units::Auto => standard,
    }
}

fn read_rate(h264: &Reader) -> Rate {
    let fixed = h264.choice("FramerateControl", &[("INITIALIZE_FROM_SOURCE", false), ("SPECIFIED", true)], false);
    h264.only("FramerateConversionAlgorithm", &["DUPLICATE_DROP"]);
    let numerator = h264.number("FramerateNumerator", 1, 1_000_000);
    let denominator = h264.number("FramerateDenominator", 1, 1_000_000).unwrap_or(1);
    match (fixed, numerator) {
        (true, Some(n)) if n <= denominator * 240 => {
            Rate::Fixed { numerator: n as i32, denominator: denominator as i32 }
        }
        (true, _) => {
            h264.fault(
                "FramerateNumerator",
                "is needed where FramerateControl is SPECIFIED, for at most 240 frames a second",
            );
            Rate::Source
        }
        (false, Some(_)) => {
            h264.fault("FramerateNumerator", "needs FramerateControl SPECIFIED");
            Rate::Source
        }
        (false, None) => Rate::Source,
    }
}

pub(super) fn read_aac(aac: &Reader) -> AudioCode {
    let bitrate = aac.number("Bitrate", 6_000, 1_024_000).unwrap_or(128_000) as u32;
    let channels =
        aac.choice("CodingMode", &[("CODING_MODE_1_0", 1), ("CODING_MODE_2_0", 2), ("CODING_MODE_5_1", 6)], 2);
    let rate = aac.number("SampleRate", 8_000, 96_000).unwrap_or(48_000) as u32;
    const RATES: [u32; 12] = [8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000];
    if !RATES.contains(&rate) {
        aac.fault("SampleRate", format!("must be a rate that AAC knows, is {rate}"));
    }
    aac.only("CodecProfile", &["LC"]);
    aac.only("RateControlMode", &["CBR"]);
    aac.only("Specification", &["MPEG4"]);
    aac.only("RawFormat", &["NONE"]);
    aac.only("AudioDescriptionBroadcasterMix", &["NORMAL"]);
    AudioCode { bitrate, channels, rate }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn better_levels_mean_smaller_factors() {
        assert_eq!(RateControl::crf(80), 21);
        assert_eq!(RateControl::crf(70), 23);
        assert_eq!(RateControl::crf(100), 17);
        assert_eq!(RateControl::crf(10), 35);
    }
}
