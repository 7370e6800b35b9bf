//! What can go wrong with a driver or a device, in the vendor's own names, and what that means for work.
//!
//! Statuses arrive as plain numbers: a driver newer than the bindings may return one that no enumeration lists.

use std::fmt;

/// A fault of one of the four libraries or of a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error(
        "{library} is not on this machine; install NVIDIA's driver (in a container, add '{capability}' to \
         NVIDIA_DRIVER_CAPABILITIES)"
    )]
    LibraryAbsent { library: &'static str, capability: &'static str },
    #[error("{library} cannot be used: {why}")]
    LibraryUnusable { library: &'static str, why: String },
    #[error("the NVIDIA driver is too old: its {library} has no {symbol}; install a newer driver")]
    SymbolAbsent { library: &'static str, symbol: &'static str },
    #[error(
        "the NVIDIA driver is too old: it speaks NVENC {}.{}, and {}.{} is needed (driver 530.41 or newer)",
        has.0, has.1, needs.0, needs.1
    )]
    DriverTooOld { has: (u32, u32), needs: (u32, u32) },
    #[error(transparent)]
    Cuda(#[from] CudaFault),
    #[error(transparent)]
    Nvenc(#[from] NvencFault),
    #[error("the GPU's encoder was still busy after {waited_ms} ms")]
    Stuck { waited_ms: u64 },
    #[error("{0}")]
    Misuse(String),
}

/// What a fault means for the work that met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// No driver, or one too old: nothing on this box runs on a GPU until someone changes that.
    Driver,
    /// The device is gone or broken: its lanes are drained, its work runs elsewhere.
    DeviceLost,
    /// No memory, or no encode session left. NVENC gives both the same name.
    Exhausted,
    /// This device does not do what was asked, and never will.
    Unsupported,
    /// The device did not keep up; the same may work a moment later.
    Busy,
    /// A mistake in this program, or something that the driver does not explain.
    Other,
}

impl Fault {
    pub fn kind(&self) -> FaultKind {
        match self {
            Fault::LibraryAbsent { .. }
            | Fault::LibraryUnusable { .. }
            | Fault::SymbolAbsent { .. }
            | Fault::DriverTooOld { .. } => FaultKind::Driver,
            Fault::Cuda(fault) => fault.kind(),
            Fault::Nvenc(fault) => fault.status.kind(),
            Fault::Stuck { .. } => FaultKind::Busy,
            Fault::Misuse(_) => FaultKind::Other,
        }
    }
}

/// A CUDA driver call that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {name} ({meaning})")]
pub struct CudaFault {
    pub call: &'static str,
    pub code: u32,
    /// As the driver names it: `CUDA_ERROR_OUT_OF_MEMORY`.
    pub name: String,
    pub meaning: String,
}

impl CudaFault {
    /// The codes are those of `CUresult` in cuda.h.
    pub fn kind(&self) -> FaultKind {
        match self.code {
            // OUT_OF_MEMORY
            2 => FaultKind::Exhausted,
            // STUB_LIBRARY, SYSTEM_DRIVER_MISMATCH, COMPAT_NOT_SUPPORTED_ON_DEVICE
            34 | 803 | 804 => FaultKind::Driver,
            // DEVICE_UNAVAILABLE, NO_DEVICE, INVALID_DEVICE, ECC_UNCORRECTABLE, NVLINK_UNCORRECTABLE
            46 | 100 | 101 | 214 | 220 => FaultKind::DeviceLost,
            // ILLEGAL_ADDRESS .. LAUNCH_FAILED: the context is dead; SYSTEM_NOT_READY; UNKNOWN, which is what a GPU says
            // that fell off the bus
            700 | 702 | 710..=719 | 802 | 999 => FaultKind::DeviceLost,
            // NOT_SUPPORTED
            801 => FaultKind::Unsupported,
            // NOT_READY
            600 => FaultKind::Busy,
            _ => FaultKind::Other,
        }
    }
}

/// An NVENC call that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {status}{}", detail.as_ref().map(|text| format!(": {text}")).unwrap_or_default())]
pub struct NvencFault {
    pub call: &'static str,
    pub status: NvencStatus,
    /// What NVENC itself adds (`NvEncGetLastErrorString`).
    pub detail: Option<String>,
}

/// A number of `NVENCSTATUS`, which is not success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NvencStatus(pub u32);

use nvidia_video_codec_sdk::sys::nvEncodeAPI::NVENCSTATUS as Listed;

