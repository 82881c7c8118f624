//! From the entries to the state they lead to.
//!
//! Where entries were pruned, what an auditor of them knew stands for them: an entry after them names
//! its digest, and without that nothing is gone on from.

use std::collections::BTreeMap;

use curfew_authority::{Auditor, Authority};
use curfew_entry::{Entry, ErasureId, Event};
use curfew_ledger::PrunePoint;

use crate::clock::LastSeen;
use crate::gateway::StartError;
use crate::registrar::Approved;

/// What the ledger leads to.
pub(crate) struct Replayed {
    pub(crate) authority: Authority,
    pub(crate) last: Option<LastSeen>,
    /// Erasures that were approved and are not done.
    pub(crate) approved: Vec<Approved>,
    /// The statements on all changes of the key that signs the log, in its order.
    pub(crate) rotations: Vec<String>,
}

/// Folds the ledger into the authority's state.
pub(crate) fn replay(recovered: &curfew_ledger::Recovered) -> Result<Replayed, StartError> {
    let (mut authority, mut approved) = begin(recovered.prune_point.as_ref())?;
    let mut rotations = match &recovered.prune_point {
        Some(horizon) => horizon.verified_state().statements(),
        None => Vec::new(),
    };
    let mut unproven = recovered.prune_point.as_ref().map(PrunePoint::digest);
    for item in recovered.entries() {
        let failed = |index, problem| StartError::Replay { index, problem };
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
        return Err(StartError::Horizon(
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
    horizon: Option<&PrunePoint>,
) -> Result<(Authority, BTreeMap<ErasureId, u64>), StartError> {
    let Some(horizon) = horizon else {
        return Ok((Authority::new(), BTreeMap::new()));
    };
    let auditor = Auditor::inherit(horizon.state());
    let auditor = auditor.map_err(|error| StartError::Horizon(error.to_string()))?;
    let approved = auditor.erasures_approved().clone();
    Ok((auditor.into_authority(), approved))
}
