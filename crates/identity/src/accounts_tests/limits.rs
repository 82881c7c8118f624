//! Back-off, locks, and who can keep whom out.

use super::*;

#[test]
fn guesses_made_at_once_are_not_worth_more_than_one_after_another() {
    let bench = Bench::new();
    let looked_at = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..40)
            .map(|n| {
                let bench = &bench;
                scope.spawn(move || cause(bench.sign_in("plum tart at one", n, NOON)))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .filter(|cause| *cause == RefusalCause::WrongPassword)
            .count()
    });
    assert!(looked_at <= FREE_FAILURES as usize, "{looked_at}");
    assert_eq!(bench.view().failures as usize, looked_at);
}

#[test]
fn names_of_nobody_wait_like_accounts_do() {
    let course = |name: &str| -> Vec<(bool, Option<Span>)> {
        let bench = Bench::new();
        let mut now = NOON;
        (0..20)
            .map(|n| {
                let refused = bench
                    .attempt(name, "plum tart at one", "12345x", 100 + n, now)
                    .unwrap_err();
                now += u64::from(n % 3);
                let looked_at = refused.cause != RefusalCause::TooManyAttempts;
                (looked_at, refused.retry_after)
            })
            .collect()
    };
    let known = course("alice");
    assert_eq!(known, course("nobody"));
    assert!(known.iter().any(|(looked_at, _)| !looked_at));
}

#[test]
fn failures_make_the_account_wait_and_a_sign_in_forgets_them() {
    let bench = Bench::new();
    for n in 1..FREE_FAILURES {
        let refused = bench.sign_in("plum tart at one", 1, NOON).unwrap_err();
        assert_eq!((refused.retry_after, bench.view().failures), (None, n));
    }
    let refused = bench.sign_in("plum tart at one", 1, NOON).unwrap_err();
    assert_eq!(refused.retry_after, Some(Span::from_secs(1)));
    // Not even looked at, and not counted.
    let refused = bench.sign_in(PASSWORD, 1, NOON).unwrap_err();
    assert_eq!(refused.cause, RefusalCause::TooManyAttempts);
    assert_eq!(refused.subject, Some(alice()));
    assert_eq!(refused.retry_after, Some(Span::from_secs(1)));
    assert_eq!(bench.view().failures, FREE_FAILURES);
    // A second later it is looked at again.
    bench.sign_in(PASSWORD, 1, NOON + 1).unwrap();
    assert_eq!(bench.view().failures, 0);
    assert!(bench.sign_in("plum tart at one", 2, NOON + 2).is_err());
    assert_eq!(bench.view().failures, 1);
}

/// What anybody can find out by failing at one address and then at another.
#[test]
fn an_address_that_an_account_was_signed_in_from_tells_nobody_that_there_is_one() {
    let course = |name: &str, first: u8| -> Vec<(bool, Option<Span>)> {
        let bench = Bench::new();
        bench.sign_in(PASSWORD, 1, NOON).unwrap();
        let now = NOON + LONG;
        let fail = |from: u8| {
            let wrong = bench.attempt_from(name, "x", "123456", &stranger_at(from), now);
            let refused = wrong.unwrap_err();
            let looked_at = refused.cause != RefusalCause::TooManyAttempts;
            (looked_at, refused.retry_after)
        };
        let second = if first == 1 { 2 } else { 1 };
        let mut seen: Vec<_> = (0..6).map(|_| fail(first)).collect();
        seen.extend((0..3).map(|_| fail(second)));
        seen
    };
    for first in [1, 2] {
        let known = course("alice", first);
        assert_eq!(known, course("nobody", first), "first at {first}");
        assert!(!known[6].0, "what failed there counts here");
    }
}

#[test]
fn a_guesser_at_the_owners_address_does_not_keep_the_owner_out() {
    let bench = Bench::new();
    bench.sign_in(PASSWORD, 1, NOON).unwrap();
    let now = NOON + LONG;
    for n in 0..60 {
        let name = format!("nobody{n}");
        let _ = bench.attempt_from(&name, "x", "123456", &stranger_at(1), now);
        let _ = bench.attempt_from("alice", "x", "123456", &stranger_at(1), now);
    }
    let code = bench.code(now);
    let stranger = bench.attempt_from("alice", PASSWORD, &code, &stranger_at(1), now);
    assert_eq!(cause(stranger), RefusalCause::TooManyAttempts);
    bench.sign_in(PASSWORD, 1, now).unwrap();
}

#[test]
fn a_browser_is_forgotten_once_somebody_else_may_have_had_the_account() {
    let bench = Bench::new();
    bench.sign_in(PASSWORD, 1, NOON).unwrap();
    let known = |bench: &Bench| {
        let record = bench.accounts().store.find("alice").unwrap().record;
        record.lane_of(at_home(1).browser.as_ref()) == Lane::Near
    };
    assert!(known(&bench));
    bench.accounts().renew_totp(&alice()).unwrap();
    assert!(!known(&bench));
    for n in 0..9_u8 {
        let name: SubjectName = "bob".parse().unwrap();
        if n == 0 {
            bench
                .accounts()
                .add(&name, roles(), &secret(PASSWORD))
                .unwrap();
        }
        let mut record = bench.accounts().store.find("bob").unwrap().record;
        for browser in 0..=n {
            record.remember(Browser::with(&browser.to_string()));
        }
        let first = Browser::with("0");
        assert_eq!(record.lane_of(Some(&first)) == Lane::Near, n < 8);
    }
}

