//! The box from start to stop.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use conveyor_api::{self as api, ArnFormat, Auth};
use conveyor_base::limits::set_quotas;
use conveyor_base::{Clock, Fault};
use conveyor_ingest::{WatchStatus, Watcher};
use conveyor_logs::Delivery;
use conveyor_resources::{builtin, mounts};
use conveyor_run::{self as run, Handle, OnFailure, StartRequest};
use conveyor_sandbox::{ChildProcesses, Functions, Spawn as _};
use conveyor_services::alarms::Alarms;
use conveyor_services::schedules::{ScheduleSettings, Schedules};
use conveyor_store::{self as store, Commit, Options, Writer};
use parking_lot::Mutex;
use tokio::time::{Duration, timeout};

use super::config::Config;
use super::lanes;
use super::wiring::Parts;

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
    /// Who is asked how the stages' jail stands.
    children: Arc<ChildProcesses>,
    /// The settings in force, for screens.
    pub effective: serde_json::Value,
    writer: Writer,
    /// Who writes what executions log.
    logs: Option<Delivery>,
}

impl Appliance {
    /// Opens the store, takes up what was in flight, installs the workflows and watches the shares.
    pub async fn start(config: &Config, clock: Arc<dyn Clock>) -> anyhow::Result<Appliance> {
        // Nothing was read of them before, as nothing runs yet.
        let _ = set_quotas(config.limits);
        let data_dir = &config.data_dir;
        std::fs::create_dir_all(data_dir)
            .with_context(|| format!("cannot make the data directory {}", data_dir.display()))?;
        let data_dir = data_dir.canonicalize().with_context(|| format!("cannot find {}", data_dir.display()))?;
        keep_private(&data_dir, config)?;
        let (writer, reader) = store::open(Options::at(data_dir.join("store")))?;
        // What was found out of plug-ins and drivers may be of old ones.
        let gstreamer = data_dir.join("gstreamer");
        let _ = std::fs::remove_dir_all(&gstreamer);
        let _ = std::fs::remove_file(data_dir.join("gstreamer.registry"));
        let (logs_dir, express_dir) = (data_dir.join("logs"), data_dir.join("express"));
        let aws = config.aws.clone().or_environment(|name| std::env::var(name).ok());
        let spawn = ChildProcesses::new(OWN_BINARY.into(), Some(gstreamer), config.sandbox.clone());
        let (spawn, grouped) = spawn.with_cgroups();
        if let Err(why) = grouped {
            tracing::warn!("stages run without control groups of their own: {why}");
        }
        let spawn = Arc::new(spawn);
        let children = spawn.clone();
        Appliance::check_jail(children.clone(), data_dir.join("jail"));
        let hidden = [&data_dir.join("store"), &express_dir].into_iter().cloned().chain(config.file.clone()).collect();
        let functions = Functions { program: OWN_BINARY.into(), mode: config.sandbox.mode, hidden };
        let parts = Parts::new(config, &aws, &data_dir, &reader, spawn, Some(functions))?;
        let handle = run::start(run::Config {
            writer: writer.clone(),
            reader: reader.clone(),
            resources: Arc::new(parts.registry()?),
            clock,
            lanes: lanes::read(config, &data_dir).await,
            account: config.account.clone(),
            region: config.region.clone(),
            express_record: Some(express_dir),
        })
        .await?;
        parts.start(&handle).await?;
        let secret = |user: &str| {
            let credential = config.credentials.iter().find(|credential| credential.access_key_id == user);
            credential.map(|credential| credential.secret_access_key.clone())
        };
        parts.sessions.end_of_former_passwords(&handle, secret).await?;
        let logs = handle.take_logs().map(|queue| Delivery::new(queue, logs_dir, config.logs, handle.clock().clone()));
        let schedules = schedules(config);
        let effective = super::effective::of(config, &schedules.iter().collect::<Vec<_>>());
        let mut appliance = Appliance {
            handle: handle.clone(),
            parts,
            watches: Vec::new(),
            children: children.clone(),
            effective,
            writer,
            logs,
        };
        if let Some(logs) = appliance.logs.clone() {
            let write = move || {
                let logs = logs.clone();
                async move {
                    logs.run().await;
                    Ok(())
                }
            };
            appliance.run_supervised("the log writer", write).await?;
        }
        for (name, share) in config.shares.iter().filter(|(_, share)| !share.path.is_dir()) {
            tracing::warn!("the share '{name}' is not there: {} is no folder; mount or make it", share.path.display());
        }
        let io = appliance.parts.io.clone();
        let learn = {
            let handle = handle.clone();
            move || mounts::learn(handle.clone(), io.clone())
        };
        appliance.run_supervised("the look at the shares' mounts", learn).await?;
        builtin::install_all(&handle, &config.substitutions(), !config.shares.is_empty()).await?;
        if !config.watch.is_empty() {
            tokio::spawn(offer_again(handle.clone(), children.clone()));
        }
        let again = handle.resume_express().await;
        if again > 0 {
            tracing::info!(executions = again, "ran express executions anew that had not ended");
        }
        for watch in &config.watch {
            let watcher =
                Watcher::new(watch.clone(), appliance.parts.io.clone(), Arc::new(handle.clone()), reader.clone());
            let quarantine = config.substitutions().quarantine;
            let has_one = config.shares.contains_key(&quarantine) && quarantine != watch.share;
            let watcher = if has_one { watcher.rechecking(quarantine) } else { watcher };
            appliance.watches.push(watcher.status());
            appliance
                .run_supervised(&format!("the watch of share '{}'", watch.share), move || watcher.anew().run())
                .await?;
        }
        Schedules::new(schedules).start(&handle).await?;
        let look = Arc::new(super::conditions::look(config, &data_dir, handle.clone(), &appliance.watches, children));
        Alarms::new(look, appliance.parts.notifications.clone()).start(&handle).await?;
        appliance.parts.remote_jobs.resume(&handle).await?;
        Ok(appliance)
    }

