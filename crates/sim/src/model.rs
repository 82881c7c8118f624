//! The naive model: a list of sessions with three clocks, written anew from the design.
//!
//! It shares no code with the authority but the vocabulary, looks things up by walking the list,
//! and knows no policy: limits and demands are what the entries say.

use curfew_entry::{
    AccountChange, Demands, Entry, Event, Limits, SessionId, Span, SubjectName, Timestamp,
};

/// All sessions there ever were.
#[derive(Debug, Default)]
pub struct Model {
    sessions: Vec<Session>,
}

#[derive(Debug)]
struct Session {
    id: SessionId,
    subject: SubjectName,
    limits: Limits,
    started: u64,
    authenticated: u64,
    active: u64,
    aal: u8,
    ended: bool,
}

fn micros(time: Timestamp) -> u64 {
    time.as_micros()
}

fn least(demand: Option<Span>, limit: Span) -> u64 {
    demand.map_or(limit.as_micros(), |demand| {
        demand.as_micros().min(limit.as_micros())
    })
}

impl Session {
    fn deadline(&self) -> u64 {
        let idle = self.active + self.limits.idle.as_micros();
        let reauth = self.authenticated + self.limits.reauth.as_micros();
        let lifetime = self.started + self.limits.lifetime.as_micros();
        idle.min(reauth).min(lifetime)
    }

    fn within(&self, demands: &Demands, now: u64) -> bool {
        now < self.active + least(demands.idle, self.limits.idle)
            && now < self.authenticated + least(demands.reauth, self.limits.reauth)
            && now < self.started + least(demands.lifetime, self.limits.lifetime)
            && demands
                .assurance
                .is_none_or(|needed| u8::from(needed) <= self.aal)
    }
}

impl Model {
    /// Lets an entry take effect, and checks what it may not contradict.
    ///
    /// # Errors
    ///
    /// The contradiction.
    #[allow(
        clippy::too_many_lines,
        reason = "no wildcard: whoever adds a kind of entry says here what it means"
    )]
    pub fn apply(&mut self, entry: &Entry) -> Result<(), String> {
        let now = micros(entry.time);
        match &entry.event {
            Event::SessionStarted { .. } => self.start(entry, now)?,
            Event::SessionReauthenticated { session, proof } => {
                let known = self.alive(session, now)?;
                known.authenticated = known.authenticated.max(micros(proof.at).min(now));
                known.active = now;
                known.aal = proof.aal.into();
            }
            Event::SessionActive { session, active_at } => {
                let known = self.unended(session)?;
                if micros(*active_at) >= known.deadline() {
                    return Err(format!("{session} is active after its end"));
                }
                known.active = micros(*active_at);
            }
            Event::SessionLimited {
                session, limits, ..
            } => self.unended(session)?.limits = *limits,
            Event::SessionEnded {
                session, deadline, ..
            } => self.end(session, *deadline)?,
            Event::ActionAllowed { .. } | Event::ActionDenied { .. } => self.act(entry, now)?,
            Event::ActionSteppedUp { session, .. }
            | Event::CredentialIssued { session, .. }
            | Event::CredentialRefused { session, .. } => {
                self.alive(session, now)?;
            }
            Event::SessionUsedAfterEnd { session, .. } => {
                let known = self.sessions.iter().find(|known| known.id == *session);
                if !known.is_some_and(|known| known.ended) {
                    return Err(format!("{session} has not ended"));
                }
            }
            Event::AccountChanged {
                subject,
                change: AccountChange::Disabled,
                ..
            } => self.disable(subject, now)?,
            Event::AccountChanged { .. }
            | Event::CredentialRevoked { .. }
            | Event::LogOpened { .. }
            | Event::GatewayStarted { .. }
            | Event::GatewayStopped {}
            | Event::ClockStepped { .. }
            | Event::ClockSyncChanged { .. }
            | Event::PolicyLoaded { .. }
            | Event::ResourcesLoaded { .. }
            | Event::SignInRefused { .. }
            | Event::CredentialUnknown { .. }
            | Event::AttemptsSummarized(_)
            | Event::ActionClosed(_)
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
            | Event::LogKeyRotated { .. } => {}
        }
        Ok(())
    }

    fn end(&mut self, session: &SessionId, deadline: Option<Timestamp>) -> Result<(), String> {
        let known = self.unended(session)?;
        if deadline.is_some_and(|deadline| micros(deadline) != known.deadline()) {
            return Err(format!("{session} ends at another deadline"));
        }
        known.ended = true;
        Ok(())
    }

    fn start(&mut self, entry: &Entry, now: u64) -> Result<(), String> {
        let Event::SessionStarted {
            session,
            subject,
            proof,
            limits,
            ..
        } = &entry.event
        else {
            return Ok(());
        };
        if self.sessions.iter().any(|known| known.id == *session) {
            return Err(format!("{session} starts twice"));
        }
        self.sessions.push(Session {
            id: session.clone(),
            subject: subject.clone(),
            limits: *limits,
            started: now,
            authenticated: micros(proof.at).min(now),
            active: now,
            aal: proof.aal.into(),
            ended: false,
        });
        Ok(())
    }

    fn act(&mut self, entry: &Entry, now: u64) -> Result<(), String> {
        let (Event::ActionAllowed {
            session, action, ..
        }
        | Event::ActionDenied {
            session, action, ..
        }) = &entry.event
        else {
            return Ok(());
        };
        let demands = if let Event::ActionAllowed { demands, .. } = &entry.event {
            Some(demands)
        } else {
            None
        };
        let known = self.alive(session, now)?;
        if demands.is_some_and(|demands| !known.within(demands, now)) {
            return Err(format!("{session} is allowed past the demands"));
        }
        if !action.passive {
            known.active = now;
        }
        Ok(())
    }

    /// Those that had run out end before; the others right after.
    fn disable(&self, subject: &SubjectName, now: u64) -> Result<(), String> {
        let late = self
            .sessions
            .iter()
            .find(|known| known.subject == *subject && !known.ended && known.deadline() <= now);
        match late {
            Some(late) => Err(format!("{} had run out", late.id)),
            None => Ok(()),
        }
    }

    /// The sessions that have not ended, in order of start, with their deadlines.
    pub fn live(&self) -> Vec<(SessionId, Timestamp)> {
        self.sessions
            .iter()
            .filter(|known| !known.ended)
            .map(|known| (known.id.clone(), Timestamp::from_micros(known.deadline())))
            .collect()
    }

    fn unended(&mut self, session: &SessionId) -> Result<&mut Session, String> {
        self.sessions
            .iter_mut()
            .find(|known| known.id == *session && !known.ended)
            .ok_or_else(|| format!("{session} is not live"))
    }

    fn alive(&mut self, session: &SessionId, now: u64) -> Result<&mut Session, String> {
        let known = self.unended(session)?;
        if now >= known.deadline() {
            return Err(format!("{session} has run out"));
        }
        Ok(known)
    }
}
