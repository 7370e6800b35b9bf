//! The conditions of the box that raise alarms: shares, watches, workflows that are named and absent, room on the disks, parts of the appliance that failed,
//! notifications that are not delivered, executions that fail in numbers, a jail that does not close, a certificate that ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use conveyor_api::certificate_ends;
use conveyor_base::shares::mounted_setting;
use conveyor_base::{Timestamp, fault};
use conveyor_hw::Share;
use conveyor_ingest::WatchStatus;
use conveyor_interpreter::Status;
use conveyor_run::{FailedPart, Handle};
use conveyor_sandbox::ChildProcesses;
use conveyor_services::alarms::Conditions;
use conveyor_store::{ExecutionFilter, Scans};
use parking_lot::Mutex;

use super::config::Config;

/// A disk with less left than both of these is nearly full.
const FREE_PERCENT_MIN: f64 = 5.0;
const FREE_BYTES_ENOUGH: u64 = 200 << 30;
/// Less than this is nearly full on any disk.
const FREE_BYTES_MIN: u64 = 2 << 30;
/// A notification that was tried this often is not only late.
const ATTEMPTS_MAX: u32 = 5;
/// So many of the newest executions of the last hour, most of them failed, are no accident.
const FAILURES_MIN: usize = 5;
const LOOKED_AT: usize = 50;
const HOUR_MS: i64 = 3_600_000;
/// A month to renew a certificate in.
const CERTIFICATE_LEFT_MS_MIN: i64 = 30 * 24 * HOUR_MS;

/// The look that [`conveyor_services::alarms::Alarms`] takes.
pub fn look(
    config: &Config,
    data_dir: &Path,
    handle: Handle,
    watches: &[Arc<Mutex<WatchStatus>>],
    children: Arc<ChildProcesses>,
) -> impl Fn() -> Conditions + Send + Sync + 'static {
    let mut places: Vec<(String, PathBuf)> =
        config.shares.iter().map(|(name, share)| (format!("share {name}"), share.path.clone())).collect();
    places.push(("store".to_owned(), data_dir.to_path_buf()));
    let watches = watches.to_vec();
    let (named, tls) = (named_workflows(config), config.tls.clone());
    let shares = config.shares();
    move || {
        let mut conditions = Conditions::new();
        let away = |share: &str, is_mounted: bool| {
            // A store that cannot be read ends the appliance by itself.
            let was_mounted = handle.reader().setting(&mounted_setting(share)).is_ok_and(|row| row.is_some());
            shares.away(share, was_mounted, is_mounted)
        };
        disks(&places, &away, &mut conditions);
        for watch in &watches {
            let watch = watch.lock();
            if let Some(away) = &watch.away {
                let what = format!("{away}. Nothing is lost; files that wait there start once it is back.");
                conditions.insert(format!("share {}", watch.share), what);
            } else if let Some(what) = watch.problems.first() {
                conditions.insert(format!("watch {}", watch.share), what.clone());
            }
        }
        if let Some(why) = children.standing().refused {
            conditions.insert("jail".to_owned(), format!("No stage is run: {why}"));
        }
        if let Some(tls) = &tls {
            certificate(&tls.certificate, handle.wall(), &mut conditions);
        }
        parts(&handle, &mut conditions);
        workflows(&handle, &named, &mut conditions);
        // A store that cannot be read ends the appliance by itself.
        let rows = handle.reader().on_this_thread();
        let _ = notifications(&rows, &mut conditions);
        let _ = failures(&rows, handle.wall(), &mut conditions);
        // Last: those before may have come upon some.
        damages(&rows, &mut conditions);
        conditions
    }
}

/// Once it has ended all clients fail at the same moment.
fn certificate(path: &Path, now: Timestamp, conditions: &mut Conditions) {
    let shown = path.display();
    let what = match certificate_ends(path) {
        Ok(ends) if ends > now.plus_ms(CERTIFICATE_LEFT_MS_MIN) => return,
        Ok(ends) => {
            format!("The certificate {shown} ends at {ends}. Renew it (`conveyor tls`, if it is the box's own).")
        }
        Err(e) => format!(
            "The certificate cannot be read: {}. The former one is in use until the next start.",
            fault::chain(&e)
        ),
    };
    conditions.insert("certificate".to_owned(), what);
}

