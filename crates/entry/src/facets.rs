//! What an entry is about, in the terms by which people look for entries.
//!
//! Every kind of entry is named here, so that a new one cannot be forgotten: without its arm the
//! code does not compile.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::event::{ActionDetail, Actor, Event};
use crate::ids::{ResourceName, SessionId, SubjectName};
use crate::resource::Verb;

/// What an entry says of who, what and where. Anything else in it is text.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Facets<'e> {
    /// Whose session it happened in, or happened to.
    pub session: Option<&'e SessionId>,
    /// Another session that it is about: the target of an action.
    pub target: Option<&'e SessionId>,
    /// The session that somebody acted from on something else.
    pub actor: Option<&'e SessionId>,
    /// The subject that the entry itself names. Most do not: their session's start does.
    pub subject: Option<&'e SubjectName>,
    /// The resource.
    pub resource: Option<&'e ResourceName>,
    /// What was asked to be done.
    pub verb: Option<Verb>,
    /// From where.
    pub address: Option<IpAddr>,
}

impl<'e> Facets<'e> {
    /// The sessions named, in the order of the fields.
    pub fn sessions(&self) -> impl Iterator<Item = &'e SessionId> {
        [self.session, self.target, self.actor]
            .into_iter()
            .flatten()
    }

    fn of_session(session: &'e SessionId) -> Self {
        Self {
            session: Some(session),
            ..Self::default()
        }
    }

    fn of_action(session: &'e SessionId, action: &'e ActionDetail) -> Self {
        Self {
            target: action.target.as_ref(),
            resource: Some(&action.resource),
            verb: Some(action.verb),
            address: action.context.as_ref().map(|context| context.address),
            ..Self::of_session(session)
        }
    }

    fn at(self, address: IpAddr) -> Self {
        Self {
            address: Some(address),
            ..self
        }
    }
}

fn session_of(actor: &Actor) -> Option<&SessionId> {
    match actor {
        Actor::Session(session) => Some(session),
        Actor::Host(_) => None,
    }
}

impl Event {
    /// The JSON `kind` of every kind there is.
    pub const KINDS: &[&'static str] = &[
        "log.opened",
        "gateway.started",
        "gateway.stopped",
        "clock.stepped",
        "clock.sync_changed",
        "policy.loaded",
        "resources.loaded",
        "account.changed",
        "sign_in.refused",
        "session.started",
        "session.reauthenticated",
        "session.active",
        "session.limited",
        "session.ended",
        "session.used_after_end",
        "credential.issued",
        "credential.revoked",
        "credential.unknown",
        "credential.refused",
        "attempts.summarized",
        "action.allowed",
        "action.stepped_up",
        "action.denied",
        "action.closed",
        "recording.failed",
        "recording.resumed",
        "erasure.requested",
        "erasure.approved",
        "erasure.done",
        "log.witnessed",
        "log.quorum_lost",
        "log.quorum_met",
        "log.signing_failed",
        "log.signing_resumed",
        "log.timestamped",
        "log.timestamps_stopped",
        "log.timestamps_resumed",
        "log.archiving_failed",
        "log.archiving_resumed",
        "log.pruned",
        "log.key_rotated",
    ];

