//! The HTTP server: how connections are taken, and what none of them may hold.
//!
//! axum's own server installs no timer, so that hyper's time-outs do nothing, and it takes whatever number of
//! connections comes; this one is its loop with both, with TLS, and with a time within which what is sent has to be taken.
//! What a request may hold is [`super::gate`]'s.

mod crowd;
mod tls;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::resource::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tower::Service as _;

use super::gate::peer::Peer;
use crowd::{Answering, Crowd, Place};

pub use tls::{Tls, TlsError, TlsSettings, certificate_ends};

/// How long a connection may wait before its next request, and that take to name what it asks for. Longer than the
/// pools of the SDKs keep one.
const HEADERS_WITHIN: Duration = Duration::from_secs(75);
/// How long the other end may take nothing of what is sent to it: a player that is paused says so by asking for a part again.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);
/// How long agreeing on TLS may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// What a TLS connection begins with (RFC 8446, section 5.1: a record of type handshake).
const TLS_BEGINS_WITH: u8 = 22;
/// Connections at once, of which one address gets half. Above that idle ones make room, and where none is idle a new one is
/// closed as soon as it is taken.
const CONNECTIONS_MAX: usize = 8_192;
/// What is read ahead of a connection: its head has to fit.
const READ_AHEAD_BYTES: usize = 32 << 10;
/// Of the files that the process may have open, connections take this part at most.
const PART_OF_OPEN_FILES: usize = 2;
/// How long requests under way may take to end once the appliance shuts down. Streams of events never end by
/// themselves, so they are cut off then.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
/// How often it is said that connections are refused.
const SAID_EVERY: Duration = Duration::from_secs(60);
/// How long nothing is taken after the system refused a connection: it is short of something, such as open files.
const PAUSE: Duration = Duration::from_millis(200);

/// How connections are taken.
#[derive(Clone, Default)]
pub struct Transport {
    /// Without it all goes over the network as it is.
    pub tls: Option<Tls>,
    /// Who may connect, besides this box itself; `None`: everybody.
    pub only: Option<BTreeSet<IpAddr>>,
}

impl Transport {
    fn takes(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_loopback()
            || self.only.as_ref().is_none_or(|only| only.iter().any(|one| one.to_canonical() == address))
    }
}

/// Serves until `shutdown` resolves.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    transport: Transport,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    // Once: each clone of a router without state is a pointer.
    let router = router.with_state::<()>(());
    let crowd = Crowd::new(connections_max());
    let fresh = transport.tls.clone().map(|tls| AbortOnDrop(tokio::spawn(tls.keep_fresh())));
    let (closing, closes) = watch::channel(());
    tokio::pin!(shutdown);
    let mut refused = None;
    loop {
        let taken = tokio::select! {
            taken = listener.accept() => taken,
            () = &mut shutdown => break,
        };
        match taken {
            Ok((stream, peer)) if transport.takes(peer.ip()) => match crowd.enter(peer.ip()) {
                Some(place) => {
                    let connection =
                        Connection { address: peer.ip(), router: router.clone(), closes: closes.clone(), place };
                    tokio::spawn(connection.answer(stream, transport.tls.clone()));
                }
                None if refused.is_none_or(|at: Instant| at.elapsed() >= SAID_EVERY) => {
                    refused = Some(Instant::now());
                    tracing::warn!(address = %peer.ip(), "too many connections are busy: further ones are closed");
                }
                None => {}
            },
            Ok((_, peer)) if refused.is_none_or(|at: Instant| at.elapsed() >= SAID_EVERY) => {
                refused = Some(Instant::now());
                tracing::warn!(address = %peer.ip(), "is none of the proxies, and there is no TLS: its connections are closed");
            }
            Ok(_) => {}
            Err(e) if is_of_one_connection(&e) => {}
            Err(e) => {
                tracing::warn!(error = %e, "a connection could not be taken");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop((listener, closes, fresh));
    let _ = closing.send(());
    let _ = timeout(SHUTDOWN_GRACE, closing.closed()).await;
    Ok(())
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn connections_max() -> usize {
    let open_files = getrlimit(Resource::RLIMIT_NOFILE).ok();
    let open_files = open_files.and_then(|(soft, _)| usize::try_from(soft).ok()).unwrap_or(usize::MAX);
    CONNECTIONS_MAX.min(open_files / PART_OF_OPEN_FILES)
}

/// A connection that was taken.
struct Connection {
    address: IpAddr,
    router: Router,
    closes: watch::Receiver<()>,
    place: Place,
}

impl Connection {
    /// Answers what comes over it, until it ends or the server does.
    async fn answer(self, stream: TcpStream, tls: Option<Tls>) {
        // Where it cannot be set, answers come a little later.
        let _ = stream.set_nodelay(true);
        let Some(tls) = tls else { return self.speak(in_time(stream), false).await };
        let mut first = [0];
        match timeout(HANDSHAKE_WITHIN, stream.peek(&mut first)).await {
            Ok(Ok(1)) if first[0] == TLS_BEGINS_WITH => {}
            Ok(Ok(1)) => return self.send_on(stream).await,
            _ => return,
        }
        // Of a client that does not trust the certificate nothing more is heard.
        if let Ok(Ok(stream)) = timeout(HANDSHAKE_WITHIN, tls.acceptor().accept(in_time(stream))).await {
            self.speak(stream, true).await;
        }
    }

    async fn speak(self, stream: impl AsyncRead + AsyncWrite + Unpin, is_tls: bool) {
        let Connection { address, router, mut closes, place } = self;
        let service = service_fn(|mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(Peer { address, is_tls });
            let (busy, answer) = (place.busy(), router.clone().call(request));
            async move { Ok::<_, Infallible>(answer.await?.map(|body| Answering { body, busy })) }
        });
        let connection = http().serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        // An error is the caller's: it hung up, or does not speak HTTP.
        tokio::select! {
            _ = connection.as_mut() => {}
            () = place.makes_room() => {}
            _ = closes.changed() => {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        }
    }

    /// Tells whoever speaks HTTP without TLS to come with it: people leave the `s` out.
    async fn send_on(self, stream: TcpStream) {
        let service = service_fn(async |request: hyper::Request<Incoming>| Ok::<_, Infallible>(with_tls(&request)));
        let _ = http().keep_alive(false).serve_connection(TokioIo::new(in_time(stream)), service).await;
    }
}

fn http() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN).max_buf_size(READ_AHEAD_BYTES);
    http
}

fn with_tls<B>(request: &hyper::Request<B>) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let place = host.map(|host| format!("https://{host}{path}"));
    let words = "This box speaks TLS: use https";
    match place {
        // A client that signs its requests or sends a password must not send them on without being told. Nor is it for ever:
        // an owner may take TLS away again.
        Some(place) if request.method().is_safe() => {
            let headers = [(header::LOCATION, place), (header::CACHE_CONTROL, "no-store".to_owned())];
            (StatusCode::TEMPORARY_REDIRECT, headers, words).into_response()
        }
        _ => (StatusCode::BAD_REQUEST, words).into_response(),
    }
}

/// Whoever takes nothing of what is sent is not waited for.
fn in_time(stream: TcpStream) -> std::pin::Pin<Box<TimeoutStream<TcpStream>>> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(TAKEN_WITHIN));
    Box::pin(stream)
}

fn is_of_one_connection(e: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(e.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}
