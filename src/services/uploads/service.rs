//! The service of all uploads: who is at which of them, and their rows.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use conveyor_base::limits::UPLOAD_IDLE_MS;
use conveyor_base::{Fault, Older, ShareIo, Shares, Timestamp, Uri};
use conveyor_run::Refused;
use conveyor_run::service::{Pending, Requester, Service, Turn};
use conveyor_store::{Commit, UploadRow};
use tokio::sync::{mpsc, oneshot};

use super::files::Removal;
use super::{Message, NewUpload, UploadProgress, broken, files, unknown};

const SWEEP_MS: i64 = 86_400_000;

pub(super) struct UploadService {
    io: ShareIo,
    /// Who waits for uploads that are about to begin.
    beginning: HashMap<String, Requester<Result<String, Refused>>>,
    /// Uploads with which something is going on.
    busy: HashMap<String, Busy>,
    pending: Pending<String, UploadRow>,
    sweep_at: Timestamp,
    /// Shares that a sweep is looking at: one that is gone takes no second thread.
    sweeping: HashSet<String>,
}

enum Busy {
    Writing {
        row: UploadRow,
        requester: Requester<Result<UploadProgress, Refused>>,
        /// Cuts the writer off, also when this is dropped.
        stop: Option<oneshot::Sender<()>>,
        given_up: Vec<Requester<Result<(), Refused>>>,
    },
    /// The part is whole and becomes the file.
    Landing { row: UploadRow, requester: Requester<Result<UploadProgress, Refused>> },
    /// The part is being removed.
    Leaving(Vec<Requester<Result<(), Refused>>>),
}

type Deciding<'a> = Turn<'a, Message>;

impl UploadService {
    pub fn new(io: ShareIo) -> UploadService {
        UploadService {
            io,
            beginning: HashMap::new(),
            busy: HashMap::new(),
            pending: Pending::default(),
            sweep_at: Timestamp(0),
            sweeping: HashSet::new(),
        }
    }
}

impl Service for UploadService {
    type Message = Message;

    fn handle(&mut self, turn: &mut Deciding<'_>, message: Message) {
        self.pending.forget(turn.durable());
        match message {
            Message::Begin { new, requester } => self.begin(turn, new, requester),
            Message::Begun { id, outcome } => self.begun(turn, id, outcome),
            Message::Write { id, at, pieces, requester } => self.write(turn, id, at, pieces, requester),
            Message::Written { id, outcome } => self.written(turn, id, outcome),
            Message::Landed { id, outcome } => self.landed(turn, id, outcome),
            Message::Terminate { id, requester } => self.terminate(turn, id, requester),
            Message::Removed { id, outcome } => self.removed(turn, id, outcome),
            Message::Listed(Ok(uploads)) => self.look(turn, uploads),
            Message::Listed(Err(fault)) => turn.note(&fault),
            Message::Looked { share, idle } => self.looked(turn, &share, idle),
        }
    }

    fn wake(&mut self, turn: &mut Deciding<'_>) {
        let now = turn.now();
        if now >= self.sweep_at {
            self.sweep_at = now.plus_ms(SWEEP_MS);
            self.sweep(turn);
        }
        turn.wake_at(self.sweep_at);
    }
}

impl UploadService {
    fn begin(&mut self, turn: &mut Deciding<'_>, new: NewUpload, requester: Requester<Result<String, Refused>>) {
        let uri = match new.uri() {
            Ok(uri) => uri,
            Err(refused) => return turn.answer(requester, Err(refused)),
        };
        let id = uuid::Uuid::new_v4().simple().to_string();
        let part = files::part_name(&new.name, &id);
        self.beginning.insert(id.clone(), requester);
        let (io, share, of) = (self.io.clone(), new.share.clone(), id.clone());
        let open = move |shares: &Shares| -> Result<Option<UploadRow>, Refused> {
            let part = files::open_part(shares, &uri, &part, new.bytes)?;
            if new.bytes == 0 {
                let landed = files::land(&part, uri)?;
                tracing::info!(file = %landed, bytes = 0, by = new.by, "an upload landed");
                return Ok(None);
            }
            let part = part.name().to_string_lossy().into_owned();
            Ok(Some(UploadRow { share: uri.share, key: uri.key, part, bytes: new.bytes, by: new.by }))
        };
        let opened = async move { Message::Begun { id, outcome: joined(io.run(&[&share], open).await) } };
        turn.act(opened, |what| Message::Begun { id: of, outcome: Err(broken(what)) });
    }

