//! What is noted of entries that are given up, and what must be known when earlier ones are gone.

use curfew_entry::{Event, LogPruned};

use super::bounds::short;
use super::{Authority, Started};

impl Authority {
    /// Where the gateway last took up its work, unless it never did.
    pub fn last_start(&self) -> Option<&Started> {
        self.state.last_start.as_ref()
    }

    /// How many entries there are.
    pub fn entries(&self) -> u64 {
        self.state.entries
    }

    /// How many entries were given up, by the entries so far.
    pub fn pruned(&self) -> u64 {
        self.state.pruned
    }

    pub(super) fn pruning(told: &LogPruned) -> Vec<Event> {
        let mut told = told.clone();
        told.digest = short(&told.digest);
        vec![Event::LogPruned(told)]
    }
}

#[cfg(test)]
mod tests {
    use curfew_entry::{Entry, Event, LogPruned, Span, Timestamp};

    use crate::audit::{Auditor, FindingKind};

    #[test]
    fn only_what_is_there_is_given_up_and_nothing_twice() {
        let mut auditor = Auditor::new();
        let mut index = 0;
        let mut say = |event| {
            let time = Timestamp::from_micros(5);
            let found = auditor.check(index, &Entry { time, event });
            index += 1;
            let kinds: Vec<FindingKind> = found.into_iter().map(|finding| finding.kind).collect();
            kinds
        };
        let pruned = |size| {
            Event::LogPruned(LogPruned {
                size,
                digest: "ab".repeat(32),
                keep: Span::from_secs(60),
                archived: true,
            })
        };
        let origin = "o".to_owned();
        assert_eq!(say(Event::LogOpened { origin }), []);
        assert_eq!(say(pruned(1)), []);
        assert_eq!(say(pruned(2)), []);
        // It was said, and not done before a crash.
        assert_eq!(say(pruned(2)), []);
        assert_eq!(say(pruned(1)), [FindingKind::PrunedWrong]);
        assert_eq!(say(pruned(6)), [FindingKind::PrunedWrong]);
        assert_eq!(say(pruned(0)), [FindingKind::PrunedWrong]);
    }
}