    /// The JSON `kind`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::LogOpened { .. } => "log.opened",
            Self::GatewayStarted { .. } => "gateway.started",
            Self::GatewayStopped {} => "gateway.stopped",
            Self::ClockStepped { .. } => "clock.stepped",
            Self::ClockSyncChanged { .. } => "clock.sync_changed",
            Self::PolicyLoaded { .. } => "policy.loaded",
            Self::ResourcesLoaded { .. } => "resources.loaded",
            Self::AccountChanged { .. } => "account.changed",
            Self::SignInRefused { .. } => "sign_in.refused",
            Self::SessionStarted { .. } => "session.started",
            Self::SessionReauthenticated { .. } => "session.reauthenticated",
            Self::SessionActive { .. } => "session.active",
            Self::SessionLimited { .. } => "session.limited",
            Self::SessionEnded { .. } => "session.ended",
            Self::SessionUsedAfterEnd { .. } => "session.used_after_end",
            Self::CredentialIssued { .. } => "credential.issued",
            Self::CredentialRevoked { .. } => "credential.revoked",
            Self::CredentialUnknown { .. } => "credential.unknown",
            Self::CredentialRefused { .. } => "credential.refused",
            Self::AttemptsSummarized(_) => "attempts.summarized",
            Self::ActionAllowed { .. } => "action.allowed",
            Self::ActionSteppedUp { .. } => "action.stepped_up",
            Self::ActionDenied { .. } => "action.denied",
            Self::ActionClosed(_) => "action.closed",
            Self::RecordingFailed { .. } => "recording.failed",
            Self::RecordingResumed { .. } => "recording.resumed",
            Self::ErasureRequested { .. } => "erasure.requested",
            Self::ErasureApproved { .. } => "erasure.approved",
            Self::ErasureDone { .. } => "erasure.done",
            Self::LogWitnessed { .. } => "log.witnessed",
            Self::LogQuorumLost { .. } => "log.quorum_lost",
            Self::LogQuorumMet { .. } => "log.quorum_met",
            Self::LogSigningFailed { .. } => "log.signing_failed",
            Self::LogSigningResumed { .. } => "log.signing_resumed",
            Self::LogTimestamped(_) => "log.timestamped",
            Self::LogTimestampsStopped { .. } => "log.timestamps_stopped",
            Self::LogTimestampsResumed { .. } => "log.timestamps_resumed",
            Self::LogArchivingFailed(_) => "log.archiving_failed",
            Self::LogArchivingResumed { .. } => "log.archiving_resumed",
            Self::LogPruned(_) => "log.pruned",
            Self::LogKeyRotated { .. } => "log.key_rotated",
        }
    }

    /// Whether it is a note of the log on itself: what others have said of it, or not said.
    pub fn is_note_on_log(&self) -> bool {
        matches!(
            self,
            Self::LogWitnessed { .. }
                | Self::LogQuorumLost { .. }
                | Self::LogQuorumMet { .. }
                | Self::LogTimestamped(_)
                | Self::LogTimestampsStopped { .. }
                | Self::LogTimestampsResumed { .. }
                | Self::LogArchivingFailed(_)
                | Self::LogArchivingResumed { .. }
                | Self::LogPruned(_)
        )
    }

    /// What it is about.
    #[allow(
        clippy::too_many_lines,
        reason = "no wildcard: whoever adds a kind of entry says here what it is about"
    )]
    pub fn facets(&self) -> Facets<'_> {
        match self {
            Self::LogOpened { .. }
            | Self::GatewayStarted { .. }
            | Self::GatewayStopped {}
            | Self::ClockStepped { .. }
            | Self::ClockSyncChanged { .. }
            | Self::PolicyLoaded { .. }
            | Self::ResourcesLoaded { .. }
            | Self::AttemptsSummarized(_)
            | Self::RecordingFailed { .. }
            | Self::RecordingResumed { .. }
            | Self::LogWitnessed { .. }
            | Self::LogQuorumLost { .. }
            | Self::LogQuorumMet { .. }
            | Self::LogSigningFailed { .. }
            | Self::LogSigningResumed { .. }
            | Self::LogTimestamped(_)
            | Self::LogTimestampsStopped { .. }
            | Self::LogTimestampsResumed { .. }
            | Self::LogArchivingFailed(_)
            | Self::LogArchivingResumed { .. }
            | Self::LogPruned(_)
            | Self::LogKeyRotated { .. } => Facets::default(),
            Self::AccountChanged { subject, by, .. } => Facets {
                subject: Some(subject),
                actor: session_of(by),
                ..Facets::default()
            },
            Self::SignInRefused {
                subject, address, ..
            } => Facets {
                subject: subject.as_ref(),
                ..Facets::default().at(*address)
            },
            Self::SessionStarted {
                session,
                subject,
                context,
                ..
            } => Facets {
                subject: Some(subject),
                ..Facets::of_session(session).at(context.address)
            },
            Self::SessionReauthenticated { session, .. }
            | Self::SessionActive { session, .. }
            | Self::SessionLimited { session, .. }
            | Self::CredentialRevoked { session, .. } => Facets::of_session(session),
            Self::SessionEnded { session, by, .. } => Facets {
                actor: by.as_ref().and_then(session_of),
                ..Facets::of_session(session)
            },
            Self::SessionUsedAfterEnd {
                session, address, ..
            } => Facets::of_session(session).at(*address),
            Self::CredentialIssued {
                session,
                credential,
            } => Facets {
                resource: credential.audience.as_ref(),
                ..Facets::of_session(session)
            },
            Self::ErasureRequested {
                session, subject, ..
            } => Facets {
                subject: Some(subject),
                ..Facets::of_session(session)
            },
            Self::ErasureApproved { session, .. } => Facets::of_session(session),
            Self::ErasureDone { subject, .. } => Facets {
                subject: Some(subject),
                ..Facets::default()
            },
            Self::CredentialUnknown { address, .. } => Facets::default().at(*address),
            Self::CredentialRefused {
                session,
                resource,
                address,
                ..
            } => Facets {
                resource: Some(resource),
                ..Facets::of_session(session).at(*address)
            },
            Self::ActionAllowed {
                session, action, ..
            }
            | Self::ActionSteppedUp {
                session, action, ..
            }
            | Self::ActionDenied {
                session, action, ..
            } => Facets::of_action(session, action),
            Self::ActionClosed(closed) => Facets::of_session(&closed.session),
        }
    }
}

