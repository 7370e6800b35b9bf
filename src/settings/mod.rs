//! Job settings in the names and the structure of AWS Elemental MediaConvert's `CreateJob` request.
//!
//! [`parse`] turns a request into [`Settings`], in which every value is one that this box carries out. What it
//! does not support it refuses, all faults at once, each with its JSON pointer; it never ignores a setting.
//!
//! Must never: open a file, or know what encoders the box has (the media stage and the lanes do). Holds: no request panics; a
//! request that is taken is carried out as it says.

mod acceleration;
mod group;
mod reader;
mod video;

use conveyor_base::{TaskError, Uri};
use conveyor_job::Acceleration;
use serde_json::Value;

use reader::{Faults, Reader};

pub use group::{Container, Group, GroupKind, Output};
pub use video::{AudioCode, Capture, Deinterlace, GopSize, H264, Rate, RateControl, Scaling, VideoCode, VideoSpec};

/// A whole job.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where it differs from what the box is set to.
    pub acceleration: Option<Acceleration>,
    pub input: InputSpec,
    pub groups: Vec<Group>,
}

/// Which file, and which of its streams.
#[derive(Clone, Debug, PartialEq)]
pub struct InputSpec {
    pub file: String,
    pub audio_selectors: Vec<AudioSelector>,
    /// Turn the picture as the file's metadata says (AUTO), or by these clockwise degrees.
    pub rotate: Option<u16>,
}

/// A named choice of one audio track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioSelector {
    pub name: String,
    /// Counted from 1; none for the default track.
    pub track: Option<usize>,
    pub language: Option<String>,
}

/// Reads a `CreateJob` request.
pub fn parse(request: &Value) -> Result<Settings, TaskError> {
    let faults = Faults::default();
    let settings = {
        let top = Reader::new(request, "", &faults);
        // Bookkeeping of the cloud: accounts, queues and billing mean nothing on a box.
        top.accept(&[
            "Role",
            "Queue",
            "UserMetadata",
            "StatusUpdateInterval",
            "Tags",
            "ClientRequestToken",
            "BillingTagsSource",
            "HopDestinations",
            "SimulateReservedQueue",
            "JobEngineVersion",
        ]);
        refuse_template(&top);
        if let Some(priority) = top.get("Priority")
            && !priority.as_i64().is_some_and(|n| (-50..=50).contains(&n))
        {
            top.fault("Priority", format!("must be a whole number from -50 to 50, is {priority}"));
        }
        let acceleration = acceleration::read(&top);
        let settings = top.require_object("Settings");
        settings.as_ref().and_then(|settings| read_settings(settings, acceleration))
    };
    let list = faults.into_list();
    match settings {
        Some(settings) if list.is_empty() => Ok(settings),
        _ => Err(TaskError::new(
            "Media.UnsupportedSetting",
            format!("{} fault(s) in the job: {}", list.len(), list.join("; ")),
        )),
    }
}

fn refuse_template(top: &Reader) {
    if top.get("JobTemplate").is_some() {
        top.fault("JobTemplate", "job templates are not kept here; write the settings into the job");
    }
}

fn read_settings(settings: &Reader, acceleration: Option<Acceleration>) -> Option<Settings> {
    settings.accept(&["AdAvailOffset", "FollowSource"]);
    if let Some(timecode) = settings.object("TimecodeConfig") {
        timecode.only("Source", &["EMBEDDED", "ZEROBASED"]);
        timecode.accept(&["Anchor"]);
    }
    let inputs = settings.list("Inputs");
    if inputs.len() != 1 {
        settings.fault(
            "Inputs",
            format!("must hold exactly one input (joining several is not supported), holds {}", inputs.len()),
        );
    }
    let input = inputs.first().and_then(read_input);
    let selectors: Vec<String> = input.iter().flat_map(|i| &i.audio_selectors).map(|s| s.name.clone()).collect();
    let groups: Vec<Group> = settings.list("OutputGroups").iter().filter_map(|g| group::read(g, &selectors)).collect();
    if !settings.has("OutputGroups") {
        settings.fault("OutputGroups", "is missing; a job needs at least one output group");
    }
    Some(Settings { acceleration, input: input?, groups })
}

