//! Judging starts, renewals, activity, ends and credentials.

use curfew_entry::{CredentialFault, Entry, Event, Proof, ResourceName, SessionId, Timestamp};

use super::{Auditor, FindingKind, Found, found};
use crate::authority::{Admission, Applicant, Held, Issued};

impl Auditor {
    pub(super) fn started(&self, event: &Event, now: Timestamp, out: &mut Vec<Found>) -> bool {
        let Event::SessionStarted {
            session,
            subject,
            roles,
            proof,
            context,
            limits,
            rules,
        } = event
        else {
            return true;
        };
        let known =
            self.authority.held(session).is_some() || self.authority.tombstone(session).is_some();
        if known {
            let detail = "a session of this name started before";
            out.push(found(FindingKind::StartedTwice, session, detail));
            return false;
        }
        if self.authority.is_disabled(subject) {
            let detail = format!("the account of {subject} is disabled");
            out.push(found(FindingKind::AccountDisabled, session, detail));
        }
        let applicant = Applicant {
            subject,
            roles,
            context,
            proof,
        };
        match self.authority.admit(self.authority.policy(), applicant) {
            Admission::Granted {
                limits: given,
                rules: by,
            } => {
                if given != *limits || by != *rules {
                    let detail = "policy gives other limits, or by other rules";
                    out.push(found(FindingKind::LimitsWrong, session, detail));
                }
                if proof.at.min(now).saturating_add(given.reauth) <= now {
                    let detail = "its authentication was too old";
                    out.push(found(FindingKind::PastLimits, session, detail));
                }
            }
            Admission::TooWeak { .. } | Admission::Refused { .. } => {
                let detail = format!("policy permits {subject} no session");
                out.push(found(FindingKind::SessionNotPermitted, session, detail));
            }
        }
        true
    }

    pub(super) fn reauthenticated(
        &mut self,
        session: &SessionId,
        proof: &Proof,
        now: Timestamp,
        out: &mut Vec<Found>,
    ) -> bool {
        let Some(held) = self.live(session, now, out) else {
            return true;
        };
        match self.authority.renewal(held, proof, now) {
            Ok(events) => {
                self.expected = events.into_iter().skip(1).collect();
                self.expected_at = now;
                true
            }
            Err((cause, _)) => {
                let detail = format!("the authentication had to be refused: {cause:?}");
                out.push(found(FindingKind::SessionNotPermitted, session, detail));
                true
            }
        }
    }

    pub(super) fn active(
        &self,
        session: &SessionId,
        active_at: Timestamp,
        now: Timestamp,
        out: &mut Vec<Found>,
    ) -> bool {
        let Some(held) = self.authority.held(session) else {
            out.push(self.dead(session));
            return false;
        };
        let current = held.session.active_at;
        let over = held.over_at();
        if active_at <= current || active_at > now || active_at >= over {
            let detail = format!(
                "activity at {active_at}, noted at {now}, known since {current}, over at {over}"
            );
            out.push(found(FindingKind::ActivityWrong, session, detail));
            return false;
        }
        true
    }

    pub(super) fn session_ended(
        &mut self,
        session: &SessionId,
        entry: &Entry,
        out: &mut Vec<Found>,
    ) {
        let Event::SessionEnded {
            reason,
            deadline,
            effective,
            late,
            ..
        } = &entry.event
        else {
            return;
        };
        let Some(held) = self.authority.held(session) else {
            let (kind, detail) = if self.presumed.remove(session) {
                (FindingKind::EndLate, "its end had to come before")
            } else if self.authority.tombstone(session).is_some() {
                (FindingKind::EndedTwice, "it ended before")
            } else {
                (FindingKind::EndWithoutStart, "it never started")
            };
            out.push(found(kind, session, detail));
            return;
        };
        // What was cut while nothing could be recorded is dated back to its cut.
        let moment = self.outage.map_or(entry.time, |since| {
            (*effective).clamp(since.min(entry.time), entry.time)
        });
        let due = self.authority.end_due(held, entry.time);
        let right = due.as_ref().is_some_and(|due| {
            let is_back = self.outage.is_some();
            *due == entry.event || (is_back && dated(due.clone(), moment) == entry.event)
        });
        match due {
            Some(_) if right => {
                if late.is_some_and(|late| late > self.bound) {
                    let detail = format!("it ended later than it may, which is {}", self.bound);
                    out.push(found(FindingKind::EndLate, session, detail));
                }
            }
            Some(_) => {
                let deadline = held.session.end_deadline();
                let detail = format!("it had run out at {} ({})", deadline.at, deadline.cause);
                out.push(found(FindingKind::EndWrong, session, detail));
            }
            None => {
                let plain = deadline.is_none() && late.is_none() && *effective == moment;
                if !plain || reason.is_clock() {
                    let detail = "no clock had run out, and an end by request has no deadline";
                    out.push(found(FindingKind::EndWrong, session, detail));
                }
            }
        }
    }