#[test]
fn an_attacker_far_away_does_not_keep_the_owner_out() {
    let bench = Bench::new();
    bench.sign_in(PASSWORD, 1, NOON).unwrap();
    for n in 0..20_u8 {
        let _ = bench.sign_in("plum tart at one", 100 + n, NOON + LONG * u64::from(n + 1));
    }
    let now = NOON + LONG * 20;
    assert_eq!(bench.view().failures, 20);
    assert_eq!(
        cause(bench.sign_in(PASSWORD, 2, now)),
        RefusalCause::TooManyAttempts
    );
    bench.sign_in(PASSWORD, 1, now).unwrap();
    assert_eq!(bench.view().failures, 0);
}

#[test]
fn strangers_lock_nobody_out_for_good() {
    let mut bench = Bench::new();
    bench.sign_in(PASSWORD, 1, NOON).unwrap();
    let mut now = NOON;
    for _ in 0..3 * LOCK_FAILURES {
        now += LONG;
        let _ = bench.sign_in("plum tart at one", 9, now);
    }
    assert!(bench.view().locked);
    assert_eq!(bench.view().failures, LOCK_FAILURES);
    bench.reopen();
    now += 100 * LONG;
    let elsewhere = bench.sign_in(PASSWORD, 2, now);
    assert_eq!(cause(elsewhere), RefusalCause::TooManyAttempts);
    bench.sign_in(PASSWORD, 1, now).unwrap();
    assert!(!bench.view().locked);
    bench.sign_in(PASSWORD, 2, now + 60).unwrap();
}

#[test]
fn after_a_hundred_failures_in_both_lanes_only_a_new_password_helps() {
    let mut bench = Bench::new();
    bench.sign_in(PASSWORD, 1, NOON).unwrap();
    let mut now = NOON;
    for n in 0..2 * LOCK_FAILURES {
        now += LONG;
        let from = if n % 2 == 0 { 1 } else { 9 };
        assert_eq!(
            cause(bench.sign_in("plum tart at one", from, now)),
            RefusalCause::WrongPassword
        );
    }
    assert!(bench.view().locked);
    bench.reopen();
    for from in [1, 9] {
        now += 100 * LONG;
        assert_eq!(
            cause(bench.sign_in(PASSWORD, from, now)),
            RefusalCause::TooManyAttempts
        );
    }
    bench.accounts().renew_totp(&alice()).unwrap();
    bench.accounts().set_disabled(&alice(), false).unwrap();
    assert!(bench.view().locked);
    let enrollment = bench.accounts().renew_totp(&alice()).unwrap();
    bench.totp = TotpSecret::from_base32(enrollment.secret.expose_secret()).unwrap();
    let new = "cherry tart at one";
    bench
        .accounts()
        .set_password(&alice(), &secret(new))
        .unwrap();
    assert!(!bench.view().locked);
    bench.sign_in(new, 1, now).unwrap();
}

#[test]
fn one_address_that_tries_many_accounts_is_stopped() {
    let bench = Bench::new();
    let mut causes = (0..60).map(|n| {
        let name = format!("nobody{n}");
        bench
            .attempt(&name, "plum tart at one", "123456", 7, NOON)
            .unwrap_err()
    });
    let stopped = causes
        .find(|refused| refused.cause == RefusalCause::TooManyAttempts)
        .unwrap();
    assert!(stopped.retry_after.is_some());
    assert_eq!(
        cause(bench.sign_in(PASSWORD, 7, NOON)),
        RefusalCause::TooManyAttempts
    );
    bench.sign_in(PASSWORD, 8, NOON).unwrap();
}

#[test]
fn what_the_address_is_refused_for_does_not_count_against_the_account() {
    let bench = Bench::new();
    for n in 0..60 {
        let _ = bench.attempt(&format!("nobody{n}"), "x", "123456", 7, NOON);
    }
    let before = bench.view();
    for _ in 0..50 {
        assert!(bench.sign_in("plum tart at one", 7, NOON).is_err());
    }
    assert_eq!(bench.view(), before);
}

#[test]
fn a_full_queue_is_told_to_come_back() {
    let bench = Bench::new();
    let accounts = bench.accounts();
    let cores = std::thread::available_parallelism().unwrap().get();
    let slots: Vec<_> = (0..cores)
        .map(|_| accounts.gate.enter_always().unwrap())
        .collect();
    accounts.gate.pretend_waiting(1_000);
    let refused = bench.sign_in(PASSWORD, 1, NOON).unwrap_err();
    assert_eq!(refused.cause, RefusalCause::TooManyAttempts);
    assert_eq!(refused.retry_after, Some(QUEUE_FULL_WAIT));
    accounts.gate.pretend_waiting(0);
    drop(slots);
    bench.sign_in(PASSWORD, 1, NOON).unwrap();
}

#[test]
fn an_office_behind_one_address_does_not_run_dry() {
    let bench = Bench::new();
    for n in 0..60 {
        let name = format!("person{n}").parse().unwrap();
        let enrollment = bench
            .accounts()
            .add(&name, roles(), &secret(PASSWORD))
            .unwrap();
        let totp = TotpSecret::from_base32(enrollment.secret.expose_secret()).unwrap();
        let code = totp::code(&totp, at(NOON));
        bench
            .attempt(name.as_str(), PASSWORD, &code, 1, NOON)
            .unwrap();
    }
}