    fn begun(&mut self, turn: &mut Deciding<'_>, id: String, outcome: Result<Option<UploadRow>, Refused>) {
        let requester = self.beginning.remove(&id).unwrap_or_else(Requester::nobody);
        let row = match outcome {
            Ok(Some(row)) => row,
            Ok(None) => return turn.answer(requester, Ok(id)),
            Err(refused) => return turn.answer(requester, Err(refused)),
        };
        let mut commit = Commit::new();
        commit.put_upload(&id, &row);
        if let Some(number) = turn.settle(commit, requester, Ok(id.clone())) {
            self.pending.put(number, id, Some(row));
        }
    }

    fn write(
        &mut self,
        turn: &mut Deciding<'_>,
        id: String,
        at: Option<u64>,
        pieces: mpsc::Receiver<Bytes>,
        requester: Requester<Result<UploadProgress, Refused>>,
    ) {
        if self.busy.contains_key(&id) {
            let what = "This upload is being written to by another request";
            return turn.answer(requester, Err(Refused::new("ConflictException", what)));
        }
        let Some(row) = self.row(turn, &id) else { return };
        let Some(row) = row else { return turn.answer(requester, Err(unknown())) };
        let (stop, stopped) = oneshot::channel();
        self.busy
            .insert(id.clone(), Busy::Writing { row: row.clone(), requester, stop: Some(stop), given_up: Vec::new() });
        let (io, of) = (self.io.clone(), id.clone());
        let written =
            async move { Message::Written { id, outcome: files::write(&io, &row, at, pieces, stopped).await } };
        turn.act(written, |what| Message::Written { id: of, outcome: Err(broken(what)) });
    }

    fn written(&mut self, turn: &mut Deciding<'_>, id: String, outcome: Result<u64, Refused>) {
        let Some(Busy::Writing { row, requester, given_up, .. }) = self.busy.remove(&id) else { return };
        if !given_up.is_empty() {
            turn.answer(requester, Err(unknown()));
            return self.leave(turn, id, row, None, given_up);
        }
        match outcome {
            Ok(offset) if offset == row.bytes => self.land(turn, id, row, requester),
            Ok(offset) => turn.answer(requester, Ok(UploadProgress { offset, key: None })),
            Err(refused) => turn.answer(requester, Err(refused)),
        }
    }

    fn land(
        &mut self,
        turn: &mut Deciding<'_>,
        id: String,
        row: UploadRow,
        requester: Requester<Result<UploadProgress, Refused>>,
    ) {
        let (uri, of_part) = (Uri::new(&row.share, &row.key), row.clone());
        self.busy.insert(id.clone(), Busy::Landing { row, requester });
        let (io, share, of) = (self.io.clone(), uri.share.clone(), id.clone());
        let land = move |shares: &Shares| files::land(&files::part(shares, &of_part)?, uri);
        let landed = async move { Message::Landed { id, outcome: joined(io.run_long(&[&share], land).await) } };
        turn.act(landed, |what| Message::Landed { id: of, outcome: Err(broken(what)) });
    }

    fn landed(&mut self, turn: &mut Deciding<'_>, id: String, outcome: Result<Uri, Refused>) {
        let busy = self.busy.remove(&id);
        let (requester, bytes) = match busy {
            Some(Busy::Landing { row, requester }) => {
                if let Ok(file) = &outcome {
                    tracing::info!(%file, bytes = row.bytes, by = row.by, "an upload landed");
                }
                (requester, row.bytes)
            }
            // It began before this service did, and nobody waits any more.
            _ => (Requester::nobody(), 0),
        };
        match outcome {
            Ok(file) => self.drop_row(turn, id, requester, Ok(UploadProgress { offset: bytes, key: Some(file.key) })),
            Err(refused) => turn.answer(requester, Err(refused)),
        }
    }

    fn terminate(&mut self, turn: &mut Deciding<'_>, id: String, requester: Requester<Result<(), Refused>>) {
        match self.busy.get_mut(&id) {
            Some(Busy::Writing { stop, given_up, .. }) => {
                given_up.push(requester);
                // Its writer sees that it is gone.
                drop(stop.take());
            }
            Some(Busy::Leaving(waiting)) => waiting.push(requester),
            Some(Busy::Landing { .. }) => {
                turn.answer(
                    requester,
                    Err(Refused::new("ConflictException", "This upload is whole and becomes a file")),
                );
            }
            None => match self.row(turn, &id) {
                None => {}
                Some(None) => turn.answer(requester, Err(unknown())),
                Some(Some(row)) => self.leave(turn, id, row, None, vec![requester]),
            },
        }
    }

