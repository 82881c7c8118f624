//! Questions: may this be done? What is allowed goes out as a permit.

use std::sync::Arc;

use curfew_authority::traffic::AccountUse;
use curfew_authority::{Ask, Command, Grant, Presenter, Refusal as Refused, Verdict};
use curfew_entry::{AccountClass, SessionId, Verb};

use super::task::{Task, Urgency};
use super::{Answer, Asked, Refusal, refusal_by};
use crate::permit::{Activity, CutSignal, Permit, Recording};

/// What became of one question.
enum Settled {
    /// It is allowed, by this entry; of a connection, with this account.
    Allowed(u64, Grant, Option<AccountUse>),
    /// It is not; where that was recorded, by this entry.
    Refused(Option<u64>, Refusal),
}

impl Task {
    /// Gives a connection the account with the most reach that policy permits now.
    fn choose_account(&mut self, ask: &mut Ask, session: &SessionId, accounts: &[AccountClass]) {
        let find = |task: &Self| {
            let (resource, context) = (&ask.action.resource, &ask.context);
            task.authority
                .account_for(session, resource, context, accounts, task.now())
        };
        let mut found = find(self);
        // A limit may only seem to have run out: activity that has no entry yet is noted first.
        if found < accounts.iter().copied().max() && matches!(self.observe(session), Ok(true)) {
            found = find(self);
        }
        ask.action.account = found;
    }

    pub(super) fn answer_asks(
        &mut self,
        asks: Vec<Ask>,
        accounts: &[AccountClass],
        answer: Answer<Asked>,
    ) {
        if let Err(refusal) = self.admitting() {
            let _ = answer.send(Err(refusal));
            return;
        }
        let mut granted: Option<Grant> = None;
        let mut account = None;
        let mut entries = Vec::new();
        let mut refused = None;
        for ask in asks {
            let verb = ask.action.verb;
            match self.decide_ask(ask, accounts) {
                Settled::Allowed(entry, grant, used) => {
                    account = used;
                    entries.push((entry, verb));
                    granted = Some(match granted {
                        None => grant,
                        Some(before) => before.and(&grant),
                    });
                }
                Settled::Refused(entry, refusal) => {
                    refused = Some((entry, refusal));
                    break;
                }
            }
        }
        let allowed = entries.len();
        let permit = granted.and_then(|grant| self.mint(entries, grant, account));
        let (entry, refusal) = match refused {
            Some((entry, refusal)) => (entry, Some(refusal)),
            None => (None, None),
        };
        let asked = Asked {
            permit,
            allowed,
            refusal,
        };
        // The one who asked may be gone: the permit then gives itself back.
        self.answer_when_durable(entry, Ok(asked), answer);
    }

    /// Decides and records one question.
    fn decide_ask(&mut self, mut ask: Ask, accounts: &[AccountClass]) -> Settled {
        let session = match &ask.presenter {
            Presenter::Session(session) => Some(session.clone()),
            Presenter::Credential { hash, .. } => self
                .authority
                .credential(hash)
                .map(|(session, _)| session.clone()),
        };
        if let (Some(session), [_, ..]) = (&session, accounts) {
            self.choose_account(&mut ask, session, accounts);
        }
        let account = ask.action.account.map(|class| AccountUse {
            class,
            resource: ask.action.resource.clone(),
            context: ask.context.clone(),
        });
        let command = Command::Ask(ask);
        let (mut decision, mut now) = self.decide(&command);
        // A refusal may rest on activity that has no entry yet; that is noted first.
        if !matches!(decision.verdict, Verdict::Allow(_))
            && let Some(session) = &session
            && matches!(self.observe(session), Ok(true))
        {
            // The clock has gone on: an entry is never dated before the one in front of it.
            (decision, now) = self.decide(&command);
        }
        let verdict = decision.verdict.clone();
        let entry = self.record(&command, decision, now, Urgency::CanWait);
        let entry = match entry {
            Ok(entry) => entry,
            Err(kind) => return Settled::Refused(None, Refusal::Unavailable(kind)),
        };
        let refusal = match verdict {
            Verdict::Allow(grant) => {
                return match entry {
                    Some(entry) => Settled::Allowed(entry, grant, account),
                    None => Settled::Refused(None, Refusal::Unauthenticated),
                };
            }
            Verdict::StepUp(step_up) => Refusal::StepUp(step_up),
            Verdict::Deny(denial) => Refusal::Denied(denial),
            Verdict::Ended { session, reason } => Refusal::Ended { session, reason },
            // It was on its way while its connection ended.
            Verdict::Refused(Refused::NotOpen(connection)) => session
                .and_then(|session| {
                    let cut = self.traffic.cut_of(&session, connection)?;
                    Some(refusal_by(&session, cut, Vec::new()))
                })
                .unwrap_or(Refusal::Unauthenticated),
            Verdict::Refused(fault) => {
                tracing::error!(%fault, "a question that cannot be asked");
                Refusal::Unauthenticated
            }
            Verdict::Unauthenticated | Verdict::Done => Refusal::Unauthenticated,
        };
        Settled::Refused(entry, refusal)
    }

    fn mint(
        &mut self,
        entries: Vec<(u64, Verb)>,
        grant: Grant,
        account: Option<AccountUse>,
    ) -> Option<Permit> {
        let (last, _) = entries.last().copied()?;
        let (session, limits) = (&grant.session, grant.limits);
        let admitted = self
            .traffic
            .admit(session, entries, limits, account, &self.authority);
        let (id, shared) = admitted?;
        let cut = CutSignal::default();
        self.cuts.insert(id, cut.clone());
        let activity = Activity::new(shared, self.clock.clone());
        let recording = Recording::new(Arc::clone(&self.durability), self.record_wait);
        Some(Permit::mint(
            id,
            last,
            grant,
            cut,
            activity,
            recording,
            self.released.clone(),
        ))
    }
}
