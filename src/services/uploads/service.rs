//! The service of all uploads: who is at which of them, and their rows.

use std::collections::HashMap;
use std::path::PathBuf;

use bytes::Bytes;
use conveyor_base::{Shares, Uri};
use conveyor_run::Refused;
use conveyor_run::service::{Asked, Pending, Service, Turn};
use conveyor_store::{Commit, UploadRow};
use tokio::sync::{mpsc, oneshot};

use super::{Message, NewUpload, Reached, broken, files, unknown};

pub(super) struct UploadService {
    shares: Shares,
    /// Who waits for uploads that are about to begin.
    beginning: HashMap<String, Asked<Result<String, Refused>>>,
    /// Uploads with which something is going on.
    busy: HashMap<String, Busy>,
    pending: Pending<String, UploadRow>,
}

enum Busy {
    Writing {
        row: UploadRow,
        asked: Asked<Result<Reached, Refused>>,
        /// Cuts the writer off, also when this is dropped.
        stop: Option<oneshot::Sender<()>>,
        given_up: Vec<Asked<Result<(), Refused>>>,
    },
    /// The part is whole and becomes the file.
    Landing { row: UploadRow, asked: Asked<Result<Reached, Refused>> },
    /// The part is being removed.
    Leaving(Vec<Asked<Result<(), Refused>>>),
}

type Deciding<'a> = Turn<'a, Message>;

impl UploadService {
    pub fn new(shares: Shares) -> UploadService {
        UploadService { shares, beginning: HashMap::new(), busy: HashMap::new(), pending: Pending::default() }
    }
}

impl Service for UploadService {
    type Message = Message;

    fn handle(&mut self, turn: &mut Deciding<'_>, message: Message) {
        self.pending.forget(turn.durable());
        match message {
            Message::Begin { new, asked } => self.begin(turn, new, asked),
            Message::Begun { id, outcome } => self.begun(turn, id, outcome),
            Message::Write { id, at, pieces, asked } => self.write(turn, id, at, pieces, asked),
            Message::Written { id, outcome } => self.written(turn, id, outcome),
            Message::Landed { id, outcome } => self.landed(turn, id, outcome),
            Message::GiveUp { id, asked } => self.give_up(turn, id, asked),
            Message::Removed { id, outcome } => self.removed(turn, id, outcome),
        }
    }
}

impl UploadService {
    fn begin(&mut self, turn: &mut Deciding<'_>, new: NewUpload, asked: Asked<Result<String, Refused>>) {
        let uri = match new.uri() {
            Ok(uri) => uri,
            Err(refused) => return turn.answer(asked, Err(refused)),
        };
        let id = uuid::Uuid::new_v4().simple().to_string();
        let part = format!(".{}.{}.part", new.name, &id[..8]);
        self.beginning.insert(id.clone(), asked);
        let (shares, of) = (self.shares.clone(), id.clone());
        let open = move || -> Result<Option<UploadRow>, Refused> {
            let part = files::open_part(&shares, &uri, &part, new.bytes)?;
            if new.bytes == 0 {
                let landed = files::land(&shares, &part, uri)?;
                tracing::info!(file = %landed, bytes = 0, by = new.by, "an upload landed");
                return Ok(None);
            }
            let part = part.to_string_lossy().into_owned();
            Ok(Some(UploadRow { share: uri.share, key: uri.key, part, bytes: new.bytes, by: new.by }))
        };
        let opened = async move { Message::Begun { id, outcome: apart(open).await } };
        turn.act(opened, |what| Message::Begun { id: of, outcome: Err(broken(what)) });
    }

    fn begun(&mut self, turn: &mut Deciding<'_>, id: String, outcome: Result<Option<UploadRow>, Refused>) {
        let asked = self.beginning.remove(&id).unwrap_or_else(Asked::by_nobody);
        let row = match outcome {
            Ok(Some(row)) => row,
            Ok(None) => return turn.answer(asked, Ok(id)),
            Err(refused) => return turn.answer(asked, Err(refused)),
        };
        let mut commit = Commit::new();
        commit.put_upload(&id, &row);
        if let Some(number) = turn.settle(commit, asked, Ok(id.clone())) {
            self.pending.put(number, id, Some(row));
        }
    }

    fn write(
        &mut self,
        turn: &mut Deciding<'_>,
        id: String,
        at: Option<u64>,
        pieces: mpsc::Receiver<Bytes>,
        asked: Asked<Result<Reached, Refused>>,
    ) {
        if self.busy.contains_key(&id) {
            let what = "This upload is being written to by another request";
            return turn.answer(asked, Err(Refused::new("ConflictException", what)));
        }
        let Some(row) = self.row(turn, &id) else { return };
        let Some(row) = row else { return turn.answer(asked, Err(unknown())) };
        let (stop, stopped) = oneshot::channel();
        self.busy.insert(id.clone(), Busy::Writing { row: row.clone(), asked, stop: Some(stop), given_up: Vec::new() });
        let of = id.clone();
        let written = async move { Message::Written { id, outcome: files::write(&row, at, pieces, stopped).await } };
        turn.act(written, |what| Message::Written { id: of, outcome: Err(broken(what)) });
    }

