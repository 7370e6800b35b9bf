//! From settings and a probed source to what exactly is to be made: pure, so that it can be tested without media.
//!
//! Invariant: two outputs whose pictures are coded alike share one [`Encode`]; two whose sound is coded alike
//! share one [`AudioEncode`].

use conveyor_base::{TaskError, Uri};
use conveyor_settings::{
    AudioCode, Capture, Container, Deinterlace, GopSize, Group, GroupKind, H264, Output, Rate, Settings, VideoCode,
};
use gstreamer as gst;

use super::geometry::{Geometry, SourceShape, fit};
use crate::input::Input;
use crate::probe::Media;
use crate::probe::colour::Hdr;
use crate::probe::inspect::Video;

/// Longest part of the source's name that outputs repeat: names have 255 bytes, and modifiers and numbers follow.
const STEM_BYTES_MAX: usize = 160;
/// Two rates that differ by less than this share are one.
const RATES_APART_MAX: f64 = 0.005;

/// Everything to be made of one source.
#[derive(Debug)]
pub struct Plan {
    pub video: Option<Video>,
    /// Clockwise degrees by which the pictures are turned.
    pub rotate: u16,
    pub mirrored: bool,
    pub deinterlace: Option<Deinterlace>,
    /// All pictures become BT.709 ones.
    pub force_709: bool,
    pub encodes: Vec<Encode>,
    pub audio: Vec<AudioEncode>,
    pub makes: Vec<Make>,
    pub warnings: Vec<String>,
}

/// Pictures coded once.
#[derive(Clone, Debug, PartialEq)]
pub struct Encode {
    pub geometry: Geometry,
    pub rate: gst::Fraction,
    pub gop_frames: u32,
    pub code: H264,
}

/// Sound coded once.
#[derive(Clone, Debug, PartialEq)]
pub struct AudioEncode {
    pub stream_id: String,
    pub track: usize,
    pub channels_in: u32,
    pub code: AudioCode,
}

/// One output: what goes into it and where it lands.
#[derive(Clone, Debug)]
pub struct Make {
    pub group: usize,
    pub output: usize,
    /// Destination folder and the files' base name, as `s3://share/folder/base`.
    pub base: Uri,
    pub encode: Option<usize>,
    pub audio: Option<usize>,
    pub form: Form,
}

#[derive(Clone, Debug)]
pub enum Form {
    File { name: String, container: Container },
    Hls { stem: String, gops_per_segment: u32 },
    Captures { names: CaptureNames, geometry: Geometry, capture: Capture },
}

impl Encode {
    pub fn fps(&self) -> f64 {
        f64::from(self.rate.numer()) / f64::from(self.rate.denom())
    }
}

/// Decides everything; refuses what cannot be done with this source.
pub fn plan(settings: &Settings, input: &Input, media: &Media) -> Result<Plan, TaskError> {
    let video = media.video.first().cloned();
    let rotate = settings.input.rotate.or_else(|| video.as_ref().map(|v| v.rotation)).unwrap_or(0);
    let mirrored = settings.input.rotate.is_none() && video.as_ref().is_some_and(|v| v.mirrored);
    let mut plan = Plan {
        rotate,
        mirrored,
        deinterlace: None,
        force_709: one_colour_space(settings)?,
        encodes: Vec::new(),
        audio: Vec::new(),
        makes: Vec::new(),
        warnings: Vec::new(),
        video,
    };
    for (g, group) in settings.groups.iter().enumerate() {
        for (o, output) in group.outputs.iter().enumerate() {
            let make = plan.make(settings, input, media, (g, group), (o, output))?;
            plan.makes.push(make);
        }
    }
    plan.tell_tone_mapping(input)?;
    plan.refuse_collisions()?;
    plan.warnings.dedup();
    Ok(plan)
}

impl Plan {
    /// Some output wants the pictures.
    pub fn wants_video(&self) -> bool {
        self.makes.iter().any(|m| m.encode.is_some() || matches!(m.form, Form::Captures { .. }))
    }

    /// The source has this rate, by what is known of it: they differ by less than a rounding of either.
    pub fn has_rate(&self, rate: gst::Fraction) -> bool {
        let of = |rate: gst::Fraction| f64::from(rate.numer()) / f64::from(rate.denom());
        self.video.as_ref().is_some_and(|video| (of(video.fps) / of(rate) - 1.0).abs() < RATES_APART_MAX)
    }

