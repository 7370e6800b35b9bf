//! Is a share still there? An unmounted network share leaves a folder behind: on it a file seems to have vanished for
//! good, and results would fill the box's own disk.
//!
//! ```text
//! not known ──seen mounted──▶ mounted ──no mount point──▶ away (tried again) ──mounted again──▶ mounted
//! ```
//!
//! That a share was seen mounted is a setting in the store, so that a box that starts before its network knows it too. Whoever
//! makes a plain folder of such a share says so (`mounted = false`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use conveyor_base::beneath::{Folder, Meta};
use conveyor_base::fault::chain;
use conveyor_base::shares::{is_mount_point, mounted_setting};
use conveyor_base::{Fault, ShareIo, TaskError, Uri};
use conveyor_run::Handle;
use conveyor_store::Commit;
use serde_json::Value;

use super::{Call, fault};

/// How often all shares are looked at, so that one is known before a stage first needs it.
const EVERY: Duration = Duration::from_secs(10);

/// The file systems of the shares that the parameters name, as far as they are mounted. The error where one has gone; others
/// are for the stage itself to meet. `more`: shares that the stage writes to without being told.
pub(super) async fn check(call: &Call, io: &ShareIo, more: &[String]) -> Result<BTreeMap<String, u64>, TaskError> {
    let mut names: BTreeSet<String> = more.iter().cloned().collect();
    named(&call.parameters, &mut names);
    let unreachable = |what| TaskError::new("Media.ShareUnreachable", what);
    let mut devices = BTreeMap::new();
    for share in names {
        match look(&call.handle, io, &share).await.map_err(|e| fault(&e))? {
            Stands::Mounted(device) => drop(devices.insert(share, device)),
            Stands::Away(why) => return Err(unreachable(why)),
            Stands::Otherwise => {}
        }
    }
    Ok(devices)
}

/// Learns which of all shares are mounted, for ever.
///
/// # Errors
/// Those of the store.
pub async fn learn(handle: Handle, io: ShareIo) -> Result<(), Fault> {
    loop {
        for share in io.shares().names() {
            look(&handle, &io, share).await?;
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// How a share's root stands.
enum Stands {
    /// On this file system.
    Mounted(u64),
    Away(String),
    /// A folder of the box's own disk, or none.
    Otherwise,
}

async fn look(handle: &Handle, io: &ShareIo, share: &str) -> Result<Stands, Fault> {
    let Ok(root) = io.shares().root(share).map(Path::to_path_buf) else { return Ok(Stands::Otherwise) };
    let mounted = move |_: &_| {
        let root = root.canonicalize()?;
        let device = Meta::of(&Folder::top(&root)?)?.device;
        Ok::<_, std::io::Error>(is_mount_point(&root)?.then_some(device))
    };
    let mounted = match io.run(&[share], mounted).await {
        Ok(Ok(mounted)) => mounted,
        Ok(Err(_)) => return Ok(Stands::Otherwise),
        Err(hangs) => return Ok(Stands::Away(chain(&hangs))),
    };
    let setting = mounted_setting(share);
    let was_mounted = handle.reader().setting(&setting)?.is_some();
    if let Some(why) = io.shares().away(share, was_mounted, mounted.is_some()) {
        return Ok(Stands::Away(why));
    }
    if was_mounted != mounted.is_some() {
        let mut commit = Commit::new();
        match mounted {
            Some(_) => commit.put_setting(&setting, b"1"),
            None => commit.delete_setting(&setting),
        };
        handle.commit(commit).await?;
    }
    Ok(mounted.map_or(Stands::Otherwise, Stands::Mounted))
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
