//! The filter of system calls: what is not on the list is answered as if the kernel did not know it, which libraries are
//! prepared for; what nobody honest calls ends the stage, by name.

use std::collections::BTreeMap;

use conveyor_job::Job;
use nix::libc::{self, c_long};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// Names of calls with their numbers on this machine.
macro_rules! calls {
    ($($name:ident)*) => { &[$((stringify!($name), libc::$name)),*] };
}

type Calls = &'static [(&'static str, c_long)];

/// What reads, writes, computes and waits.
const ALLOWED: Calls = calls! {
    SYS_read SYS_write SYS_readv SYS_writev SYS_pread64 SYS_pwrite64 SYS_preadv SYS_pwritev SYS_preadv2 SYS_pwritev2
    SYS_lseek SYS_openat2 SYS_close SYS_close_range SYS_newfstatat SYS_fstat SYS_statx SYS_statfs SYS_fstatfs
    SYS_faccessat SYS_faccessat2 SYS_readlinkat SYS_getdents64 SYS_getcwd SYS_chdir SYS_fchdir SYS_umask
    SYS_unlinkat SYS_renameat SYS_renameat2 SYS_ftruncate SYS_truncate SYS_fsync SYS_fdatasync
    SYS_sync_file_range SYS_fadvise64 SYS_readahead SYS_copy_file_range SYS_sendfile SYS_splice SYS_tee SYS_utimensat
    SYS_flock SYS_fcntl SYS_dup SYS_dup3 SYS_pipe2 SYS_eventfd2 SYS_inotify_init1
    SYS_ppoll SYS_pselect6 SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2
    SYS_timerfd_create SYS_timerfd_settime SYS_timerfd_gettime SYS_sendmsg SYS_recvmsg SYS_sendto SYS_recvfrom SYS_shutdown
    SYS_brk SYS_mmap SYS_munmap SYS_mremap SYS_mprotect SYS_madvise SYS_msync SYS_mincore SYS_mlock SYS_munlock
    SYS_mbind SYS_get_mempolicy SYS_set_mempolicy SYS_membarrier SYS_pkey_alloc SYS_pkey_free SYS_pkey_mprotect
    SYS_futex SYS_set_robust_list SYS_get_robust_list SYS_rseq SYS_set_tid_address SYS_restart_syscall
    SYS_exit SYS_exit_group SYS_wait4 SYS_waitid SYS_sched_yield SYS_sched_getaffinity SYS_sched_setaffinity
    SYS_sched_getparam SYS_sched_getscheduler SYS_sched_get_priority_max SYS_sched_get_priority_min SYS_sched_getattr
    SYS_getpriority SYS_setpriority SYS_getcpu SYS_getpid SYS_getppid SYS_gettid SYS_getpgid SYS_getsid SYS_setsid
    SYS_setpgid SYS_getuid SYS_geteuid SYS_getgid SYS_getegid SYS_getresuid SYS_getresgid SYS_getgroups
    SYS_rt_sigprocmask SYS_rt_sigreturn SYS_rt_sigpending SYS_rt_sigtimedwait SYS_rt_sigsuspend
    SYS_sigaltstack SYS_nanosleep SYS_clock_nanosleep SYS_clock_gettime SYS_clock_getres SYS_gettimeofday
    SYS_setitimer SYS_getitimer SYS_times SYS_getrusage SYS_getrlimit SYS_setrlimit SYS_sysinfo SYS_uname SYS_getrandom
    SYS_capget
};

/// The same under the names that they have on older machines.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLD: Calls = calls! {
    SYS_stat SYS_lstat SYS_access SYS_readlink SYS_getdents SYS_rmdir SYS_unlink SYS_rename
    SYS_dup2 SYS_pipe SYS_eventfd SYS_inotify_init SYS_poll SYS_select SYS_epoll_create SYS_epoll_wait SYS_time
    SYS_alarm SYS_pause SYS_arch_prctl SYS_getpgrp SYS_utime SYS_utimes SYS_futimesat
};
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OLD: Calls = &[];

/// What only moves files need: a name that is given once is given by a link on some network shares.
const MOVING: Calls = calls! { SYS_linkat SYS_fchown SYS_fchownat SYS_fchmod SYS_fallocate };
/// What drivers of GPUs share memory by, which is counted nowhere.
const DRIVING: Calls = calls! { SYS_memfd_create };

/// What no decoder and no muxer calls. A stage that does has been taken over, or this list is wrong: both are worth a stop.
const FATAL: Calls = calls! {
    SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_process_madvise SYS_pidfd_getfd SYS_kcmp
    SYS_keyctl SYS_add_key SYS_request_key SYS_bpf SYS_perf_event_open SYS_userfaultfd
    SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register
    SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot SYS_open_tree SYS_move_mount SYS_mount_setattr
    SYS_fsopen SYS_fsconfig SYS_fsmount SYS_fspick SYS_setns SYS_unshare SYS_open_by_handle_at
    SYS_init_module SYS_finit_module SYS_delete_module SYS_kexec_load SYS_kexec_file_load SYS_reboot
    SYS_swapon SYS_swapoff SYS_acct SYS_quotactl SYS_settimeofday SYS_clock_settime SYS_clock_adjtime SYS_adjtimex
    SYS_sethostname SYS_setdomainname SYS_vhangup SYS_fanotify_init SYS_lookup_dcookie
};
#[cfg(target_arch = "x86_64")]
const FATAL_OLD: Calls = calls! { SYS_iopl SYS_ioperm SYS_modify_ldt };
#[cfg(not(target_arch = "x86_64"))]
const FATAL_OLD: Calls = &[];