    /// The part goes before the row: what a crash leaves can be terminated again. `idle`: only if it was written to
    /// that long ago.
    fn leave(
        &mut self,
        turn: &mut Deciding<'_>,
        id: String,
        row: UploadRow,
        idle: Option<Older>,
        waiting: Vec<Requester<Result<(), Refused>>>,
    ) {
        self.busy.insert(id.clone(), Busy::Leaving(waiting));
        let (io, share, of) = (self.io.clone(), row.share.clone(), id.clone());
        let remove = move |shares: &Shares| files::remove(shares, &row, idle.as_ref());
        let removed = async move { Message::Removed { id, outcome: joined(io.run(&[&share], remove).await) } };
        turn.act(removed, |what| Message::Removed { id: of, outcome: Err(broken(what)) });
    }

    fn removed(&mut self, turn: &mut Deciding<'_>, id: String, outcome: Result<Removal, Refused>) {
        let waiting = match self.busy.remove(&id) {
            Some(Busy::Leaving(waiting)) => waiting,
            _ => Vec::new(),
        };
        let outcome = match outcome {
            Ok(Removal::Gone) => {
                self.drop_row(turn, id, Requester::nobody(), ());
                Ok(())
            }
            // Whoever asked meanwhile wants it gone all the same.
            Ok(Removal::Kept) if !waiting.is_empty() => {
                if let Some(Some(row)) = self.row(turn, &id) {
                    self.leave(turn, id, row, None, waiting);
                }
                return;
            }
            Ok(Removal::Kept) => return,
            Err(refused) => Err(refused),
        };
        for requester in waiting {
            turn.answer(requester, outcome.clone());
        }
    }

    /// Begins to look for uploads that nobody goes on with.
    fn sweep(&mut self, turn: &mut Deciding<'_>) {
        let reader = turn.reader().clone();
        let listed = async move { Message::Listed(reader.blocking(|rows| rows.uploads()).await) };
        turn.act(listed, |what| Message::Listed(Err(Fault::Retryable { what, source: None })));
    }

    fn look(&mut self, turn: &mut Deciding<'_>, uploads: Vec<(String, UploadRow)>) {
        let idle = idle_for(turn);
        let mut by_share: BTreeMap<String, Vec<(String, UploadRow)>> =
            self.io.shares().names().map(|share| (share.to_owned(), Vec::new())).collect();
        for (id, row) in uploads {
            if let Some(of_share) = by_share.get_mut(&row.share) {
                of_share.push((id, row));
            }
        }
        for (share, uploads) in by_share {
            if !self.sweeping.insert(share.clone()) {
                continue;
            }
            let (io, of, panicked, idle) = (self.io.clone(), share.clone(), share.clone(), idle.clone());
            let look = move |shares: &Shares| files::sweep(shares, &of, &uploads, &idle);
            let looked = async move {
                let idle = io.run_long(&[&share], look).await;
                Message::Looked { share, idle: idle.unwrap_or_default() }
            };
            turn.act(looked, |_| Message::Looked { share: panicked, idle: Vec::new() });
        }
    }

    /// The look may have taken long: that nothing came meanwhile is made sure of while nobody can write.
    fn looked(&mut self, turn: &mut Deciding<'_>, share: &str, idle: Vec<String>) {
        self.sweeping.remove(share);
        for id in idle {
            if self.busy.contains_key(&id) {
                continue;
            }
            let Some(row) = self.row(turn, &id) else { return };
            if let Some(row) = row {
                tracing::info!(file = row.key, share, by = row.by, "an upload that nobody went on with is given up");
                self.leave(turn, id, row, Some(idle_for(turn)), Vec::new());
            }
        }
    }

    fn drop_row<A: Send + 'static>(&mut self, turn: &mut Deciding<'_>, id: String, requester: Requester<A>, answer: A) {
        let mut commit = Commit::new();
        commit.delete_upload(&id);
        if let Some(number) = turn.settle(commit, requester, answer) {
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

fn joined<T>(done: Result<Result<T, Refused>, Fault>) -> Result<T, Refused> {
    done?
}

/// How old the part of an upload is that is idle. What is removed by it is gone: a clock that is wrong does not count.
fn idle_for(turn: &Deciding<'_>) -> Older {
    turn.handle().clock().older_than(UPLOAD_IDLE_MS)
}
