//! What concerns many sessions at once: cut first, told in pieces, and proven.

use std::cell::RefCell;
use std::rc::Rc;

use curfew_entry::Limits;

use super::*;
use crate::audit::{Auditor, FindingKind};
use crate::traffic::{
    ActivityCell, Cut, CutCause, Effect, Input, LastActivity, PIECE, PermitId, Traffic,
};

#[derive(Clone, Debug)]
struct Cell(Rc<RefCell<LastActivity>>);

impl ActivityCell for Cell {
    fn new(activity: LastActivity) -> Self {
        Self(Rc::new(RefCell::new(activity)))
    }

    fn with<T>(&self, look: impl FnOnce(&mut LastActivity) -> T) -> T {
        look(&mut self.0.borrow_mut())
    }
}

/// A log with its state and its traffic, and no gateway around them.
struct Gateway {
    authority: Authority,
    traffic: Traffic<Cell>,
    entries: Vec<Entry>,
    cuts: Vec<(PermitId, Cut)>,
    now: Timestamp,
    /// The most entries of one decision since this was last looked at.
    largest: usize,
}

impl Gateway {
    /// With so many people signed in at second 0.
    fn of(people: u64) -> Self {
        let authority = Authority::new();
        let grace = Span::from_secs(30);
        let mut gateway = Self {
            traffic: Traffic::new(&authority, grace),
            authority,
            entries: Vec::new(),
            cuts: Vec::new(),
            now: at(0),
            largest: 0,
        };
        let resources = vec![database("orders")];
        for command in [
            Command::OpenLog {
                origin: "x/log".into(),
            },
            restart(),
            Command::LoadResources { resources },
            Command::LoadPolicy {
                text: POLICY.into(),
            },
        ] {
            gateway.record(&command);
        }
        for n in 0..people {
            gateway.record(&start(n, 0));
        }
        gateway.largest = 0;
        gateway
    }

    fn tell(&mut self, input: Input<'_>) {
        for effect in self.traffic.handle(input, &self.authority, self.now) {
            match effect {
                Effect::Cut { permit, cut } => self.cuts.push((permit, cut)),
                Effect::Record(command) => self.record(&command),
            }
        }
    }

    fn record(&mut self, command: &Command) {
        let decision = self.authority.decide(command, self.now);
        self.largest = self.largest.max(decision.events.len());
        self.tell(Input::Decided(&decision.events));
        let time = self.now;
        for mut event in decision.events {
            self.traffic.date_back(&mut event);
            let entry = Entry { time, event };
            self.authority.apply(&entry);
            self.tell(Input::Recorded(&entry));
            self.entries.push(entry);
        }
    }

    /// One turn of the loop. Whether there is more to do at once.
    fn turn(&mut self) -> bool {
        self.tell(Input::Wake);
        if !self.traffic.is_due(&self.authority, self.now)
            && let Some(owed) = self.traffic.owed(&self.authority, self.now)
        {
            self.record(&owed);
        }
        let next = self.traffic.wake_at(&self.authority);
        next.is_some_and(|next| next <= self.now)
    }

    fn open(&mut self, n: u64) -> PermitId {
        let hour = Span::from_secs(3_600);
        let limits = Limits {
            idle: hour,
            reauth: hour,
            lifetime: hour,
        };
        let entries = vec![(0, Verb::SqlRead)];
        let admitted = self
            .traffic
            .admit(&id(n), entries, limits, None, &self.authority);
        admitted.unwrap().0
    }

    fn found(&self) -> Vec<FindingKind> {
        let mut auditor = Auditor::new();
        let found = (0..).zip(&self.entries);
        let mut found: Vec<_> = found
            .flat_map(|(index, entry)| auditor.check(index, entry))
            .collect();
        found.extend(auditor.finish(self.now));
        found.into_iter().map(|finding| finding.kind).collect()
    }

    fn ends(&self) -> usize {
        let end = |entry: &&Entry| matches!(entry.event, Event::SessionEnded { .. });
        self.entries.iter().filter(end).count()
    }
}

const MANY: u64 = 2 * PIECE as u64 + 7;

#[test]
fn all_that_is_due_is_cut_before_the_first_end_is_told_and_these_come_in_pieces() {
    let mut gateway = Gateway::of(MANY);
    let open: Vec<PermitId> = (0..MANY).map(|n| gateway.open(n)).collect();
    gateway.now = at(900);
    while gateway.cuts.len() < open.len() {
        assert_eq!(gateway.ends(), 0, "a cut never waits for an entry");
        assert!(gateway.turn());
    }
    let mut turns = 0;
    while gateway.turn() {
        turns += 1;
    }
    assert_eq!((gateway.ends() as u64, gateway.largest), (MANY, PIECE));
    assert!(turns >= 1, "the loop is open in between");
    for (_, cut) in &gateway.cuts {
        assert_eq!(cut.cause, CutCause::SessionEnded(EndReason::Idle));
    }
    assert_eq!(gateway.found(), []);
}

