//! How each recorded entry takes effect. The only place where state changes.

use curfew_entry::{
    AccountChange, ActionDetail, Credential, CredentialClass, CredentialId, EndReason, Entry,
    Event, Limits, LiveSession, Proof, Resource, SessionId, SubjectName, Timestamp,
};

use super::bounds::CREDENTIALS_KEPT_MAX;
use super::change::Reconsidered;
use super::connections::Connections;
use super::{Authority, Held, Issued, Started, Tombstone, is_forgotten, with_gateway};
use crate::policy::Policy;

impl Authority {
    /// Lets one recorded entry take effect, the next in the log. Entries that make no sense change
    /// nothing but time; the [`crate::Auditor`] finds them.
    pub fn apply(&mut self, entry: &Entry) {
        self.apply_at(self.state.entries, entry);
    }

    /// Lets the entry at `index` of the log take effect.
    pub(crate) fn apply_at(&mut self, index: u64, entry: &Entry) {
        let time = entry.time;
        self.state.time = self.state.time.max(time);
        self.count(&entry.event);
        self.pass_connections(&entry.event, time);
        self.forget(time);
        self.note(&entry.event, time);
        match &entry.event {
            Event::LogOpened { .. } => self.state.opened = true,
            Event::PolicyLoaded { text, .. } => self.load_policy_text(text, time),
            Event::ResourcesLoaded { resources } => self.replace_resources(resources, time),
            Event::AccountChanged {
                subject, change, ..
            } => self.change_account(subject, change, time),
            Event::SessionStarted { .. } => self.start(&entry.event, time),
            Event::SessionReauthenticated { session, proof } => {
                self.reauthenticate(session, proof, time);
            }
            Event::SessionActive { session, active_at } => self.touch(session, *active_at),
            Event::SessionLimited {
                session, limits, ..
            } => self.limit(session, *limits),
            Event::AttemptsSummarized(_) => self.state.summarized = time,
            Event::SessionEnded {
                session,
                reason,
                effective,
                ..
            } => self.end(session, *reason, *effective, time),
            Event::CredentialIssued {
                session,
                credential,
            } => self.issue(session, credential, time),
            Event::CredentialRevoked {
                session,
                credential,
            } => self.revoke(session, credential),
            Event::ActionAllowed { .. } => self.allow(&entry.event, index, time),
            Event::ActionDenied {
                session, action, ..
            } => self.act(session, action, time),
            Event::ActionClosed(closed) => self.close_connection(&closed.session, closed.action),
            Event::GatewayStarted { .. } => self.close_all_connections(),
            // Not activity: otherwise asking twice would heal the idle limit that the first asking
            // had found passed. The re-authentication it leads to is.
            Event::ActionSteppedUp { .. }
            | Event::GatewayStopped {}
            | Event::ClockStepped { .. }
            | Event::SignInRefused { .. }
            | Event::SessionUsedAfterEnd { .. }
            | Event::CredentialUnknown { .. }
            | Event::CredentialRefused { .. }
            | Event::RecordingFailed { .. }
            | Event::RecordingResumed { .. }
            | Event::LogWitnessed { .. }
            | Event::LogKeyRotated { .. }
            | Event::ClockSyncChanged { .. }
            | Event::LogQuorumLost { .. }
            | Event::LogQuorumMet { .. }
            | Event::LogSigningFailed { .. }
            | Event::LogSigningResumed { .. }
            | Event::LogTimestamped(_)
            | Event::LogTimestampsStopped { .. }
            | Event::LogTimestampsResumed { .. }
            | Event::LogArchivingFailed(_)
            | Event::LogArchivingResumed { .. }
            | Event::LogPruned(_) => {}
            Event::ErasureRequested { .. }
            | Event::ErasureApproved { .. }
            | Event::ErasureDone { .. } => self.apply_erasure(&entry.event, time),
        }
    }

    /// The entry at `index` allowed an action.
    fn allow(&mut self, event: &Event, index: u64, time: Timestamp) {
        if let Event::ActionAllowed {
            session,
            action,
            demands,
            ..
        } = event
        {
            self.open_connection(session, action.verb, *demands, index);
            self.permit_erasing(session, action.verb, time);
            self.act(session, action, time);
        }
    }

