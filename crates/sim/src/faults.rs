//! Faults to plant in an honest history. The auditor must find each.

use curfew_authority::{Finding, FindingKind};
use curfew_entry::{
    AccountChange, Actor, ClosedBy, DenialCause, EndReason, Entry, Event, PolicyDigest, SessionId,
    Span, Timestamp,
};

use crate::prng::Prng;

/// One way in which a log can be wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// The log does not begin with its opening.
    OpeningDropped,
    /// Two neighbours' times are exchanged.
    TimesFlipped,
    /// An action is moved to behind its session's end.
    ActionAfterEnd,
    /// A session's start is missing.
    StartDropped,
    /// A session starts twice.
    StartRepeated,
    /// A session starts with longer limits.
    LimitsStretched,
    /// A session starts for an account disabled before.
    DisabledBefore,
    /// A session's end is missing.
    EndDropped,
    /// A session ends twice.
    EndRepeated,
    /// A session that a clock ended is said to have signed out.
    EndReasonChanged,
    /// The deadline of an end is moved, and its lateness with it.
    EndDeadlineMoved,
    /// An allowed action names another rule.
    RulesChanged,
    /// An allowed action's demands are left out.
    DemandsDropped,
    /// A refusal is made a permission.
    DenialAllowed,
    /// A step-up is made a permission.
    StepUpAllowed,
    /// A permission is made a refusal.
    AllowanceDenied,
    /// A policy's digest is another's.
    DigestChanged,
    /// New limits of a live session are left out.
    LimitedDropped,
    /// Activity is noted for later than when it was noted.
    ActivityMoved,
    /// A credential is issued again after its session's end.
    CredentialAfterEnd,
    /// A revocation after a re-authentication is missing.
    RevocationDropped,
    /// A connection closes that was not opened.
    CloseInvented,
    /// A connection closes twice.
    CloseRepeated,
    /// A cut's lateness is not what its moments say.
    CutLate,
    /// A cut did not come; the client went later, after more activity.
    CutForgotten,
}

/// A history with a fault.
#[derive(Debug)]
pub struct Planted {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Where the fault is.
    pub index: usize,
    /// One of these must be found…
    pub kinds: Vec<FindingKind>,
    /// …about this session, where it is about one…
    pub session: Option<SessionId>,
    /// …when the log is read until then.
    pub until: Timestamp,
}

/// A kind of finding a fault may lead to.
use FindingKind as Kind;

impl Planted {
    /// Whether a finding is of the fault.
    pub fn is_hit(&self, finding: &Finding) -> bool {
        self.kinds.contains(&finding.kind)
            && (self.session.is_none() || finding.session == self.session)
    }
}

/// Longer than any session may live.
const FOREVER: Span = Span::from_secs(31 * 24 * 60 * 60);