    fn written(&mut self, turn: &mut Deciding<'_>, id: String, outcome: Result<u64, Refused>) {
        let Some(Busy::Writing { row, asked, given_up, .. }) = self.busy.remove(&id) else { return };
        if !given_up.is_empty() {
            turn.answer(asked, Err(unknown()));
            return self.leave(turn, id, row, given_up);
        }
        match outcome {
            Ok(offset) if offset == row.bytes => self.land(turn, id, row, asked),
            Ok(offset) => turn.answer(asked, Ok(Reached { offset, key: None })),
            Err(refused) => turn.answer(asked, Err(refused)),
        }
    }

    fn land(&mut self, turn: &mut Deciding<'_>, id: String, row: UploadRow, asked: Asked<Result<Reached, Refused>>) {
        let (shares, uri, part) = (self.shares.clone(), Uri::new(&row.share, &row.key), PathBuf::from(&row.part));
        self.busy.insert(id.clone(), Busy::Landing { row, asked });
        let of = id.clone();
        let land = move || files::land(&shares, &part, uri);
        let landed = async move { Message::Landed { id, outcome: apart(land).await } };
        turn.act(landed, |what| Message::Landed { id: of, outcome: Err(broken(what)) });
    }

    fn landed(&mut self, turn: &mut Deciding<'_>, id: String, outcome: Result<Uri, Refused>) {
        let busy = self.busy.remove(&id);
        let (asked, bytes) = match busy {
            Some(Busy::Landing { row, asked }) => {
                if let Ok(file) = &outcome {
                    tracing::info!(%file, bytes = row.bytes, by = row.by, "an upload landed");
                }
                (asked, row.bytes)
            }
            // It began before this service did, and nobody waits any more.
            _ => (Asked::by_nobody(), 0),
        };
        match outcome {
            Ok(file) => self.drop_row(turn, id, asked, Ok(Reached { offset: bytes, key: Some(file.key) })),
            Err(refused) => turn.answer(asked, Err(refused)),
        }
    }

    fn give_up(&mut self, turn: &mut Deciding<'_>, id: String, asked: Asked<Result<(), Refused>>) {
        match self.busy.get_mut(&id) {
            Some(Busy::Writing { stop, given_up, .. }) => {
                given_up.push(asked);
                // Its writer sees that it is gone.
                drop(stop.take());
            }
            Some(Busy::Leaving(waiting)) => waiting.push(asked),
            Some(Busy::Landing { .. }) => {
                turn.answer(asked, Err(Refused::new("ConflictException", "This upload is whole and becomes a file")));
            }
            None => match self.row(turn, &id) {
                None => {}
                Some(None) => turn.answer(asked, Err(unknown())),
                Some(Some(row)) => self.leave(turn, id, row, vec![asked]),
            },
        }
    }

    /// The part goes before the row: what a crash leaves can be given up again.
    fn leave(&mut self, turn: &mut Deciding<'_>, id: String, row: UploadRow, waiting: Vec<Asked<Result<(), Refused>>>) {
        self.busy.insert(id.clone(), Busy::Leaving(waiting));
        let of = id.clone();
        let removed = async move { Message::Removed { id, outcome: files::remove(&row).await } };
        turn.act(removed, |what| Message::Removed { id: of, outcome: Err(broken(what)) });
    }

    fn removed(&mut self, turn: &mut Deciding<'_>, id: String, outcome: Result<(), Refused>) {
        let waiting = match self.busy.remove(&id) {
            Some(Busy::Leaving(waiting)) => waiting,
            _ => Vec::new(),
        };
        if outcome.is_ok() {
            self.drop_row(turn, id, Asked::by_nobody(), ());
        }
        for asked in waiting {
            turn.answer(asked, outcome.clone());
        }
    }

    fn drop_row<A: Send + 'static>(&mut self, turn: &mut Deciding<'_>, id: String, asked: Asked<A>, answer: A) {
        let mut commit = Commit::new();
        commit.delete_upload(&id);
        if let Some(number) = turn.settle(commit, asked, answer) {
            self.pending.put(number, id, None);
        }
    }

    /// An upload's row as it will be once all that was decided is durable. `None` where the store cannot be read: then
    /// nobody is answered, and the appliance ends.
    fn row(&self, turn: &mut Deciding<'_>, id: &str) -> Option<Option<UploadRow>> {
        match self.pending.get(id) {
            Some(pending) => Some(pending.cloned()),
            None => turn.read(|reader| reader.upload(id)),
        }
    }
}

/// Runs what may wait for a share on a thread of its own.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> Result<T, Refused> + Send + 'static) -> Result<T, Refused> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(broken(e.to_string())))
}
