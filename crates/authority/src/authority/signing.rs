//! What is noted of the signing of checkpoints.

use curfew_entry::Event;

use super::Authority;
use crate::command::SigningNews;

impl Authority {
    /// Where it was noted that no checkpoint is signed, and not that one is again: how many entries
    /// the last one covered.
    pub fn unsigned_from(&self) -> Option<u64> {
        self.state.unsigned_from
    }

    pub(super) fn signing(&self, news: &SigningNews) -> Vec<Event> {
        match (*news, self.state.unsigned_from.is_some()) {
            (SigningNews::Failed { since, size, cause }, false) => {
                vec![Event::LogSigningFailed { since, size, cause }]
            }
            (SigningNews::Resumed { size }, true) => vec![Event::LogSigningResumed { size }],
            // Said already.
            (SigningNews::Failed { .. }, true) | (SigningNews::Resumed { .. }, false) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use curfew_entry::{Entry, SigningFault, Timestamp};

    use super::*;
    use crate::audit::{Auditor, FindingKind};
    use crate::command::Command;

    fn at(us: u64) -> Timestamp {
        Timestamp::from_micros(us)
    }

    #[test]
    fn an_outage_of_signing_is_said_once_and_taken_back_once() {
        let mut authority = Authority::new();
        for _ in 0..10 {
            authority.apply(&Entry {
                time: at(1),
                event: Event::GatewayStopped {},
            });
        }
        let mut say = |news: SigningNews| {
            let events = authority.decide(&Command::Signing(news), at(5)).events;
            for event in events.iter().cloned() {
                authority.apply(&Entry { time: at(5), event });
            }
            (events.len(), authority.unsigned_from())
        };
        let failed = SigningNews::Failed {
            since: at(1),
            size: 7,
            cause: SigningFault::SignerAway,
        };
        let resumed = SigningNews::Resumed { size: 9 };
        assert_eq!(say(resumed), (0, None));
        assert_eq!(say(failed), (1, Some(7)));
        assert_eq!(say(failed), (0, Some(7)));
        assert_eq!(say(resumed), (1, None));
        assert_eq!(say(resumed), (0, None));
        assert_eq!(say(failed), (1, Some(7)));
    }

    #[test]
    fn what_contradicts_the_entries_before_it_is_found() {
        let failed = |since: u64, size: u64| Event::LogSigningFailed {
            since: at(since),
            size,
            cause: SigningFault::Guard,
        };
        let resumed = |size: u64| Event::LogSigningResumed { size };
        let found = |events: Vec<Event>| {
            let mut auditor = Auditor::new();
            let opened = Event::LogOpened {
                origin: "o".to_owned(),
            };
            let mut found = Vec::new();
            for (index, event) in std::iter::once(opened).chain(events).enumerate() {
                let entry = Entry { time: at(5), event };
                found.extend(auditor.check(index as u64, &entry));
            }
            let kinds: Vec<_> = found.into_iter().map(|f| (f.index, f.kind)).collect();
            kinds
        };
        let wrong = |index| vec![(index, FindingKind::SigningWrong)];
        assert_eq!(found(vec![failed(5, 1), resumed(2)]), []);
        assert_eq!(
            found(vec![failed(5, 0), resumed(2), failed(1, 3), resumed(4)]),
            []
        );
        assert_eq!(found(vec![failed(5, 2)]), wrong(1));
        assert_eq!(found(vec![failed(6, 1)]), wrong(1));
        assert_eq!(found(vec![failed(5, 1), failed(5, 1)]), wrong(2));
        assert_eq!(found(vec![resumed(1)]), wrong(1));
        assert_eq!(found(vec![failed(5, 1), resumed(3)]), wrong(2));
        assert_eq!(found(vec![failed(5, 1), resumed(0)]), wrong(2));
    }
}
