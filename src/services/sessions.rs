//! [`Sessions`]: who has signed in at the dashboard, until they sign out, or for a working day.
//!
//! What a person's browser shows is random; kept is its hash, so that who reads the store comes in nowhere. With it lies the
//! password, sealed with what only the browser has: a session ends with the password that it was begun with. That it is
//! another one is seen without the browser too, by a salted and slow hash of the password that the user's sessions were begun
//! with: the box looks at it when it starts.
//!
//! Invariants: a session that was begun is durable before its holder hears of it, and one that was ended lets nobody in any
//! more, also after a restart, and also when its password comes back; there are no more than so many of a user. A session whose
//! row is damaged lets nobody in: its holder signs in again, and the box starts all the same.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use conveyor_base::{Fault, Timestamp, fault};
use conveyor_run::{Handle, OnFailure};
use conveyor_store::{Commit, SessionKey, SessionRow, unless_damaged};
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
/// Of the hash of a password that lies in the store.
const SALT_BYTES: usize = 16;
const HASH_ROUNDS: u32 = 100_000;

/// The sessions of this box. Cheap to clone.
#[derive(Clone)]
pub struct Sessions(Arc<Shared>);

struct Shared {
    all: RwLock<HashMap<SessionKey, SessionRow>>,
    /// Users of whom the store has the hash of the password that they have now.
    hashed: RwLock<HashSet<String>>,
    /// That one was ended.
    ended: watch::Sender<()>,
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions(Arc::new(Shared { all: RwLock::default(), hashed: RwLock::default(), ended: watch::channel(()).0 }))
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

    /// Ends the sessions of users who have another password than those were begun with, or none any more: before anybody is
    /// served, and after [`Sessions::start`]. `password`: the one that a user has now.
    ///
    /// # Errors
    /// The store cannot be read, or takes nothing.
    pub async fn end_of_former_passwords(
        &self,
        handle: &Handle,
        password: impl Fn(&str) -> Option<String>,
    ) -> Result<(), Fault> {
        let users: HashSet<String> = self.0.all.read().values().map(|row| row.user.clone()).collect();
        for user in users {
            let hash = unless_damaged(handle.reader().setting(&hash_setting(&user)))?;
            // One that is damaged stays where it is: nothing can be written on its page.
            let deletes_hash = hash.is_some();
            let is_same = match (password(&user), hash.flatten()) {
                (Some(password), Some(hash)) => slowly(move || is_hash_of(&hash, &password)).await?,
                // Those that release 0.1 began have none.
                _ => false,
            };
            if is_same {
                self.0.hashed.write().insert(user);
                continue;
            }
            let of_user = |(key, row): (&SessionKey, &SessionRow)| (row.user == user).then_some(*key);
            let keys: Vec<SessionKey> = self.0.all.read().iter().filter_map(of_user).collect();
            let why = if deletes_hash { "were begun with another password" } else { "have a damaged hash" };
            tracing::info!(user, sessions = keys.len(), "ended the sessions that {why}");
            self.drop_all(handle, &keys, |commit| {
                if deletes_hash {
                    commit.delete_setting(&hash_setting(&user));
                }
            })
            .await?;
        }
        Ok(())
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
        if !self.0.hashed.read().contains(user) {
            let mut salt = [0; SALT_BYTES];
            getrandom::fill(&mut salt).map_err(|e| Fault::fatal_plain(format!("no random numbers for a salt: {e}")))?;
            let password = password.to_owned();
            let hash = slowly(move || hash_of(&salt, &password, HASH_ROUNDS)).await?;
            commit.put_setting(&hash_setting(user), &[&salt[..], &hash].concat());
        }
        handle.commit(commit).await?;
        self.0.hashed.write().insert(user.to_owned());
        let oldest = {
            let all = &mut *self.0.all.write();
            all.insert(key, row);
            too_many(all, user)
        };
        if !oldest.is_empty() {
            self.drop_all(handle, &oldest, |_| {}).await?;
        }
        Ok(URL_SAFE_NO_PAD.encode(token))
    }

    /// Whose session this is. `password`: the one that a user has now; a session that was begun with another one is ended.
    pub async fn user<'s>(
        &self,
        handle: &Handle,
        shown: &str,
        password: impl Fn(&str) -> Option<&'s str>,
    ) -> Option<String> {
        let token = token_of(shown)?;
        let key = key_of(&token);
        let (user, until, is_same) = {
            let all = self.0.all.read();
            let row = all.get(&key)?;
            let is_same = password(&row.user).is_some_and(|password| sealed(&token, password) == row.seal);
            (row.user.clone(), Timestamp::from(row.until), is_same)
        };
        if is_same {
            return (until >= handle.now()).then_some(user);
        }
        if let Err(fault) = self.drop_all(handle, &[key], |_| {}).await {
            tracing::error!(user, "a session of another password stays in the store: {}", fault::chain(&fault));
        }
        None
    }

    /// Ends a session; whoever shows it from now on is nobody. What there is not is ended already.
    ///
    /// # Errors
    /// The store takes nothing: the session goes on.
    pub async fn end(&self, handle: &Handle, shown: &str) -> Result<(), Fault> {
        let Some(key) = token_of(shown).map(|token| key_of(&token)) else { return Ok(()) };
        if self.0.all.read().contains_key(&key) { self.drop_all(handle, &[key], |_| {}).await } else { Ok(()) }
    }

    /// `with`: adds what goes into the same commit.
    async fn drop_all(
        &self,
        handle: &Handle,
        keys: &[SessionKey],
        with: impl FnOnce(&mut Commit),
    ) -> Result<(), Fault> {
        let mut commit = Commit::new();
        with(&mut commit);
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
        if over.is_empty() { Ok(()) } else { self.drop_all(handle, &over, |_| {}).await }
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

/// The store's setting that holds the salt and the hash of the password that a user's sessions were begun with.
fn hash_setting(user: &str) -> String {
    format!("sessions.password.{user}")
}

fn is_hash_of(kept: &[u8], password: &str) -> bool {
    let Some((salt, hash)) = kept.split_at_checked(SALT_BYTES) else { return false };
    hash_of(salt, password, HASH_ROUNDS) == hash
}

/// PBKDF2 with HMAC-SHA-256 (RFC 8018, section 5.2), one block of it: so slow that who reads the store tries few passwords.
fn hash_of(salt: &[u8], password: &str, rounds: u32) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length (RFC 2104, section 3)")]
    let keyed = Hmac::<Sha256>::new_from_slice(password.as_bytes()).expect("a key of any length");
    let mac = |text: &[u8]| -> [u8; 32] { keyed.clone().chain_update(text).finalize().into_bytes().into() };
    let mut last = mac(&[salt, &1u32.to_be_bytes()].concat());
    let mut hash = last;
    for _ in 1..rounds {
        last = mac(&last);
        hash.iter_mut().zip(last).for_each(|(byte, of_last)| *byte ^= of_last);
    }
    hash
}

/// On a thread that may be kept busy.
async fn slowly<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
    let broke_off = |e| Fault::retryable("a password could not be hashed", e);
    tokio::task::spawn_blocking(work).await.map_err(broke_off)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7914, section 11.
    #[test]
    fn the_hash_is_the_one_of_the_standard() {
        let hex = |hash: [u8; 32]| hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let of_one = "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc";
        assert_eq!(hex(hash_of(b"salt", "passwd", 1)), of_one);
        let of_many = "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56";
        assert_eq!(hex(hash_of(b"NaCl", "Password", 80_000)), of_many);
    }
}
