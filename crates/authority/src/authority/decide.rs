//! What each command leads to. Nothing here changes anything.

use std::net::IpAddr;

use curfew_entry::{CredentialId, Event, RefusalCause, SessionId, SubjectName, Timestamp};

use super::Authority;
use super::bounds::{cut_actor, short};
use crate::command::{Command, Decision, EndCause, Refusal, Verdict};

impl Decision {
    /// Events that were carried out, with nothing to answer.
    pub(super) fn done(events: Vec<Event>) -> Self {
        Self {
            events,
            verdict: Verdict::Done,
        }
    }

    /// An answer that leaves no trace.
    pub(super) fn only(verdict: Verdict) -> Self {
        Self {
            events: Vec::new(),
            verdict,
        }
    }

    pub(super) fn refused(refusal: Refusal) -> Self {
        Self::only(Verdict::Refused(refusal))
    }
}

fn sign_in_refused(subject: Option<&SubjectName>, cause: RefusalCause, address: IpAddr) -> Event {
    Event::SignInRefused {
        subject: subject.cloned(),
        cause,
        address,
    }
}

impl Authority {
    /// What would happen if `command` came at `now`. Changes nothing.
    ///
    /// `now` must not lie before the newest entry; if it does, the newest entry's time is taken,
    /// so that time which runs backwards never lengthens a session.
    pub fn decide(&self, command: &Command, now: Timestamp) -> Decision {
        let mut decision = self.decided(command, now.max(self.time()));
        self.say_limits_first(&mut decision.events);
        decision
    }

    fn decided(&self, command: &Command, now: Timestamp) -> Decision {
        match command {
            Command::OpenLog { .. } if self.is_open() => Decision::refused(Refusal::AlreadyOpen),
            Command::OpenLog { origin } => Decision::done(vec![Event::LogOpened {
                origin: short(origin),
            }]),
            Command::StartGateway { .. } => self.start_gateway(command, now),
            Command::StopGateway => Decision::done(vec![Event::GatewayStopped {}]),
            Command::StepClock { wall_offset_us } => Decision::done(vec![Event::ClockStepped {
                wall_offset_us: *wall_offset_us,
            }]),
            Command::LoadPolicy { text } => self.load_policy(text, now),
            Command::LoadResources { resources } => self.load_resources(resources, now),
            Command::ChangeAccount {
                subject,
                change,
                by,
            } => self.decide_account_change(subject, change, &cut_actor(by), now),
            Command::RefuseSignIn {
                subject,
                cause,
                address,
            } => Decision::done(vec![sign_in_refused(subject.as_ref(), *cause, *address)]),
            Command::StartSession { .. } => self.start_session(command, now),
            Command::Reauthenticate {
                session,
                proof,
                credential,
            } => self.decide_reauthentication(session, proof, credential, now),
            Command::IssueCredential(new) => {
                self.issue_credential(&new.session, &new.credential, now)
            }
            Command::RevokeCredential {
                session,
                credential,
            } => self.revoke_credential(session, credential, now),
            Command::Observe { session, active_at } => self.observe(session, *active_at, now),
            Command::Ask(ask) => self.ask(ask, now),
            Command::Close { closed, verb } => self.close(closed, *verb, now),
            Command::End { session, cause } => self.decide_end(session, cause, now),
            Command::SayLimits(sessions) => Decision::done(self.limit_unsaid(sessions)),
            Command::Expire(sessions) => Decision::done(self.expire(sessions, now)),
            Command::FailRecording { since, cause } => {
                Decision::done(vec![Event::RecordingFailed {
                    since: *since,
                    cause: short(cause),
                }])
            }
            Command::ResumeRecording { refused } => {
                Decision::done(vec![Event::RecordingResumed { refused: *refused }])
            }
            Command::SummarizeAttempts(told) => self.summarize(told, now),
            Command::Erasure(step) => self.erase(step, now),
            Command::Witness(_)
            | Command::Signing(_)
            | Command::Stamp(_)
            | Command::Archive(_)
            | Command::Prune(_)
            | Command::WatchClock(_) => self.tell(self.news(command), now),
        }
    }

