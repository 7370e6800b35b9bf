//! [`Crowd`]: all connections. Where there are too many, the one that has been idle for the longest goes, so that whoever holds
//! many and says nothing shuts nobody out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes};
use hyper::body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::super::gate::peer::Peer;

/// Cheap to clone.
#[derive(Clone)]
pub struct Crowd(Arc<Inner>);

struct Inner {
    began: Instant,
    most: usize,
    members: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    next: u64,
    all: HashMap<u64, Arc<Member>>,
    of: HashMap<IpAddr, usize>,
}

struct Member {
    address: IpAddr,
    /// Requests of it that are being answered.
    busy: AtomicUsize,
    /// When it became idle, in milliseconds since the crowd began.
    idle_since_ms: AtomicU64,
    makes_room: Notify,
}

/// One connection; it leaves the crowd when this is dropped.
pub struct Place {
    number: u64,
    member: Arc<Member>,
    among: Crowd,
}

impl Crowd {
    pub fn new(most: usize) -> Crowd {
        Crowd(Arc::new(Inner { began: Instant::now(), most, members: Mutex::default() }))
    }

    /// A place for a connection of an address, which gets no more than half of all. Another one may have to make room.
    /// `None`: all of those that could are busy.
    pub fn enter(&self, address: IpAddr) -> Option<Place> {
        let address = Peer::whose(address);
        let members = &mut *self.0.members.lock();
        let own = members.of.get(&address).copied().unwrap_or(0);
        let is_full = members.all.len() >= self.0.most;
        if is_full || own >= self.0.most.div_ceil(2) {
            // Whoever has that many makes room himself.
            let is_theirs = own >= self.0.most.div_ceil(2);
            let idle = |member: &&Arc<Member>| {
                member.busy.load(Ordering::Acquire) == 0 && (!is_theirs || member.address == address)
            };
            let longest = |(_, member): &(&u64, &Arc<Member>)| member.idle_since_ms.load(Ordering::Acquire);
            let gone = members.all.iter().filter(|(_, member)| idle(member)).min_by_key(longest);
            let gone = *gone?.0;
            if let Some(member) = members.leave(gone) {
                member.makes_room.notify_one();
            }
        }
        let number = members.next;
        members.next += 1;
        let member = Arc::new(Member {
            address,
            busy: AtomicUsize::new(0),
            idle_since_ms: AtomicU64::new(self.now_ms()),
            makes_room: Notify::new(),
        });
        members.all.insert(number, member.clone());
        *members.of.entry(address).or_default() += 1;
        Some(Place { number, member, among: self.clone() })
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Members {
    fn leave(&mut self, number: u64) -> Option<Arc<Member>> {
        let member = self.all.remove(&number)?;
        match self.of.get_mut(&member.address) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(self.of.remove(&member.address)),
        }
        Some(member)
    }
}

impl Place {
    /// Until this is dropped the connection is busy.
    pub fn busy(&self) -> Busy {
        self.member.busy.fetch_add(1, Ordering::AcqRel);
        Busy { member: self.member.clone(), crowd: self.among.clone() }
    }

    /// Resolves once the connection is to make room for another.
    pub async fn makes_room(&self) {
        self.member.makes_room.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.among.0.members.lock().leave(self.number);
    }
}

/// A request that is being answered.
pub struct Busy {
    member: Arc<Member>,
    crowd: Crowd,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.member.idle_since_ms.store(self.crowd.now_ms(), Ordering::Release);
        self.member.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An answer's body, with which its connection is busy to its end.
pub struct Answering {
    pub body: Body,
    pub busy: Busy,
}

impl hyper::body::Body for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn who_is_idle_for_the_longest_makes_room_and_who_is_busy_stays() {
        let crowd = Crowd::new(6);
        let (one, other): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let held: Vec<Place> = (0..3).map(|_| crowd.enter(one).unwrap()).collect();
        let busy = held[0].busy();
        // Half of all: one of its own goes, and not the busy one.
        let fourth = crowd.enter(one).unwrap();
        let gone = |place: &Place| place.makes_room().now_or_never().is_some();
        assert!(!gone(&held[0]) && (gone(&held[1]) || gone(&held[2])));
        let others: Vec<Place> = (0..3).map(|_| crowd.enter(other).unwrap()).collect();
        let all_busy: Vec<Busy> = held.iter().chain([&fourth]).chain(&others).map(Place::busy).collect();
        assert!(crowd.enter([10, 0, 0, 3].into()).is_none(), "all are busy");
        drop(all_busy);
        let last = crowd.enter([10, 0, 0, 3].into()).unwrap();
        assert!(!gone(&held[0]), "it is being answered");
        drop((busy, held, fourth, others, last));
        let members = crowd.0.members.lock();
        assert_eq!((members.all.len(), members.of.len()), (0, 0));
    }
}
