//! Erasing: two persons, each with a fresh permit, neither the one whose values they are.

use curfew_entry::{ErasureId, ResourceName};

use super::*;
use crate::audit::{Auditor, FindingKind};
use crate::command::ErasureStep;

const RULES: &str = r#"
@id("sessions") @idle("4h") @reauth("4h") @lifetime("4h")
permit (principal, action == Action::"session.start", resource == Resource::"gateway");
@id("all")
permit (principal, action == Action::"log.erase", resource == Resource::"gateway");
"#;

fn named(n: u64, subject: &str) -> Command {
    Command::StartSession {
        session: id(n),
        subject: subject.parse().unwrap(),
        roles: BTreeSet::new(),
        proof: proof(1, Aal::Two),
        context: office(),
        credential: credential(n, CredentialClass::Bearer),
    }
}

fn erasure() -> ErasureId {
    ErasureId::from_random([1; 12])
}

fn permit(n: u64) -> Command {
    let mut action = action(Verb::LogErase);
    action.resource = ResourceName::gateway();
    ask_as(Presenter::Session(id(n)), action)
}

fn request(n: u64, subject: &str) -> Command {
    Command::Erasure(ErasureStep::Request {
        session: id(n),
        erasure: erasure(),
        subject: subject.parse().unwrap(),
    })
}

fn approve(n: u64) -> Command {
    Command::Erasure(ErasureStep::Approve {
        session: id(n),
        erasure: erasure(),
    })
}

fn finish(before: u64) -> Command {
    Command::Erasure(ErasureStep::Finish {
        erasure: erasure(),
        keys: 1,
        entries: 2,
        before,
    })
}

/// A log with sessions of ann (1), bob (2), cyd (3) and again bob (4), ready at second 1.
struct Log {
    authority: Authority,
    entries: Vec<Entry>,
}

impl Log {
    fn new() -> Self {
        let mut log = Self {
            authority: Authority::new(),
            entries: Vec::new(),
        };
        log.run(0, &Command::OpenLog { origin: "t".into() });
        let text = RULES.into();
        log.run(0, &Command::LoadPolicy { text });
        for (n, subject) in [(1, "ann"), (2, "bob"), (3, "cyd"), (4, "bob")] {
            log.run(1, &named(n, subject));
        }
        log
    }

    fn run(&mut self, secs: u64, command: &Command) -> String {
        let decision = run(&mut self.authority, command, at(secs));
        let time = at(secs);
        let entries = decision.events.iter().cloned();
        self.entries
            .extend(entries.map(|event| Entry { time, event }));
        tell(&decision)
    }

    /// A fresh sign-in of session `n`, and a permit.
    fn renewed(&mut self, secs: u64, n: u64) {
        assert!(self.run(secs, &reauth(n, secs)).ends_with("done"));
        assert!(self.run(secs, &permit(n)).contains("allow"));
    }

    fn found(&self) -> Vec<FindingKind> {
        let mut auditor = Auditor::new();
        (0..)
            .zip(&self.entries)
            .flat_map(|(index, entry)| auditor.check(index, entry))
            .map(|finding| finding.kind)
            .collect()
    }

    /// All steps as they should be.
    fn whole() -> Self {
        let mut log = Self::new();
        log.run(2, &permit(2));
        assert_eq!(log.run(2, &request(2, "ann")), "erasure.requested -> done");
        log.run(3, &permit(3));
        assert_eq!(log.run(3, &approve(3)), "erasure.approved -> done");
        let before = log.entries.len() as u64 - 1;
        assert_eq!(log.run(4, &finish(before)), "erasure.done -> done");
        log
    }

    /// The whole log with its events changed by `forge`, and what is found there.
    fn forged(forge: impl Fn(&mut Event)) -> Vec<FindingKind> {
        let mut log = Self::whole();
        for entry in &mut log.entries {
            forge(&mut entry.event);
        }
        log.found()
    }
}

#[test]
fn one_asks_another_approves_and_it_is_done() {
    let log = Log::whole();
    assert_eq!(log.found(), []);
    assert!(log.authority.erasure(&erasure()).is_none());
    let mut replayed = Authority::new();
    for entry in &log.entries {
        replayed.apply(entry);
    }
    assert_eq!(replayed, log.authority);
}

