//! Running a GStreamer pipeline so that it always ends: in success, in an error with a name, or in a stall.
//!
//! Invariant: nothing here waits without a bound. Every element of the pipeline is shut down when the
//! [`Pipeline`] is dropped, whichever way its use ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use conveyor_base::TaskError;
use gstreamer as gst;
use gstreamer::prelude::*;

use super::bounds;
use super::input::Input;

/// How long a pipeline may move no buffer at all before it counts as stalled.
pub const STALL_SECONDS_MAX: u64 = 30;
/// How often a running pipeline is looked at.
const LOOK_INTERVAL_MS: u64 = 200;

/// Counts anything that moves; whoever moves a buffer beats it.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Beats for each buffer that passes this pad.
    pub fn watch(&self, pad: &gst::Pad) {
        let pulse = self.clone();
        pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |_, _| {
            pulse.beat();
            gst::PadProbeReturn::Ok
        });
    }
}

/// A pipeline that stops when it is dropped.
pub struct Pipeline {
    pub gst: gst::Pipeline,
    pub pulse: Pulse,
    bus: gst::Bus,
}

/// What ended a wait.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// The pipeline reached the state it was asked for.
    Prerolled,
    EndOfStream,
    /// What the caller waited for did not come within its time; the pipeline is not broken.
    TimedOut,
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let _ = self.gst.set_state(gst::State::Null);
    }
}

impl Pipeline {
    pub fn new() -> Result<Pipeline, TaskError> {
        let gst = gst::Pipeline::new();
        let bus = gst.bus().ok_or_else(|| bug("a pipeline without a bus"))?;
        Ok(Pipeline { gst, pulse: Pulse::default(), bus })
    }

    /// A new element in this pipeline.
    pub fn add(&self, factory: &str) -> Result<gst::Element, TaskError> {
        let element = make(factory)?;
        self.gst.add(&element).map_err(|e| bug(&format!("{factory} cannot be added: {e}")))?;
        Ok(element)
    }

    /// Its elements by name, each with the properties that differ from their defaults, in the order in which they came.
    pub fn outline(&self) -> Vec<String> {
        let elements: Vec<gst::Element> = self.gst.iterate_elements().into_iter().flatten().collect();
        let told = |element: &gst::Element, spec: &gst::glib::ParamSpec| {
            let wanted = spec.flags().contains(gst::glib::ParamFlags::READWRITE);
            if !wanted || matches!(spec.name(), "name" | "parent") {
                return None;
            }
            let text = element.property_value(spec.name()).serialize().ok()?;
            let default = spec.default_value().serialize().ok();
            (default.as_ref() != Some(&text)).then(|| format!(" {}={text}", spec.name()))
        };
        let describe = |element: &gst::Element| {
            let factory = element.factory().map(|factory| factory.name().to_string()).unwrap_or_default();
            let properties = element.list_properties();
            let properties: String = properties.iter().filter_map(|spec| told(element, spec)).collect();
            factory + &properties
        };
        elements.iter().rev().map(describe).collect()
    }

    /// Asks for a state; a refusal is turned into the error that lies on the bus.
    pub fn set(&self, state: gst::State, input: &Input) -> Result<(), TaskError> {
        if self.gst.set_state(state).is_ok() {
            return Ok(());
        }
        match self.bus.timed_pop_filtered(gst::ClockTime::from_seconds(1), &[gst::MessageType::Error]) {
            Some(message) => Err(error_of(&message, input)),
            None => Err(input.error("Media.Failed", format!("cannot be brought to {state:?} by GStreamer"))),
        }
    }