    /// Says at once how the jail stands, which otherwise the first file would find out.
    fn check_jail(children: Arc<ChildProcesses>, work_dir: PathBuf) {
        tokio::spawn(async move {
            let _ = std::fs::create_dir_all(&work_dir);
            let end = children.check(work_dir.clone()).await;
            let _ = std::fs::remove_dir_all(&work_dir);
            let standing = children.standing();
            match end {
                Ok(()) => tracing::info!(closed = standing.jail.closed.join(" "), "stages run in jail"),
                Err(error) => tracing::error!("no stage is run: {}", error.cause),
            }
            for why in standing.jail.open {
                tracing::warn!("a lock of the stages' jail is open: {why}");
            }
        });
    }

    /// Runs a loop that is started again where it fails.
    async fn run_supervised<F, W>(&self, name: &str, make: F) -> Result<(), Fault>
    where
        F: Fn() -> W + Send + Sync + 'static,
        W: Future<Output = Result<(), Fault>> + Send + 'static,
    {
        self.handle.run_supervised(name, OnFailure::Restart, make).await
    }

    /// The HTTP server's routes. `metrics`: the text of `/metrics`.
    pub fn router(&self, config: &Config, auth: Auth, metrics: Arc<dyn Fn() -> String + Send + Sync>) -> Router {
        let (watches, children) = (self.watches.clone(), self.children.clone());
        api::router(api::Settings {
            handle: self.handle.clone(),
            messaging: Some(self.parts.messaging()),
            approvals: self.parts.approvals.clone(),
            uploads: self.parts.uploads.clone(),
            sessions: self.parts.sessions.clone(),
            arns: ArnFormat { region: config.region.clone(), account: config.account.clone() },
            auth,
            proxies: config.proxies.iter().map(IpAddr::to_canonical).collect(),
            io: self.parts.io.clone(),
            served: config.served(),
            workflows: config.watch.iter().map(|watch| (watch.share.clone(), watch.workflow.clone())).collect(),
            metrics,
            watches: Arc::new(move || watches.iter().map(|watch| serde_json::json!(*watch.lock())).collect()),
            jail: Arc::new(move || serde_json::json!(children.standing())),
            effective: self.effective.clone(),
            data_dir: config.data_dir.clone(),
        })
    }