    /// A request by the person, whether or not it was allowed, is activity.
    fn act(&mut self, session: &SessionId, action: &ActionDetail, time: Timestamp) {
        if !action.passive {
            self.touch(session, time);
        }
    }

    /// What the log says of itself and its keeper.
    fn note(&mut self, event: &Event, time: Timestamp) {
        let state = &mut self.state;
        if let Event::GatewayStarted {
            boot_id,
            boot_us,
            wall,
            ..
        } = event
        {
            state.synced = wall.map(|wall| wall.synced);
            state.last_start = Some(Started {
                time,
                boot_id: boot_id.clone(),
                boot_us: *boot_us,
            });
        } else if let Event::ClockSyncChanged { wall } = event {
            state.synced = Some(wall.synced);
        } else if let Event::LogQuorumLost { .. } | Event::LogQuorumMet { .. } = event {
            state.quorum_lost = matches!(event, Event::LogQuorumLost { .. });
        } else if let Event::LogSigningFailed { size, .. } = event {
            state.unsigned_from = Some(*size);
        } else if let Event::LogSigningResumed { .. } = event {
            state.unsigned_from = None;
        } else if let Event::LogTimestamped(told) = event {
            state.stamped = Some((told.size, time));
        } else if let Event::LogTimestampsStopped { .. } | Event::LogTimestampsResumed { .. } =
            event
        {
            state.stamps_stopped = matches!(event, Event::LogTimestampsStopped { .. });
        } else if let Event::LogArchivingFailed(_) | Event::LogArchivingResumed { .. } = event {
            state.archiving_failed = matches!(event, Event::LogArchivingFailed(_));
        } else if let Event::LogPruned(told) = event {
            state.pruned = told.size;
        }
    }

    fn replace_resources(&mut self, resources: &[Resource], time: Timestamp) {
        self.state.resources = with_gateway(resources.to_vec());
        self.reconsider(time);
    }

    fn load_policy_text(&mut self, text: &str, time: Timestamp) {
        // A text that cannot be read permits nothing.
        self.state.policy = Policy::parse("policy", text).ok();
        self.reconsider(time);
    }

    /// Other rules hold from here on, for every session: its new limits, or that it may do nothing
    /// more. The entries that say so for each may come later.
    fn reconsider(&mut self, time: Timestamp) {
        self.rulings().clear();
        let changes = self.reconsidered(self.policy(), &self.state.resources, time);
        let changes = changes.into_iter();
        let changes: Vec<_> = changes
            .map(|(held, change)| (held.session.id.clone(), change))
            .collect();
        for (session, change) in changes {
            let Some(held) = self.state.sessions.get_mut(&session) else {
                continue;
            };
            match change {
                Reconsidered::Limited { limits, rules } => {
                    held.session.limits = limits;
                    self.state.unsaid.insert(session, rules);
                    self.state.unsaid_since = Some(time);
                }
                Reconsidered::Doomed => held.doom(EndReason::PolicyChanged, time),
            }
        }
    }

    fn change_account(&mut self, subject: &SubjectName, change: &AccountChange, time: Timestamp) {
        let doom = match change {
            AccountChange::Added(_) => None,
            AccountChange::Disabled => {
                self.state.disabled.insert(subject.clone());
                Some(EndReason::AccountDisabled)
            }
            AccountChange::Enabled => {
                self.state.disabled.remove(subject);
                None
            }
            AccountChange::PasswordSet | AccountChange::TotpSet => {
                Some(EndReason::CredentialChanged)
            }
        };
        let Some(reason) = doom else { return };
        let sessions = self.state.by_subject.get(subject).cloned();
        for session in sessions.into_iter().flatten() {
            if let Some(held) = self.state.sessions.get_mut(&session) {
                held.doom(reason, time);
            }
        }
    }