/// Whose sessions they are, as far as the entries seen so far tell. Entries name a subject only
/// where the session starts.
#[derive(Clone, Debug, Default)]
pub struct Subjects {
    started: BTreeMap<SessionId, SubjectName>,
}

impl Subjects {
    /// Takes note of an entry's event, in the order of the log.
    pub fn note(&mut self, event: &Event) {
        if let Event::SessionStarted {
            session, subject, ..
        } = event
        {
            self.started.insert(session.clone(), subject.clone());
        }
    }

    /// Whose session this is, if its start was seen and not forgotten.
    pub fn of(&self, session: &SessionId) -> Option<&SubjectName> {
        self.started.get(session)
    }

    /// Sessions remembered.
    pub fn len(&self) -> usize {
        self.started.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.started.is_empty()
    }

    /// Takes note of whose session this is, found elsewhere.
    pub fn learn(&mut self, session: SessionId, subject: SubjectName) {
        self.started.insert(session, subject);
    }

    /// Forgets one session, when nothing more is expected of it.
    pub fn forget(&mut self, session: &SessionId) {
        self.started.remove(session);
    }

    /// Forgets all of them, to keep memory bounded.
    pub fn clear(&mut self) {
        self.started.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Entry;

    const GOLDEN: &str = include_str!("../tests/golden/entries.jsonl");

    #[test]
    fn kind_and_facets_are_those_of_the_json() {
        for line in GOLDEN.lines() {
            let entry = Entry::from_bytes(line.as_bytes()).unwrap();
            assert!(Event::KINDS.contains(&entry.event.kind()), "{line}");
            let json: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = |at: &str| json.pointer(at).and_then(serde_json::Value::as_str);
            assert_eq!(Some(entry.event.kind()), text("/kind"));
            let facets = entry.event.facets();
            assert_eq!(
                facets.session.map(ToString::to_string).as_deref(),
                text("/session")
            );
            assert_eq!(
                facets.target.map(ToString::to_string).as_deref(),
                text("/target")
            );
            assert_eq!(
                facets.actor.map(ToString::to_string).as_deref(),
                text("/by/session")
            );
            assert_eq!(facets.subject.map(SubjectName::as_str), text("/subject"));
            let resource = text("/resource").or(text("/audience"));
            assert_eq!(facets.resource.map(ResourceName::as_str), resource);
            assert_eq!(facets.verb.map(Verb::as_str), text("/verb"));
            let address = text("/address").or(text("/context/address"));
            let found = facets.address.map(|address| address.to_string());
            assert_eq!(found.as_deref(), address, "{line}");
        }
    }

    #[test]
    fn a_start_tells_whose_session_it_is() {
        let mut subjects = Subjects::default();
        for line in GOLDEN.lines() {
            subjects.note(&Entry::from_bytes(line.as_bytes()).unwrap().event);
        }
        assert!(!subjects.is_empty());
        let session = subjects.started.keys().next().unwrap().clone();
        assert!(subjects.of(&session).is_some());
        subjects.forget(&session);
        assert!(subjects.of(&session).is_none());
    }
}
