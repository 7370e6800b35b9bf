//! What GStreamer offers of the leased GPU: which elements decode, scale and encode there, and whose fault it is when
//! they fail.
//!
//! The child sees one GPU (CUDA_VISIBLE_DEVICES), so nvcodec's elements without a number in their names are that GPU's.
//! They are never chosen by rank: [`hide`] takes their ranks, so that opening and probing a file is the same on every
//! box, and a graph names the elements that it means.
//!
//! No file is blamed for what a GPU made of it: whatever fails while one is used is a `Device.*` error, unless it is a
//! disk's or a share's problem. What that means for the lane stands in `run::lanes::health`.

use std::sync::mpsc;
use std::time::Duration;

use conveyor_base::TaskError;
use conveyor_hw::{Drivers, FaultKind};
use conveyor_job::Device;
use gstreamer as gst;
use gstreamer::prelude::*;

/// A driver that answers no more is not waited for.
const DRIVER_MAX: Duration = Duration::from_secs(10);
const PACKAGE: &str = "GStreamer's nvcodec plug-in is part of gstreamer1.0-plugins-bad, and needs NVIDIA's driver with \
                       libnvcuvid.so.1 and libnvidia-encode.so.1 (in a container: NVIDIA_DRIVER_CAPABILITIES=all)";

/// Coded pictures, the parser that goes before the decoder, and the decoder.
const DECODERS: &[(&str, &str, &str)] = &[
    ("video/x-h264", "h264parse", "nvh264dec"),
    ("video/x-h265", "h265parse", "nvh265dec"),
    ("video/x-av1", "av1parse", "nvav1dec"),
    ("video/x-vp9", "vp9parse", "nvvp9dec"),
    ("video/mpeg", "mpegvideoparse", "nvmpeg2videodec"),
];
/// The first one that this GPU has is taken: the older element is the one that most boxes have run.
const H264_ENCODERS: &[&str] = &["nvh264enc", "nvcudah264enc"];
/// The newer one converts as well, which costs nothing where there is nothing to convert.
const SCALERS: &[&str] = &["cudaconvertscale", "cudascale"];

/// The leased engines, as GStreamer has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engines {
    pub device: Device,
    /// The element that encodes H.264, where the encoder was leased.
    pub h264: Option<&'static str>,
    /// The element that scales pictures in the GPU's memory. It needs NVRTC, which is no part of the driver.
    pub scaler: Option<&'static str>,
}

/// A decoder on the GPU with the parser before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoder {
    pub coded: &'static str,
    pub parser: &'static str,
    pub element: &'static str,
}

/// Takes the ranks of nvcodec's decoders.
pub fn hide() {
    for feature in gst::Registry::get().features_by_plugin("nvcodec") {
        feature.set_rank(gst::Rank::NONE);
    }
}

impl Engines {
    /// Of a device that was leased; an error where GStreamer cannot use what was.
    pub fn of(device: &Device) -> Result<Engines, TaskError> {
        let first = |names: &[&'static str], takes: &gst::Caps| {
            names.iter().copied().find(|name| sink_caps(name).is_some_and(|caps| caps.can_intersect(takes)))
        };
        let pictures = |features: Option<&str>| {
            let caps = gst::Caps::builder("video/x-raw").field("format", "NV12").field("interlace-mode", "progressive");
            match features {
                Some(features) => caps.features([features]).build(),
                None => caps.build(),
            }
        };
        let h264 = first(H264_ENCODERS, &pictures(None));
        if device.encode && h264.is_none() {
            return Err(unusable(device, "no H.264 encoder"));
        }
        let decoders = DECODERS.iter().any(|(_, _, element)| sink_caps(element).is_some());
        if device.decode && !(decoders && sink_caps("cudadownload").is_some()) {
            return Err(unusable(device, "no decoder"));
        }
        Ok(Engines {
            h264: h264.filter(|_| device.encode),
            scaler: first(SCALERS, &pictures(Some("memory:CUDAMemory"))),
            device: device.clone(),
        })
    }

