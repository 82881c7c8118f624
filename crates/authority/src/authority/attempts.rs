//! What is noted of clients without a live session.

use curfew_entry::{AttemptsSummarized, Event, Timestamp};

use super::Authority;
use crate::command::{Decision, Refusal};

impl Authority {
    /// What is summarized came after what was summarized before, and before now.
    pub(super) fn summarize(&self, told: &AttemptsSummarized, now: Timestamp) -> Decision {
        let told = AttemptsSummarized {
            since: told.since.max(self.state.summarized).min(now),
            ..*told
        };
        match self.attempts_fault(&told, now) {
            Some(fault) => Decision::refused(Refusal::Attempts(fault)),
            None => Decision::done(vec![Event::AttemptsSummarized(told)]),
        }
    }

    /// What is wrong with a summary at this moment, if anything is.
    pub(crate) fn attempts_fault(
        &self,
        told: &AttemptsSummarized,
        now: Timestamp,
    ) -> Option<&'static str> {
        let total = told.counts.total();
        if total == 0 {
            Some("it counts nothing")
        } else if told.addresses == 0 || told.addresses > total {
            Some("so many attempts cannot have come from so many addresses")
        } else if told.since > now {
            Some("it says since when, and that is after it")
        } else if told.since < self.state.summarized {
            Some("it counts what an earlier one has counted")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use curfew_entry::{Attempts, Entry};

    use super::*;
    use crate::audit::{Auditor, FindingKind};
    use crate::command::{Command, Verdict};

    fn at(us: u64) -> Timestamp {
        Timestamp::from_micros(us)
    }

    fn told(since: u64, addresses: u64, unknown: u64) -> AttemptsSummarized {
        AttemptsSummarized {
            since: at(since),
            addresses,
            counts: Attempts {
                credential_unknown: unknown,
                ..Attempts::default()
            },
        }
    }

    #[test]
    fn a_summary_begins_where_the_last_one_ended_and_counts_something() {
        let mut authority = Authority::new();
        let mut say = |told, now| {
            let decision = authority.decide(&Command::SummarizeAttempts(told), at(now));
            for event in decision.events.iter().cloned() {
                authority.apply(&Entry {
                    time: at(now),
                    event,
                });
            }
            decision
        };
        let first = say(told(3, 2, 5), 9);
        assert_eq!(
            first.events,
            [Event::AttemptsSummarized(told(3, 2, 5))],
            "as it was told"
        );
        assert_eq!(
            say(told(3, 1, 1), 10).events,
            [Event::AttemptsSummarized(told(9, 1, 1))],
            "nothing is counted twice"
        );
        for wrong in [told(3, 0, 5), told(3, 6, 5), told(3, 1, 0)] {
            let decision = say(wrong, 10);
            assert_eq!(decision.events, []);
            assert!(matches!(
                decision.verdict,
                Verdict::Refused(Refusal::Attempts(_))
            ));
        }
    }

    #[test]
    fn the_auditor_finds_what_decide_refuses() {
        let found = |events: Vec<AttemptsSummarized>| {
            let mut auditor = Auditor::new();
            let opened = Event::LogOpened {
                origin: "o".to_owned(),
            };
            let events = events.into_iter().map(Event::AttemptsSummarized);
            let mut found = Vec::new();
            for (index, event) in (0..).zip(std::iter::once(opened).chain(events)) {
                let entry = Entry { time: at(5), event };
                found.extend(auditor.check(index, &entry));
            }
            let kinds: Vec<_> = found.into_iter().map(|f| (f.index, f.kind)).collect();
            kinds
        };
        let wrong = |index| vec![(index, FindingKind::AttemptsWrong)];
        assert_eq!(found(vec![told(1, 2, 3), told(5, 1, 1)]), []);
        assert_eq!(found(vec![told(6, 2, 3)]), wrong(1));
        assert_eq!(found(vec![told(1, 2, 0)]), wrong(1));
        assert_eq!(found(vec![told(1, 4, 3)]), wrong(1));
        assert_eq!(found(vec![told(1, 1, 3), told(4, 1, 1)]), wrong(2));
    }
}
