//! What clients without a live session may have recorded.

use curfew_entry::{Attempts, AttemptsSummarized, RefusalCause};

use super::*;

/// Attempts at each kind of thing: many addresses, so that none of them is at the end of its own share.
const MANY: u32 = 400;

fn from(n: u32) -> Context {
    Context {
        address: std::net::Ipv4Addr::from(0xc633_6400 + n).into(),
        network: "unknown".into(),
    }
}

impl Bench {
    /// A credential that the session does not have, or no longer.
    fn shown(&self, secret: &str, at: Context) -> Ask {
        let mut ask = self.ask(Verb::WebRead, "shop");
        ask.context = at;
        ask.presenter = Presenter::Credential {
            class: CredentialClass::Bearer,
            hash: secret::hash(secret),
            plane: Plane::Web,
        };
        ask
    }

    async fn refuse_sign_in(&self, subject: Option<&str>, cause: RefusalCause, at: Context) {
        let command = Command::RefuseSignIn {
            subject: subject.map(|name| name.parse().unwrap()),
            cause,
            address: at.address,
        };
        assert_eq!(self.registrar.command(command).await, Ok(Verdict::Done));
    }

    fn summaries(&self) -> Vec<AttemptsSummarized> {
        let summary = |event| match event {
            Event::AttemptsSummarized(told) => Some(told),
            _ => None,
        };
        self.entries().into_iter().filter_map(summary).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_counted_and_what_it_counts_is_an_entry() {
    let bench = bench().await;
    for n in 0..MANY {
        let secret = format!("guess {n}");
        let ask = bench.shown(&secret, from(n));
        let refused = bench.registrar.ask(ask, Record::ByVerb).await;
        assert_eq!(refused.err(), Some(Refusal::Unauthenticated));
        bench
            .refuse_sign_in(None, RefusalCause::UnknownAccount, from(n))
            .await;
    }
    bench.registrar.count_refused_device(from(0).address);
    // Whoever has signed in is served meanwhile, and what is tried at an account is told all the same.
    drop(bench.permit(Verb::WebWrite).await.unwrap());
    bench
        .refuse_sign_in(Some("ana"), RefusalCause::WrongPassword, from(1))
        .await;
    let at_ana = |event: &Event| {
        matches!(
            event,
            Event::SignInRefused {
                subject: Some(_),
                ..
            }
        )
    };
    assert_eq!(bench.count(at_ana), 1, "not hidden behind the flood");
    assert_eq!(bench.summaries(), []);
    bench.registrar.stop().await.unwrap();
    let unknown = bench.count(|event| matches!(event, Event::CredentialUnknown { .. }));
    let sign_in = bench.count(|event| matches!(event, Event::SignInRefused { .. })) - 1;
    assert!((100..110).contains(&unknown), "{unknown}");
    assert!((100..110).contains(&sign_in), "{sign_in}");
    let told = bench.summaries();
    assert_eq!(told.len(), 1);
    let counts = Attempts {
        credential_unknown: u64::from(MANY) - u64::try_from(unknown).unwrap(),
        sign_in_refused: u64::from(MANY) - u64::try_from(sign_in).unwrap(),
        device_refused: 1,
        ..Attempts::default()
    };
    assert_eq!(told[0].counts, counts, "nothing is lost");
    assert!((295..=301).contains(&told[0].addresses), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_its_own_share() {
    let bench = bench().await;
    for n in 0..100 {
        // All of one customer.
        let address = format!("2001:db8:1:2::{n:x}").parse().unwrap();
        let network = "unknown".into();
        let ask = bench.shown(&format!("guess {n}"), Context { address, network });
        let asked = bench.registrar.ask(ask, Record::ByVerb).await;
        assert!(asked.is_err());
    }
    let ask = bench.shown("another", from(1));
    let asked = bench.registrar.ask(ask, Record::ByVerb).await;
    assert!(asked.is_err());
    bench.registrar.stop().await.unwrap();
    let unknown = bench.count(|event| matches!(event, Event::CredentialUnknown { .. }));
    assert!((21..=23).contains(&unknown), "{unknown}");
    assert_eq!(bench.summaries()[0].addresses, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_use_after_the_end_is_always_told() {
    let bench = bench().await;
    // Everything that others may cause is used up.
    for n in 0..MANY {
        let ask = bench.shown(&format!("guess {n}"), from(n % 3));
        let asked = bench.registrar.ask(ask, Record::ByVerb).await;
        assert!(asked.is_err());
    }
    assert!(bench.end().await.is_ok());
    for n in 0..50 {
        let ask = bench.shown(&bench.secret, from(n % 3));
        let refused = bench.registrar.ask(ask, Record::ByVerb).await;
        assert!(matches!(refused.err(), Some(Refusal::Ended { .. })));
    }
    bench.registrar.stop().await.unwrap();
    let used = bench.count(|event| matches!(event, Event::SessionUsedAfterEnd { .. }));
    assert!((1..=2).contains(&used), "{used}");
    let again = bench.summaries()[0].counts.session_used_after_end;
    assert_eq!(usize::try_from(again).unwrap() + used, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_counted_before_an_outage_is_told_after_it() {
    let bench = bench().await;
    for n in 0..MANY {
        let ask = bench.shown(&format!("guess {n}"), from(1));
        let asked = bench.registrar.ask(ask, Record::ByVerb).await;
        assert!(asked.is_err());
    }
    bench.disk.set_plan(|op| match op {
        Op::Sync(path) if is_segment(path) => Some(Fault::Fail(ErrorKind::Other)),
        _ => None,
    });
    let _ = bench.permit(Verb::WebWrite).await;
    bench.disk.set_plan(|_| None);
    bench
        .recorded(|event| matches!(event, Event::RecordingResumed { .. }))
        .await;
    bench.registrar.stop().await.unwrap();
    let told = bench.summaries();
    assert!(told[0].counts.credential_unknown >= u64::from(MANY) - 25);
}
