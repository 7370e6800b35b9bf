//! The actor of a service: one message after the other, its alarm clock, and its start out of the rows.

use std::sync::Arc;
use std::time::Duration;

use conveyor_base::{BoxClock, Fault, Timestamp};
use conveyor_store::Scans;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{PendingCommit, Service, ServiceShared, Turn, Wake, words};
use crate::supervise::{StartedPart, as_part};

/// The longest sleep: while the machine is suspended, sleepers do not count.
const SLEEP_MS_MAX: i64 = 30_000;
/// The same where the wall clock is waited for, which may be set meanwhile.
const LOOK_MS: i64 = 1_000;
/// A wall clock that goes back by less was not set, but slowed down.
const SET_BACK_MS: i64 = 1_000;

pub(crate) enum Mail<M> {
    Message(M),
    /// The alarm clock.
    Wake,
    /// The wall clock was set back: what is due by it may be another time now.
    SetBack,
}

pub(super) struct ServiceActor<S>(std::marker::PhantomData<fn() -> S>);

pub(super) type Load<S> = Arc<dyn Fn(&Scans) -> Result<S, Fault> + Send + Sync>;

pub(super) struct State<S: Service> {
    service: S,
    shared: Arc<ServiceShared<S::Message>>,
    wake: Wake,
    alarm: Option<Alarm>,
}

struct Alarm {
    wake: Wake,
    sleeper: JoinHandle<()>,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.sleeper.abort();
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
        Ok(State { service, shared, wake: Wake::default(), alarm: None })
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        mail: Self::Msg,
        state: &mut State<S>,
    ) -> Result<(), ActorProcessingErr> {
        let State { service, shared, wake, .. } = state;
        as_part(&shared.name.clone(), || {
            let now = shared.core.clock.now();
            match mail {
                Mail::Message(message) => service.handle(&mut Turn { now, shared, wake }, message),
                Mail::Wake if !wake.is_due(&shared.core.clock, now) => {}
                Mail::Wake | Mail::SetBack => {
                    *wake = Wake::default();
                    service.wake(&mut Turn { now, shared, wake });
                }
            }
        });
        state.set_alarm(&myself);
        Ok(())
    }
}

impl<S: Service> State<S> {
    fn set_alarm(&mut self, myself: &ActorRef<Mail<S::Message>>) {
        if self.wake == Wake::default() {
            return;
        }
        if self.alarm.as_ref().is_some_and(|alarm| alarm.wake == self.wake && !alarm.sleeper.is_finished()) {
            return;
        }
        let (wake, clock, myself) = (self.wake, self.shared.core.clock.clone(), myself.clone());
        let sleeper = tokio::spawn(async move {
            let mail = match wake.sleep(&clock).await {
                Slept::Due => Mail::Wake,
                Slept::SetBack => Mail::SetBack,
            };
            // It is gone with the appliance, or has been started again with an alarm of its own.
            let _ = myself.cast(mail);
        });
        self.alarm = Some(Alarm { wake, sleeper });
    }
}

enum Slept {
    Due,
    SetBack,
}

impl Wake {
    /// Whether it is time. Whoever asked for no time is always woken.
    fn is_due(&self, clock: &BoxClock, now: Timestamp) -> bool {
        *self == Wake::default()
            || self.at.is_some_and(|at| at <= now)
            || self.at_wall.is_some_and(|at| at <= clock.wall())
    }

    async fn sleep(self, clock: &BoxClock) -> Slept {
        let mut newest = clock.wall();
        loop {
            let wall = clock.wall();
            let until_ms = self.at.map(|at| at.since_ms(clock.now()));
            let until_wall_ms = self.at_wall.map(|at| at.since_ms(wall));
            let left_ms = until_ms.into_iter().chain(until_wall_ms).min().unwrap_or(SLEEP_MS_MAX);
            if left_ms <= 0 {
                return Slept::Due;
            }
            if until_wall_ms.is_some() && newest.since_ms(wall) >= SET_BACK_MS {
                return Slept::SetBack;
            }
            newest = newest.max(wall);
            let most_ms = if until_wall_ms.is_some() { LOOK_MS } else { SLEEP_MS_MAX };
            tokio::time::sleep(Duration::from_millis(left_ms.min(most_ms).unsigned_abs())).await;
        }
    }
}
