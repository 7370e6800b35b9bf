//! The child's side: read the job, go to jail, work, report.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use conveyor_base::TaskError;
use conveyor_job::{Job, Placing, Progress, Reporter};
use serde_json::Value;

use super::jail::{self, Entered, NotEntered, Sandbox};
use super::{CHECK, NOT_CLOSED, Report};

/// Progress is written no more often than this.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Runs one job from standard input, in jail. Reports go to what standard output was; whatever a library prints there
/// goes to the log instead. Must be called while the process has one thread.
pub fn child_main(sandbox: &Sandbox, work: impl FnOnce(&Job, &dyn Reporter) -> Result<Value, TaskError>) -> ExitCode {
    let reports = match take_standard_output() {
        Ok(reports) => Reports { state: Mutex::new((reports, None)) },
        Err(error) => {
            eprintln!("the stage has no pipe to report on: {error}");
            return ExitCode::FAILURE;
        }
    };
    let end = match read_job() {
        Ok(job) => match jail::enter(&job, sandbox) {
            Ok(Entered::Worker(jail)) => {
                reports.say(&Report::Jailed(jail.clone()));
                if job.stage == CHECK { Ok(serde_json::json!(jail)) } else { work(&job, &reports) }
            }
            Ok(Entered::Over { code, last_word: None }) => return code,
            Ok(Entered::Over { code, last_word: Some(error) }) => return reports.last(Report::Failed(error), code),
            Err(NotEntered::Open(why)) => Err(not_closed(&job.stage, &why)),
            Err(NotEntered::Job(error)) => Err(error),
        },
        Err(cause) => Err(TaskError::new("Stage.BadJob", cause)),
    };
    match end {
        Ok(result) => reports.last(Report::Result(result), ExitCode::SUCCESS),
        Err(error) => reports.last(Report::Failed(error), ExitCode::FAILURE),
    }
}

fn read_job() -> Result<Job, String> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|e| format!("the job cannot be read from standard input: {e}"))?;
    serde_json::from_str(&text).map_err(|e| format!("standard input holds no job: {e}"))
}

fn not_closed(stage: &str, why: &str) -> TaskError {
    let cause = format!(
        "stage '{stage}' was not run and the file was not opened, since the jail around it does not close: {why}. \
         [sandbox] mode = \"best-effort\" runs stages behind what does close, for files that you trust"
    );
    TaskError::new(NOT_CLOSED, cause)
}

fn take_standard_output() -> nix::Result<File> {
    let pipe: OwnedFd = nix::unistd::dup(std::io::stdout())?;
    nix::unistd::dup2_stdout(std::io::stderr())?;
    Ok(File::from(pipe))
}

struct Reports {
    state: Mutex<(File, Option<Instant>)>,
}

impl Reports {
    fn write(file: &mut File, report: &Report) {
        let mut line = serde_json::to_vec(report).unwrap_or_default();
        line.push(b'\n');
        if file.write_all(&line).is_err() {
            // Nobody listens any more: the appliance is gone or has given this attempt up.
            std::process::exit(1);
        }
    }

    fn say(&self, report: &Report) {
        if let Ok(mut state) = self.state.lock() {
            Reports::write(&mut state.0, report);
        }
    }

    fn last(&self, report: Report, code: ExitCode) -> ExitCode {
        self.say(&report);
        code
    }
}

impl Reporter for Reports {
    fn progress(&self, progress: Progress) {
        let Ok(mut state) = self.state.lock() else { return };
        let now = Instant::now();
        if state.1.is_some_and(|last| now.duration_since(last) < PROGRESS_EVERY) && progress.fraction < 1.0 {
            return;
        }
        state.1 = Some(now);
        Reports::write(&mut state.0, &Report::Progress(progress));
    }

    fn made(&self, file: Placing) {
        self.say(&Report::Made(file));
    }
}
