//! The four libraries of the NVIDIA driver, opened at run time.
//!
//! Nothing here links. Each library is opened on its own, and one that is missing leaves the others usable: a container
//! often has CUDA and not the video libraries. A folder may be named, in which alone the libraries are then looked for;
//! otherwise the dynamic loader searches as it always does (LD_LIBRARY_PATH, ld.so.conf).
//!
//! A library that was opened stays open: drivers start threads of their own and do not expect to be unloaded.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::cuda::{self, Cuda};
use crate::fault::Fault;
use crate::nvdec::{self, Nvdec};
use crate::nvenc::{self, Nvenc};
use crate::nvml;
use crate::probed::Probed;

/// What of the driver could be opened.
pub struct Drivers {
    pub cuda: Result<Arc<Cuda>, Fault>,
    pub nvenc: Result<Arc<Nvenc>, Fault>,
    pub nvdec: Result<Arc<Nvdec>, Fault>,
    pub(crate) nvml: Result<nvml_wrapper::Nvml, Fault>,
}

/// The driver's versions, and what of it is there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DriverReport {
    /// As NVML gives it: `550.54.14`.
    pub version: Option<String>,
    /// The newest CUDA that the driver carries: `12.4`.
    pub cuda: Option<String>,
    /// The newest NVENC interface that the driver speaks: `12.2`.
    pub nvenc: Option<String>,
    pub libraries: Vec<Library>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Library {
    pub name: &'static str,
    pub usable: Probed<bool>,
}

impl DriverReport {
    /// Of a driver that does not answer.
    pub(crate) fn silent(why: &str) -> DriverReport {
        let library = |name| Library { name, usable: Probed::unknown(why) };
        let names = [nvml::LIBRARY, cuda::LIBRARY, nvenc::LIBRARY, nvdec::LIBRARY];
        DriverReport { version: None, cuda: None, nvenc: None, libraries: names.map(library).into() }
    }
}

impl Drivers {
    /// Opens what the dynamic loader finds.
    pub fn open() -> Drivers {
        Drivers::open_in(None)
    }

    /// Opens the libraries of one folder and no others, for a driver in an unusual place and for tests, which cannot
    /// change the loader's path inside a running process.
    pub fn open_in(folder: Option<&Path>) -> Drivers {
        Drivers {
            cuda: Cuda::open(folder).map(Arc::new),
            nvenc: Nvenc::open(folder).map(Arc::new),
            nvdec: Nvdec::open(folder).map(Arc::new),
            nvml: nvml::open(folder),
        }
    }

    pub fn report(&self) -> DriverReport {
        let said = |fault: Option<&Fault>| match fault {
            None => Probed::Known(true),
            Some(fault @ Fault::LibraryAbsent { .. }) => Probed::absent(fault.to_string()),
            Some(fault) => Probed::unknown(fault),
        };
        let nvml = self.nvml.as_ref();
        let cuda_version = self.cuda.as_ref().ok().map(|cuda| cuda.version());
        DriverReport {
            version: nvml.ok().and_then(|nvml| nvml.sys_driver_version().ok()),
            cuda: cuda_version.map(|(major, minor)| format!("{major}.{minor}")),
            nvenc: self.nvenc_version().map(|(major, minor)| format!("{major}.{minor}")),
            libraries: vec![
                Library { name: nvml::LIBRARY, usable: said(nvml.err()) },
                Library { name: cuda::LIBRARY, usable: said(self.cuda.as_ref().err()) },
                Library { name: nvenc::LIBRARY, usable: said(self.nvenc.as_ref().err()) },
                Library { name: nvdec::LIBRARY, usable: said(self.nvdec.as_ref().err()) },
            ],
        }
    }

    fn nvenc_version(&self) -> Option<(u32, u32)> {
        match &self.nvenc {
            Ok(nvenc) => Some(nvenc.version()),
            Err(Fault::DriverTooOld { has, .. }) => Some(*has),
            Err(_) => None,
        }
    }
}

/// Opens one library for as long as the program runs.
pub(crate) fn open(folder: Option<&Path>, name: &'static str) -> Result<&'static libloading::Library, Fault> {
    let path = folder.map_or_else(|| PathBuf::from(name), |folder| folder.join(name));
    // SAFETY: opening runs the library's initialisers. These are the driver's own libraries, named by their full
    // names, found where the administrator's loader configuration or the caller's folder says.
    let library = unsafe { libloading::Library::new(path) };
    library.map(|library| &*Box::leak(Box::new(library))).map_err(|error| unopened(name, &error.to_string()))
}

/// The loader's words; where the file is simply not there, what to do about it.
pub(crate) fn unopened(library: &'static str, said: &str) -> Fault {
    if !said.contains("No such file") {
        return Fault::LibraryUnusable { library, why: said.to_owned() };
    }
    let capability = match library {
        cuda::LIBRARY => "compute",
        nvml::LIBRARY => "utility",
        _ => "video",
    };
    Fault::LibraryAbsent { library, capability }
}

/// One function of a library.
///
/// # Safety
///
/// `F` is the function pointer type of that symbol.
pub(crate) unsafe fn symbol<F: Copy>(
    library: &'static libloading::Library,
    name: &'static str,
    symbol: &'static str,
) -> Result<F, Fault> {
    // SAFETY: the caller promises the type. The library is never closed, so the copied pointer stays valid.
    let found = unsafe { library.get::<F>(symbol.as_bytes()) };
    found.map(|function| *function).map_err(|_| Fault::SymbolAbsent { library: name, symbol })
}
