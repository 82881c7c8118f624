//! Credentials, accounts, policies, and what does not fit.

use super::*;

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn credentials_open_only_what_they_are_for() {
    let database = CredentialClass::Database;
    let cookie = Command::IssueCredential(NewCredential {
        session: id(1),
        credential: credential(2, CredentialClass::Cookie),
    });
    let mut expiring = credential(3, database);
    expiring.expires = Some(at(20));
    let expiring = Command::IssueCredential(NewCredential {
        session: id(1),
        credential: expiring,
    });
    let mut foreign = credential(4, database);
    foreign.audience = Some("other".parse().unwrap());
    let foreign = Command::IssueCredential(NewCredential {
        session: id(1),
        credential: foreign,
    });
    let revoke = |n: u64| Command::RevokeCredential {
        session: id(1),
        credential: credential(n, database).id,
    };
    let issued = "credential.issued -> done";
    let wrong = "credential.refused:wrong_class -> unauthenticated";
    let authority = check(&[
        (0, start(1, 0), STARTED),
        (1, cookie, issued),
        (1, expiring.clone(), issued),
        (1, foreign, issued),
        (1, expiring, "refused"),
    ].map(|(t, c, e)| (t, c, if e == "refused" {
        " -> refused the credential c_000000000000000000000003 or its secret was used before"
    } else { e })));
    assert_eq!(authority.credentials_of(&id(1), at(1)).len(), 4);
    let ann = "ann".parse().unwrap();
    let orders = "orders".parse().unwrap();
    assert_eq!(
        authority.database_credentials(&ann, &orders, at(1)).len(),
        2
    );
    assert_eq!(
        authority.database_credentials(&ann, &orders, at(20)).len(),
        1
    );
    assert_eq!(
        authority.database_credentials(&ann, &orders, at(900)).len(),
        0
    );
    let mut authority = authority;
    for (secs, command, expected) in [
        (
            9,
            show(9, database, Plane::Postgres),
            "credential.unknown -> unauthenticated",
        ),
        (
            9,
            show(1, database, Plane::Postgres),
            "action.allowed -> allow until 909 idle",
        ),
        (9, show(1, CredentialClass::Cookie, Plane::Web), wrong),
        (9, show(1, database, Plane::Web), wrong),
        (9, show(2, CredentialClass::Cookie, Plane::Postgres), wrong),
        (
            19,
            show(3, database, Plane::Postgres),
            "action.allowed -> allow until 919 idle",
        ),
        (
            20,
            show(3, database, Plane::Postgres),
            "credential.refused:expired -> unauthenticated",
        ),
        (
            20,
            show(4, database, Plane::Postgres),
            "credential.refused:wrong_audience -> deny WrongAudience",
        ),
        (21, revoke(1), "credential.revoked -> done"),
        (
            21,
            revoke(1),
            " -> refused the session has no live credential c_000000000000000000000001",
        ),
        (
            22,
            show(1, database, Plane::Postgres),
            "credential.refused:revoked -> unauthenticated",
        ),
        // Refused credentials were no activity: 19 + 900.
        (
            919,
            show(1, database, Plane::Postgres),
            "session.ended:idle+0 -> ended Idle",
        ),
        (
            920,
            show(1, database, Plane::Postgres),
            "session.used_after_end -> ended Idle",
        ),
        (
            920 + 86_400,
            show(1, database, Plane::Postgres),
            "session.used_after_end -> ended Idle",
        ),
    ] {
        let decision = run(&mut authority, &command, at(secs));
        assert_eq!(tell(&decision), expected, "at {secs} s");
    }
    // A day of ledger time after the end the session is forgotten, with the next entry.
    let stop = run(&mut authority, &Command::StopGateway, at(920 + 86_400));
    assert_eq!(tell(&stop), "gateway.stopped -> done");
    let late = run(
        &mut authority,
        &show(1, database, Plane::Postgres),
        at(920 + 86_400),
    );
    assert_eq!(tell(&late), "credential.unknown -> unauthenticated");
    assert!(matches!(late.events[0], Event::CredentialUnknown { .. }));
}

