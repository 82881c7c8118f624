//! Who may hold how many connections, so that nobody locks everybody else out.
//!
//! A connection begins as a stranger's and becomes a session's with the first request that is
//! permitted. Strangers have half of the places, and no address has more than half of those. When
//! they are all taken, whoever has been silent for longest gives way, and whoever comes waits for
//! that: a person's connection is a stranger's for as long as a handshake takes, one that only
//! occupies its place is silent. Sessions have three quarters of the places, each no more than its share; what goes
//! beyond stays among the strangers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use curfew_entry::SessionId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// All together; at least 2.
    pub all: usize,
    /// Of strangers from one address.
    pub per_address: usize,
    /// Of one session; what goes beyond stays among the strangers.
    pub per_session: usize,
}

/// How long a stranger may be silent when others want its place: before its first request longer
/// than the round trip of any line; between requests no longer than one, since nothing is lost
/// with it; and while it waits for an answer as long as a password takes to be checked.
const SILENCE: Duration = Duration::from_millis(500);
const SILENCE_IDLE: Duration = Duration::from_millis(100);
const SILENCE_WAITING: Duration = Duration::from_secs(2);

/// How long somebody waits for a place: until those who sit there have changed sixteen times.
const WAIT: Duration = Duration::from_secs(8);

/// How often those who wait look for a place. A thousand of them take 10,000 looks a second, a few
/// milliseconds of work.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What counts as one client: an IPv4 address, or an IPv6 /64, since whoever has one address of
/// it has them all.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Network(IpAddr);

impl Network {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(six) => {
                let [a, b, c, d, ..] = six.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            four @ IpAddr::V4(_) => four,
        })
    }
}

/// The places of one listener.
#[derive(Debug)]
pub struct Seats {
    max: usize,
    strangers_max: usize,
    per_network_max: usize,
    known_max: usize,
    per_session_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// By number, so the oldest comes first.
    strangers: BTreeMap<u64, Stranger>,
    by_network: BTreeMap<Network, BTreeSet<u64>>,
    by_session: BTreeMap<SessionId, usize>,
    /// Of sessions and proxies.
    known: usize,
    /// Those who wait for a place.
    waiting: usize,
}

#[derive(Debug)]
struct Stranger {
    network: Network,
    signs: Arc<Signs>,
    gives_way: CancellationToken,
}

/// The signs of life of a connection.
#[derive(Debug)]
struct Signs {
    start: Instant,
    /// Milliseconds after `start` at which bytes last came or a request was last answered.
    heard: AtomicU64,
    /// It has got through the handshake.
    entered: AtomicBool,
    /// Requests that are not yet answered to the end.
    open: AtomicUsize,
    /// Those of them that have come to their end.
    waiting: AtomicUsize,
}

impl Signs {
    fn new(now: Instant) -> Self {
        Self {
            start: now,
            heard: AtomicU64::new(0),
            entered: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
        }
    }

    fn heard(&self) {
        let after = self.start.elapsed().as_millis();
        let after = u64::try_from(after).unwrap_or(u64::MAX);
        self.heard.store(after, Ordering::Relaxed);
    }

    /// For how long it has been silent, where that is longer than it may be.
    fn silent(&self, now: Instant) -> Option<Duration> {
        let heard = self.start + Duration::from_millis(self.heard.load(Ordering::Relaxed));
        let silent = now.saturating_duration_since(heard);
        let some = |count: &AtomicUsize| count.load(Ordering::Relaxed) > 0;
        let allowed = if some(&self.waiting) {
            SILENCE_WAITING
        } else if some(&self.open) || !self.entered.load(Ordering::Relaxed) {
            SILENCE
        } else {
            SILENCE_IDLE
        };
        (silent >= allowed).then_some(silent)
    }
}

/// One connection's place, for as long as a clone of this is held.
#[derive(Clone, Debug)]
pub struct Seat(Arc<Held>);

#[derive(Debug)]
struct Held {
    network: Network,
    signs: Arc<Signs>,
    seats: Arc<Seats>,
    gives_way: CancellationToken,
    owner: Mutex<Owner>,
}

