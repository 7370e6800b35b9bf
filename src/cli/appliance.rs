//! The wiring: from a configuration to a running appliance, and its orderly end.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::config::Config;
use super::lanes;
use crate::base::{Fault, SystemClock, fault};
use crate::ingest::{WatchStatus, Watcher};
use crate::resources::builtin::{self, Substitutions};
use crate::resources::{All, Services, forward, functions, items, jobs, notify::Notifier};
use crate::run::{self, Handle};
use crate::sandbox::ChildProcesses;
use crate::schedule::{Schedule, ScheduleSettings};
use crate::store::{self, Options, Writer};

/// This very binary, also after it was replaced on the disk by an upgrade.
const OWN_BINARY: &str = "/proc/self/exe";

/// Everything that runs but for the HTTP server.
pub struct Appliance {
    pub handle: Handle,
    /// How each watched share is.
    pub watches: Vec<Arc<Mutex<WatchStatus>>>,
    writer: Writer,
    tasks: Vec<JoinHandle<()>>,
}

impl Appliance {
    /// Opens the store, takes up what was in flight, installs the workflows and watches the shares.
    pub async fn start(config: &Config) -> anyhow::Result<Appliance> {
        let data_dir = &config.data_dir;
        std::fs::create_dir_all(data_dir)
            .with_context(|| format!("cannot make the data directory {}", data_dir.display()))?;
        let data_dir = data_dir.canonicalize().with_context(|| format!("cannot find {}", data_dir.display()))?;
        let (writer, reader) = store::open(Options::at(data_dir.join("store")))?;
        // Written by children, and so apart from everything else; what they found out of a driver may be of an old one.
        let gstreamer = data_dir.join("gstreamer");
        let _ = std::fs::remove_dir_all(&gstreamer);
        let _ = std::fs::remove_file(data_dir.join("gstreamer.registry"));
        let aws = config.aws.clone().or_environment(|name| std::env::var(name).ok());
        let services = Arc::new(Services {
            account: config.account.clone(),
            region: config.region.clone(),
            shares: config.shares(),
            reader: reader.clone(),
            tables: items::Tables::new(config.tables.clone()),
            functions: functions::Functions::new(config.functions.clone(), &config.lambda),
            endpoint: forward::Endpoint::new(&aws, &config.account, &config.region),
            templates: jobs::Templates::read(builtin::JOB_TEMPLATES.iter().copied())
                .map_err(|what| anyhow::anyhow!("a built-in job template is refused: {what}"))?,
            notify: config.notify.clone(),
            retention: config.retention,
            outbox_grew: Arc::default(),
            claims: tokio::sync::Mutex::new(()),
            acceleration: config.acceleration,
            spawn: Arc::new(ChildProcesses { program: OWN_BINARY.into(), registry: gstreamer.join("cores.registry") }),
            data_dir: data_dir.clone(),
        });
        let handle = run::start(run::Config {
            writer: writer.clone(),
            reader: reader.clone(),
            resources: Arc::new(All(services.clone())),
            clock: Arc::new(SystemClock),
            lanes: lanes::read(config, &data_dir).await,
            account: config.account.clone(),
            region: config.region.clone(),
        })
        .await?;
        let mut appliance = Appliance { handle: handle.clone(), watches: Vec::new(), writer, tasks: Vec::new() };
        for (name, share) in config.shares.iter().filter(|(_, share)| !share.path.is_dir()) {
            tracing::warn!("the share '{name}' is not there: {} is no folder; mount or make it", share.path.display());
        }
        builtin::install_all(&handle, &substitutions(config), !config.shares.is_empty()).await?;
        for watch in &config.watch {
            let watcher = Watcher::new(watch.clone(), config.shares(), Arc::new(handle.clone()), reader.clone());
            appliance.watches.push(watcher.status());
            appliance.keep(format!("the watch of share '{}'", watch.share), watcher.run());
        }
        let schedule = Schedule::new(schedules(config), Arc::new(handle.clone()), reader.clone());
        appliance.keep("the schedules".to_owned(), schedule.run());
        let notifier = Notifier::new(&services, handle);
        appliance.keep("the notifier".to_owned(), async {
            notifier.run().await;
            Ok(())
        });
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
        drop(self.handle);
        tokio::task::spawn_blocking(move || self.writer.close()).await.context("the store did not close")??;
        Ok(())
    }
}

fn substitutions(config: &Config) -> Substitutions {
    Substitutions {
        region: config.region.clone(),
        account: config.account.clone(),
        outputs: "outputs".to_owned(),
        archive: "archive".to_owned(),
        quarantine: "quarantine".to_owned(),
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
