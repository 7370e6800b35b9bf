//! What requests may hold while they come in and are under way: bodies are read here, within a time and a size, before
//! the request takes a place.
//!
//! Nobody shuts others out: those that wait for something to happen have places of their own, and so have uploads, which
//! take as long as their files do; one address gets a part of each; whoever watches over the box needs none.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::Request;
use axum::http::Method;
use conveyor_base::limits::quotas;
use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::SIGN_IN;
use super::peer::Peer;
use crate::{ApiError, aws};

/// Requests under way at once, above which callers are asked to come back; those that wait for something to happen; and
/// uploads.
const ACTIVE_MAX: usize = 1024;
const WAITING_MAX: usize = 2048;
const UPLOADS_MAX: usize = 512;
/// Of bodies no more than this is read of more than so many at a time: what is read stands in memory.
const LARGE_BODY_BYTES: usize = 64 << 10;
const LARGE_BODIES_MAX: usize = 256;
/// What is read of somebody whom nobody here knows yet: a name and a password.
const UNKNOWN_BODY_BYTES: usize = 4 << 10;
/// How long a body may take to come. Not an upload's, which is as long as its file is.
const BODY_WITHIN: Duration = Duration::from_secs(30);
/// How often an address that sends as many large bodies as it may looks whether one has come.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The places of all requests.
pub struct RequestLimit {
    active: Places,
    waiting: Places,
    uploads: Places,
    large_bodies: Semaphore,
    large_bodies_of: Places,
}

impl Default for RequestLimit {
    fn default() -> RequestLimit {
        RequestLimit {
            active: Places::new(ACTIVE_MAX),
            waiting: Places::new(WAITING_MAX),
            uploads: Places::new(UPLOADS_MAX),
            large_bodies: Semaphore::new(LARGE_BODIES_MAX),
            large_bodies_of: Places::each(LARGE_BODIES_MAX / 2),
        }
    }
}

impl RequestLimit {
    /// A place for the request, to be held until it is answered and nothing that it began goes on. `Ok(None)`: it needs
    /// none, as who watches over the box does (many callers are no box that is not well), and who signs in.
    ///
    /// # Errors
    /// There is none free.
    pub fn place(&self, request: &Request, body: &[u8], address: IpAddr) -> Result<Option<Place>, ApiError> {
        let places = match request.uri().path() {
            "/healthz" | "/metrics" | SIGN_IN => return Ok(None),
            _ if is_upload(request) => &self.uploads,
            _ if aws::may_wait(request.headers(), body) => &self.waiting,
            _ => &self.active,
        };
        places.take(address).map(Some).ok_or_else(throttled)
    }

    /// Reads the body, within its limits, and puts it back. An upload's goes on as it comes, but for a signed one, of which
    /// the body is signed too.
    pub async fn with_body(
        &self,
        request: Request,
        is_signed: bool,
        address: IpAddr,
    ) -> Result<(Request, Bytes), ApiError> {
        if request.method().is_safe() || is_upload(&request) && !is_signed {
            return Ok((request, Bytes::new()));
        }
        let most = if request.uri().path() == SIGN_IN { UNKNOWN_BODY_BYTES } else { quotas().request_bytes() };
        let (parts, body) = request.into_parts();
        let body = self.read_body(body, address, most).await?;
        Ok((Request::from_parts(parts, body.clone().into()), body))
    }

