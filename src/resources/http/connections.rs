//! `[connections.NAME]`: how calls of other services are authorised, as EventBridge's connections do it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use conveyor_base::{Fault, fault};
use parking_lot::Mutex;
use reqwest::{Client, RequestBuilder, Url, redirect};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::egress::{EgressPolicy, Guarded, GuardedResolver};
use crate::bounded;

/// A token is renewed so long before its end.
const RENEW_BEFORE: Duration = Duration::from_secs(60);
/// Longest answer of a token's server, in bytes.
const TOKEN_BYTES_MAX: usize = 262_144;
/// How long a token lives whose server does not say.
const TOKEN_LIFE: Duration = Duration::from_secs(300);
const TIMEOUT: Duration = Duration::from_secs(60);

/// One of `basic`, `api_key` and `oauth`, or none; and what is added to each call.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionSettings {
    pub basic: Option<Basic>,
    pub api_key: Option<ApiKey>,
    pub oauth: Option<OAuth>,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default)]
    pub query: BTreeMap<String, String>,
    /// Fields of JSON bodies.
    #[serde(default)]
    pub body: BTreeMap<String, toml::Value>,
    /// The only hosts that calls go to: `api.example.net`, `*.lan`, `10.0.0.5:9000`. Without them any by https.
    #[serde(default)]
    pub hosts: Vec<String>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Basic {
    pub username: String,
    pub password: String,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// The header's name.
    pub name: String,
    pub value: String,
}

/// Client credentials.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OAuth {
    /// Where tokens come from.
    pub endpoint: String,
    pub client_id: String,
    pub client_secret: String,
    /// Further fields of the request, such as `scope` and `audience`.
    #[serde(default)]
    pub body: BTreeMap<String, String>,
}

impl std::fmt::Debug for ConnectionSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionSettings").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

impl ConnectionSettings {
    /// What is wrong with the table, for the configuration's check.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let ways = [self.basic.is_some(), self.api_key.is_some(), self.oauth.is_some()];
        if ways.iter().filter(|way| **way).count() > 1 {
            faults.push("has more than one of basic, api_key and oauth; keep one".to_owned());
        }
        let names = self.headers.keys().chain(self.api_key.iter().map(|key| &key.name));
        for name in names.filter(|name| reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_err()) {
            faults.push(format!("headers: '{name}' is no header's name"));
        }
        let values = self.headers.values().chain(self.api_key.iter().map(|key| &key.value));
        if values.into_iter().any(|value| reqwest::header::HeaderValue::from_str(value).is_err()) {
            faults.push("headers: a value has characters that headers cannot have".to_owned());
        }
        if let Some(oauth) = &self.oauth
            && !Url::parse(&oauth.endpoint).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
        {
            faults.push("oauth: its endpoint is neither http:// nor https://".to_owned());
        }
        faults
    }
}

/// The connections of this box.
pub struct Connections {
    connections: BTreeMap<String, Connection>,
    /// Goes wherever it is sent.
    open: Client,
    /// Looks at the addresses of names first.
    guarded: Client,
}

struct Connection {
    settings: ConnectionSettings,
    body: Map<String, Value>,
    egress: EgressPolicy,
    token: Mutex<Option<(String, Instant)>>,
}

impl Connections {
    /// # Errors
    /// A client cannot be made: the system's certificates are missing, or cannot be read. One without its guards would
    /// call whomever it is told to.
    pub fn new(configured: &BTreeMap<String, ConnectionSettings>) -> Result<Connections, Fault> {
        // A redirect would carry what the connection adds to whom it does not name.
        let builder = || Client::builder().redirect(redirect::Policy::none()).timeout(TIMEOUT).no_proxy();
        let made = |builder: reqwest::ClientBuilder| {
            builder.build().map_err(|e| Fault::fatal("the HTTP client of [connections] cannot be made", e))
        };
        let connection = |settings: &ConnectionSettings| Connection {
            body: settings.body.iter().filter_map(|(k, v)| Some((k.clone(), serde_json::to_value(v).ok()?))).collect(),
            egress: EgressPolicy::new(&settings.hosts),
            token: Mutex::default(),
            settings: settings.clone(),
        };
        Ok(Connections {
            connections: configured.iter().map(|(name, settings)| (name.clone(), connection(settings))).collect(),
            open: made(builder())?,
            guarded: made(builder().dns_resolver(std::sync::Arc::new(GuardedResolver)))?,
        })
    }

