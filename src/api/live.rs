//! [`Live`]: what happens right now, for screens: changes of executions and the progress of running stages.
//!
//! One task listens to the runtime, finds the top execution of what is nested, thins the flood out and numbers what is
//! left. Every stream of server-sent events reads the same frames. Nothing here is durable: who lost the thread is told
//! to read anew (`resync`).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use conveyor_base::{BoxClock, ExecutionId, Fault};
use conveyor_interpreter::Status;
use conveyor_job::Progress;
use conveyor_run::{Handle, LiveUpdate, OnFailure};
use conveyor_store::Reader;
use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::json;
use tokio::sync::broadcast;

use super::gate::limit::Places;
use super::gate::peer::Peer;
use super::session::{self, Session};
use super::{ApiError, AppState};

/// How often frames go out: what changed more than once in between is one frame.
const TICK: Duration = Duration::from_millis(200);
/// Executions that changed within a tick, above which screens are told to look again instead of what changed.
const CHANGED_MAX: usize = 256;
/// Frames kept for streams that come back.
const FRAMES_KEPT: usize = 1024;
/// Streams open at once, of which one address gets half.
const STREAMS_MAX: usize = 1024;
/// How deep nesting is followed upward.
const DEPTH_MAX: usize = 16;

/// A stage's progress as screens show it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StageProgress {
    pub execution: String,
    pub workflow: String,
    pub state: String,
    #[serde(flatten)]
    pub progress: Progress,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<i64>,
}

struct Frame {
    number: u64,
    name: &'static str,
    data: String,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Live(Arc<Inner>);

struct Inner {
    /// Distinguishes this run's frame numbers from another's.
    boot: String,
    frames: broadcast::Sender<Arc<Frame>>,
    kept: Mutex<VecDeque<Arc<Frame>>>,
    latest: Mutex<LatestProgress>,
    places: Places,
}

#[derive(Default)]
struct LatestProgress {
    /// The newest progress of each execution that has a running stage.
    progress: HashMap<ExecutionId, StageProgress>,
    /// The same by the execution at the top.
    by_root: HashMap<ExecutionId, ExecutionId>,
    roots: HashMap<ExecutionId, (ExecutionId, String)>,
}

impl Live {
    /// Begins to listen, for as long as the appliance runs.
    pub fn start(handle: &Handle) -> Live {
        let live = Live(Arc::new(Inner {
            boot: uuid::Uuid::new_v4().simple().to_string(),
            frames: broadcast::channel(FRAMES_KEPT).0,
            kept: Mutex::new(VecDeque::new()),
            latest: Mutex::new(LatestProgress::default()),
            places: Places::new(STREAMS_MAX),
        }));
        let (listening, first) = (live.clone(), Mutex::new(Some(handle.subscribe())));
        let of = handle.clone();
        let listen = move || {
            let updates = first.lock().take();
            // What was told between a failure and this is lost.
            let lost = updates.is_none();
            let (reader, clock) = (of.reader().clone(), of.clock().clone());
            listen(listening.clone(), updates.unwrap_or_else(|| of.subscribe()), lost, reader, clock)
        };
        let handle = handle.clone();
        tokio::spawn(async move {
            // It fails where the appliance ends.
            let _ = handle.run_supervised("the live stream", OnFailure::Restart, listen).await;
        });
        live
    }

    /// How far an execution is, by its own stage or by that of one nested in it.
    pub fn progress(&self, id: ExecutionId) -> Option<StageProgress> {
        let latest = self.0.latest.lock();
        let nested = latest.by_root.get(&id).and_then(|nested| latest.progress.get(nested));
        nested.or_else(|| latest.progress.get(&id)).cloned()
    }

    fn publish(&self, name: &'static str, data: String) {
        let mut kept = self.0.kept.lock();
        let number = kept.back().map_or(1, |newest| newest.number + 1);
        let frame = Arc::new(Frame { number, name, data });
        if kept.len() == FRAMES_KEPT {
            kept.pop_front();
        }
        kept.push_back(frame.clone());
        // Nobody listening is no fault.
        let _ = self.0.frames.send(frame);
    }

