//! Device codes (RFC 8628): what waits between the CLI that asks and the browser that approves.
//!
//! In memory only, bounded, and only as digests: after a restart the CLI simply asks again.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use curfew_entry::{SessionId, Span, Timestamp};
use curfew_identity::rate::network_of;
use sha2::{Digest, Sha256};

use curfew_gate::secret::{MasterKey, SecretError, random};

/// How long a code can be approved (ASVS 10.4.3: at most 10 minutes).
pub(crate) const LIFE: Span = Span::from_secs(600);

/// The pause between two polls that the CLI is told, in seconds (RFC 8628 section 3.2).
pub(crate) const INTERVAL_SECS: u64 = 5;

/// What a poll that comes too soon adds to the pause, in seconds (RFC 8628 section 3.5).
const SLOW_DOWN_SECS: u64 = 5;

/// The longest pause. A client that never slows down is told the same from here on.
const INTERVAL_SECS_MAX: u64 = 60;

/// Codes that wait at once: 1,024 of about 250 bytes are 256 kB. With 20^8 user codes, a guess
/// hits one with a chance of 1 in 25 million.
const WAITING_MAX: usize = 1_024;

/// Codes that one address, or IPv6 /64, may have waiting, so that nobody can take all of
/// [`WAITING_MAX`].
const WAITING_PER_ADDRESS_MAX: usize = 16;

/// Wrong user codes that one session may enter within [`LIFE`]. Together with the chance above:
/// a session finds a foreign code with a chance of 1 in 2.5 million.
const MISSES_MAX: u32 = 10;

/// Sessions whose misses are counted at once: 4,096 of about 100 bytes.
const MISSERS_MAX: usize = 4_096;

/// Consonants without look-alikes (RFC 8628 section 6.1): no words, no 0/O, no vowels.
const ALPHABET: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

/// Letters in a user code: 20^8 is 2.6 × 10^10.
const USER_CODE_LETTERS: usize = 8;

/// The code a person compares or types: eight letters, written `XXXX-XXXX`.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct UserCode([u8; USER_CODE_LETTERS]);

impl UserCode {
    /// A fresh one.
    pub(crate) fn fresh() -> Result<Self, SecretError> {
        let mut letters = [0; USER_CODE_LETTERS];
        for letter in &mut letters {
            *letter = fresh_letter()?;
        }
        Ok(Self(letters))
    }

    /// What somebody typed: any case, with or without dashes and spaces.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        // Twice the written form leaves room for spaces, and none for long nonsense.
        if text.len() > 2 * (USER_CODE_LETTERS + 1) {
            return None;
        }
        let letters: Vec<u8> = text
            .bytes()
            .filter(|byte| !matches!(byte, b'-' | b' '))
            .map(|byte| byte.to_ascii_uppercase())
            .collect();
        let letters: [u8; USER_CODE_LETTERS] = letters.try_into().ok()?;
        letters
            .iter()
            .all(|letter| ALPHABET.contains(letter))
            .then_some(Self(letters))
    }

    /// What is kept of it. Keyed, because eight letters alone could be found by trying.
    pub(crate) fn digest(&self, master: &MasterKey) -> [u8; 32] {
        *master.derive("device-user-code", &self.0)
    }
}

/// One letter, each as likely as any other.
fn fresh_letter() -> Result<u8, SecretError> {
    // 240 is the largest multiple of 20 in a byte; what lies above would favour the first letters.
    loop {
        let [byte] = random::<1>()?;
        if let (true, Some(letter)) = (byte < 240, ALPHABET.get(usize::from(byte % 20))) {
            return Ok(*letter);
        }
    }
}

impl fmt::Display for UserCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, letter) in self.0.iter().enumerate() {
            if at == USER_CODE_LETTERS / 2 {
                f.write_str("-")?;
            }
            write!(f, "{}", char::from(*letter))?;
        }
        Ok(())
    }
}

impl fmt::Debug for UserCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserCode")
    }
}

/// SHA-256 of a device code, which has 256 bits of its own.
pub(crate) fn device_digest(code: &str) -> [u8; 32] {
    Sha256::digest(code.as_bytes()).into()
}

/// What the person who approves is shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Request {
    /// From where the code was asked for.
    pub(crate) address: IpAddr,
    /// When.
    pub(crate) made: Timestamp,
}

/// What a person decided.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Choice {
    /// The CLI may act in this session.
    Approve(SessionId),
    /// It may not.
    Deny,
}

