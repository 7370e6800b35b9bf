//! What a child says, and what may be believed of it: behind its jail it says what it likes, or what somebody likes who has
//! taken it over.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use conveyor_base::limits::REPORT_LINE_BYTES_MAX;
use conveyor_base::{TaskError, Uri};
use conveyor_job::{Access, Job, Placing, Progress};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};

use super::Report;
use super::jail::{Denied, Jail};
use super::spawn::OnProgress;

/// Files that a stage may make: a day of segments of two seconds in eight renditions is less.
const FILES_MAX: usize = 500_000;

/// Bytes of the lines that name them.
const MADE_BYTES_MAX: usize = 128 << 20;
/// Characters of what a stage says that it is doing.
const DOING_CHARS_MAX: usize = 80;

/// Where what a child says before its end goes.
pub struct Heard<'a> {
    pub on_progress: &'a OnProgress,
    pub files: &'a mut Vec<Placing>,
    pub jail: &'a mut Option<Jail>,
}

/// Reads reports until the last one or the end of the pipe.
pub async fn listen(mut pipe: impl AsyncBufRead + Unpin, heard: Heard<'_>) -> Result<Option<Report>, String> {
    let Heard { on_progress, files, jail } = heard;
    let (mut line, mut lines, mut made_bytes) = (Vec::new(), 0u64, 0usize);
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
        lines += 1;
        match serde_json::from_slice(&line) {
            Ok(Report::Progress(progress)) => on_progress(plain(progress)),
            // Said before the file is opened; later it could be anybody's word.
            Ok(Report::Jailed(closed)) if lines == 1 => *jail = Some(closed),
            Ok(Report::Jailed(_)) => return Err("said twice that it is in jail".to_owned()),
            Ok(Report::Made(file)) => {
                // By what the line was read as: the same can be written in many ways.
                made_bytes += line.len();
                if files.len() >= FILES_MAX || made_bytes > MADE_BYTES_MAX {
                    return Err(format!("made more than {FILES_MAX} files, or files of endless names"));
                }
                files.push(file);
            }
            Ok(last) => return Ok(Some(last)),
            Err(e) => return Err(format!("reported what is no report ({e})")),
        }
    }
}

/// Progress as it may be shown, whoever said it.
fn plain(progress: Progress) -> Progress {
    let number = |value: f64, most: f64| if value.is_finite() { value.clamp(0.0, most) } else { 0.0 };
    Progress {
        fraction: number(progress.fraction, 1.0),
        fps: progress.fps.map(|fps| number(fps, 1e6)),
        speed: progress.speed.map(|speed| number(speed, 1e6)),
        doing: progress.doing.chars().take(DOING_CHARS_MAX).collect(),
    }
}

/// Whether an error is one that this stage may have: no device's without one.
pub fn may_say(job: &Job, error: &TaskError) -> bool {
    let of_device = job.device.is_some() && error.error.starts_with("Device.");
    of_device || ["Media.", "Files.", "Quality.", "Stage."].iter().any(|kind| error.error.starts_with(kind))
}

/// The first file that a result names and that is neither read nor made by the stage. The next stage sees what the results
/// before it name, so that a decoder that was taken over could show it somebody else's. What moves files names theirs.
pub fn foreign(result: &Value, access: &Access) -> Option<Uri> {
    match result {
        Value::String(text) => text.parse().ok().filter(|uri| access.shares.is_empty() && !access.may_name(uri)),
        Value::Array(items) => items.iter().find_map(|item| foreign(item, access)),
        Value::Object(fields) => fields.values().find_map(|field| foreign(field, access)),
        _ => None,
    }
}