    /// When the pictures that are wanted begin, in nanoseconds of running time: sound is not to begin later.
    pub fn pictures_from_ns(&self) -> Option<u64> {
        self.video.as_ref().filter(|_| self.wants_video())?.first_ns
    }

    fn make(
        &mut self,
        settings: &Settings,
        input: &Input,
        media: &Media,
        (g, group): (usize, &Group),
        (o, output): (usize, &Output),
    ) -> Result<Make, TaskError> {
        let base = base_name(&group.destination, input);
        let stem = format!("{}{}", base.file_name(), output.modifier);
        let mut make = Make {
            group: g,
            output: o,
            base,
            encode: None,
            audio: None,
            form: Form::Hls { stem: stem.clone(), gops_per_segment: 1 },
        };
        if let Some(spec) = &output.audio {
            make.audio = self.audio(settings, input, media, spec.source.as_deref(), spec.code)?;
        }
        if let Some(spec) = &output.video {
            let video = self.video.clone().ok_or_else(|| {
                input.error("Media.NoVideo", format!("has no picture, and the output {} asks for one", output.pointer))
            })?;
            let geometry = fit(&shape(&video, self.rotate), spec.width, spec.height, spec.scaling);
            if geometry.reduced {
                self.warnings.push(format!(
                    "{}: the source is smaller than {}x{}; the output is {}x{}, since nothing is enlarged unless ScalingBehavior asks for it",
                    output.pointer,
                    spec.width.unwrap_or(0),
                    spec.height.unwrap_or(0),
                    geometry.frame.0,
                    geometry.frame.1
                ));
            }
            if video.interlaced {
                self.deinterlace = Some(self.deinterlace.map_or(spec.deinterlace, |d| d.min(spec.deinterlace)));
            }
            match &spec.code {
                VideoCode::H264(code) => {
                    let hls = matches!(group.kind, GroupKind::Hls { .. });
                    make.encode = Some(self.encode(geometry, code, &video, hls));
                }
                VideoCode::Capture(capture) => {
                    let extension = output.extension.clone().unwrap_or_else(|| "jpg".into());
                    let base = make.base.file_name().to_owned();
                    let names = CaptureNames { base, modifier: output.modifier.clone(), extension };
                    make.form = Form::Captures { names, geometry, capture: *capture };
                    return Ok(make);
                }
            }
        }
        if make.encode.is_none() && (make.audio.is_none() || matches!(group.kind, GroupKind::Hls { .. })) {
            return Err(input.error(
                "Media.UnsupportedSetting",
                format!("cannot fill the output {}: it has no picture, and the source no sound for it", output.pointer),
            ));
        }
        make.form = match (&group.kind, output.container) {
            (GroupKind::Hls { segment_seconds, .. }, _) => {
                let gop = make.encode.map_or(2.0, |e| f64::from(self.encodes[e].gop_frames) / self.encodes[e].fps());
                let gops = (*segment_seconds as f64 / gop).round().max(1.0) as u32;
                Form::Hls { stem, gops_per_segment: gops }
            }
            (GroupKind::File, container) => {
                let suffix = if container == Container::Mov { "mov" } else { "mp4" };
                Form::File { name: format!("{stem}.{}", output.extension.as_deref().unwrap_or(suffix)), container }
            }
        };
        Ok(make)
    }

    fn encode(&mut self, geometry: Geometry, code: &H264, video: &Video, hls: bool) -> usize {
        let rate = match code.rate {
            Rate::Source if hls => often_enough(video.fps),
            Rate::Source => video.fps,
            Rate::Fixed { numerator, denominator } => gst::Fraction::new(numerator, denominator),
        };
        let fps = f64::from(rate.numer()) / f64::from(rate.denom());
        let gop_frames = match code.gop {
            GopSize::Frames(n) => n,
            GopSize::Millis(ms) => (fps * f64::from(ms) / 1000.0).round().max(1.0) as u32,
        };
        let encode = Encode { geometry, rate, gop_frames, code: code.clone() };
        match self.encodes.iter().position(|e| *e == encode) {
            Some(known) => known,
            None => {
                self.encodes.push(encode);
                self.encodes.len() - 1
            }
        }
    }