    /// Notes what there is to say, unless it contradicts the entries so far.
    fn tell(&self, news: Vec<Event>, now: Timestamp) -> Decision {
        let contradiction = news
            .iter()
            .find_map(|event| self.contradiction(self.entries(), event, now));
        match contradiction {
            Some(problem) => Decision::refused(Refusal::Contradiction(problem)),
            None => Decision::done(news),
        }
    }

    /// What there is to say of the log itself and of its keeper's clock.
    fn news(&self, command: &Command) -> Vec<Event> {
        if let Command::Witness(news) = command {
            self.witnessing(news)
        } else if let Command::Signing(news) = command {
            self.signing(news)
        } else if let Command::Stamp(news) = command {
            self.stamping(news)
        } else if let Command::Archive(news) = command {
            self.archiving(news)
        } else if let Command::Prune(told) = command {
            Self::pruning(told)
        } else if let Command::WatchClock(wall) = command {
            self.watching(*wall)
        } else {
            Vec::new()
        }
    }

    /// The ends of sessions that may not live on at `now`, in order of their deadlines.
    pub(super) fn ends_due(&self, now: Timestamp) -> Vec<Event> {
        let due = self.due(now).into_iter();
        due.filter_map(|held| self.end_due(held, now)).collect()
    }

    /// The ends of those of these sessions that may not live on at `now`.
    fn expire(&self, sessions: &[SessionId], now: Timestamp) -> Vec<Event> {
        let held = sessions.iter().filter_map(|session| self.held(session));
        held.filter_map(|held| self.end_due(held, now)).collect()
    }

    /// The verdict on a command about a session that is not live.
    pub(super) fn not_live(&self, session: &SessionId) -> Decision {
        if self.tombstone(session).is_some() {
            return Decision::only(self.absent(session));
        }
        Decision::refused(Refusal::UnknownSession(session.clone()))
    }

    fn revoke_credential(
        &self,
        session: &SessionId,
        credential: &CredentialId,
        now: Timestamp,
    ) -> Decision {
        self.where_live(session, now, |_| match self.issued(session, credential) {
            Some(issued) if !issued.revoked => Decision::done(vec![Event::CredentialRevoked {
                session: session.clone(),
                credential: credential.clone(),
            }]),
            _ => Decision::refused(Refusal::UnknownCredential(credential.clone())),
        })
    }

    /// Activity counts where it came before the session ran out, even if it is noted after.
    fn observe(&self, session: &SessionId, active_at: Timestamp, now: Timestamp) -> Decision {
        let Some(held) = self.held(session) else {
            return self.not_live(session);
        };
        let current = &held.session;
        let in_time = active_at < held.over_at();
        if active_at <= current.active_at || active_at > now || !in_time {
            return self
                .over(held, now)
                .unwrap_or_else(|| Decision::done(Vec::new()));
        }
        let mut after = held.clone();
        after.session.active_at = active_at;
        let active = Event::SessionActive {
            session: session.clone(),
            active_at,
        };
        match self.over(&after, now) {
            Some(mut decision) => {
                decision.events.insert(0, active);
                decision
            }
            None => Decision::done(vec![active]),
        }
    }

    fn decide_end(&self, session: &SessionId, cause: &EndCause, now: Timestamp) -> Decision {
        if cause.reason.is_clock() {
            return Decision::refused(Refusal::ClockReason(cause.reason));
        }
        self.where_live(session, now, |_| Decision {
            events: vec![Event::SessionEnded {
                session: session.clone(),
                reason: cause.reason,
                deadline: None,
                effective: now,
                late: None,
                by: cause.by.as_ref().map(cut_actor),
            }],
            verdict: Verdict::Ended {
                session: session.clone(),
                reason: cause.reason,
            },
        })
    }
}