    /// The frames after the one that a stream saw last, or `None` where they are gone.
    fn since(&self, last: &str) -> Option<Vec<Arc<Frame>>> {
        let number: u64 = last.strip_prefix(&self.0.boot)?.strip_prefix('-')?.parse().ok()?;
        let kept = self.0.kept.lock();
        let newest = kept.back().map_or(0, |f| f.number);
        let oldest = kept.front().map_or(newest + 1, |f| f.number);
        if number > newest || number + 1 < oldest {
            return None;
        }
        Some(kept.iter().filter(|f| f.number > number).cloned().collect())
    }

    fn event(&self, frame: &Frame) -> Event {
        Event::default().event(frame.name).id(format!("{}-{}", self.0.boot, frame.number)).data(&frame.data)
    }
}

async fn listen(
    live: Live,
    mut updates: broadcast::Receiver<LiveUpdate>,
    mut lost: bool,
    reader: Reader,
    clock: Arc<BoxClock>,
) -> Result<(), Fault> {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut changed, mut moved) = (BTreeMap::new(), BTreeMap::new());
    loop {
        tokio::select! {
            update = updates.recv() => match update {
                Ok(LiveUpdate::Changed { execution, status, .. }) => {
                    if changed.len() < CHANGED_MAX || changed.contains_key(&execution) {
                        changed.insert(execution, status);
                    } else {
                        lost = true;
                    }
                }
                // What needs no lane is over at once, or waits for others: it would hide what really moves.
                Ok(LiveUpdate::Progress { running, .. }) if running.lane.is_empty() => {}
                Ok(LiveUpdate::Progress { execution, running }) => { moved.insert(execution, running); }
                Err(broadcast::error::RecvError::Lagged(_)) => lost = true,
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            },
            _ = tick.tick(), if lost || !changed.is_empty() || !moved.is_empty() => {
                let (now, out) = (clock.now(), |name, data| live.publish(name, data));
                if std::mem::take(&mut lost) {
                    // Whose end was missed would stay here; what runs comes back with its next progress.
                    *live.0.latest.lock() = LatestProgress::default();
                    out("resync", "{}".to_owned());
                }
                for (id, running) in std::mem::take(&mut moved) {
                    let (root, workflow) = live.root(&reader, id).await;
                    let left_ms = left(now.since_ms(running.started_at), running.progress.fraction);
                    let (state, progress) = (running.state.to_string(), running.progress);
                    let shown = StageProgress { execution: id.to_string(), workflow, state, progress, left_ms };
                    out("progress", json!({"id": id.to_string(), "root": root.to_string(), "progress": shown}).to_string());
                    let mut latest = live.0.latest.lock();
                    latest.progress.insert(id, shown);
                    latest.by_root.insert(root, id);
                }
                for (id, status) in std::mem::take(&mut changed) {
                    let (root, _) = live.root(&reader, id).await;
                    out("execution", json!({"id": id.to_string(), "root": root.to_string(), "status": status.name()}).to_string());
                    if status != Status::Running {
                        live.forget(id, root);
                    }
                }
            }
        }
    }
}

impl Live {
    /// The execution at the top, and the workflow that this one runs.
    async fn root(&self, reader: &Reader, id: ExecutionId) -> (ExecutionId, String) {
        if let Some(known) = self.0.latest.lock().roots.get(&id) {
            return known.clone();
        }
        let (mut root, mut workflow) = (id, String::new());
        for _ in 0..DEPTH_MAX {
            let Ok(Some(header)) = reader.header(root).await else { break };
            if root == id {
                workflow = header.machine.name;
            }
            match (header.parent, header.child) {
                (Some(parent), _) => root = parent.execution,
                (None, Some(child)) => root = child.parent,
                (None, None) => break,
            }
        }
        self.0.latest.lock().roots.insert(id, (root, workflow.clone()));
        (root, workflow)
    }

