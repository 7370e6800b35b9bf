//! A second look at what lies in quarantine: a file that holds something else by now than what was judged was still being
//! copied, or somebody has mended it. It goes back to where it was dropped, and so to the watch, which waits until it rests.
//!
//! ```text
//! judged ──▶ in quarantine, its sample in the reason ──holds something else──▶ back under its name, the reason removed
//!                  ▲                                                                  │ judged again
//!                  └──────────────────────────────────────────────────────────────────┘ pause: none, 1, 2, 4 … minutes, 1 day
//! ```
//!
//! What was judged and holds the same stays. What changes for ever goes back for ever, once a day in the end. A file is moved
//! and never copied over another: a name that is taken again stays taken. Its reason goes after it; killed in between, a
//! reason is left over, which housekeeping removes. Who may write to the quarantine may write reasons: a file goes to the
//! watch's own share, and nowhere else.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Read as _};
use std::sync::Arc;

use conveyor_base::beneath::{Folder, Kind, Links, Meta};
use conveyor_base::shares::is_mount_point;
use conveyor_base::{Fault, ShareIo, Shares, Span, Timestamp, Uri, digest};
use conveyor_store::Commit;
use serde::Deserialize;

use super::Starter;
use super::land::{self, REASON_SUFFIX};
use super::scan::file_state;
use super::settings::WatchSettings;
use super::settle::FileState;
use super::whole::Look;

/// Files that are kept in mind; what is beyond waits until there is room.
const FILES_MAX: usize = 10_000;
/// Files that one round looks at: the watch does nothing else meanwhile.
const LOOKS_MAX: usize = 200;
/// A round is made so many scans apart, and at least once in `EVERY_MS_MAX`.
const EVERY_SCANS: u64 = 10;
const EVERY_MS_MAX: u64 = 60_000;
/// How soon one that seems incomplete is looked at again though nothing is seen to change, and the longest pause.
const LOOK_AGAIN_MS: [i64; 2] = [60_000, 3_600_000];
/// The first pause between two returns of a file, and the longest.
const PAUSE_MS: [i64; 2] = [60_000, 24 * 3_600_000];
/// How much of a reason is read, in bytes.
const REASON_BYTES_MAX: u64 = 1 << 20;

/// What the stage wrote beside a file, as far as it matters here.
#[derive(Deserialize)]
struct Reason {
    original: Uri,
    /// What the content showed when the judged run began; none where no watch started that.
    sample: Option<String>,
}

/// A file that lies there.
#[derive(Clone, Debug)]
struct Quarantined {
    file_state: FileState,
    /// Where it was dropped; none where that is no file of this watch.
    key: Option<String>,
    /// What its content showed when it was judged; where nobody said so, when it was first seen here.
    sample: String,
    /// It has changed since, and is to go back.
    changed: bool,
    /// It seemed incomplete: when its content is looked at again, whatever is seen of it, and the pause after that.
    again: Option<(Timestamp, i64)>,
}

/// When a file went back, or could not, and how long it then stays.
#[derive(Clone, Copy, Debug)]
struct Returned {
    at: Timestamp,
    pause_ms: i64,
}

/// What one watch knows of a quarantine.
#[derive(Debug, Default)]
pub struct SecondLooks {
    files: BTreeMap<String, Quarantined>,
    returned: HashMap<u64, Returned>,
    next: Timestamp,
}

impl SecondLooks {
    /// A clock that was set back must not keep rounds from being made.
    pub fn is_due(&self, scan: Span, now: Timestamp) -> bool {
        self.next <= now || self.next > now.plus_ms(every(scan))
    }

    /// Looks at all of them, and gives back what has changed. Returns the keys under which the watch finds them again.
    /// What cannot be looked at is tried again with the next round, what cannot be moved after a pause. `was_mounted`: the
    /// watch's share is one that was mounted when it was last looked at.
    ///
    /// # Errors
    /// The store's.
    pub async fn round(
        &mut self,
        settings: &WatchSettings,
        (quarantine, was_mounted): (&str, bool),
        io: &ShareIo,
        starter: &dyn Starter,
    ) -> Result<Vec<String>, Fault> {
        let now = starter.now();
        self.next = now.plus_ms(every(settings.scan));
        let (own, place) = (settings.share.clone(), quarantine.to_owned());
        let known = std::mem::take(&mut self.files);
        let looks = move |shares: &Shares| look(shares, &own, &place, known, now);
        // A quarantine that is away tells nothing: the next round begins with what the reasons say.
        let Ok(Ok(files)) = io.run(&[quarantine], looks).await else { return Ok(Vec::new()) };
        self.files = files;
        let of =
            |(name, file): (&String, &Quarantined)| Some((name.clone(), file.key.clone().filter(|_| file.changed)?));
        let changed: Vec<(String, String)> = self.files.iter().filter_map(of).collect();
        let mut back = Vec::new();
        for (name, key) in changed {
            let id = digest(key.as_bytes());
            let before = self.returned.get(&id).copied();
            if before.is_some_and(|before| now < before.at.plus_ms(before.pause_ms) && now >= before.at) {
                continue;
            }
            // The watch must not take it for what landed before: its landing goes first.
            let (own, place) = (settings.share.clone(), quarantine.to_owned());
            let (to, target) = (key.clone(), (own.clone(), key.clone()));
            let is_free = move |shares: &Shares| is_free(shares, &target.0, &target.1, was_mounted);
            if !matches!(io.run(&[&settings.share], is_free).await, Ok(Ok(true))) {
                continue;
            }
            let mut commit = Commit::new();
            commit.delete_landing(&settings.share, &key);
            starter.commit(commit).await?;
            let file = name.clone();
            let back_to = move |shares: &Shares| give_back(shares, &own, &place, &file, &to);
            // Also where it fails: it is not tried each round.
            let pause_ms = before.map_or(PAUSE_MS[0], |before| (before.pause_ms * 2).min(PAUSE_MS[1]));
            if self.returned.len() >= FILES_MAX {
                self.returned.clear();
            }
            self.returned.insert(id, Returned { at: now, pause_ms });
            match io.run(&[&settings.share, quarantine], back_to).await {
                Ok(Ok(())) => {
                    tracing::info!(
                        share = settings.share,
                        key,
                        "a file in quarantine has changed and is taken up again"
                    );
                    self.files.remove(&name);
                    back.push(key);
                }
                Ok(Err(error)) => {
                    tracing::warn!(share = settings.share, key, %error, "it cannot be taken out of quarantine")
                }
                Err(_) => {}
            }
        }
        Ok(back)
    }
}