    /// The decoder for pictures coded like this, if the decoder was leased and takes them.
    pub fn decoder(&self, coded: &gst::Caps) -> Option<Decoder> {
        if !self.device.decode {
            return None;
        }
        let name = coded.structure(0)?.name();
        let (coded_as, parser, element) = DECODERS.iter().copied().find(|(caps, ..)| name == caps)?;
        if name == "video/mpeg" && coded.structure(0)?.get::<i32>("mpegversion") != Ok(2) {
            return None;
        }
        // How the stream is cut into buffers is the parser's to change; profile, size and depth are not.
        let takes = plain(&sink_caps(element)?);
        takes.can_intersect(&plain(coded)).then_some(Decoder { coded: coded_as, parser, element })
    }

    /// Whether the encoder takes pictures of this size and makes this profile.
    pub fn encodes(&self, (width, height): (u32, u32), profile: &str) -> Result<&'static str, TaskError> {
        let element = self.h264.ok_or_else(|| unusable(&self.device, "no H.264 encoder"))?;
        let size =
            gst::Caps::builder("video/x-raw").field("width", width as i32).field("height", height as i32).build();
        if !sink_caps(element).is_some_and(|caps| caps.can_intersect(&size)) {
            return Err(self.unsupported(format!("its encoder makes no pictures of {width}x{height}")));
        }
        if !pad_caps(element, gst::PadDirection::Src).is_some_and(|caps| caps.can_intersect(&coded_h264(profile))) {
            return Err(self.unsupported(format!("its encoder makes no H.264 of profile {profile}")));
        }
        Ok(element)
    }

    fn unsupported(&self, what: String) -> TaskError {
        TaskError::new("Device.Unsupported", format!("{} does not do this: {what}", self.device.name))
    }
}

/// H.264 of a profile, in the names that encoders have for it.
pub fn coded_h264(profile: &str) -> gst::Caps {
    let profiles = match profile {
        "baseline" => gst::List::new(["constrained-baseline", "baseline"]),
        other => gst::List::new([other]),
    };
    gst::Caps::builder("video/x-h264").field("profile", profiles).build()
}

/// Whether an encoder takes pictures in three planes from main memory.
pub fn takes_planar(element: &str) -> bool {
    let planar = gst::Caps::builder("video/x-raw").field("format", "I420").build();
    sink_caps(element).is_some_and(|caps| caps.can_intersect(&planar))
}

fn sink_caps(element: &str) -> Option<gst::Caps> {
    pad_caps(element, gst::PadDirection::Sink)
}

fn pad_caps(element: &str, direction: gst::PadDirection) -> Option<gst::Caps> {
    // Loaded, because what stands in the registry may be of another driver.
    let factory = gst::ElementFactory::find(element)?.load().ok()?.downcast::<gst::ElementFactory>().ok()?;
    let template = factory.static_pad_templates().into_iter().find(|template| template.direction() == direction)?;
    Some(template.caps())
}

/// Caps without how the stream is cut, and without what only describes it.
fn plain(caps: &gst::Caps) -> gst::Caps {
    const DECIDE: [&str; 5] = ["profile", "width", "height", "mpegversion", "bit-depth-luma"];
    let mut plain = gst::Caps::new_empty();
    for structure in caps.iter() {
        let mut kept = gst::Structure::new_empty(structure.name());
        for field in DECIDE {
            if let Ok(value) = structure.value(field) {
                kept.set_value(field, value.clone());
            }
        }
        if let Some(plain) = plain.get_mut() {
            plain.append_structure(kept);
        }
    }
    plain
}

fn unusable(device: &Device, what: &str) -> TaskError {
    TaskError::new("Device.Unusable", format!("GStreamer offers {what} on {}. {PACKAGE}", device.name))
}

