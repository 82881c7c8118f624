//! An honest gateway with its people, crashes and a virtual clock, all by seed.

mod commands;

use curfew_authority::{Authority, Command, Verdict};
use curfew_entry::{
    ActionClosed, ClockSource, ClosedBy, Credential, Deadline, Entry, Event, Limits, SessionId,
    Span, Timestamp, Verb,
};

use crate::prng::Prng;

/// How many kinds of entry there are.
#[cfg(test)]
pub(crate) const KINDS: usize = 25;

/// How late this gateway carries out what falls due, at most: below what the auditor allows.
const JITTER_US: u64 = 900_000;

/// How long it may take at most until what is over is told.
const RETURN_MAX: Span = Span::from_secs(60);

/// A gateway that behaves.
#[derive(Debug)]
pub struct World {
    prng: Prng,
    now: Timestamp,
    authority: Authority,
    entries: Vec<Entry>,
    /// How many entries the newest decision gave.
    newest: usize,
    open: Vec<Open>,
    /// Everything that was ever opened, to be asked through now and then.
    opened: Vec<Open>,
    /// What is over and not told yet: questions that were on their way may come before.
    returning: Vec<Command>,
    /// Everything ever given out, to be presented now and then.
    credentials: Vec<Credential>,
    sessions: Vec<SessionId>,
    names: u64,
    /// What fell due while nothing could be recorded was carried out in time, and is recorded now.
    catching_up: bool,
}

/// Something an allowed action opened.
#[derive(Clone, Debug)]
struct Open {
    index: u64,
    session: SessionId,
    limits: Limits,
    verb: Verb,
}

impl Open {
    fn is_connection(&self) -> bool {
        self.verb.as_str().ends_with(".connect")
    }
}

/// The kind of an entry, as its JSON says it.
pub(crate) fn kind(entry: &Entry) -> String {
    let bytes = entry.to_bytes().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let rest = text.split_once("\"kind\":\"").map_or("", |(_, rest)| rest);
    rest.split('"').next().unwrap_or_default().to_owned()
}

impl World {
    /// The world of a seed, with its gateway started.
    pub fn new(seed: u64) -> Self {
        let mut world = Self {
            prng: Prng::new(seed),
            now: Timestamp::from_micros(1_800_000_000_000_000),
            authority: Authority::new(),
            entries: Vec::new(),
            newest: 0,
            open: Vec::new(),
            opened: Vec::new(),
            returning: Vec::new(),
            credentials: Vec::new(),
            sessions: Vec::new(),
            names: 0,
            catching_up: false,
        };
        let origin = "sim.example/log".to_owned();
        world.run(&Command::OpenLog { origin });
        world.start();
        let resources = world.resources();
        world.run(&Command::LoadResources { resources });
        world.run(&Command::LoadPolicy {
            text: commands::policy(0),
        });
        world
    }

    /// What it has recorded.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The state it is in.
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Lets some time pass, and something happen.
    ///
    /// # Errors
    ///
    /// Where the authority contradicts itself.
    pub fn step(&mut self) -> Result<(), String> {
        let span = self.span();
        self.pass(self.now.saturating_add(span))?;
        let left = self.prng.below(self.returning.len() as u64 + 1);
        self.give_back(left);
        if self.prng.chance(1) {
            self.crash();
            return Ok(());
        }
        if self.prng.chance(1) {
            self.outage();
            return Ok(());
        }
        let command = self.command();
        // A clone knows no ruling made before.
        let before = self.authority.clone();
        let decision = self.authority.decide(&command, self.now);
        if self.authority != before {
            return Err(format!("deciding {command:?} changed the state"));
        }
        if decision != before.decide(&command, self.now) {
            return Err(format!("{command:?} is decided otherwise without memory"));
        }
        if decision.events.is_empty() && matches!(decision.verdict, Verdict::Allow(_)) {
            return Err(format!("{command:?} is allowed without a trace"));
        }
        self.run(&command);
        Ok(())
    }

    /// None, tiny, small, middling or huge.
    fn span(&mut self) -> Span {
        let unit = [
            0,
            1,
            1_000,
            1_000_000,
            60_000_000,
            600_000_000,
            86_400_000_000,
        ];
        let weight = [100, 100, 200, 500, 100, 10, 1];
        let mut left = self.prng.below(weight.iter().sum());
        for (unit, weight) in unit.into_iter().zip(weight) {
            if left < weight {
                return Span::from_micros(unit * (1 + self.prng.below(9)));
            }
            left -= weight;
        }
        Span::ZERO
    }

    /// Moves the clock, carrying out all that falls due on the way.
    fn pass(&mut self, until: Timestamp) -> Result<(), String> {
        while let Some(due) = self.next_due()
            && due <= until
        {
            self.give_back_before(due);
            let jitter = Span::from_micros(self.prng.below(JITTER_US));
            let jitter = if self.prng.chance(50) {
                Span::ZERO
            } else {
                jitter
            };
            self.now = self.now.max(due.saturating_add(jitter));
            self.cut();
            self.run(&Command::Expire);
            if self.next_due().is_some_and(|next| next <= due) {
                return Err(format!("something is still due at {due}"));
            }
        }
        self.give_back_before(until);
        self.now = self.now.max(until);
        Ok(())
    }

    fn deadline(&self, open: &Open) -> Option<Deadline> {
        self.authority.deadline(&open.session, &open.limits)
    }

