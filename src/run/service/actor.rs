//! The actor of a service: one message after the other, its alarm clock, and its start out of the rows.

use std::sync::Arc;
use std::time::Duration;

use conveyor_base::{Fault, Timestamp};
use conveyor_store::Scans;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{PendingCommit, Service, ServiceShared, Turn, words};
use crate::supervise::{StartedPart, as_part};

/// The longest sleep: the clock may be set meanwhile.
const SLEEP_MS_MAX: i64 = 30_000;

pub(crate) enum Mail<M> {
    Message(M),
    /// The alarm clock.
    Wake,
}

pub(super) struct ServiceActor<S>(std::marker::PhantomData<fn() -> S>);

pub(super) type Load<S> = Arc<dyn Fn(&Scans) -> Result<S, Fault> + Send + Sync>;

pub(super) struct State<S: Service> {
    service: S,
    shared: Arc<ServiceShared<S::Message>>,
    /// When the service asked to be woken.
    wake: Option<Timestamp>,
    sleeper: Option<Sleeper>,
}

struct Sleeper {
    /// When it is to ring, and when that was set.
    rings_at: Timestamp,
    set_at: Timestamp,
    task: JoinHandle<()>,
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<S: Service> ServiceActor<S> {
    pub async fn start(
        shared: Arc<ServiceShared<S::Message>>,
        load: Load<S>,
        root: ActorCell,
    ) -> Result<StartedPart, String> {
        let address = shared.address.clone();
        // Until it is there nobody reaches it.
        *address.0.write() = None;
        let spawned =
            ServiceActor::spawn_linked(None, ServiceActor(std::marker::PhantomData), (shared, load), root).await;
        let (actor, _) = spawned.map_err(|e| e.to_string())?;
        let cell = actor.get_cell();
        let go = Box::new(move || {
            *address.0.write() = Some(actor.clone());
            // Its first look at what is to be done; it is gone only when the appliance ends.
            let _ = actor.cast(Mail::Wake);
        });
        Ok(StartedPart { actor: cell, go })
    }
}

impl<S: Service> Actor for ServiceActor<S> {
    type Msg = Mail<S::Message>;
    type State = State<S>;
    type Arguments = (Arc<ServiceShared<S::Message>>, Load<S>);

    async fn pre_start(
        &self,
        _: ActorRef<Self::Msg>,
        (shared, load): Self::Arguments,
    ) -> Result<State<S>, ActorProcessingErr> {
        // What the former actor decided is on the disk before the rows are read.
        let (done, all_durable) = oneshot::channel();
        let then = Box::new(move || {
            // Whoever starts the service may have given up.
            let _ = done.send(());
        });
        let _ = shared.commits.send(PendingCommit { commit: None, then });
        all_durable.await.map_err(|_| "the store is closed")?;
        let loaded = shared.core.reader.blocking(move |rows| load(rows)).await;
        let service = loaded.map_err(|fault| words(&fault))?;
        Ok(State { service, shared, wake: None, sleeper: None })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        mail: Self::Msg,
        state: &mut State<S>,
    ) -> Result<(), ActorProcessingErr> {
        let State { service, shared, wake, sleeper } = state;
        as_part(&shared.name.clone(), || {
            let now = shared.core.clock.now();
            match mail {
                Mail::Message(message) => service.handle(&mut Turn { now, shared, wake }, message),
                Mail::Wake => {
                    let too_early = wake.is_some_and(|at| at > now);
                    // What was asked for by a clock that ran ahead may lie years away.
                    let set_back = sleeper.as_ref().is_some_and(|sleeper| sleeper.set_at > now);
                    if !too_early || set_back {
                        *wake = None;
                        service.wake(&mut Turn { now, shared, wake });
                    }
                }
            }
        });
        state.set_alarm(&myself);
        Ok(())
    }
}

impl<S: Service> State<S> {
    fn set_alarm(&mut self, myself: &ActorRef<Mail<S::Message>>) {
        let Some(at) = self.wake else { return };
        if self.sleeper.as_ref().is_some_and(|sleeper| sleeper.rings_at == at && !sleeper.task.is_finished()) {
            return;
        }
        let now = self.shared.core.clock.now();
        let wait_ms = at.since_ms(now).clamp(0, SLEEP_MS_MAX);
        let myself = myself.clone();
        let task = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(wait_ms.unsigned_abs())).await;
            // It is gone with the appliance, or has been started again with an alarm of its own.
            let _ = myself.cast(Mail::Wake);
        });
        self.sleeper = Some(Sleeper { rings_at: at, set_at: now, task });
    }
}
