//! [`Sessions`]: who has signed in at the dashboard, until they sign out, or for a working day.
//!
//! What a person's browser shows is random; kept is its hash, so that who reads the store comes in nowhere. With it lies the
//! password, sealed with what only the browser has: a session ends with the password that it was begun with.
//!
//! Invariants: a session that was begun is durable before its holder hears of it, and one that was ended lets nobody in any
//! more, also after a restart; there are no more than so many of a user.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use conveyor_base::{Fault, Timestamp};
use conveyor_run::{Handle, OnFailure};
use conveyor_store::{Commit, SessionKey, SessionRow};
use hmac::{Hmac, Mac};
use parking_lot::RwLock;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

/// A working day; whoever works longer signs in again.
pub const LASTS_MS: i64 = 12 * 3_600_000;
/// The oldest of a user's goes where there would be more.
const PER_USER_MAX: usize = 64;
/// How often those go whose time is over.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// Random bytes of what a browser shows.
const TOKEN_BYTES: usize = 32;

/// The sessions of this box. Cheap to clone.
#[derive(Clone)]
pub struct Sessions(Arc<Shared>);

struct Shared {
    all: RwLock<HashMap<SessionKey, SessionRow>>,
    /// That one was ended.
    ended: watch::Sender<()>,
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions(Arc::new(Shared { all: RwLock::default(), ended: watch::channel(()).0 }))
    }
}

impl Sessions {
    /// Takes up what the store has, and lets go what is over, for as long as the appliance runs.
    pub async fn start(&self, handle: &Handle) -> Result<(), Fault> {
        let rows = handle.reader().blocking(|rows| rows.sessions()).await?;
        self.0.all.write().extend(rows);
        let (sessions, sweeping) = (self.clone(), handle.clone());
        let sweep = move || {
            let (sessions, handle) = (sessions.clone(), sweeping.clone());
            async move {
                loop {
                    sessions.sweep(&handle).await?;
                    tokio::time::sleep(SWEEP_EVERY).await;
                }
            }
        };
        handle.run_supervised("the sessions", OnFailure::Restart, sweep).await
    }

    /// Begins a session of somebody whose password was right; what their browser is to show from now on. The handle's
    /// audit entry goes into the same commit. Where the caller goes away, the session may have begun, and nobody has it.
    ///
    /// # Errors
    /// The store takes nothing, or the system has no random numbers.
    pub async fn begin(&self, handle: &Handle, user: &str, password: &str) -> Result<String, Fault> {
        let mut token = [0; TOKEN_BYTES];
        getrandom::fill(&mut token).map_err(|e| Fault::fatal_plain(format!("no random numbers for a session: {e}")))?;
        let (key, now) = (key_of(&token), handle.now());
        let row = SessionRow {
            user: user.to_owned(),
            seal: sealed(&token, password),
            began: now.into(),
            until: now.plus_ms(LASTS_MS).into(),
        };
        let mut commit = Commit::new();
        commit.put_session(&key, &row);
        handle.commit(commit).await?;
        let oldest = {
            let all = &mut *self.0.all.write();
            all.insert(key, row);
            too_many(all, user)
        };
        if !oldest.is_empty() {
            self.drop_all(handle, &oldest).await?;
        }
        Ok(URL_SAFE_NO_PAD.encode(token))
    }

    /// Whose session this is. `password`: the one that a user has now.
    pub fn user<'s>(&self, shown: &str, now: Timestamp, password: impl Fn(&str) -> Option<&'s str>) -> Option<String> {
        let token = token_of(shown)?;
        let all = self.0.all.read();
        let row = all.get(&key_of(&token))?;
        let is_same = password(&row.user).is_some_and(|password| sealed(&token, password) == row.seal);
        (is_same && Timestamp::from(row.until) >= now).then(|| row.user.clone())
    }

    /// Ends a session; whoever shows it from now on is nobody. What there is not is ended already.
    ///
    /// # Errors
    /// The store takes nothing: the session goes on.
    pub async fn end(&self, handle: &Handle, shown: &str) -> Result<(), Fault> {
        let Some(key) = token_of(shown).map(|token| key_of(&token)) else { return Ok(()) };
        if self.0.all.read().contains_key(&key) { self.drop_all(handle, &[key]).await } else { Ok(()) }
    }

    async fn drop_all(&self, handle: &Handle, keys: &[SessionKey]) -> Result<(), Fault> {
        let mut commit = Commit::new();
        for key in keys {
            commit.delete_session(key);
        }
        handle.commit(commit).await?;
        self.0.all.write().retain(|key, _| !keys.contains(key));
        self.0.ended.send_replace(());
        Ok(())
    }

    /// Resolves once the session is ended; never where there is none, or for the end of its time.
    pub async fn until_ended(&self, shown: &str) {
        let Some(key) = token_of(shown).map(|token| key_of(&token)) else { return std::future::pending().await };
        let mut ended = self.0.ended.subscribe();
        while self.0.all.read().contains_key(&key) {
            if ended.changed().await.is_err() {
                return;
            }
        }
    }

    async fn sweep(&self, handle: &Handle) -> Result<(), Fault> {
        let now = handle.now();
        let is_over = |row: &SessionRow| Timestamp::from(row.until) < now;
        let over: Vec<SessionKey> =
            self.0.all.read().iter().filter(|(_, row)| is_over(row)).map(|(key, _)| *key).collect();
        if over.is_empty() { Ok(()) } else { self.drop_all(handle, &over).await }
    }
}

/// A user's oldest, as far as there are more than there may be.
fn too_many(all: &HashMap<SessionKey, SessionRow>, user: &str) -> Vec<SessionKey> {
    let of_user = all.iter().filter(|(_, row)| row.user == user);
    let mut began: Vec<(i64, SessionKey)> = of_user.map(|(key, row)| (row.began.0, *key)).collect();
    began.sort_unstable();
    let beyond = began.len().saturating_sub(PER_USER_MAX);
    began.into_iter().take(beyond).map(|(_, key)| key).collect()
}

fn token_of(shown: &str) -> Option<[u8; TOKEN_BYTES]> {
    URL_SAFE_NO_PAD.decode(shown).ok()?.try_into().ok()
}

fn key_of(token: &[u8; TOKEN_BYTES]) -> SessionKey {
    Sha256::digest(token).into()
}

fn sealed(token: &[u8; TOKEN_BYTES], password: &str) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length (RFC 2104, section 3)")]
    let mut mac = Hmac::<Sha256>::new_from_slice(token).expect("a key of any length");
    mac.update(password.as_bytes());
    mac.finalize().into_bytes().into()
}
