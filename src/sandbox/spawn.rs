//! The appliance's side: start a child for a job, listen, and see to it that it ends.

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use futures::future::BoxFuture;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::oneshot;

use super::Report;
use crate::base::TaskError;
use crate::base::limits::{REPORT_LINE_BYTES_MAX, STDERR_TAIL_BYTES_MAX};
use crate::media::{Job, Progress};

/// Called for every progress that a child reports.
pub type OnProgress = Box<dyn Fn(Progress) + Send + Sync>;

/// Who runs jobs: child processes, or a script in tests. Dropping the future ends the work.
pub trait Spawn: Send + Sync + 'static {
    fn spawn(&self, job: Job, on_progress: OnProgress) -> BoxFuture<'static, Result<Value, TaskError>>;
}

/// Real children.
#[derive(Clone, Debug)]
pub struct ChildProcesses {
    /// The program that is started with the one argument `stage`: this same binary.
    pub program: PathBuf,
    /// Where GStreamer's children keep their cache of plug-ins, so that not each of them scans all of them.
    pub registry: PathBuf,
}

/// Variables that a child may see: locale, GStreamer's own, and which devices it was given.
const KEPT_VARIABLES: &[&str] = &[
    "PATH",
    "LANG",
    "LC_ALL",
    "TZ",
    "LD_LIBRARY_PATH",
    "GST_PLUGIN_PATH",
    "GST_PLUGIN_SYSTEM_PATH",
    "GST_DEBUG",
    "CUDA_VISIBLE_DEVICES",
];
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
}

