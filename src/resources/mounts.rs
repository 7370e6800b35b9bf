//! Is a share still there? An unmounted network share leaves an empty folder behind: on it a file seems to have
//! vanished for good, and results would fill the box's own disk.
//!
//! ```text
//! not known ──seen mounted──▶ mounted ──an empty folder──▶ away (tried again) ──mounted again──▶ mounted
//!                                └───a folder with files in it───▶ not known: somebody has moved the share
//! ```
//!
//! That a share was seen mounted is a setting in the store, so that a box that starts before its network knows it too.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use conveyor_base::fault::chain;
use conveyor_base::shares::{is_empty, is_mount_point, mounted_setting};
use conveyor_base::{ShareIo, TaskError, Uri};
use conveyor_store::Commit;
use serde_json::Value;

use super::{Call, fault};

/// How a share's root stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Mounted,
    /// A folder of the disk around it.
    Folder,
    EmptyFolder,
}

/// The error where a share that the parameters name has gone; others are for the stage itself to meet.
/// `more`: shares that the stage writes to without being told.
pub async fn check(call: &Call, io: &ShareIo, more: &[String]) -> Result<(), TaskError> {
    let mut names: BTreeSet<String> = more.iter().cloned().collect();
    named(&call.parameters, &mut names);
    for share in names {
        let Ok(root) = io.shares().root(&share).map(Path::to_path_buf) else { continue };
        let stands = io.run(&[&share], move |_| standing(&root)).await;
        let unreachable = |e| TaskError::new("Media.ShareUnreachable", chain(&e));
        let Ok(stands) = stands.map_err(unreachable)? else { continue };
        let setting = mounted_setting(&share);
        let was_mounted = call.handle.reader().setting(&setting).map_err(|e| fault(&e))?.is_some();
        let mut commit = Commit::new();
        match (was_mounted, stands) {
            (true, Standing::EmptyFolder) => return Err(away(&share)),
            (false, Standing::Mounted) => commit.put_setting(&setting, b"1"),
            (true, Standing::Folder) => commit.delete_setting(&setting),
            _ => continue,
        };
        call.handle.commit(commit).await.map_err(|e| fault(&e))?;
    }
    Ok(())
}

fn away(share: &str) -> TaskError {
    TaskError::new(
        "Media.ShareUnreachable",
        format!(
            "the share '{share}' was mounted and is an empty folder now; mount it again. Nothing was written to it"
        ),
    )
}

fn standing(root: &Path) -> io::Result<Standing> {
    let root = root.canonicalize()?;
    Ok(match is_mount_point(&root)? {
        true => Standing::Mounted,
        false if is_empty(&root)? => Standing::EmptyFolder,
        false => Standing::Folder,
    })
}

/// The shares that a stage's parameters name.
fn named(parameters: &Value, into: &mut BTreeSet<String>) {
    match parameters {
        Value::String(text) => drop(text.parse::<Uri>().map(|uri| into.insert(uri.share))),
        Value::Array(items) => items.iter().for_each(|item| named(item, into)),
        Value::Object(fields) => fields.values().for_each(|field| named(field, into)),
        _ => {}
    }
}