macro_rules! statuses {
    ($($name:ident, $kind:ident, $meaning:literal;)*) => {
        const STATUSES: &[(u32, &str, FaultKind, &str)] =
            &[$((Listed::$name as u32, stringify!($name), FaultKind::$kind, $meaning),)*];
    };
}

statuses! {
    NV_ENC_ERR_NO_ENCODE_DEVICE, Unsupported, "no device with an encoder was found";
    NV_ENC_ERR_UNSUPPORTED_DEVICE, Unsupported, "this device has no encoder that the driver supports";
    NV_ENC_ERR_INVALID_ENCODERDEVICE, DeviceLost, "the device is not valid for encoding";
    NV_ENC_ERR_INVALID_DEVICE, DeviceLost, "the device is not valid";
    NV_ENC_ERR_DEVICE_NOT_EXIST, DeviceLost, "the device is no longer there; the session is lost with it";
    NV_ENC_ERR_INVALID_PTR, Other, "a pointer is invalid";
    NV_ENC_ERR_INVALID_EVENT, Other, "the completion event is invalid";
    NV_ENC_ERR_INVALID_PARAM, Other, "a parameter is invalid";
    NV_ENC_ERR_INVALID_CALL, Other, "the call came in the wrong order";
    NV_ENC_ERR_OUT_OF_MEMORY, Exhausted, "no memory is left, or no encode session";
    NV_ENC_ERR_ENCODER_NOT_INITIALIZED, Other, "the encoder is not configured";
    NV_ENC_ERR_UNSUPPORTED_PARAM, Unsupported, "this encoder does not support a parameter";
    NV_ENC_ERR_LOCK_BUSY, Busy, "the output is not ready";
    NV_ENC_ERR_NOT_ENOUGH_BUFFER, Other, "a buffer is too small";
    NV_ENC_ERR_INVALID_VERSION, Driver, "the driver does not know this version of the interface";
    NV_ENC_ERR_MAP_FAILED, Other, "the input could not be mapped";
    NV_ENC_ERR_NEED_MORE_INPUT, Busy, "more pictures are needed first";
    NV_ENC_ERR_ENCODER_BUSY, Busy, "the encoder is busy";
    NV_ENC_ERR_EVENT_NOT_REGISTERD, Other, "the completion event is not registered";
    NV_ENC_ERR_GENERIC, Other, "the driver gives no reason";
    NV_ENC_ERR_INCOMPATIBLE_CLIENT_KEY, Exhausted, "the driver grants this GPU no further encode session";
    NV_ENC_ERR_UNIMPLEMENTED, Unsupported, "the driver does not implement this";
    NV_ENC_ERR_RESOURCE_REGISTER_FAILED, Other, "the input could not be registered";
    NV_ENC_ERR_RESOURCE_NOT_REGISTERED, Other, "the input is not registered";
    NV_ENC_ERR_RESOURCE_NOT_MAPPED, Other, "the input is not mapped";
    NV_ENC_ERR_NEED_MORE_OUTPUT, Busy, "another output buffer is needed";
}

impl NvencStatus {
    pub(crate) const NEED_MORE_INPUT: NvencStatus = NvencStatus(Listed::NV_ENC_ERR_NEED_MORE_INPUT as u32);
    pub(crate) const ENCODER_BUSY: NvencStatus = NvencStatus(Listed::NV_ENC_ERR_ENCODER_BUSY as u32);

    pub fn kind(self) -> FaultKind {
        self.row().map_or(FaultKind::Other, |row| row.2)
    }

    /// As nvEncodeAPI.h names it.
    pub fn name(self) -> Option<&'static str> {
        self.row().map(|row| row.1)
    }

    fn row(self) -> Option<&'static (u32, &'static str, FaultKind, &'static str)> {
        STATUSES.iter().find(|row| row.0 == self.0)
    }
}

impl fmt::Display for NvencStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row() {
            Some((_, name, _, meaning)) => write!(f, "{name} ({meaning})"),
            None => write!(f, "status {} (newer than this program)", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_named_and_an_unknown_one_does_no_harm() {
        let fault = NvencFault { call: "NvEncOpenEncodeSessionEx", status: NvencStatus(10), detail: None };
        assert_eq!(
            fault.to_string(),
            "NvEncOpenEncodeSessionEx: NV_ENC_ERR_OUT_OF_MEMORY (no memory is left, or no encode session)"
        );
        assert_eq!(Fault::from(fault).kind(), FaultKind::Exhausted);
        assert_eq!(NvencStatus(4711).to_string(), "status 4711 (newer than this program)");
        assert_eq!(NvencStatus(4711).kind(), FaultKind::Other);
    }
}
