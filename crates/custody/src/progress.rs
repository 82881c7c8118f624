//! How far one that follows the log has come: a receiver, the archive, the witnesses, the timestamping
//! authority.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use curfew_entry::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// What kind of follower.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A receiver of OTLP.
    Otlp,
    /// A receiver of syslog.
    Syslog,
    /// The archive.
    Archive,
    /// The witnesses, as far as a quorum has cosigned.
    Witnesses,
    /// The timestamping authority.
    Timestamps,
}

impl Kind {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Otlp => "otlp",
            Self::Syslog => "syslog",
            Self::Archive => "archive",
            Self::Witnesses => "witnesses",
            Self::Timestamps => "timestamps",
        }
    }
}

/// Why a follower does not get on.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Failing {
    /// Since when it has failed, each time it was tried.
    pub since: Timestamp,
    /// The last error: for whoever may see the portal's log page what kind of one, for the operator
    /// of the host in full.
    pub error: String,
}

/// One follower.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Follower {
    /// What it is.
    pub kind: Kind,
    /// The name of a receiver; of others, the same as the kind.
    pub name: String,
    /// It has acknowledged all entries below this index. None while that is not known yet.
    pub has: Option<u64>,
    /// Signed entries that it has not acknowledged.
    pub lacks: Option<u64>,
    /// When the oldest of these was recorded.
    pub since: Option<Timestamp>,
    /// Why it does not get on; none where nothing stands in the way, as far as is known.
    pub failing: Option<Failing>,
}

/// Who reads a status.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reader {
    /// Somebody with a shell on the host.
    Operator,
    /// Somebody with a session that may read the log.
    Session,
}

/// How far one follower has come. Written by its own task, read by whoever looks.
#[derive(Debug)]
pub struct Progress {
    kind: Kind,
    name: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    has: Option<u64>,
    failing: Option<Trouble>,
}

#[derive(Clone, Debug)]
struct Trouble {
    since: Instant,
    /// For whoever has a session.
    told: &'static str,
    /// For the operator.
    text: String,
}

impl Progress {
    /// Of a follower that has got so far, where that is known.
    #[must_use]
    pub fn new(kind: Kind, name: &str, has: Option<u64>) -> Arc<Self> {
        let state = Mutex::new(State { has, failing: None });
        let name = name.to_owned();
        Arc::new(Self { kind, name, state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It has acknowledged everything below this index; 0 while that is not known.
    pub fn has(&self) -> u64 {
        self.state().has.unwrap_or(0)
    }

    /// It has acknowledged everything before `has`.
    pub fn reached(&self, has: u64) {
        let mut state = self.state();
        state.has = Some(has);
        state.failing = None;
    }

    /// It failed: `told` is for those with a session, `text` for the operator.
    pub fn failed(&self, told: &'static str, text: String) {
        self.failed_at(Instant::now(), told, text);
    }

    fn failed_at(&self, at: Instant, told: &'static str, text: String) {
        let mut state = self.state();
        let since = state.failing.as_ref().map(|failing| failing.since);
        let since = since.unwrap_or(at);
        state.failing = Some(Trouble { since, told, text });
    }

    /// How it stands at this moment, on both clocks, in the words for this reader.
    pub fn look(&self, (now, instant): (Timestamp, Instant), reader: Reader) -> Follower {
        let state = self.state();
        let failing = state.failing.as_ref().map(|trouble| Failing {
            since: before(now, instant.saturating_duration_since(trouble.since)),
            error: match reader {
                Reader::Operator => trouble.text.clone(),
                Reader::Session => trouble.told.to_owned(),
            },
        });
        Follower {
            kind: self.kind,
            name: self.name.clone(),
            has: state.has,
            lacks: None,
            since: None,
            failing,
        }
    }
}

/// The ledger time so long ago.
fn before(now: Timestamp, passed: Duration) -> Timestamp {
    now.saturating_sub(Span::from_duration(passed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_counts_from_its_first_time_and_each_reader_has_an_own_text() {
        let progress = Progress::new(Kind::Otlp, "siem", Some(5));
        let now = Timestamp::from_micros(1_000_000_000);
        let first = Instant::now();
        let again = first + Duration::from_secs(60);
        progress.failed_at(first, "it cannot be reached", "10.0.0.1 refused".to_owned());
        progress.failed_at(again, "it refuses", "401: no".to_owned());
        let failing = |reader| progress.look((now, again), reader).failing.unwrap();
        assert_eq!(failing(Reader::Session).error, "it refuses");
        assert_eq!(failing(Reader::Operator).error, "401: no");
        assert_eq!(failing(Reader::Operator).since.as_micros(), 940_000_000);
        progress.reached(9);
        let follower = progress.look((now, again), Reader::Operator);
        assert_eq!((follower.has, follower.failing), (Some(9), None));
    }
}
