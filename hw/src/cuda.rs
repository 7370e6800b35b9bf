//! CUDA's driver interface, as far as encoders and the inventory need it: devices, their contexts, frames in their memory.
//!
//! Types come from cudarc's bindings; its loader is not used, because it is one per process, searches by itself and
//! panics where a driver lacks something. Statuses are taken as numbers: `CUresult` grows with each driver.
//!
//! Invariants: a context is current only while an `Entered` lives; a `Frame` holds its context, so memory is freed
//! before the context that it lies in.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::{CUDA_MEMCPY2D, CUcontext, CUdevice, CUdevice_attribute, CUdeviceptr, CUmemorytype};

use crate::drivers::{open, symbol};
use crate::fault::{CudaFault, Fault};
use crate::gpu::PciAddress;

pub(crate) const LIBRARY: &str = "libcuda.so.1";

macro_rules! functions {
    ($($field:ident: $symbol:literal = fn($($argument:ty),*);)*) => {
        /// The driver's functions; each returns a `CUresult`.
        struct Functions {
            $($field: unsafe extern "C" fn($($argument),*) -> u32,)*
        }

        impl Functions {
            fn load(library: &'static libloading::Library) -> Result<Functions, Fault> {
                $(
                    // SAFETY: the signature is that of cuda.h for this symbol; an enumeration is passed as an int.
                    let $field = unsafe {
                        symbol::<unsafe extern "C" fn($($argument),*) -> u32>(library, LIBRARY, $symbol)?
                    };
                )*
                Ok(Functions { $($field),* })
            }
        }
    };
}

functions! {
    init: "cuInit" = fn(c_uint);
    driver_version: "cuDriverGetVersion" = fn(*mut c_int);
    device_count: "cuDeviceGetCount" = fn(*mut c_int);
    device: "cuDeviceGet" = fn(*mut CUdevice, c_int);
    device_name: "cuDeviceGetName" = fn(*mut c_char, c_int, CUdevice);
    device_uuid: "cuDeviceGetUuid" = fn(*mut [u8; 16], CUdevice);
    device_memory: "cuDeviceTotalMem_v2" = fn(*mut usize, CUdevice);
    device_attribute: "cuDeviceGetAttribute" = fn(*mut c_int, CUdevice_attribute, CUdevice);
    device_pci: "cuDeviceGetPCIBusId" = fn(*mut c_char, c_int, CUdevice);
    context_retain: "cuDevicePrimaryCtxRetain" = fn(*mut CUcontext, CUdevice);
    context_release: "cuDevicePrimaryCtxRelease_v2" = fn(CUdevice);
    context_push: "cuCtxPushCurrent_v2" = fn(CUcontext);
    context_pop: "cuCtxPopCurrent_v2" = fn(*mut CUcontext);
    memory_pitched: "cuMemAllocPitch_v2" = fn(*mut CUdeviceptr, *mut usize, usize, usize, c_uint);
    memory_free: "cuMemFree_v2" = fn(CUdeviceptr);
    copy_2d: "cuMemcpy2D_v2" = fn(*const CUDA_MEMCPY2D);
    error_name: "cuGetErrorName" = fn(u32, *mut *const c_char);
    error_text: "cuGetErrorString" = fn(u32, *mut *const c_char);
}

/// libcuda, opened and initialised.
pub struct Cuda {
    functions: Functions,
    version: (u32, u32),
}

/// One device as CUDA counts it.
pub struct CudaDevice {
    cuda: Arc<Cuda>,
    device: CUdevice,
    pub name: String,
    pub uuid: String,
    pub pci: Option<PciAddress>,
    /// In bytes.
    pub memory: u64,
    pub compute_capability: (u32, u32),
}

/// A device's primary context: what everything on that device shares within this process.
pub struct Context {
    cuda: Arc<Cuda>,
    device: CUdevice,
    raw: CUcontext,
}

