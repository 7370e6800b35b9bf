//! Starting a program so that nothing of it is left behind: whoever starts one, stage or function, does it here.

use std::collections::VecDeque;
use std::io;
use std::sync::{OnceLock, mpsc};

use conveyor_base::limits::STDERR_TAIL_BYTES_MAX;
use nix::sys::prctl;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

/// A child and all that it starts. Dropping it ends the whole group.
pub struct Group(Option<u32>);

impl Group {
    pub fn kill(&self) {
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

/// Starts the command in a process group of its own, which dies with the appliance and with the [`Group`]. Where the
/// caller goes away while the child starts, the child is killed.
///
/// # Errors
///
/// Those of `fork` and `exec`: no such program, no permission, too many processes.
pub async fn start(mut command: Command) -> io::Result<(Child, Group)> {
    command.process_group(0).kill_on_drop(true);
    let parent = Pid::this();
    // SAFETY: between fork and exec only system calls are made: nothing is allocated and no lock is taken.
    unsafe {
        command.pre_exec(move || {
            // Whatever a library or whoever started the appliance left open stays here.
            nix::libc::syscall(nix::libc::SYS_close_range, 3, u32::MAX, nix::libc::CLOSE_RANGE_CLOEXEC);
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before the line above.
            if nix::unistd::getppid() != parent {
                return Err(io::Error::from_raw_os_error(nix::libc::ESRCH));
            }
            Ok(())
        });
    }
    let child = fork(command).await?;
    let group = Group(child.id());
    Ok((child, group))
}

struct Fork {
    command: Command,
    runtime: tokio::runtime::Handle,
    answer: oneshot::Sender<io::Result<Child>>,
}

/// Starts a child from a thread that lives as long as the process.
///
/// The kernel's "kill me when my parent dies" follows the thread that forked, not its process, and threads of an
/// async runtime may end while the work that they started goes on.
async fn fork(command: Command) -> io::Result<Child> {
    static FORKS: OnceLock<mpsc::Sender<Fork>> = OnceLock::new();
    let gone = || io::Error::other("the thread that starts children is gone");
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
        let _ = std::thread::Builder::new().name("fork".into()).spawn(forking);
        forks
    });
    let (answer, started) = oneshot::channel();
    let order = Fork { command, runtime: tokio::runtime::Handle::current(), answer };
    forks.send(order).map_err(|_| gone())?;
    started.await.map_err(|_| gone())?
}

/// The end of what a child wrote on its standard error. Reads to the end of the pipe, so that the child never blocks.
pub async fn tail(mut stderr: impl AsyncRead + Unpin) -> String {
    let mut kept: VecDeque<u8> = VecDeque::new();
    let mut buffer = [0u8; 4096];
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        kept.extend(&buffer[..read]);
        let excess = kept.len().saturating_sub(STDERR_TAIL_BYTES_MAX);
        kept.drain(..excess);
    }
    String::from_utf8_lossy(kept.make_contiguous()).trim().to_owned()
}
