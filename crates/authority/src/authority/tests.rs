//! The clocks and the credentials, as scripts: at a second, a command; what it must lead to.

use std::collections::BTreeSet;

mod accounts;
mod changes;
mod clocks;
mod connections;
mod erasing;
mod pieces;

use curfew_entry::{
    Aal, AccountChange, ActionDetail, Actor, ClockSource, Context, DeadlineCause, Entry, Event,
    Factor, Plane, Proof, RefusalCause, Verb,
};

use super::*;
use crate::command::{
    Ask, Command, Decision, EndCause, NewCredential, Presenter, Refusal, Verdict,
};

/// The gateway: 15 min idle, 1 h reauth, 4 h lifetime. Writing to `orders`: 5 min, 10 min, 2 h,
/// two factors. Reading it: no demands.
const POLICY: &str = r#"
@id("sessions") @idle("15m") @reauth("1h") @lifetime("4h")
permit (principal, action == Action::"session.start", resource == Resource::"gateway");
@id("read")
permit (principal in Role::"dba", action in [Action::"sql.read", Action::"sql.connect"], resource);
@id("write") @idle("5m") @reauth("10m") @lifetime("2h") @assurance("aal2")
permit (principal in Role::"dba", action == Action::"sql.write", resource == Resource::"orders");
@id("no-ddl")
forbid (principal, action == Action::"sql.ddl", resource);
"#;

const TIGHT: &str = r#"
@id("sessions") @idle("2m") @reauth("30m") @lifetime("4h")
permit (principal in Role::"dba", action == Action::"session.start", resource == Resource::"gateway");
"#;

fn id(n: u64) -> SessionId {
    format!("s_{n:024x}").parse().unwrap()
}

fn hash(n: u64) -> CredentialHash {
    format!("{n:064x}").parse().unwrap()
}

fn credential(n: u64, class: CredentialClass) -> Credential {
    Credential {
        id: format!("c_{n:024x}").parse().unwrap(),
        class,
        hash: hash(n),
        audience: (class != CredentialClass::Bearer).then(|| "orders".parse().unwrap()),
        expires: None,
    }
}

fn at(secs: u64) -> Timestamp {
    Timestamp::from_micros(secs * 1_000_000)
}

fn proof(secs: u64, aal: Aal) -> Proof {
    Proof {
        amr: BTreeSet::from([Factor::Password, Factor::OneTimePassword]),
        aal,
        at: at(secs),
    }
}

fn office() -> Context {
    Context {
        address: "10.0.0.1".parse().unwrap(),
        network: "office".into(),
    }
}

fn database(name: &str) -> Resource {
    Resource {
        name: name.parse().unwrap(),
        plane: Plane::Postgres,
        environment: "production".parse().unwrap(),
        tags: BTreeSet::new(),
    }
}

/// A sign-in of session `n` by its dba, with a database password `n`.
fn start(n: u64, secs: u64) -> Command {
    Command::StartSession {
        session: id(n),
        subject: "ann".parse().unwrap(),
        roles: BTreeSet::from(["dba".parse().unwrap()]),
        proof: proof(secs, Aal::Two),
        context: office(),
        credential: credential(n, CredentialClass::Database),
    }
}

/// Ends those of these sessions that have run out.
fn expire(sessions: &[u64]) -> Command {
    Command::Expire(sessions.iter().copied().map(id).collect())
}

fn action(verb: Verb) -> ActionDetail {
    ActionDetail::new(verb, "orders".parse().unwrap())
}

fn ask_as(presenter: Presenter, action: ActionDetail) -> Command {
    Command::Ask(Ask {
        presenter,
        action,
        context: office(),
    })
}

fn ask(n: u64, verb: Verb) -> Command {
    ask_as(Presenter::Session(id(n)), action(verb))
}

fn passive(n: u64, verb: Verb) -> Command {
    let mut action = action(verb);
    action.passive = true;
    ask_as(Presenter::Session(id(n)), action)
}

