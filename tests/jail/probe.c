/* Tries what a stage's child must not be able to do, from within it: GStreamer opens every file of its plug-in path, and so
 * this one, after the jail has closed. What it finds it writes, a line for each attempt, into the file "probe" in the
 * current folder: "name held <why>" or "name OPEN". Each attempt is a process of its own, as some end by a signal.
 *
 * The file "targets" beside it says what to reach for; or, in its first line, to do one thing alone: "eat" memory in several
 * processes, each of which takes little, "eat shared" memory there, "eat hidden" memory, which nobody has in sight, or "trace" another process. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <linux/netlink.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char port[16], secret[512], input[512], store[512], path_socket[512], abstract[128], outside[16], share[512];

/* 0 where it worked, which it must not; else why not. */
static int result(long done) { return done >= 0 ? 0 : errno; }

static int connect_tcp(int family) {
    int s = socket(family, SOCK_STREAM, 0);
    if (s < 0) return errno;
    if (family == AF_INET) {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(port)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        return result(connect(s, (void *)&a, sizeof a));
    }
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons(atoi(port)), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    return result(connect(s, (void *)&a, sizeof a));
}
static int tcp4(void) { return connect_tcp(AF_INET); }
static int tcp6(void) { return connect_tcp(AF_INET6); }
static int udp(void) {
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    if (s < 0) return errno;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(53), .sin_addr.s_addr = htonl(0x08080808)};
    return result(sendto(s, "x", 1, 0, (void *)&a, sizeof a));
}
static int listens(void) {
    int s = socket(AF_INET, SOCK_STREAM, 0);
    if (s < 0) return errno;
    struct sockaddr_in a = {.sin_family = AF_INET};
    if (bind(s, (void *)&a, sizeof a)) return errno;
    return result(listen(s, 1));
}
static int of_kind(int family, int type, int protocol) { return result(socket(family, type, protocol)); }
static int raw(void) { return of_kind(AF_INET, SOCK_RAW, IPPROTO_ICMP); }
static int packet(void) { return of_kind(AF_PACKET, SOCK_RAW, 0); }
static int netlink(void) { return of_kind(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE); }
static int vsock(void) { return of_kind(AF_VSOCK, SOCK_STREAM, 0); }
static int unix_socket(const char *name, size_t length) {
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    if (s < 0) return errno;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    memcpy(a.sun_path, name, length);
    return result(connect(s, (void *)&a, offsetof(struct sockaddr_un, sun_path) + length));
}
static int socket_abstract(void) {
    char name[130] = {0};
    strcpy(name + 1, abstract);
    return unix_socket(name, 1 + strlen(abstract));
}
static int socket_path(void) { return unix_socket(path_socket, strlen(path_socket)); }