// SAFETY: a CUDA context may be made current on any thread and on several at once; its handle is only a name.
unsafe impl Send for Context {}
// SAFETY: as above; the driver serialises what must be.
unsafe impl Sync for Context {}

/// While this lives, the context is the current one of this thread.
pub(crate) struct Entered<'a> {
    context: &'a Context,
}

/// How the samples of a picture lie in memory: luma, then both chroma planes interleaved at half the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PixelFormat {
    /// Eight bits.
    Nv12,
    /// Ten bits, in the upper part of sixteen.
    P010,
}

/// A picture in a device's memory.
pub struct Frame {
    context: Arc<Context>,
    address: CUdeviceptr,
    pub(crate) pitch: usize,
    pub width: u32,
    pub height: u32,
    pub format: PixelFormat,
}

impl Cuda {
    pub(crate) fn open(folder: Option<&Path>) -> Result<Cuda, Fault> {
        let functions = Functions::load(open(folder, LIBRARY)?)?;
        let mut cuda = Cuda { functions, version: (0, 0) };
        // SAFETY: cuInit takes no pointer; its flags must be 0.
        cuda.check("cuInit", unsafe { (cuda.functions.init)(0) })?;
        let mut version = 0;
        // SAFETY: the function writes one int.
        cuda.check("cuDriverGetVersion", unsafe { (cuda.functions.driver_version)(&mut version) })?;
        let version = u32::try_from(version).unwrap_or_default();
        cuda.version = (version / 1000, version % 1000 / 10);
        Ok(cuda)
    }

    /// The newest CUDA that the driver carries.
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// Every device that CUDA shows this process (CUDA_VISIBLE_DEVICES may hide some), each with its own fault.
    pub fn devices(self: &Arc<Cuda>) -> Result<Vec<Result<CudaDevice, Fault>>, Fault> {
        let mut count = 0;
        // SAFETY: the function writes one int.
        self.check("cuDeviceGetCount", unsafe { (self.functions.device_count)(&mut count) })?;
        Ok((0..count).map(|n| self.device(n)).collect())
    }