fn show(n: u64, class: CredentialClass, plane: Plane) -> Command {
    let presenter = Presenter::Credential {
        class,
        hash: hash(n),
        plane,
    };
    ask_as(presenter, action(Verb::SqlRead))
}

fn reauth(n: u64, secs: u64) -> Command {
    Command::Reauthenticate {
        session: id(n),
        proof: proof(secs, Aal::Two),
        credential: credential(1_000_000 + secs, CredentialClass::Cookie),
    }
}

fn observe(n: u64, secs: u64) -> Command {
    Command::Observe {
        session: id(n),
        active_at: at(secs),
    }
}

fn change(change: AccountChange) -> Command {
    Command::ChangeAccount {
        subject: "ann".parse().unwrap(),
        change,
        by: Actor::Host("root".into()),
    }
}

fn restart() -> Command {
    Command::StartGateway {
        version: "1".into(),
        clock: ClockSource::Wall,
        boot_id: "b".into(),
        boot_us: 0,
        wall: None,
    }
}

/// Carries a command out as a registrar does.
fn run(authority: &mut Authority, command: &Command, now: Timestamp) -> Decision {
    let decision = authority.decide(command, now);
    for event in &decision.events {
        let entry = Entry {
            time: now,
            event: event.clone(),
        };
        let bytes = entry.to_bytes().unwrap();
        authority.apply(&Entry::from_bytes(&bytes).unwrap());
    }
    decision
}

fn ready() -> Authority {
    let mut authority = Authority::new();
    for command in [
        Command::OpenLog { origin: "t".into() },
        Command::LoadResources {
            resources: vec![database("orders"), database("other")],
        },
        Command::LoadPolicy {
            text: POLICY.into(),
        },
    ] {
        assert_eq!(run(&mut authority, &command, at(0)).verdict, Verdict::Done);
    }
    authority
}

/// An outcome in a word: what was recorded, and the verdict.
fn tell(decision: &Decision) -> String {
    let events: Vec<String> = decision
        .events
        .iter()
        .map(|event| {
            let kind = serde_json::to_value(event).unwrap();
            let text = |field: &str| {
                kind.get(field)
                    .map(|value| format!(":{}", value.as_str().unwrap_or("?")))
            };
            let name = kind["kind"].as_str().unwrap().to_owned();
            let more = text("reason").or_else(|| text("cause")).unwrap_or_default();
            let late = kind
                .get("late_us")
                .map(|late| format!("+{}", late.as_u64().unwrap() / 1_000_000));
            format!("{name}{more}{}", late.unwrap_or_default())
        })
        .collect();
    let verdict = match &decision.verdict {
        Verdict::Done => "done".to_owned(),
        Verdict::Allow(grant) => format!(
            "allow until {} {}",
            grant.deadline.at.as_secs(),
            grant.deadline.cause
        ),
        Verdict::StepUp(step_up) => match (step_up.passed, step_up.assurance) {
            (Some(passed), _) => format!("step up {}", passed.cause),
            (None, _) => "step up aal".to_owned(),
        },
        Verdict::Deny(denial) => format!("deny {:?}", denial.cause),
        Verdict::Ended { reason, .. } => format!("ended {reason:?}"),
        Verdict::Unauthenticated => "unauthenticated".to_owned(),
        Verdict::Refused(refusal) => format!("refused {refusal}"),
    };
    format!("{} -> {verdict}", events.join(" "))
}

/// Runs a script of (second, command, outcome) on a fresh authority with [`POLICY`].
#[track_caller]
fn check(script: &[(u64, Command, &str)]) -> Authority {
    let mut authority = ready();
    for (step, (secs, command, expected)) in script.iter().enumerate() {
        let decision = run(&mut authority, command, at(*secs));
        assert_eq!(tell(&decision), *expected, "step {step} at {secs} s");
    }
    authority
}

const STARTED: &str = "session.started credential.issued -> done";
