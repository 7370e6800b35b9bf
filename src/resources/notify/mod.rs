//! Notifications: `conveyor:notify` and topics put rows into the outbox; the [`Notifier`] delivers them.
//!
//! Invariants: a notification that a task has reported as sent is a row until its target has taken it. Delivery is at
//! least once; the `Idempotency-Key` of a notification never changes, so that a receiver can drop a second copy. A
//! target gets its notifications in the order in which they were stored: while it fails, the first one is tried again
//! and the others wait behind it. Only one that the target itself keeps refusing is passed by. An address may hold a
//! secret, so neither log nor row repeats it.

mod task;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, Mac};
use serde::Deserialize;
use serde_json::Value;
use sha2::Sha256;

pub use task::{NAMES, adapter};
pub(super) use task::{id_of, send};

use super::aws;
use crate::base::{Fault, Span, Timestamp};
use crate::run::Handle;
use crate::store::{Commit, DeliveredRow, OutboxRow, Reader};

/// How many delivered ones are kept for people to look at.
const DELIVERED_MAX: usize = 200;
const BACKOFF_MS_MIN: i64 = 1_000;
/// Only the first notification of a target is tried, so asking this often costs little.
const BACKOFF_MS_MAX: i64 = 300_000;
/// After so many refusals of one notification the others go past it.
const REFUSED_MAX: u32 = 3;
/// Rows looked at in one round.
const ROWS_MAX: usize = 200;
/// A round happens at least this often, so that a lost wake-up costs no more.
const ROUND: Duration = Duration::from_secs(30);

/// `[notify]`: where notifications go. Both, one or none of the targets.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotifySettings {
    /// Gets each notification by HTTP POST.
    pub webhook: Option<String>,
    /// Signs the webhook's body: HMAC-SHA256 over `timestamp.body`.
    pub secret: Option<String>,
    pub timeout: Option<Span>,
    /// A file that gets one JSON line for each notification.
    pub log: Option<PathBuf>,
    /// Names of the topics that are this box's own where `[aws]` has an endpoint; without one all are.
    #[serde(default)]
    pub topics: BTreeSet<String>,
}

impl std::fmt::Debug for NotifySettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NotifySettings").field("log", &self.log).finish_non_exhaustive()
    }
}

impl NotifySettings {
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if let Some(url) = &self.webhook {
            match reqwest::Url::parse(url) {
                Ok(url) if matches!(url.scheme(), "http" | "https") => {}
                Ok(_) => faults.push("webhook: is neither http:// nor https://".to_owned()),
                Err(e) => faults.push(format!("webhook: is no address ({e})")),
            }
        }
        if self.secret.is_some() && self.webhook.is_none() {
            faults.push("secret: signs the webhook, and there is none".to_owned());
        }
        faults
    }

    pub fn targets(&self) -> Vec<&'static str> {
        let webhook = self.webhook.as_ref().map(|_| "webhook");
        webhook.into_iter().chain(self.log.as_ref().map(|_| "log")).collect()
    }
}

/// The notifications that targets have not taken yet.
pub struct Outbox {
    settings: NotifySettings,
    /// Told when a notification was stored.
    grew: Arc<tokio::sync::Notify>,
}

impl Outbox {
    pub fn new(settings: NotifySettings) -> Outbox {
        Outbox { settings, grew: Arc::default() }
    }

    /// Whether a topic is one of this box's own. `topic`: an ARN or a name.
    pub fn has_topic(&self, topic: &str) -> bool {
        self.settings.topics.contains(aws::last_part(topic))
    }

