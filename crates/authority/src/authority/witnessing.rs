//! What is noted of the log's witnesses.

use curfew_entry::Event;

use super::Authority;
use crate::command::{WitnessNews, Witnessed};

/// Longest checkpoint in an entry, in bytes: a signed note of 64 lines at most, so that JSON makes it
/// no more than a few hundred bytes longer.
pub const CHECKPOINT_BYTES_MAX: usize = 40 * 1024;

/// Most witnesses named in an entry, and the longest name in bytes: 48 × 64 bytes are 18 KiB where
/// JSON spells each out as `\u0001`. With a checkpoint they fit in the 65,535 bytes of an entry.
const NAMES_MAX: usize = 48;
const NAME_BYTES_MAX: usize = 64;

impl Authority {
    /// Whether it was noted that no quorum of witnesses cosigns, and not that one does again.
    pub fn is_quorum_lost(&self) -> bool {
        self.state.quorum_lost
    }

    pub(super) fn witnessing(&self, news: &WitnessNews) -> Vec<Event> {
        let lost = self.state.quorum_lost;
        match news {
            WitnessNews::Cosigned(Witnessed { checkpoint, .. })
                if checkpoint.len() > CHECKPOINT_BYTES_MAX =>
            {
                Vec::new()
            }
            WitnessNews::Cosigned(witnessed) => vec![Event::LogWitnessed {
                size: witnessed.size,
                witnesses: names(&witnessed.witnesses),
                checkpoint: witnessed.checkpoint.clone(),
                wall: witnessed.wall,
            }],
            WitnessNews::QuorumLost { .. } if lost => Vec::new(),
            WitnessNews::QuorumLost {
                since,
                size,
                missing,
            } => vec![Event::LogQuorumLost {
                since: *since,
                size: *size,
                missing: names(missing),
            }],
            WitnessNews::QuorumMet { .. } if !lost => Vec::new(),
            WitnessNews::QuorumMet { size } => vec![Event::LogQuorumMet { size: *size }],
        }
    }
}

fn names(names: &[String]) -> Vec<String> {
    let cut = |name: &String| {
        let mut name = name.clone();
        super::bounds::cut(&mut name, NAME_BYTES_MAX);
        name
    };
    names.iter().take(NAMES_MAX).map(cut).collect()
}

#[cfg(test)]
mod tests {
    use curfew_entry::{Entry, Timestamp};

    use super::*;
    use crate::audit::{Auditor, FindingKind};
    use crate::command::Command;

    fn lost() -> WitnessNews {
        WitnessNews::QuorumLost {
            since: Timestamp::from_micros(1),
            size: 0,
            missing: vec!["n".repeat(1_000); 100],
        }
    }

    #[test]
    fn a_lost_quorum_is_said_once_and_taken_back_once() {
        let mut authority = Authority::new();
        for _ in 0..10 {
            authority.apply(&Entry {
                time: Timestamp::from_micros(1),
                event: Event::GatewayStopped {},
            });
        }
        let mut say = |news: WitnessNews| {
            let now = Timestamp::from_micros(5);
            let events = authority.decide(&Command::Witness(news), now).events;
            for event in events.iter().cloned() {
                let entry = Entry { time: now, event };
                assert!(entry.to_bytes().is_ok(), "it fits");
                authority.apply(&entry);
            }
            (events.len(), authority.is_quorum_lost())
        };
        let met = || WitnessNews::QuorumMet { size: 9 };
        assert_eq!(say(met()), (0, false));
        assert_eq!(say(lost()), (1, true));
        assert_eq!(say(lost()), (0, true));
        assert_eq!(say(met()), (1, false));
        assert_eq!(say(met()), (0, false));
        let cosigned = |len: usize| {
            WitnessNews::Cosigned(Witnessed {
                size: 1,
                witnesses: vec!["\u{1}".repeat(1_000); 100],
                checkpoint: format!("o\n1{}{}", "\n".repeat(62), "a".repeat(len - 65)),
                wall: None,
            })
        };
        assert_eq!(say(cosigned(CHECKPOINT_BYTES_MAX)), (1, false));
        assert_eq!(say(cosigned(CHECKPOINT_BYTES_MAX + 1)), (0, false));
    }

    #[test]
    fn nobody_has_witnessed_what_was_not_there() {
        let opened = Event::LogOpened {
            origin: "o".to_owned(),
        };
        let witnessed = |size: u64, text: &str| Event::LogWitnessed {
            size,
            witnesses: Vec::new(),
            checkpoint: text.to_owned(),
            wall: None,
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
        assert_eq!(found(witnessed(1, "o\n1\nroot\n")), []);
        let wrong = [FindingKind::WitnessedWrong];
        assert_eq!(found(witnessed(2, "o\n2\nroot\n")), wrong);
        assert_eq!(found(witnessed(1, "o\n0\nroot\n")), wrong);
        assert_eq!(found(witnessed(1, "")), wrong);
        assert_eq!(found(Event::LogQuorumMet { size: 2 }), wrong);
        assert_eq!(found(Event::LogQuorumMet { size: 1 }), []);
    }
}