#[test]
fn nobody_does_both_and_nobody_touches_their_own() {
    let mut log = Log::new();
    let mut refused = |secs, command: Command, wanted: &str| {
        let told = log.run(secs, &command);
        assert!(told.contains("refused") && told.contains(wanted), "{told}");
    };
    refused(2, request(1, "ann"), "their own");
    refused(2, approve(3), "no such erasure");
    refused(2, request(2, "ann"), "ask again");
    log.run(2, &permit(2));
    assert!(log.run(2, &request(2, "ann")).ends_with("done"));
    let mut refused = |secs, command: Command, wanted: &str| {
        let told = log.run(secs, &command);
        assert!(told.contains("refused") && told.contains(wanted), "{told}");
    };
    refused(3, request(3, "ann"), "already");
    refused(3, finish(0), "nobody has approved");
    refused(3, approve(1), "their own");
    refused(3, approve(2), "somebody else");
    refused(3, approve(4), "somebody else");
    let last = 2 + 3_600;
    refused(last, approve(3), "in time");
    // Any entry lets go of what nobody approved.
    log.renewed(last, 2);
    assert!(log.run(last, &request(2, "ann")).ends_with("done"));
    log.renewed(last + 3_599, 3);
    let told = log.run(last + 3_599, &approve(3));
    assert_eq!(told, "erasure.approved -> done");
    let told = log.run(last + 3_600, &approve(3));
    assert!(told.contains("approved already"), "{told}");
    assert_eq!(log.found(), []);
}

#[test]
fn each_permit_is_for_one_step_and_for_a_minute() {
    let mut log = Log::new();
    // As two tabs of one session would: both ask, then both go on.
    log.run(2, &permit(2));
    log.run(2, &permit(2));
    assert!(log.run(2, &request(2, "ann")).ends_with("done"));
    let other = Command::Erasure(ErasureStep::Request {
        session: id(2),
        erasure: ErasureId::from_random([2; 12]),
        subject: "cyd".parse().unwrap(),
    });
    assert!(log.run(2, &other).contains("ask again"));
    log.run(3, &permit(3));
    assert!(log.run(64, &approve(3)).contains("ask again"));
    log.run(65, &permit(3));
    assert!(log.run(125, &approve(3)).ends_with("done"));
    assert_eq!(log.found(), []);
}

#[test]
fn an_old_sign_in_is_not_enough_whatever_the_rules_say() {
    let mut log = Log::new();
    assert!(log.run(300, &permit(2)).contains("allow"));
    assert!(log.run(301, &permit(2)).contains("step up reauth"));
}

#[test]
fn the_auditor_finds_each_step_that_is_missing_or_wrong() {
    let wrong = FindingKind::ErasureWrong;
    let steps = |entry: &Entry| {
        matches!(
            &entry.event,
            Event::ActionAllowed { .. }
                | Event::ErasureRequested { .. }
                | Event::ErasureApproved { .. }
        )
    };
    let whole = Log::whole();
    let places = (0..whole.entries.len()).filter(|place| steps(&whole.entries[*place]));
    let places: Vec<usize> = places.collect();
    assert_eq!(places.len(), 4);
    for left_out in places {
        let mut log = Log::whole();
        // Something else stands there, so that the places of the others are as they were.
        log.entries[left_out].event = Event::ClockStepped { wall_offset_us: 0 };
        let found = log.found();
        assert!(found.contains(&wrong), "{left_out}: {found:?}");
    }
    let found = Log::forged(|event| {
        if let Event::ErasureApproved { session, .. } = event {
            *session = id(4);
        }
    });
    assert!(found.contains(&wrong), "bob twice: {found:?}");
    let found = Log::forged(|event| {
        if let Event::ErasureDone { before, .. } = event {
            *before += 1;
        }
    });
    assert_eq!(found, [wrong], "more entries");
    let found = Log::forged(|event| {
        if let Event::ErasureDone { subject, .. } = event {
            *subject = "cyd".parse().unwrap();
        }
    });
    assert_eq!(found, [wrong], "another's");
    let mut log = Log::whole();
    let again = log.entries.last().cloned().unwrap();
    log.entries.push(again);
    assert_eq!(log.found(), [wrong], "twice");
}
