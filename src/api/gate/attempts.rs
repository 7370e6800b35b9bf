//! [`Attempts`]: whoever shows wrong passwords or signatures is made to wait, so that guessing leads nowhere.
//!
//! Counted are the address that tries, the user that is tried, and the two together. Nobody may lock out a person who comes
//! from where that person has come in before: of such a pair only its own wrong attempts count. Nor whoever is on the box
//! itself: there, what others tried from elsewhere does not count; all addresses of the box's loopback are one. What comes too early is not looked at, right or wrong, so
//! that it says nothing.
//!
//! In memory alone: a restart gives a few attempts more, and forgets who has come in from where.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::peer::Peer;

/// Wrong attempts that cost nothing, at a user from one address, of one address, and at a user from anywhere: people mistype,
/// a client with an old password tries it a few times, and behind one address there may be a house.
const FREE_OF_PAIR: u32 = 5;
const FREE_OF_ADDRESS: u32 = 20;
const FREE_OF_USER: u32 = 20;
/// What the first one beyond costs; each further one costs twice as much, up to the most.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Without a wrong one for so long, all are forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(15 * 60);
/// For so long a user counts as one who comes in from an address.
const KNOWN_FOR: Duration = Duration::from_secs(24 * 3600);
/// Addresses and pairs that are remembered. Beyond it those go that were quiet for the longest. Users are as many as there are.
const REMEMBERED_MAX: usize = 16_384;
/// Entries of the audit log that failed attempts may make at once, and one for each of these times on top. What is beyond is
/// counted in the next one.
const ENTRIES_AT_ONCE: u32 = 120;
const ENTRY_EVERY: Duration = Duration::from_secs(2);

/// What becomes of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// `is_new`: this user has not come in from there for a day.
    Right {
        is_new: bool,
    },
    Wrong,
    /// Not looked at. `is_first`: of those that come too early.
    TooEarly {
        wait: Duration,
        is_first: bool,
    },
}

#[derive(Default)]
pub struct Attempts(Mutex<State>);

#[derive(Default)]
struct State {
    pairs: HashMap<(IpAddr, String), Tally>,
    addresses: HashMap<IpAddr, Tally>,
    users: HashMap<String, Tally>,
    /// By the very address: of a network of many, one alone is known.
    known: HashMap<(IpAddr, String), Instant>,
    entries: Entries,
}

/// How many entries may be made.
#[derive(Default)]
struct Entries {
    made: u32,
    since: Option<Instant>,
    left_out: u64,
}

struct Tally {
    wrong: u32,
    last: Instant,
    closed_until: Instant,
    /// Whether one has come too early since it closed.
    has_turned_away: bool,
}

impl Attempts {
    /// Counts an attempt from an address. `user`: whom it names, where there is one of that name.
    pub fn judge(&self, address: IpAddr, user: Option<&str>, is_right: bool, now: Instant) -> Judged {
        let state = &mut *self.0.lock();
        let is_known = user.is_some_and(|user| state.knows(address, user, now));
        let (mut wait, mut is_first) = (Duration::ZERO, false);
        state.each(address, user, is_known, None, |tally, _| {
            if tally.closed_until > now {
                wait = wait.max(tally.closed_until - now);
                is_first |= !std::mem::replace(&mut tally.has_turned_away, true);
            }
        });
        if !wait.is_zero() {
            return Judged::TooEarly { wait, is_first };
        }
        if let Some(user) = user.filter(|_| is_right) {
            make_room(&mut state.known, |at| *at);
            state.known.insert((Peer::plain(address), user.to_owned()), now);
            return Judged::Right { is_new: !is_known };
        }
        make_room(&mut state.pairs, |tally| tally.last.max(tally.closed_until));
        make_room(&mut state.addresses, |tally| tally.last.max(tally.closed_until));
        state.each(address, user, is_known, Some(now), |tally, free| tally.count(free, now));
        Judged::Wrong
    }

    /// How long attempts are not looked at. Counts nothing: for who is about to make one.
    pub fn closed_for(&self, address: IpAddr, user: Option<&str>, now: Instant) -> Option<Duration> {
        let state = &mut *self.0.lock();
        let is_known = user.is_some_and(|user| state.knows(address, user, now));
        let mut wait = Duration::ZERO;
        state.each(address, user, is_known, None, |tally, _| {
            wait = wait.max(tally.closed_until.saturating_duration_since(now));
        });
        (!wait.is_zero()).then_some(wait)
    }

