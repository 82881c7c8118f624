//! What is noted of the log's witnesses.

use super::Authority;
use crate::command::{WitnessNews, Witnessed};
use crate::event::Event;

/// Longest checkpoint in an entry, in bytes: its line ends take two in JSON, and the rest of the
/// entry fits in what is left of 65,535.
pub const CHECKPOINT_BYTES_MAX: usize = 48 * 1024;

/// Most witnesses named in an entry, and the longest name in bytes: 64 × 128 = 8 KiB.
const NAMES_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 128;

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