impl ChildProcesses {
    async fn run(self, job: Job, on_progress: OnProgress) -> Result<Value, TaskError> {
        let stage = job.stage.clone();
        let failed = |what: String| TaskError::new("Stage.Failed", format!("stage '{stage}': {what}"));
        let mut child = fork(self.command())
            .await
            .map_err(|e| failed(format!("{} does not start: {e}", self.program.display())))?;
        let group = Group(child.id());
        let (Some(mut stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(failed("the child has no pipes".into()));
        };
        let tail = tokio::spawn(tail(stderr));
        let text = serde_json::to_vec(&job).map_err(|e| failed(format!("the job is no JSON: {e}")))?;
        // A child that dies before it has read its job is told of below, with what it said.
        let _ = stdin.write_all(&text).await;
        drop(stdin);
        let (last, status) = {
            let mut listening = std::pin::pin!(listen(BufReader::new(stdout), &on_progress));
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
        let status = status.map_err(|e| failed(format!("its end cannot be awaited: {e}")))?;
        drop(group);
        let log = tokio::time::timeout(LOG_GRACE, tail).await.ok().and_then(Result::ok).unwrap_or_default();
        match last {
            Ok(Some(Report::Result(value))) => Ok(value),
            Ok(Some(Report::Failed(error))) => Err(error),
            Ok(_) => Err(ended_without_result(&stage, status, &log)),
            Err(what) => Err(TaskError::new("Stage.BadReport", format!("stage '{stage}' {what}{}", quoted(&log)))),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("stage")
            .env_clear()
            .envs(KEPT_VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .env("GST_REGISTRY", &self.registry)
            .env("GST_REGISTRY_FORK", "no")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let parent = Pid::this();
        // SAFETY: between fork and exec only system calls are made: nothing is allocated and no lock is taken.
        unsafe {
            command.pre_exec(move || {
                prctl::set_pdeathsig(Signal::SIGKILL)?;
                // The parent may have died before the line above.
                if nix::unistd::getppid() != parent {
                    return Err(std::io::Error::from_raw_os_error(nix::libc::ESRCH));
                }
                prctl::set_no_new_privs()?;
                setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
                // Both are kindness to the rest of the box, and may be refused.
                let _ = setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES_MAX, OPEN_FILES_MAX);
                nix::libc::setpriority(nix::libc::PRIO_PROCESS, 0, NICE);
                Ok(())
            });
        }
        command
    }
}

struct Fork {
    command: Command,
    runtime: tokio::runtime::Handle,
    answer: oneshot::Sender<std::io::Result<Child>>,
}

/// Starts a child from a thread that lives as long as the process.
///
/// The kernel's "kill me when my parent dies" follows the thread that forked, not its process, and threads of an
/// async runtime may end while the work that they started goes on.
async fn fork(command: Command) -> std::io::Result<Child> {
    static FORKS: OnceLock<mpsc::Sender<Fork>> = OnceLock::new();
    let gone = || std::io::Error::other("the thread that starts children is gone");
    let forks = FORKS.get_or_init(|| {
        let (forks, orders) = mpsc::channel::<Fork>();
        let forking = move || {
            for Fork { mut command, runtime, answer } in orders {
                let _entered = runtime.enter();
                // Where nobody waits any more the child is dropped, and so killed.
                let _ = answer.send(command.spawn());
            }
        };
        // Without the thread the channel is closed, and who wants a child hears of it.
        let _ = std::thread::Builder::new().name("stage-fork".into()).spawn(forking);
        forks
    });
    let (answer, started) = oneshot::channel();
    let order = Fork { command, runtime: tokio::runtime::Handle::current(), answer };
    forks.send(order).map_err(|_| gone())?;
    started.await.map_err(|_| gone())?
}

/// Ends the whole process group when nobody waits for the child any more.
struct Group(Option<u32>);

impl Group {
    fn kill(&self) {
        if let Some(group) = self.0.and_then(|id| i32::try_from(id).ok()) {
            // It is gone already where the child ended by itself and left nobody behind.
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
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

/// Reads reports until the last one or the end of the pipe.
async fn listen(mut pipe: impl AsyncBufRead + Unpin, on_progress: &OnProgress) -> Result<Option<Report>, String> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = REPORT_LINE_BYTES_MAX as u64;
        let read =
            (&mut pipe).take(limit).read_until(b'\n', &mut line).await.map_err(|e| format!("broke its pipe: {e}"))?;
        if read == 0 {
            return Ok(None);
        }
        if line.last() != Some(&b'\n') && line.len() >= REPORT_LINE_BYTES_MAX {
            return Err(format!("reported a line of more than {REPORT_LINE_BYTES_MAX} bytes"));
        }
        match serde_json::from_slice(&line) {
            Ok(Report::Progress(progress)) => on_progress(progress),
            Ok(last) => return Ok(Some(last)),
            Err(e) => return Err(format!("reported what is no report ({e})")),
        }
    }
}

/// The end of what the child wrote on its standard error.
async fn tail(mut stderr: ChildStderr) -> String {
    let mut kept: VecDeque<u8> = VecDeque::new();
    let mut buffer = [0u8; 4096];
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        kept.extend(&buffer[..read]);
        let excess = kept.len().saturating_sub(STDERR_TAIL_BYTES_MAX);
        kept.drain(..excess);
    }
    String::from_utf8_lossy(kept.make_contiguous()).trim().to_owned()
}

fn ended_without_result(stage: &str, status: ExitStatus, log: &str) -> TaskError {
    match status.signal() {
        Some(signal) => {
            let name = Signal::try_from(signal).map_or(format!("signal {signal}"), |s| s.as_str().to_owned());
            let hint = match signal {
                nix::libc::SIGKILL => {
                    " It was killed from outside: by an operator, or by the kernel when memory ran out (see the kernel's log)."
                }
                _ => " The decoder or encoder crashed on this file; the appliance and its other work are not affected.",
            };
            TaskError::new("Stage.Crashed", format!("stage '{stage}' was ended by {name}.{hint}{}", quoted(log)))
        }
        None => {
            let code = status.code().map_or("no exit code".to_owned(), |code| format!("exit code {code}"));
            TaskError::new(
                "Stage.Failed",
                format!("stage '{stage}' ended with {code} and without a result.{}", quoted(log)),
            )
        }
    }
}

fn quoted(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!(" The end of its log:\n{log}") }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;
    use crate::base::Shares;

    /// A child of which a shell script plays the part.
    fn scripted(dir: &Path, script: &str) -> ChildProcesses {
        let program = dir.join("child.sh");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        ChildProcesses { program, registry: dir.join("registry.bin") }
    }

    fn job(dir: &Path) -> Job {
        Job {
            stage: "probe".into(),
            parameters: Value::Null,
            work_dir: dir.to_owned(),
            shares: Shares::default(),
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
        assert!(crashed.cause.contains("SIGSEGV") && crashed.cause.contains("about to crash"), "{}", crashed.cause);

        let silent = run("cat >/dev/null; exit 3").await.unwrap_err();
        assert!(silent.error == "Stage.Failed" && silent.cause.contains("exit code 3"), "{}", silent.cause);
        assert_eq!(run("cat >/dev/null; echo garbage; sleep 60").await.unwrap_err().error, "Stage.BadReport");
        let endless = run("cat >/dev/null; head -c 9000000 /dev/zero; sleep 60").await.unwrap_err();
        assert_eq!(endless.error, "Stage.BadReport");
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
            .args(["--exact", "sandbox::spawn::tests::parent_side", "--ignored", "--nocapture"])
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