    /// Whether a failed attempt may make an entry, and how many made none since the last.
    pub fn may_enter(&self, now: Instant) -> Option<u64> {
        let entries = &mut self.0.lock().entries;
        let since = *entries.since.get_or_insert(now);
        let again = now.saturating_duration_since(since).as_secs() / ENTRY_EVERY.as_secs();
        if again > 0 {
            entries.made = entries.made.saturating_sub(u32::try_from(again).unwrap_or(u32::MAX));
            entries.since = Some(now);
        }
        if entries.made >= ENTRIES_AT_ONCE {
            entries.left_out += 1;
            return None;
        }
        entries.made += 1;
        Some(std::mem::take(&mut entries.left_out))
    }
}

impl State {
    fn knows(&self, address: IpAddr, user: &str, now: Instant) -> bool {
        let at = self.known.get(&(Peer::plain(address), user.to_owned()));
        at.is_some_and(|at| now.saturating_duration_since(*at) < KNOWN_FOR)
    }

    /// Goes through the tallies that an attempt counts for, each with how many are free; `begin`: also those that are new.
    fn each(
        &mut self,
        address: IpAddr,
        user: Option<&str>,
        is_known: bool,
        begin: Option<Instant>,
        mut look: impl FnMut(&mut Tally, u32),
    ) {
        fn of<K: Hash + Eq>(all: &mut HashMap<K, Tally>, who: K, begin: Option<Instant>) -> Option<&mut Tally> {
            match begin {
                Some(now) => Some(all.entry(who).or_insert_with(|| Tally::new(now))),
                None => all.get_mut(&who),
            }
        }
        let whose = if is_known { Peer::plain(address) } else { Peer::whose(address) };
        if let Some(user) = user {
            of(&mut self.pairs, (whose, user.to_owned()), begin)
                .into_iter()
                .for_each(|tally| look(tally, FREE_OF_PAIR));
        }
        if is_known {
            return;
        }
        of(&mut self.addresses, whose, begin).into_iter().for_each(|tally| look(tally, FREE_OF_ADDRESS));
        if let Some(user) = user.filter(|_| !whose.is_loopback()) {
            of(&mut self.users, user.to_owned(), begin).into_iter().for_each(|tally| look(tally, FREE_OF_USER));
        }
    }
}

impl Tally {
    fn new(now: Instant) -> Tally {
        Tally { wrong: 0, last: now, closed_until: now, has_turned_away: false }
    }

    fn count(&mut self, free: u32, now: Instant) {
        if now.saturating_duration_since(self.last) >= FORGOTTEN_AFTER {
            self.wrong = 0;
        }
        self.wrong = self.wrong.saturating_add(1);
        self.last = now;
        // The last free one closes already, so that no more come than are free.
        if let Some(beyond) = self.wrong.checked_sub(free) {
            self.closed_until = now + PAUSE.saturating_mul(2u32.saturating_pow(beyond)).min(PAUSE_MAX);
            self.has_turned_away = false;
        }
    }
}