#[test]
fn accounts_that_change_lose_their_sessions() {
    for (what, reason) in [
        (AccountChange::Disabled, "account_disabled"),
        (AccountChange::PasswordSet, "credential_changed"),
        (AccountChange::TotpSet, "credential_changed"),
    ] {
        let mut authority = check(&[(0, start(1, 0), STARTED), (0, start(2, 0), STARTED)]);
        let decision = run(&mut authority, &change(what.clone()), at(1));
        let expected =
            format!("account.changed session.ended:{reason} session.ended:{reason} -> done");
        assert_eq!(tell(&decision), expected);
        let again = tell(&run(&mut authority, &start(3, 2), at(2)));
        if what == AccountChange::Disabled {
            assert_eq!(again, "sign_in.refused:disabled -> deny NotPermitted");
            let enabled = run(&mut authority, &change(AccountChange::Enabled), at(3));
            assert_eq!(tell(&enabled), "account.changed -> done");
            assert_eq!(tell(&run(&mut authority, &start(3, 3), at(3))), STARTED);
        } else {
            assert_eq!(again, STARTED);
        }
    }
}

#[test]
fn an_interrupted_change_is_caught_up() {
    // Only the first of three events was recorded before the crash.
    let authority = check(&[(0, start(1, 0), STARTED), (0, start(2, 0), STARTED)]);
    let decision = authority.decide(&change(AccountChange::PasswordSet), at(1));
    let mut torn = authority.clone();
    torn.apply(&Entry {
        time: at(1),
        event: decision.events[0].clone(),
    });
    let asked = torn.decide(&ask(1, Verb::SqlRead), at(2));
    assert_eq!(
        tell(&asked),
        "session.ended:credential_changed -> ended CredentialChanged"
    );
    let started = torn.decide(&restart(), at(2));
    let both =
        "gateway.started session.ended:credential_changed session.ended:credential_changed -> done";
    assert_eq!(tell(&started), both);
    // The same for a policy whose consequences were not recorded.
    let decision = authority.decide(&Command::LoadPolicy { text: TIGHT.into() }, at(1));
    let mut torn = authority.clone();
    torn.apply(&Entry {
        time: at(1),
        event: decision.events[0].clone(),
    });
    let started = tell(&torn.decide(&restart(), at(2)));
    assert_eq!(
        started,
        "gateway.started session.limited session.limited -> done"
    );
}

#[test]
fn a_tighter_policy_takes_effect_at_once() {
    let tight = || Command::LoadPolicy { text: TIGHT.into() };
    check(&[
        (0, start(1, 0), STARTED),
        (60, tight(), "policy.loaded session.limited -> done"),
        (60, tight(), " -> done"),
        (
            119,
            ask(1, Verb::SqlRead),
            "action.denied:not_permitted -> deny NotPermitted",
        ),
        (239, expire(&[1]), "session.ended:idle+0 -> done"),
    ]);
    check(&[
        (0, start(1, 0), STARTED),
        (
            120,
            tight(),
            "policy.loaded session.ended:policy_changed -> done",
        ),
    ]);
    let nobody = TIGHT.replace("dba", "nobody");
    check(&[
        (0, start(1, 0), STARTED),
        (
            1,
            Command::LoadPolicy { text: nobody },
            "policy.loaded session.ended:policy_changed -> done",
        ),
    ]);
    check(&[
        (0, start(1, 0), STARTED),
        // What had run out before ends for that, and before.
        (901, tight(), "session.ended:idle+1 policy.loaded -> done"),
    ]);
    let mut authority = ready();
    let refused = authority.decide(
        &Command::LoadPolicy {
            text: "permit".into(),
        },
        at(1),
    );
    assert!(refused.events.is_empty());
    assert!(matches!(
        refused.verdict,
        Verdict::Refused(Refusal::Policy(_))
    ));
    authority.apply(&Entry {
        time: at(1),
        event: Event::PolicyLoaded {
            digest: Policy::digest_of("permit"),
            text: "permit".into(),
        },
    });
    assert_eq!(
        tell(&authority.decide(&start(1, 1), at(1))),
        "sign_in.refused:not_permitted -> deny NotPermitted"
    );
}

#[test]
fn ends_by_request_and_commands_about_nobody() {
    let end = |reason| Command::End {
        session: id(1),
        cause: EndCause { reason, by: None },
    };
    check(&[
        (0, start(1, 0), STARTED),
        (
            1,
            start(1, 1),
            " -> refused the session name s_000000000000000000000001 was used before",
        ),
        (
            1,
            end(EndReason::Idle),
            " -> refused Idle is a reason that only a clock gives",
        ),
        (
            1,
            end(EndReason::SignedOut),
            "session.ended:signed_out -> ended SignedOut",
        ),
        (1, end(EndReason::SignedOut), " -> ended SignedOut"),
        (1, ask(1, Verb::SqlRead), " -> ended SignedOut"),
        (1, ask(7, Verb::SqlRead), " -> unauthenticated"),
        (
            1,
            observe(7, 1),
            " -> refused there is no session s_000000000000000000000007",
        ),
    ]);
}

