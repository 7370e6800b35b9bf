//! A scripted NVIDIA driver: four small libraries and the compiler beside it, built with the C compiler that linking Rust needs anyway.
//!
//! Each test gets a folder of its own with its own copies, so that tests in one process do not share a driver; script.h
//! says what a script may hold. The folder is handed to the loader as an argument, because the dynamic loader reads
//! LD_LIBRARY_PATH once, at a process's start; only a test that starts a process sets that.
//!
//! The sources know nothing of the bindings: layouts and versions are written down a second time there, from the
//! headers, so that a binding that is off is found out.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

const SOURCES: &[(&str, &str)] = &[
    ("libnvidia-ml.so.1", include_str!("nvml.c")),
    ("libcuda.so.1", include_str!("cuda.c")),
    ("libnvidia-encode.so.1", include_str!("nvenc.c")),
    ("libnvcuvid.so.1", include_str!("nvcuvid.c")),
    ("libnvrtc.so", include_str!("nvrtc.c")),
];

const SCRIPT: &str = include_str!("script.h");

pub struct FakeDriver {
    folder: TempDir,
}

impl FakeDriver {
    pub fn new(script: &str) -> FakeDriver {
        let driver = FakeDriver { folder: tempfile::tempdir().unwrap() };
        for (name, _) in SOURCES {
            std::fs::copy(built().join(name), driver.path().join(name)).unwrap();
        }
        driver.says(script);
        driver
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// From now on the driver follows another script.
    pub fn says(&self, script: &str) {
        std::fs::write(self.path().join("script"), script).unwrap();
    }

    pub fn log(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.path().join("log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    pub fn without(self, library: &str) -> FakeDriver {
        std::fs::remove_file(self.path().join(library)).unwrap();
        self
    }
}

/// The libraries, built once for these sources and kept beside the build's own files.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut sources = DefaultHasher::new();
        (SOURCES, SCRIPT).hash(&mut sources);
        let place = crate::built().join(format!("scripted-driver-{:016x}", sources.finish()));
        if !place.exists() {
            let folder = tempfile::tempdir_in(crate::built()).unwrap();
            build(folder.path());
            // Another test's process may have been faster; its libraries are the same.
            if std::fs::rename(folder.path(), &place).is_ok() {
                let _ = folder.keep();
            }
        }
        place
    })
}

fn build(folder: &Path) {
    std::fs::write(folder.join("script.h"), SCRIPT).unwrap();
    let cc = std::env::var_os("CC").map_or_else(|| PathBuf::from("cc"), PathBuf::from);
    for (name, source) in SOURCES {
        let file = folder.join(name).with_extension("c");
        std::fs::write(&file, source).unwrap();
        let mut command = Command::new(&cc);
        command.args(["-shared", "-fPIC", "-O1", "-w", "-o"]).arg(folder.join(name)).arg(&file).arg("-ldl");
        let output = command.output().unwrap_or_else(|error| panic!("{}: {error}", cc.display()));
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
