//! All that the box answers over HTTP: one port serves AWS's protocol, REST with server-sent events, metrics, media and
//! the dashboard.
//!
//! ```text
//!            server (connections, their time-outs)
//!              |
//!            gate (origin, credentials, body, request limits)
//!              |
//!   POST /     aws/            Step Functions, AWS JSON 1.0; SQS and PutEvents, which resources::wire answers
//!   POST /ACCOUNT/QUEUE        SQS at a queue's own URL
//!   /api/v1    rest/  live     what the dashboard shows; session, audit: who came in, what they did
//!   /media     media           results
//!   /start-workflow  /metrics  /healthz
//!   /*         dashboard
//! ```
//!
//! Must never: decide what an execution or a service does, or keep what a restart may not lose. Holds: what changes
//! goes to the [`Handle`] or to a service, and what is shown comes from the store's reader; a refusal is mapped to HTTP
//! in one table ([`ApiError`]); a body is never read beyond its limit.

mod arn;
mod audit;
mod aws;
mod error;
mod gate;
mod live;
mod media;
mod names;
mod rest;
mod server;
mod session;
mod signature;
mod start_workflow;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use conveyor_base::limits::quotas;
use conveyor_base::{Blocking, Fault, ShareIo, fault};
use conveyor_dashboard as dashboard;
use conveyor_resources::wire::Messaging;
use conveyor_run::Handle;
use conveyor_services::approvals::Approvals;
use conveyor_services::sessions::Sessions;
use conveyor_services::uploads::Uploads;
use conveyor_store::{Reader, Scans};
use tokio::time::Instant;
use tower_http::catch_panic::CatchPanicLayer;

pub use arn::ArnFormat;
use conveyor_logs::event as history;
pub use error::ApiError;
pub use gate::{Auth, Credentials, Role};
pub use server::{Tls, TlsError, TlsSettings, Transport, certificate_ends, serve};

/// How long a commit may take until the store counts as failing.
const STORE_PATIENCE: Duration = Duration::from_secs(10);

/// What the API's handlers need. Built by `appliance`.
pub struct Settings {
    pub handle: Handle,
    /// What answers the calls of other services that come in over the same port; `None`: nobody does.
    pub messaging: Option<Messaging>,
    pub approvals: Approvals,
    pub uploads: Uploads,
    pub sessions: Sessions,
    pub arns: ArnFormat,
    pub auth: Auth,
    /// Reverse proxies, which say whose requests they pass on.
    pub proxies: BTreeSet<IpAddr>,
    pub io: ShareIo,
    /// Shares whose files `/media` hands out: outputs, never incoming ones.
    pub served: BTreeSet<String>,
    /// The workflow that `/start-workflow` starts for a share's files; `main` for others.
    pub workflows: BTreeMap<String, String>,
    /// The text of `/metrics`.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// How each watched share is, as JSON for screens.
    pub watches: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// How the jail of the stages stands, as JSON: `closed`, `open`, and `refused` where no stage is run.
    pub jail: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// The settings in force, without their secrets, as JSON for screens.
    pub effective: serde_json::Value,
    /// Where the reports of benchmarks lie.
    pub data_dir: PathBuf,
}

/// The state of all handlers. Cheap to clone, which every request does several times.
#[derive(Clone)]
struct AppState {
    /// On whose behalf the request's changes are made is the handle's to know.
    handle: Handle,
    /// What the request's caller may do.
    role: Role,
    /// Held for as long as anything goes on that the request began, also where its caller has gone away.
    _place: Option<Arc<gate::limit::Place>>,
    shared: Arc<Shared>,
}

/// What is the same for all requests.
struct Shared {
    messaging: Option<Messaging>,
    approvals: Approvals,
    reader: Reader,
    arns: ArnFormat,
    auth: Auth,
    proxies: gate::peer::Proxies,
    attempts: gate::Attempts,
    sessions: Sessions,
    request_limit: gate::RequestLimit,
    io: ShareIo,
    served: BTreeSet<String>,
    workflows: BTreeMap<String, String>,
    metrics: Arc<dyn Fn() -> String + Send + Sync>,
    watches: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
    jail: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
    effective: serde_json::Value,
    data_dir: PathBuf,
    devices: rest::Devices,
    today: rest::Today,
    uploads: Uploads,
    live: live::Live,
    redriven: aws::Redriven,
    reads: Blocking,
    disks: Blocking,
    health: Health,
}

impl std::ops::Deref for AppState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