/// What a poll is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Poll {
    /// Nobody has decided yet.
    Pending,
    /// Nobody has decided yet, and the poll came too soon.
    SlowDown,
    /// Somebody said no.
    Denied,
    /// Nobody decided in time.
    Expired,
    /// No such code, or it has been used.
    Unknown,
    /// Somebody said yes, in this session. The code is used up.
    Approved(SessionId),
}

/// Too many codes of this address are waiting.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Full;

/// Too many wrong codes were entered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct TooManyMisses;

#[derive(Debug)]
struct Waiting {
    user: [u8; 32],
    request: Request,
    interval_secs: u64,
    polled: Option<Timestamp>,
    choice: Option<Choice>,
}

impl Waiting {
    fn is_over(&self, now: Timestamp) -> bool {
        self.request.made.saturating_add(LIFE) <= now
    }
}

#[derive(Debug, Default)]
struct State {
    /// By the digest of the device code.
    waiting: BTreeMap<[u8; 32], Waiting>,
    /// Wrong codes entered, and since when they are counted.
    misses: BTreeMap<SessionId, (u32, Timestamp)>,
}

/// All codes that wait.
#[derive(Debug, Default)]
pub(crate) struct DeviceCodes(Mutex<State>);

impl DeviceCodes {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while holding the state leaves it whole: each change is one insert or remove.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a new pair of codes. Where there is no room for one more, it takes the place of the
    /// oldest that nobody has decided on, of whichever address has most: its address is given back.
    pub(crate) fn open(
        &self,
        device: [u8; 32],
        user: [u8; 32],
        address: IpAddr,
        now: Timestamp,
    ) -> Result<Option<IpAddr>, Full> {
        let mut state = self.state();
        // What ran out stays for one more life, so that its CLI is told so.
        state
            .waiting
            .retain(|_, one| now < one.request.made.saturating_add(LIFE).saturating_add(LIFE));
        let network = network_of(address);
        let own = |one: &&Waiting| network_of(one.request.address) == network && !one.is_over(now);
        let crowded = state.waiting.values().filter(own).count() >= WAITING_PER_ADDRESS_MAX
            || state.waiting.values().any(|one| one.user == user);
        if crowded {
            return Err(Full);
        }
        let evicted = state.make_room(now);
        let request = Request { address, made: now };
        let waiting = Waiting {
            user,
            request,
            interval_secs: INTERVAL_SECS,
            polled: None,
            choice: None,
        };
        state.waiting.insert(device, waiting);
        Ok(evicted)
    }

    /// The undecided request behind a user code that this session entered.
    pub(crate) fn find(
        &self,
        user: &[u8; 32],
        by: &SessionId,
        now: Timestamp,
    ) -> Result<Option<Request>, TooManyMisses> {
        let mut state = self.state();
        if state.missed(by, now) >= MISSES_MAX {
            return Err(TooManyMisses);
        }
        let found = state
            .waiting
            .values()
            .find(|one| one.user == *user && one.choice.is_none() && !one.is_over(now))
            .map(|one| one.request);
        if found.is_none() {
            state.miss(by, now);
        }
        Ok(found)
    }

    /// Notes what a person decided. False where there is nothing to decide any more.
    pub(crate) fn decide(&self, user: &[u8; 32], choice: Choice, now: Timestamp) -> bool {
        let mut state = self.state();
        let undecided = state
            .waiting
            .values_mut()
            .find(|one| one.user == *user && one.choice.is_none() && !one.is_over(now));
        match undecided {
            Some(one) => {
                one.choice = Some(choice);
                true
            }
            None => false,
        }
    }

    /// Whether just this was decided: the same form came twice.
    pub(crate) fn is_decided(&self, user: &[u8; 32], choice: &Choice) -> bool {
        let state = self.state();
        let decided = |one: &Waiting| one.user == *user && one.choice.as_ref() == Some(choice);
        state.waiting.values().any(decided)
    }