fn read_input(input: &Reader) -> Option<InputSpec> {
    let file = input.text("FileInput");
    match file.map(str::parse::<Uri>) {
        None if !input.has("FileInput") => input.fault("FileInput", "is missing; name the file as s3://share/key"),
        Some(Err(e)) => input.fault("FileInput", e),
        _ => {}
    }
    input.only("TimecodeSource", &["EMBEDDED", "ZEROBASED"]);
    input.only("FilterEnable", &["AUTO", "DISABLE"]);
    input.only("PsiControl", &["USE_PSI", "IGNORE_PSI"]);
    input.only("DeblockFilter", &["DISABLED"]);
    input.only("DenoiseFilter", &["DISABLED"]);
    input.only("InputScanType", &["AUTO"]);
    if input.has("FilterStrength") {
        input.number("FilterStrength", 0, 0);
    }
    let mut rotate = None;
    if let Some(video) = input.object("VideoSelector") {
        video.only("ColorSpace", &["FOLLOW"]);
        video.only("ColorSpaceUsage", &["FORCE", "FALLBACK"]);
        video.only("AlphaBehavior", &["DISCARD"]);
        video.only("EmbeddedTimecodeOverride", &["NONE"]);
        rotate = video.choice(
            "Rotate",
            &[
                ("AUTO", None),
                ("DEGREE_0", Some(0)),
                ("DEGREES_90", Some(90)),
                ("DEGREES_180", Some(180)),
                ("DEGREES_270", Some(270)),
            ],
            None,
        );
    }
    let audio_selectors =
        input.entries("AudioSelectors").iter().filter_map(|(name, reader)| read_selector(name, reader)).collect();
    Some(InputSpec { file: file?.to_owned(), audio_selectors, rotate })
}

fn read_selector(name: &str, selector: &Reader) -> Option<AudioSelector> {
    selector.only("DefaultSelection", &["DEFAULT", "NOT_DEFAULT"]);
    selector.only("SelectorType", &["TRACK", "LANGUAGE_CODE"]);
    if selector.has("Offset") {
        selector.number("Offset", 0, 0);
    }
    let language =
        selector.text("CustomLanguageCode").or_else(|| selector.text("LanguageCode")).map(str::to_ascii_lowercase);
    let mut track = None;
    if let Some(tracks) = selector.get("Tracks") {
        match tracks.as_array().map(Vec::as_slice) {
            Some([one]) if one.as_u64().is_some_and(|n| n > 0) => track = one.as_u64().map(|n| n as usize),
            Some([]) => {}
            _ => selector.fault("Tracks", format!("must hold one track number, counted from 1, is {tracks}")),
        }
    }
    Some(AudioSelector { name: name.to_owned(), track, language })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn job() -> Value {
        json!({
            "Role": "arn:x", "UserMetadata": {"a": "b"},
            "Settings": {
                "Inputs": [{"FileInput": "s3://in/a.mp4", "AudioSelectors": {"Audio Selector 1": {"Tracks": [1], "DefaultSelection": "DEFAULT"}},
                    "VideoSelector": {"ColorSpace": "FOLLOW"}, "TimecodeSource": "EMBEDDED"}],
                "OutputGroups": [{
                    "Name": "MP4",
                    "OutputGroupSettings": {"Type": "FILE_GROUP_SETTINGS", "FileGroupSettings": {"Destination": "s3://out/mp4/"}},
                    "Outputs": [{"NameModifier": "_1080p", "ContainerSettings": {"Container": "MP4"},
                        "VideoDescription": {"Width": 1920, "Height": 1080, "CodecSettings": {"Codec": "H_264",
                            "H264Settings": {"RateControlMode": "QVBR", "QvbrSettings": {"QvbrQualityLevel": 8}, "MaxBitrate": 5000000}}},
                        "AudioDescriptions": [{"CodecSettings": {"Codec": "AAC", "AacSettings":
                            {"Bitrate": 128000, "CodingMode": "CODING_MODE_2_0", "SampleRate": 48000}}}]}]
                }]
            }
        })
    }

    #[test]
    fn the_recipes_shape_is_understood() {
        let settings = parse(&job()).unwrap();
        assert_eq!(settings.groups[0].outputs[0].video.as_ref().unwrap().width, Some(1920));
    }

    #[test]
    fn what_is_not_supported_is_refused_with_all_places() {
        let mut job = job();
        job["Settings"]["OutputGroups"][0]["Outputs"][0]["VideoDescription"]["CodecSettings"]["Codec"] = json!("AV1");
        job["Settings"]["OutputGroups"][0]["Outputs"][0]["CaptionDescriptions"] = json!([{}]);
        job["Settings"]["Inputs"][0]["InputClippings"] = json!([{"StartTimecode": "00:00:01:00"}]);
        job["Settings"]["OutputGroups"][0]["OutputGroupSettings"]["FileGroupSettings"]["Destination"] = json!("/tmp/x");
        let error = parse(&job).unwrap_err();
        assert_eq!(error.error, "Media.UnsupportedSetting");
        for place in [
            "/Settings/OutputGroups/0/Outputs/0/VideoDescription/CodecSettings/Codec:",
            "/Settings/OutputGroups/0/Outputs/0/CaptionDescriptions:",
            "/Settings/Inputs/0/InputClippings:",
            "/Settings/OutputGroups/0/OutputGroupSettings/FileGroupSettings/Destination:",
        ] {
            assert!(error.cause.contains(place), "{place} not in {}", error.cause);
        }
    }
}