/// All routes. Must be called inside a Tokio runtime: it begins to listen to what happens.
pub fn router(settings: Settings) -> Router {
    let live = live::Live::start(&settings.handle);
    let shared = Shared {
        reader: settings.handle.reader().clone(),
        messaging: settings.messaging,
        approvals: settings.approvals,
        arns: settings.arns,
        auth: settings.auth,
        proxies: settings.proxies,
        attempts: gate::Attempts::default(),
        sessions: settings.sessions,
        request_limit: gate::RequestLimit::default(),
        io: settings.io,
        served: settings.served,
        workflows: settings.workflows,
        metrics: settings.metrics,
        watches: settings.watches,
        jail: settings.jail,
        effective: settings.effective,
        data_dir: settings.data_dir,
        devices: rest::Devices::default(),
        today: rest::Today::default(),
        uploads: settings.uploads,
        live,
        redriven: aws::Redriven::default(),
        reads: Blocking::at_most(READS_MAX),
        disks: Blocking::at_most(DISKS_MAX),
        health: Health::default(),
    };
    let app = AppState { handle: settings.handle, role: Role::Viewer, _place: None, shared: Arc::new(shared) };
    Router::new()
        .route("/", post(aws::handle).get(dashboard::file))
        .nest("/api/v1", rest::routes(&app))
        // A queue's own URL, which older clients of SQS post to.
        .route("/{account}/{queue}", post(aws::queue).get(dashboard::file))
        .route("/start-workflow", post(start_workflow::start))
        .route("/media/{share}/{*key}", get(media::file))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .fallback(dashboard::file)
        .layer(DefaultBodyLimit::max(quotas().request_bytes()))
        .layer(axum::middleware::from_fn_with_state(app.clone(), gate::guard))
        .layer(CatchPanicLayer::new())
        .layer(axum::middleware::map_response(plainly))
        .with_state(app)
}

/// Whatever is answered is taken for what it says that it is, and by pages of this box alone.
async fn plainly(mut response: Response) -> Response {
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Requests that look into the store at the same time, and those that look at a disk.
const READS_MAX: usize = 32;
const DISKS_MAX: usize = 64;

impl AppState {
    /// Looks into the store for an answer, on a thread that may block. Where the caller goes away, the look goes on to its
    /// end.
    async fn reading<T: Send + 'static>(
        &self,
        look: impl FnOnce(&AppState, &Scans) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let app = self.clone();
        self.reads.run(move || look(&app, &app.reader.on_this_thread())).await?
    }

    /// Runs what may wait for a disk of the box's own, or waits for others only so long, on a thread that may block. Where the caller goes away, it goes on to its
    /// end.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
        Ok(self.disks.run(work).await?)
    }
}

async fn metrics(State(app): State<AppState>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (app.metrics)()).into_response()
}

/// What the last look at the box's health found, and when.
type Health = tokio::sync::Mutex<Option<(Instant, StatusCode, String)>>;

/// How long what was found is said again: each look is a commit, and nobody needs credentials to ask.
const HEALTH_HOLDS: Duration = Duration::from_secs(1);

async fn healthz(State(app): State<AppState>) -> Result<Response, ApiError> {
    // One looks, and the others wait for what it finds; also where whoever asked first has gone away.
    let look = async move {
        let mut known = app.health.lock().await;
        match known.as_ref().filter(|(found, ..)| found.elapsed() < HEALTH_HOLDS) {
            Some((_, status, body)) => (*status, body.clone()),
            None => {
                let (status, body) = health(&app).await;
                *known = Some((Instant::now(), status, body.clone()));
                (status, body)
            }
        }
    };
    let (status, body) = audit::run_detached(look).await?;
    Ok((status, [(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Well means: the store takes a commit, and no part of the appliance is down or has failed within the last minute.
async fn health(app: &AppState) -> (StatusCode, String) {
    let began = std::time::Instant::now();
    // A disk that hangs answers nothing at all, which whoever asks would take for a slow network.
    let stored = tokio::time::timeout(STORE_PATIENCE, app.handle.check_store()).await;
    let stored = stored.unwrap_or_else(|_| {
        let what = format!("the store took no commit within {} s; does its disk hang?", STORE_PATIENCE.as_secs());
        Err(Fault::fatal_plain(what))
    });
    let parts = app.handle.failed_parts();
    let (status, body) = match stored {
        Ok(()) if !parts.is_empty() => {
            (StatusCode::SERVICE_UNAVAILABLE, serde_json::json!({"status": "failing", "parts": parts}))
        }
        Ok(()) => {
            let commit_ms = began.elapsed().as_secs_f64() * 1000.0;
            let jail = (app.jail)();
            // Anybody may ask, and what exactly is open is nobody's business but the owner's.
            let has_none = |locks: &str| jail[locks].as_array().is_none_or(Vec::is_empty);
            let jail = match (jail["refused"].is_string(), has_none("closed"), has_none("open")) {
                (true, ..) => "refuses",
                (false, true, _) => "not tried yet",
                (false, false, true) => "closed",
                (false, false, false) => "partly open",
            };
            (StatusCode::OK, serde_json::json!({"status": "ok", "commitMs": commit_ms, "jail": jail}))
        }
        Err(fault) => {
            let error = fault::chain(&fault);
            (StatusCode::SERVICE_UNAVAILABLE, serde_json::json!({"status": "failing", "error": error}))
        }
    };
    (status, body.to_string())
}