    fn start(&mut self, event: &Event, time: Timestamp) {
        let Event::SessionStarted {
            session,
            subject,
            roles,
            proof,
            context,
            limits,
            rules: _,
        } = event
        else {
            return;
        };
        if self.state.sessions.contains_key(session) {
            return;
        }
        let held = Held {
            session: LiveSession {
                id: session.clone(),
                subject: subject.clone(),
                roles: roles.clone(),
                proof: proof.clone(),
                context: context.clone(),
                limits: *limits,
                started_at: time,
                authenticated_at: proof.at.min(time),
                active_at: time,
            },
            number: self.state.started,
            credentials: Vec::new(),
            doomed: None,
            doomed_at: Timestamp::default(),
            connections: Connections::default(),
        };
        self.state.started += 1;
        self.state
            .by_subject
            .entry(subject.clone())
            .or_default()
            .insert(session.clone());
        self.state.sessions.insert(session.clone(), held);
    }

    fn reauthenticate(&mut self, session: &SessionId, proof: &Proof, time: Timestamp) {
        let Some(held) = self.state.sessions.get_mut(session) else {
            return;
        };
        held.session.renew(proof, time);
        for hash in &held.credentials {
            if let Some(issued) = self.state.credentials.get_mut(hash)
                && issued.credential.class == CredentialClass::Cookie
            {
                issued.revoked = true;
            }
        }
    }

    fn limit(&mut self, session: &SessionId, limits: Limits) {
        if let Some(held) = self.state.sessions.get_mut(session) {
            held.session.limits = limits;
        }
        self.state.said(session);
    }

    fn touch(&mut self, session: &SessionId, active_at: Timestamp) {
        if let Some(held) = self.state.sessions.get_mut(session) {
            held.session.active_at = held.session.active_at.max(active_at);
        }
    }

    fn end(
        &mut self,
        session: &SessionId,
        reason: EndReason,
        effective: Timestamp,
        time: Timestamp,
    ) {
        let Some(held) = self.state.sessions.remove(session) else {
            return;
        };
        self.state.said(session);
        let subject = &held.session.subject;
        if let Some(sessions) = self.state.by_subject.get_mut(subject) {
            sessions.remove(session);
            if sessions.is_empty() {
                self.state.by_subject.remove(subject);
            }
        }
        let tombstone = Tombstone {
            reason,
            effective,
            view: held.view(Some(reason)),
            credentials: held.credentials,
            connections: held.connections,
        };
        self.state.tombstones.insert(session.clone(), tombstone);
        self.state.burials.push_back((time, session.clone()));
    }

    fn issue(&mut self, session: &SessionId, credential: &Credential, time: Timestamp) {
        let Some(held) = self.state.sessions.get_mut(session) else {
            return;
        };
        if self.state.credentials.contains_key(&credential.hash) {
            return;
        }
        if held.credentials.len() >= CREDENTIALS_KEPT_MAX {
            let dead = held.credentials.iter().position(|hash| {
                let issued = self.state.credentials.get(hash);
                !issued.is_some_and(|issued| issued.live(time))
            });
            if let Some(dead) = dead {
                let hash = held.credentials.remove(dead);
                self.state.credentials.remove(&hash);
            }
        }
        held.credentials.push(credential.hash.clone());
        let issued = Issued {
            session: session.clone(),
            credential: credential.clone(),
            revoked: false,
        };
        self.state
            .credentials
            .insert(credential.hash.clone(), issued);
    }

    fn revoke(&mut self, session: &SessionId, credential: &CredentialId) {
        let Some(held) = self.state.sessions.get(session) else {
            return;
        };
        for hash in &held.credentials {
            if let Some(issued) = self.state.credentials.get_mut(hash)
                && issued.credential.id == *credential
            {
                issued.revoked = true;
            }
        }
    }

    /// Forgets the sessions whose ends are old enough, and erasures that nobody approved.
    fn forget(&mut self, now: Timestamp) {
        self.state
            .erasures
            .retain(|_, erasure| erasure.approved || now < erasure.expires());
        while let Some((ended, _)) = self.state.burials.front()
            && is_forgotten(*ended, now)
        {
            let Some((_, session)) = self.state.burials.pop_front() else {
                return;
            };
            let Some(tombstone) = self.state.tombstones.remove(&session) else {
                continue;
            };
            for hash in &tombstone.credentials {
                self.state.credentials.remove(hash);
            }
        }
    }
}