    fn forget(&self, id: ExecutionId, root: ExecutionId) {
        let mut latest = self.0.latest.lock();
        latest.progress.remove(&id);
        latest.roots.remove(&id);
        if id == root || latest.by_root.get(&root) == Some(&id) {
            latest.by_root.remove(&root);
        }
    }
}

/// What is left at the present pace. Nothing can be said of the first moments.
fn left(elapsed_ms: i64, fraction: f64) -> Option<i64> {
    if !(0.02..1.0).contains(&fraction) || elapsed_ms < 1000 {
        return None;
    }
    Some((elapsed_ms as f64 * (1.0 - fraction) / fraction) as i64)
}

/// `GET /api/v1/events`: the frames as they come, and a comment every 15 s so that nobody between closes the stream.
///
/// It ends with the session that it was opened in.
pub async fn events(
    State(app): State<AppState>,
    Extension(peer): Extension<Peer>,
    session: Option<Extension<Session>>,
    headers: HeaderMap,
) -> Response {
    let Some(place) = app.live.0.places.take(peer.address) else {
        return ApiError::new("ThrottlingException", "Too many screens are open; close some").into_response();
    };
    let last = headers.get("last-event-id").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let frames = stream(app.live.clone(), last).map(move |event| {
        let _held = &place;
        event
    });
    let stream = frames.take_until(Box::pin(session::until_ended(app, session.map(|Extension(session)| session))));
    Sse::new(stream).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))).into_response()
}

fn stream(live: Live, last: Option<String>) -> impl Stream<Item = Result<Event, Infallible>> {
    // Subscribed before the kept frames are read: what is in both is dropped by its number.
    let frames = live.0.frames.subscribe();
    let mut waiting = VecDeque::new();
    let mut seen = 0;
    if let Some(last) = last {
        match live.since(&last) {
            Some(missed) => {
                seen = missed.last().map_or(0, |f| f.number);
                waiting.extend(missed.iter().map(|f| live.event(f)));
            }
            None => waiting.push_back(Event::default().event("resync").data("{}")),
        }
    }
    futures::stream::unfold((live, frames, waiting, seen), |(live, mut frames, mut waiting, seen)| async move {
        if let Some(event) = waiting.pop_front() {
            return Some((Ok(event), (live, frames, waiting, seen)));
        }
        loop {
            match frames.recv().await {
                Ok(frame) if frame.number <= seen => continue,
                Ok(frame) => {
                    let event = live.event(&frame);
                    return Some((Ok(event), (live, frames, waiting, frame.number)));
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    let event = Event::default().event("resync").data("{}");
                    return Some((Ok(event), (live, frames, waiting, seen)));
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_comes_back_gets_what_it_missed_or_is_told_to_read_anew() {
        let live = Live(Arc::new(Inner {
            boot: "b".into(),
            frames: broadcast::channel(8).0,
            kept: Mutex::default(),
            latest: Mutex::default(),
            places: Places::new(1),
        }));
        for _ in 1..=(FRAMES_KEPT as u64 + 10) {
            live.publish("execution", "{}".into());
        }
        let newest = FRAMES_KEPT as u64 + 10;
        assert_eq!(live.since(&format!("b-{newest}")).map(|f| f.len()), Some(0));
        assert_eq!(live.since(&format!("b-{}", newest - 3)).map(|f| f.len()), Some(3));
        assert_eq!(live.since("b-10").map(|f| f.len()), Some(FRAMES_KEPT));
        for gone in ["b-9", "other-12", "b-99999", "nonsense"] {
            assert!(live.since(gone).is_none(), "{gone}");
        }
    }

    #[test]
    fn what_is_left_follows_from_the_pace() {
        assert_eq!(left(10_000, 0.25), Some(30_000));
        assert_eq!(left(10_000, 0.0), None);
        assert_eq!(left(10_000, 1.0), None);
    }
}