    fn next_due(&self) -> Option<Timestamp> {
        let cuts = self.open.iter().filter_map(|open| self.deadline(open));
        let cut = cuts.map(|deadline| deadline.at).min();
        match (cut, self.authority.next_deadline()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, None) | (None, one) => one,
        }
    }

    /// Closes what is past the limits it was opened under.
    fn cut(&mut self) {
        for open in self.open.clone() {
            let Some(deadline) = self.deadline(&open) else {
                continue;
            };
            if deadline.at <= self.now {
                let moment = if self.catching_up {
                    deadline.at
                } else {
                    self.now
                };
                self.close(&open, ClosedBy::Limit, Some(deadline), moment);
            }
        }
    }

    fn close(&mut self, open: &Open, by: ClosedBy, deadline: Option<Deadline>, closed: Timestamp) {
        self.open.retain(|other| other.index != open.index);
        let closed = ActionClosed {
            session: open.session.clone(),
            action: open.index,
            by,
            deadline,
            closed,
            late: deadline.map(|deadline| closed.saturating_since(deadline.at)),
            bytes_in: self.prng.below(1_000),
            bytes_out: self.prng.below(1_000_000),
        };
        let verb = open.verb;
        self.returning.push(Command::Close { closed, verb });
    }

    /// Tells what is over before much time passes.
    fn give_back_before(&mut self, moment: Timestamp) {
        if moment.saturating_since(self.now) > RETURN_MAX {
            self.give_back(0);
        }
    }

    /// Tells what is over, in any order, until so much is left.
    fn give_back(&mut self, left: u64) {
        while self.returning.len() as u64 > left {
            let place = self.prng.below(self.returning.len() as u64);
            let close = self
                .returning
                .swap_remove(usize::try_from(place).unwrap_or(0));
            self.run(&close);
        }
    }

    /// Decides, records and applies, as a registrar does, and then closes what has to be.
    fn run(&mut self, command: &Command) {
        let decision = self.authority.decide(command, self.now);
        let before = self.entries.len();
        let mut ended = Vec::new();
        for mut event in decision.events {
            self.date_back(&mut event);
            if let Event::SessionStarted { session, .. } = &event {
                self.sessions.push(session.clone());
            } else if let Event::CredentialIssued { credential, .. } = &event {
                self.credentials.push(credential.clone());
            } else if let Event::SessionEnded {
                session, effective, ..
            } = &event
            {
                ended.push((session.clone(), *effective));
            } else if let Event::ActionAllowed { action, .. } = &event
                && let Verdict::Allow(grant) = &decision.verdict
            {
                let open = Open {
                    index: u64::try_from(self.entries.len()).unwrap_or(u64::MAX),
                    session: grant.session.clone(),
                    limits: grant.limits,
                    verb: action.verb,
                };
                self.open.push(open.clone());
                self.opened.push(open);
            }
            let entry = Entry {
                time: self.now,
                event,
            };
            self.authority.apply(&entry);
            self.entries.push(entry);
        }
        self.newest = self.entries.len() - before;
        for (session, effective) in ended {
            let open = self.open.iter().filter(|open| open.session == session);
            for open in open.cloned().collect::<Vec<_>>() {
                self.close(&open, ClosedBy::SessionEnd, None, effective);
            }
        }
    }

    fn start(&mut self) {
        self.run(&Command::StartGateway {
            version: "0.1.0".to_owned(),
            clock: ClockSource::Wall,
            boot_id: "sim".to_owned(),
            boot_us: self.now.as_micros(),
            wall: None,
        });
    }

    /// A session that was cut while nothing could be recorded ended then.
    fn date_back(&self, event: &mut Event) {
        if let Event::SessionEnded {
            deadline: Some(deadline),
            effective,
            late,
            ..
        } = event
            && self.catching_up
        {
            *effective = *deadline;
            *late = Some(Span::ZERO);
        }
    }

    /// The ledger takes no entries for a while: nothing is admitted, what falls due is cut.
    fn outage(&mut self) {
        let since = self.now;
        let span = self.span();
        self.now = self.now.saturating_add(span);
        let cause = "the disk is full".to_owned();
        self.catching_up = true;
        self.run(&Command::FailRecording { since, cause });
        self.cut();
        self.give_back(0);
        self.run(&Command::Expire);
        self.run(&Command::ResumeRecording { refused: 1 });
        self.catching_up = false;
    }

    /// Changes the log's key while nothing runs, wherever the entries end.
    fn rotate_key(&mut self) {
        let Some(last) = self.entries.last() else {
            return;
        };
        self.entries.push(Entry {
            time: last.time,
            event: Event::LogKeyRotated {
                at: self.now,
                note: String::new(),
            },
        });
    }

    /// Stops, politely or in the middle of recording a decision, and starts again later.
    fn crash(&mut self) {
        if self.prng.chance(30) {
            self.run(&Command::StopGateway);
        } else if self.newest > 1 {
            let kept = 1 + self.prng.below(self.newest as u64);
            let lost = self
                .newest
                .saturating_sub(usize::try_from(kept).unwrap_or(0));
            self.entries.truncate(self.entries.len() - lost);
        }
        if self.prng.chance(20) {
            self.rotate_key();
        }
        // Recovery is the normal path: a fold over what was recorded.
        self.authority = Authority::new();
        for entry in &self.entries {
            self.authority.apply(entry);
        }
        self.open.clear();
        self.returning.clear();
        let down = self.span();
        self.now = self.now.saturating_add(down);
        self.start();
    }
}