impl Fault {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::OpeningDropped,
        Self::TimesFlipped,
        Self::ActionAfterEnd,
        Self::StartDropped,
        Self::StartRepeated,
        Self::LimitsStretched,
        Self::DisabledBefore,
        Self::EndDropped,
        Self::EndRepeated,
        Self::EndReasonChanged,
        Self::EndDeadlineMoved,
        Self::RulesChanged,
        Self::DemandsDropped,
        Self::DenialAllowed,
        Self::StepUpAllowed,
        Self::AllowanceDenied,
        Self::DigestChanged,
        Self::LimitedDropped,
        Self::ActivityMoved,
        Self::CredentialAfterEnd,
        Self::RevocationDropped,
        Self::CloseInvented,
        Self::CloseRepeated,
        Self::CutLate,
        Self::CutForgotten,
    ];

    /// Plants it somewhere in a copy; `None` where there is no place for it.
    pub fn plant(self, honest: &[Entry], prng: &mut Prng) -> Option<Planted> {
        let places: Vec<usize> = (0..honest.len())
            .filter(|place| self.fits(honest, *place))
            .collect();
        let index = *prng.pick(&places)?;
        let mut entries = honest.to_vec();
        let (kinds, session) = self.alter(&mut entries, index, honest)?;
        let until = entries.last()?.time.saturating_add(FOREVER);
        Some(Planted {
            entries,
            index,
            kinds,
            session,
            until,
        })
    }

    /// Whether it can be planted at a place.
    fn fits(self, entries: &[Entry], place: usize) -> bool {
        let Some(entry) = entries.get(place) else {
            return false;
        };
        let event = &entry.event;
        match self {
            Self::OpeningDropped => place == 0,
            Self::TimesFlipped => entries
                .get(place + 1)
                .is_some_and(|next| next.time > entry.time),
            Self::ActionAfterEnd => {
                matches!(event, Event::ActionAllowed { .. }) && end_of(entries, place).is_some()
            }
            // Of a session that nothing else is said of nobody could miss the start.
            Self::StartDropped => {
                let later = entries.get(place + 1..).unwrap_or_default().iter();
                let mut sessions = later.map(|entry| session_of(&entry.event));
                matches!(event, Event::SessionStarted { .. })
                    && sessions.any(|session| session == session_of(event))
            }
            Self::StartRepeated | Self::LimitsStretched => {
                matches!(event, Event::SessionStarted { .. })
            }
            Self::DisabledBefore => matches!(event, Event::SessionStarted { .. }),
            Self::EndDropped | Self::EndRepeated => matches!(event, Event::SessionEnded { .. }),
            Self::EndReasonChanged | Self::EndDeadlineMoved => {
                matches!(
                    event,
                    Event::SessionEnded {
                        deadline: Some(_),
                        ..
                    }
                )
            }
            Self::RulesChanged | Self::AllowanceDenied => {
                matches!(event, Event::ActionAllowed { .. })
            }
            Self::DemandsDropped => {
                matches!(event, Event::ActionAllowed { demands, .. } if *demands != Default::default())
            }
            Self::DenialAllowed => matches!(event, Event::ActionDenied { .. }),
            Self::StepUpAllowed => matches!(event, Event::ActionSteppedUp { .. }),
            Self::DigestChanged => matches!(event, Event::PolicyLoaded { .. }),
            // Where the gateway was interrupted the limits come again after its start.
            Self::LimitedDropped => {
                matches!(event, Event::SessionLimited { .. }) && goes_on(entries, place)
            }
            Self::ActivityMoved => matches!(event, Event::SessionActive { .. }),
            Self::CredentialAfterEnd => {
                matches!(event, Event::CredentialIssued { .. }) && end_of(entries, place).is_some()
            }
            Self::RevocationDropped => {
                matches!(event, Event::CredentialRevoked { .. })
                    && goes_on(entries, place)
                    && place
                        .checked_sub(1)
                        .and_then(|before| entries.get(before))
                        .is_some_and(|before| {
                            matches!(before.event, Event::SessionReauthenticated { .. })
                        })
            }
            Self::CloseInvented | Self::CloseRepeated => matches!(event, Event::ActionClosed(_)),
            Self::CutLate => {
                matches!(event, Event::ActionClosed(closed) if closed.deadline.is_some())
            }
            Self::CutForgotten => activity_after_cut(entries, place).is_some(),
        }
    }

    /// Alters the copy. What must be found, and about whom.
    #[allow(clippy::too_many_lines, reason = "a table of faults")]
    fn alter(
        self,
        entries: &mut Vec<Entry>,
        index: usize,
        honest: &[Entry],
    ) -> Option<(Vec<Kind>, Option<SessionId>)> {
        let session = session_of(&entries.get(index)?.event).cloned();
        let kinds = match self {
            Self::OpeningDropped => {
                entries.remove(index);
                vec![Kind::LogNotOpened]
            }
            Self::TimesFlipped => {
                let next = entries.get(index + 1)?.time;
                let this = std::mem::replace(&mut entries.get_mut(index)?.time, next);
                entries.get_mut(index + 1)?.time = this;
                return Some((vec![Kind::TimeRunsBack], None));
            }
            Self::ActionAfterEnd | Self::CredentialAfterEnd => {
                let end = end_of(honest, index)?;
                let mut moved = entries.get(index)?.clone();
                moved.time = entries.get(end)?.time;
                entries.insert(end + 1, moved);
                vec![Kind::OutsideSession]
            }
            Self::StartDropped => {
                entries.remove(index);
                vec![Kind::OutsideSession, Kind::EndWithoutStart]
            }
            Self::StartRepeated => {
                let again = entries.get(index)?.clone();
                entries.insert(index + 1, again);
                vec![Kind::StartedTwice]
            }
            Self::LimitsStretched => {
                if let Event::SessionStarted { limits, .. } = &mut entries.get_mut(index)?.event {
                    limits.idle = limits.lifetime.max(Span::from_secs(1));
                    limits.lifetime = FOREVER;
                }
                vec![Kind::LimitsWrong]
            }
            Self::DisabledBefore => {
                let start = entries.get(index)?.clone();
                let Event::SessionStarted { subject, .. } = start.event else {
                    return None;
                };
                let event = Event::AccountChanged {
                    subject,
                    change: AccountChange::Disabled,
                    by: Actor::Host("root".to_owned()),
                };
                let time = start.time;
                entries.insert(index, Entry { time, event });
                vec![Kind::AccountDisabled]
            }
            Self::EndDropped => {
                entries.remove(index);
                vec![Kind::EndMissing]
            }
            Self::EndRepeated => {
                let again = entries.get(index)?.clone();
                entries.insert(index + 1, again);
                vec![Kind::EndedTwice]
            }
            Self::EndReasonChanged => {
                if let Event::SessionEnded { reason, .. } = &mut entries.get_mut(index)?.event {
                    *reason = EndReason::SignedOut;
                }
                vec![Kind::EndWrong]
            }
            Self::EndDeadlineMoved => {
                if let Event::SessionEnded { deadline, late, .. } =
                    &mut entries.get_mut(index)?.event
                {
                    *deadline = deadline.map(|at| at.saturating_add(Span::from_micros(1)));
                    *late = late.map(|late| Span::from_micros(late.as_micros().saturating_sub(1)));
                }
                vec![Kind::EndWrong]
            }
            Self::RulesChanged => {
                if let Event::ActionAllowed { rules, .. } = &mut entries.get_mut(index)?.event {
                    *rules = vec!["other".parse().ok()?];
                }
                vec![Kind::WrongRuling]
            }
            Self::DemandsDropped => {
                if let Event::ActionAllowed { demands, .. } = &mut entries.get_mut(index)?.event {
                    *demands = Default::default();
                }
                vec![Kind::WrongRuling]
            }
            Self::DenialAllowed | Self::StepUpAllowed => {
                let entry = entries.get_mut(index)?;
                let (Event::ActionDenied {
                    session,
                    action,
                    rules,
                    ..
                }
                | Event::ActionSteppedUp {
                    session,
                    action,
                    rules,
                    ..
                }) = entry.event.clone()
                else {
                    return None;
                };
                entry.event = Event::ActionAllowed {
                    session,
                    action,
                    rules,
                    demands: Default::default(),
                };
                vec![Kind::NotPermitted]
            }
            Self::AllowanceDenied => {
                let entry = entries.get_mut(index)?;
                let Event::ActionAllowed {
                    session,
                    action,
                    rules,
                    ..
                } = entry.event.clone()
                else {
                    return None;
                };
                entry.event = Event::ActionDenied {
                    session,
                    action,
                    cause: DenialCause::NotPermitted,
                    rules,
                };
                vec![Kind::WrongRuling]
            }
            Self::DigestChanged => {
                if let Event::PolicyLoaded { digest, .. } = &mut entries.get_mut(index)?.event {
                    *digest = PolicyDigest::from_sha256([7; 32]);
                }
                vec![Kind::PolicyDigestWrong]
            }
            Self::LimitedDropped => {
                entries.remove(index);
                vec![Kind::LimitsWrong]
            }
            Self::ActivityMoved => {
                let entry = entries.get_mut(index)?;
                if let Event::SessionActive { active_at, .. } = &mut entry.event {
                    *active_at = entry.time.saturating_add(Span::from_micros(1));
                }
                vec![Kind::ActivityWrong]
            }
            Self::RevocationDropped => {
                entries.remove(index);
                vec![Kind::RevocationMissing]
            }
            Self::CloseInvented => {
                if let Event::ActionClosed(closed) = &mut entries.get_mut(index)?.event {
                    // The opening of the log opened no connection.
                    closed.action = 0;
                }
                vec![Kind::CloseWithoutOpen]
            }
            Self::CloseRepeated => {
                let again = entries.get(index)?.clone();
                entries.insert(index + 1, again);
                vec![Kind::ClosedTwice]
            }
            Self::CutLate => {
                let entry = entries.get_mut(index)?;
                if let Event::ActionClosed(closed) = &mut entry.event {
                    closed.late = Some(Span::from_secs(3_600));
                }
                vec![Kind::CloseWrong]
            }
            Self::CutForgotten => {
                let later = activity_after_cut(honest, index)?;
                let mut entry = entries.remove(index);
                entry.time = honest.get(later)?.time;
                if let Event::ActionClosed(closed) = &mut entry.event {
                    closed.by = ClosedBy::Client;
                    closed.deadline = None;
                    closed.late = None;
                    closed.closed = entry.time;
                }
                // One entry less stands before it.
                entries.insert(later, entry);
                vec![Kind::CloseLate]
            }
        };
        Some((kinds, session))
    }
}