#[test]
fn an_old_proof_starts_nothing_and_a_future_one_gains_nothing() {
    let mut authority = ready();
    let decision = run(&mut authority, &start(1, 0), at(3_600));
    assert_eq!(
        tell(&decision),
        "sign_in.refused:insufficient_proof -> deny TooOld"
    );
    assert!(matches!(
        decision.events[0],
        Event::SignInRefused {
            cause: RefusalCause::InsufficientProof,
            ..
        }
    ));
    let started = run(&mut authority, &start(2, 9_999), at(3_600));
    assert_eq!(tell(&started), STARTED);
    let session = authority.session(&id(2)).unwrap();
    assert_eq!(session.authenticated_at, at(3_600));
}

#[test]
fn long_texts_are_cut_and_every_entry_fits() {
    let mut authority = check(&[(0, start(1, 0), STARTED)]);
    let mut long = action(Verb::SqlRead);
    let text = || Some("é\u{1}".repeat(30_000));
    (long.path, long.statement, long.client) = (text(), text(), text());
    (long.method, long.fingerprint) = (text(), text());
    let command = Command::Ask(Ask {
        presenter: Presenter::Session(id(1)),
        action: long,
        context: Context {
            address: "::1".parse().unwrap(),
            network: "é".repeat(500),
        },
    });
    let decision = run(&mut authority, &command, at(1));
    let Event::ActionAllowed { action, .. } = &decision.events[0] else {
        panic!("{decision:?}")
    };
    let path = action.path.as_ref().unwrap();
    // Whoever reads it sees that there was more, and which text it was.
    assert!(path.len() > PATH_BYTES_MAX - 4 && path.len() <= PATH_BYTES_MAX);
    assert!(path.starts_with("é\u{1}é") && path.contains(" […cut: 90000 bytes, sha256:"));
    assert!(path.ends_with("7cc51322]"), "{path}");
    assert_eq!(action.context.as_ref().unwrap().network.len(), 64);
}

#[test]
fn time_that_runs_backwards_never_lengthens_a_session() {
    let authority = check(&[
        (0, start(1, 0), STARTED),
        (899, Command::StopGateway, "gateway.stopped -> done"),
    ]);
    let Verdict::Allow(grant) = authority.decide(&ask(1, Verb::SqlRead), at(5)).verdict else {
        panic!()
    };
    assert_eq!(grant.deadline.at, at(899 + 900));
}

#[test]
fn a_key_changed_where_a_change_was_interrupted_makes_nothing_illegitimate() {
    let mut authority = Authority::new();
    let mut entries = Vec::new();
    for (secs, command, kept) in [
        (0, Command::OpenLog { origin: "t".into() }, 9),
        (
            0,
            Command::LoadPolicy {
                text: POLICY.into(),
            },
            9,
        ),
        (0, start(1, 0), 9),
        // Its consequence was not recorded, and ends the session once the gateway starts again.
        (1, change(AccountChange::PasswordSet), 1),
    ] {
        for event in authority
            .decide(&command, at(secs))
            .events
            .into_iter()
            .take(kept)
        {
            let time = at(secs);
            let entry = Entry { time, event };
            authority.apply(&entry);
            entries.push(entry);
        }
    }
    let rotated = Entry {
        time: at(1),
        event: Event::LogKeyRotated {
            at: at(90),
            note: String::new(),
        },
    };
    authority.apply(&rotated);
    entries.push(rotated);
    for event in authority.decide(&restart(), at(100_000)).events {
        let time = at(100_000);
        entries.push(Entry { time, event });
    }
    assert!(matches!(
        entries[entries.len() - 1].event,
        Event::SessionEnded { .. }
    ));
    let mut auditor = crate::Auditor::new();
    for (index, entry) in (0..).zip(&entries) {
        assert_eq!(auditor.check(index, entry), [], "{entry:?}");
    }
    assert_eq!(auditor.finish(at(100_000)), []);
}