    fn device(self: &Arc<Cuda>, ordinal: c_int) -> Result<CudaDevice, Fault> {
        let f = &self.functions;
        let mut device = 0;
        // SAFETY: the function writes one device number.
        self.check("cuDeviceGet", unsafe { (f.device)(&mut device, ordinal) })?;
        let mut uuid = [0; 16];
        // SAFETY: a CUuuid is sixteen bytes.
        self.check("cuDeviceGetUuid", unsafe { (f.device_uuid)(&mut uuid, device) })?;
        let mut memory = 0;
        // SAFETY: the function writes one size_t.
        self.check("cuDeviceTotalMem", unsafe { (f.device_memory)(&mut memory, device) })?;
        // SAFETY: both functions write a terminated string of at most the length that they are given.
        let name = self.text("cuDeviceGetName", |at, length| unsafe { (f.device_name)(at, length, device) })?;
        // SAFETY: as above.
        let pci = self.text("cuDeviceGetPCIBusId", |at, length| unsafe { (f.device_pci)(at, length, device) })?;
        let major = self.attribute(device, CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = self.attribute(device, CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        Ok(CudaDevice {
            cuda: Arc::clone(self),
            device,
            name,
            uuid: uuid_text(&uuid),
            pci: PciAddress::parse(&pci),
            memory: memory as u64,
            compute_capability: (major, minor),
        })
    }

    fn attribute(&self, device: CUdevice, attribute: CUdevice_attribute) -> Result<u32, Fault> {
        let mut value = 0;
        // SAFETY: the function writes one int.
        let status = unsafe { (self.functions.device_attribute)(&mut value, attribute, device) };
        self.check("cuDeviceGetAttribute", status)?;
        Ok(u32::try_from(value).unwrap_or_default())
    }

    fn text(&self, call: &'static str, read: impl Fn(*mut c_char, c_int) -> u32) -> Result<String, Fault> {
        let mut text = [0u8; 256];
        // One byte less than there is, so that the string ends within the buffer whatever the driver writes.
        self.check(call, read(text.as_mut_ptr().cast(), 255))?;
        Ok(CStr::from_bytes_until_nul(&text).map(|text| text.to_string_lossy().into_owned()).unwrap_or_default())
    }

    pub(crate) fn check(&self, call: &'static str, status: u32) -> Result<(), Fault> {
        if status == 0 {
            return Ok(());
        }
        let named = |ask: unsafe extern "C" fn(u32, *mut *const c_char) -> u32| {
            let mut text = ptr::null();
            // SAFETY: the function sets the pointer to a constant string, or to null where it does not know the code.
            let known = unsafe { ask(status, &mut text) } == 0 && !text.is_null();
            // SAFETY: it is not null, and the driver's strings are terminated and live as long as it.
            known.then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
        };
        let name = named(self.functions.error_name).unwrap_or_else(|| format!("CUresult {status}"));
        let meaning = named(self.functions.error_text).unwrap_or_else(|| "the driver gives no reason".to_owned());
        Err(CudaFault { call, code: status, name, meaning }.into())
    }
}

impl CudaDevice {
    /// Retains the device's primary context. The first one of a process takes the device some memory and time.
    pub fn context(&self) -> Result<Arc<Context>, Fault> {
        let mut raw = ptr::null_mut();
        // SAFETY: the function writes one handle; the device number is the driver's own.
        let status = unsafe { (self.cuda.functions.context_retain)(&mut raw, self.device) };
        self.cuda.check("cuDevicePrimaryCtxRetain", status)?;
        Ok(Arc::new(Context { cuda: Arc::clone(&self.cuda), device: self.device, raw }))
    }
}

impl Context {
    pub(crate) fn raw(&self) -> *mut c_void {
        self.raw.cast()
    }

    pub(crate) fn check(&self, call: &'static str, status: u32) -> Result<(), Fault> {
        self.cuda.check(call, status)
    }

    pub(crate) fn enter(&self) -> Result<Entered<'_>, Fault> {
        // SAFETY: the context is retained for as long as `self` lives.
        self.cuda.check("cuCtxPushCurrent", unsafe { (self.cuda.functions.context_push)(self.raw) })?;
        Ok(Entered { context: self })
    }

    /// Takes memory for one picture; what is in it is undefined until something is uploaded.
    pub fn frame(self: &Arc<Context>, format: PixelFormat, width: u32, height: u32) -> Result<Frame, Fault> {
        if width == 0 || height == 0 || width % 2 == 1 || height % 2 == 1 {
            return Err(Fault::Misuse(format!("a picture of {width}x{height}: both sides must be even and not 0")));
        }
        let _entered = self.enter()?;
        let (mut address, mut pitch) = (0, 0);
        let frame = (format.row_bytes(width), format.rows(height));
        // SAFETY: the function writes an address and a pitch; 16 is one of the three element sizes that it takes.
        let status = unsafe { (self.cuda.functions.memory_pitched)(&mut address, &mut pitch, frame.0, frame.1, 16) };
        self.cuda.check("cuMemAllocPitch", status)?;
        Ok(Frame { context: Arc::clone(self), address, pitch, width, height, format })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once when this was made, released once here. A device that is lost says so; there is nobody
        // left to tell.
        let _ = unsafe { (self.cuda.functions.context_release)(self.device) };
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut popped = ptr::null_mut();
        // SAFETY: this thread pushed the context when this was made; the function writes one handle.
        let _ = unsafe { (self.context.cuda.functions.context_pop)(&mut popped) };
    }
}

impl PixelFormat {
    fn row_bytes(self, width: u32) -> usize {
        match self {
            PixelFormat::Nv12 => width as usize,
            PixelFormat::P010 => width as usize * 2,
        }
    }

