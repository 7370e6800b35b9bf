//! The appliance's side: start a child for a job, listen, and see to it that it ends.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use conveyor_base::limits::quotas;
use conveyor_base::{Shares, TaskError};
use conveyor_job::{Access, Device, Job, Placing, Progress};
use futures::future::BoxFuture;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};

use super::cgroup::{Cgroup, Cgroups};
use super::jail::{Jail, Sandbox, limits};
use super::process::{self, Group};
use super::registries::Registries;
use super::said::{Heard, ended_without_result, foreign, listen, may_say, quoted};
use super::{CHECK, NOT_CLOSED, REGISTRY, Report, affinity};

/// Called for every progress that a child reports.
pub type OnProgress = Box<dyn Fn(Progress) + Send + Sync>;

/// Who runs jobs: child processes, or a script in tests. Dropping the future ends the work.
pub trait Spawn: Send + Sync + 'static {
    fn spawn(&self, job: Job, on_progress: OnProgress) -> BoxFuture<'static, Result<Value, TaskError>>;

    /// What stages can open, in a word that changes when that does; none where it is not known.
    fn tools(&self) -> BoxFuture<'static, Option<String>> {
        Box::pin(async { None })
    }
}

/// Real children.
#[derive(Clone, Debug)]
pub struct ChildProcesses {
    program: PathBuf,
    sandbox: Sandbox,
    registries: Option<Registries>,
    cgroups: Option<Arc<Cgroups>>,
    /// What the child said that made the list of plug-ins.
    tools: Arc<Mutex<Option<String>>>,
    jail: Arc<Mutex<Standing>>,
}

/// Variables that a child may see: locale, and GStreamer's own.
const KEPT_VARIABLES: &[&str] =
    &["PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "GST_PLUGIN_PATH", "GST_PLUGIN_SYSTEM_PATH", "GST_DEBUG"];
/// Children give way to the appliance itself.
const NICE: i32 = 5;
/// Files that a child may have open at once: inputs, outputs, segments and what libraries need.
const OPEN_FILES_MAX: u64 = 4_096;

/// How long a child may take to exit once it has said its last word.
const EXIT_GRACE: Duration = Duration::from_secs(5);
/// How long the log may take to arrive once everybody who could write to it is gone.
const LOG_GRACE: Duration = Duration::from_secs(1);

impl Spawn for ChildProcesses {
    fn spawn(&self, job: Job, on_progress: OnProgress) -> BoxFuture<'static, Result<Value, TaskError>> {
        let this = self.clone();
        Box::pin(async move { this.run(job, on_progress).await })
    }

    fn tools(&self) -> BoxFuture<'static, Option<String>> {
        let this = self.clone();
        Box::pin(async move {
            // The job is none: only its device counts, and it has none.
            this.registry(&idle(REGISTRY, PathBuf::new(), None)).await?;
            this.tools.lock().clone()
        })
    }
}

/// How the jail stands, as the last children found it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// The locks that closed, and those that did not.
    #[serde(flatten)]
    pub jail: Jail,
    /// Why no stage is run.
    pub refused: Option<String>,
}

/// What a child said before it ended well.
#[derive(Debug)]
struct Done {
    result: Value,
    files: Vec<Placing>,
    /// What closed around it; none of a child that is a script.
    jail: Option<Jail>,
}

impl ChildProcesses {
    /// `program` is started with the argument `stage`: this same binary. Lists of GStreamer's plug-ins are kept in the
    /// folder `plugins`; without one every child looks for itself.
    pub fn new(program: PathBuf, plugins: Option<PathBuf>, sandbox: Sandbox) -> ChildProcesses {
        ChildProcesses {
            program,
            sandbox,
            registries: plugins.map(Registries::new),
            cgroups: None,
            tools: Arc::default(),
            jail: Arc::default(),
        }
    }

    /// Stages get control groups of their own where this process's group was delegated to it, from which it moves. For whoever
    /// has a unit of his own; must not be called twice in a process.
    ///
    /// # Errors
    ///
    /// It was delegated, but stages get no groups: why not, and what to change. They run without.
    pub fn with_cgroups(mut self) -> (ChildProcesses, Result<(), String>) {
        let taken = Cgroups::take_over(limits::memory_bytes(&self.sandbox));
        let end = taken.map(|cgroups| self.cgroups = cgroups);
        (self, end)
    }

