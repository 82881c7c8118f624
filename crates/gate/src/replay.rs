//! From the entries to the state they lead to.
//!
//! Where entries were pruned, what an auditor of them knew stands for them: an entry after them names
//! its digest, and without that nothing is gone on from.

use std::collections::BTreeMap;

use curfew_authority::{Auditor, Authority};
use curfew_entry::{Entry, ErasureId, Event, SessionsKept};
use curfew_ledger::PrunePoint;

use crate::clock::LastSeen;
use crate::registrar::Approved;

/// Why the ledger leads to no state.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The ledger holds something this program cannot replay.
    #[error("entry {index} of the ledger cannot be replayed: {problem}")]
    Entry {
        /// The entry.
        index: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// What stands for entries that were pruned.
    #[error("what stands for the pruned part of the ledger: {0}")]
    PrunePoint(String),
}

/// What the ledger leads to.
pub struct Replayed {
    /// The state.
    pub authority: Authority,
    /// Where the entries left the clocks; none before the first.
    pub last: Option<LastSeen>,
    /// Erasures that were approved and are not done.
    pub approved: Vec<Approved>,
    /// The statements on all changes of the key that signs the log, in its order.
    pub rotations: Vec<String>,
}

/// Which sessions stand in what a pruned log keeps of its auditor: [`Auditor::sessions_kept`], for
/// those that may not know the authority.
///
/// # Errors
/// What cannot be read of it.
pub fn sessions_kept(kept: &[u8]) -> Result<SessionsKept, String> {
    Auditor::sessions_kept(kept)
}

/// Folds the ledger into the authority's state.
///
/// # Errors
/// At the first entry that this program cannot read.
pub fn replay(recovered: &curfew_ledger::Recovered) -> Result<Replayed, ReplayError> {
    let (mut authority, mut approved) = begin(recovered.prune_point.as_ref())?;
    let mut rotations = match &recovered.prune_point {
        Some(pruned) => pruned.verified_state().statements(),
        None => Vec::new(),
    };
    let mut unproven = recovered.prune_point.as_ref().map(PrunePoint::digest);
    for item in recovered.entries() {
        let failed = |index, problem| ReplayError::Entry { index, problem };
        let (index, bytes) = item.map_err(|error| failed(recovered.size, error.to_string()))?;
        let entry = Entry::from_bytes(&bytes).map_err(|error| failed(index, error.to_string()))?;
        authority.apply(&entry);
        if let Event::ErasureApproved { erasure, .. } = &entry.event {
            approved.insert(erasure.clone(), index);
        }
        if let Event::LogKeyRotated { note, .. } = &entry.event {
            rotations.push(note.clone());
        }
        if let Event::LogPruned(told) = &entry.event
            && unproven.as_ref() == Some(&told.digest)
        {
            unproven = None;
        }
    }
    if unproven.is_some() {
        return Err(ReplayError::PrunePoint(
            "no entry names its digest: it is not the one that was recorded".to_owned(),
        ));
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
        rotations,
        last: (recovered.size > 0).then(|| LastSeen::of(&authority)),
        authority,
    })
}

/// The state before the first entry that is left.
fn begin(
    pruned: Option<&PrunePoint>,
) -> Result<(Authority, BTreeMap<ErasureId, u64>), ReplayError> {
    let Some(pruned) = pruned else {
        return Ok((Authority::new(), BTreeMap::new()));
    };
    let auditor = Auditor::inherit(pruned.state());
    let auditor = auditor.map_err(|error| ReplayError::PrunePoint(error.to_string()))?;
    let approved = auditor.erasures_approved().clone();
    Ok((auditor.into_authority(), approved))
}