/// Where the session of the entry at `place` ends.
fn end_of(entries: &[Entry], place: usize) -> Option<usize> {
    let session = session_of(&entries.get(place)?.event)?;
    let after = entries.get(place..)?.iter();
    let end = after.into_iter().position(
        |entry| matches!(&entry.event, Event::SessionEnded { session: ended, .. } if ended == session),
    )?;
    Some(place + end)
}

/// Where, well after the connection that closes at `place` had been cut, its session is active.
fn activity_after_cut(entries: &[Entry], place: usize) -> Option<usize> {
    let Event::ActionClosed(closed) = &entries.get(place)?.event else {
        return None;
    };
    let late = closed.deadline?.at.saturating_add(Span::from_secs(2));
    let opened = entries.get(usize::try_from(closed.action).ok()?)?;
    let Event::ActionAllowed { action, .. } = &opened.event else {
        return None;
    };
    if !action.verb.as_str().ends_with(".connect") {
        return None;
    }
    // Activity noted late, between the cut and when it was told, would excuse it.
    let opened = usize::try_from(closed.action).ok()?;
    let before = entries.get(opened..place)?.iter();
    let excused = before
        .filter(|entry| closed.deadline.is_some_and(|deadline| deadline.at <= entry.time))
        .any(|entry| matches!(&entry.event, Event::SessionActive { session, .. } if *session == closed.session));
    if excused {
        return None;
    }
    let until = end_of(entries, place).unwrap_or(entries.len());
    // Activity noted late would excuse it, and a restart closes everything.
    let same_run = entries
        .get(place..until)?
        .iter()
        .position(|entry| {
            matches!(entry.event, Event::GatewayStarted { .. })
                || matches!(&entry.event, Event::SessionActive { session, .. } if *session == closed.session)
        })
        .map_or(until, |start| place + start);
    (place..same_run).find(|later| {
        entries.get(*later).is_some_and(|entry| {
            let active = matches!(
                &entry.event,
                Event::ActionAllowed { session, action, .. }
                    if *session == closed.session && !action.passive
            );
            active && entry.time > late
        })
    })
}

