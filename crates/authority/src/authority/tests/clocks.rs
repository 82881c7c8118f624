//! The three clocks.

use super::*;

#[test]
fn valid_strictly_before_the_deadline_and_over_from_it_on() {
    let read = || ask(1, Verb::SqlRead);
    check(&[
        (0, start(1, 0), STARTED),
        (899, read(), "action.allowed -> allow until 1799 idle"),
        (1799, read(), "session.ended:idle+0 -> ended Idle"),
        (1799, read(), " -> ended Idle"),
    ]);
    check(&[
        (0, start(1, 0), STARTED),
        (905, read(), "session.ended:idle+5 -> ended Idle"),
    ]);
}

#[test]
fn activity_resets_idle_only_and_reauthentication_resets_both() {
    let read = || ask(1, Verb::SqlRead);
    check(&[
        (0, start(1, 0), STARTED),
        (800, read(), "action.allowed -> allow until 1700 idle"),
        (1600, read(), "action.allowed -> allow until 2500 idle"),
        (2400, read(), "action.allowed -> allow until 3300 idle"),
        (3200, read(), "action.allowed -> allow until 3600 reauth"),
        (3600, read(), "session.ended:reauth+0 -> ended Reauth"),
    ]);
    check(&[
        (0, start(1, 0), STARTED),
        (
            800,
            reauth(1, 800),
            "session.reauthenticated credential.issued -> done",
        ),
        (1699, read(), "action.allowed -> allow until 2599 idle"),
        (2599, read(), "session.ended:idle+0 -> ended Idle"),
    ]);
}

#[test]
fn nothing_resets_the_lifetime() {
    let mut script = vec![(0, start(1, 0), STARTED)];
    for step in 1..18 {
        let renewed = "session.reauthenticated credential.revoked credential.issued -> done";
        let first = "session.reauthenticated credential.issued -> done";
        let expected = if step == 1 { first } else { renewed };
        script.push((step * 800, reauth(1, step * 800), expected));
    }
    script.push((
        14_399,
        ask(1, Verb::SqlRead),
        "action.allowed -> allow until 14400 lifetime",
    ));
    script.push((
        14_400,
        ask(1, Verb::SqlRead),
        "session.ended:lifetime+0 -> ended Lifetime",
    ));
    check(&script);
}

#[test]
fn passive_actions_are_no_activity() {
    check(&[
        (0, start(1, 0), STARTED),
        (
            800,
            passive(1, Verb::SqlRead),
            "action.allowed -> allow until 900 idle",
        ),
        (
            899,
            passive(1, Verb::SqlDdl),
            "action.denied:forbidden -> deny Forbidden",
        ),
        (
            900,
            passive(1, Verb::SqlRead),
            "session.ended:idle+0 -> ended Idle",
        ),
    ]);
}

#[test]
fn the_limits_of_a_resource_ask_for_authentication_and_leave_the_session() {
    let write = || ask(1, Verb::SqlWrite);
    check(&[
        (0, start(1, 0), STARTED),
        (299, write(), "action.allowed -> allow until 599 idle"),
        (599, write(), "action.stepped_up -> step up idle"),
        // Asking again heals nothing.
        (599, write(), "action.stepped_up -> step up idle"),
        (
            600,
            reauth(1, 600),
            "session.reauthenticated credential.issued -> done",
        ),
        (601, write(), "action.allowed -> allow until 901 idle"),
        (
            900,
            ask(1, Verb::SqlRead),
            "action.allowed -> allow until 1800 idle",
        ),
        (1199, write(), "action.allowed -> allow until 1200 reauth"),
        (1200, write(), "action.stepped_up -> step up reauth"),
    ]);
    let renewed = "session.reauthenticated credential.revoked credential.issued -> done";
    let mut script = vec![(0, start(1, 0), STARTED)];
    for step in 1..=9 {
        let first = "session.reauthenticated credential.issued -> done";
        script.push((
            step * 800,
            reauth(1, step * 800),
            if step == 1 { first } else { renewed },
        ));
    }
    script.push((7_200, write(), "action.denied:too_old -> deny TooOld"));
    script.push((
        7_200,
        ask(1, Verb::SqlRead),
        "action.allowed -> allow until 8100 idle",
    ));
    check(&script);
}

