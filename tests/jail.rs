//! What a stage's child cannot do, tried from within the real child: a program that GStreamer loads as a plug-in makes some
//! eighty attempts after the jail has closed (tests/jail/probe.c). Root's child and an ordinary user's are tried, under the
//! kernel at hand, under one with Debian 12's Landlock and under one without any.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use conveyor_base::{Shares, TaskError, Uri};
use conveyor_job::{Access, Job};
use conveyor_sandbox::{ChildProcesses, Mode, Sandbox, Spawn as _};
use conveyor_testing::exchange::Exchange;
use serde_json::{Value, json};

/// A user without any rights, for tests that run as root.
const USER: u32 = 1_234;

struct House {
    dir: tempfile::TempDir,
    plugins: PathBuf,
    sandbox: Sandbox,
    /// What the child's program is started with, as a shell says it.
    surroundings: String,
}

fn compile(source: &str, into: &Path) {
    let source = conveyor_testing::root().join("tests/jail").join(source);
    let output = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(into).arg(source).output();
    let output = output.expect("a C compiler, which some of this program's crates need as well");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

impl House {
    fn new() -> House {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for folder in ["in", "other", "store", "plugins"] {
            fs::create_dir(path(folder)).unwrap();
        }
        for (file, text) in
            [("in/a.mp4", "no film"), ("in/b.mp4", "another"), ("other/secret", "s"), ("store/state", "s")]
        {
            fs::write(path(file), text).unwrap();
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let plugins = path("plugins");
        compile("probe.c", &plugins.join("libprobe.so"));
        compile("kernel.c", &path("kernel.so"));
        House { dir, plugins, sandbox: Sandbox::default(), surroundings: String::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn targets(&self, lines: &[&str]) {
        fs::write(self.plugins.join("targets"), lines.join("\n") + "\n").unwrap();
    }

    fn on_kernel(&mut self, answers: &str) {
        let library = self.path("kernel.so");
        self.surroundings += &format!(" env LD_PRELOAD={} {answers}", library.display());
    }

    fn as_user(&mut self) {
        self.surroundings += &format!(" setpriv --reuid {USER} --regid {USER} --clear-groups");
    }

    /// Runs a stage that opens the file.
    fn probe(&self) -> Result<Value, TaskError> {
        let access = Access::reading([Uri::new("in", "a.mp4")]);
        self.run("probe", json!({ "input": "s3://in/a.mp4" }), access, "")
    }

    /// Runs a stage through whatever surrounds the program.
    fn run(&self, stage: &str, parameters: Value, access: Access, answers: &str) -> Result<Value, TaskError> {
        let children = ChildProcesses::new(self.program(&self.surroundings, answers), None, self.sandbox.clone());
        self.run_by(&children, stage, parameters, access)
    }

    fn run_by(
        &self,
        children: &ChildProcesses,
        stage: &str,
        parameters: Value,
        access: Access,
    ) -> Result<Value, TaskError> {
        let work_dir = self.path("work");
        let _ = fs::remove_dir_all(&work_dir);
        fs::create_dir(&work_dir).unwrap();
        if self.surroundings.contains("setpriv") {
            std::os::unix::fs::chown(&work_dir, Some(USER), Some(USER)).unwrap();
        }
        let shares = ["in", "other"].map(|name| (name.to_owned(), self.path(name)));
        let job = Job {
            stage: stage.into(),
            parameters,
            work_dir,
            shares: Shares::new(shares),
            access,
            threads: 1,
            device: None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(children.spawn(job, Box::new(|_| {})))
    }

    /// The program, started through whatever surrounds it.
    fn program(&self, surroundings: &str, answers: &str) -> PathBuf {
        let program = self.path("conveyor.sh");
        let plugins = self.plugins.display();
        let conveyor = env!("CARGO_BIN_EXE_conveyor");
        let preload = format!("env LD_PRELOAD={} {answers}", self.path("kernel.so").display());
        let around = format!("{surroundings} {}", if answers.is_empty() { "" } else { &preload });
        let text = format!("#!/bin/sh\nexport GST_PLUGIN_PATH={plugins}\nexec {around} {conveyor} \"$@\"\n");
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        program
    }

    /// Tries everything, and says what was open.
    fn tries(&self) -> Vec<String> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let path_socket = self.path("socket");
        let _ = fs::remove_file(&path_socket);
        let _by_path = UnixListener::bind(&path_socket).unwrap();
        fs::set_permissions(&path_socket, fs::Permissions::from_mode(0o777)).unwrap();
        let name = format!("conveyor-jail-{}", std::process::id());
        let _by_name = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let text = |path: PathBuf| path.display().to_string();
        let (number, own) = (port.local_addr().unwrap().port().to_string(), std::process::id().to_string());
        self.targets(&[
            &number,
            &text(self.path("other/secret")),
            &text(self.path("in/a.mp4")),
            &text(self.path("in")),
            &text(self.path("store/state")),
            &text(path_socket),
            &name,
            &own,
        ]);
        let error = self.probe().unwrap_err();
        let report = fs::read_to_string(self.path("work/probe")).unwrap_or_default();
        assert!(report.ends_with("done\n"), "{error}\n{report}");
        assert_eq!(error.error, "Media.NotMedia", "{error}");
        // What it left behind in a session of its own is gone with it.
        let lingers = || fs::metadata(self.path("work/lingers")).map_or(0, |meta| meta.len());
        let before = lingers();
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(lingers(), before, "a process outlives its stage");
        port.set_nonblocking(true).unwrap();
        assert!(port.accept().is_err(), "somebody reached the listener");
        assert_eq!(fs::read_to_string(self.path("in/a.mp4")).unwrap(), "no film");
        assert_eq!(fs::read_dir(self.path("in")).unwrap().count(), 2);
        let (works, tried): (Vec<&str>, Vec<&str>) = report.lines().partition(|line| line.starts_with("own_"));
        assert!(works.iter().all(|line| line.ends_with(" OPEN")) && works.len() == 3, "{works:?}");
        assert!(tried.len() > 75, "{report}");
        tried.iter().filter(|line| !line.contains(" held ") && **line != "done").map(|line| line.to_string()).collect()
    }
}

/// A real film of a second, made by ffmpeg; none where that is missing, which in CI it must not be.
fn film(path: &Path) -> bool {
    let picture = ["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25:duration=1"];
    let made = Command::new("ffmpeg").args(["-v", "error", "-y"]).args(picture).arg(path).status();
    assert!(made.is_ok() || std::env::var_os("CI").is_none(), "ffmpeg is missing: run `make test`");
    made.is_ok_and(|status| status.success())
}

#[test]
fn the_captions_beside_a_file_are_read_and_its_neighbours_are_not() {
    let house = House::new();
    if !film(&house.path("in/film.mp4")) {
        eprintln!("skipped: ffmpeg, which makes the film, is not installed");
        return;
    }
    let cue = |text: &str| format!("1\n00:00:00,000 --> 00:00:01,000\n{text}\n");
    fs::write(house.path("in/film.en.srt"), cue("ours")).unwrap();
    fs::write(house.path("in/films.srt"), cue("theirs")).unwrap();
    std::os::unix::fs::symlink(house.path("other/secret"), house.path("in/film.de.srt")).unwrap();
    fs::remove_dir_all(&house.plugins).unwrap();
    let film = Uri::new("in", "film.mp4");
    let access = Access { captions_of: vec![film.clone()], ..Access::reading([film]) };
    for answers in ["", "LANDLOCK_ANSWERS=0"] {
        let result = house.run("transcript", json!({ "input": "s3://in/film.mp4" }), access.clone(), answers).unwrap();
        assert_eq!((&result["text"], &result["cueCount"]), (&json!("ours"), &json!(1)), "{result:#}");
        assert!(result["sandbox"].as_array().is_some_and(|locks| locks.contains(&json!("filter"))), "{result:#}");
    }
}

#[test]
fn a_link_out_of_a_share_is_the_file_s_fault_and_is_not_followed() {
    let house = House::new();
    for (name, to) in [("link.mp4", "other/secret"), ("beside.mp4", "in/a.mp4")] {
        std::os::unix::fs::symlink(house.path(to), house.path("in").join(name)).unwrap();
    }
    std::os::unix::fs::symlink("a.mp4", house.path("in/relative.mp4")).unwrap();
    let run = |name: &str| {
        let access = Access::reading([Uri::new("in", name)]);
        house.run("probe", json!({ "input": format!("s3://in/{name}") }), access, "").unwrap_err()
    };
    assert_eq!(run("link.mp4").error, "Media.InvalidParameter");
    assert_eq!(run("relative.mp4").error, "Media.NotMedia", "it stays in its share");
    // A link that begins at the top leads out, whatever it leads to: what the top is changes with whoever looks.
    assert_eq!(run("beside.mp4").error, "Media.InvalidParameter");
    assert_eq!(run("none.mp4").error, "Media.Vanished");
}

/// Somebody who may write to a share exchanges a folder with a link, between the look at a file in it and its binding.
#[test]
fn nothing_is_made_where_an_exchanged_link_leads_to() {
    let house = House::new();
    // Not below /tmp, which the new root is made on and hides.
    let outside = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let sub = house.path("in/film/sub");
    fs::create_dir_all(sub.join("deep")).unwrap();
    for name in ["a.mp4", "deep/b.mp4"] {
        fs::write(sub.join(name), "no film").unwrap();
    }
    let run = |key: &str| {
        let access = Access::reading(["film", key].map(|key| Uri::new("in", key)));
        house.run("fingerprint", json!({ "input": format!("s3://in/{key}") }), access, "")
    };
    let within = ["film/sub/a.mp4", "film/sub/deep/b.mp4"];
    within.iter().for_each(|key| drop(run(key).unwrap()));
    let exchange = Exchange::with_link(&sub, outside.path());
    for _ in 0..30 {
        // Their errors are those of whatever was there when it was looked at.
        within.iter().for_each(|key| drop(run(key)));
    }
    drop(exchange);
    let made: Vec<_> = fs::read_dir(outside.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(made.is_empty(), "{made:?}");
}

/// Whether the test can become somebody else.
fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn a_child_can_do_nothing_but_its_work() {
    for answers in ["", "LANDLOCK_ANSWERS=2", "LANDLOCK_ANSWERS=0"] {
        let mut house = House::new();
        if !answers.is_empty() {
            house.on_kernel(answers);
        }
        assert_eq!(house.tries(), Vec::<String>::new(), "Landlock: '{answers}'");
    }
}

#[test]
fn nor_can_an_ordinary_user_s_child() {
    if !is_root() {
        eprintln!("skipped: the test above was the ordinary user's already");
        return;
    }
    for answers in ["", "LANDLOCK_ANSWERS=2", "LANDLOCK_ANSWERS=0"] {
        let mut house = House::new();
        house.as_user();
        if !answers.is_empty() {
            house.on_kernel(answers);
        }
        assert_eq!(house.tries(), Vec::<String>::new(), "Landlock: '{answers}'");
    }
}

#[test]
fn a_stage_that_its_jail_ends_is_named_so() {
    let house = House::new();
    house.targets(&["trace"]);
    let error = house.probe().unwrap_err();
    assert!(error.error == "Stage.Jail" && error.cause.contains("'ptrace'"), "{error}");
}

#[test]
fn processes_that_take_too_much_together_are_ended() {
    let mut house = House::new();
    house.sandbox.memory_mib = Some(512);
    for how in ["eat", "eat shared"] {
        house.targets(&[how]);
        let error = house.probe().unwrap_err();
        assert!(error.error == "Stage.LimitExceeded" && error.cause.contains("512 MiB"), "{how}: {error}");
    }
}

/// Needs a group of its own that is delegated, as a unit with `Delegate=memory pids` has it.
#[test]
fn a_control_group_holds_what_no_process_has_in_sight() {
    let mut house = House::new();
    house.sandbox.memory_mib = Some(512);
    house.targets(&["eat hidden"]);
    let children = ChildProcesses::new(house.program("", ""), None, house.sandbox.clone());
    let (children, grouped) = children.with_cgroups();
    grouped.unwrap();
    let access = Access::reading([Uri::new("in", "a.mp4")]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    fs::create_dir(house.path("check")).unwrap();
    runtime.block_on(children.check(house.path("check"))).unwrap();
    if !children.standing().jail.closed.contains(&"control group".to_owned()) {
        eprintln!("skipped: no control group is delegated to this process");
        return;
    }
    let error = house.run_by(&children, "probe", json!({ "input": "s3://in/a.mp4" }), access).unwrap_err();
    assert!(error.error == "Stage.LimitExceeded" && error.cause.contains("512 MiB"), "{error}");
}

#[test]
fn a_jail_that_does_not_close_runs_nothing_unless_that_was_asked_for() {
    let mut house = House::new();
    house.targets(&["none"]);
    house.on_kernel("WITHOUT_NAMESPACES=1");
    let error = house.probe().unwrap_err();
    assert!(error.error == "Stage.Jail" && error.cause.contains("namespaces"), "{error}");
    assert!(!house.path("work/probe").exists(), "nothing was loaded");
    house.sandbox.mode = Mode::BestEffort;
    assert_eq!(house.probe().unwrap_err().error, "Media.NotMedia");
}

#[test]
fn what_was_made_is_placed_wherever_the_folders_lie() {
    // Side by side in the folder that holds all temporary files, which the new root is made on.
    let (house, other) = (House::new(), tempfile::tempdir().unwrap());
    let (work_dir, share) = (house.path("work"), other.path().join("out"));
    for folder in [&work_dir, &share] {
        fs::create_dir(folder).unwrap();
    }
    for answers in ["", "LANDLOCK_ANSWERS=0"] {
        fs::write(work_dir.join("made.mp4"), "film").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", work_dir.join("link")).unwrap();
        let place = |from: &str| Job {
            stage: "place".into(),
            parameters: json!({ "files": [{ "from": from, "to": "s3://out/film/a.mp4" }] }),
            work_dir: work_dir.clone(),
            shares: Shares::new([("out".to_owned(), share.clone())]),
            access: Access { shares: vec!["out".into()], ..Access::default() },
            threads: 1,
            device: None,
        };
        let program = house.program("", answers);
        let children = ChildProcesses::new(program, None, Sandbox::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let run = |job: Job| runtime.block_on(children.spawn(job, Box::new(|_| {})));
        assert_eq!(run(place("link")).unwrap_err().error, "Stage.BadReport");
        assert_eq!(run(place("../../etc/passwd")).unwrap_err().error, "Stage.BadReport");
        assert_eq!(run(place("made.mp4")).unwrap()["count"], 1);
        assert_eq!(fs::read_to_string(share.join("film/a.mp4")).unwrap(), "film");
        assert!(!work_dir.join("made.mp4").exists());
        fs::remove_file(work_dir.join("link")).unwrap();
        fs::remove_dir_all(share.join("film")).unwrap();
    }
}

/// Runs a shell as `[functions]` would, and gives its output.
fn function(house: &House, surroundings: &[&str], hidden: &[PathBuf], script: &str) -> std::process::Output {
    let conveyor = env!("CARGO_BIN_EXE_conveyor");
    let (first, rest) = surroundings.split_first().unwrap_or((&conveyor, &[]));
    let mut command = Command::new(first);
    command.args(rest);
    if !surroundings.is_empty() {
        command.arg(conveyor);
    }
    command.arg("function");
    for path in hidden {
        command.arg("--hide").arg(path);
    }
    command.args(["--", "sh", "-c", script]).current_dir(house.path("other")).output().unwrap()
}

#[test]
fn the_owner_s_programs_see_all_but_the_store_and_leave_nothing_behind() {
    let house = House::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    fs::set_permissions(house.path("other"), fs::Permissions::from_mode(0o777)).unwrap();
    let user = ["setpriv", "--reuid", "1234", "--regid", "1234", "--clear-groups"];
    for surroundings in [&[][..], &user] {
        if !surroundings.is_empty() && !is_root() {
            continue;
        }
        let hidden = [house.path("store"), house.path("in/b.mp4")];
        let script = format!(
            "cat ../other/secret; wc -c < ../in/b.mp4; ls ../store 2>&1; ls -d /proc/[0-9]* | wc -l; \
             kill -0 {outside} 2>/dev/null && echo signalled; test -e /proc/{outside} && echo seen; \
             (setsid sh -c 'while :; do echo x >> lingers; sleep 0.1; done' >/dev/null 2>&1 &); sleep 0.3; \
             bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected' 2>&1; exit 7",
            outside = std::process::id(),
        );
        let output = function(&house, surroundings, &hidden, &script);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(7), "{said} {}", String::from_utf8_lossy(&output.stderr));
        assert!(said.starts_with("s0\n") && !said.contains("state"), "{said}");
        assert!(!said.contains("signalled") && !said.contains("seen") && said.contains("connected"), "{said}");
        let lingers = || fs::metadata(house.path("other/lingers")).map_or(0, |meta| meta.len());
        let before = lingers();
        std::thread::sleep(Duration::from_millis(500));
        assert!(before > 0 && lingers() == before, "a process outlives its function");
        fs::remove_file(house.path("other/lingers")).unwrap();
    }
    let preload = format!("LD_PRELOAD={}", house.path("kernel.so").display());
    let output = function(&house, &["env", &preload, "WITHOUT_NAMESPACES=1"], &[], "echo ran");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(125), 0));
    assert!(String::from_utf8_lossy(&output.stderr).contains("namespaces"));
}
