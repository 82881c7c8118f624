//! The gateway's loop, without a gateway: what `curfew-gateway` does around the authority and its
//! traffic, on a disk that fails by seed.

use std::collections::BTreeSet;

use curfew_authority::traffic::{Effect, Input, may_use_reserve};
use curfew_authority::{Ask, Command, Decision, Presenter, Refusal, Verdict};
use curfew_entry::{Entry, Event, SessionId};

use super::{GRACE, Open, World};

/// What the ledger's disk does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Disk {
    /// It takes entries.
    Well,
    /// It takes the entries that may use the reserve.
    Full,
    /// It takes none.
    Down,
}

/// What has to be recorded, now or once the ledger is back.
#[derive(Debug, Default)]
pub(super) struct Unsaid {
    closings: BTreeSet<u64>,
    ends: BTreeSet<SessionId>,
    /// Connections have not been looked at since other rules hold.
    unreviewed: bool,
}

impl Unsaid {
    pub(super) fn close(&mut self, entry: u64) {
        self.closings.insert(entry);
    }
}

/// More pieces of work at one moment than this are a loop that does not end.
const WORK_MAX: usize = 10_000;

impl World {
    /// Tells what happened, and carries out what follows. True where something was cut.
    pub(super) fn tell(&mut self, input: Input<'_>) -> bool {
        let effects = self.traffic.handle(input, &self.authority, self.now);
        let mut was_cut = false;
        for effect in effects {
            match effect {
                Effect::Cut { permit, cut } => {
                    was_cut = true;
                    self.cut(permit, cut);
                }
                Effect::Record(command) => {
                    self.carry_out(&command);
                }
            }
        }
        was_cut
    }

    /// Does what is due by now, piece by piece.
    pub(super) fn work(&mut self) -> Result<(), String> {
        for _ in 0..WORK_MAX {
            let next = self.traffic.wake_at(&self.authority);
            if next.is_none_or(|at| at > self.now) {
                return self.check();
            }
            self.tell(Input::Wake);
            if !self.traffic.is_due(&self.authority, self.now)
                && let Some(command) = self.traffic.owed(&self.authority, self.now)
            {
                // Opened again, it may fail again.
                if self.traffic.outage().is_some() && self.prng.chance(5) {
                    self.fail(Disk::Down);
                }
                self.carry_out(&command);
            }
        }
        Err(format!("there is no end of work at {}", self.now))
    }

    /// What the naive model says of the moment.
    fn check(&mut self) -> Result<(), String> {
        if let Some(problem) = self.problem.take() {
            return Err(problem);
        }
        if self.traffic.outage().is_none() {
            self.watch.out(None);
            if let Some(entry) = self.unsaid.closings.first() {
                return Err(format!(
                    "what entry {entry} opened was never said to be closed"
                ));
            }
            let unended = |session: &&SessionId| self.authority.session(session).is_some();
            if let Some(session) = self.unsaid.ends.iter().find(unended) {
                return Err(format!("{session} was to be ended, and lives"));
            }
            self.unsaid.ends.clear();
        }
        if std::mem::take(&mut self.unsaid.unreviewed) {
            self.check_connections()?;
        }
        self.watch.check(self.now.as_micros(), GRACE.as_micros())
    }

    /// Another policy holds: what it does not permit is not open.
    fn check_connections(&self) -> Result<(), String> {
        for held in self.held.values().filter(|held| held.is_open()) {
            let Some(used) = &held.account else { continue };
            let (resource, context) = (&used.resource, &used.context);
            let limits = self.authority.account_limits(
                &held.session,
                resource,
                context,
                used.class,
                self.now,
            );
            if limits.is_none() {
                return Err(format!("{held:?} is open and not permitted any more"));
            }
        }
        Ok(())
    }

    pub(super) fn fail(&mut self, disk: Disk) {
        self.disk = disk;
        if self.traffic.outage().is_none() {
            self.watch.out(Some(self.now.as_micros()));
        }
        let cause = "the disk is full".to_owned();
        let reserve = disk == Disk::Full;
        self.tell(Input::Failed { cause, reserve });
    }

    /// The disk fails, fails otherwise, or works again.
    pub(super) fn turn_disk(&mut self) {
        match self.disk {
            Disk::Well if self.prng.chance(50) => self.fail(Disk::Down),
            Disk::Well => self.fail(Disk::Full),
            Disk::Full if self.prng.chance(20) => self.fail(Disk::Down),
            Disk::Full | Disk::Down => {
                self.disk = Disk::Well;
                self.tell(Input::Back);
            }
        }
    }

    /// Somebody sends a command.
    pub(super) fn take(&mut self, command: &Command) {
        if self.traffic.is_due(&self.authority, self.now) {
            self.tell(Input::Wake);
        }
        if self.traffic.outage().is_some() {
            self.traffic.refuse();
            if let Command::End { session, cause } = command {
                self.tell(Input::End(session, cause));
                if !cause.reason.is_clock() {
                    self.unsaid.ends.insert(session.clone());
                }
            }
            return;
        }
        if let Command::Ask(ask) = command {
            self.ask_all(ask);
        } else {
            self.carry_out(command);
        }
    }