#[test]
fn what_ran_out_while_nothing_ran_ends_at_its_deadline_in_pieces() {
    let mut gateway = Gateway::of(MANY);
    gateway.now = at(10_000);
    gateway.traffic = Traffic::new(&gateway.authority, Span::from_secs(30));
    gateway.record(&restart());
    assert_eq!(gateway.ends(), 0);
    // Whoever asks meanwhile is told, and others get in.
    gateway.record(&ask(3, Verb::SqlRead));
    gateway.record(&start(MANY, 10_000));
    gateway.now = at(10_005);
    while gateway.turn() {}
    assert_eq!((gateway.ends() as u64, gateway.largest), (MANY, PIECE));
    for entry in &gateway.entries {
        if let Event::SessionEnded {
            deadline,
            effective,
            late,
            ..
        } = &entry.event
        {
            assert_eq!((*deadline, *late), (Some(*effective), Some(Span::ZERO)));
        }
    }
    assert_eq!(gateway.found(), []);
}

#[test]
fn a_policy_holds_at_once_for_many_and_its_consequences_are_told_in_pieces() {
    for (policy, ends) in [(TIGHT, 0), (&TIGHT.replace("dba", "nobody"), MANY as usize)] {
        let mut gateway = Gateway::of(MANY);
        gateway.open(1);
        gateway.now = at(60);
        let text = policy.to_owned();
        gateway.record(&Command::LoadPolicy { text });
        assert_eq!(gateway.largest, 1, "nothing but the policy itself");
        // Of whom no entry has told yet, too.
        let last = gateway.authority.session(&id(MANY - 1)).unwrap().clone();
        assert_eq!(ends == 0, last.limits.idle == Span::from_secs(120));
        let asked = gateway.authority.decide(&ask(5, Verb::SqlRead), at(60));
        let told = if ends == 0 {
            "session.limited action.denied:not_permitted -> deny NotPermitted"
        } else {
            "session.ended:policy_changed -> ended PolicyChanged"
        };
        assert_eq!(tell(&asked), told);
        gateway.record(&ask(5, Verb::SqlRead));
        while gateway.turn() {}
        assert!(gateway.largest <= PIECE);
        assert_eq!(gateway.ends(), ends);
        assert_eq!(gateway.cuts.len(), usize::from(ends > 0));
        assert_eq!(gateway.found(), []);
        let told = |entry: &&Entry| {
            matches!(
                entry.event,
                Event::SessionLimited { .. } | Event::SessionEnded { .. }
            )
        };
        assert_eq!(gateway.entries.iter().filter(told).count() as u64, MANY);
        // One that is left out is found, once it cannot come any more.
        let left_out = gateway.entries.iter().rposition(|entry| told(&entry));
        gateway.entries.remove(left_out.unwrap());
        gateway.now = at(60 + 400);
        let found = gateway.found();
        let missing = if ends == 0 {
            FindingKind::LimitsWrong
        } else {
            FindingKind::EndMissing
        };
        assert!(found.contains(&missing), "{found:?}");
    }
}

#[test]
fn a_piece_that_fails_is_told_later_and_once() {
    let mut gateway = Gateway::of(MANY);
    gateway.now = at(900);
    for _ in 0..3 {
        gateway.tell(Input::Wake);
    }
    let owed = gateway.traffic.owed(&gateway.authority, at(900)).unwrap();
    let decision = gateway.authority.decide(&owed, at(900));
    let cause = "the disk is gone".to_owned();
    let reserve = false;
    gateway.tell(Input::Failed { cause, reserve });
    gateway.tell(Input::Unrecorded(&owed, &decision.events));
    assert!(gateway.traffic.owed(&gateway.authority, at(901)).is_none());
    gateway.now = at(910);
    gateway.tell(Input::Back);
    while gateway.turn() {}
    assert_eq!(gateway.ends() as u64, MANY);
    assert!(gateway.traffic.outage().is_none());
    assert_eq!(gateway.found(), []);
}

#[test]
fn an_account_with_many_sessions_loses_them_in_pieces() {
    let mut gateway = Gateway::of(MANY);
    gateway.open(1);
    gateway.now = at(1);
    gateway.record(&change(AccountChange::PasswordSet));
    assert_eq!(gateway.largest, 1);
    gateway.turn();
    assert_eq!(gateway.cuts.len(), 1);
    while gateway.turn() {}
    assert_eq!((gateway.ends() as u64, gateway.largest), (MANY, PIECE));
    assert_eq!(gateway.found(), []);
}

#[test]
fn what_outlives_its_session_is_cut_for_the_reason_on_record() {
    let mut gateway = Gateway::of(1);
    let permit = gateway.open(0);
    let end = Event::SessionEnded {
        session: id(0),
        reason: EndReason::EndedByAdmin,
        deadline: None,
        effective: at(2),
        late: None,
        by: None,
    };
    let entry = Entry {
        time: at(2),
        event: end,
    };
    gateway.authority.apply(&entry);
    gateway.tell(Input::Recorded(&entry));
    let cut = Cut::of(CutCause::SessionEnded(EndReason::EndedByAdmin));
    assert_eq!(gateway.cuts, [(permit, cut)]);
}

/// What it takes: `cargo test --release -p curfew-authority -- --ignored --nocapture many`.
#[test]
#[ignore = "takes minutes where it is not optimized"]
fn a_million_that_ran_out_are_ended_and_proven() {
    const MANY: u64 = 1_000_000;
    let mut gateway = Gateway::of(MANY);
    gateway.now = at(10_000);
    gateway.traffic = Traffic::new(&gateway.authority, Span::from_secs(30));
    gateway.record(&restart());
    while gateway.turn() {}
    assert_eq!((gateway.ends() as u64, gateway.largest), (MANY, PIECE));
    assert_eq!(gateway.found(), []);
}