#[test]
fn a_refused_request_is_activity_and_a_stepped_up_one_is_not() {
    check(&[
        (0, start(1, 0), STARTED),
        (
            800,
            ask(1, Verb::SqlDdl),
            "action.denied:forbidden -> deny Forbidden",
        ),
        (
            1699,
            ask(1, Verb::SqlRead),
            "action.allowed -> allow until 2599 idle",
        ),
    ]);
    check(&[
        (0, start(1, 0), STARTED),
        (
            800,
            ask(1, Verb::SqlWrite),
            "action.stepped_up -> step up idle",
        ),
        (
            900,
            ask(1, Verb::SqlRead),
            "session.ended:idle+0 -> ended Idle",
        ),
    ]);
}

#[test]
fn a_weak_session_is_asked_for_more() {
    let weak = Command::StartSession {
        session: id(1),
        subject: "ann".parse().unwrap(),
        roles: BTreeSet::from(["dba".parse().unwrap()]),
        proof: proof(0, Aal::One),
        context: office(),
        credential: credential(1, CredentialClass::Cookie),
    };
    check(&[
        (0, weak, STARTED),
        (
            1,
            ask(1, Verb::SqlWrite),
            "action.stepped_up -> step up aal",
        ),
        (
            2,
            reauth(1, 2),
            "session.reauthenticated credential.revoked credential.issued -> done",
        ),
        (
            3,
            ask(1, Verb::SqlWrite),
            "action.allowed -> allow until 303 idle",
        ),
    ]);
}

#[test]
fn expiry_ends_what_is_due_and_tells_how_late() {
    let authority = check(&[
        (0, start(1, 0), STARTED),
        (100, start(2, 100), STARTED),
        (899, expire(&[1, 2]), " -> done"),
        (901, expire(&[1, 2]), "session.ended:idle+1 -> done"),
        (901, expire(&[1, 2]), " -> done"),
    ]);
    assert_eq!(authority.over_at(&id(2)), Some(at(1000)));
    assert_eq!(authority.live().len(), 1);
    assert_eq!(authority.ended(&id(1)), Some(EndReason::Idle));
}

#[test]
fn the_end_follows_activity() {
    let authority = check(&[
        (0, start(1, 0), STARTED),
        (
            600,
            ask(1, Verb::SqlRead),
            "action.allowed -> allow until 1500 idle",
        ),
    ]);
    assert_eq!(authority.over_at(&id(1)), Some(at(1500)));
    let deadline = authority.session(&id(1)).unwrap().end_deadline();
    assert_eq!(deadline.cause, DeadlineCause::Idle);
}

#[test]
fn activity_noted_late_counts_from_when_it_was() {
    check(&[
        (0, start(1, 0), STARTED),
        (900, observe(1, 899), "session.active -> done"),
        (1798, observe(1, 899), " -> done"),
        (1798, observe(1, 1799), " -> done"),
        (1799, observe(1, 1799), "session.ended:idle+0 -> ended Idle"),
    ]);
    check(&[
        (0, start(1, 0), STARTED),
        (
            1000,
            observe(1, 50),
            "session.active session.ended:idle+50 -> ended Idle",
        ),
    ]);
}

#[test]
fn sessions_that_ran_out_while_down_end_at_their_deadlines() {
    let mut authority = check(&[(0, start(1, 0), STARTED), (200, start(2, 200), STARTED)]);
    let decision = run(&mut authority, &restart(), at(1_000));
    assert_eq!(
        tell(&decision),
        "gateway.started session.ended:idle+0 -> done"
    );
    assert!(matches!(
        decision.events[1],
        Event::SessionEnded { effective, deadline: Some(deadline), .. }
            if effective == at(900) && deadline == at(900)
    ));
}