/// `away`: why a share counts as away, by its name and whether its root is a mount point.
fn disks(places: &[(String, PathBuf)], away: &dyn Fn(&str, bool) -> Option<String>, conditions: &mut Conditions) {
    for place in Share::read_all(places) {
        let path = place.path.display();
        let Some(disk) = place.file_system.known() else {
            let why = place.file_system.why().unwrap_or_default();
            conditions.insert(place.name, format!("{path} cannot be reached: {why}. Mount or make it."));
            continue;
        };
        // It has answered, so that its path can be looked at.
        let is_mounted = place.path.canonicalize().is_ok_and(|root| root == disk.mounted_at);
        if let Some(why) = place.name.strip_prefix("share ").and_then(|share| away(share, is_mounted)) {
            conditions.insert(place.name, format!("{why}."));
            continue;
        }
        let percent = 100.0 * disk.free as f64 / disk.total.max(1) as f64;
        let low = percent < FREE_PERCENT_MIN && disk.free < FREE_BYTES_ENOUGH;
        if disk.total > 0 && (low || disk.free < FREE_BYTES_MIN) {
            let gib = disk.free as f64 / f64::from(1 << 30);
            let what = format!("{path} is nearly full: {gib:.1} GiB ({percent:.1} %) are left. Make room.");
            conditions.insert(format!("{}: room", place.name), what);
        }
        if disk.read_only {
            conditions
                .insert(format!("{}: read only", place.name), format!("{path} takes no writes. Mount it writable."));
        }
    }
}

/// Workflows that the configuration starts, each with who starts it.
fn named_workflows(config: &Config) -> Vec<(String, String)> {
    let watches = config.watch.iter().map(|watch| (format!("The watch of share '{}'", watch.share), &watch.workflow));
    let schedules =
        config.schedules.iter().map(|(name, schedule)| (format!("The schedule '{name}'"), &schedule.workflow));
    let rules = config.rules.iter().flat_map(|(name, rule)| {
        let workflows = rule.targets.iter().filter_map(|target| target.workflow.as_ref());
        workflows.map(move |workflow| (format!("The rule '{name}'"), workflow))
    });
    let all = watches.chain(schedules).chain(rules);
    // A version or an alias may stand behind the name.
    all.map(|(who, workflow)| (who, workflow.split(':').next().unwrap_or_default().to_owned())).collect()
}

/// Better told now than when the first file of the night finds out.
fn workflows(handle: &Handle, named: &[(String, String)], conditions: &mut Conditions) {
    for (who, workflow) in named {
        // A store that cannot be read ends the appliance by itself.
        if let Ok(None) = handle.reader().machine(workflow) {
            let what =
                format!("{who} starts the workflow '{workflow}', which does not exist. Create it, or name another.");
            conditions.entry(format!("workflow {workflow}")).or_insert(what);
        }
    }
}

/// Also of one that runs again, until it has run for a minute.
fn parts(handle: &Handle, conditions: &mut Conditions) {
    for part in handle.failed_parts() {
        let state = if part.running { "was started again" } else { "is down and is being started again" };
        let FailedPart { name, what, failures, .. } = part;
        let what = format!("{name} failed ({what}; {failures} in a row) and {state}. The log has the details.");
        conditions.insert(format!("part {name}"), what);
    }
}

/// Until the appliance is started again, as it must be for the repair.
fn damages(rows: &Scans, conditions: &mut Conditions) {
    let found = rows.damages();
    if let Some(first) = found.first() {
        let more =
            if found.len() > 1 { format!(" {} places are known; this is one.", found.len()) } else { String::new() };
        conditions.insert("store: damage".to_owned(), format!("{first}.{more}"));
    }
}

fn notifications(rows: &Scans, conditions: &mut Conditions) -> Result<(), conveyor_base::Fault> {
    for (_, row) in rows.outbox(None, 200)?.into_iter().filter(|(_, row)| row.attempts >= ATTEMPTS_MAX) {
        let what = format!("{} attempts failed, the last with: {}. It is tried on.", row.attempts, row.last_error);
        conditions.entry(format!("notifications to the {}", row.target)).or_insert(what);
    }
    Ok(())
}

fn failures(rows: &Scans, now: Timestamp, conditions: &mut Conditions) -> Result<(), conveyor_base::Fault> {
    let since = now.plus_ms(-HOUR_MS);
    let page = rows.executions(&ExecutionFilter::default(), None, LOOKED_AT)?;
    let ended = page.items.iter().filter(|e| e.parent.is_none() && e.stopped_at.is_some_and(|at| at > since));
    let (mut all, mut failed) = (0, 0);
    for execution in ended {
        all += 1;
        failed += usize::from(matches!(execution.status, Status::Failed | Status::TimedOut));
    }
    if failed >= FAILURES_MIN && failed * 2 > all {
        let what = format!("{failed} of the newest {all} executions of the last hour failed. Look at what they say.");
        conditions.insert("executions".to_owned(), what);
    }
    Ok(())
}
