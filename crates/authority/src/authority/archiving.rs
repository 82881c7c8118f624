//! What is noted of the log's archive.

use curfew_entry::Event;

use super::Authority;
use crate::command::ArchiveNews;

impl Authority {
    /// Whether it was noted that the log is not archived, and not that it is again.
    pub fn is_archiving_failed(&self) -> bool {
        self.state.archiving_failed
    }

    pub(super) fn archiving(&self, news: &ArchiveNews) -> Vec<Event> {
        match (*news, self.state.archiving_failed) {
            (ArchiveNews::Failed(told), false) => vec![Event::LogArchivingFailed(told)],
            (ArchiveNews::Resumed { size }, true) => vec![Event::LogArchivingResumed { size }],
            // Said already.
            (ArchiveNews::Failed(_), true) | (ArchiveNews::Resumed { .. }, false) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use curfew_entry::{ArchivingFault, Entry, LogArchivingFailed, Timestamp};

    use super::*;
    use crate::audit::{Auditor, FindingKind};
    use crate::command::Command;

    fn at(us: u64) -> Timestamp {
        Timestamp::from_micros(us)
    }

    fn failed(since: u64, size: Option<u64>) -> LogArchivingFailed {
        LogArchivingFailed {
            since: at(since),
            size,
            cause: ArchivingFault::Store,
        }
    }

    #[test]
    fn that_the_log_is_not_archived_is_said_once_and_taken_back_once() {
        let mut authority = Authority::new();
        for _ in 0..10 {
            authority.apply(&Entry {
                time: at(1),
                event: Event::GatewayStopped {},
            });
        }
        let mut say = |news: ArchiveNews| {
            let events = authority.decide(&Command::Archive(news), at(5)).events;
            for event in events.iter().cloned() {
                assert!(event.is_note_on_log());
                authority.apply(&Entry { time: at(5), event });
            }
            (events.len(), authority.is_archiving_failed())
        };
        let failed = ArchiveNews::Failed(failed(1, None));
        let resumed = ArchiveNews::Resumed { size: 9 };
        assert_eq!(say(resumed), (0, false));
        assert_eq!(say(failed), (1, true));
        assert_eq!(say(failed), (0, true));
        assert_eq!(say(resumed), (1, false));
        assert_eq!(say(resumed), (0, false));
        assert_eq!(say(failed), (1, true));
    }

    #[test]
    fn what_contradicts_the_entries_before_it_is_found() {
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
        let failed = |since, size| Event::LogArchivingFailed(failed(since, size));
        let resumed = |size: u64| Event::LogArchivingResumed { size };
        let wrong = |index| vec![(index, FindingKind::ArchivingWrong)];
        assert_eq!(found(vec![failed(5, Some(1)), resumed(2)]), []);
        let again = [failed(5, None), resumed(2), failed(1, Some(3)), resumed(3)];
        assert_eq!(found(again.to_vec()), []);
        assert_eq!(found(vec![failed(5, Some(2))]), wrong(1));
        assert_eq!(found(vec![failed(6, Some(1))]), wrong(1));
        assert_eq!(found(vec![failed(5, None), failed(5, None)]), wrong(2));
        assert_eq!(found(vec![resumed(1)]), wrong(1));
        assert_eq!(found(vec![failed(5, None), resumed(3)]), wrong(2));
    }
}