    fn audio(
        &mut self,
        settings: &Settings,
        input: &Input,
        media: &Media,
        source: Option<&str>,
        code: AudioCode,
    ) -> Result<Option<usize>, TaskError> {
        if media.audio.is_empty() {
            self.warnings.push("the source has no sound that can be decoded; the outputs have none either".into());
            return Ok(None);
        }
        let selectors = &settings.input.audio_selectors;
        let selector = match source {
            Some(name) => selectors.iter().find(|s| s.name == name),
            None => selectors.first(),
        };
        let language = |index: usize| {
            media.audio[index].tags.get::<gst::tags::LanguageCode>().map(|v| v.get().to_ascii_lowercase())
        };
        let track = match selector.map(|s| (s.track, s.language.as_deref())) {
            Some((Some(track), _)) => track,
            Some((None, Some(wanted))) => {
                (0..media.audio.len()).find(|i| language(*i).as_deref() == Some(wanted)).unwrap_or(0) + 1
            }
            _ => 1,
        };
        let Some(audio) = media.audio.get(track - 1) else {
            return Err(input.error(
                "Media.NoAudioTrack",
                format!(
                    "has {} sound track(s), and the job asks for track {track}; correct AudioSelectors",
                    media.audio.len()
                ),
            ));
        };
        let encode =
            AudioEncode { stream_id: audio.stream_id.clone(), track, channels_in: audio.info.channels(), code };
        Ok(Some(match self.audio.iter().position(|a| *a == encode) {
            Some(known) => known,
            None => {
                self.audio.push(encode);
                self.audio.len() - 1
            }
        }))
    }

    /// What happens to high dynamic range is said, and what cannot be mapped is refused: in 8-bit standard range without
    /// tone mapping it looks grey, and labelled as it came it would be a lie.
    fn tell_tone_mapping(&mut self, input: &Input) -> Result<(), TaskError> {
        let Some(video) = self.video.as_ref().filter(|v| v.hdr != Hdr::None && self.wants_video()) else {
            return Ok(());
        };
        let Some(grade) = video.grade else {
            return Err(input.error(
                "Media.UnsupportedHdr",
                format!(
                    "is high dynamic range ({}) in colours that this box does not map ({}); convert it to BT.2020 or BT.709 first",
                    video.hdr.name(),
                    video.info.colorimetry()
                ),
            ));
        };
        self.warnings.push(format!(
            "the source is high dynamic range ({}, up to {:.0} cd/m²); the outputs are tone-mapped to BT.709",
            video.hdr.name(),
            grade.peak
        ));
        Ok(())
    }

    /// Two outputs under one name would leave one of them.
    fn refuse_collisions(&self) -> Result<(), TaskError> {
        let mut names: Vec<String> = self.makes.iter().map(|m| m.place(&m.main_name()).to_string()).collect();
        names.sort();
        match names.windows(2).find(|w| w[0] == w[1]) {
            None => Ok(()),
            Some(twice) => Err(TaskError::new(
                "Media.UnsupportedSetting",
                format!("two outputs would both be written to {}; name them apart with NameModifier", twice[0]),
            )),
        }
    }
}

/// Colours are converted once for all outputs, so all must ask for the same.
fn one_colour_space(settings: &Settings) -> Result<bool, TaskError> {
    let outputs = || settings.groups.iter().flat_map(|g| &g.outputs).filter_map(|o| Some((o, o.video.as_ref()?)));
    let forced = outputs().any(|(_, v)| v.force_709);
    match outputs().find(|(_, v)| v.force_709 != forced) {
        None => Ok(forced),
        Some((odd, _)) => Err(TaskError::new(
            "Media.UnsupportedSetting",
            format!(
                "{}/VideoDescription/VideoPreprocessors/ColorCorrector/ColorSpaceConversion: must be FORCE_709 here too, since another output asks for it and colours are converted once for all",
                odd.pointer
            ),
        )),
    }
}

impl Make {
    /// The file by which this output is known.
    pub fn main_name(&self) -> String {
        match &self.form {
            Form::File { name, .. } => name.clone(),
            Form::Hls { stem, .. } => format!("{stem}.m3u8"),
            Form::Captures { names, .. } => names.name(0),
        }
    }

    /// A file of this output at its destination.
    pub fn place(&self, name: &str) -> Uri {
        let folder = self.base.key.rsplit_once('/').map_or("", |(folder, _)| folder);
        let key = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
        Uri::new(self.base.share.clone(), key)
    }
}

