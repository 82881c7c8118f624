//! An honest gateway with its people, crashes and a virtual clock, all by seed.

mod commands;
mod planes;
mod record;

use std::collections::BTreeMap;

use curfew_authority::traffic::{Input, PermitId, Traffic};
use curfew_authority::{Authority, Command, Verdict};
use curfew_entry::{ClockSource, Credential, Entry, Event, SessionId, Span, Timestamp, Verb};
use planes::{Cell, Held};
use record::{Disk, Unsaid};

use crate::prng::Prng;
use crate::watch::Watch;

/// How many kinds of entry there are.
#[cfg(test)]
pub(crate) const KINDS: usize = 25;

/// How late this gateway carries out what falls due, at most: below what the auditor allows.
pub(crate) const JITTER_US: u64 = 900_000;

/// How long this gateway lets live traffic go on while nothing can be recorded.
const GRACE: Span = Span::from_secs(30);

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
    traffic: Traffic<Cell>,
    disk: Disk,
    /// What planes hold, cut or not.
    held: BTreeMap<PermitId, Held>,
    /// What they hold that is not cut.
    open: Vec<Open>,
    /// Everything that was ever opened, to be asked through now and then.
    opened: Vec<Open>,
    /// What is over and has not come back: questions that were on their way may come before.
    returning: Vec<PermitId>,
    /// The naive model of what is live.
    watch: Watch,
    /// What it found.
    problem: Option<String>,
    /// What was given back with a closing, and sessions whose end was taken: all of it is recorded
    /// once nothing is owed.
    unsaid: Unsaid,
    /// How many permits were cut for each cause.
    cuts: BTreeMap<String, usize>,
    /// Everything ever given out, to be presented now and then.
    credentials: Vec<Credential>,
    sessions: Vec<SessionId>,
    names: u64,
}

/// Something an allowed action opened.
#[derive(Clone, Debug)]
struct Open {
    permit: PermitId,
    index: u64,
    session: SessionId,
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
            traffic: Traffic::new(&Authority::new(), GRACE),
            disk: Disk::Well,
            held: BTreeMap::new(),
            open: Vec::new(),
            opened: Vec::new(),
            returning: Vec::new(),
            watch: Watch::default(),
            problem: None,
            unsaid: Unsaid::default(),
            cuts: BTreeMap::new(),
            credentials: Vec::new(),
            sessions: Vec::new(),
            names: 0,
        };
        let origin = "sim.example/log".to_owned();
        world.carry_out(&Command::OpenLog { origin });
        world.start();
        let resources = world.resources();
        world.carry_out(&Command::LoadResources { resources });
        world.carry_out(&Command::LoadPolicy {
            text: commands::policy(0),
        });
        world
    }

    /// What it has recorded.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// How many permits were cut for each cause.
    pub const fn cuts(&self) -> &BTreeMap<String, usize> {
        &self.cuts
    }

    /// The state it is in.
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Lets some time pass, and something happen.
    ///
    /// # Errors
    ///
    /// Where the authority contradicts itself, or the naive model what is cut.
    pub fn step(&mut self) -> Result<(), String> {
        let span = self.span();
        self.pass(self.now.saturating_add(span))?;
        let left = self.prng.below(self.returning.len() as u64 + 1);
        self.give_back(left);
        if self.prng.chance(1) {
            self.crash();
        } else if self.prng.chance(1) || (self.disk != Disk::Well && self.prng.chance(30)) {
            self.turn_disk();
        } else if self.prng.chance(15) {
            self.act();
        } else {
            let command = self.command();
            self.check_decision(&command)?;
            self.take(&command);
        }
        self.work()
    }

    /// Brings everything to its end: the disk works, and what is owed is recorded.
    ///
    /// # Errors
    ///
    /// As [`Self::step`].
    pub fn finish(&mut self) -> Result<(), String> {
        if self.disk != Disk::Well {
            self.disk = Disk::Down;
            self.turn_disk();
        }
        self.work()
    }

    /// Deciding changes nothing and forgets nothing.
    fn check_decision(&self, command: &Command) -> Result<(), String> {
        // A clone knows no ruling made before.
        let before = self.authority.clone();
        let decision = self.authority.decide(command, self.now);
        if self.authority != before {
            return Err(format!("deciding {command:?} changed the state"));
        }
        if decision != before.decide(command, self.now) {
            return Err(format!("{command:?} is decided otherwise without memory"));
        }
        if decision.events.is_empty() && matches!(decision.verdict, Verdict::Allow(_)) {
            return Err(format!("{command:?} is allowed without a trace"));
        }
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
        while let Some(due) = self.traffic.wake_at(&self.authority)
            && due <= until
        {
            let due = due.max(self.now);
            self.give_back_before(due);
            let jitter = Span::from_micros(self.prng.below(JITTER_US));
            if self.prng.chance(50) {
                self.now = due;
            } else {
                let late = due.saturating_add(jitter);
                self.act_by(late);
                self.now = self.now.max(late);
            }
            self.work()?;
        }
        self.give_back_before(until);
        self.now = self.now.max(until);
        self.work()
    }

    /// Tells what is over before much time passes.
    fn give_back_before(&mut self, moment: Timestamp) {
        if moment.saturating_since(self.now) > RETURN_MAX {
            self.give_back(0);
        }
    }

    fn start(&mut self) {
        self.carry_out(&Command::StartGateway {
            version: "0.1.0".to_owned(),
            clock: ClockSource::Wall,
            boot_id: "sim".to_owned(),
            boot_us: self.now.as_micros(),
            wall: None,
        });
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
        if self.prng.chance(30) && self.disk == Disk::Well {
            self.tell(Input::Stop);
            if !self.open.is_empty() {
                self.problem = Some("a stop leaves something open".to_owned());
            }
            self.give_back(0);
            self.carry_out(&Command::StopGateway);
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
        self.traffic = Traffic::new(&self.authority, GRACE);
        self.disk = Disk::Well;
        self.unsaid = Unsaid::default();
        self.watch.out(None);
        self.held.clear();
        self.open.clear();
        self.returning.clear();
        let down = self.span();
        self.now = self.now.saturating_add(down);
        self.start();
    }
}