static int reads(const char *path) {
    int f = open(path, O_RDONLY);
    char byte;
    if (f < 0) return errno;
    return result(read(f, &byte, 1));
}
static int writes(const char *path) { return result(open(path, O_WRONLY)); }
static int makes(const char *path) { return result(open(path, O_WRONLY | O_CREAT, 0644)); }
static int read_secret(void) { return reads(secret); }
static int read_store(void) { return reads(store); }
static int read_passwd(void) { return reads("/etc/passwd"); }
static int read_shadow(void) { return reads("/etc/shadow"); }
static int read_hostname(void) { return reads("/etc/hostname"); }
static int read_root(void) { return reads("/root/.bashrc"); }
static int list_share(void) {
    DIR *folder = opendir(share);
    struct dirent *entry;
    if (!folder) return errno;
    while ((entry = readdir(folder)))
        if (entry->d_name[0] != '.' && !strstr(input, entry->d_name)) return 0;
    return ENOENT;
}
static int list_home(void) { return opendir("/home") ? 0 : errno; }
static int write_input(void) { return writes(input); }
static int delete_input(void) { return result(unlink(input)); }
static int beside_input(void) {
    char path[600];
    snprintf(path, sizeof path, "%s.new", input);
    return makes(path);
}
static int write_share(void) {
    char path[600];
    snprintf(path, sizeof path, "%s/planted", share);
    return makes(path);
}
static int write_lib(void) { return makes("/usr/lib/planted"); }
static int write_tmp(void) { return makes("/tmp/planted"); }
static int write_top(void) { return makes("/planted"); }
static int write_dev(void) { return makes("/dev/planted"); }
static int write_sysctl(void) { return writes("/proc/sys/kernel/core_pattern"); }
static int write_oom(void) { return writes("/proc/sysrq-trigger"); }
static int dev_mem(void) { return reads("/dev/mem"); }
static int dev_kmsg(void) { return writes("/dev/kmsg"); }
static int dev_disk(void) { return reads("/dev/vda"); }
static int dev_tty(void) { return writes("/dev/tty"); }
static int make_node(void) { return result(mknod("node", S_IFCHR | 0666, 0x101)); }
static int make_link(void) { return result(symlink("/etc/passwd", "link")); }
static int hard_link(void) { return result(link(input, "linked")); }
static int set_id(void) {
    int f = open("setid", O_WRONLY | O_CREAT, 0755);
    if (f < 0) return errno;
    return result(fchmod(f, 04755));
}
static int by_handle(void) { return result(syscall(SYS_open_by_handle_at, AT_FDCWD, "", O_RDONLY)); }
static int executes(void) { return result(execl("/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "ld", NULL)); }
static int executes_own(void) {
    int f = open("program", O_WRONLY | O_CREAT, 0755);
    if (f < 0) return errno;
    if (write(f, "#!/bin/sh\n", 10) != 10) return errno;
    close(f);
    return result(execl("./program", "program", NULL));
}
static int executes_memory(void) {
    int f = memfd_create("program", 0);
    if (f < 0) return errno;
    char *none[] = {NULL};
    return result(syscall(SYS_execveat, f, "", none, none, AT_EMPTY_PATH));
}

static int signal_outside(void) { return result(kill(atoi(outside), 0)); }
static int signal_init(void) { return result(kill(1, SIGKILL)); }
static int signal_all(void) { return result(kill(-1, 0)); }
static int see_outside(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%s/cmdline", outside);
    return reads(path);
}
static int see_others(void) {
    DIR *folder = opendir("/proc");
    struct dirent *entry;
    int seen = 0;
    if (!folder) return errno;
    /* Init, the worker and this one. */
    while ((entry = readdir(folder)))
        if (atoi(entry->d_name) > 0) seen++;
    return seen > 4 ? 0 : ESRCH;
}
static int trace(void) { return result(ptrace(PTRACE_ATTACH, 1, 0, 0)); }
static int read_memory(void) {
    char byte;
    struct iovec local = {&byte, 1}, remote = {(void *)0x400000, 1};
    return result(process_vm_readv(1, &local, 1, &remote, 1, 0));
}
static int open_pid(void) { return result(syscall(SYS_pidfd_open, 1, 0)); }

static int new_user(void) { return result(unshare(CLONE_NEWUSER)); }
static int new_net(void) { return result(unshare(CLONE_NEWNET)); }
static int clone_user(void) { return result(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0)); }
static int join(void) {
    int f = open("/proc/1/ns/mnt", O_RDONLY);
    return f < 0 ? errno : result(setns(f, 0));
}
static int mounts(void) { return result(mount("none", ".", "tmpfs", 0, "")); }
static int unmounts(void) { return result(umount2("/proc", MNT_DETACH)); }
static int new_root(void) { return result(chroot(".")); }
static int root_again(void) { return result(setuid(0)); }
static int has_rights(void) {
    char text[4096] = {0};
    int f = open("/proc/self/status", O_RDONLY);
    if (f < 0) return errno;
    if (read(f, text, sizeof text - 1) < 0) return errno;
    /* Effective and bounding sets are empty, and a filter is on. */
    if (!strstr(text, "CapEff:\t0000000000000000") || !strstr(text, "CapBnd:\t0000000000000000")) return 0;
    return strstr(text, "Seccomp:\t2") && strstr(text, "NoNewPrivs:\t1") ? EPERM : 0;
}
static int is_root(void) { return getuid() == 0 || geteuid() == 0 ? 0 : EPERM; }
static int dumpable(void) { return prctl(PR_GET_DUMPABLE) == 1 ? 0 : EPERM; }
static int keys(void) { return result(syscall(SYS_keyctl, 0, -3, 0)); }
static int add_key_(void) { return result(syscall(SYS_add_key, "user", "x", "y", 1, -3)); }
static int bpf_(void) { return result(syscall(SYS_bpf, 0, "", 0)); }
static int perf(void) { return result(syscall(SYS_perf_event_open, "", 0, -1, -1, 0)); }
static int faults(void) { return result(syscall(SYS_userfaultfd, 1)); }
static int ring(void) {
    char parameters[120] = {0};
    return result(syscall(SYS_io_uring_setup, 1, parameters));
}
static int set_time(void) { struct timeval now = {1, 0}; return result(settimeofday(&now, NULL)); }
static int reboots(void) { return result(syscall(SYS_reboot, 0xfee1dead, 672274793, 0x89abcdef, 0)); }
static int host_name(void) { return result(sethostname("x", 1)); }
static int module(void) { return result(syscall(SYS_init_module, "", 0, "")); }
static int nicer(void) { return result(setpriority(PRIO_PROCESS, 0, -10)); }
static int real_time(void) { struct sched_param p = {1}; return result(sched_setscheduler(0, SCHED_FIFO, &p)); }
static int terminal(void) { char c = 'x'; return result(ioctl(0, TIOCSTI, &c)); }

static int memory(void) {
    void *m = mmap(NULL, 1ull << 40, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return m == MAP_FAILED ? errno : 0;
}
static int big_file(void) {
    int f = open("big", O_WRONLY | O_CREAT, 0644);
    signal(SIGXFSZ, SIG_IGN);
    return f < 0 ? errno : result(ftruncate(f, 1ll << 50));
}
static int many_files(void) {
    for (int n = 0; n < 10000; n++)
        if (open("/dev/null", O_RDONLY) < 0) return errno;
    return 0;
}
static int raise_limit(void) { struct rlimit limit = {1 << 20, 1 << 20}; return result(setrlimit(RLIMIT_NOFILE, &limit)); }

/* These must work: a probe that could do nothing would find everything held. */
static int own_file(void) { return makes("own") ? EIO : 0; }
static int own_pair(void) { int pair[2]; return socketpair(AF_UNIX, SOCK_STREAM, 0, pair) ? EIO : 0; }
static int own_input(void) { return reads(input) ? EIO : 0; }

#define TRY(name) {#name, name}
static const struct { const char *name; int (*attempt)(void); } attempts[] = {
    TRY(tcp4), TRY(tcp6), TRY(udp), TRY(listens), TRY(raw), TRY(packet), TRY(netlink), TRY(vsock), TRY(socket_abstract),
    TRY(socket_path), TRY(read_secret), TRY(read_store), TRY(read_passwd), TRY(read_shadow), TRY(read_hostname),
    TRY(read_root), TRY(list_share), TRY(list_home), TRY(write_input), TRY(delete_input), TRY(beside_input),
    TRY(write_share), TRY(write_lib), TRY(write_tmp), TRY(write_top), TRY(write_dev), TRY(write_sysctl), TRY(write_oom),
    TRY(dev_mem), TRY(dev_kmsg), TRY(dev_disk), TRY(dev_tty), TRY(make_node), TRY(make_link), TRY(hard_link), TRY(set_id),
    TRY(by_handle), TRY(executes), TRY(executes_own), TRY(executes_memory), TRY(signal_outside), TRY(signal_init),
    TRY(signal_all), TRY(see_outside), TRY(see_others), TRY(trace), TRY(read_memory), TRY(open_pid), TRY(new_user),
    TRY(new_net), TRY(clone_user), TRY(join), TRY(mounts), TRY(unmounts), TRY(new_root), TRY(root_again), TRY(has_rights),
    TRY(is_root), TRY(dumpable), TRY(keys), TRY(add_key_), TRY(bpf_), TRY(perf), TRY(faults), TRY(ring), TRY(set_time),
    TRY(reboots), TRY(host_name), TRY(module), TRY(nicer), TRY(real_time), TRY(terminal), TRY(memory), TRY(big_file),
    TRY(many_files), TRY(raise_limit),
}, works[] = {TRY(own_file), TRY(own_pair), TRY(own_input)};

static void target(FILE *file, char *into, size_t size) {
    if (!fgets(into, size, file)) into[0] = 0;
    into[strcspn(into, "\n")] = 0;
}

static void attempt(FILE *report, const char *name, int (*work)(void)) {
    fflush(report);
    pid_t child = fork();
    int status;
    if (child < 0) {
        fprintf(report, "%s UNTRIED %s\n", name, strerrorname_np(errno));
        return;
    }
    if (child == 0) {
        errno = 0;
        _exit(work());
    }
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) fprintf(report, "%s held signal %d\n", name, WTERMSIG(status));
    else if (WEXITSTATUS(status) == 128 + SIGSYS) fprintf(report, "%s held filter\n", name);
    else if (WEXITSTATUS(status)) fprintf(report, "%s held %s\n", name, strerrorname_np(WEXITSTATUS(status)));
    else fprintf(report, "%s OPEN\n", name);
}

/* Outlives whoever started it, if it can: ten times a second its file grows. */
static void linger(void) {
    if (fork()) return;
    setsid();
    if (fork()) _exit(0);
    int f = open("lingers", O_WRONLY | O_CREAT | O_APPEND, 0644);
    for (int n = 0; n < 100; n++) {
        if (write(f, "x", 1) != 1) _exit(1);
        usleep(100000);
    }
    _exit(0);
}

static void eat(int sharing, int hidden) {
    for (int n = 0; n < 8; n++) {
        if (fork()) continue;
        prctl(PR_SET_NAME, "\xff");
        char *taken = mmap(NULL, 100 << 20, PROT_READ | PROT_WRITE, sharing | MAP_ANONYMOUS, -1, 0);
        if (taken != MAP_FAILED) memset(taken, 1, 100 << 20);
        /* What is shared stays, though no process has it in sight any more. */
        if (hidden) madvise(taken, 100 << 20, MADV_DONTNEED);
        /* Or the compiler sees that nobody reads it. */
        __asm__ volatile("" ::"r"(taken) : "memory");
        sleep(60);
        _exit(0);
    }
    sleep(60);
}

__attribute__((constructor)) static void probe(void) {
    Dl_info self;
    char path[600];
    if (!dladdr((void *)probe, &self)) return;
    snprintf(path, sizeof path, "%.*s/targets", (int)(strrchr(self.dli_fname, '/') - self.dli_fname), self.dli_fname);
    FILE *targets = fopen(path, "r"), *report = fopen("probe", "w");
    if (!targets || !report) return;
    target(targets, port, sizeof port);
    if (!strcmp(port, "trace")) ptrace(PTRACE_ATTACH, 1, 0, 0);
    if (!strcmp(port, "eat")) eat(MAP_PRIVATE, 0);
    if (!strcmp(port, "eat shared")) eat(MAP_SHARED, 0);
    if (!strcmp(port, "eat hidden")) eat(MAP_SHARED, 1);
    target(targets, secret, sizeof secret);
    target(targets, input, sizeof input);
    target(targets, share, sizeof share);
    target(targets, store, sizeof store);
    target(targets, path_socket, sizeof path_socket);
    target(targets, abstract, sizeof abstract);
    target(targets, outside, sizeof outside);
    for (size_t n = 0; n < sizeof works / sizeof *works; n++) attempt(report, works[n].name, works[n].attempt);
    for (size_t n = 0; n < sizeof attempts / sizeof *attempts; n++) attempt(report, attempts[n].name, attempts[n].attempt);
    linger();
    fprintf(report, "done\n");
    fclose(report);
}
