//! libnvidia-encode and an open encode session that is not configured yet.
//!
//! Invariant: what `Functions` holds was given by the library for the version of the bindings, and the library is never
//! closed. An `Encoder` is destroyed before the context that it was opened on, because it holds it.

use std::ffi::{CStr, c_char, c_void};
use std::mem::transmute;
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use nvidia_video_codec_sdk::sys::nvEncodeAPI as sys;
use sys::{GUID, NVENCSTATUS as Status};

use crate::cuda::Context;
use crate::drivers::{open, symbol};
use crate::fault::{Fault, FaultKind, NvencFault, NvencStatus};

pub(crate) const LIBRARY: &str = "libnvidia-encode.so.1";
pub(crate) const CREATE_INSTANCE: &str = "NvEncodeAPICreateInstance";
pub(crate) const MAX_SUPPORTED_VERSION: &str = "NvEncodeAPIGetMaxSupportedVersion";
pub(crate) type EntryCreate = unsafe extern "C" fn(*mut sys::NV_ENCODE_API_FUNCTION_LIST) -> u32;
pub(crate) type EntryVersion = unsafe extern "C" fn(*mut u32) -> u32;

/// What the bindings speak: a driver must know at least this much.
const NEEDS: (u32, u32) = (sys::NVENCAPI_MAJOR_VERSION, sys::NVENCAPI_MINOR_VERSION);

macro_rules! functions {
    ($($field:ident: $listed:ident = fn($($argument:ty),*);)*) => {
        /// The library's functions; each returns an `NVENCSTATUS` as a number.
        pub(super) struct Functions {
            $(pub $field: unsafe extern "C" fn($($argument),*) -> u32,)*
            last_error: unsafe extern "C" fn(*mut c_void) -> *const c_char,
        }

        impl Functions {
            fn take(list: &sys::NV_ENCODE_API_FUNCTION_LIST) -> Result<Functions, Fault> {
                let absent = |symbol| Fault::SymbolAbsent { library: LIBRARY, symbol };
                $(
                    let $field: unsafe extern "C" fn($($argument),*) -> Status =
                        list.$listed.ok_or(absent(stringify!($listed)))?;
                )*
                Ok(Functions {
                    $(
                        // SAFETY: the types differ only in that the status, an enumeration of u32 in the bindings, is
                        // taken as the u32 that it is, because a driver may return numbers that they do not list.
                        $field: unsafe {
                            transmute::<
                                unsafe extern "C" fn($($argument),*) -> Status,
                                unsafe extern "C" fn($($argument),*) -> u32,
                            >($field)
                        },
                    )*
                    last_error: list.nvEncGetLastErrorString.ok_or(absent("nvEncGetLastErrorString"))?,
                })
            }
        }
    };
}

functions! {
    open_session: nvEncOpenEncodeSessionEx =
        fn(*mut sys::NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS, *mut *mut c_void);
    destroy: nvEncDestroyEncoder = fn(*mut c_void);
    codec_count: nvEncGetEncodeGUIDCount = fn(*mut c_void, *mut u32);
    codecs: nvEncGetEncodeGUIDs = fn(*mut c_void, *mut GUID, u32, *mut u32);
    profile_count: nvEncGetEncodeProfileGUIDCount = fn(*mut c_void, GUID, *mut u32);
    profiles: nvEncGetEncodeProfileGUIDs = fn(*mut c_void, GUID, *mut GUID, u32, *mut u32);
    preset_count: nvEncGetEncodePresetCount = fn(*mut c_void, GUID, *mut u32);
    presets: nvEncGetEncodePresetGUIDs = fn(*mut c_void, GUID, *mut GUID, u32, *mut u32);
    caps: nvEncGetEncodeCaps = fn(*mut c_void, GUID, *mut sys::NV_ENC_CAPS_PARAM, *mut i32);
    preset_config: nvEncGetEncodePresetConfigEx =
        fn(*mut c_void, GUID, GUID, sys::NV_ENC_TUNING_INFO, *mut sys::NV_ENC_PRESET_CONFIG);
    initialize: nvEncInitializeEncoder = fn(*mut c_void, *mut sys::NV_ENC_INITIALIZE_PARAMS);
    create_output: nvEncCreateBitstreamBuffer = fn(*mut c_void, *mut sys::NV_ENC_CREATE_BITSTREAM_BUFFER);
    destroy_output: nvEncDestroyBitstreamBuffer = fn(*mut c_void, sys::NV_ENC_OUTPUT_PTR);
    register: nvEncRegisterResource = fn(*mut c_void, *mut sys::NV_ENC_REGISTER_RESOURCE);
    unregister: nvEncUnregisterResource = fn(*mut c_void, sys::NV_ENC_REGISTERED_PTR);
    map: nvEncMapInputResource = fn(*mut c_void, *mut sys::NV_ENC_MAP_INPUT_RESOURCE);
    unmap: nvEncUnmapInputResource = fn(*mut c_void, sys::NV_ENC_INPUT_PTR);
    encode: nvEncEncodePicture = fn(*mut c_void, *mut sys::NV_ENC_PIC_PARAMS);
    lock: nvEncLockBitstream = fn(*mut c_void, *mut sys::NV_ENC_LOCK_BITSTREAM);
    unlock: nvEncUnlockBitstream = fn(*mut c_void, sys::NV_ENC_OUTPUT_PTR);
}

