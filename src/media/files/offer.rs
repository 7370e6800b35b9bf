//! The stage `offer`: what lies in quarantine because another release of this box could not open it goes back to where it
//! was dropped, under its old name, and so to the watch.
//!
//! The reason beside a file says who refused it and with what tools; with the same ones it stays, so that a file is offered
//! once to each release. The file goes first and its reason after it: killed in between, a reason is left over, which
//! housekeeping removes. A name that is taken again stays taken. Who may write to the quarantine may write reasons: a file
//! goes to shares that are watched, and nowhere else.

use std::io::{self, Read as _};
use std::sync::Arc;

use conveyor_base::beneath::{Folder, Kind, Links};
use conveyor_base::{TaskError, Uri};
use conveyor_job::{Job, Reporter};
use serde::Deserialize;
use serde_json::{Value, json};

use super::LISTED_MAX;
use super::fault::{self, About};
use super::quarantine::{self, BOX_CANNOT, REASON_BYTES_MAX, REASON_SUFFIX};

#[derive(Deserialize)]
struct Parameters {
    quarantine: Uri,
    /// What this box can do, and the shares that it watches: the box itself says both.
    tools: Option<String>,
    #[serde(default)]
    watched: Vec<String>,
}

/// What a reason says, as far as it matters here.
#[derive(Deserialize)]
struct Reason {
    kind: Option<String>,
    tools: Option<String>,
    original: Uri,
}

/// `{"quarantine"}` to `{"offered", "files", "kept"}`: how many went back, the first of them, and how many could not.
pub fn run(job: &Job, reporter: &dyn Reporter) -> Result<Value, TaskError> {
    let p: Parameters = fault::parameters(job)?;
    let (mut offered, mut files, mut kept) = (0_u64, Vec::new(), 0_u64);
    let Some(tools) = p.tools.as_ref().filter(|_| job.shares.has(&p.quarantine.share)) else {
        return Ok(json!({ "offered": offered, "files": files, "kept": kept }));
    };
    let root = fault::place(job, &p.quarantine)?.make_folder().about("open", &p.quarantine)?;
    let mut names = Vec::new();
    let listing = root.list("".as_ref(), Links::Refused).about("list", &p.quarantine)?;
    for listed in listing {
        let listed = listed.about("list", &p.quarantine)?;
        let name = listed.name.to_str().and_then(|name| name.strip_suffix(REASON_SUFFIX));
        names.extend(name.filter(|_| listed.kind == Kind::File).map(str::to_owned));
    }
    for name in names {
        let Some(original) = refused(&root, &name, tools).filter(|to| p.watched.contains(&to.share)) else { continue };
        let from = Uri::new(p.quarantine.share.clone(), format!("{}{name}", p.quarantine.key));
        match give_back(job, &from, &original, reporter) {
            Ok(()) => {
                root.entry(format!("{name}{REASON_SUFFIX}")).remove_file().about("remove the reason of", &from)?;
                offered += 1;
                if files.len() < LISTED_MAX {
                    files.push(original);
                }
            }
            Err(_) => kept += 1,
        }
    }
    Ok(json!({ "offered": offered, "files": files, "kept": kept }))
}

/// Where a file came from that lies here only because other tools than these could not open it.
fn refused(root: &Arc<Folder>, name: &str, tools: &str) -> Option<Uri> {
    let mut text = String::new();
    let reason = root.entry(format!("{name}{REASON_SUFFIX}")).read().ok()?;
    reason.take(REASON_BYTES_MAX).read_to_string(&mut text).ok()?;
    let reason: Reason = serde_json::from_str(&text).ok()?;
    let is_other = reason.kind.as_deref() == Some(BOX_CANNOT) && reason.tools.as_deref() != Some(tools);
    (is_other && !root.entry(name).is_free().ok()?).then_some(reason.original)
}

fn give_back(job: &Job, from: &Uri, to: &Uri, reporter: &dyn Reporter) -> Result<(), TaskError> {
    let target = fault::place(job, to)?.make_entry().about("make the folder of", to)?;
    if !target.is_free().about("look at", to)? {
        let taken = io::Error::from(io::ErrorKind::AlreadyExists);
        return Err(fault::io_fault("give back", to, &taken));
    }
    quarantine::move_into(&fault::place(job, from)?, &target, &|_| true, reporter)
}
