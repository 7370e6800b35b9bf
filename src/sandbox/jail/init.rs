//! Process 1 of a stage's namespace. It starts the worker, reaps what that leaves, and looks every now and then at what all
//! of them together take. When it ends, the kernel ends every process of the namespace.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use conveyor_base::TaskError;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use super::limits;
use super::namespaces::{SIGNALLED, Side};

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Processes of one stage, the worker's own threads not counted.
const PROCESSES_MAX: usize = 64;

/// This process dies with the keeper, of which it holds the other end of this pipe.
pub fn dies_with(alive: &io::PipeReader) -> Result<(), String> {
    let failed = |e: Errno| format!("the stage cannot be bound to the appliance: {e}; report this");
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(failed)?;
    // Its parent lies in another namespace and has no number here: whether it lives still, the pipe tells.
    fcntl(alive.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(failed)?;
    match nix::unistd::read(alive.as_fd(), &mut [0]) {
        Err(Errno::EAGAIN) => Ok(()),
        _ => Err("the appliance has ended".to_owned()),
    }
}

/// Starts the worker, which returns; and stays behind as init, which returns when the worker has ended, or all of them
/// together take more memory than they may.
pub fn run(who: &str, memory_max: Option<u64>, alive: &io::PipeReader) -> Result<Side, String> {
    // Whoever gave up rights on the way here has cleared it.
    dies_with(alive)?;
    // Children that end are waited for with a time limit, so their signal must not be lost.
    let mut ended = SigSet::empty();
    ended.add(Signal::SIGCHLD);
    ended.thread_block().map_err(|e| format!("signals cannot be blocked: {e}; report this"))?;
    // SAFETY: the process has one thread, so that its copy may do anything.
    match unsafe { fork() }.map_err(|e| format!("the stage's worker does not start: {e}"))? {
        ForkResult::Child => {
            let _ = ended.thread_unblock();
            Ok(Side::Worker)
        }
        ForkResult::Parent { child } => Ok(watch(child, &ended, who, memory_max)),
    }
}

fn watch(worker: Pid, ended: &SigSet, who: &str, memory_max: Option<u64>) -> Side {
    loop {
        loop {
            match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == worker => return over(code),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == worker => return over(SIGNALLED + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(_) => {}
            }
        }
        if let Some(excess) = memory_max.and_then(excess) {
            let error = TaskError::new("Stage.LimitExceeded", format!("{who} {excess}"));
            return Side::Over { code: ExitCode::FAILURE, last_word: Some(error) };
        }
        wait_a_little(ended);
    }
}

fn over(code: i32) -> Side {
    Side::Over { code: ExitCode::from(u8::try_from(code).unwrap_or(1)), last_word: None }
}

fn wait_a_little(ended: &SigSet) {
    let time = nix::libc::timespec { tv_sec: 0, tv_nsec: LOOK_EVERY.subsec_nanos().into() };
    // SAFETY: both outlive the call, which takes the signal off and says nothing about it where the pointer is null.
    unsafe { nix::libc::sigtimedwait(std::ptr::from_ref(ended.as_ref()), std::ptr::null_mut(), &raw const time) };
}

/// What all processes of the namespace take beyond what they may.
fn excess(memory_max: u64) -> Option<String> {
    let kib_of = |status: &Path| -> Option<u64> {
        // Its name is its own to choose, whatever bytes it has.
        let text = fs::read(status).ok()?;
        let text = String::from_utf8_lossy(&text);
        // Pages of files are the kernel's to take back; what is shared between processes and no file's is not.
        let counted = ["RssAnon:", "RssShmem:", "VmSwap:"];
        let value = |line: &str| {
            let rest = counted.iter().find_map(|name| line.strip_prefix(name))?;
            rest.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        };
        let mut values = text.lines().filter_map(value).peekable();
        values.peek()?;
        Some(values.sum())
    };
    // Where the first thread has ended, the others say what they all have.
    let kib = |pid: &str| -> Option<u64> {
        let threads =
            || fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten().find_map(|t| kib_of(&t.path().join("status")));
        kib_of(Path::new(&format!("/proc/{pid}/status"))).or_else(threads)
    };
    let names = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let processes: Vec<String> = names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).collect();
    if processes.len() > PROCESSES_MAX {
        return Some(format!(
            "started more than {PROCESSES_MAX} processes, which no stage needs: its file may be an attack"
        ));
    }
    let taken = processes.iter().filter_map(|pid| kib(pid)).sum::<u64>() << 10;
    (taken > memory_max).then(|| limits::too_much_memory(memory_max))
}