fn every(scan: Span) -> i64 {
    scan.ms.saturating_mul(EVERY_SCANS).min(EVERY_MS_MAX).max(scan.ms) as i64
}

/// Reads a reason once, and a file only where something of it is seen to change or it seemed incomplete.
fn look(
    shares: &Shares,
    own: &str,
    quarantine: &str,
    mut known: BTreeMap<String, Quarantined>,
    now: Timestamp,
) -> io::Result<BTreeMap<String, Quarantined>> {
    let root = shares.top(quarantine).map_err(io::Error::other)?;
    let mut names = HashSet::new();
    for listed in root.list("".as_ref(), Links::Refused)? {
        let listed = listed?;
        let name = listed.name.to_str().and_then(|name| name.strip_suffix(REASON_SUFFIX));
        names.extend(name.filter(|_| listed.kind == Kind::File).map(str::to_owned));
    }
    known.retain(|name, _| names.contains(name));
    let mut looks = 0;
    for name in names {
        let Ok(meta) = root.entry(&name).meta() else {
            known.remove(&name);
            continue;
        };
        let before = known.get(&name);
        let is_due = before.and_then(|before| before.again).is_some_and(|(at, _)| at <= now);
        let rests = before.is_some_and(|before| before.file_state == file_state(&meta));
        if !meta.is_file() || (rests && !is_due) || (before.is_none() && known.len() >= FILES_MAX) {
            continue;
        }
        looks += 1;
        if looks > LOOKS_MAX {
            break;
        }
        // One that cannot be read now is with the next round.
        if let Ok(file) = look_at(&root, &name, file_state(&meta), before, own, now) {
            known.insert(name, file);
        }
    }
    Ok(known)
}

fn look_at(
    root: &Arc<Folder>,
    name: &str,
    file_state: FileState,
    before: Option<&Quarantined>,
    own: &str,
    now: Timestamp,
) -> io::Result<Quarantined> {
    let (key, judged) = match before {
        Some(before) => (before.key.clone(), Some(before.sample.clone())),
        None => {
            let mut text = String::new();
            let reason = root.entry(format!("{name}{REASON_SUFFIX}")).read()?;
            reason.take(REASON_BYTES_MAX).read_to_string(&mut text)?;
            // One that tells no place is of a name that is no text, or nobody's.
            let reason: Option<Reason> = serde_json::from_str(&text).ok();
            let reason = reason.filter(|reason| reason.original.share == own);
            reason.map_or((None, None), |reason| (Some(reason.original.key), reason.sample))
        }
    };
    if key.is_none() {
        return Ok(Quarantined { file_state, key, sample: String::new(), changed: false, again: None });
    }
    let file = root.entry(name).read()?;
    if !Meta::of(&file)?.is_file() {
        return Err(io::Error::other("it was exchanged for something else"));
    }
    let look = Look::at(&file)?;
    let sample = judged.unwrap_or_else(|| look.sample.digest.clone());
    let content = |state: &FileState| (state.size, state.mtime_ns);
    let touched = before.is_some_and(|before| content(&before.file_state) != content(&file_state));
    let changed = touched || look.sample.digest != sample || before.is_some_and(|before| before.changed);
    let pause = before.and_then(|before| before.again).map_or(LOOK_AGAIN_MS[0], |(_, pause)| pause);
    let again = look.missing.map(|_| (now.plus_ms(pause), (pause * 2).min(LOOK_AGAIN_MS[1])));
    Ok(Quarantined { file_state, key, sample, changed, again })
}

/// Whether a file can go back: its share is there, and its name is free. What is under a mount is lost to sight with the next.
fn is_free(shares: &Shares, share: &str, key: &str, was_mounted: bool) -> io::Result<bool> {
    if was_mounted && !is_mount_point(&shares.root(share).map_err(io::Error::other)?.canonicalize()?)? {
        return Ok(false);
    }
    let place = shares.place(&Uri::new(share, key)).map_err(io::Error::other)?;
    Ok(place.check().map_err(io::Error::other)?.is_none())
}

/// Moves a file back to where it was dropped, unless the name is taken, and its reason away after it.
fn give_back(shares: &Shares, own: &str, quarantine: &str, name: &str, key: &str) -> io::Result<()> {
    let root = shares.top(quarantine).map_err(io::Error::other)?;
    let target = shares.place(&Uri::new(own, key)).and_then(|place| place.make_entry()).map_err(io::Error::other)?;
    land::move_new(&root.entry(name), &target)?;
    let _ = target.folder().sync();
    // A reason that stays says of no file anything.
    let _ = root.entry(format!("{name}{REASON_SUFFIX}")).remove_file();
    Ok(())
}
