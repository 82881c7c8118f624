//! Nothing is erased but what one person asked for and another approved, each with a permit.

use curfew_entry::{Entry, ErasureId, Event, SessionId};

use super::{Auditor, FindingKind, Found};
use crate::command::{Command, ErasureStep, Verdict};

/// The step that an entry must have come from.
fn step_of(event: &Event) -> Option<(ErasureStep, &ErasureId, Option<&SessionId>)> {
    if let Event::ErasureRequested {
        session,
        erasure,
        subject,
    } = event
    {
        let step = ErasureStep::Request {
            session: session.clone(),
            erasure: erasure.clone(),
            subject: subject.clone(),
        };
        return Some((step, erasure, Some(session)));
    }
    if let Event::ErasureApproved { session, erasure } = event {
        let step = ErasureStep::Approve {
            session: session.clone(),
            erasure: erasure.clone(),
        };
        return Some((step, erasure, Some(session)));
    }
    if let Event::ErasureDone {
        erasure,
        keys,
        entries,
        before,
        ..
    } = event
    {
        let step = ErasureStep::Finish {
            erasure: erasure.clone(),
            keys: *keys,
            entries: *entries,
            before: *before,
        };
        return Some((step, erasure, None));
    }
    None
}

impl Auditor {
    /// A step of an erasure.
    pub(super) fn erasure(&mut self, entry: &Entry, out: &mut Vec<Found>) {
        let now = entry.time;
        let Some((step, erasure, session)) = step_of(&entry.event) else {
            return;
        };
        if let Some(session) = session
            && self.live(session, now, out).is_none()
        {
            return;
        }
        let mut wrong = |detail| {
            out.push((FindingKind::ErasureWrong, session.cloned(), detail));
        };
        let decision = self.authority.decide(&Command::Erasure(step), now);
        if let Verdict::Refused(refusal) = &decision.verdict {
            wrong(refusal.to_string());
        } else if !decision.events.contains(&entry.event) {
            wrong("it is not what the one before it was about".to_owned());
        }
        if let Event::ErasureApproved { .. } = &entry.event {
            self.erasures_approved.insert(erasure.clone(), self.index);
        }
        if let Event::ErasureDone { before, .. } = &entry.event {
            let approved = self.erasures_approved.remove(erasure);
            if approved.is_some_and(|approved| approved != *before) {
                wrong("it erased other entries than those before its approval".to_owned());
            }
        }
    }
}
