//! The naive model of live traffic: what must be cut when, written anew from the design.
//!
//! It hears all activity at its moment, recorded or not, keeps lists, and works every deadline out
//! again each time it is asked. It shares no code with [`curfew_authority::traffic`].

// Most kinds of entry say nothing of what is live.
#![allow(clippy::wildcard_enum_match_arm)]

use curfew_authority::traffic::{Cut, CutCause, PermitId};
use curfew_entry::{EndReason, Entry, Event, Limits, SessionId};

/// What was live at any time.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    people: Vec<Person>,
    held: Vec<Held>,
    /// Since when nothing can be recorded.
    out_since: Option<u64>,
}

#[derive(Debug)]
struct Person {
    session: SessionId,
    limits: Limits,
    started: u64,
    authenticated: u64,
    active: u64,
    /// As it is recorded.
    recorded: u64,
    running: u32,
    /// When it ran out, once it has.
    over: Option<u64>,
    ended: bool,
}

#[derive(Debug)]
struct Held {
    permit: PermitId,
    session: SessionId,
    limits: Limits,
    /// Policy may hold it to other limits meanwhile: what this model cannot know.
    unsure: bool,
    over: Option<u64>,
    cut: bool,
}

impl Person {
    /// The first moment that is too late under these limits.
    fn runs_out(&self, limits: Limits) -> u64 {
        let idle = self.active.saturating_add(limits.idle.as_micros());
        let reauth = self.authenticated.saturating_add(limits.reauth.as_micros());
        let lifetime = self.started.saturating_add(limits.lifetime.as_micros());
        // Whoever has something running is not idle.
        if self.running > 0 {
            reauth.min(lifetime)
        } else {
            idle.min(reauth).min(lifetime)
        }
    }
}

impl Watch {
    /// Everything of a session that has run out by `now` has, whatever comes after.
    fn settle(&mut self, session: &SessionId, now: u64) {
        let live = |person: &&mut Person| person.session == *session && !person.ended;
        let Some(person) = self.people.iter_mut().find(live) else {
            return;
        };
        for held in &mut self.held {
            let out = person.runs_out(held.limits);
            if held.session == *session && held.over.is_none() && !held.cut && out <= now {
                held.over = Some(out);
            }
        }
        let out = person.runs_out(person.limits);
        if person.over.is_none() && out <= now {
            person.over = Some(out);
        }
        if person.over.is_none() && person.running > 0 {
            person.active = now;
        }
    }

    fn change(&mut self, session: &SessionId, now: u64, change: impl FnOnce(&mut Person)) {
        self.settle(session, now);
        let live = |person: &&mut Person| person.session == *session && person.over.is_none();
        if let Some(person) = self.people.iter_mut().find(live) {
            change(person);
        }
    }

    /// The person does something.
    pub(crate) fn touch(&mut self, session: &SessionId, now: u64) {
        self.change(session, now, |person| {
            person.active = person.active.max(now)
        });
    }

    /// Something begins to run.
    pub(crate) fn begin(&mut self, session: &SessionId, now: u64) {
        self.change(session, now, |person| {
            person.active = person.active.max(now);
            person.running += 1;
        });
    }

    /// It is over.
    pub(crate) fn finish(&mut self, session: &SessionId, now: u64) {
        self.change(session, now, |person| {
            person.active = person.active.max(now);
            person.running = person.running.saturating_sub(1);
        });
    }

    /// A permit was given.
    pub(crate) fn given(&mut self, permit: PermitId, session: &SessionId, limits: Limits) {
        self.held.push(Held {
            permit,
            session: session.clone(),
            limits,
            unsure: false,
            over: None,
            cut: false,
        });
    }

    /// A permit came back.
    pub(crate) fn returned(&mut self, permit: PermitId) {
        self.held.retain(|held| held.permit != permit);
    }

    /// Other rules hold: connections may be held to more.
    pub(crate) fn policy_changed(&mut self, is_connection: impl Fn(PermitId) -> bool) {
        for held in &mut self.held {
            held.unsure |= is_connection(held.permit);
        }
    }

    /// Nothing can be recorded, or it can again.
    pub(crate) fn out(&mut self, since: Option<u64>) {
        self.out_since = since;
    }