    /// Puts a child in jail that opens nothing. How the jail stands after that, and after each stage, `standing` says.
    ///
    /// # Errors
    ///
    /// `Stage.Jail` where a stage would not be run at all, with what to change; else as any stage.
    pub async fn check(&self, work_dir: PathBuf) -> Result<(), TaskError> {
        let job = idle(CHECK, work_dir, None);
        self.child(&job, None, &(Box::new(|_| {}) as OnProgress)).await.map(drop)
    }

    pub fn standing(&self) -> Standing {
        self.jail.lock().clone()
    }

    async fn run(self, job: Job, on_progress: OnProgress) -> Result<Value, TaskError> {
        let registry = match job.access.shares.is_empty() {
            true => self.registry(&job).await,
            false => None,
        };
        let mut done = self.child(&job, registry.as_deref(), &on_progress).await.inspect_err(|error| {
            // What the list says of the GPU's elements may be of a driver that is no more.
            if job.device.is_some() && error.error.starts_with("Device.") {
                self.registries.iter().for_each(|lists| lists.forget(job.device.as_ref()));
            }
        })?;
        if let Some(jail) = done.jail.take() {
            let Some(result) = done.result.as_object_mut() else {
                return Err(TaskError::new("Stage.BadReport", format!("stage '{}' gave no object", job.stage)));
            };
            result.insert("sandbox".to_owned(), jail.closed.into());
            if let Some(foreign) = foreign(&done.result, &job.access) {
                let what = format!("stage '{}' names '{foreign}', with which it has nothing to do", job.stage);
                return Err(TaskError::new("Stage.BadReport", what));
            }
        }
        if done.files.is_empty() {
            return Ok(done.result);
        }
        // Another child brings what this one made to where it belongs: one that opens no media, and may therefore write there.
        if let Some(file) = done.files.iter().find(|file| !job.access.may_place(&file.to)) {
            let what =
                format!("stage '{}' made a file for '{}', which is none of its destinations", job.stage, file.to);
            return Err(TaskError::new("Stage.BadReport", what));
        }
        let mut shares: Vec<String> = done.files.iter().map(|file| file.to.share.clone()).collect();
        shares.sort_unstable();
        shares.dedup();
        let place = Job {
            stage: "place".to_owned(),
            parameters: serde_json::json!({ "files": done.files }),
            access: Access { shares, ..Access::default() },
            threads: 1,
            device: None,
            ..job
        };
        let moving: OnProgress = Box::new(move |progress| {
            on_progress(Progress { fraction: 0.98 + progress.fraction * 0.02, ..progress });
        });
        self.child(&place, None, &moving).await?;
        Ok(done.result)
    }

    /// The list of plug-ins, which the first that needs it has made: by a child that opens nothing else.
    async fn registry(&self, job: &Job) -> Option<PathBuf> {
        let device = job.device.as_ref();
        let make = |file: PathBuf, work_dir: PathBuf| async move {
            let job = idle(REGISTRY, work_dir, device.cloned());
            let done = self.child(&job, Some(&file), &(Box::new(|_| {}) as OnProgress)).await?;
            if device.is_none() {
                *self.tools.lock() = done.result["tools"].as_str().map(str::to_owned);
            }
            Ok(())
        };
        self.registries.as_ref()?.of(device, make).await
    }

