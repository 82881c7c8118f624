//! What is noted of timestamps over the log, and how far the log has grown by anything else than
//! such notes.

use curfew_entry::{Event, Timestamp};

use super::Authority;
use super::bounds::{cut, short};
use crate::command::StampNews;

/// Longest name of a timestamping authority, in bytes: `printable` in `curfew-timestamp` gives up to
/// 200 characters of 4 bytes.
const TSA_BYTES_MAX: usize = 800;

impl Authority {
    /// Number of entries up to the last one that is no note of the log on itself, such as who has
    /// cosigned it. Whoever makes such notes asks this: a note that called for the next one would go
    /// on for ever, and two kinds of them would call for each other.
    pub fn substance(&self) -> u64 {
        self.state.substance
    }

    /// The newest token of a timestamping authority that was noted: over how many entries, and when.
    pub fn stamped(&self) -> Option<(u64, Timestamp)> {
        self.state.stamped
    }

    /// Whether it was noted that no tokens come, and not that they come again.
    pub fn is_stamping_stopped(&self) -> bool {
        self.state.stamps_stopped
    }

    pub(super) fn count(&mut self, event: &Event) {
        self.state.entries = self.state.entries.saturating_add(1);
        if !event.is_note_on_log() {
            self.state.substance = self.state.entries;
        }
    }

    pub(super) fn stamping(&self, news: &StampNews) -> Vec<Event> {
        let stopped = self.state.stamps_stopped;
        match news {
            StampNews::Kept(told) => {
                let mut told = told.clone();
                cut(&mut told.tsa, TSA_BYTES_MAX);
                told.digest = short(&told.digest);
                vec![Event::LogTimestamped(told)]
            }
            StampNews::Stopped { .. } if stopped => Vec::new(),
            StampNews::Stopped { since, size, cause } => vec![Event::LogTimestampsStopped {
                since: *since,
                size: *size,
                cause: short(cause),
            }],
            StampNews::Resumed { .. } if !stopped => Vec::new(),
            StampNews::Resumed { size } => vec![Event::LogTimestampsResumed { size: *size }],
        }
    }
}

#[cfg(test)]
mod tests {
    use curfew_entry::{Entry, LogTimestamped, RefusalCause};

    use super::*;
    use crate::audit::{Auditor, FindingKind};
    use crate::command::Command;

    fn told(size: u64) -> LogTimestamped {
        LogTimestamped {
            size,
            tsa: "\u{1}".repeat(2_000),
            tsa_time: Timestamp::from_micros(4),
            accuracy_us: None,
            asked: None,
            off_us: None,
            digest: "ab".repeat(32),
            wall: None,
        }
    }

    fn say(authority: &mut Authority, command: &Command) -> usize {
        let time = Timestamp::from_micros(5);
        let events = authority.decide(command, time).events;
        for event in events.iter().cloned() {
            let entry = Entry { time, event };
            assert!(entry.to_bytes().is_ok(), "it fits");
            authority.apply(&entry);
        }
        events.len()
    }

    #[test]
    fn that_tokens_have_stopped_is_said_once_and_taken_back_once() {
        let mut authority = Authority::new();
        for _ in 0..10 {
            authority.apply(&Entry {
                time: Timestamp::from_micros(1),
                event: Event::GatewayStopped {},
            });
        }
        let stopped = || {
            Command::Stamp(StampNews::Stopped {
                since: Timestamp::from_micros(1),
                size: 0,
                cause: "\u{1}".repeat(100_000),
            })
        };
        let resumed = || Command::Stamp(StampNews::Resumed { size: 9 });
        let mut does = |command: Command, count: usize, state: bool| {
            assert_eq!(say(&mut authority, &command), count);
            assert_eq!(authority.is_stamping_stopped(), state);
        };
        does(resumed(), 0, false);
        does(stopped(), 1, true);
        does(stopped(), 0, true);
        does(resumed(), 1, false);
        does(resumed(), 0, false);
        assert_eq!(authority.stamped(), None);
        say(&mut authority, &Command::Stamp(StampNews::Kept(told(1))));
        assert_eq!(authority.stamped(), Some((1, Timestamp::from_micros(5))));
    }

    #[test]
    fn notes_of_the_log_on_itself_do_not_make_it_grow() {
        let mut authority = Authority::new();
        let opened = Command::OpenLog {
            origin: "o".to_owned(),
        };
        assert_eq!(say(&mut authority, &opened), 1);
        assert_eq!(authority.substance(), 1);
        for news in [
            StampNews::Kept(told(1)),
            StampNews::Stopped {
                since: Timestamp::from_micros(1),
                size: 1,
                cause: String::new(),
            },
            StampNews::Resumed { size: 1 },
        ] {
            assert_eq!(say(&mut authority, &Command::Stamp(news)), 1);
            assert_eq!(authority.substance(), 1);
        }
        let refused = Command::RefuseSignIn {
            subject: None,
            cause: RefusalCause::UnknownAccount,
            address: "192.0.2.1".parse().unwrap(),
        };
        assert_eq!(say(&mut authority, &refused), 1);
        assert_eq!(authority.substance(), 5);
    }

    #[test]
    fn nothing_has_a_timestamp_that_was_not_there() {
        let opened = Event::LogOpened {
            origin: "o".to_owned(),
        };
        let found = |event: Event| {
            let mut auditor = Auditor::new();
            let entry = |event| Entry {
                time: Timestamp::from_micros(5),
                event,
            };
            assert_eq!(auditor.check(0, &entry(opened.clone())), []);
            let found = auditor.check(1, &entry(event));
            let kinds: Vec<FindingKind> = found.into_iter().map(|finding| finding.kind).collect();
            kinds
        };
        let wrong = [FindingKind::TimestampedWrong];
        assert_eq!(found(Event::LogTimestamped(told(1))), []);
        assert_eq!(found(Event::LogTimestamped(told(2))), wrong);
        assert_eq!(found(Event::LogTimestampsResumed { size: 2 }), wrong);
    }
}