    /// Answers the CLI's poll. An approval is handed out once.
    pub(crate) fn poll(&self, device: &[u8; 32], now: Timestamp) -> Poll {
        let mut state = self.state();
        let Some(one) = state.waiting.get_mut(device) else {
            return Poll::Unknown;
        };
        if one.is_over(now) {
            return Poll::Expired;
        }
        let pause = Span::from_secs(one.interval_secs);
        let early = one
            .polled
            .is_some_and(|last| now.saturating_since(last) < pause);
        one.polled = Some(now);
        if early {
            one.interval_secs = (one.interval_secs + SLOW_DOWN_SECS).min(INTERVAL_SECS_MAX);
        }
        match one.choice.clone() {
            None if early => Poll::SlowDown,
            None => Poll::Pending,
            Some(choice) => {
                state.waiting.remove(device);
                match choice {
                    Choice::Approve(session) => Poll::Approved(session),
                    Choice::Deny => Poll::Denied,
                }
            }
        }
    }
}

impl State {
    /// Leaves room for one more. Those that ran out go first.
    fn make_room(&mut self, now: Timestamp) -> Option<IpAddr> {
        if self.waiting.len() < WAITING_MAX {
            return None;
        }
        let mut of: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for one in self.waiting.values() {
            *of.entry(network_of(one.request.address)).or_default() += 1;
        }
        let rank = |one: &Waiting| {
            let waits = !one.is_over(now);
            let others = of.get(&network_of(one.request.address)).copied();
            let fewer = usize::MAX - others.unwrap_or_default();
            (
                waits && one.choice.is_some(),
                waits,
                fewer,
                one.request.made,
            )
        };
        let first = self.waiting.iter().min_by_key(|(_, one)| rank(one));
        let device = first.map(|(device, _)| *device)?;
        let gone = self.waiting.remove(&device)?;
        (!gone.is_over(now)).then_some(gone.request.address)
    }

    fn missed(&self, by: &SessionId, now: Timestamp) -> u32 {
        self.misses
            .get(by)
            .filter(|(_, since)| now < since.saturating_add(LIFE))
            .map_or(0, |(count, _)| *count)
    }

    fn miss(&mut self, by: &SessionId, now: Timestamp) {
        let count = self.missed(by, now).saturating_add(1);
        if self.misses.len() >= MISSERS_MAX {
            self.misses
                .retain(|_, (_, since)| now < since.saturating_add(LIFE));
        }
        // Where even that leaves no room, the one counted for the longest makes way.
        if self.misses.len() >= MISSERS_MAX {
            let oldest = self.misses.iter().min_by_key(|(_, (_, since))| *since);
            if let Some(oldest) = oldest.map(|(session, _)| session.clone()) {
                self.misses.remove(&oldest);
            }
        }
        let since = match self.misses.get(by) {
            Some((_, since)) if now < since.saturating_add(LIFE) => *since,
            Some(_) | None => now,
        };
        self.misses.insert(by.clone(), (count, since));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: [u8; 32] = [1; 32];
    const USER: [u8; 32] = [2; 32];

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_micros(secs * 1_000_000)
    }

