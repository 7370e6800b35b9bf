//! The HTTP server: how connections are taken, and what none of them may hold.
//!
//! axum's own server installs no timer, so that hyper's time-outs do nothing, and it takes whatever number of
//! connections comes; this one is its loop with both. What a request may hold is [`super::gate`]'s.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::resource::{Resource, getrlimit};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How long a connection may wait before its next request, and that take to name what it asks for. Longer than the
/// pools of the SDKs keep one.
const HEADERS_WITHIN: Duration = Duration::from_secs(75);
/// Connections at once, and those of one address. Above that one is closed as soon as it is taken.
const CONNECTIONS_MAX: usize = 8_192;
const CONNECTIONS_PER_ADDRESS_MAX: usize = 4_096;
/// Of the files that the process may have open, connections take this part at most.
const PART_OF_OPEN_FILES: usize = 2;
/// How long requests under way may take to end once the appliance shuts down. Streams of events never end by
/// themselves, so they are cut off then.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
/// How often it is said that connections are refused.
const SAID_EVERY: Duration = Duration::from_secs(60);
/// How long nothing is taken after the system refused a connection: it is short of something, such as open files.
const PAUSE: Duration = Duration::from_millis(200);

/// Serves until `shutdown` resolves.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    // Once: each clone of a router without state is a pointer.
    let router = router.with_state::<()>(());
    let connections = Connections::default();
    let (closing, closes) = watch::channel(());
    tokio::pin!(shutdown);
    let mut refused = None;
    loop {
        let taken = tokio::select! {
            taken = listener.accept() => taken,
            () = &mut shutdown => break,
        };
        match taken {
            Ok((stream, peer)) => match connections.place(peer.ip()) {
                Some(place) => drop(tokio::spawn(answer(stream, router.clone(), closes.clone(), place))),
                None if refused.is_none_or(|at: Instant| at.elapsed() >= SAID_EVERY) => {
                    refused = Some(Instant::now());
                    tracing::warn!(address = %peer.ip(), "too many connections at once: further ones are closed");
                }
                None => {}
            },
            Err(e) if is_of_one_connection(&e) => {}
            Err(e) => {
                tracing::warn!(error = %e, "a connection could not be taken");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop((listener, closes));
    let _ = closing.send(());
    let _ = tokio::time::timeout(SHUTDOWN_GRACE, closing.closed()).await;
    Ok(())
}

/// Answers what comes over a connection, until it ends or the server does.
async fn answer(stream: TcpStream, router: Router, mut closes: watch::Receiver<()>, _place: Place) {
    // Where it cannot be set, answers come a little later.
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    // An error is the caller's: it hung up, or does not speak HTTP.
    tokio::select! {
        _ = connection.as_mut() => {}
        _ = closes.changed() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

fn is_of_one_connection(e: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(e.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}

/// How many connections there are, of whom.
#[derive(Clone)]
struct Connections(Arc<Mutex<Counted>>);

struct Counted {
    all: usize,
    of: HashMap<IpAddr, usize>,
    most: usize,
}

/// A connection's place; free again once it is dropped.
struct Place {
    among: Connections,
    address: IpAddr,
}

impl Default for Connections {
    fn default() -> Connections {
        let open_files = getrlimit(Resource::RLIMIT_NOFILE).ok();
        let open_files = open_files.and_then(|(soft, _)| usize::try_from(soft).ok()).unwrap_or(usize::MAX);
        Connections::at_most(CONNECTIONS_MAX.min(open_files / PART_OF_OPEN_FILES))
    }
}

impl Connections {
    fn at_most(most: usize) -> Connections {
        Connections(Arc::new(Mutex::new(Counted { all: 0, of: HashMap::new(), most })))
    }

    /// `None` where the address has as many as it may, or all have.
    fn place(&self, address: IpAddr) -> Option<Place> {
        // Of IPv6 whoever has one address has all behind its first 64 bits.
        let address = match address {
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_none() => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
            other => other,
        };
        let mut counted = self.0.lock();
        let own = counted.of.get(&address).copied().unwrap_or(0);
        if counted.all >= counted.most || own >= CONNECTIONS_PER_ADDRESS_MAX.min(counted.most.div_ceil(2)) {
            return None;
        }
        counted.all += 1;
        counted.of.insert(address, own + 1);
        Some(Place { among: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counted = self.among.0.lock();
        counted.all -= 1;
        match counted.of.get_mut(&self.address) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(counted.of.remove(&self.address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_places_to_others() {
        let connections = Connections::at_most(6);
        let (one, other): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let mut held: Vec<Place> = (0..3).map(|_| connections.place(one).unwrap()).collect();
        assert!(connections.place(one).is_none(), "half of all");
        held.extend((0..3).map(|_| connections.place(other).unwrap()));
        assert!(connections.place([10, 0, 0, 3].into()).is_none(), "all");
        held.remove(0);
        held.push(connections.place([10, 0, 0, 3].into()).unwrap());
        held.clear();
        let counted = connections.0.lock();
        assert_eq!((counted.all, counted.of.len()), (0, 0));
    }
}
