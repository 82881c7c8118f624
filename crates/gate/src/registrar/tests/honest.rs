//! Whatever comes in whatever order, the auditor finds nothing in what is recorded.

use super::*;

impl Bench {
    fn through(&self, permit: &Permit, verb: Verb) -> Ask {
        let mut ask = self.ask(verb, "shop");
        ask.presenter = Presenter::Session(self.session.clone());
        ask.action.connection = Some(permit.entry());
        ask
    }

    /// Signs in `count` people, who do nothing.
    async fn people(&self, count: u64) -> Vec<SessionId> {
        let mut sessions = Vec::new();
        for _ in 0..count {
            sessions.push(self.sign_in("bo").await);
        }
        sessions
    }
}

fn closing(bench: &Bench) -> Closing {
    Closing {
        by: ClosedBy::Client,
        closed: bench.registrar.now(),
        bytes_in: 0,
        bytes_out: 0,
    }
}

fn is_end(event: &Event) -> bool {
    matches!(event, Event::SessionEnded { .. })
}

/// On one thread, so that the task runs only where this test waits.
#[tokio::test]
async fn a_question_on_its_way_while_its_connection_closes_is_not_allowed() {
    let bench = bench().await;
    let connection = bench.permit(Verb::WebConnect).await.unwrap();
    let entry = connection.entry();
    let through = bench.through(&connection, Verb::WebRead);
    let mut asked = Box::pin(bench.registrar.ask(through.clone(), Record::ByVerb));
    // The question is in the queue, and then the permit comes back.
    assert!(futures_util::poll!(&mut asked).is_pending());
    let closing = closing(&bench);
    connection.close(closing);
    let refused = timeout(SOON, asked).await.unwrap();
    assert_eq!(refused.err(), Some(Refusal::Unauthenticated));
    let again = bench.registrar.ask(through, Record::ByVerb).await;
    assert_eq!(again.err(), Some(Refusal::Unauthenticated));
    bench
        .recorded(|event| matches!(event, Event::ActionClosed(closed) if closed.action == entry))
        .await;
    bench.proven();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_not_dated_before_the_activity_that_is_noted_with_it() {
    let bench = bench().await;
    let open = bench.permit(Verb::WebConnect).await.unwrap();
    for _ in 0..20 {
        open.activity().touch();
        let ask = bench.ask(Verb::WebRead, "nowhere");
        let refused = bench.registrar.ask(ask, Record::ByVerb).await;
        assert!(matches!(refused.err(), Some(Refusal::Denied(_))));
    }
    let noted = |event: &Event| matches!(event, Event::SessionActive { .. });
    assert!(bench.count(noted) > 0);
    bench.proven();
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_closes_and_cuts_in_any_order_leave_nothing_to_find() {
    let bench = Arc::new(bench().await);
    let mut people = Vec::new();
    for round in 0..40_u64 {
        let bench = Arc::clone(&bench);
        people.push(tokio::spawn(async move {
            let Ok(connection) = bench.permit(Verb::WebConnect).await else {
                return;
            };
            let through = bench.through(&connection, Verb::WebRead);
            let mut asks = Vec::new();
            for _ in 0..10 {
                let (bench, ask) = (Arc::clone(&bench), through.clone());
                asks.push(tokio::spawn(async move {
                    bench.registrar.ask(ask, Record::ByVerb).await.map(drop)
                }));
            }
            for _ in 0..round % 5 {
                tokio::task::yield_now().await;
            }
            let closing = closing(&bench);
            connection.close(closing);
            for ask in asks {
                // Allowed or not: it depends on who came first.
                let _either = ask.await.unwrap();
            }
        }));
    }
    for person in people {
        person.await.unwrap();
    }
    assert!(matches!(bench.end().await, Ok(Verdict::Ended { .. })));
    bench.proven();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_through_a_connection_of_shorter_idle_limit_keeps_it_open() {
    let bench = bench().await;
    let ask = bench.ask(Verb::WebConnect, "vault");
    let connection = bench.registrar.ask(ask, Record::ByVerb).await.unwrap();
    let busy = connection.activity().busy();
    bench.pass(1_100);
    let cut = timeout(A_MOMENT, connection.cut().fired()).await;
    assert!(cut.is_err(), "something the person started is running");
    drop(busy);
    let mut through = bench.ask(Verb::WebRead, "shop");
    through.presenter = Presenter::Session(bench.session.clone());
    through.action.connection = Some(connection.entry());
    let read = bench.registrar.ask(through, Record::ByVerb).await.unwrap();
    read.recorded().await.unwrap();
    bench.pass(400);
    let cut = timeout(SOON, connection.cut().fired()).await.unwrap();
    assert_eq!(cut.cause, CutCause::Limit(DeadlineCause::Idle));
    connection.close(Closing {
        by: cut.cause.closed_by(),
        closed: bench.registrar.now(),
        bytes_in: 0,
        bytes_out: 0,
    });
    bench
        .recorded(|event| matches!(event, Event::ActionClosed(_)))
        .await;
    bench.proven();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_through_what_was_cut_hears_of_the_cut() {
    let bench = bench().await;
    let ask = bench.ask(Verb::WebConnect, "vault");
    let connection = bench.registrar.ask(ask, Record::ByVerb).await.unwrap();
    bench.pass(400);
    timeout(SOON, connection.cut().fired()).await.unwrap();
    let through = bench.through(&connection, Verb::WebRead);
    let refused = bench.registrar.ask(through, Record::ByVerb).await;
    let Err(Refusal::StepUp(step_up)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(step_up.passed.unwrap().cause, DeadlineCause::Idle);
    bench.proven();
}

/// The disk fails between two entries of one decision.
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_the_disk_cuts_short_is_recorded_whole_or_not_at_all() {
    for full in [false, true] {
        let bench = bench().await;
        // Each renewal revokes the cookie of the one before.
        let renew = || Command::Reauthenticate {
            session: bench.session.clone(),
            proof: Proof {
                amr: BTreeSet::from([Factor::Password]),
                aal: Aal::Two,
                at: bench.registrar.now(),
            },
            credential: Credential {
                id: secret::credential_id().unwrap(),
                class: CredentialClass::Cookie,
                hash: secret::hash(&secret::credential_id().unwrap().to_string()),
                audience: None,
                expires: None,
            },
        };
        bench.registrar.carry_out(renew()).await.unwrap();
        if full {
            bench.disk.set_capacity(Some(bench.disk.used_bytes()));
        } else {
            let mut writes = 0;
            bench.disk.set_plan(move |op| match op {
                Op::Sync(path) if is_segment(path) => {
                    writes += 1;
                    (writes > 20).then_some(Fault::Fail(ErrorKind::Other))
                }
                _ => None,
            });
        }
        let failed = async { while bench.registrar.carry_out(renew()).await.is_ok() {} };
        timeout(SOON, failed).await.unwrap();
        bench.disk.set_capacity(None);
        bench.disk.clear_plan();
        bench
            .recorded(|event| matches!(event, Event::RecordingResumed { .. }))
            .await;
        bench.proven();
    }
}

/// More than the ledger's queue takes at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_is_taken_however_many_entries_it_has() {
    const PEOPLE: u64 = 2_000;
    let bench = bench().await;
    let load = |text: String| bench.registrar.carry_out(Command::LoadPolicy { text });
    let long = POLICY.replacen("2s", "1h", 1).replacen("6s", "1h", 1);
    load(long.replacen("30s", "1h", 1)).await.unwrap();
    let many: Vec<_> = (0..8).map(|_| bench.people(PEOPLE / 8)).collect();
    futures_util::future::join_all(many).await;
    let live = bench.permit(Verb::WebConnect).await.unwrap();
    let none = POLICY.replacen("(principal,", "(principal in Role::\"dba\",", 1);
    timeout(SOON, load(none)).await.unwrap().unwrap();
    timeout(SOON, live.cut().fired()).await.unwrap();
    let all_told = async {
        while bench.count(is_end) as u64 != PEOPLE + 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, all_told).await.unwrap();
    bench.proven();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_nobody_uses_ends_at_its_deadline_though_the_ledger_is_out() {
    let bench = bench().await;
    bench.people(3).await;
    bench.disk.set_plan(|op| match op {
        Op::Sync(path) if is_segment(path) => Some(Fault::Fail(ErrorKind::Other)),
        _ => None,
    });
    assert!(bench.permit(Verb::WebWrite).await.is_err());
    // Past the idle limit of two seconds, and past what an end may be late.
    // The registrar has heard of it.
    assert!(bench.permit(Verb::WebRead).await.is_err());
    bench.pass(3_500);
    bench.disk.clear_plan();
    bench
        .recorded(|event| matches!(event, Event::RecordingResumed { .. }))
        .await;
    assert_eq!(bench.count(is_end), 4);
    bench.proven();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_asked_for_while_the_ledger_is_out_is_not_forgotten_when_it_fails_again() {
    let bench = bench_of_long_sessions().await;
    let fail = |op: &Op| match op {
        Op::Sync(path) if is_segment(path) => Some(Fault::Fail(ErrorKind::Other)),
        _ => None,
    };
    bench.disk.set_plan(fail);
    assert!(bench.permit(Verb::WebWrite).await.is_err());
    assert!(bench.end().await.is_err());
    // It opens once and fails again right away.
    let (mut syncs, mut fails) = (0, 0);
    bench.disk.set_plan(move |op| match op {
        Op::Sync(path) if is_segment(path) => {
            syncs += 1;
            if syncs > 2 && fails < 3 {
                fails += 1;
                return Some(Fault::Fail(ErrorKind::Other));
            }
            None
        }
        _ => None,
    });
    let Event::SessionEnded { reason, .. } = bench.recorded(is_end).await else {
        panic!("another event");
    };
    assert_eq!(reason, EndReason::EndedByAdmin);
    bench
        .recorded(|event| matches!(event, Event::RecordingResumed { .. }))
        .await;
    bench.proven();
}

/// A client that does not let go while the gateway stops, and sessions that run out meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_run_out_while_it_stops_end_in_time() {
    let bench = bench().await;
    bench.people(2).await;
    let permit = bench.permit(Verb::WebConnect).await.unwrap();
    let registrar = bench.registrar.clone();
    let stop = tokio::spawn(async move { registrar.stop().await });
    timeout(SOON, permit.cut().fired()).await.unwrap();
    let closing = closing(&bench);
    bench.pass(2_000);
    permit.close(closing);
    assert_eq!(timeout(SOON, stop).await.unwrap().unwrap(), Ok(()));
    assert_eq!(bench.count(is_end), 3);
    bench.proven();
}