    /// Names of those that get each notification.
    pub fn targets(&self) -> Vec<&'static str> {
        self.settings.targets()
    }

    /// Whom to tell of a notification that is stored by other means.
    pub fn grew(&self) -> Arc<tokio::sync::Notify> {
        self.grew.clone()
    }

    /// Stores notifications, all of them or none.
    pub async fn send(&self, handle: &Handle, bodies: impl IntoIterator<Item = Value>) -> Result<(), Fault> {
        let mut commit = Commit::new();
        bodies.into_iter().for_each(|body| self.put(handle, &body, &mut commit));
        if !commit.is_empty() {
            handle.commit(commit).await?;
            self.grew.notify_one();
        }
        Ok(())
    }

    /// Adds a notification to a commit, for each target. Whoever stores it says so to [`Outbox::grew`] then.
    pub fn put(&self, handle: &Handle, body: &Value, commit: &mut Commit) {
        for target in self.targets() {
            commit.put_outbox(handle.outbox_number(), &OutboxRow::new(target, body.to_string(), handle.now()));
        }
    }
}

/// Delivers what stands in the outbox, for as long as it runs.
#[derive(Clone)]
pub struct Notifier {
    outbox: Arc<Outbox>,
    reader: Reader,
    handle: Handle,
    client: reqwest::Client,
}

impl Notifier {
    pub fn new(outbox: Arc<Outbox>, handle: Handle) -> Notifier {
        let timeout = outbox.settings.timeout.unwrap_or(Span::seconds(10)).duration();
        let client = reqwest::Client::builder().timeout(timeout).build().unwrap_or_default();
        Notifier { outbox, reader: handle.reader().clone(), handle, client }
    }