/// Requests of files and pipes alone (asm-generic/ioctls.h): is it a terminal, how much is there, close it, do not block.
const REQUESTS: &[u64] = &[0x5401, 0x5413, 0x541b, 0x5421, 0x5450, 0x5451];
/// What pushes characters into terminals: not even a driver needs it.
const TERMINAL_REQUESTS: &[u64] = &[0x5412, 0x541c];
/// Of its own process (linux/prctl.h): names, what it is, memory's names, times, and rights that it drops or looks at.
const PROCESS_OPTIONS: &[libc::c_int] = &[
    libc::PR_SET_NAME,
    libc::PR_GET_NAME,
    libc::PR_GET_DUMPABLE,
    libc::PR_SET_VMA,
    libc::PR_SET_TIMERSLACK,
    libc::PR_GET_TIMERSLACK,
    libc::PR_GET_NO_NEW_PRIVS,
    libc::PR_GET_SECCOMP,
    libc::PR_CAPBSET_READ,
    libc::PR_SET_THP_DISABLE,
    libc::PR_GET_THP_DISABLE,
];
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;
/// Bits of a mode that give a program its owner's rights.
const SET_ID: u64 = (libc::S_ISUID | libc::S_ISGID) as u64;

/// How a stage ends that made a call of the list: as the kernel would end it.
pub struct Denied;

impl Denied {
    pub const SIGNAL: Signal = Signal::SIGSYS;
}

/// Closes the filter over this process and all that it will start.
///
/// # Errors
///
/// Why the kernel does not take it.
pub fn install(job: &Job) -> Result<(), String> {
    let closed = || -> Result<(), Box<dyn std::error::Error>> {
        tell_of_denials()?;
        let fatal = rules(FATAL.iter().chain(FATAL_OLD));
        // The first one must let the second one in.
        seccompiler::apply_filter(&program(fatal, SeccompAction::Allow, SeccompAction::Trap)?)?;
        let not_known = SeccompAction::Errno(libc::ENOSYS as u32);
        seccompiler::apply_filter(&program(allowed(job)?, not_known, SeccompAction::Allow)?)?;
        Ok(())
    };
    closed().map_err(not_taken)
}

/// What the owner's programs get no answer to. They may trace their own processes and make rooms within their own.
const REFUSED: Calls = calls! {
    SYS_keyctl SYS_add_key SYS_request_key SYS_bpf SYS_perf_event_open SYS_userfaultfd SYS_open_by_handle_at
    SYS_init_module SYS_finit_module SYS_delete_module SYS_kexec_load SYS_kexec_file_load SYS_reboot
    SYS_swapon SYS_swapoff SYS_acct SYS_quotactl SYS_settimeofday SYS_clock_settime SYS_clock_adjtime SYS_adjtimex
    SYS_fanotify_init SYS_vhangup
};

/// The filter over a program of the owner.
///
/// # Errors
///
/// Why the kernel does not take it.
pub fn install_for_functions() -> Result<(), String> {
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let closed = program(rules(REFUSED.iter()), SeccompAction::Allow, refused);
    let closed = closed.map_err(|e| e.to_string());
    let closed = closed.and_then(|program| seccompiler::apply_filter(&program).map_err(|e| e.to_string()));
    closed.map_err(not_taken)
}