/// libnvidia-encode, opened.
pub struct Nvenc {
    pub(super) functions: Functions,
    version: (u32, u32),
}

/// An open encode session: it counts against the driver's limit until it is dropped.
pub struct Encoder {
    pub(super) nvenc: Arc<Nvenc>,
    pub(super) context: Arc<Context>,
    pub(super) raw: *mut c_void,
}

// SAFETY: NVENC sessions may be used from any thread, one call at a time; every call that changes one takes `&mut`.
unsafe impl Send for Encoder {}

impl Nvenc {
    pub(crate) fn open(folder: Option<&Path>) -> Result<Nvenc, Fault> {
        let library = open(folder, LIBRARY)?;
        // SAFETY: both symbols have these signatures in nvEncodeAPI.h; the status is taken as a number.
        let (ask, create) = unsafe {
            (
                symbol::<EntryVersion>(library, LIBRARY, MAX_SUPPORTED_VERSION)?,
                symbol::<EntryCreate>(library, LIBRARY, CREATE_INSTANCE)?,
            )
        };
        let mut packed = 0;
        // SAFETY: the function writes one number.
        succeed(MAX_SUPPORTED_VERSION, unsafe { ask(&mut packed) })?;
        let version = (packed >> 4, packed & 0xf);
        if version < NEEDS {
            return Err(Fault::DriverTooOld { has: version, needs: NEEDS });
        }
        let mut list =
            sys::NV_ENCODE_API_FUNCTION_LIST { version: sys::NV_ENCODE_API_FUNCTION_LIST_VER, ..Default::default() };
        // SAFETY: the list is the bindings' own, whole, with its version set; the library fills in its functions.
        succeed(CREATE_INSTANCE, unsafe { create(&mut list) })?;
        Ok(Nvenc { functions: Functions::take(&list)?, version })
    }

    /// The newest interface that the driver speaks.
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// Opens an encode session on a device.
    pub fn encoder(self: &Arc<Nvenc>, context: &Arc<Context>) -> Result<Encoder, Fault> {
        let _entered = context.enter()?;
        let mut parameters = sys::NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS {
            version: sys::NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS_VER,
            deviceType: sys::NV_ENC_DEVICE_TYPE::NV_ENC_DEVICE_TYPE_CUDA,
            device: context.raw(),
            apiVersion: sys::NVENCAPI_VERSION,
            ..Default::default()
        };
        let mut raw = ptr::null_mut();
        // SAFETY: the parameters are whole and name a context that is retained as long as the encoder holds it.
        let status = unsafe { (self.functions.open_session)(&mut parameters, &mut raw) };
        // Where a failed opening gave a handle, the header asks for it to be destroyed, which dropping this does.
        let encoder = Encoder { nvenc: Arc::clone(self), context: Arc::clone(context), raw };
        succeed("NvEncOpenEncodeSessionEx", status)?;
        if encoder.raw.is_null() {
            return Err(Fault::Misuse("NvEncOpenEncodeSessionEx succeeded and gave no session".to_owned()));
        }
        Ok(encoder)
    }

    /// How many more sessions the driver grants on this device now, found by opening them; no more than `at_most`
    /// are tried. While they are open, nobody else gets them.
    pub fn room(self: &Arc<Nvenc>, context: &Arc<Context>, at_most: usize) -> Result<usize, Fault> {
        let mut held = Vec::new();
        while held.len() < at_most {
            match self.encoder(context) {
                Ok(encoder) => held.push(encoder),
                Err(fault) if fault.kind() == FaultKind::Exhausted => break,
                Err(fault) => return Err(fault),
            }
        }
        Ok(held.len())
    }
}

impl Encoder {
    pub(super) fn functions(&self) -> &Functions {
        &self.nvenc.functions
    }

    /// A fault with what NVENC itself has to say about it.
    pub(super) fn check(&self, call: &'static str, status: u32) -> Result<(), Fault> {
        let fault = match succeed(call, status) {
            Ok(()) => return Ok(()),
            Err(fault) => fault,
        };
        // A device that is gone has nothing to say, and its session is not to be asked.
        if fault.kind() == FaultKind::DeviceLost {
            return Err(fault);
        }
        // SAFETY: the session is open; the string is terminated and belongs to it.
        let text = unsafe {
            let text = (self.functions().last_error)(self.raw);
            (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().trim().to_owned())
        };
        let detail = text.filter(|text| !text.is_empty());
        Err(NvencFault { call, status: NvencStatus(status), detail }.into())
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        if self.raw.is_null() {
            return;
        }
        let _entered = self.context.enter();
        // SAFETY: the session was opened by this library and is destroyed only here; the context is still retained.
        let _ = unsafe { (self.functions().destroy)(self.raw) };
    }
}

fn succeed(call: &'static str, status: u32) -> Result<(), Fault> {
    if status == Status::NV_ENC_SUCCESS as u32 {
        return Ok(());
    }
    Err(NvencFault { call, status: NvencStatus(status), detail: None }.into())
}
