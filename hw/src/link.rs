//! The two symbols that `nvidia-video-codec-sdk` expects from a linked driver.
//!
//! Its own safe layer calls them; this crate does not use that layer, because it asserts where a driver is old and
//! panics in a destructor where a device is lost. But the linker may meet the references, so the symbols exist, and do
//! what the library would: they pass the call on to it, or say that there is no device.

use nvidia_video_codec_sdk::sys::nvEncodeAPI::{NV_ENCODE_API_FUNCTION_LIST, NVENCSTATUS};

use crate::nvenc::{CREATE_INSTANCE, EntryCreate, EntryVersion, LIBRARY, MAX_SUPPORTED_VERSION};

/// NVENC's entry: fills in the list of its functions.
///
/// # Safety
///
/// As in nvEncodeAPI.h: `list` points to a function list whose `version` is set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn NvEncodeAPICreateInstance(list: *mut NV_ENCODE_API_FUNCTION_LIST) -> NVENCSTATUS {
    let Ok(library) = crate::drivers::open(None, LIBRARY) else { return NVENCSTATUS::NV_ENC_ERR_NO_ENCODE_DEVICE };
    // SAFETY: the symbol has this signature in nvEncodeAPI.h.
    match unsafe { library.get::<EntryCreate>(CREATE_INSTANCE.as_bytes()) } {
        // SAFETY: the caller keeps the library's own contract.
        Ok(create) => success_or_generic(unsafe { create(list) }),
        Err(_) => NVENCSTATUS::NV_ENC_ERR_INVALID_VERSION,
    }
}

/// The newest interface that the driver speaks: major version above four bits of minor version.
///
/// # Safety
///
/// As in nvEncodeAPI.h: `version` points to a writable number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn NvEncodeAPIGetMaxSupportedVersion(version: *mut u32) -> NVENCSTATUS {
    let Ok(library) = crate::drivers::open(None, LIBRARY) else { return NVENCSTATUS::NV_ENC_ERR_NO_ENCODE_DEVICE };
    // SAFETY: the symbol has this signature in nvEncodeAPI.h.
    match unsafe { library.get::<EntryVersion>(MAX_SUPPORTED_VERSION.as_bytes()) } {
        // SAFETY: the caller keeps the library's own contract.
        Ok(ask) => success_or_generic(unsafe { ask(version) }),
        Err(_) => NVENCSTATUS::NV_ENC_ERR_INVALID_VERSION,
    }
}

fn success_or_generic(status: u32) -> NVENCSTATUS {
    if status == NVENCSTATUS::NV_ENC_SUCCESS as u32 {
        NVENCSTATUS::NV_ENC_SUCCESS
    } else {
        NVENCSTATUS::NV_ENC_ERR_GENERIC
    }
}