    /// An entry was recorded.
    pub(crate) fn recorded(&mut self, entry: &Entry) {
        let now = entry.time.as_micros();
        match &entry.event {
            Event::SessionStarted {
                session,
                proof,
                limits,
                ..
            } => self.people.push(Person {
                session: session.clone(),
                limits: *limits,
                started: now,
                authenticated: proof.at.as_micros().min(now),
                active: now,
                recorded: now,
                running: 0,
                over: None,
                ended: false,
            }),
            Event::SessionReauthenticated { session, proof } => {
                let at = proof.at.as_micros().min(now);
                self.act(session, now);
                self.change(session, now, |person| {
                    person.authenticated = person.authenticated.max(at);
                });
            }
            Event::SessionLimited {
                session, limits, ..
            } => self.change(session, now, |person| {
                person.limits = *limits;
                // Activity that is not recorded counts only before the end that is known.
                if person.active >= person.recorded.saturating_add(limits.idle.as_micros()) {
                    person.active = person.recorded;
                }
            }),
            Event::SessionActive { session, active_at } => {
                let at = active_at.as_micros();
                // It was before, and may tell of activity before something ran out.
                let person = self.people.iter_mut().find(|it| it.session == *session);
                if let Some(person) = person {
                    person.recorded = person.recorded.max(at);
                    person.active = person.active.max(at);
                }
            }
            Event::ActionAllowed {
                session, action, ..
            }
            | Event::ActionDenied {
                session, action, ..
            } if !action.passive => self.act(session, now),
            Event::SessionEnded { session, .. } => {
                let person = self.people.iter_mut().find(|it| it.session == *session);
                if let Some(person) = person {
                    person.ended = true;
                }
            }
            Event::GatewayStarted { .. } => {
                self.held.clear();
                for person in &mut self.people {
                    person.running = 0;
                    person.active = person.recorded;
                }
            }
            _ => {}
        }
    }

    fn act(&mut self, session: &SessionId, now: u64) {
        self.touch(session, now);
        let person = self.people.iter_mut().find(|it| it.session == *session);
        if let Some(person) = person {
            person.recorded = person.recorded.max(now);
        }
    }

    /// A permit is cut.
    ///
    /// # Errors
    /// Where it is not the moment, or not for that reason.
    pub(crate) fn cut(&mut self, permit: PermitId, cut: Cut, now: u64) -> Result<(), String> {
        let Some(place) = self.held.iter().position(|held| held.permit == permit) else {
            return Err(format!("{permit:?} is cut and is not out"));
        };
        let session = self.held[place].session.clone();
        self.settle(&session, now);
        let person = self.people.iter().find(|it| it.session == session);
        let held = &mut self.held[place];
        if held.cut {
            return Err(format!("{permit:?} is cut twice"));
        }
        held.cut = true;
        let due = match cut.cause {
            CutCause::Limit(_) if held.unsure => return Ok(()),
            CutCause::Limit(_) => held.over,
            CutCause::SessionEnded(EndReason::Idle | EndReason::Reauth | EndReason::Lifetime) => {
                person.and_then(|person| person.over)
            }
            CutCause::LedgerFailed if self.out_since.is_none() => {
                return Err(format!("{permit:?} is cut for an outage that is not"));
            }
            _ => return Ok(()),
        };
        let said = cut.deadline.map(|deadline| deadline.at.as_micros());
        match due {
            Some(due) if said.is_none_or(|said| said == due) => Ok(()),
            _ => Err(format!(
                "{permit:?} of {session} is cut at {now} for {cut:?}, by the model at {due:?}"
            )),
        }
    }

    /// Nothing is open at `now` that had to be cut; what may be late has had its time.
    ///
    /// # Errors
    /// What is open and why it must not be.
    pub(crate) fn check(&mut self, now: u64, grace: u64) -> Result<(), String> {
        let sessions: Vec<_> = self.held.iter().map(|held| held.session.clone()).collect();
        for session in &sessions {
            self.settle(session, now);
        }
        for held in self.held.iter().filter(|held| !held.cut) {
            let person = self.people.iter().find(|it| it.session == held.session);
            let late = |at: u64| format!("{held:?} is open at {now}, its end was {at}: {person:?}");
            if let Some(at) = held.over {
                return Err(late(at));
            }
            match person {
                Some(person) if person.ended => return Err(late(0)),
                Some(Person { over: Some(at), .. }) => return Err(late(*at)),
                Some(_) => {}
                None => return Err(late(0)),
            }
            if let Some(since) = self.out_since
                && since.saturating_add(grace) <= now
            {
                return Err(late(since.saturating_add(grace)));
            }
        }
        Ok(())
    }
}