    /// Waits for preroll, for the end of the stream, or for `at_most`; a pipeline in which nothing moves for
    /// [`STALL_SECONDS_MAX`] is an error. `each` is called about five times a second and may end the wait by an error.
    pub fn wait(
        &self,
        input: &Input,
        until_preroll: bool,
        at_most: Option<Duration>,
        mut each: impl FnMut(&mut dyn Iterator<Item = gst::Message>) -> Result<(), TaskError>,
    ) -> Result<Ended, TaskError> {
        let start = Instant::now();
        let (mut last, mut moved_at) = (self.pulse.count(), Instant::now());
        loop {
            let mut others = Vec::new();
            let first = self.bus.timed_pop(gst::ClockTime::from_mseconds(LOOK_INTERVAL_MS));
            let mut ended = None;
            for message in first.into_iter().chain(std::iter::from_fn(|| self.bus.pop())) {
                match message.view() {
                    gst::MessageView::Error(_) => return Err(error_of(&message, input)),
                    gst::MessageView::Eos(_) if !until_preroll => ended = Some(Ended::EndOfStream),
                    gst::MessageView::AsyncDone(_) if until_preroll => ended = Some(Ended::Prerolled),
                    _ => others.push(message),
                }
            }
            each(&mut others.into_iter())?;
            if let Some(ended) = ended {
                return Ok(ended);
            }
            let now = self.pulse.count();
            if now != last {
                (last, moved_at) = (now, Instant::now());
            }
            if at_most.is_some_and(|limit| start.elapsed() >= limit) {
                return Ok(Ended::TimedOut);
            }
            if moved_at.elapsed().as_secs() >= STALL_SECONDS_MAX {
                return Err(input.error(
                    "Media.Stalled",
                    format!(
                        "made no progress for {STALL_SECONDS_MAX} s; its share may hang, or the file is damaged in a way that stops the decoder"
                    ),
                ));
            }
        }
    }
}

/// A new element, or an error that says which plugin is missing.
pub fn make(factory: &str) -> Result<gst::Element, TaskError> {
    gst::ElementFactory::make(factory).build().map_err(|_| {
        TaskError::new(
            "Media.MissingElement",
            format!("GStreamer's element '{factory}' is not installed; install the plugin packages (base, good, bad, ugly, libav)"),
        )
    })
}

/// An element that is there by construction is not: ours to repair.
pub fn bug(what: &str) -> TaskError {
    TaskError::new("Media.Failed", format!("{what}; this is a fault of the appliance, please report it"))
}

/// Links a chain of elements.
pub fn link(chain: &[&gst::Element]) -> Result<(), TaskError> {
    for pair in chain.windows(2) {
        pair[0].link(pair[1]).map_err(|_| bug(&format!("{} does not link to {}", pair[0].name(), pair[1].name())))?;
    }
    Ok(())
}

/// An error message of the bus as an error that a workflow can match and a person can read.
pub fn error_of(message: &gst::Message, input: &Input) -> TaskError {
    let gst::MessageView::Error(message) = message.view() else { return bug("no error message") };
    if let Some(exceeded) = bounds::exceeded(message, input) {
        return exceeded;
    }
    let (error, debug) = (message.error(), message.debug().unwrap_or_default());
    let detail = format!("{error} ({})", debug.lines().last().unwrap_or_default().trim());
    let factory = message.src().and_then(|from| from.downcast_ref::<gst::Element>()?.factory());
    if let Some(element) = factory.map(|f| f.name()).filter(|name| name.starts_with("nv") || name.starts_with("cuda")) {
        return TaskError::new("Device.Failed", format!("{element} failed while working on '{}': {detail}", input.uri));
    }
    if let Some(kind) = error.kind::<gst::ResourceError>() {
        use gst::ResourceError::{NoSpaceLeft, NotFound, OpenRead, Read};
        // Muxers report their temporary files' problems as ones of writing, with the system's words behind it.
        let full = nix::errno::Errno::ENOSPC.desc();
        if kind == NoSpaceLeft || detail.contains(full) {
            return TaskError::new(
                "Media.DiskFull",
                format!("the disk is full while working on '{}'; free some space. {detail}", input.uri),
            );
        }
        return match kind {
            NotFound => input.error("Media.Vanished", format!("is not there any more; drop it again. {detail}")),
            OpenRead | Read => {
                input.error("Media.Unreadable", format!("cannot be read; check the share and its network. {detail}"))
            }
            _ => input.error("Media.Failed", format!("could not be processed: {detail}")),
        };
    }
    match error.kind::<gst::StreamError>() {
        Some(gst::StreamError::TypeNotFound | gst::StreamError::WrongType) => input.error(
            "Media.NotMedia",
            format!("is in no format that is known here; convert it, or check what was exported. {detail}"),
        ),
        Some(gst::StreamError::CodecNotFound) => {
            input.error("Media.UnsupportedCodec", format!("uses a codec for which no decoder is installed. {detail}"))
        }
        Some(gst::StreamError::Decrypt | gst::StreamError::DecryptNokey) => {
            input.error("Media.Encrypted", format!("is encrypted; export it without protection. {detail}"))
        }
        Some(gst::StreamError::Demux | gst::StreamError::Decode) => input.error(
            "Media.Corrupt",
            format!("is damaged and cannot be decoded; copy it again from where it was made. {detail}"),
        ),
        _ => input.error("Media.Failed", format!("could not be processed: {detail}")),
    }
}