/// What ended a stage that used a GPU, as a workflow and the lanes may see it.
pub fn blame(device: &Device, error: TaskError) -> TaskError {
    const NOT_THE_GPU: &[&str] = &[
        "Media.DiskFull",
        "Media.WorkDir",
        "Media.Vanished",
        "Media.Unreadable",
        "Media.Unwritable",
        "Media.ShareUnreachable",
        "Media.UnsupportedSetting",
        "Media.InvalidParameter",
        "Media.Empty",
        "Media.NoVideo",
        "Media.NoAudioTrack",
        // Has its own way elsewhere.
        "Media.Stalled",
    ];
    if NOT_THE_GPU.contains(&error.error.as_str()) {
        return error;
    }
    let words = format!("{error}");
    let because = |name: &str, why: &str| TaskError::new(name, format!("{}: {why} ({words})", device.name));
    match asked(device) {
        Some((name, why)) => because(name, &why),
        None if error.error == "Device.Failed" => match of_words(&error.cause) {
            Some(name) => because(name, "by the driver's words"),
            None => error,
        },
        None if matches!(error.error.as_str(), "Device.Unsupported" | "Device.Unusable") => error,
        None => because("Device.Unsupported", "it could not carry this out, and cores may"),
    }
}

/// What the driver says of the device now: nothing, where it finds no fault.
fn asked(device: &Device) -> Option<(&'static str, String)> {
    let (answer, waits) = mpsc::channel();
    let device = device.clone();
    std::thread::spawn(move || {
        // Who asked may have given up.
        let _ = answer.send(ask(&device));
    });
    let silent = || Some(("Device.Lost", format!("the driver did not answer within {} s", DRIVER_MAX.as_secs())));
    waits.recv_timeout(DRIVER_MAX).unwrap_or_else(|_| silent())
}

fn ask(device: &Device) -> Option<(&'static str, String)> {
    let drivers = Drivers::open();
    let fault = |fault: &conveyor_hw::Fault| {
        let name = match fault.kind() {
            FaultKind::DeviceLost | FaultKind::Driver => "Device.Lost",
            FaultKind::Exhausted => "Device.OutOfMemory",
            FaultKind::Unsupported | FaultKind::Busy | FaultKind::Other => "Device.Failed",
        };
        Some((name, fault.to_string()))
    };
    if let Some(why) = drivers.health(&device.uuid).why()
        && why.contains("lost") | why.contains("fell off")
    {
        return Some(("Device.Lost", why.to_owned()));
    }
    let cuda = match &drivers.cuda {
        Ok(cuda) => cuda,
        Err(error) => return fault(error),
    };
    // It is the only one that this process sees.
    let context = cuda.devices().and_then(|devices| match devices.into_iter().next() {
        Some(found) => found?.context(),
        None => Err(conveyor_hw::Fault::Misuse("CUDA shows no device any more".into())),
    });
    let context = match context {
        Ok(context) => context,
        Err(conveyor_hw::Fault::Misuse(why)) => return Some(("Device.Lost", why)),
        Err(error) => return fault(&error),
    };
    let Ok(nvenc) = drivers.nvenc.as_ref().map_err(drop) else { return None };
    match device.encode.then(|| nvenc.encoder(&context)) {
        Some(Err(error)) if error.kind() == FaultKind::Exhausted => Some(("Device.OutOfSessions", error.to_string())),
        Some(Err(error)) => fault(&error),
        _ => None,
    }
}

/// What an element's words mean where the driver finds no fault any more.
fn of_words(cause: &str) -> Option<&'static str> {
    let cause = cause.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| cause.contains(word));
    if says(&["out_of_memory", "out of memory"]) {
        return Some("Device.OutOfMemory");
    }
    if says(&["session", "client key"]) {
        return Some("Device.OutOfSessions");
    }
    if says(&["device_not_exist", "device not exist", "cuda_error_unknown", "unknown error", "ecc", "launch failed"]) {
        return Some("Device.Lost");
    }
    says(&["not supported", "unsupported", "not-negotiated"]).then_some("Device.Unsupported")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_driver_are_told_apart() {
        for (words, name) in [
            ("Failed to open encode session", Some("Device.OutOfSessions")),
            ("CUDA_ERROR_OUT_OF_MEMORY", Some("Device.OutOfMemory")),
            ("cuMapFrame: unknown error", Some("Device.Lost")),
            ("Selected preset not supported", Some("Device.Unsupported")),
            ("something else", None),
        ] {
            assert_eq!(of_words(words), name, "{words}");
        }
    }
}