fn not_taken(e: impl std::fmt::Display) -> String {
    format!(
        "the kernel takes no filter of system calls: {e}; it needs CONFIG_SECCOMP_FILTER, and a container that allows it"
    )
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn rules<'a>(calls: impl Iterator<Item = &'a (&'static str, c_long)>) -> Rules {
    calls.map(|(_, number)| (*number, Vec::new())).collect()
}

fn program(
    rules: Rules,
    otherwise: SeccompAction,
    matching: SeccompAction,
) -> Result<BpfProgram, seccompiler::BackendError> {
    SeccompFilter::new(rules, otherwise, matching, std::env::consts::ARCH.try_into()?)?.try_into()
}

fn allowed(job: &Job) -> Result<Rules, seccompiler::BackendError> {
    let mut rules = rules(ALLOWED.iter().chain(ALLOWED_OLD));
    let (is, number) = (SeccompCmpOp::Eq, SeccompCmpArgLen::Dword);
    let one = |argument: u8, op: SeccompCmpOp, value: u64| {
        SeccompRule::new(vec![SeccompCondition::new(argument, number.clone(), op, value)?])
    };
    let one_of = |argument: u8, values: &[u64]| -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
        values.iter().map(|value| one(argument, is.clone(), *value)).collect()
    };
    let own = u64::from(std::process::id());
    // Threads and processes, but no namespaces for them. What has its flags in memory cannot be looked at: `clone3` is
    // not known here, and libraries use this one.
    rules.insert(libc::SYS_clone, vec![one(0, SeccompCmpOp::MaskedEq(NAMESPACES), 0)?]);
    #[cfg(target_arch = "x86_64")]
    for fork in [libc::SYS_fork, libc::SYS_vfork] {
        rules.insert(fork, Vec::new());
    }
    // Signals to itself: to abort, and from thread to thread.
    for signal in [libc::SYS_kill, libc::SYS_tgkill] {
        rules.insert(signal, vec![one(0, is.clone(), own)?]);
    }
    rules.insert(libc::SYS_prlimit64, one_of(0, &[0, own])?);
    rules.insert(libc::SYS_socketpair, vec![one(0, is.clone(), libc::AF_UNIX as u64)?]);
    let options: Vec<u64> = PROCESS_OPTIONS.iter().map(|option| *option as u64).collect();
    rules.insert(libc::SYS_prctl, one_of(0, &options)?);
    let requests = match job.device {
        None => one_of(1, REQUESTS)?,
        Some(_) => {
            let none = |value: &u64| SeccompCondition::new(1, number.clone(), SeccompCmpOp::Ne, *value);
            vec![SeccompRule::new(TERMINAL_REQUESTS.iter().map(none).collect::<Result<_, _>>()?)?]
        }
    };
    rules.insert(libc::SYS_ioctl, requests);
    let plain = SeccompCmpOp::MaskedEq(SET_ID);
    if job.access.shares.is_empty() {
        rules.insert(libc::SYS_fchmod, vec![one(1, plain.clone(), 0)?]);
    } else {
        rules.extend(self::rules(MOVING.iter()));
    }
    // No program with its owner's rights is made, but by `openat2`, whose mode is in memory: there the jail's own mounts,
    // which give nobody rights, and who places what was made take them off.
    for (call, mode) in [(libc::SYS_fchmodat, 2), (libc::SYS_openat, 3), (libc::SYS_mkdirat, 2)] {
        rules.insert(call, vec![one(mode, plain.clone(), 0)?]);
    }
    // How a refused call ends the stage is not its own to say.
    rules.insert(libc::SYS_rt_sigaction, vec![one(0, SeccompCmpOp::Ne, libc::SIGSYS as u64)?]);
    if job.device.is_some() {
        rules.extend(self::rules(DRIVING.iter()));
    }
    #[cfg(target_arch = "x86_64")]
    {
        for (call, mode) in [(libc::SYS_chmod, 1), (libc::SYS_open, 2), (libc::SYS_creat, 1), (libc::SYS_mkdir, 1)] {
            rules.insert(call, vec![one(mode, plain.clone(), 0)?]);
        }
        if !job.access.shares.is_empty() {
            rules.extend(self::rules(calls! { SYS_link SYS_lchown SYS_chown }.iter()));
        }
    }
    Ok(rules)
}

/// Says on the log which call it was, and ends as the kernel would end it.
fn tell_of_denials() -> nix::Result<()> {
    let action =
        SigAction::new(SigHandler::SigAction(denied), SaFlags::SA_RESETHAND | SaFlags::SA_NODEFER, SigSet::empty());
    // SAFETY: the handler makes system calls and nothing else.
    unsafe { sigaction(Denied::SIGNAL, &action) }.map(drop)
}

extern "C" fn denied(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    /// Where a `SIGSYS` carries the number of its call (asm-generic/siginfo.h): behind three numbers and an address.
    const CALL_AT: usize = 24;
    // SAFETY: the kernel hands over a whole `siginfo_t`, which is 128 bytes.
    let number = unsafe { info.cast::<u8>().add(CALL_AT).cast::<libc::c_int>().read_unaligned() };
    let known = FATAL.iter().chain(FATAL_OLD).find(|(_, call)| *call == c_long::from(number));
    let name = known.map_or("another", |(name, _)| &name["SYS_".len()..]);
    for part in ["the jail's filter refused the system call '", name, "'\n"] {
        // SAFETY: a string and its length.
        unsafe { libc::write(2, part.as_ptr().cast(), part.len()) };
    }
    // SAFETY: to itself, with the handler gone; where that is refused, as in a process that the worker made, it exits.
    unsafe {
        libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), libc::SIGSYS);
        libc::_exit(128 + libc::SIGSYS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_both_allowed_and_fatal() {
        let fatal: Vec<c_long> = FATAL.iter().chain(FATAL_OLD).map(|(_, number)| *number).collect();
        for (name, number) in ALLOWED.iter().chain(ALLOWED_OLD).chain(MOVING) {
            assert!(!fatal.contains(number), "{name}");
        }
    }
}