    /// Never ends by itself: drop it to stop. What was not delivered stays a row.
    pub async fn run(self) {
        loop {
            let pause = match self.round().await {
                Ok(next) => next.map_or(ROUND, |at| {
                    Duration::from_millis(at.since_ms(self.handle.now()).clamp(10, ROUND.as_millis() as i64) as u64)
                }),
                Err(fault) => {
                    tracing::warn!(
                        error = crate::base::fault::chain(&fault),
                        "the outbox cannot be worked on; trying again"
                    );
                    ROUND
                }
            };
            tokio::select! {
                () = self.outbox.grew.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Delivers what is due; says when the next row is.
    pub async fn round(&self) -> Result<Option<Timestamp>, Fault> {
        let mut after = None;
        let mut next: Option<Timestamp> = None;
        let mut held: BTreeSet<String> = BTreeSet::new();
        loop {
            let rows = self.reader.outbox(after, ROWS_MAX)?;
            let Some((last, _)) = rows.last() else { return Ok(next) };
            after = Some(*last);
            for (number, row) in rows {
                if held.contains(&row.target) {
                    continue;
                }
                let target = row.target.clone();
                let due = Timestamp::from(row.next_at);
                let (due, passed_by) = match due <= self.handle.now() {
                    true => self.deliver(number, row).await?,
                    false => (Some(due), is_passed_by(&row)),
                };
                if due.is_some() && !passed_by {
                    held.insert(target);
                }
                next = match (next, due) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
            }
        }
    }

    /// One try; a time says when the next one is, and the flag that others need not wait for it.
    async fn deliver(&self, number: u64, mut row: OutboxRow) -> Result<(Option<Timestamp>, bool), Fault> {
        let outcome = match row.target.as_str() {
            "webhook" => self.post(&row).await,
            "log" => self.write(&row).await,
            other => Err(format!("{REFUSED}no target named '{other}' is configured any more")),
        };
        let mut commit = Commit::new();
        let next = match outcome {
            Ok(()) => {
                commit.drop_outbox(number);
                self.note_delivered(&mut commit, number, &row)?;
                (None, false)
            }
            Err(error) => {
                row.attempts += 1;
                let wait = (BACKOFF_MS_MIN << row.attempts.min(16)).min(BACKOFF_MS_MAX);
                let at = self.handle.now().plus_ms(wait);
                tracing::warn!(
                    target_name = row.target,
                    attempts = row.attempts,
                    error,
                    "a notification was not delivered; trying again"
                );
                row.next_at = at.into();
                row.last_error = error;
                commit.put_outbox(number, &row);
                (Some(at), is_passed_by(&row))
            }
        };
        self.handle.commit(commit).await?;
        Ok(next)
    }

    /// The oldest makes room.
    fn note_delivered(&self, commit: &mut Commit, number: u64, row: &OutboxRow) -> Result<(), Fault> {
        let delivered = DeliveredRow {
            target: row.target.clone(),
            body: row.body.clone(),
            created_at: row.created_at,
            delivered_at: self.handle.now().into(),
            attempts: row.attempts + 1,
        };
        commit.put_delivered(number, &delivered);
        for (number, _) in self.reader.delivered(DELIVERED_MAX + 10)?.iter().skip(DELIVERED_MAX - 1) {
            commit.delete_delivered(*number);
        }
        Ok(())
    }

    async fn post(&self, row: &OutboxRow) -> Result<(), String> {
        let Some(url) = &self.outbox.settings.webhook else {
            return Err(format!("{REFUSED}no webhook is configured any more"));
        };
        let body: Value = serde_json::from_str(&row.body).unwrap_or_default();
        let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut request = self.client.post(url).header("Content-Type", "application/json");
        request = request.header("Idempotency-Key", text("id")).header("X-Conveyor-Event", text("event"));
        if let Some(secret) = &self.outbox.settings.secret {
            let at = self.handle.now().0 / 1000;
            request = request.header("X-Conveyor-Signature", signature(secret, at, &row.body));
        }
        let response = request.body(row.body.clone()).send().await;
        let response =
            response.map_err(|e| format!("{}: {}", host(url), crate::base::fault::chain(&e.without_url())))?;
        match response.status() {
            status if status.is_success() => Ok(()),
            // It does not like this one; of the others nothing is said.
            status if status.is_client_error() && !matches!(status.as_u16(), 401 | 403 | 404 | 408 | 429) => {
                Err(format!("{REFUSED}{} answered {status}", host(url)))
            }
            status => Err(format!("{} answered {status}", host(url))),
        }
    }

    async fn write(&self, row: &OutboxRow) -> Result<(), String> {
        let Some(path) = self.outbox.settings.log.clone() else {
            return Err(format!("{REFUSED}no log file is configured any more"));
        };
        let line = format!("{}\n", row.body);
        let written =
            tokio::task::spawn_blocking(move || append(&path, &line).map_err(|e| format!("{}: {e}", path.display())));
        written.await.unwrap_or_else(|e| Err(e.to_string()))
    }
}

/// Begins the error of a notification that itself is what is wrong.
const REFUSED: &str = "refused: ";

/// Whether others go past a notification that waits for its next try.
fn is_passed_by(row: &OutboxRow) -> bool {
    row.attempts >= REFUSED_MAX && row.last_error.starts_with(REFUSED)
}

/// Scheme and host of an address: the rest may be a secret.
fn host(url: &str) -> String {
    let parsed = reqwest::Url::parse(url).ok();
    parsed.map_or_else(|| "the webhook".to_owned(), |url| url.origin().ascii_serialization())
}

fn append(path: &Path, line: &str) -> std::io::Result<()> {
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(line.as_bytes())?;
    file.sync_data()
}

/// `t=<seconds>,v1=<hex>`: the HMAC-SHA256 of `<seconds>.<body>` under the secret.
pub fn signature(secret: &str, at_seconds: i64, body: &str) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(format!("{at_seconds}.{body}").as_bytes());
    let hex: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
    format!("t={at_seconds},v1={hex}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_signature_can_be_checked_by_others() {
        // echo -n '17.{}' | openssl dgst -sha256 -hmac s3cret
        let signed = super::signature("s3cret", 17, "{}");
        assert_eq!(signed, "t=17,v1=986a7a44b27c222a3b1000e49042bdb8fb3bbc90490fac0df6fb65d8c717dc16");
        assert_ne!(signed, super::signature("s3cret", 18, "{}"));
    }
}
