//! Output groups: where results go, in which container, under which names.

use conveyor_base::Uri;

use super::reader::Reader;
use super::video::{self, AudioCode, VideoCode, VideoSpec};

/// Outputs that share a destination.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub name: Option<String>,
    pub kind: GroupKind,
    /// A folder where it ends in `/`; else the folder and the start of the files' names.
    pub destination: Uri,
    pub outputs: Vec<Output>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum GroupKind {
    File,
    Hls {
        segment_seconds: u64,
        /// Durations in playlists with a fraction; else rounded to whole seconds.
        fractions: bool,
        /// Write playlists as well as segments.
        manifests: bool,
        /// RESOLUTION in the master playlist.
        resolution: bool,
    },
}

/// One output of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Where it stands in the request, for messages.
    pub pointer: String,
    pub modifier: String,
    pub extension: Option<String>,
    pub container: Container,
    pub video: Option<VideoSpec>,
    pub audio: Option<AudioSpec>,
}

/// A sound track of an output.
#[derive(Clone, Debug, PartialEq)]
pub struct AudioSpec {
    /// Name of the selector; none for the first one.
    pub source: Option<String>,
    pub code: AudioCode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    Mp4,
    Mov,
    /// MPEG-TS segments with playlists.
    Hls,
    /// Files of their own for each picture.
    Raw,
}

pub(super) fn read(group: &Reader, selectors: &[String]) -> Option<Group> {
    let name = group.text("Name").map(str::to_owned);
    group.accept(&["CustomName"]);
    let settings = group.require_object("OutputGroupSettings");
    let Some((kind, destination)) = settings.as_ref().and_then(read_kind) else {
        // What the outputs may be depends on the kind of the group; that fault is told already.
        group.accept(&["Outputs"]);
        return None;
    };
    let outputs: Vec<Output> = group.list("Outputs").iter().filter_map(|o| read_output(o, &kind, selectors)).collect();
    if !group.has("Outputs") {
        group.fault("Outputs", "is missing; a group needs at least one output");
    }
    let mut modifiers: Vec<&str> = outputs.iter().map(|o| o.modifier.as_str()).collect();
    modifiers.sort_unstable();
    if modifiers.windows(2).any(|w| w[0] == w[1]) {
        group
            .fault("Outputs", "two outputs have the same NameModifier and would overwrite each other; name them apart");
    }
    if matches!(kind, GroupKind::Hls { .. }) && modifiers.contains(&"") {
        group.fault("Outputs", "an HLS output needs a NameModifier, else its playlist overwrites the master playlist");
    }
    Some(Group { name, kind, destination: destination?, outputs })
}

fn read_kind(settings: &Reader) -> Option<(GroupKind, Option<Uri>)> {
    #[derive(Clone, Copy)]
    enum Type {
        File,
        Hls,
    }
    let kind = settings.choose("Type", &[("FILE_GROUP_SETTINGS", Type::File), ("HLS_GROUP_SETTINGS", Type::Hls)]);
    if !settings.has("Type") {
        settings.fault("Type", "is missing");
    }
    match kind? {
        Type::File => {
            let file = settings.require_object("FileGroupSettings")?;
            Some((GroupKind::File, destination(&file)))
        }
        Type::Hls => {
            let hls = settings.require_object("HlsGroupSettings")?;
            let segment_seconds = hls.number("SegmentLength", 1, 60);
            if !hls.has("SegmentLength") {
                hls.fault("SegmentLength", "is missing");
            }
            if hls.has("MinSegmentLength") {
                hls.number("MinSegmentLength", 0, 60);
            }
            let fractions = hls.choice("ManifestDurationFormat", &[("FLOATING_POINT", true), ("INTEGER", false)], true);
            let manifests =
                hls.choice("OutputSelection", &[("MANIFESTS_AND_SEGMENTS", true), ("SEGMENTS_ONLY", false)], true);
            let resolution = hls.choice("StreamInfResolution", &[("INCLUDE", true), ("EXCLUDE", false)], true);
            hls.only("SegmentControl", &["SEGMENTED_FILES"]);
            hls.only("SegmentLengthControl", &["EXACT", "GOP_MULTIPLE"]);
            hls.only("DirectoryStructure", &["SINGLE_DIRECTORY"]);
            hls.only("ManifestCompression", &["NONE"]);
            hls.only("CodecSpecification", &["RFC_4281", "RFC_6381"]);
            hls.only("ClientCache", &["ENABLED"]);
            hls.only("ProgramDateTime", &["EXCLUDE"]);
            hls.only("TimedMetadataId3Frame", &["NONE"]);
            hls.only("CaptionLanguageSetting", &["OMIT"]);
            hls.only("ImageBasedTrickPlay", &["NONE"]);
            hls.only("AudioOnlyHeader", &["INCLUDE", "EXCLUDE"]);
            if hls.has("TimestampDeltaMilliseconds") {
                hls.number("TimestampDeltaMilliseconds", 0, 0);
            }
            let destination = destination(&hls);
            let kind = GroupKind::Hls { segment_seconds: segment_seconds?, fractions, manifests, resolution };
            Some((kind, destination))
        }
    }
}

