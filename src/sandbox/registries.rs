//! GStreamer's lists of plug-ins: making one takes a second or two of every child that has none.
//!
//! A list says which library to load, so that whoever writes it says what the next child runs. It is made by a child that
//! opens no media, in a work folder of its own, and no other child can write it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use conveyor_base::TaskError;
use conveyor_job::Device;
use parking_lot::Mutex;

/// Whether one was made by this process, behind a lock that whoever makes it holds.
type Made = Arc<tokio::sync::Mutex<bool>>;

#[derive(Clone, Debug)]
pub struct Registries {
    folder: PathBuf,
    made: Arc<Mutex<HashMap<PathBuf, Made>>>,
}

impl Registries {
    pub fn new(folder: PathBuf) -> Registries {
        Registries { folder, made: Arc::default() }
    }

    /// The list for a device; `make` is called with the file and a work folder where this process has made none yet.
    /// Whoever comes meanwhile waits. None where it could not be made: the child does without.
    pub async fn of<F>(&self, device: Option<&Device>, make: impl FnOnce(PathBuf, PathBuf) -> F) -> Option<PathBuf>
    where
        F: Future<Output = Result<(), TaskError>>,
    {
        let place = self.place(device);
        let made = self.made.lock().entry(place.clone()).or_default().clone();
        let mut made = made.lock().await;
        if !*made {
            let work_dir = place.with_extension("making");
            let file = work_dir.join("registry");
            let _ = std::fs::remove_dir_all(&work_dir);
            std::fs::create_dir_all(&work_dir).ok()?;
            let end = make(file.clone(), work_dir.clone()).await;
            let kept = end.map_err(|e| e.to_string()).and_then(|()| keep(&file, &place).map_err(|e| e.to_string()));
            let _ = std::fs::remove_dir_all(&work_dir);
            if let Err(error) = kept {
                tracing::warn!(%error, "the list of GStreamer's plug-ins could not be made; every stage looks for itself, which takes a second");
            }
            *made = true;
        }
        place.exists().then_some(place)
    }

    /// The next one makes it anew.
    pub fn forget(&self, device: Option<&Device>) {
        self.made.lock().remove(&self.place(device));
    }

    /// Elements of a GPU are there only where that GPU is seen, so each has a list of its own.
    fn place(&self, device: Option<&Device>) -> PathBuf {
        let name = device.map_or("cores".to_owned(), |device| device.uuid.replace('/', "-"));
        self.folder.join(format!("{name}.registry"))
    }
}

/// The file itself, and no link to another; readable by the stages' user, and written by nobody.
fn keep(made: &Path, place: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    if !made.symlink_metadata()?.is_file() {
        return Err(std::io::Error::other("it is no file"));
    }
    std::fs::set_permissions(made, std::fs::Permissions::from_mode(0o444))?;
    std::fs::rename(made, place)
}
