//! Actions whose rules demand more than a durable record: they wait for the witnesses, or are
//! refused.

use std::collections::BTreeSet;

use curfew_authority::{
    Aal, ActionDetail, Ask, Auditor, ClosedBy, Command, Context, Credential, CredentialClass,
    Entry, Event, Factor, Plane, Presenter, Proof, RecordLevel, Verb, Verdict,
};
use curfew_gateway::{Permit, Record, Refusal, Unavailable, Unrecorded, secret};
use curfew_ledger::LogReader;

use crate::rounds::{Stage, stage_with};

/// Somebody's session, and the hash of what presents it.
struct Person(curfew_authority::CredentialHash);

fn context() -> Context {
    Context {
        address: "192.0.2.1".parse().unwrap(),
        network: "unknown".into(),
    }
}

impl Person {
    async fn new(stage: &Stage) -> Self {
        let registrar = stage.gateway.running.registrar();
        let hash = secret::hash("a secret");
        let command = Command::StartSession {
            session: secret::session_id().unwrap(),
            subject: "ana".parse().unwrap(),
            roles: BTreeSet::new(),
            proof: Proof {
                amr: BTreeSet::from([Factor::Password]),
                aal: Aal::Two,
                at: registrar.now(),
            },
            context: context(),
            credential: Credential {
                id: secret::credential_id().unwrap(),
                class: CredentialClass::Bearer,
                hash: hash.clone(),
                audience: None,
                expires: None,
            },
        };
        assert_eq!(registrar.command(command).await, Ok(Verdict::Done));
        Self(hash)
    }

    async fn ask(&self, stage: &Stage, verb: Verb, resource: &str) -> Result<Permit, Refusal> {
        let ask = Ask {
            presenter: Presenter::Credential {
                class: CredentialClass::Bearer,
                hash: self.0.clone(),
                plane: Plane::Web,
            },
            action: ActionDetail {
                verb,
                resource: resource.parse().unwrap(),
                context: None,
                connection: None,
                method: None,
                path: None,
                statement: None,
                fingerprint: None,
                client: None,
                search: None,
                target: None,
                passive: false,
                concealed: Default::default(),
            },
            context: context(),
        };
        let registrar = stage.gateway.running.registrar();
        registrar.ask(ask, Record::ByVerb).await
    }
}

/// What is in the ledger, and nothing of it is wrong.
fn audited(stage: &Stage) -> Vec<Event> {
    let reader = LogReader::open(&stage.gateway.ledger()).unwrap();
    let mut auditor = Auditor::new();
    let entries = reader.range(0..reader.size()).map(|entry| {
        let (index, bytes) = entry.unwrap();
        let entry = Entry::from_bytes(&bytes).unwrap();
        assert_eq!(auditor.check(index, &entry), [], "{entry:?}");
        entry.event
    });
    entries.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gravest_actions_wait_for_the_witnesses() {
    let stage = stage_with(3, "10m", "10m", "10m").await;
    let person = Person::new(&stage).await;
    // Nobody cosigns yet: what demands no more than a durable record goes on.
    assert!(person.ask(&stage, Verb::WebWrite, "blog").await.is_ok());
    let signed = person.ask(&stage, Verb::WebWrite, "shop").await.unwrap();
    let published = curfew_ledger::Published::new(&stage.gateway.ledger());
    let note = String::from_utf8(published.checkpoint().unwrap().unwrap()).unwrap();
    let size: u64 = note.lines().nth(1).unwrap().parse().unwrap();
    assert!(size > signed.entry(), "it was let go unsigned");

    // A read is let go at once, and its answer waits.
    let read = person.ask(&stage, Verb::WebRead, "vault").await.unwrap();
    assert!(!read.is_recorded());
    let write = person.ask(&stage, Verb::WebWrite, "vault");
    tokio::pin!(write);
    let early = tokio::time::timeout(std::time::Duration::from_secs(2), &mut write).await;
    assert!(early.is_err(), "it was let go unwitnessed");
    let (_north, _south) = (stage.north.serve().await, stage.south.serve().await);
    let write = write.await.unwrap();
    let judged = stage.judged().unwrap();
    assert!(judged.met && judged.checkpoint.size > write.entry());
    assert!(write.is_recorded());
    assert_eq!(read.recorded().await, Ok(()));
    audited(&stage);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_witnessed_in_time_is_refused_and_the_log_says_so() {
    let stage = stage_with(3, "10m", "10m", "300ms").await;
    let person = Person::new(&stage).await;
    let refused = person.ask(&stage, Verb::WebWrite, "vault").await;
    let late = Unavailable::Late(RecordLevel::Witnessed);
    assert_eq!(refused.unwrap_err(), Refusal::Unavailable(late));
    let read = person.ask(&stage, Verb::WebRead, "vault").await.unwrap();
    let late = Unrecorded::Late(RecordLevel::Witnessed);
    assert_eq!(read.recorded().await, Err(late));
    // Once too late it stays so, whoever cosigns meanwhile.
    let (_north, _south) = (stage.north.serve().await, stage.south.serve().await);
    stage.witnessed(stage.size()).await;
    assert!(!read.is_recorded());
    assert_eq!(read.recorded().await, Err(late));
    drop(read);
    let is_close = |event: &Event| matches!(event, Event::ActionClosed(_));
    stage.events(is_close, 2).await;
    let events = audited(&stage);
    let closed = events.iter().filter_map(|event| match event {
        Event::ActionClosed(closed) => Some(closed),
        _ => None,
    });
    assert!(
        closed
            .clone()
            .all(|closed| closed.by == ClosedBy::Unrecorded)
    );
    for closed in closed {
        let index = usize::try_from(closed.action).unwrap();
        let Event::ActionAllowed { demands, .. } = &events[index] else {
            panic!("{:?}", events[index]);
        };
        assert_eq!(demands.record, Some(RecordLevel::Witnessed));
    }
}