pub fn ended_without_result(stage: &str, status: ExitStatus, log: &str) -> TaskError {
    match status.signal() {
        Some(signal) => {
            if signal == Denied::SIGNAL as i32 {
                let what = format!(
                    "stage '{stage}' was ended by its jail: it made a system call that no decoder and no encoder makes. \
                     Either its file took it over, or this release's list is wrong: keep the file apart, and report it"
                );
                return TaskError::new("Stage.Jail", format!("{what}{}", quoted(log)));
            }
            let name = Signal::try_from(signal).map_or(format!("signal {signal}"), |s| s.as_str().to_owned());
            // No decoder ends itself so: the file is not to blame.
            let (error, hint) = match signal {
                nix::libc::SIGKILL => (
                    "Stage.Killed",
                    " It was killed from outside: by an operator, or by the kernel when memory ran out (see the kernel's log).",
                ),
                _ => (
                    "Stage.Crashed",
                    " The decoder or encoder crashed on this file; the appliance and its other work are not affected.",
                ),
            };
            TaskError::new(error, format!("stage '{stage}' was ended by {name}.{hint}{}", quoted(log)))
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

pub fn quoted(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!(" The end of its log:\n{log}") }
}

#[cfg(test)]
mod tests {
    use conveyor_base::Shares;
    use conveyor_job::Device;
    use serde_json::json;

    use super::*;

    async fn hear(said: &str) -> (Result<Option<Report>, String>, Vec<Placing>, Option<Jail>) {
        let (mut files, mut jail) = (Vec::new(), None);
        let on_progress: OnProgress = Box::new(|_| {});
        let heard = Heard { on_progress: &on_progress, files: &mut files, jail: &mut jail };
        let end = listen(said.as_bytes(), heard).await;
        (end, files, jail)
    }

    /// A decoder that was taken over holds the pipe.
    #[tokio::test]
    async fn what_a_child_says_of_its_jail_counts_in_its_first_line_alone() {
        let (jailed, result) = (r#"{"jailed":{"closed":["filter"],"open":[]}}"#, r#"{"result":1}"#);
        let (end, _, jail) = hear(&format!("{jailed}\n{result}\n")).await;
        assert!(matches!(end, Ok(Some(Report::Result(_)))) && jail.unwrap().closed == ["filter"]);
        let forged = r#"{"jailed":{"closed":["everything"],"open":[]}}"#;
        assert!(hear(&format!("{jailed}\n{forged}\n{result}\n")).await.0.is_err(), "said twice");
        let late = r#"{"progress":{"fraction":0.5,"doing":"x"}}"#;
        assert!(hear(&format!("{late}\n{forged}\n{result}\n")).await.0.is_err(), "said after the file was opened");
    }

    #[tokio::test]
    async fn a_child_that_names_files_without_end_is_not_listened_to() {
        let name = "n".repeat(REPORT_LINE_BYTES_MAX - 200);
        for begins in [r#"{"made""#, r#" {"made""#, r#"{ "made""#, r#"{"\u006dade""#] {
            let made = format!(r#"{begins}:{{"from":"a","to":"s3://outputs/{name}"}}}}"#);
            let lines = format!("{made}\n").repeat(MADE_BYTES_MAX / made.len() + 2);
            let (end, files, _) = hear(&lines).await;
            assert!(end.is_err_and(|why| why.contains("endless names")), "{begins}");
            assert!(!files.is_empty() && files.len() * made.len() <= MADE_BYTES_MAX, "{begins}: {} files", files.len());
        }
    }

    #[tokio::test]
    async fn progress_is_brought_within_bounds() {
        let heard = std::sync::Arc::new(parking_lot::Mutex::new(Vec::new()));
        let (mut files, mut jail, kept) = (Vec::new(), None, heard.clone());
        let on_progress: OnProgress = Box::new(move |progress| kept.lock().push(progress));
        let said =
            format!(r#"{{"progress":{{"fraction":1e300,"fps":-5,"speed":1e99,"doing":"{}"}}}}"#, "x".repeat(9_000));
        let heard_by = Heard { on_progress: &on_progress, files: &mut files, jail: &mut jail };
        assert!(matches!(listen(said.as_bytes(), heard_by).await, Ok(None)));
        let heard = heard.lock();
        let [progress] = &heard[..] else { panic!("{heard:?}") };
        assert_eq!((progress.fraction, progress.fps, progress.speed), (1.0, Some(0.0), Some(1e6)));
        assert_eq!(progress.doing.len(), DOING_CHARS_MAX);
    }

    #[test]
    fn errors_and_names_that_are_not_the_stages_own_are_not_passed_on() {
        let mut job = Job {
            stage: "probe".into(),
            parameters: Value::Null,
            work_dir: "/w".into(),
            shares: Shares::default(),
            access: Access::reading([Uri::new("in", "a.mp4")]),
            threads: 1,
            device: None,
        };
        let said = |job: &Job, name: &str| may_say(job, &TaskError::new(name, ""));
        assert!(said(&job, "Media.Corrupt") && !said(&job, "States.ALL") && !said(&job, "Lambda.Unknown"));
        // It would be taken for the box's fault, and the file tried for ever.
        assert!(!said(&job, "Device.Lost"), "it has no lease");
        job.device =
            Some(Device { name: "gpu0".into(), uuid: "GPU-0".into(), cpus: None, decode: true, encode: false });
        assert!(said(&job, "Device.Lost"));
        let names = |text: &str| foreign(&json!({ "deep": [{ "file": text }] }), &job.access);
        assert_eq!(names("s3://in/a.mp4"), None);
        assert_eq!(names("s3://in/b.mp4").unwrap().to_string(), "s3://in/b.mp4");
        assert_eq!(names("no uri at all"), None);
    }
}
