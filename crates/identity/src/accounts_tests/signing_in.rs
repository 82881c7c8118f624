//! Signing in, and every way to be refused.

use super::*;

#[test]
fn both_factors_right() {
    let bench = Bench::new();
    let verified = bench.sign_in(PASSWORD, 1, NOON).unwrap();
    assert_eq!(verified.subject, alice());
    assert_eq!(verified.roles, roles());
    assert_eq!(verified.proof.aal, Aal::Two);
    assert_eq!(verified.proof.at, at(NOON));
    assert_eq!(
        verified.proof.amr,
        BTreeSet::from([Factor::Password, Factor::OneTimePassword])
    );
}

#[test]
fn the_log_learns_which_factor_was_wrong_and_the_client_does_not() {
    let bench = Bench::new();
    let wrong = wrong_code(&bench, NOON);
    let right = bench.code(NOON);
    let refusals = [
        bench.attempt("alice", "plum tart at one", &right, 1, NOON),
        bench.attempt("alice", "plum tart at one", &wrong, 1, NOON),
        bench.attempt("alice", PASSWORD, &wrong, 1, NOON),
        bench.attempt("alice", PASSWORD, "", 1, NOON),
        bench.attempt("nobody", PASSWORD, &right, 1, NOON),
        bench.attempt("no body", PASSWORD, &right, 1, NOON),
        bench.attempt("Alice", PASSWORD, &right, 1, NOON),
        bench.attempt("", PASSWORD, &right, 1, NOON),
    ]
    .map(Result::unwrap_err);
    use RefusalCause::{UnknownAccount, WrongCode, WrongPassword};
    assert_eq!(
        refusals.each_ref().map(|refused| refused.cause),
        [
            WrongPassword,
            WrongPassword,
            WrongCode,
            WrongCode,
            UnknownAccount,
            UnknownAccount,
            UnknownAccount,
            UnknownAccount
        ]
    );
    for (n, refused) in refusals.iter().enumerate() {
        assert_eq!(
            refused.client_text(),
            "The name, password or code is not right"
        );
        assert_eq!(refused.retry_after, None);
        assert_eq!(refused.subject, (n < 4).then(alice));
    }
}

#[test]
fn an_unknown_name_costs_a_hash_as_well() {
    let bench = Bench::at_cost(PasswordCost::Standard);
    let time = |name: &str| {
        (1..=3)
            .map(|n| {
                let start = Instant::now();
                let _ = bench.attempt(name, "plum tart at one", "123456", n, NOON);
                start.elapsed()
            })
            .min()
            .unwrap()
    };
    let (known, unknown) = (time("alice"), time("nobody"));
    // Without the decoy the unknown name would answer in a small part of the time.
    assert!(unknown > known / 3, "{unknown:?} against {known:?}");
    assert!(known > Duration::from_millis(1));
}

#[test]
fn a_code_is_used_once() {
    let bench = Bench::new();
    bench.sign_in(PASSWORD, 1, NOON).unwrap();
    assert_eq!(
        cause(bench.sign_in(PASSWORD, 1, NOON)),
        RefusalCause::CodeReused
    );
    let older = bench.code(NOON - 30);
    assert_eq!(
        cause(bench.attempt("alice", PASSWORD, &older, 1, NOON)),
        RefusalCause::CodeReused
    );
    bench.sign_in(PASSWORD, 1, NOON + 30).unwrap();
}

#[test]
fn a_used_code_beside_the_right_password_is_no_guess() {
    let bench = Bench::new();
    bench.sign_in(PASSWORD, 1, NOON).unwrap();
    for from in [1, 2] {
        for _ in 0..20 {
            let refused = bench.sign_in(PASSWORD, from, NOON).unwrap_err();
            let wanted = (RefusalCause::CodeReused, None);
            assert_eq!((refused.cause, refused.retry_after), wanted);
        }
    }
    assert_eq!(bench.view().failures, 0);
    // Beside a wrong one it is a guess like any other, and looks like one.
    let refused = bench.sign_in("plum tart at one", 2, NOON).unwrap_err();
    assert_eq!(refused.cause, RefusalCause::WrongPassword);
    assert_eq!(bench.view().failures, 1);
}

#[test]
fn a_failure_does_not_use_up_the_code() {
    let bench = Bench::new();
    assert!(bench.sign_in("plum tart at one", 1, NOON).is_err());
    bench.sign_in(PASSWORD, 1, NOON).unwrap();
}

#[test]
fn of_many_at_once_with_one_code_one_gets_in() {
    let bench = Bench::new();
    let code = bench.code(NOON);
    for round in 0..3 {
        let now = NOON + round * LONG;
        let code = if round == 0 {
            code.clone()
        } else {
            bench.code(now)
        };
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|n| {
                    let (bench, code) = (&bench, &code);
                    scope.spawn(move || bench.attempt("alice", PASSWORD, code, n, now))
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        for refused in results.into_iter().filter_map(Result::err) {
            assert_eq!(refused.cause, RefusalCause::CodeReused);
        }
    }
}

#[test]
fn a_restart_forgets_nothing() {
    let mut bench = Bench::new();
    bench.sign_in(PASSWORD, 1, NOON).unwrap();
    bench.reopen();
    assert_eq!(
        cause(bench.sign_in(PASSWORD, 1, NOON)),
        RefusalCause::CodeReused
    );
    for n in 0..4 {
        assert!(
            bench
                .sign_in("plum tart at one", 10 + n, NOON + 60)
                .is_err()
        );
    }
    for n in 0..5 {
        assert!(
            bench
                .attempt("nobody", "x", "123456", 20 + n, NOON + 60)
                .is_err()
        );
    }
    let before = bench.view();
    bench.reopen();
    assert_eq!(bench.view(), before);
    assert_eq!(before.failures, 4);
    let far = bench.sign_in("plum tart at one", 30, NOON + 60);
    assert_eq!(cause(far), RefusalCause::WrongPassword);
    let far = bench.sign_in(PASSWORD, 31, NOON + 60).unwrap_err();
    assert_eq!(far.cause, RefusalCause::TooManyAttempts);
    let stranger = bench.attempt("nobody", "x", "123456", 32, NOON + 60);
    assert_eq!(cause(stranger), RefusalCause::TooManyAttempts);
}

#[test]
fn a_disabled_account_says_so_only_where_both_factors_are_right() {
    let bench = Bench::new();
    bench.accounts().set_disabled(&alice(), true).unwrap();
    assert!(bench.view().disabled);
    let refused = bench.sign_in(PASSWORD, 1, NOON).unwrap_err();
    assert_eq!(refused.cause, RefusalCause::Disabled);
    assert_eq!(
        cause(bench.sign_in("plum tart at one", 1, NOON)),
        RefusalCause::WrongPassword
    );
    bench.accounts().set_disabled(&alice(), false).unwrap();
    bench.sign_in(PASSWORD, 1, NOON).unwrap();
}

#[test]
fn a_password_changed_while_it_was_being_hashed_is_wrong() {
    let bench = Bench::new();
    let code = bench.code(NOON);
    let attempt = Attempt {
        name: "alice",
        code: &code,
        browser: None,
        now: at(NOON),
    };
    let accounts = bench.accounts();
    let settle = |seen: &str| {
        accounts
            .store
            .write(|writer| accounts.settle(writer, attempt, true, seen))
            .unwrap()
    };
    assert_eq!(cause(settle("another hash")), RefusalCause::WrongPassword);
    settle(&accounts.store.find("alice").unwrap().record.phc).unwrap();
}
