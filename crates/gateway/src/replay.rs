//! From the entries to the state they lead to.

use std::collections::BTreeMap;

use curfew_authority::{Authority, Entry, Event};

use crate::clock::LastSeen;
use crate::gateway::StartError;
use crate::registrar::Approved;

/// What the ledger leads to.
pub(crate) struct Replayed {
    pub(crate) authority: Authority,
    pub(crate) last: Option<LastSeen>,
    /// Erasures that were approved and are not done.
    pub(crate) approved: Vec<Approved>,
}

/// Folds the ledger into the authority's state.
pub(crate) fn replay(recovered: &curfew_ledger::Recovered) -> Result<Replayed, StartError> {
    let mut approved = BTreeMap::new();
    let mut authority = Authority::new();
    let mut last: Option<LastSeen> = None;
    for item in recovered.entries() {
        let failed = |index, problem| StartError::Replay { index, problem };
        let (index, bytes) = item.map_err(|error| failed(recovered.size, error.to_string()))?;
        let entry = Entry::from_bytes(&bytes).map_err(|error| failed(index, error.to_string()))?;
        let seen = last.get_or_insert(LastSeen {
            entry: entry.time,
            start: None,
        });
        seen.entry = entry.time;
        if let Event::GatewayStarted {
            boot_id, boot_us, ..
        } = &entry.event
        {
            seen.start = Some((entry.time, boot_id.clone(), *boot_us));
        }
        authority.apply(&entry);
        if let Event::ErasureApproved { erasure, .. } = &entry.event {
            approved.insert(erasure.clone(), index);
        }
    }
    // Those that are done are known no more.
    let approved = approved.into_iter().filter_map(|(erasure, before)| {
        let subject = authority.erasure(&erasure)?.subject.clone();
        Some(Approved {
            erasure,
            subject,
            before,
        })
    });
    Ok(Replayed {
        approved: approved.collect(),
        last,
        authority,
    })
}
