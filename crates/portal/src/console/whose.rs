//! Whose sessions they are that entries tell of. Entries name the subject only where a session starts.

use std::collections::BTreeMap;
use std::sync::Arc;

use curfew_entry::{Entry, Event, SessionId, SubjectName};
use curfew_gate::Refusal;

use super::Portal;

/// Sessions, and whose they are as far as it is known.
pub(super) type Whose = BTreeMap<SessionId, SubjectName>;

/// Whose sessions these entries tell of: those that live or ended lately, and those whose start is
/// among the entries or found by the index.
pub(super) async fn whose<'e>(
    portal: &Arc<Portal>,
    entries: impl Iterator<Item = &'e [u8]>,
) -> Result<Whose, Refusal> {
    let (mut known, mut open) = (Whose::new(), Vec::new());
    for bytes in entries {
        let Ok(entry) = Entry::from_bytes(bytes) else {
            continue;
        };
        open.extend(entry.event.facets().sessions().cloned());
        note(&mut known, &entry.event);
    }
    open.sort();
    open.dedup();
    let remembered = portal.setup.registrar.subjects(open.clone());
    known.extend(remembered.await?);
    open.retain(|session| !known.contains_key(session));
    if !open.is_empty() {
        for hit in portal.setup.search.starts_of(open).await {
            if let Ok(entry) = Entry::from_bytes(&hit) {
                note(&mut known, &entry.event);
            }
        }
    }
    Ok(known)
}

fn note(known: &mut Whose, event: &Event) {
    if let Event::SessionStarted {
        session, subject, ..
    } = event
    {
        known.insert(session.clone(), subject.clone());
    }
}