    /// Ends in order: what runs, then its log, then the store. What was under way is taken up at the next start.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.handle.shut_down().await;
        if let Some(logs) = self.logs {
            // What a disk does not take by then is lost, as a log may be.
            let _ = timeout(LOGS_WRITTEN_MAX, logs.finish()).await;
        }
        drop(self.handle);
        tokio::task::spawn_blocking(move || self.writer.close()).await.context("the store did not close")??;
        Ok(())
    }
}

/// Inputs and outputs of all executions lie there, with the tokens that settle their tasks: for the appliance's user alone. The
/// folder around them may be somebody's who keeps shares in it. The configuration is its owner's file, of which is told what
/// is wrong.
fn keep_private(data_dir: &Path, config: &Config) -> anyhow::Result<()> {
    for folder in ["store", "express", "logs", "work"].map(|name| data_dir.join(name)) {
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)))
            .with_context(|| format!("the folder {} cannot be closed to others", folder.display()))?;
    }
    if let Some(file) = config.file.as_deref().filter(|_| config.has_secrets())
        && std::fs::metadata(file).is_ok_and(|meta| meta.mode() & 0o007 != 0)
    {
        tracing::warn!("{} holds secrets and may be read by everybody on this box: chmod o= it", file.display());
    }
    Ok(())
}

/// The configured schedules, and the one without which the store would grow for ever.
fn schedules(config: &Config) -> BTreeMap<String, ScheduleSettings> {
    let mut schedules = config.schedules.clone();
    if !schedules.values().any(|schedule| schedule.workflow == builtin::HOUSEKEEPING) {
        schedules.entry(builtin::HOUSEKEEPING.to_owned()).or_insert_with(ScheduleSettings::housekeeping);
    }
    schedules
}

/// Whether housekeeping, which people may have changed, still offers what lies in quarantine.
fn offers(handle: &Handle) -> bool {
    let reader = handle.reader();
    let machine = reader.machine(builtin::HOUSEKEEPING).ok().flatten();
    let row = machine.and_then(|machine| reader.revision(builtin::HOUSEKEEPING, machine.revision).ok().flatten());
    row.is_none_or(|row| row.definition.contains("conveyor:offer"))
}

/// Where the box can open other files than when it was last started, what it could not open before is offered again: by
/// housekeeping, at once instead of by its schedule.
async fn offer_again(handle: Handle, children: Arc<ChildProcesses>) {
    const TOOLS: &str = "tools";
    let Some(tools) = children.tools().await else { return };
    let known = match handle.reader().setting(TOOLS) {
        Ok(known) if known.as_deref() == Some(tools.as_bytes()) => return,
        Ok(known) => known,
        // A store that cannot be read ends the appliance by itself.
        Err(_) => return,
    };
    if known.is_some() {
        if !offers(&handle) {
            // Said at each start until somebody sees to it: what these tools are is not taken note of.
            return tracing::warn!(
                "the box has other tools than before, and files in quarantine that it could not open are not offered again: \
                 the workflow '{}' was changed and has no Task of arn:aws:states:::conveyor:offer; add it, or take them back \
                 by hand",
                builtin::HOUSEKEEPING
            );
        }
        let start =
            StartRequest { machine: builtin::HOUSEKEEPING.into(), input: "{}".into(), ..StartRequest::default() };
        match handle.start(start).await {
            Ok(_) => {
                tracing::info!("the box has other tools than before: files that it could not open are offered again")
            }
            Err(refused) => return tracing::warn!("housekeeping does not start: {}", refused.message),
        }
    }
    let mut commit = Commit::new();
    commit.put_setting(TOOLS, tools.as_bytes());
    let _ = handle.commit(commit).await;
}
