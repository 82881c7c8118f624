//! The class of database account that a connection uses.

use curfew_entry::AccountClass;

use super::*;
use crate::Auditor;

const ALL: &[AccountClass] = &AccountClass::ALL;
const READ_AND_WRITE: &[AccountClass] = &[AccountClass::Read, AccountClass::Write];

fn open(n: u64, account: Option<AccountClass>) -> Command {
    let action = ActionDetail::connecting("orders".parse().unwrap(), account);
    ask_as(Presenter::Session(id(n)), action)
}

fn account_for(authority: &Authority, offered: &[AccountClass], secs: u64) -> Option<AccountClass> {
    let orders = "orders".parse().unwrap();
    authority.account_for(&id(1), &orders, &office(), offered, at(secs))
}

#[test]
fn the_account_has_no_more_reach_than_policy_permits_now() {
    let authority = check(&[(0, start(1, 0), STARTED)]);
    let before = authority.clone();
    // Definitions are forbidden; writing asks for a sign-in of the last ten minutes, and for
    // activity within five.
    let cases: &[(&[AccountClass], u64, Option<AccountClass>)] = &[
        (ALL, 299, Some(AccountClass::Write)),
        (ALL, 300, Some(AccountClass::Read)),
        (
            &[AccountClass::Ddl, AccountClass::Read],
            1,
            Some(AccountClass::Read),
        ),
        (READ_AND_WRITE, 1, Some(AccountClass::Write)),
        (&[AccountClass::Connect], 1, Some(AccountClass::Connect)),
        // Nothing that is offered is permitted: it is asked for the least, and refused.
        (
            &[AccountClass::Write, AccountClass::Ddl],
            301,
            Some(AccountClass::Write),
        ),
        (&[AccountClass::Ddl], 1, Some(AccountClass::Ddl)),
        (&[], 1, None),
    ];
    for (offered, secs, wanted) in cases {
        let found = account_for(&authority, offered, *secs);
        assert_eq!(found, *wanted, "{offered:?} at {secs} s");
    }
    assert_eq!(authority, before, "asking changes nothing");
    let nobody = id(2);
    let orders = "orders".parse().unwrap();
    let found = authority.account_for(&nobody, &orders, &office(), ALL, at(1));
    assert_eq!(found, Some(AccountClass::Connect));
}

#[test]
fn a_connection_is_held_to_the_limits_of_all_that_its_account_can_do() {
    let read = Some(AccountClass::Read);
    let write = Some(AccountClass::Write);
    check(&[
        (0, start(1, 0), STARTED),
        (1, open(1, None), "action.allowed -> allow until 901 idle"),
        (1, open(1, read), "action.allowed -> allow until 901 idle"),
        (1, open(1, write), "action.allowed -> allow until 301 idle"),
        (
            299,
            open(1, write),
            "action.allowed -> allow until 599 idle",
        ),
        (
            400,
            open(1, write),
            "action.allowed -> allow until 600 reauth",
        ),
        (600, open(1, write), "action.stepped_up -> step up reauth"),
        (
            600,
            open(1, read),
            "action.allowed -> allow until 1500 idle",
        ),
        (
            601,
            open(1, Some(AccountClass::Ddl)),
            "action.denied:forbidden -> deny Forbidden",
        ),
    ]);
}

#[test]
fn the_entry_names_rules_and_demands_of_all_of_it() {
    let mut authority = check(&[(0, start(1, 0), STARTED)]);
    let decision = run(&mut authority, &open(1, Some(AccountClass::Write)), at(1));
    let [
        Event::ActionAllowed {
            action,
            rules,
            demands,
            ..
        },
    ] = decision.events.as_slice()
    else {
        panic!("{decision:?}");
    };
    let rules: Vec<&str> = rules.iter().map(curfew_entry::RuleId::as_str).collect();
    assert_eq!(rules, ["read", "write"]);
    assert_eq!(demands.assurance, Some(Aal::Two));
    assert_eq!(action.account, Some(AccountClass::Write));
    let Verdict::Allow(grant) = decision.verdict else {
        panic!("{:?}", decision.verdict);
    };
    assert_eq!(grant.account, Some(AccountClass::Write));
    // Only a connection has an account.
    let mut statement = action.clone();
    statement.verb = Verb::SqlRead;
    let decision = run(
        &mut authority,
        &ask_as(Presenter::Session(id(1)), statement),
        at(2),
    );
    assert!(
        matches!(&decision.events[..], [Event::ActionAllowed { action, .. }] if action.account.is_none())
    );
}

/// Reads a history as the auditor does, with one of its actions altered.
fn findings(alter: impl Fn(&mut ActionDetail)) -> Vec<String> {
    let mut authority = Authority::new();
    let mut auditor = Auditor::new();
    let history = [
        (0, Command::OpenLog { origin: "t".into() }),
        (
            0,
            Command::LoadResources {
                resources: vec![database("orders")],
            },
        ),
        (
            0,
            Command::LoadPolicy {
                text: POLICY.into(),
            },
        ),
        (0, start(1, 0)),
        (601, open(1, Some(AccountClass::Read))),
    ];
    let mut found = Vec::new();
    for (index, (secs, command)) in (0..).zip(history) {
        let decision = run(&mut authority, &command, at(secs));
        for mut event in decision.events {
            if let Some(action) = event.action_mut() {
                alter(action);
            }
            let entry = Entry {
                time: at(secs),
                event,
            };
            found.extend(auditor.check(index, &entry));
        }
    }
    found
        .iter()
        .map(|found| format!("{:?}", found.kind))
        .collect()
}

#[test]
fn the_auditor_finds_an_account_that_policy_did_not_permit() {
    assert_eq!(findings(|_| ()), [""; 0]);
    let write = findings(|action| action.account = Some(AccountClass::Write));
    assert_eq!(write, ["NotPermitted"]);
    let ddl = findings(|action| action.account = Some(AccountClass::Ddl));
    assert_eq!(ddl, ["NotPermitted"]);
    let statement = findings(|action| action.verb = Verb::SqlRead);
    assert_eq!(statement, ["WrongRuling"]);
}
