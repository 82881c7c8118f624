//! Carries out erasures that were approved. Until one is done it is tried again, at the next start
//! as well: an approval stands.

use std::collections::VecDeque;
use std::sync::Arc;

use curfew_authority::{Command, ErasureStep};
use curfew_entry::{ErasureId, Event, SubjectName};
use curfew_values::{Store, Wiped};
use tokio::task::JoinHandle;

use super::task::{NotDone, Task};
use crate::conditions::Part;

/// An erasure that was approved and is not done.
#[derive(Clone, Debug)]
pub struct Approved {
    /// Its name.
    pub erasure: ErasureId,
    /// Whose values go.
    pub subject: SubjectName,
    /// The index of its approval: values of entries from there on are left.
    pub before: u64,
}

/// The erasures to be carried out, one after the other.
#[derive(Debug, Default)]
pub(super) struct Erasing {
    waiting: VecDeque<Approved>,
    wiping: Option<JoinHandle<Result<Wiped, String>>>,
}

/// Overwrites the keys and then the values of one subject. Blocks.
fn wipe(store: Option<&Store>, approved: &Approved) -> Result<Wiped, String> {
    let Some(store) = store else {
        // Nothing was ever concealed here.
        return Ok(Wiped {
            keys: 0,
            entries: 0,
        });
    };
    let condemned = store.condemn(&approved.subject, approved.before);
    store.wipe(&condemned).map_err(|error| error.to_string())
}

impl Erasing {
    /// Takes one in.
    pub(super) fn push(&mut self, approved: Approved) {
        self.waiting.push_back(approved);
    }

    /// Waits until the wiping that is under way is over; for ever where there is none.
    pub(super) async fn wiped(&mut self) -> Result<Wiped, String> {
        let result = match &mut self.wiping {
            Some(handle) => match handle.await {
                Ok(result) => result,
                Err(error) => Err(error.to_string()),
            },
            None => std::future::pending().await,
        };
        self.wiping = None;
        result
    }
}

impl Task {
    fn store(&self) -> Option<&Arc<Store>> {
        self.concealer.as_ref().map(|concealer| &concealer.store)
    }

    /// An erasure was approved with the entry at `before`: from here on nothing of it can be read.
    pub(super) fn approved(&mut self, event: &Event, before: u64) {
        let Event::ErasureApproved { erasure, .. } = event else {
            return;
        };
        let Some(known) = self.authority.erasure(erasure) else {
            return;
        };
        let approved = Approved {
            erasure: erasure.clone(),
            subject: known.subject.clone(),
            before,
        };
        if let Some(store) = self.store() {
            store.condemn(&approved.subject, before);
        }
        self.erasing.push(approved);
    }

    /// Begins the next erasure whose approval is durable, where none is under way.
    pub(super) fn erase_next(&mut self) {
        let Some(approved) = self.erasing.waiting.front().cloned() else {
            return;
        };
        let durable = self.durability.size() > approved.before;
        if self.traffic.outage().is_some() || self.erasing.wiping.is_some() || !durable {
            return;
        }
        let store = self.store().cloned();
        self.erasing.wiping = Some(tokio::task::spawn_blocking(move || {
            wipe(store.as_deref(), &approved)
        }));
    }

    /// The keys of the first in line are gone from the disk, or not: then it is tried again.
    pub(super) fn wiped(&mut self, result: Result<Wiped, String>) {
        self.conditions.look(Part::Erasing, &result);
        let wiped = match result {
            Ok(wiped) => wiped,
            Err(error) => {
                tracing::error!(%error, "an approved erasure failed and is tried again");
                return;
            }
        };
        let Some(approved) = self.erasing.waiting.front().cloned() else {
            return;
        };
        let finish = Command::Erasure(ErasureStep::Finish {
            erasure: approved.erasure,
            keys: wiped.keys,
            entries: wiped.entries,
            before: approved.before,
        });
        // Where it cannot be recorded it is wiped again, which says the same.
        let unsaid = self.traffic.outage().is_some()
            || matches!(self.carry_out(&finish), Err(NotDone::Unavailable));
        if !unsaid {
            self.erasing.waiting.pop_front();
        }
    }
}