    async fn read_body(&self, body: Body, address: IpAddr, most: usize) -> Result<Bytes, ApiError> {
        let too_large = || ApiError::new("RequestEntityTooLargeException", "The request's body is too large");
        let too_slow = |_| {
            let what = format!("The request's body did not come within {} seconds", BODY_WITHIN.as_secs());
            ApiError::new("RequestTimeout", what)
        };
        if body.size_hint().lower() > most as u64 {
            return Err(too_large());
        }
        let mut pieces = body.into_data_stream();
        // Most come in one piece, which need not be copied.
        let (mut first, mut all, mut place) = (Bytes::new(), Vec::new(), None);
        let mut until = Instant::now() + BODY_WITHIN;
        while let Some(piece) = timeout_at(until, pieces.next()).await.map_err(too_slow)? {
            // Whoever broke off hears nothing of this.
            let piece = piece.map_err(|_| ApiError::new("RequestTimeout", "The request's body broke off"))?;
            let bytes = first.len() + all.len() + piece.len();
            if bytes > most {
                return Err(too_large());
            }
            if bytes > LARGE_BODY_BYTES && place.is_none() {
                // What has come so far is little. Whoever waits for others gets the whole time after that.
                place = Some(self.place_of_large_body(address).await?);
                until = Instant::now() + BODY_WITHIN;
            }
            if bytes == piece.len() {
                first = piece;
            } else {
                all.extend(std::mem::take(&mut first));
                all.extend(piece);
            }
        }
        Ok(if all.is_empty() { first } else { all.into() })
    }

    /// First one of its address's own, then one of all, for which those wait in turn.
    async fn place_of_large_body(&self, address: IpAddr) -> Result<(Place, SemaphorePermit<'_>), ApiError> {
        let waits = async {
            let own = loop {
                match self.large_bodies_of.take(address) {
                    Some(place) => break place,
                    None => sleep(LOOK_EVERY).await,
                }
            };
            // It is never closed.
            self.large_bodies.acquire().await.ok().map(|place| (own, place))
        };
        timeout(BODY_WITHIN, waits).await.ok().flatten().ok_or_else(throttled)
    }
}

/// A part of a file, which is written as it comes.
fn is_upload(request: &Request) -> bool {
    request.method() == Method::PATCH && request.uri().path().starts_with("/api/v1/uploads/")
}

pub fn throttled() -> ApiError {
    ApiError::new("ThrottlingException", "Too many requests at once; try again")
}

/// So many places, of which one address gets a part. Cheap to clone.
#[derive(Clone)]
pub struct Places(Arc<Mutex<Taken>>);

struct Taken {
    all: usize,
    of: HashMap<IpAddr, usize>,
    most: usize,
    most_of_address: usize,
}

/// A place; free again once it is dropped.
pub struct Place {
    among: Places,
    address: IpAddr,
}

impl Places {
    /// Of which one address gets half.
    pub fn new(most: usize) -> Places {
        Places::of(most, most.div_ceil(2))
    }

    /// For each address so many.
    fn each(most_of_address: usize) -> Places {
        Places::of(usize::MAX, most_of_address)
    }

    fn of(most: usize, most_of_address: usize) -> Places {
        Places(Arc::new(Mutex::new(Taken { all: 0, of: HashMap::new(), most, most_of_address })))
    }

    /// `None` where the address has as many as it may, or all have.
    pub fn take(&self, address: IpAddr) -> Option<Place> {
        let address = Peer::whose(address);
        let mut taken = self.0.lock();
        let own = taken.of.get(&address).copied().unwrap_or(0);
        if taken.all >= taken.most || own >= taken.most_of_address {
            return None;
        }
        taken.all += 1;
        taken.of.insert(address, own + 1);
        Some(Place { among: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.among.0.lock();
        taken.all -= 1;
        match taken.of.get_mut(&self.address) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(taken.of.remove(&self.address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_places_to_others() {
        let places = Places::new(6);
        let (one, other): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let mut held: Vec<Place> = (0..3).map(|_| places.take(one).unwrap()).collect();
        assert!(places.take(one).is_none(), "half of all");
        held.extend((0..3).map(|_| places.take(other).unwrap()));
        assert!(places.take([10, 0, 0, 3].into()).is_none(), "all");
        held.remove(0);
        held.push(places.take([10, 0, 0, 3].into()).unwrap());
        held.clear();
        let taken = places.0.lock();
        assert_eq!((taken.all, taken.of.len()), (0, 0));
    }
}