/// Forgets a part of what is remembered, where that is too much: looking for the oldest is not worth it each time.
fn make_room<K, V>(all: &mut HashMap<K, V>, at: impl Fn(&V) -> Instant) {
    if all.len() < REMEMBERED_MAX {
        return;
    }
    let mut times: Vec<Instant> = all.values().map(&at).collect();
    let place = times.len() / 4;
    let (_, oldest, _) = times.select_nth_unstable(place);
    let oldest = *oldest;
    all.retain(|_, value| at(value) > oldest);
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUESSER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 66));
    const DESK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7));

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn who_guesses_gets_few_attempts_a_day() {
        let (attempts, began) = (Attempts::default(), Instant::now());
        let (mut looked_at, mut first_ones) = (0, 0);
        for tenth in 0..24 * 3600 * 10 {
            let now = began + Duration::from_millis(tenth * 100);
            match attempts.judge(GUESSER, Some("ops"), false, now) {
                Judged::Wrong => looked_at += 1,
                Judged::TooEarly { wait, is_first } => {
                    assert!(wait <= PAUSE_MAX);
                    first_ones += u32::from(is_first);
                }
                Judged::Right { .. } => unreachable!(),
            }
        }
        assert!((1_400..1_500).contains(&looked_at), "{looked_at} in a day");
        assert!(first_ones <= looked_at, "each closing is said once");
    }

    #[test]
    fn a_right_password_is_not_told_from_a_wrong_one_that_comes_too_early() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        for _ in 0..FREE_OF_PAIR {
            assert_eq!(attempts.judge(GUESSER, Some("ops"), false, now), Judged::Wrong);
        }
        let early = |judged| matches!(judged, Judged::TooEarly { .. });
        assert!(early(attempts.judge(GUESSER, Some("ops"), true, now)));
        assert!(attempts.closed_for(GUESSER, Some("ops"), now).is_some());
        // Others behind that address come in, until they too tried for long.
        assert_eq!(attempts.judge(GUESSER, Some("another"), true, now), Judged::Right { is_new: true });
        for _ in 0..FREE_OF_ADDRESS {
            attempts.judge(GUESSER, None, false, now);
        }
        assert!(early(attempts.judge(GUESSER, Some("a third"), true, now)), "the address waits, whoever it names");
        assert_eq!(attempts.judge(GUESSER, Some("another"), true, now), Judged::Right { is_new: false });
        assert_eq!(attempts.judge(GUESSER, Some("ops"), true, now + secs(2)), Judged::Right { is_new: true });
    }

    #[test]
    fn nobody_locks_a_person_out_of_where_that_person_works() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        assert_eq!(attempts.judge(DESK, Some("ops"), true, now), Judged::Right { is_new: true });
        assert_eq!(attempts.judge(DESK, Some("ops"), true, now), Judged::Right { is_new: false });
        // From many addresses, and from the same one at another user.
        for n in 0..100 {
            let from = IpAddr::from([10, 1, 0, n]);
            attempts.judge(from, Some("ops"), false, now);
            attempts.judge(DESK, Some("admin"), false, now);
        }
        assert!(matches!(attempts.judge([10, 2, 0, 1].into(), Some("ops"), true, now), Judged::TooEarly { .. }));
        assert_eq!(attempts.judge(DESK, Some("ops"), true, now), Judged::Right { is_new: false });
        // Nor on the box itself, whoever tries from elsewhere.
        let here = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(attempts.judge(here, Some("ops"), true, now), Judged::Right { is_new: true });
        // Its own wrong ones count there too.
        for _ in 0..FREE_OF_PAIR {
            attempts.judge(DESK, Some("ops"), false, now);
        }
        assert!(matches!(attempts.judge(DESK, Some("ops"), true, now), Judged::TooEarly { .. }));
        // And a quarter of an hour later all is as before.
        let later = now + FORGOTTEN_AFTER;
        assert_eq!(attempts.judge(DESK, Some("ops"), false, later), Judged::Wrong);
        assert_eq!(attempts.judge(DESK, Some("ops"), true, later), Judged::Right { is_new: false });
    }

    #[test]
    fn what_is_remembered_and_listed_is_bounded() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        for n in 0..3 * REMEMBERED_MAX as u32 {
            let from = IpAddr::V4((0x0a00_0000 + n).into());
            attempts.judge(from, Some("ops"), false, now + Duration::from_millis(n.into()));
        }
        {
            let state = attempts.0.lock();
            assert!(state.pairs.len().max(state.addresses.len()) <= REMEMBERED_MAX);
        }
        assert!(attempts.closed_for([10, 200, 0, 1].into(), Some("ops"), now).is_some(), "the user is not forgotten");
        // One network is one address.
        let of = |text: &str| text.parse::<IpAddr>().unwrap();
        for n in 0..u64::from(FREE_OF_ADDRESS) {
            attempts.judge(of(&format!("2001:db8::{n}")), None, false, now);
        }
        let early = attempts.judge(of("2001:db8::ffff"), None, false, now);
        assert!(matches!(early, Judged::TooEarly { .. }), "{early:?}");
        // The whole loopback too, however it is written: who is on the box has all of its addresses.
        let on_box = Attempts::default();
        let here = |n: u32| match n % 3 {
            0 => IpAddr::V4((0x7f00_0000 + n * 257).into()),
            1 => of(&format!("::ffff:127.9.{}.{}", n / 256, n % 256)),
            _ => of("::1"),
        };
        let looked_at =
            (0..2_000).filter(|n| on_box.judge(here(*n), Some("boss"), false, now) == Judged::Wrong).count();
        assert_eq!(looked_at, FREE_OF_PAIR as usize);
        let guesses = (0..2_000).map(|n| on_box.judge(here(n), Some(&format!("user {n}")), false, now));
        let looked_at = guesses.filter(|judged| *judged == Judged::Wrong).count();
        assert_eq!(looked_at, (FREE_OF_ADDRESS - FREE_OF_PAIR) as usize);
        // But a neighbour is not known for somebody who came in.
        attempts.judge(of("2001:db8:1::1"), Some("boss"), true, now);
        assert!(!attempts.0.lock().knows(of("2001:db8:1::2"), "boss", now));

        let made = (0..1_000).filter(|_| attempts.may_enter(now).is_some()).count();
        assert_eq!(made, ENTRIES_AT_ONCE as usize);
        assert_eq!(attempts.may_enter(now + ENTRY_EVERY), Some(1_000 - made as u64));
    }
}
