//! A configured session: pictures from device memory go in, packets come out.
//!
//! ```text
//!   frame ─register once─> map ─encode─> in flight ─(released)─lock─> sink ─unlock─> output free, frame unmapped
//!                                          │ NEED_MORE_INPUT: held back until a later picture releases it
//! ```
//!
//! Invariants: a frame that is registered is kept alive; outputs are locked in the order in which they were given; what
//! NVENC holds is given back in the order it asks for (outputs and inputs, then the session, then the context), on a
//! lost device too.

use std::collections::{HashMap, VecDeque};
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr::{self, addr_of, addr_of_mut};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use nvidia_video_codec_sdk::sys::nvEncodeAPI as sys;

use super::library::Encoder;
use super::settings::SessionSettings;
use crate::cuda::{Frame, PixelFormat};
use crate::fault::{Fault, FaultKind, NvencStatus};

/// Finished pictures that stay with the encoder, so that it works while the last ones are fetched.
const PIPELINE: usize = 3;

const BUSY_WAIT: Duration = Duration::from_millis(1);
const BUSY_WAITS_MAX: u64 = 5_000;

/// What is said of one picture.
#[derive(Clone, Copy, Debug, Default)]
pub struct Picture {
    /// Comes back with the packet.
    pub timestamp: u64,
    pub force_keyframe: bool,
}

/// One coded picture. The bytes lie in the encoder's memory and are gone when the closure returns.
#[derive(Debug)]
pub struct Packet<'a> {
    pub bytes: &'a [u8],
    pub timestamp: u64,
    /// Whether a decoder may begin here.
    pub keyframe: bool,
}

pub struct Session {
    // Destroyed after this structure's own Drop has given everything back.
    encoder: Encoder,
    settings: SessionSettings,
    outputs_free: Vec<*mut c_void>,
    in_flight: VecDeque<InFlight>,
    /// Of the pictures in flight so many, the oldest, are with NVENC for good: their outputs may be locked.
    released: usize,
    /// By address in the device's memory.
    inputs: HashMap<u64, Input>,
    pictures: u32,
    drained: bool,
    /// After this the device answers no more.
    lost: Option<Fault>,
}

// SAFETY: the pointers are names that NVENC gave, and are used under `&mut self` only.
unsafe impl Send for Session {}

struct InFlight {
    output: *mut c_void,
    input: u64,
}

struct Input {
    /// Keeps the memory while NVENC knows its address.
    frame: Arc<Frame>,
    registered: *mut c_void,
    mapped: *mut c_void,
    /// Pictures in flight that read it.
    readers: usize,
}

impl Encoder {
    /// Configures the session. What this encoder cannot do is refused in the words of the settings.
    pub fn configure(self, settings: SessionSettings) -> Result<Session, Fault> {
        settings.check(&self)?;
        {
            let _entered = self.context.enter()?;
            let mut config = settings.config(&self)?;
            // SAFETY: the configuration is whole; NVENC copies it during the call, which `config` outlives.
            let mut parameters = settings.parameters(unsafe { addr_of_mut!((*config.as_mut_ptr()).presetCfg) });
            // SAFETY: the session is open and not yet configured, since this takes it by value.
            let status = unsafe { (self.functions().initialize)(self.raw, &mut parameters) };
            self.check("NvEncInitializeEncoder", status)?;
        }
        Ok(Session {
            encoder: self,
            settings,
            outputs_free: Vec::new(),
            in_flight: VecDeque::new(),
            released: 0,
            inputs: HashMap::new(),
            pictures: 0,
            drained: false,
            lost: None,
        })
    }
}