    async fn child(&self, job: &Job, registry: Option<&Path>, on_progress: &OnProgress) -> Result<Done, TaskError> {
        let stage = job.stage.clone();
        let failed = |what: String| TaskError::new("Stage.Failed", format!("stage '{stage}': {what}"));
        let cgroup = self.cgroup(job);
        let entrance = cgroup.as_ref().map(Cgroup::entrance).transpose();
        let entrance = entrance.map_err(|e| failed(format!("its control group cannot be entered: {e}")))?;
        let (mut child, group) = process::start(self.command(job, registry, entrance))
            .await
            .map_err(|e| failed(format!("{} does not start: {e}", self.program.display())))?;
        let (Some(mut stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(failed("the child has no pipes".into()));
        };
        let tail = tokio::spawn(process::tail(stderr));
        let told = Job { shares: job.shares.clone().held_to_only(&job.access.shares), ..job.clone() };
        let text = serde_json::to_vec(&told).map_err(|e| failed(format!("the job is no JSON: {e}")))?;
        // A child that dies before it has read its job is told of below, with what it said.
        let _ = stdin.write_all(&text).await;
        drop(stdin);
        let (mut files, mut jail) = (Vec::new(), None);
        let (last, status) = {
            let heard = Heard { on_progress, files: &mut files, jail: &mut jail };
            let mut listening = std::pin::pin!(listen(BufReader::new(stdout), heard));
            tokio::select! {
                last = &mut listening => (last, None),
                status = child.wait() => {
                    // What it left behind in its group could hold the pipes open for ever.
                    group.kill();
                    (listening.await, Some(status))
                }
            }
        };
        let status = match status {
            Some(status) => status,
            None => leave(&mut child, &group, &last).await,
        };
        if let (Some(jail), Some(_)) = (&mut jail, &cgroup) {
            jail.closed.push("control group".to_owned());
        }
        if let Some(jail) = &jail {
            *self.jail.lock() = Standing { jail: jail.clone(), refused: None };
        }
        let status = status.map_err(|e| failed(format!("its end cannot be awaited: {e}")))?;
        drop(group);
        let log = tokio::time::timeout(LOG_GRACE, tail).await.ok().and_then(Result::ok).unwrap_or_default();
        match last {
            Ok(Some(Report::Result(result))) => Ok(Done { result, files, jail }),
            Ok(Some(Report::Failed(error))) => {
                // Behind its jail a child says what it likes, or what somebody likes who has taken it over.
                match jail {
                    None if error.error == NOT_CLOSED => self.jail.lock().refused = Some(error.cause.clone()),
                    Some(_) if !may_say(job, &error) => {
                        let what =
                            format!("stage '{stage}' failed with '{}', which is no error of its own", error.error);
                        return Err(TaskError::new("Stage.BadReport", what));
                    }
                    _ => {}
                }
                Err(error)
            }

            Ok(_) => {
                if let Some(cgroup) = cgroup.filter(Cgroup::ran_out_of_memory) {
                    return Err(TaskError::new(
                        "Stage.LimitExceeded",
                        format!("stage '{stage}' {}", cgroup.too_much()),
                    ));
                }
                Err(ended_without_result(&stage, status, &log))
            }
            Err(what) => Err(TaskError::new("Stage.BadReport", format!("stage '{stage}' {what}{}", quoted(&log)))),
        }
    }

    /// A control group for a stage's child. One without is held by the other locks.
    fn cgroup(&self, job: &Job) -> Option<Cgroup> {
        let made = self.cgroups.as_ref()?.stage();
        made.inspect_err(|e| tracing::warn!("stage '{}' runs without a control group: {e}", job.stage)).ok()
    }

    /// `entrance`: of the control group that the child goes to.
    fn command(&self, job: &Job, registry: Option<&Path>, entrance: Option<File>) -> Command {
        let device = job.device.as_ref();
        let mut command = Command::new(&self.program);
        command
            .arg("stage")
            .arg("--sandbox")
            .arg(serde_json::to_string(&self.sandbox).unwrap_or_default())
            .arg("--limits")
            .arg(serde_json::to_string(quotas()).unwrap_or_default())
            .env_clear()
            .envs(KEPT_VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            // Without a list the child looks at all plug-ins, which takes longer.
            .env("GST_REGISTRY", registry.map_or_else(|| job.work_dir.join("gstreamer.registry"), Path::to_owned))
            .env("GST_REGISTRY_FORK", "no")
            // The work folder is all that the child can write.
            .env("TMPDIR", &job.work_dir)
            .env("HOME", &job.work_dir)
            // An empty list hides every GPU: what was not leased is not touched.
            .env("CUDA_VISIBLE_DEVICES", device.map_or("", |device| &device.uuid))
            .env("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
            // Compiled kernels: kept for this stage alone, since the next one would run what this one leaves.
            .env("CUDA_CACHE_PATH", job.work_dir.join("cuda"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let cpus = device.and_then(|device| affinity::mask(device.cpus.as_deref()?));
        // SAFETY: between fork and exec only system calls are made: nothing is allocated and no lock is taken.
        unsafe {
            command.pre_exec(move || {
                prctl::set_no_new_privs()?;
                setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
                if let Some(entrance) = &entrance {
                    nix::unistd::write(entrance, b"0")?;
                }
                // Both are kindness to the rest of the box, and may be refused.
                let _ = setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES_MAX, OPEN_FILES_MAX);
                nix::libc::setpriority(nix::libc::PRIO_PROCESS, 0, NICE);
                if let Some(cpus) = &cpus {
                    affinity::run_on(cpus);
                }
                Ok(())
            });
        }
        command
    }
}

/// A job that reads and writes nothing but its work folder.
fn idle(stage: &str, work_dir: PathBuf, device: Option<Device>) -> Job {
    Job {
        stage: stage.to_owned(),
        parameters: Value::Null,
        work_dir,
        shares: Shares::default(),
        access: Access::default(),
        threads: 1,
        device,
    }
}

/// Sees to it that a child ends that says nothing more.
async fn leave(child: &mut Child, group: &Group, last: &Result<Option<Report>, String>) -> std::io::Result<ExitStatus> {
    match last {
        // It may be at work still, and its exit status says how it ended.
        Ok(None) => {}
        // A library that hangs while it cleans up must not hold back a result that is there.
        Ok(Some(_)) => {
            if let Ok(status) = tokio::time::timeout(EXIT_GRACE, child.wait()).await {
                return status;
            }
            group.kill();
        }
        // What it says cannot be trusted any more.
        Err(_) => group.kill(),
    }
    child.wait().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// A child of which a shell script plays the part.
    fn scripted(dir: &Path, script: &str) -> ChildProcesses {
        let program = dir.join("child.sh");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        ChildProcesses::new(program, None, Sandbox::default())
    }

    fn job(dir: &Path) -> Job {
        Job {
            stage: "probe".into(),
            parameters: Value::Null,
            work_dir: dir.to_owned(),
            shares: Shares::default(),
            access: Access::default(),
            threads: 1,
            device: None,
        }
    }

    async fn run(script: &str) -> Result<Value, TaskError> {
        let dir = tempfile::tempdir().unwrap();
        scripted(dir.path(), script).spawn(job(dir.path()), Box::new(|_| {})).await
    }

    #[tokio::test]
    async fn each_way_to_end_has_its_error() {
        assert_eq!(run(r#"cat >/dev/null; echo '{"result":{"a":1}}'"#).await, Ok(serde_json::json!({"a": 1})));
        let failed = run(r#"cat >/dev/null; echo '{"failed":{"error":"Media.Empty","cause":"x"}}'; exit 1"#).await;
        assert_eq!(failed, Err(TaskError::new("Media.Empty", "x")));

        let crashed = run("cat >/dev/null; echo 'about to crash' >&2; kill -SEGV $$").await.unwrap_err();
        assert_eq!(crashed.error, "Stage.Crashed");
        assert_eq!(run("cat >/dev/null; kill -KILL $$").await.unwrap_err().error, "Stage.Killed");
        assert!(crashed.cause.contains("SIGSEGV") && crashed.cause.contains("about to crash"), "{}", crashed.cause);

        let silent = run("cat >/dev/null; exit 3").await.unwrap_err();
        assert!(silent.error == "Stage.Failed" && silent.cause.contains("exit code 3"), "{}", silent.cause);
        assert_eq!(run("cat >/dev/null; echo garbage; sleep 60").await.unwrap_err().error, "Stage.BadReport");
        let endless = run("cat >/dev/null; head -c 9000000 /dev/zero; sleep 60").await.unwrap_err();
        assert_eq!(endless.error, "Stage.BadReport");
    }

    #[tokio::test]
    async fn a_child_sees_the_leased_gpu_alone_and_runs_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let script = r#"cat >/dev/null; cpus=$(grep Cpus_allowed_list /proc/self/status | tr -d '\t')
            echo "{\"result\":\"$CUDA_VISIBLE_DEVICES $CUDA_DEVICE_ORDER $cpus\"}""#;
        let child = scripted(dir.path(), script);
        let first = std::fs::read_to_string("/proc/self/status").unwrap();
        let allowed = first.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim().to_owned();
        let own: String = allowed.chars().take_while(char::is_ascii_digit).collect();
        let device =
            Device { name: "gpu1".into(), uuid: "GPU-1".into(), cpus: Some(own.clone()), decode: true, encode: false };
        let job = Job { device: Some(device), ..job(dir.path()) };
        let said = child.spawn(job, Box::new(|_| {})).await.unwrap();
        assert_eq!(said, format!("GPU-1 PCI_BUS_ID Cpus_allowed_list:{own}"));
        let said = child.spawn(self::job(dir.path()), Box::new(|_| {})).await.unwrap();
        assert_eq!(said, format!(" PCI_BUS_ID Cpus_allowed_list:{allowed}"), "no lease, no GPU");
    }

    #[tokio::test]
    async fn a_child_that_hangs_after_its_result_holds_nothing_back() {
        let soon = |script| tokio::time::timeout(Duration::from_secs(60), run(script));
        let hangs = soon(r#"cat >/dev/null; sleep 600 & echo '{"result":1}'; sleep 600"#).await;
        assert_eq!(hangs.expect("it is not waited for"), Ok(serde_json::json!(1)));
        // Nor does a grandchild that keeps the pipes open.
        let leaves = soon("cat >/dev/null; echo why >&2; sleep 600 & exit 3").await;
        let error = leaves.expect("it is not waited for").unwrap_err();
        assert!(error.error == "Stage.Failed" && error.cause.contains("why"), "{error}");
    }

    /// Plays the appliance for the test below, in a process of its own.
    #[test]
    #[ignore = "started by a_parent_that_is_killed_takes_its_child_along"]
    fn parent_side() {
        let Some(dir) = std::env::var_os("PARENT_SIDE_DIR").map(PathBuf::from) else { return };
        let script = format!("echo $$ > {0}/pid.new; mv {0}/pid.new {0}/pid; exec sleep 600", dir.display());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _ = runtime.block_on(scripted(&dir, &script).spawn(job(&dir), Box::new(|_| {})));
    }

    #[test]
    fn a_parent_that_is_killed_takes_its_child_along() {
        let dir = tempfile::tempdir().unwrap();
        let mut parent = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "spawn::tests::parent_side", "--ignored", "--nocapture"])
            .env("PARENT_SIDE_DIR", dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let wait_for = |what: &str, done: &dyn Fn() -> bool| {
            for _ in 0..3_000 {
                if done() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            panic!("{what} does not happen");
        };
        let pid = dir.path().join("pid");
        wait_for("the child's start", &|| pid.exists());
        parent.kill().unwrap();
        parent.wait().unwrap();
        let stat = format!("/proc/{}/stat", std::fs::read_to_string(&pid).unwrap().trim());
        let gone = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
        wait_for("the child's end", &gone);
    }

    #[tokio::test]
    async fn a_dropped_stage_leaves_no_process_behind() {
        let dir = tempfile::tempdir().unwrap();
        let pids = dir.path().join("pids");
        let script = format!("sleep 600 & echo $! $$ > {}; wait", pids.display());
        let work = scripted(dir.path(), &script).spawn(job(dir.path()), Box::new(|_| {}));
        assert!(tokio::time::timeout(Duration::from_secs(2), work).await.is_err(), "it sleeps for ten minutes");
        let text = std::fs::read_to_string(&pids).unwrap();
        for pid in text.split_whitespace() {
            let alive = || {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                !stat.is_empty() && !stat.contains(") Z ")
            };
            for _ in 0..200 {
                if !alive() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert!(!alive(), "process {pid} lives on");
        }
    }
}
