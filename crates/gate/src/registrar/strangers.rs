//! What clients without a live session may have recorded. Each kind of attempt has a budget, for an
//! address and in all; what exceeds it is counted, and the counts are an entry.
//!
//! So nobody can fill the ledger's disk who has not signed in, nor hide one kind of attempt behind a
//! flood of another.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use curfew_entry::{Attempts, AttemptsSummarized, Event, RefusalCause, SessionId, Span, Timestamp};
use curfew_identity::rate::{Bucket, Networks, Rate, network_of};

/// Entries that one address may cause: 20 at once, then one every ten seconds.
const ADDRESS: Rate = Rate {
    interval: Span::from_secs(10),
    burst: 20,
};

/// Entries of one kind that all addresses together may cause: 100 at once, then one every two seconds.
/// Five kinds of 300 bytes each, with what a segment adds, are 65 MB a day at the most.
const ALL: Rate = Rate {
    interval: Span::from_secs(2),
    burst: 100,
};

/// The time between two summaries. What was counted since the last one is lost if the gateway is
/// killed. 1,440 entries a day of 300 bytes are 0.4 MB.
const SUMMARY_INTERVAL: Span = Span::from_secs(60);

/// Addresses that are told apart while they are counted: 4,096 of 17 bytes, about 200 kB with what a
/// set needs.
const ADDRESSES_MAX: usize = 4_096;

/// A kind of attempt that has a budget of its own.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Kind {
    /// A sign-in to an account that was looked at: somebody tries to get in there.
    LookedAt,
    /// Any other sign-in.
    SignIn,
    /// A further use of a credential whose session is over.
    AfterEnd,
    Unknown,
    Refused,
}

impl Kind {
    /// What an event is an attempt at, and from where; none for what takes a live session.
    fn of(event: &Event) -> Option<(Self, IpAddr)> {
        if let Event::SignInRefused {
            subject,
            cause,
            address,
        } = event
        {
            let looked_at = subject.is_some() && *cause != RefusalCause::TooManyAttempts;
            let kind = if looked_at {
                Self::LookedAt
            } else {
                Self::SignIn
            };
            Some((kind, *address))
        } else if let Event::SessionUsedAfterEnd { address, .. } = event {
            Some((Self::AfterEnd, *address))
        } else if let Event::CredentialUnknown { address, .. } = event {
            Some((Self::Unknown, *address))
        } else if let Event::CredentialRefused { address, .. } = event {
            Some((Self::Refused, *address))
        } else {
            None
        }
    }

    fn count(self, counts: &mut Attempts) -> &mut u64 {
        match self {
            Self::LookedAt | Self::SignIn => &mut counts.sign_in_refused,
            Self::AfterEnd => &mut counts.session_used_after_end,
            Self::Unknown => &mut counts.credential_unknown,
            Self::Refused => &mut counts.credential_refused,
        }
    }
}

/// What was counted since the last summary.
#[derive(Debug)]
pub(super) struct Counted {
    since: Timestamp,
    addresses: BTreeSet<IpAddr>,
    counts: Attempts,
}

/// The budget of all who have not signed in.
#[derive(Debug, Default)]
pub(crate) struct Strangers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    addresses: Networks,
    all: BTreeMap<Kind, Bucket>,
    /// Ended sessions of which it is recorded that they were used after their end. No more than the
    /// authority remembers.
    used: BTreeSet<SessionId>,
    /// When these were last looked through.
    looked_through: Timestamp,
    counted: Option<Counted>,
}

impl Strangers {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while holding the state leaves it whole: no more was counted than happened.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an event gets an entry of its own; one that does not is counted.
    ///
    /// The first use of a session after its end always does: it is an alarm, and there are no more of
    /// them than sessions.
    pub(super) fn admit(&self, event: &Event, now: Timestamp) -> bool {
        let Some((kind, address)) = Kind::of(event) else {
            return true;
        };
        let network = network_of(address);
        let mut state = self.state();
        if let Event::SessionUsedAfterEnd { session, .. } = event
            && !state.used.contains(session)
        {
            return true;
        }
        let own = state.addresses.bucket(network).take(ADDRESS, now);
        let admitted = own.and_then(|()| state.all.entry(kind).or_default().take(ALL, now));
        if admitted.is_err() {
            *kind.count(state.counts(network, now)) += 1;
        }
        admitted.is_ok()
    }

    /// Takes note of what has an entry.
    pub(super) fn recorded(&self, event: &Event) {
        if let Event::SessionUsedAfterEnd { session, .. } = event {
            self.state().used.insert(session.clone());
        }
    }

    /// Counts a device code that was not given out.
    pub(crate) fn refused_device(&self, address: IpAddr, now: Timestamp) {
        let mut state = self.state();
        state.counts(network_of(address), now).device_refused += 1;
    }

    /// Takes out what is to be told by now; at the end all there is.
    pub(super) fn take(&self, now: Timestamp, at_end: bool) -> Option<Counted> {
        let is_due = |counted: &mut Counted| {
            at_end || now.saturating_since(counted.since) >= SUMMARY_INTERVAL
        };
        self.state().counted.take_if(is_due)
    }

    /// Puts back what could not be told.
    pub(super) fn put_back(&self, untold: Counted) {
        let mut state = self.state();
        state.counted = Some(match state.counted.take() {
            None => untold,
            Some(newer) => untold.and(newer),
        });
    }

    /// Forgets the sessions that nobody remembers.
    pub(super) fn forget(&self, now: Timestamp, is_remembered: impl Fn(&SessionId) -> bool) {
        let mut state = self.state();
        if now.saturating_since(state.looked_through) >= SUMMARY_INTERVAL {
            state.looked_through = now;
            state.used.retain(is_remembered);
        }
    }
}

impl Counted {
    /// As the entry says it.
    pub(super) fn told(&self) -> AttemptsSummarized {
        AttemptsSummarized {
            since: self.since,
            addresses: u64::try_from(self.addresses.len()).unwrap_or(u64::MAX),
            counts: self.counts,
        }
    }

    fn and(mut self, newer: Self) -> Self {
        for network in newer.addresses {
            self.note(network);
        }
        self.counts = self.counts.and(newer.counts);
        self
    }

    fn note(&mut self, network: IpAddr) {
        if self.addresses.len() < ADDRESSES_MAX {
            self.addresses.insert(network);
        }
    }
}

impl State {
    fn counts(&mut self, network: IpAddr, now: Timestamp) -> &mut Attempts {
        let counted = self.counted.get_or_insert_with(|| Counted {
            since: now,
            addresses: BTreeSet::new(),
            counts: Attempts::default(),
        });
        counted.note(network);
        &mut counted.counts
    }
}
