//! One delivery of a notification: the signed POST, or the line in the log file. Knows nothing of order and of tries.

use std::path::{Path, PathBuf};

use conveyor_base::escape::hex;
use conveyor_base::{Fault, Span, fault};
use conveyor_run::Handle;
use conveyor_store::OutboxRow;
use hmac::{Hmac, Mac};
use reqwest::redirect::Policy;
use serde_json::Value;
use sha2::Sha256;

use super::NotifySettings;
use super::order::REFUSED;

pub(super) struct Deliverer {
    webhook: Option<String>,
    secret: Option<String>,
    log: Option<PathBuf>,
    client: reqwest::Client,
    handle: Handle,
}

impl Deliverer {
    /// # Errors
    /// The webhook's client cannot be made: one without its timeout would wait for ever.
    pub fn new(settings: &NotifySettings, handle: &Handle) -> Result<Deliverer, Fault> {
        let timeout = settings.timeout.unwrap_or(Span::seconds(10)).duration();
        // A webhook's host shall not send the box elsewhere: to its own port, for instance.
        let client = reqwest::Client::builder().timeout(timeout).redirect(Policy::none()).build();
        Ok(Deliverer {
            webhook: settings.webhook.clone(),
            secret: settings.secret.clone(),
            log: settings.log.clone(),
            client: client.map_err(|e| Fault::fatal("the HTTP client of [notify] cannot be made", e))?,
            handle: handle.clone(),
        })
    }

    /// One try. The error never holds a secret; it begins with [`REFUSED`] where the notification itself is at fault.
    pub async fn deliver(&self, row: &OutboxRow) -> Result<(), String> {
        match row.target.as_str() {
            "webhook" => self.post(row).await,
            "log" => self.write(row).await,
            other => Err(format!("{REFUSED}no target named '{other}' is configured any more")),
        }
    }

    async fn post(&self, row: &OutboxRow) -> Result<(), String> {
        let Some(url) = &self.webhook else {
            return Err(format!("{REFUSED}no webhook is configured any more"));
        };
        let body: Value = serde_json::from_str(&row.body).unwrap_or_default();
        let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut request = self.client.post(url).header("Content-Type", "application/json");
        request = request.header("Idempotency-Key", text("id")).header("X-Conveyor-Event", text("event"));
        if let Some(secret) = &self.secret {
            let at = self.handle.wall().0 / 1000;
            request = request.header("X-Conveyor-Signature", signature(secret, at, &row.body));
        }
        let response = request.body(row.body.clone()).send().await;
        let response = response.map_err(|e| format!("{}: {}", host(url), fault::chain(&e.without_url())))?;
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
        let Some(path) = self.log.clone() else {
            return Err(format!("{REFUSED}no log file is configured any more"));
        };
        let line = format!("{}\n", row.body);
        let written =
            tokio::task::spawn_blocking(move || append(&path, &line).map_err(|e| format!("{}: {e}", path.display())));
        written.await.unwrap_or_else(|e| Err(e.to_string()))
    }
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
    format!("t={at_seconds},v1={}", hex(&mac.finalize().into_bytes()))
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
