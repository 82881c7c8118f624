//! Erasing what entries only commit to: one person asks, another approves.

use std::collections::BTreeMap;

use curfew_entry::{ErasureId, Event, SessionId, Span, SubjectName, Timestamp, Verb};
use serde::{Deserialize, Serialize};

use super::Authority;
use crate::command::{Decision, ErasureRefusal, ErasureStep, Refusal};

/// How long an erasure that was asked for can be approved.
pub const APPROVAL_TIME: Span = Span::from_secs(60 * 60);

/// The most erasures that are open at once. Each waits for a person, for at most an hour.
const OPEN_MAX: usize = 256;

/// How long after a permit the step that it is for may be recorded: it follows within milliseconds,
/// or not at all.
const PERMIT_LIFE: Span = Span::from_secs(60);

/// An erasure that was asked for and is not done.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Erasure {
    /// Whose values.
    pub subject: SubjectName,
    /// Who asked.
    pub asked_by: SubjectName,
    /// When.
    pub asked_at: Timestamp,
    /// Somebody else has approved it.
    pub approved: bool,
}

impl Erasure {
    /// The moment from which it can no longer be approved.
    pub fn expires(&self) -> Timestamp {
        self.asked_at.saturating_add(APPROVAL_TIME)
    }

    fn is_open(&self, now: Timestamp) -> bool {
        self.approved || now < self.expires()
    }
}

impl Authority {
    /// The erasures that wait for approval at `now`, or to be done.
    pub fn erasures(&self, now: Timestamp) -> impl Iterator<Item = (&ErasureId, &Erasure)> {
        self.state
            .erasures
            .iter()
            .filter(move |(_, erasure)| erasure.is_open(now))
    }

    /// An erasure that was asked for and is not done.
    pub fn erasure(&self, erasure: &ErasureId) -> Option<&Erasure> {
        self.state.erasures.get(erasure)
    }

    pub(super) fn erase(&self, step: &ErasureStep, now: Timestamp) -> Decision {
        match step {
            ErasureStep::Request {
                session,
                erasure,
                subject,
            } => self.request_erasure(session, erasure, subject, now),
            ErasureStep::Approve { session, erasure } => {
                self.approve_erasure(session, erasure, now)
            }
            ErasureStep::Finish {
                erasure,
                keys,
                entries,
                before,
            } => match self.erasure(erasure) {
                Some(known) if known.approved => Decision::done(vec![Event::ErasureDone {
                    erasure: erasure.clone(),
                    subject: known.subject.clone(),
                    keys: *keys,
                    entries: *entries,
                    before: *before,
                }]),
                Some(_) => refused(ErasureRefusal::NotApproved),
                None => refused(ErasureRefusal::Unknown),
            },
        }
    }

    fn request_erasure(
        &self,
        session: &SessionId,
        erasure: &ErasureId,
        subject: &SubjectName,
        now: Timestamp,
    ) -> Decision {
        self.where_live(session, now, |held| {
            let same = self
                .erasures(now)
                .find(|(_, open)| open.subject == *subject);
            let refusal = if held.session.subject == *subject {
                ErasureRefusal::Own
            } else if let Some((open, _)) = same {
                ErasureRefusal::Open(open.clone())
            } else if self.erasure(erasure).is_some() {
                ErasureRefusal::Taken
            } else if self.erasures(now).count() >= OPEN_MAX {
                ErasureRefusal::TooMany
            } else if !self.may_erase(session, now) {
                ErasureRefusal::NoPermit
            } else {
                return Decision::done(vec![Event::ErasureRequested {
                    session: session.clone(),
                    erasure: erasure.clone(),
                    subject: subject.clone(),
                }]);
            };
            refused(refusal)
        })
    }

    fn approve_erasure(
        &self,
        session: &SessionId,
        erasure: &ErasureId,
        now: Timestamp,
    ) -> Decision {
        self.where_live(session, now, |held| {
            let known = self.erasure(erasure).filter(|known| known.is_open(now));
            let refusal = match known {
                None => ErasureRefusal::Unknown,
                Some(known) if known.approved => ErasureRefusal::Approved,
                Some(known) if known.subject == held.session.subject => ErasureRefusal::Own,
                Some(known) if known.asked_by == held.session.subject => ErasureRefusal::SamePerson,
                Some(_) if !self.may_erase(session, now) => ErasureRefusal::NoPermit,
                Some(_) => {
                    return Decision::done(vec![Event::ErasureApproved {
                        session: session.clone(),
                        erasure: erasure.clone(),
                    }]);
                }
            };
            refused(refusal)
        })
    }

    /// Whether the session has a permit to take a step of an erasure that it has not used.
    fn may_erase(&self, session: &SessionId, now: Timestamp) -> bool {
        let permit = self.state.erase_permits.get(session);
        permit.is_some_and(|at| now.saturating_since(*at) <= PERMIT_LIFE)
    }

    /// An action was allowed: perhaps one step of an erasure.
    pub(super) fn permit_erasing(&mut self, session: &SessionId, verb: Verb, time: Timestamp) {
        if verb == Verb::LogErase {
            let permits = &mut self.state.erase_permits;
            permits.retain(|_, at| time.saturating_since(*at) <= PERMIT_LIFE);
            permits.insert(session.clone(), time);
        }
    }

    /// Takes in permits that an earlier form of the auditor kept elsewhere.
    pub(crate) fn adopt_erase_permits(&mut self, permits: BTreeMap<SessionId, Timestamp>) {
        self.state.erase_permits.extend(permits);
    }

    /// Lets what was recorded of an erasure take effect.
    pub(super) fn apply_erasure(&mut self, event: &Event, time: Timestamp) {
        if let Event::ErasureRequested { session, .. } | Event::ErasureApproved { session, .. } =
            event
        {
            self.state.erase_permits.remove(session);
        }
        if let Event::ErasureRequested {
            session,
            erasure,
            subject,
        } = event
        {
            let asked_by = self.session(session).map(|live| live.subject.clone());
            if let Some(asked_by) = asked_by {
                let asked = Erasure {
                    subject: subject.clone(),
                    asked_by,
                    asked_at: time,
                    approved: false,
                };
                self.state.erasures.entry(erasure.clone()).or_insert(asked);
            }
        } else if let Event::ErasureApproved { erasure, .. } = event {
            if let Some(known) = self.state.erasures.get_mut(erasure) {
                known.approved = true;
            }
        } else if let Event::ErasureDone { erasure, .. } = event {
            self.state.erasures.remove(erasure);
        }
    }
}

fn refused(refusal: ErasureRefusal) -> Decision {
    Decision::refused(Refusal::Erasure(refusal))
}