/// Whether the gateway went on after the entry at `place`.
fn goes_on(entries: &[Entry], place: usize) -> bool {
    entries
        .get(place + 1)
        .is_some_and(|next| !matches!(next.event, Event::GatewayStarted { .. }))
}

/// The session an entry is about.
fn session_of(event: &Event) -> Option<&SessionId> {
    match event {
        Event::SessionStarted { session, .. }
        | Event::SessionReauthenticated { session, .. }
        | Event::SessionActive { session, .. }
        | Event::SessionLimited { session, .. }
        | Event::SessionEnded { session, .. }
        | Event::SessionUsedAfterEnd { session, .. }
        | Event::CredentialIssued { session, .. }
        | Event::CredentialRevoked { session, .. }
        | Event::CredentialRefused { session, .. }
        | Event::ActionAllowed { session, .. }
        | Event::ActionSteppedUp { session, .. }
        | Event::ActionDenied { session, .. } => Some(session),
        Event::ActionClosed(closed) => Some(&closed.session),
        Event::LogOpened { .. }
        | Event::GatewayStarted { .. }
        | Event::GatewayStopped {}
        | Event::ClockStepped { .. }
        | Event::ClockSyncChanged { .. }
        | Event::PolicyLoaded { .. }
        | Event::ResourcesLoaded { .. }
        | Event::AccountChanged { .. }
        | Event::SignInRefused { .. }
        | Event::CredentialUnknown { .. }
        | Event::AttemptsSummarized(_)
        | Event::RecordingFailed { .. }
        | Event::RecordingResumed { .. }
        | Event::ErasureRequested { .. }
        | Event::ErasureApproved { .. }
        | Event::ErasureDone { .. }
        | Event::LogWitnessed { .. }
        | Event::LogQuorumLost { .. }
        | Event::LogQuorumMet { .. }
        | Event::LogSigningFailed { .. }
        | Event::LogSigningResumed { .. }
        | Event::LogTimestamped(_)
        | Event::LogTimestampsStopped { .. }
        | Event::LogTimestampsResumed { .. }
        | Event::LogArchivingFailed(_)
        | Event::LogArchivingResumed { .. }
        | Event::LogPruned(_)
        | Event::LogKeyRotated { .. } => None,
    }
}