fn destination(settings: &Reader) -> Option<Uri> {
    let text = settings.text("Destination");
    match text.map(str::parse::<Uri>) {
        Some(Ok(uri)) if text.is_some_and(|t| t.contains('$')) => {
            settings.fault("Destination", format!("format identifiers such as $dt$ are not supported, is '{uri}'"));
            None
        }
        Some(Ok(uri)) => Some(uri),
        Some(Err(e)) => {
            settings.fault("Destination", e);
            None
        }
        None => {
            if !settings.has("Destination") {
                settings.fault("Destination", "is missing; name a folder as s3://share/folder/");
            }
            None
        }
    }
}

fn read_output(output: &Reader, kind: &GroupKind, selectors: &[String]) -> Option<Output> {
    let modifier = output.text("NameModifier").unwrap_or_default();
    if modifier.contains(['/', '\0', '$']) || modifier.len() > 200 {
        output.fault("NameModifier", "must be up to 200 characters without '/', '$' and NUL");
    }
    let extension = output.text("Extension").map(|e| e.trim_start_matches('.').to_owned());
    if extension.as_ref().is_some_and(|e| e.is_empty() || !e.chars().all(|c| c.is_ascii_alphanumeric())) {
        output.fault("Extension", "must be letters and digits");
    }
    if output.has("Preset") {
        output.get("Preset");
        output.fault("Preset", "presets are not kept here; write the settings into the output");
    }
    let container = read_container(output, kind);
    let video = output.object("VideoDescription").as_ref().and_then(video::read);
    let capture = matches!(video.as_ref().map(|v| &v.code), Some(VideoCode::Capture(_)));
    let audio: Vec<AudioSpec> =
        output.list("AudioDescriptions").iter().filter_map(|a| read_audio(a, selectors)).collect();
    if audio.len() > 1 {
        output.fault("AudioDescriptions", "more than one sound track in an output is not supported");
    }
    if !output.has("VideoDescription") && !output.has("AudioDescriptions") {
        output.fault("VideoDescription", "an output needs a VideoDescription or AudioDescriptions");
    }
    if let Some(hls) = output.object("OutputSettings").and_then(|o| o.object("HlsSettings")) {
        hls.only("IFrameOnlyManifest", &["EXCLUDE"]);
        hls.only("AudioOnlyContainer", &["AUTOMATIC", "M2TS"]);
        if let Some(m) = hls.text("SegmentModifier").filter(|m| !m.is_empty()) {
            hls.fault("SegmentModifier", format!("only an empty one is supported, is '{m}'"));
        }
    }
    match (container?, capture) {
        (Container::Raw, false) if video.is_some() => {
            output.fault("ContainerSettings/Container", "RAW is for FRAME_CAPTURE only; use MP4 or M3U8");
            None
        }
        (Container::Mp4 | Container::Mov | Container::Hls, true) => {
            output.fault("ContainerSettings/Container", "FRAME_CAPTURE needs the container RAW");
            None
        }
        (container, _) => Some(Output {
            pointer: output.pointer.clone(),
            modifier: modifier.to_owned(),
            extension,
            container,
            video,
            audio: audio.into_iter().next(),
        }),
    }
}

fn read_container(output: &Reader, kind: &GroupKind) -> Option<Container> {
    let table: &[(&str, Container)] = match kind {
        GroupKind::File => &[("MP4", Container::Mp4), ("MOV", Container::Mov), ("RAW", Container::Raw)],
        GroupKind::Hls { .. } => &[("M3U8", Container::Hls)],
    };
    let settings = output.require_object("ContainerSettings")?;
    if let Some(mp4) = settings.object("Mp4Settings") {
        mp4.only("CslgAtom", &["INCLUDE", "EXCLUDE"]);
        mp4.only("FreeSpaceBox", &["EXCLUDE"]);
        mp4.only("MoovPlacement", &["PROGRESSIVE_DOWNLOAD"]);
    }
    if let Some(m3u8) = settings.object("M3u8Settings") {
        m3u8.only("Scte35Source", &["NONE"]);
        m3u8.only("TimedMetadata", &["NONE"]);
        m3u8.only("NielsenId3", &["NONE"]);
        m3u8.only("PcrControl", &["PCR_EVERY_PES_PACKET", "CONFIGURED_PCR_PERIOD"]);
    }
    let container = settings.choose("Container", table);
    if !settings.has("Container") {
        settings.fault("Container", "is missing");
    }
    container
}

fn read_audio(audio: &Reader, selectors: &[String]) -> Option<AudioSpec> {
    let source = audio.text("AudioSourceName").map(str::to_owned);
    if let Some(name) = source.as_ref().filter(|n| !selectors.contains(n)) {
        audio.fault("AudioSourceName", format!("there is no AudioSelector named '{name}'"));
    }
    audio.only("AudioTypeControl", &["FOLLOW_INPUT", "USE_CONFIGURED"]);
    audio.only("LanguageCodeControl", &["FOLLOW_INPUT"]);
    let codec = audio.require_object("CodecSettings")?;
    codec.only("Codec", &["AAC"]);
    if !codec.has("Codec") {
        codec.fault("Codec", "is missing");
    }
    let aac = codec.object("AacSettings");
    let code = match &aac {
        Some(aac) => video::read_aac(aac),
        None => AudioCode { bitrate: 128_000, channels: 2, rate: 48_000 },
    };
    Some(AudioSpec { source, code })
}