    /// Asks for one action, or for several in a row under one permit.
    fn ask_all(&mut self, ask: &Ask) {
        let count = if self.prng.chance(10) { 3 } else { 1 };
        let account = ask.action.account;
        let mut granted: Option<curfew_authority::Grant> = None;
        let mut entries = Vec::new();
        for _ in 0..count {
            let Some(Verdict::Allow(grant)) = self.ask_once(ask) else {
                break;
            };
            entries.push((self.entries.len() as u64 - 1, ask.action.verb));
            granted = Some(match granted {
                None => grant,
                Some(before) => before.and(&grant),
            });
        }
        let Some(grant) = granted else { return };
        let used = account.map(|class| curfew_authority::traffic::AccountUse {
            class,
            resource: ask.action.resource.clone(),
            context: ask.context.clone(),
        });
        let admitted = self.traffic.admit(
            &grant.session,
            entries.clone(),
            grant.limits,
            used.clone(),
            &self.authority,
        );
        let Some((permit, activity)) = admitted else {
            self.problem = Some(format!("{} was allowed and does not live", grant.session));
            return;
        };
        self.watch.given(permit, &grant.session, grant.limits);
        for (index, verb) in entries {
            let session = grant.session.clone();
            let open = Open {
                permit,
                index,
                session,
                verb,
            };
            self.open.push(open.clone());
            self.opened.push(open);
        }
        self.hold(permit, &grant.session, ask.action.verb, used, activity);
    }

    /// A refusal may rest on activity that has no entry yet; that is noted first.
    fn ask_once(&mut self, ask: &Ask) -> Option<Verdict> {
        let command = Command::Ask(ask.clone());
        let session = match &ask.presenter {
            Presenter::Session(session) => Some(session.clone()),
            Presenter::Credential { hash, .. } => {
                let known = self.authority.credential(hash);
                known.map(|(session, _)| session.clone())
            }
        };
        let decision = self.authority.decide(&command, self.now);
        let allowed = matches!(decision.verdict, Verdict::Allow(_));
        let observed = session
            .filter(|_| !allowed)
            .and_then(|session| self.traffic.unrecorded(&session, &self.authority, self.now));
        if let Some(observed) = observed {
            self.carry_out(&observed);
        }
        self.carry_out(&command)
    }

    /// Decides and records, as a registrar does: whoever it ends is cut before. The verdict, where
    /// it could be recorded.
    pub(super) fn carry_out(&mut self, command: &Command) -> Option<Verdict> {
        let mut decision = self.authority.decide(command, self.now);
        if self.tell(Input::Decided(&decision.events)) {
            decision = self.authority.decide(command, self.now);
            self.tell(Input::Decided(&decision.events));
        }
        if !self.takes(&decision) {
            let events: Vec<Event> = decision.events;
            self.tell(Input::Unrecorded(command, &events));
            return None;
        }
        if let Verdict::Refused(refusal) = &decision.verdict {
            self.refused(command, refusal);
        }
        let before = self.entries.len();
        for mut event in decision.events {
            self.traffic.date_back(&mut event);
            self.apply(event);
        }
        self.newest = self.entries.len() - before;
        Some(decision.verdict)
    }

    fn takes(&self, decision: &Decision) -> bool {
        match self.disk {
            Disk::Well => true,
            Disk::Full => decision.events.iter().all(may_use_reserve),
            Disk::Down => decision.events.is_empty(),
        }
    }

    /// What traffic has recorded itself is never refused, but where it is of a session that an entry
    /// ended meanwhile.
    fn refused(&mut self, command: &Command, refusal: &Refusal) {
        if let Command::Close { closed, .. } = command
            && self.held.values().any(|held| held.is_of(closed.action))
        {
            self.problem = Some(format!("{closed:?} is refused: {refusal}"));
        }
    }

    fn apply(&mut self, event: Event) {
        if let Event::SessionStarted { session, .. } = &event {
            self.sessions.push(session.clone());
        } else if let Event::CredentialIssued { credential, .. } = &event {
            self.credentials.push(credential.clone());
        } else if let Event::PolicyLoaded { .. } | Event::ResourcesLoaded { .. } = &event {
            let held = &self.held;
            let is_account = |permit| held.get(&permit).is_some_and(|it| it.account.is_some());
            self.watch.policy_changed(is_account);
            self.unsaid.unreviewed = true;
        } else if let Event::ActionClosed(closed) = &event {
            self.unsaid.closings.remove(&closed.action);
        } else if let Event::SessionEnded { session, .. } = &event
            && let Some(open) = self.open.iter().find(|open| open.session == *session)
        {
            self.problem = Some(format!(
                "{open:?} is open while its session's end is recorded"
            ));
        }
        let time = self.now;
        let entry = Entry { time, event };
        self.authority.apply(&entry);
        self.watch.recorded(&entry);
        self.tell(Input::Recorded(&entry));
        self.entries.push(entry);
    }
}