    fn session(byte: u8) -> SessionId {
        SessionId::from_random([byte; 12])
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn a_user_code_is_read_however_it_is_typed() {
        for text in ["BCDF-GHJK", "bcdfghjk", " bcdf ghjk ", "b-c-d-f-g-h-j-k"] {
            assert_eq!(UserCode::parse(text).unwrap().to_string(), "BCDF-GHJK");
        }
        let long = "B".repeat(100);
        for text in [
            "",
            "BCDF-GHJ",
            "BCDF-GHJKL",
            "ACDF-GHJK",
            "BCDF_GHJK",
            "ÄCDFGHJK",
            &long,
        ] {
            assert!(UserCode::parse(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn fresh_user_codes_use_the_whole_alphabet_and_nothing_else() {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let code = UserCode::fresh().unwrap();
            assert_eq!(UserCode::parse(&code.to_string()), Some(code.clone()));
            seen.extend(code.0);
        }
        assert_eq!(seen.len(), ALPHABET.len());
    }

    #[test]
    fn an_approval_is_handed_out_once() {
        let codes = DeviceCodes::default();
        codes.open(DEVICE, USER, address(1), at(0)).unwrap();
        assert_eq!(codes.poll(&DEVICE, at(5)), Poll::Pending);
        let shown = codes.find(&USER, &session(1), at(6)).unwrap().unwrap();
        assert_eq!((shown.address, shown.made), (address(1), at(0)));
        assert!(codes.decide(&USER, Choice::Approve(session(1)), at(7)));
        assert!(!codes.decide(&USER, Choice::Deny, at(8)), "decided once");
        assert_eq!(
            codes.find(&USER, &session(1), at(8)),
            Ok(None),
            "shown no more"
        );
        assert_eq!(codes.poll(&DEVICE, at(10)), Poll::Approved(session(1)));
        assert_eq!(codes.poll(&DEVICE, at(20)), Poll::Unknown, "single use");
    }

    #[test]
    fn a_denial_and_a_late_answer_open_nothing() {
        let codes = DeviceCodes::default();
        codes.open(DEVICE, USER, address(1), at(0)).unwrap();
        assert!(codes.decide(&USER, Choice::Deny, at(1)));
        assert_eq!(codes.poll(&DEVICE, at(5)), Poll::Denied);

        codes.open(DEVICE, USER, address(1), at(0)).unwrap();
        assert!(codes.decide(&USER, Choice::Approve(session(1)), at(599)));
        assert_eq!(codes.poll(&DEVICE, at(600)), Poll::Expired);
        assert!(!codes.decide(&USER, Choice::Deny, at(600)));
        assert_eq!(codes.poll(&[9; 32], at(5)), Poll::Unknown);
    }

    #[test]
    fn who_polls_too_soon_is_slowed_down_more_and_more() {
        let codes = DeviceCodes::default();
        codes.open(DEVICE, USER, address(1), at(0)).unwrap();
        assert_eq!(codes.poll(&DEVICE, at(1)), Poll::Pending);
        assert_eq!(codes.poll(&DEVICE, at(5)), Poll::SlowDown);
        assert_eq!(codes.poll(&DEVICE, at(14)), Poll::SlowDown, "now 10 s");
        assert_eq!(codes.poll(&DEVICE, at(29)), Poll::Pending, "now 15 s");
    }

    #[test]
    fn no_address_can_take_all_codes_and_old_ones_make_way() {
        let codes = DeviceCodes::default();
        let open = |n: usize, last: u8, now| {
            let device = device_digest(&format!("d{n}"));
            let user = device_digest(&format!("u{n}"));
            codes.open(device, user, address(last), now)
        };
        for n in 0..WAITING_PER_ADDRESS_MAX {
            open(n, 1, at(0)).unwrap();
        }
        assert_eq!(open(100, 1, at(0)), Err(Full));
        open(101, 2, at(0)).unwrap();
        assert_eq!(
            open(101, 3, at(0)),
            Err(Full),
            "a user code is never there twice"
        );
        open(100, 1, at(1_200)).unwrap();
        assert_eq!(codes.state().waiting.len(), 1);
    }

    #[test]
    fn a_flood_of_codes_takes_the_place_of_its_own() {
        let codes = DeviceCodes::default();
        let open = |n: usize, address: IpAddr| {
            let device = device_digest(&format!("d{n}"));
            codes.open(device, device_digest(&format!("u{n}")), address, at(0))
        };
        let v6 = |network: usize, host: usize| -> IpAddr {
            format!("2001:db8:0:{network:x}::{host:x}").parse().unwrap()
        };
        // One customer has many addresses, and one share.
        for n in 0..WAITING_PER_ADDRESS_MAX {
            open(n, v6(0, n)).unwrap();
        }
        assert_eq!(open(9_999, v6(0, 9_999)), Err(Full));
        open(10_000, address(1)).unwrap();
        let mut evicted = 0;
        for n in 100..100 + 2 * WAITING_MAX {
            if let Some(of) = open(n, v6(1 + n / 8, n)).unwrap() {
                assert_ne!(of, address(1), "whoever has one code keeps it");
                evicted += 1;
            }
        }
        assert_eq!(codes.state().waiting.len(), WAITING_MAX);
        let opened = 2 * WAITING_MAX + WAITING_PER_ADDRESS_MAX + 1;
        assert_eq!(evicted, opened - WAITING_MAX);
        assert_eq!(codes.poll(&device_digest("d10000"), at(1)), Poll::Pending);
    }

    #[test]
    fn guessing_is_stopped() {
        let codes = DeviceCodes::default();
        codes.open(DEVICE, USER, address(1), at(0)).unwrap();
        for _ in 0..MISSES_MAX {
            assert_eq!(codes.find(&[7; 32], &session(1), at(1)), Ok(None));
        }
        assert_eq!(codes.find(&USER, &session(1), at(2)), Err(TooManyMisses));
        assert!(
            codes.find(&USER, &session(2), at(2)).unwrap().is_some(),
            "others go on"
        );
        assert_eq!(
            codes.find(&[7; 32], &session(1), at(601)),
            Ok(None),
            "for a while"
        );
    }
}