/// Somebody who waits for a place.
struct Waiting(Arc<Seats>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.taken().waiting -= 1;
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Owner {
    /// By its number among them.
    Stranger(u64),
    Session(SessionId),
    /// A trusted proxy, whose connections carry many people's requests.
    Proxy,
}

/// A request that is not yet answered to the end.
#[derive(Clone, Debug)]
pub struct OpenRequest(Arc<Request>);

#[derive(Debug)]
struct Request {
    signs: Arc<Signs>,
    whole: AtomicBool,
}

impl OpenRequest {
    /// All of it has come: now it waits for its answer.
    pub fn received(&self) {
        if !self.0.whole.swap(true, Ordering::Relaxed) {
            self.0.signs.waiting.fetch_add(1, Ordering::Relaxed);
            self.0.signs.heard();
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if *self.whole.get_mut() {
            self.signs.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        self.signs.open.fetch_sub(1, Ordering::Relaxed);
        self.signs.heard();
    }
}

impl Seats {
    /// As many as the configuration says.
    pub fn new(places: Places) -> Arc<Self> {
        let max = places.all.max(2);
        let strangers_max = max / 2;
        Arc::new(Self {
            max,
            strangers_max,
            per_network_max: places.per_address.clamp(1, (strangers_max / 2).max(1)),
            known_max: max - (max / 4).max(1),
            per_session_max: places.per_session.max(1),
            taken: Mutex::default(),
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // A panic there leaves a count too high at worst.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from `address`, as soon as there is one. None where too many wait
    /// already, or it takes too long. `proxy`: it carries the requests of many.
    pub async fn find(self: &Arc<Self>, address: IpAddr, proxy: bool) -> Option<Seat> {
        let until = Instant::now() + WAIT;
        let mut waiting = None;
        loop {
            let seat = self.take(address, proxy);
            if seat.is_some() || Instant::now() >= until {
                return seat;
            }
            if waiting.is_none() {
                waiting = Some(self.wait()?);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// As many may wait as may sit. Who waits has no more than a socket.
    fn wait(self: &Arc<Self>) -> Option<Waiting> {
        let mut taken = self.taken();
        if taken.waiting >= self.max {
            return None;
        }
        taken.waiting += 1;
        Some(Waiting(Arc::clone(self)))
    }

    /// A place for a connection from `address`; none where nobody gives way.
    fn take(self: &Arc<Self>, address: IpAddr, proxy: bool) -> Option<Seat> {
        self.take_at(address, proxy, Instant::now())
    }

    fn take_at(self: &Arc<Self>, address: IpAddr, proxy: bool, now: Instant) -> Option<Seat> {
        let network = Network::of(address);
        let mut taken = self.taken();
        let gives_way = CancellationToken::new();
        let signs = Arc::new(Signs::new(now));
        let owner = if proxy {
            if taken.known >= self.known_max {
                return None;
            }
            taken.known += 1;
            Owner::Proxy
        } else {
            let of_network = taken.by_network.get(&network);
            if of_network.is_some_and(|held| held.len() >= self.per_network_max) {
                taken.make_room(Some(network), now)?;
            }
            let full = taken.strangers.len() >= self.strangers_max
                || taken.strangers.len() + taken.known >= self.max;
            if full {
                taken.make_room(None, now)?;
            }
            Owner::Stranger(taken.admit(network, Arc::clone(&signs), gives_way.clone()))
        };
        drop(taken);
        Some(Seat(Arc::new(Held {
            network,
            signs,
            seats: Arc::clone(self),
            gives_way,
            owner: Mutex::new(owner),
        })))
    }
}

impl Taken {
    fn admit(&mut self, network: Network, signs: Arc<Signs>, gives_way: CancellationToken) -> u64 {
        let number = self.next;
        self.next += 1;
        let stranger = Stranger {
            network,
            signs,
            gives_way,
        };
        self.strangers.insert(number, stranger);
        self.by_network.entry(network).or_default().insert(number);
        number
    }

    fn dismiss(&mut self, number: u64) -> Option<Stranger> {
        let stranger = self.strangers.remove(&number)?;
        if let Some(held) = self.by_network.get_mut(&stranger.network) {
            held.remove(&number);
            if held.is_empty() {
                self.by_network.remove(&stranger.network);
            }
        }
        Some(stranger)
    }

    /// Has the stranger give way that has been silent for longest, of one network or of all.
    fn make_room(&mut self, network: Option<Network>, now: Instant) -> Option<()> {
        let silent = |number: &u64| {
            let stranger = self.strangers.get(number)?;
            Some((stranger.signs.silent(now)?, Reverse(*number)))
        };
        let longest = match network {
            Some(network) => self
                .by_network
                .get(&network)?
                .iter()
                .filter_map(silent)
                .max(),
            None => self.strangers.keys().filter_map(silent).max(),
        };
        let (_, Reverse(number)) = longest?;
        self.dismiss(number)?.gives_way.cancel();
        Some(())
    }

    fn leave_session(&mut self, session: &SessionId) {
        self.known = self.known.saturating_sub(1);
        if let Some(count) = self.by_session.get_mut(session) {
            *count -= 1;
            if *count == 0 {
                self.by_session.remove(session);
            }
        }
    }
}

impl Seat {
    /// The connection has to end: somebody else needs its place.
    pub fn gives_way(&self) -> &CancellationToken {
        &self.0.gives_way
    }

    /// Bytes have come.
    pub fn heard(&self) {
        self.0.signs.heard();
    }

    /// The handshake is over.
    pub fn enter(&self) {
        self.0.signs.entered.store(true, Ordering::Relaxed);
        self.heard();
    }

    /// A request has begun, and is open for as long as what is returned is held.
    pub fn begin(&self, bodied: bool) -> OpenRequest {
        self.0.signs.open.fetch_add(1, Ordering::Relaxed);
        self.heard();
        let request = OpenRequest(Arc::new(Request {
            signs: Arc::clone(&self.0.signs),
            whole: AtomicBool::new(false),
        }));
        if !bodied {
            request.received();
        }
        request
    }

    fn owner(&self) -> MutexGuard<'_, Owner> {
        self.0.owner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request on it was permitted to this session.
    pub fn known(&self, session: &SessionId) {
        let mut owner = self.owner();
        match &*owner {
            Owner::Session(held) if held == session => return,
            Owner::Proxy => return,
            Owner::Session(_) | Owner::Stranger(_) => {}
        }
        let mut taken = self.0.seats.taken();
        let count = taken.by_session.get(session).copied().unwrap_or_default();
        if count >= self.0.seats.per_session_max {
            return;
        }
        match &*owner {
            Owner::Session(other) => taken.leave_session(other),
            // Too late: it is giving way.
            Owner::Stranger(number) if !taken.strangers.contains_key(number) => return,
            Owner::Stranger(_) if taken.known >= self.0.seats.known_max => return,
            Owner::Stranger(number) => {
                taken.dismiss(*number);
            }
            Owner::Proxy => return,
        }
        taken.known += 1;
        *taken.by_session.entry(session.clone()).or_default() += 1;
        *owner = Owner::Session(session.clone());
    }

    /// A request on it showed a session that is none, or no longer one.
    pub fn unknown(&self) {
        let mut owner = self.owner();
        if let Owner::Session(session) = &*owner {
            let mut taken = self.0.seats.taken();
            taken.leave_session(session);
            let (signs, gives_way) = (Arc::clone(&self.0.signs), self.0.gives_way.clone());
            let number = taken.admit(self.0.network, signs, gives_way);
            *owner = Owner::Stranger(number);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        match self.owner.get_mut().unwrap_or_else(PoisonError::into_inner) {
            Owner::Stranger(number) => {
                // Gone already where it gave way.
                taken.dismiss(*number);
            }
            Owner::Session(session) => taken.leave_session(session),
            Owner::Proxy => taken.known = taken.known.saturating_sub(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(max: usize, per_address: usize, per_session: usize) -> Arc<Seats> {
        Seats::new(Places {
            all: max,
            per_address,
            per_session,
        })
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// Seats, and the time at which they are taken.
    struct Room(Arc<Seats>, Instant);

    impl Room {
        fn new(max: usize, per_address: usize, per_session: usize) -> Self {
            Self(seats(max, per_address, per_session), Instant::now())
        }

        fn take(&self, address: IpAddr) -> Option<Seat> {
            self.0.take_at(address, false, self.1)
        }

        /// Everybody has been silent for too long.
        fn pass(&mut self) {
            self.1 += SILENCE;
        }
    }

    #[test]
    fn one_address_never_takes_the_places_of_others() {
        let mut room = Room::new(40, 100, 100);
        let mine: Vec<Seat> = (0..10).map_while(|_| room.take(address(1))).collect();
        assert_eq!(mine.len(), 10, "half of the strangers' places");
        assert!(
            room.take(address(1)).is_none(),
            "nobody has been silent yet"
        );
        assert!(room.take(address(2)).is_some());
        room.pass();
        // Its own gives way that was silent for longest, nobody else's.
        assert!(room.take(address(1)).is_some());
        assert!(mine[0].gives_way().is_cancelled());
        assert!(
            mine[1..]
                .iter()
                .all(|seat| !seat.gives_way().is_cancelled())
        );
    }

    #[tokio::test]
    async fn whoever_finds_no_place_waits_until_somebody_has_been_silent() {
        let seats = seats(8, 100, 100);
        let _first = seats.take(address(1), false).unwrap();
        let _second = seats.take(address(1), false).unwrap();
        let start = Instant::now();
        let find = || seats.find(address(1), false);
        let (a, b, c) = tokio::join!(find(), find(), find());
        assert!(a.is_some() && b.is_some() && c.is_some());
        assert!(start.elapsed() >= SILENCE && start.elapsed() < WAIT);
        assert_eq!(seats.taken().waiting, 0);
    }

    #[test]
    fn those_whom_curfew_keeps_waiting_are_not_silent() {
        let mut room = Room::new(8, 100, 100);
        let asked = room.take(address(1)).unwrap();
        asked.enter();
        let form = room.take(address(1)).unwrap();
        form.enter();
        let (_open, half) = (asked.begin(false), form.begin(true));
        room.pass();
        // The form that does not come gives way, the question that waits for its answer does not.
        assert!(room.take(address(1)).is_some());
        assert!(form.gives_way().is_cancelled() && !asked.gives_way().is_cancelled());
        half.received();
        drop(half);
        assert_eq!(form.0.signs.waiting.load(Ordering::Relaxed), 0);
        assert_eq!(form.0.signs.open.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_address_of_version_six_counts_with_its_64() {
        let room = Room::new(8, 100, 100);
        let six = |last: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 7, 0, 0, 0, last));
        let _first = room.take(six(1)).unwrap();
        let _second = room.take(six(2)).unwrap();
        assert!(room.take(six(3)).is_none());
        let other = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 8, 0, 0, 0, 1));
        assert!(room.take(other).is_some());
        // An IPv4 address in IPv6 is the IPv4 address.
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(Network::of(mapped), Network::of(address(1)));
    }

    #[test]
    fn sessions_keep_their_places_while_strangers_come_and_go() {
        let mut room = Room::new(20, 100, 3);
        let session = crate::secret::session_id().unwrap();
        let known: Vec<Seat> = (0..3).map(|_| room.take(address(1)).unwrap()).collect();
        known.iter().for_each(|seat| seat.known(&session));
        let beyond = room.take(address(1)).unwrap();
        beyond.known(&session);
        // Twenty botnets' worth of strangers.
        let mut held = Vec::new();
        for last in 0..100 {
            room.pass();
            held.push(room.take(address(last)).unwrap());
        }
        assert!(known.iter().all(|seat| !seat.gives_way().is_cancelled()));
        assert!(beyond.gives_way().is_cancelled(), "more than its share");
        let lively = held.iter().filter(|seat| !seat.gives_way().is_cancelled());
        assert_eq!(lively.count(), 10);
        // Ended, it is a stranger's again.
        known[0].unknown();
        drop(held);
        for last in 0..10 {
            room.pass();
            let seat = room.take(address(last)).unwrap();
            std::mem::forget(seat);
        }
        assert!(known[0].gives_way().is_cancelled());
    }

    #[test]
    fn sessions_leave_room_for_those_who_are_not_signed_in_yet() {
        let mut room = Room::new(8, 100, 100);
        let mut known = Vec::new();
        for last in 0..20 {
            room.pass();
            let seat = room.take(address(last)).unwrap();
            seat.known(&crate::secret::session_id().unwrap());
            known.push(seat);
        }
        let lively = known.iter().filter(|seat| !seat.gives_way().is_cancelled());
        assert_eq!(lively.count(), 8);
        drop(known);
        assert_eq!(room.0.taken().known, 0);
        assert!(room.0.taken().by_session.is_empty() && room.0.taken().by_network.is_empty());
    }

    #[test]
    fn a_proxys_connections_are_nobodys_share() {
        let seats = seats(40, 1, 1);
        let proxied: Vec<Seat> = (0..50)
            .map_while(|_| seats.take(address(1), true))
            .collect();
        assert_eq!(proxied.len(), 30);
        assert_eq!(seats.taken().waiting, 0);
        proxied[0].known(&crate::secret::session_id().unwrap());
        proxied[0].unknown();
        drop(proxied);
        assert_eq!(seats.taken().known, 0);
    }
}