/// How captured pictures are called.
#[derive(Clone, Debug)]
pub struct CaptureNames {
    pub base: String,
    pub modifier: String,
    pub extension: String,
}

impl CaptureNames {
    /// `<base><modifier>.0000003.jpg`, or the number in place of a `%04d` in the modifier.
    pub fn name(&self, number: u64) -> String {
        let CaptureNames { base, modifier, extension } = self;
        let placeholder = modifier.find('%').and_then(|at| {
            let digits: String = modifier[at + 1..].chars().take_while(char::is_ascii_digit).collect();
            let end = at + 1 + digits.len();
            modifier[end..].starts_with('d').then(|| (at, end + 1, digits.parse::<usize>().unwrap_or(0).min(20)))
        });
        match placeholder {
            Some((from, to, width)) => {
                format!("{base}{}{number:0width$}{}.{extension}", &modifier[..from], &modifier[to..])
            }
            None => format!("{base}{modifier}.{number:07}.{extension}"),
        }
    }
}

/// A destination that ends in `/` takes its files' names from the input.
fn base_name(destination: &Uri, input: &Input) -> Uri {
    if destination.key.is_empty() || destination.key.ends_with('/') {
        Uri::new(destination.share.clone(), format!("{}{}", destination.key, short_enough(input.uri.stem())))
    } else {
        destination.clone()
    }
}

/// A stem that leaves room for modifiers, numbers and suffixes behind it; a cut one is marked, so that two files
/// that differ in what was cut stay apart.
fn short_enough(stem: &str) -> String {
    if stem.len() <= STEM_BYTES_MAX {
        return stem.to_owned();
    }
    let tag = &blake3::hash(stem.as_bytes()).to_hex()[..8];
    let mut end = STEM_BYTES_MAX - tag.len() - 1;
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}~{tag}", &stem[..end])
}

/// The rate, or the least multiple of it at which the clock comes often enough: MPEG-TS sends it with the pictures, and has it
/// at least every 0.1 s (ISO/IEC 13818-1, 2.7.2). Slides at a picture each few seconds lead receivers astray without.
fn often_enough(rate: gst::Fraction) -> gst::Fraction {
    let (pictures, seconds) = (i64::from(rate.numer().max(1)), i64::from(rate.denom().max(1)));
    let times = (10 * seconds + pictures - 1) / pictures;
    match i32::try_from(pictures * times.max(1)) {
        Ok(numerator) => gst::Fraction::new(numerator, rate.denom().max(1)),
        Err(_) => rate,
    }
}

/// The source as the scaler sees it: after rotation.
fn shape(video: &Video, rotate: u16) -> SourceShape {
    let (info, turned) = (&video.info, !rotate.is_multiple_of(180));
    let par = info.par();
    let par = if par.numer() > 0 && par.denom() > 0 { f64::from(par.numer()) / f64::from(par.denom()) } else { 1.0 };
    if turned {
        SourceShape { width: info.height(), height: info.width(), pixel_aspect: 1.0 / par }
    } else {
        SourceShape { width: info.width(), height: info.height(), pixel_aspect: par }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_leave_room_for_what_comes_behind_them() {
        let (one, other) = ("é".repeat(120) + "1", "é".repeat(120) + "2");
        assert!(short_enough(&one).len() <= STEM_BYTES_MAX && short_enough(&one) != short_enough(&other));
        assert_eq!(short_enough("a.b"), "a.b");
    }

    #[test]
    fn slides_are_sent_often_enough_for_a_clock() {
        let of = |n, d| often_enough(gst::Fraction::new(n, d));
        assert_eq!((of(1, 5), of(4, 1)), (gst::Fraction::new(10, 1), gst::Fraction::new(12, 1)));
        assert_eq!((of(25, 1), of(30_000, 1001)), (gst::Fraction::new(25, 1), gst::Fraction::new(30_000, 1001)));
    }

    #[test]
    fn captures_are_numbered_where_the_modifier_says() {
        let name = |modifier: &str| {
            CaptureNames { base: "100%d".into(), modifier: modifier.into(), extension: "jpg".into() }.name(3)
        };
        assert_eq!(name("_thumb_%04d"), "100%d_thumb_0003.jpg");
        assert_eq!(name("_thumb"), "100%d_thumb.0000003.jpg");
        assert_eq!(name("_50%_film"), "100%d_50%_film.0000003.jpg");
    }
}