impl Session {
    /// Gives the encoder one picture; finished packets, of this one or of earlier ones, go to `sink`.
    ///
    /// The frame is only read, and is kept until the session has no more use for it.
    pub fn encode(
        &mut self,
        frame: &Arc<Frame>,
        picture: Picture,
        sink: &mut dyn FnMut(Packet<'_>),
    ) -> Result<(), Fault> {
        self.may_go_on()?;
        self.check_frame(frame)?;
        let result = self.submit(frame, picture).and_then(|()| self.collect(PIPELINE, sink));
        self.remember(result)
    }

    /// Ends the stream: all that is left goes to `sink`. Nothing can be encoded after this.
    pub fn drain(&mut self, sink: &mut dyn FnMut(Packet<'_>)) -> Result<(), Fault> {
        self.may_go_on()?;
        let result = self.end_of_stream().and_then(|()| self.collect(0, sink));
        self.remember(result)
    }

    pub fn settings(&self) -> &SessionSettings {
        &self.settings
    }

    fn may_go_on(&self) -> Result<(), Fault> {
        if let Some(fault) = &self.lost {
            return Err(fault.clone());
        }
        if self.drained {
            return Err(Fault::Misuse("the session was drained; open another one".to_owned()));
        }
        Ok(())
    }

    fn remember(&mut self, result: Result<(), Fault>) -> Result<(), Fault> {
        if let Err(fault) = &result
            && fault.kind() == FaultKind::DeviceLost
        {
            self.lost = Some(fault.clone());
        }
        result
    }

    fn check_frame(&self, frame: &Arc<Frame>) -> Result<(), Fault> {
        let settings = &self.settings;
        if !frame.lies_in(&self.encoder.context) {
            return Err(Fault::Misuse("the frame lies in another GPU's memory than the session's".to_owned()));
        }
        if (frame.format, frame.width, frame.height) != (settings.format, settings.width, settings.height) {
            return Err(Fault::Misuse(format!(
                "a frame of {:?} {}x{} in a session of {:?} {}x{}",
                frame.format, frame.width, frame.height, settings.format, settings.width, settings.height
            )));
        }
        Ok(())
    }

    fn submit(&mut self, frame: &Arc<Frame>, picture: Picture) -> Result<(), Fault> {
        let context = Arc::clone(&self.encoder.context);
        let _entered = context.enter()?;
        let key = self.register(frame)?;
        let output = self.output()?;
        let input = match self.map(key) {
            Ok(input) => input,
            Err(fault) => {
                self.outputs_free.push(output);
                return Err(fault);
            }
        };
        let forced = sys::NV_ENC_PIC_FLAGS::NV_ENC_PIC_FLAG_FORCEIDR as u32
            | sys::NV_ENC_PIC_FLAGS::NV_ENC_PIC_FLAG_OUTPUT_SPSPPS as u32;
        let mut parameters = sys::NV_ENC_PIC_PARAMS {
            version: sys::NV_ENC_PIC_PARAMS_VER,
            inputWidth: frame.width,
            inputHeight: frame.height,
            inputPitch: u32::try_from(frame.pitch).unwrap_or(u32::MAX),
            encodePicFlags: if picture.force_keyframe { forced } else { 0 },
            frameIdx: self.pictures,
            inputTimeStamp: picture.timestamp,
            inputBuffer: input,
            outputBitstream: output,
            bufferFmt: buffer_format(frame.format),
            pictureStruct: sys::NV_ENC_PIC_STRUCT::NV_ENC_PIC_STRUCT_FRAME,
            ..Default::default()
        };
        // In flight before NVENC hears of it: whatever it answers, output and mapping are accounted for.
        self.in_flight.push_back(InFlight { output, input: key });
        match self.encode_picture(&mut parameters) {
            Ok(Released::All) => self.released = self.in_flight.len(),
            Ok(Released::None) => {}
            Err(fault) => {
                if let Some(refused) = self.in_flight.pop_back() {
                    self.give_back(refused);
                }
                return Err(fault);
            }
        }
        self.pictures = self.pictures.wrapping_add(1);
        Ok(())
    }

    fn end_of_stream(&mut self) -> Result<(), Fault> {
        let context = Arc::clone(&self.encoder.context);
        let _entered = context.enter()?;
        let mut parameters = sys::NV_ENC_PIC_PARAMS {
            version: sys::NV_ENC_PIC_PARAMS_VER,
            encodePicFlags: sys::NV_ENC_PIC_FLAGS::NV_ENC_PIC_FLAG_EOS as u32,
            ..Default::default()
        };
        self.encode_picture(&mut parameters)?;
        self.released = self.in_flight.len();
        self.drained = true;
        Ok(())
    }

    /// One call of NvEncEncodePicture, repeated while the encoder is busy.
    fn encode_picture(&self, parameters: &mut sys::NV_ENC_PIC_PARAMS) -> Result<Released, Fault> {
        for _ in 0..BUSY_WAITS_MAX {
            // SAFETY: the session is configured; input and output, where named, are its own, mapped and unlocked.
            let status = NvencStatus(unsafe { (self.encoder.functions().encode)(self.encoder.raw, parameters) });
            match status {
                NvencStatus::NEED_MORE_INPUT => return Ok(Released::None),
                NvencStatus::ENCODER_BUSY => sleep(BUSY_WAIT),
                NvencStatus(status) => {
                    return self.encoder.check("NvEncEncodePicture", status).map(|()| Released::All);
                }
            }
        }
        Err(Fault::Stuck { waited_ms: BUSY_WAITS_MAX })
    }

    /// Hands out finished pictures until only `leave` are left that could be.
    fn collect(&mut self, leave: usize, sink: &mut dyn FnMut(Packet<'_>)) -> Result<(), Fault> {
        let context = Arc::clone(&self.encoder.context);
        let _entered = context.enter()?;
        while self.released > leave {
            let Some(picture) = self.in_flight.pop_front() else { break };
            self.released -= 1;
            let result = self.fetch(picture.output, sink);
            self.give_back(picture);
            result?;
        }
        Ok(())
    }

    fn fetch(&self, output: *mut c_void, sink: &mut dyn FnMut(Packet<'_>)) -> Result<(), Fault> {
        let mut lock = MaybeUninit::<sys::NV_ENC_LOCK_BITSTREAM>::zeroed();
        let at = lock.as_mut_ptr();
        // SAFETY: the structure is zeroed, whole but for the two fields set here, and stays where it is. The output is
        // one that NVENC has released; the call waits until it is finished.
        let status = unsafe {
            addr_of_mut!((*at).version).write(sys::NV_ENC_LOCK_BITSTREAM_VER);
            addr_of_mut!((*at).outputBitstream).write(output);
            (self.encoder.functions().lock)(self.encoder.raw, at)
        };
        self.encoder.check("NvEncLockBitstream", status)?;
        // SAFETY: the fields are plain numbers, the picture's type an enumeration of u32 that is read as a number.
        let (bytes, length, timestamp, kind) = unsafe {
            (
                addr_of!((*at).bitstreamBufferPtr).read().cast::<u8>(),
                addr_of!((*at).bitstreamSizeInBytes).read() as usize,
                addr_of!((*at).outputTimeStamp).read(),
                addr_of!((*at).pictureType).cast::<u32>().read(),
            )
        };
        if !bytes.is_null() {
            // SAFETY: NVENC says that so many bytes lie there, and they stay until the output is unlocked below.
            let bytes = unsafe { std::slice::from_raw_parts(bytes, length) };
            sink(Packet { bytes, timestamp, keyframe: kind == sys::NV_ENC_PIC_TYPE::NV_ENC_PIC_TYPE_IDR as u32 });
        }
        // SAFETY: locked above.
        let status = unsafe { (self.encoder.functions().unlock)(self.encoder.raw, output) };
        self.encoder.check("NvEncUnlockBitstream", status)
    }

    /// A picture is no longer in flight: its output is free, and its frame unmapped when nobody else reads it.
    fn give_back(&mut self, picture: InFlight) {
        self.outputs_free.push(picture.output);
        let Some(input) = self.inputs.get_mut(&picture.input) else { return };
        input.readers -= 1;
        if input.readers == 0 {
            unmap(&self.encoder, input);
        }
    }

    /// An output that nothing is written to; as many are made as pictures are ever in flight at once.
    fn output(&mut self) -> Result<*mut c_void, Fault> {
        if let Some(output) = self.outputs_free.pop() {
            return Ok(output);
        }
        let mut parameters = sys::NV_ENC_CREATE_BITSTREAM_BUFFER {
            version: sys::NV_ENC_CREATE_BITSTREAM_BUFFER_VER,
            ..Default::default()
        };
        // SAFETY: the session is configured, the parameters whole.
        let status = unsafe { (self.encoder.functions().create_output)(self.encoder.raw, &mut parameters) };
        self.encoder.check("NvEncCreateBitstreamBuffer", status)?;
        Ok(parameters.bitstreamBuffer)
    }

    /// Makes the frame known to NVENC, and forgets those that nobody else holds any more.
    fn register(&mut self, frame: &Arc<Frame>) -> Result<u64, Fault> {
        let key = frame.address();
        if self.inputs.contains_key(&key) {
            return Ok(key);
        }
        let encoder = &self.encoder;
        self.inputs.retain(|_, input| {
            let needed = input.readers > 0 || Arc::strong_count(&input.frame) > 1;
            if !needed {
                unregister(encoder, input);
            }
            needed
        });
        let mut parameters = sys::NV_ENC_REGISTER_RESOURCE {
            version: sys::NV_ENC_REGISTER_RESOURCE_VER,
            resourceType: sys::NV_ENC_INPUT_RESOURCE_TYPE::NV_ENC_INPUT_RESOURCE_TYPE_CUDADEVICEPTR,
            width: frame.width,
            height: frame.height,
            pitch: u32::try_from(frame.pitch).unwrap_or(u32::MAX),
            resourceToRegister: ptr::with_exposed_provenance_mut(key as usize),
            bufferFormat: buffer_format(frame.format),
            bufferUsage: sys::NV_ENC_BUFFER_USAGE::NV_ENC_INPUT_IMAGE,
            ..Default::default()
        };
        // SAFETY: the memory is this context's and is kept by the `Arc` stored below until it is unregistered.
        let status = unsafe { (encoder.functions().register)(encoder.raw, &mut parameters) };
        encoder.check("NvEncRegisterResource", status)?;
        let registered = parameters.registeredResource;
        let frame = Arc::clone(frame);
        self.inputs.insert(key, Input { frame, registered, mapped: ptr::null_mut(), readers: 0 });
        Ok(key)
    }

    fn map(&mut self, key: u64) -> Result<*mut c_void, Fault> {
        let encoder = &self.encoder;
        let Some(input) = self.inputs.get_mut(&key) else {
            return Err(Fault::Misuse("a frame that was never registered".to_owned()));
        };
        if input.readers == 0 {
            let mut parameters = sys::NV_ENC_MAP_INPUT_RESOURCE {
                version: sys::NV_ENC_MAP_INPUT_RESOURCE_VER,
                registeredResource: input.registered,
                ..Default::default()
            };
            // SAFETY: registered with this session and not mapped.
            let status = unsafe { (encoder.functions().map)(encoder.raw, &mut parameters) };
            encoder.check("NvEncMapInputResource", status)?;
            input.mapped = parameters.mappedResource;
        }
        input.readers += 1;
        Ok(input.mapped)
    }
}

/// Which pictures an answer of NVENC releases.
enum Released {
    All,
    None,
}

impl Drop for Session {
    fn drop(&mut self) {
        let context = Arc::clone(&self.encoder.context);
        let _entered = context.enter();
        let outputs = self.in_flight.drain(..).map(|picture| picture.output).chain(self.outputs_free.drain(..));
        for output in outputs {
            // SAFETY: made by this session and not locked. NVENC waits for what it still writes.
            let _ = unsafe { (self.encoder.functions().destroy_output)(self.encoder.raw, output) };
        }
        for (_, mut input) in self.inputs.drain() {
            if input.readers > 0 {
                unmap(&self.encoder, &mut input);
            }
            unregister(&self.encoder, &mut input);
        }
    }
}

fn unmap(encoder: &Encoder, input: &mut Input) {
    // SAFETY: mapped by this session, and no picture in flight reads it. A lost device refuses; there is nothing to
    // do about it.
    let _ = unsafe { (encoder.functions().unmap)(encoder.raw, input.mapped) };
    input.mapped = ptr::null_mut();
}

fn unregister(encoder: &Encoder, input: &mut Input) {
    // SAFETY: registered with this session, and not mapped.
    let _ = unsafe { (encoder.functions().unregister)(encoder.raw, input.registered) };
}

fn buffer_format(format: PixelFormat) -> sys::NV_ENC_BUFFER_FORMAT {
    match format {
        PixelFormat::Nv12 => sys::NV_ENC_BUFFER_FORMAT::NV_ENC_BUFFER_FORMAT_NV12,
        PixelFormat::P010 => sys::NV_ENC_BUFFER_FORMAT::NV_ENC_BUFFER_FORMAT_YUV420_10BIT,
    }
}
