//! The wiring: from a configuration to a running appliance, and its orderly end.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Duration, timeout};

use super::config::Config;
use super::lanes;
use super::wiring::Parts;
use crate::base::limits::set_quotas;
use crate::base::{Fault, SystemClock, fault};
use crate::ingest::{WatchStatus, Watcher};
use crate::logs::Delivery;
use crate::resources::builtin;
use crate::run::{self, Handle};
use crate::sandbox::ChildProcesses;
use crate::schedule::{Alarms, Schedule, ScheduleSettings};
use crate::store::{self, Options, Writer};

/// This very binary, also after it was replaced on the disk by an upgrade.
const OWN_BINARY: &str = "/proc/self/exe";
/// How long the end of the appliance waits for log lines that are queued.
const LOGS_WRITTEN_MAX: Duration = Duration::from_secs(2);

/// Everything that runs but for the HTTP server.
pub struct Appliance {
    pub handle: Handle,
    pub parts: Parts,
    /// How each watched share is.
    pub watches: Vec<Arc<Mutex<WatchStatus>>>,
    /// The settings in force, for screens.
    pub facts: serde_json::Value,
    writer: Writer,
    tasks: Vec<JoinHandle<()>>,
    /// Who writes what executions log, and how to end it.
    logs: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Appliance {
    /// Opens the store, takes up what was in flight, installs the workflows and watches the shares.
    pub async fn start(config: &Config) -> anyhow::Result<Appliance> {
        // Nothing was read of them before, as nothing runs yet.
        let _ = set_quotas(config.limits);
        let data_dir = &config.data_dir;
        std::fs::create_dir_all(data_dir)
            .with_context(|| format!("cannot make the data directory {}", data_dir.display()))?;
        let data_dir = data_dir.canonicalize().with_context(|| format!("cannot find {}", data_dir.display()))?;
        let (writer, reader) = store::open(Options::at(data_dir.join("store")))?;
        // Written by children, and so apart from everything else; what they found out of a driver may be of an old one.
        let gstreamer = data_dir.join("gstreamer");
        let _ = std::fs::remove_dir_all(&gstreamer);
        let _ = std::fs::remove_file(data_dir.join("gstreamer.registry"));
        let (logs_dir, express_dir) = (data_dir.join("logs"), data_dir.join("express"));
        let aws = config.aws.clone().or_environment(|name| std::env::var(name).ok());
        let spawn = Arc::new(ChildProcesses { program: OWN_BINARY.into(), registry: gstreamer.join("cores.registry") });
        let parts = Parts::new(config, &aws, &data_dir, &reader, spawn)?;
        let handle = run::start(run::Config {
            writer: writer.clone(),
            reader: reader.clone(),
            resources: Arc::new(parts.registry()?),
            clock: Arc::new(SystemClock),
            lanes: lanes::read(config, &data_dir).await,
            account: config.account.clone(),
            region: config.region.clone(),
        })
        .await?;
        parts.start(&handle).await?;
        let logs = handle.take_logs().map(|queue| {
            let (end, closing) = oneshot::channel();
            let clock = Arc::new(SystemClock);
            (end, tokio::spawn(Delivery::new(queue, logs_dir, config.logs, clock).run(closing)))
        });
        let schedules = schedules(config);
        let facts = super::facts::of(config, &schedules.iter().collect::<Vec<_>>());
        let mut appliance =
            Appliance { handle: handle.clone(), parts, watches: Vec::new(), facts, writer, tasks: Vec::new(), logs };
        for (name, share) in config.shares.iter().filter(|(_, share)| !share.path.is_dir()) {
            tracing::warn!("the share '{name}' is not there: {} is no folder; mount or make it", share.path.display());
        }
        builtin::install_all(&handle, &config.substitutions(), !config.shares.is_empty()).await?;
        let again = handle.recover_express(&express_dir).await?;
        if again > 0 {
            tracing::info!(executions = again, "ran express executions anew that had not ended");
        }
        for watch in &config.watch {
            let watcher = Watcher::new(watch.clone(), config.shares(), Arc::new(handle.clone()), reader.clone());
            appliance.watches.push(watcher.status());
            appliance.keep(format!("the watch of share '{}'", watch.share), watcher.run());
        }
        let schedule = Schedule::new(schedules, Arc::new(handle.clone()), reader.clone());
        appliance.keep("the schedules".to_owned(), schedule.run());
        let look = Arc::new(super::troubles::look(config, &data_dir, reader.clone(), &appliance.watches));
        let alarms = Alarms::new(handle.clone(), look, appliance.parts.notifications.clone());
        appliance.keep("the alarms".to_owned(), alarms.run());
        appliance.parts.remote_jobs.take_up(&handle)?;
        Ok(appliance)
    }

    fn keep(&mut self, name: String, work: impl Future<Output = Result<(), Fault>> + Send + 'static) {
        self.tasks.push(tokio::spawn(async move {
            if let Err(fault) = work.await {
                tracing::error!("{name} ended: {}", fault::chain(&fault));
            }
        }));
    }

    /// Ends in order: watchers first, then what runs, then the store. What was under way is taken up at the next start.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.handle.shut_down().await;
        if let Some((end, written)) = self.logs {
            // It ends by itself where the other side is gone.
            let _ = end.send(());
            let _ = timeout(LOGS_WRITTEN_MAX, written).await;
        }
        drop(self.handle);
        tokio::task::spawn_blocking(move || self.writer.close()).await.context("the store did not close")??;
        Ok(())
    }
}

/// The configured schedules, and the one without which the store would grow for ever.
fn schedules(config: &Config) -> BTreeMap<String, ScheduleSettings> {
    let mut schedules = config.schedules.clone();
    if !schedules.values().any(|schedule| schedule.workflow == builtin::HOUSEKEEPING) {
        schedules.entry(builtin::HOUSEKEEPING.to_owned()).or_insert_with(ScheduleSettings::housekeeping);
    }
    schedules
}