    pub fn has(&self, name: &str) -> bool {
        self.connections.contains_key(name)
    }

    /// The client for a call to an address; refused where the connection's egress policy does not allow it.
    pub fn client(&self, name: &str, url: &Url) -> Result<&Client, String> {
        let connection = self.connections.get(name).ok_or_else(|| unknown(name))?;
        Ok(match connection.egress.check(url)? {
            Guarded::Yes => &self.guarded,
            Guarded::No => &self.open,
        })
    }

    /// Fields that are added to JSON bodies.
    pub fn body_of(&self, name: &str) -> &Map<String, Value> {
        static NONE: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
        self.connections.get(name).map_or(&NONE, |connection| &connection.body)
    }

    /// Adds what proves who calls. The error never holds a secret.
    pub async fn authorise(&self, name: &str, mut request: RequestBuilder) -> Result<RequestBuilder, String> {
        let connection = self.connections.get(name).ok_or_else(|| unknown(name))?;
        let settings = &connection.settings;
        if let Some(Basic { username, password }) = &settings.basic {
            request = request.basic_auth(username, Some(password));
        }
        if let Some(ApiKey { name, value }) = &settings.api_key {
            request = request.header(name, value);
        }
        if let Some(oauth) = &settings.oauth {
            request = request.bearer_auth(self.token(name, connection, oauth).await?);
        }
        for (name, value) in &settings.headers {
            request = request.header(name, value);
        }
        if !settings.query.is_empty() {
            request = request.query(&settings.query);
        }
        Ok(request)
    }

    /// Drops a token that the other side took no more; false where there is none.
    pub fn forget_token(&self, name: &str) -> bool {
        self.connections.get(name).is_some_and(|connection| connection.token.lock().take().is_some())
    }

    async fn token(&self, name: &str, connection: &Connection, oauth: &OAuth) -> Result<String, String> {
        if let Some((token, until)) = &*connection.token.lock()
            && Instant::now() < *until
        {
            return Ok(token.clone());
        }
        let failed = |what: String| format!("the connection '{name}' got no token: {what}");
        let mut fields = oauth.body.clone();
        fields.entry("grant_type".to_owned()).or_insert_with(|| "client_credentials".to_owned());
        let form = serde_json::to_value(&fields).unwrap_or_default();
        let form = super::encode::form(&form, "REPEAT").map_err(failed)?;
        let request = self.open.post(&oauth.endpoint).basic_auth(&oauth.client_id, Some(&oauth.client_secret));
        let request = request.header("Content-Type", "application/x-www-form-urlencoded").body(form);
        let sent = request.header("Accept", "application/json").send().await;
        let response = sent.map_err(|e| failed(fault::chain(&e.without_url())))?;
        let status = response.status();
        if !status.is_success() {
            return Err(failed(format!("its server answered {status}")));
        }
        let body = bounded::body(response, TOKEN_BYTES_MAX).await;
        let body = body.map_err(|e| failed(fault::chain(&e.without_url())))?;
        let body = body.ok_or_else(|| failed(format!("the answer has more than {TOKEN_BYTES_MAX} bytes")))?;
        let answer: Value = serde_json::from_slice(&body).map_err(|e| failed(format!("the answer is no JSON: {e}")))?;
        let token =
            answer["access_token"].as_str().ok_or_else(|| failed("the answer has no access_token".to_owned()))?;
        let life = answer["expires_in"].as_u64().map_or(TOKEN_LIFE, Duration::from_secs);
        let until = Instant::now() + life.saturating_sub(RENEW_BEFORE);
        *connection.token.lock() = Some((token.to_owned(), until));
        Ok(token.to_owned())
    }
}

fn unknown(name: &str) -> String {
    format!("there is no connection '{name}'; add [connections.{name}] to the configuration")
}