    pub(super) fn credential(&self, event: &Event, now: Timestamp, out: &mut Vec<Found>) {
        if let Event::CredentialIssued {
            session,
            credential,
        } = event
        {
            let live = self.live(session, now, out).is_some();
            if live && self.authority.taken(session, credential).is_some() {
                let detail = format!("{} was issued before", credential.id);
                out.push(found(FindingKind::CredentialWrong, session, detail));
            }
        } else if let Event::CredentialRevoked {
            session,
            credential,
        } = event
        {
            let live = self.live(session, now, out).is_some();
            let issued = self.authority.issued(session, credential);
            if live && issued.is_none_or(|issued| issued.revoked) {
                let detail = format!("{credential} was not there to revoke");
                out.push(found(FindingKind::CredentialWrong, session, detail));
            }
        } else if let Event::SessionUsedAfterEnd {
            session,
            credential,
            ..
        } = event
        {
            let ended = self.authority.tombstone(session).is_some();
            if !ended || self.authority.issued(session, credential).is_none() {
                let detail = format!("{credential} was not of an ended session");
                out.push(found(FindingKind::CredentialWrong, session, detail));
            }
        } else if let Event::CredentialRefused {
            session,
            credential,
            cause,
            resource,
            ..
        } = event
        {
            let live = self.live(session, now, out).is_some();
            let issued = self.authority.issued(session, credential);
            let right = issued.is_some_and(|issued| refusable(issued, *cause, resource, now));
            if live && !right {
                let detail = format!("{credential} had to be accepted, or never was issued");
                out.push(found(FindingKind::CredentialWrong, session, detail));
            }
        }
    }

    /// The session, if it is live at `now`; reports it if not.
    pub(super) fn live(
        &self,
        session: &SessionId,
        now: Timestamp,
        out: &mut Vec<Found>,
    ) -> Option<&Held> {
        let Some(held) = self.authority.held(session) else {
            out.push(self.dead(session));
            return None;
        };
        if held.over_at() <= now {
            let deadline = held.session.end_deadline();
            let detail = format!("it had run out at {} ({})", deadline.at, deadline.cause);
            out.push(found(FindingKind::PastLimits, session, detail));
            return None;
        }
        Some(held)
    }

    pub(super) fn dead(&self, session: &SessionId) -> Found {
        let detail = match self.authority.tombstone(session) {
            Some(tombstone) => format!(
                "it had ended at {} ({:?})",
                tombstone.effective, tombstone.reason
            ),
            None => "it never started, or ended long before".to_owned(),
        };
        found(FindingKind::OutsideSession, session, detail)
    }
}

/// An end that took effect at `moment`.
fn dated(mut event: Event, moment: Timestamp) -> Event {
    if let Event::SessionEnded {
        deadline,
        effective,
        late,
        ..
    } = &mut event
    {
        *effective = moment;
        *late = deadline.map(|deadline| moment.saturating_since(deadline));
    }
    event
}

/// Whether a credential could be refused for this cause.
fn refusable(
    issued: &Issued,
    cause: CredentialFault,
    resource: &ResourceName,
    now: Timestamp,
) -> bool {
    let audience = issued.credential.audience.as_ref();
    match cause {
        CredentialFault::Revoked => issued.revoked,
        CredentialFault::Expired => !issued.revoked && !issued.live(now),
        // What it was presented as is not in the log.
        CredentialFault::WrongClass => true,
        CredentialFault::WrongAudience => {
            issued.live(now) && audience.is_some_and(|audience| audience != resource)
        }
    }
}
