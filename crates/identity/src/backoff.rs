//! How long an account waits after failures.

use curfew_entry::{Span, Timestamp};
use serde::{Deserialize, Serialize};

/// From as many failures in a row on, each further attempt has to wait.
pub(crate) const FREE_FAILURES: u32 = 5;
/// The first wait. It doubles with each failure.
const WAIT_MIN_SECS: u64 = 1;
/// The longest wait.
pub(crate) const WAIT_MAX_SECS: u64 = 15 * 60;
/// At as many failures in a row through one lane nobody is let in through it any more, until
/// somebody signs in through the other or an administrator sets the password anew. Both lanes
/// together make the 100 after which NIST SP 800-63B-4 section 3.2.2 wants an authenticator disabled.
pub(crate) const LOCK_FAILURES: u32 = 50;

/// Where an attempt comes from, as its account sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Lane {
    /// A browser in which the account was signed in to before.
    Near,
    /// Any other, and each for a name that is nobody's.
    Far,
}

/// The failures of an account since its last sign-in, and what follows from them.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Failures {
    near: Run,
    far: Run,
}

/// The failures of one lane.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
struct Run {
    count: u32,
    wait_until: Timestamp,
}

impl Run {
    fn locked(&self) -> bool {
        self.count >= LOCK_FAILURES
    }
}

impl Failures {
    /// Failures of both lanes together.
    pub(crate) fn count(&self) -> u32 {
        self.near.count.saturating_add(self.far.count)
    }

    /// Whether a lane is locked: in the far one, known browsers still get in.
    pub(crate) fn locked(&self) -> bool {
        self.near.locked() || self.far.locked()
    }

    /// How long an attempt through `lane` still has to wait, if it has to. A locked lane says the
    /// longest wait: that it is locked is nobody's business but the administrator's.
    pub(crate) fn wait(&self, lane: Lane, now: Timestamp) -> Option<Span> {
        let run = match lane {
            Lane::Near => &self.near,
            Lane::Far => &self.far,
        };
        if run.locked() {
            return Some(Span::from_secs(WAIT_MAX_SECS));
        }
        (run.wait_until > now).then(|| run.wait_until.saturating_since(now))
    }

    /// Counts a failure.
    pub(crate) fn fail(&mut self, lane: Lane, now: Timestamp) {
        let run = match lane {
            Lane::Near => &mut self.near,
            Lane::Far => &mut self.far,
        };
        run.count = run.count.saturating_add(1);
        if let Some(doublings) = run.count.checked_sub(FREE_FAILURES) {
            let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
            let secs = WAIT_MIN_SECS.saturating_mul(factor).min(WAIT_MAX_SECS);
            run.wait_until = now.saturating_add(Span::from_secs(secs));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_quarter_of_an_hour_and_then_it_locks() {
        let now = Timestamp::from_micros(0);
        let mut failures = Failures::default();
        let mut waits = Vec::new();
        while !failures.locked() {
            waits.push(failures.wait(Lane::Far, now).map(Span::as_micros));
            failures.fail(Lane::Far, now);
        }
        assert_eq!(waits.len(), 50);
        assert_eq!(&waits[..5], [None; 5]);
        for (doublings, wait) in waits[5..15].iter().enumerate() {
            assert_eq!(*wait, Some((1 << doublings) * 1_000_000));
        }
        assert!(waits[15..].iter().all(|wait| *wait == Some(900_000_000)));
        assert_eq!(
            failures.wait(Lane::Near, now),
            None,
            "strangers lock nobody out of a known browser"
        );
    }

    #[test]
    fn one_lane_does_not_make_the_other_wait() {
        let now = Timestamp::from_micros(7);
        let mut failures = Failures::default();
        for _ in 0..LOCK_FAILURES - 1 {
            failures.fail(Lane::Far, now);
        }
        assert!(failures.wait(Lane::Far, now).is_some());
        assert_eq!(failures.wait(Lane::Near, now), None);
        assert!(!failures.locked());
        failures.fail(Lane::Far, now);
        assert!(failures.locked());
    }

    #[test]
    fn a_wait_ends_at_its_moment() {
        let now = Timestamp::from_micros(0);
        let mut failures = Failures::default();
        for _ in 0..FREE_FAILURES {
            failures.fail(Lane::Far, now);
        }
        let at = Timestamp::from_micros;
        assert_eq!(
            failures.wait(Lane::Far, at(999_999)),
            Some(Span::from_micros(1))
        );
        assert_eq!(failures.wait(Lane::Far, at(1_000_000)), None);
    }
}