    /// Of luma and chroma together.
    fn rows(self, height: u32) -> usize {
        height as usize + height as usize / 2
    }
}

impl Frame {
    /// The bytes that `upload` takes.
    pub fn bytes(&self) -> usize {
        self.format.row_bytes(self.width) * self.format.rows(self.height)
    }

    pub(crate) fn address(&self) -> CUdeviceptr {
        self.address
    }

    pub(crate) fn lies_in(&self, context: &Arc<Context>) -> bool {
        self.context.raw == context.raw
    }

    fn check_bytes(&self, bytes: usize) -> Result<(), Fault> {
        let one = self.bytes();
        if bytes == one {
            return Ok(());
        }
        Err(Fault::Misuse(format!("a picture of {bytes} bytes, where {one} make one")))
    }

    /// Copies a whole picture from this machine's memory, rows without gaps.
    pub fn upload(&mut self, picture: &[u8]) -> Result<(), Fault> {
        self.check_bytes(picture.len())?;
        let row = self.format.row_bytes(self.width);
        let _entered = self.context.enter()?;
        let copy = CUDA_MEMCPY2D {
            srcXInBytes: 0,
            srcY: 0,
            srcMemoryType: CUmemorytype::CU_MEMORYTYPE_HOST,
            srcHost: picture.as_ptr().cast(),
            srcDevice: 0,
            srcArray: ptr::null_mut(),
            srcPitch: row,
            dstXInBytes: 0,
            dstY: 0,
            dstMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
            dstHost: ptr::null_mut(),
            dstDevice: self.address,
            dstArray: ptr::null_mut(),
            dstPitch: self.pitch,
            WidthInBytes: row,
            Height: self.format.rows(self.height),
        };
        // SAFETY: the source has exactly the rows that are copied, checked above; the destination was taken for as
        // many, and `&mut self` says that no encoder reads it. The copy is over when the call returns.
        let status = unsafe { (self.context.cuda.functions.copy_2d)(&copy) };
        self.context.check("cuMemcpy2D", status)
    }

    /// Copies the whole picture to this machine's memory, rows without gaps.
    pub fn download(&self, picture: &mut [u8]) -> Result<(), Fault> {
        self.check_bytes(picture.len())?;
        let row = self.format.row_bytes(self.width);
        let _entered = self.context.enter()?;
        let copy = CUDA_MEMCPY2D {
            srcXInBytes: 0,
            srcY: 0,
            srcMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
            srcHost: ptr::null(),
            srcDevice: self.address,
            srcArray: ptr::null_mut(),
            srcPitch: self.pitch,
            dstXInBytes: 0,
            dstY: 0,
            dstMemoryType: CUmemorytype::CU_MEMORYTYPE_HOST,
            dstHost: picture.as_mut_ptr().cast(),
            dstDevice: 0,
            dstArray: ptr::null_mut(),
            dstPitch: row,
            WidthInBytes: row,
            Height: self.format.rows(self.height),
        };
        // SAFETY: the destination has exactly the rows that are copied, checked above, and is borrowed mutably; the
        // source was taken for as many. The copy is over when the call returns.
        let status = unsafe { (self.context.cuda.functions.copy_2d)(&copy) };
        self.context.check("cuMemcpy2D", status)
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        let _entered = self.context.enter();
        // SAFETY: the address came from this context's allocator and is freed only here. On a lost device the memory
        // is gone already, and the call says so.
        let _ = unsafe { (self.context.cuda.functions.memory_free)(self.address) };
    }
}

/// As NVML and `CUDA_VISIBLE_DEVICES` write it.
fn uuid_text(uuid: &[u8; 16]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let parts = [&uuid[..4], &uuid[4..6], &uuid[6..8], &uuid[8..10], &uuid[10..]];
    format!("GPU-{}", parts.map(hex).join("-"))
}
