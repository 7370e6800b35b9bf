//! Uploads straight to a share, piece by piece: whoever is cut off asks how far it came and goes on.
//!
//! ```text
//! begin ──▶ .NAME.ID.part ──write … write──▶ whole? sync, then rename to NAME
//!                 └──terminate─▶ gone
//! ```
//!
//! What nobody goes on with is terminated after a week, and so is what a crash left half of: at the start and once a day the
//! service looks at its rows and at the folders that these and the shares' roots are. A share that may be away is left alone.
//!
//! Invariants: a file has its own name only when it is whole and on the disk; nothing that was there is overwritten; the
//! length of the part is how far the upload came, also after a crash; one writes to a part at a time, and a part that
//! is whole becomes the file whether or not its writer still listens.

mod files;
mod service;

use bytes::Bytes;
use conveyor_base::{Fault, ShareIo, Uri};
use conveyor_run::service::{Address, Requester};
use conveyor_run::{Handle, OnBehalf, Refused};
use conveyor_store::UploadRow;
use tokio::sync::mpsc;

use files::Removal;
use service::UploadService;

const BYTES_MAX: u64 = 16 << 40;

/// The uploads of this box. Cheap to clone.
#[derive(Clone)]
pub struct Uploads {
    io: ShareIo,
    service: Address<Message>,
}

/// A file that is to come.
#[derive(Clone, Debug)]
pub struct NewUpload {
    pub share: String,
    /// The folder below the share's root; empty for the root itself.
    pub folder: String,
    pub name: String,
    pub bytes: u64,
    /// Who begins it.
    pub by: String,
}

/// How far an upload has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadProgress {
    pub offset: u64,
    /// The key that the file came to have, once it is whole.
    pub key: Option<String>,
}

/// What the service is sent.
pub enum Message {
    Begin {
        new: NewUpload,
        requester: Requester<Result<String, Refused>>,
    },
    /// The part is there; `None`: there was nothing to come, and the file is.
    Begun {
        id: String,
        outcome: Result<Option<UploadRow>, Refused>,
    },
    Write {
        id: String,
        /// Where the writer believes the part to end.
        at: Option<u64>,
        pieces: mpsc::Receiver<Bytes>,
        requester: Requester<Result<UploadProgress, Refused>>,
    },
    /// The writer is through, in whichever way.
    Written {
        id: String,
        outcome: Result<u64, Refused>,
    },
    /// The part became the file.
    Landed {
        id: String,
        outcome: Result<Uri, Refused>,
    },
    Terminate {
        id: String,
        requester: Requester<Result<(), Refused>>,
    },
    /// The part of an upload that was terminated is gone. `Kept`: it was not idle after all.
    Removed {
        id: String,
        outcome: Result<Removal, Refused>,
    },
    /// All rows there are, which a sweep goes by.
    Listed(Result<Vec<(String, UploadRow)>, Fault>),
    /// Uploads of a share that are idle, or whose part is gone.
    Looked {
        share: String,
        idle: Vec<String>,
    },
}

impl Uploads {
    pub fn new(io: ShareIo) -> Uploads {
        Uploads { io, service: Address::default() }
    }

    /// Starts the service.
    pub async fn start(&self, handle: &Handle) -> Result<(), Fault> {
        let io = self.io.clone();
        let load = move |_: &_| Ok(UploadService::new(io.clone()));
        handle.serve("the uploads", self.service.clone(), load).await
    }

    /// Begins an upload; answers its id. Who drops this leaves an upload that nobody knows.
    pub async fn begin(&self, new: NewUpload, on_behalf: Option<OnBehalf>) -> Result<String, Refused> {
        let ask = |requester: Requester<_>| Message::Begin { new, requester: requester.on_behalf(on_behalf) };
        self.service.ask(ask).await?
    }

    /// How far an upload came, in bytes.
    pub async fn offset(&self, upload: &UploadRow) -> Result<u64, Refused> {
        files::offset(&self.io, upload).await
    }

    /// Writes pieces to the end of the part until their sender is dropped, and makes the part the file where it is whole
    /// then. Who drops this, and the sender, leaves the part as it is.
    pub async fn write(
        &self,
        id: &str,
        at: Option<u64>,
        pieces: mpsc::Receiver<Bytes>,
    ) -> Result<UploadProgress, Refused> {
        self.service.ask(|requester| Message::Write { id: id.to_owned(), at, pieces, requester }).await?
    }

    /// Terminates an upload: its part goes, and whoever writes to it is cut off.
    pub async fn terminate(&self, id: &str) -> Result<(), Refused> {
        self.service.ask(|requester| Message::Terminate { id: id.to_owned(), requester }).await?
    }
}

impl NewUpload {
    /// Where it goes to, once it is whole.
    fn uri(&self) -> Result<Uri, Refused> {
        let name = &self.name;
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
            return Err(refused("a file's name is not empty, begins with no dot and has no slash"));
        }
        if self.bytes > BYTES_MAX {
            return Err(refused("the file is larger than 16 TiB"));
        }
        let folder = self.folder.trim_matches('/');
        let key = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        Ok(Uri::new(&self.share, &key))
    }
}

/// An upload that may not begin.
pub fn refused(what: &str) -> Refused {
    Refused::new("ValidationException", format!("This upload cannot begin: {what}"))
}

/// There is none of that id.
pub fn unknown() -> Refused {
    Refused::new("ResourceNotFound", "There is no such upload; it may have ended")
}

/// Work on the files panicked.
fn broken(what: String) -> Refused {
    Refused::new("InternalFailure", format!("the upload ended in a panic: {what}"))
}
