//! The registrar on a real ledger over a disk that fails on demand.

mod conceal;
mod erase;
mod honest;
mod many;
mod outages;
mod strangers;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc as std_mpsc};
use std::time::Duration;

use curfew_authority::{Ask, Auditor, Authority, EndCause, Presenter};
use curfew_entry::{
    Aal, ActionDetail, Actor, ClosedBy, Context, Credential, CredentialClass, DeadlineCause,
    EndReason, Entry, Event, Factor, Field, Plane, Proof, Resource, Verb,
};
use curfew_ledger::{LogKey, LogReader, Options, Writer};
use curfew_ledger_faults::{Fault, FaultyDisk, Op};
use curfew_values::Store;
use tokio::time::timeout;

use super::task::{Ledger, Start, start};
use super::*;
use crate::permit::{Closing, CutCause};
use crate::recorder::Durability;
use crate::secret;

const POLICY: &str = r#"
@id("sessions") @idle("2s") @reauth("6s") @lifetime("30s")
permit (principal, action == Action::"session.start", resource == Resource::"gateway");
@id("work")
permit (principal, action, resource in Environment::"test");
@id("secret") @reauth("250ms")
permit (principal, action == Action::"web.read", resource == Resource::"vault");
@id("vault-stream") @idle("400ms")
permit (principal, action == Action::"web.connect", resource == Resource::"vault");
@id("erase")
permit (principal, action == Action::"log.erase", resource == Resource::"gateway");
"#;

const SOON: Duration = Duration::from_secs(30);

/// In which the registrar does what is due, where a test shows that nothing is.
const A_MOMENT: Duration = Duration::from_millis(20);

struct Bench {
    disk: FaultyDisk,
    registrar: Registrar,
    session: SessionId,
    secret: String,
}

fn options() -> Options {
    let key = LogKey::from_seed("curfew.test/log", &[7; 32]).unwrap();
    let mut options = Options::new("/log", "/last-signed", key);
    options.segment_bytes = 2 * 1024 * 1024;
    // So that a decision need not be large to be larger than it.
    options.queue_entries_max = 512;
    options
}

fn open(disk: &FaultyDisk, durability: Arc<Durability>) -> Result<(Writer, u64), String> {
    Writer::open(options(), Arc::new(disk.clone()), durability)
        .map(|(writer, recovered)| (writer, recovered.size))
        .map_err(|error| error.to_string())
}

fn values(disk: &FaultyDisk, size: u64) -> Store {
    Store::open(Arc::new(disk.clone()), Path::new("/values"), size).unwrap()
}

fn registrar_on(disk: &FaultyDisk, fields: BTreeSet<Field>) -> Registrar {
    let (failures, failed) = mpsc::unbounded_channel();
    let durability = Arc::new(Durability::new(0, failures));
    let (writer, _) =
        Writer::create(options(), Arc::new(disk.clone()), durability.clone()).unwrap();
    let again = disk.clone();
    let store = Arc::new(values(disk, 0));
    durability.keep_values(Arc::clone(&store));
    let concealer = Some(Concealer {
        store: Arc::clone(&store),
        fields,
    });
    start(Start {
        authority: Authority::new(),
        ledger: Ledger {
            writer,
            reopen: Arc::new(move |durability| {
                let opened = open(&again, durability)?;
                store.reopen(opened.1).map_err(|error| error.to_string())?;

                Ok(opened)
            }),
            durability,
            concealer,
            failures: failed,
        },
        clock: Clock::start(None),
        outage_grace: Duration::from_millis(300),
        record_wait: Duration::from_millis(300),
        conditions: Arc::default(),
        approved: Vec::new(),
    })
    .unwrap()
}

fn context() -> Context {
    Context {
        address: "192.0.2.1".parse().unwrap(),
        network: "unknown".into(),
    }
}

fn resource(name: &str) -> Resource {
    Resource {
        name: name.parse().unwrap(),
        plane: Plane::Web,
        environment: if name == "vault" { "vault" } else { "test" }
            .parse()
            .unwrap(),
        tags: BTreeSet::new(),
    }
}

async fn bench() -> Bench {
    bench_concealing(&[]).await
}

async fn bench_concealing(fields: &[Field]) -> Bench {
    bench_of(fields, POLICY).await
}

/// With sessions that do not run out while a test on a busy machine takes its time.
async fn bench_of_long_sessions() -> Bench {
    let policy = POLICY.replace(
        r#"@idle("2s") @reauth("6s")"#,
        r#"@idle("2m") @reauth("2m")"#,
    );
    assert_ne!(policy, POLICY);
    bench_of(
        &[],
        &policy.replace(r#"@lifetime("30s")"#, r#"@lifetime("2m")"#),
    )
    .await
}

async fn bench_of(fields: &[Field], policy: &str) -> Bench {
    let disk = FaultyDisk::new();
    let registrar = registrar_on(&disk, fields.iter().copied().collect());
    let opening = [
        Command::OpenLog {
            origin: "curfew.test/log".into(),
        },
        Command::StartGateway {
            version: "0".into(),
            clock: curfew_entry::ClockSource::Wall,
            boot_id: "b".into(),
            boot_us: 1,
            wall: None,
        },
        Command::LoadResources {
            resources: vec![resource("shop"), resource("vault")],
        },
        Command::LoadPolicy {
            text: policy.into(),
        },
    ];
    for command in opening {
        assert_eq!(registrar.command(command).await, Ok(Verdict::Done));
    }
    let secret = "cft_test".to_owned();
    let session = secret::session_id().unwrap();
    let credential = Credential {
        id: secret::credential_id().unwrap(),
        class: CredentialClass::Bearer,
        hash: secret::hash(&secret),
        audience: None,
        expires: None,
    };
    let proof = Proof {
        amr: BTreeSet::from([Factor::Password]),
        aal: Aal::Two,
        at: registrar.now(),
    };
    let command = Command::StartSession {
        session: session.clone(),
        subject: "ana".parse().unwrap(),
        roles: BTreeSet::new(),
        proof,
        context: context(),
        credential,
    };
    assert_eq!(registrar.command(command).await, Ok(Verdict::Done));
    Bench {
        disk,
        registrar,
        session,
        secret,
    }
}

impl Bench {
    fn ask(&self, verb: Verb, resource: &str) -> Ask {
        Ask {
            presenter: Presenter::Credential {
                class: CredentialClass::Bearer,
                hash: secret::hash(&self.secret),
                plane: Plane::Web,
            },
            action: ActionDetail {
                path: Some("/orders/7".into()),
                ..ActionDetail::new(verb, resource.parse().unwrap())
            },
            context: context(),
        }
    }

    async fn permit(&self, verb: Verb) -> Result<Permit, Refusal> {
        timeout(
            SOON,
            self.registrar.ask(self.ask(verb, "shop"), Record::ByVerb),
        )
        .await
        .unwrap()
    }

    /// So much time passes at once.
    fn pass(&self, millis: u64) {
        self.registrar.clock.skip(Duration::from_millis(millis));
    }

    async fn end(&self) -> Result<Verdict, Refusal> {
        let cause = EndCause {
            reason: EndReason::EndedByAdmin,
            by: Some(Actor::Host("test".into())),
        };
        let command = Command::End {
            session: self.session.clone(),
            cause,
        };
        self.registrar.command(command).await
    }

    /// Everything that is in the ledger, read as anybody would.
    fn log(&self) -> Vec<Entry> {
        let disk = Arc::new(self.disk.clone());
        let reader = LogReader::open_on(Path::new("/log"), disk).unwrap();
        let entries = reader.range(0..reader.size());
        entries
            .map(|item| Entry::from_bytes(&item.unwrap().1).unwrap())
            .collect()
    }

    /// One more session, of this person.
    async fn sign_in(&self, subject: &str) -> SessionId {
        let session = secret::session_id().unwrap();
        let command = Command::StartSession {
            session: session.clone(),
            subject: subject.parse().unwrap(),
            roles: BTreeSet::new(),
            proof: Proof {
                amr: BTreeSet::from([Factor::Password]),
                aal: Aal::Two,
                at: self.registrar.now(),
            },
            context: context(),
            credential: Credential {
                id: secret::credential_id().unwrap(),
                class: CredentialClass::Bearer,
                hash: secret::hash(&session.to_string()),
                audience: None,
                expires: None,
            },
        };
        assert_eq!(self.registrar.command(command).await, Ok(Verdict::Done));
        session
    }

    /// How many entries are like that.
    fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.entries().iter().filter(|event| wanted(event)).count()
    }

    fn entries(&self) -> Vec<Event> {
        self.log().into_iter().map(|entry| entry.event).collect()
    }

    /// The auditor finds nothing in what is in the ledger.
    #[track_caller]
    fn proven(&self) {
        let log = self.log();
        let mut auditor = Auditor::new();
        for (index, entry) in (0..).zip(&log) {
            let found = auditor.check(index, entry);
            assert_eq!(found, [], "{entry:?} in {log:#?}");
        }
        assert_eq!(auditor.authority().entries(), log.len() as u64);
    }

    /// Waits until the ledger holds an entry like this.
    async fn recorded(&self, wanted: impl Fn(&Event) -> bool) -> Event {
        let seen = async {
            loop {
                if let Some(event) = self.entries().into_iter().find(|event| wanted(event)) {
                    return event;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(SOON, seen).await.expect("no such entry")
    }

    /// Holds back every sync of a segment until the sender is dropped.
    fn hold_syncs(&self) -> std_mpsc::Sender<()> {
        let (release, held) = std_mpsc::channel::<()>();
        let held = Mutex::new(held);
        self.disk.set_plan(move |op| {
            let segment = |path: &PathBuf| path.extension().is_some_and(|end| end == "seg");
            if matches!(op, Op::Sync(path) if segment(path)) {
                let _ = held.lock().unwrap().recv();
            }
            None
        });
        release
    }
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "seg")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_waits_for_its_record_and_a_read_only_for_its_answer() {
    let bench = bench().await;
    let release = bench.hold_syncs();
    let read = bench.permit(Verb::WebRead).await.unwrap();
    assert!(
        !read.is_recorded(),
        "the read goes on while its entry is not durable"
    );
    assert!(
        timeout(Duration::from_millis(100), read.recorded())
            .await
            .is_err()
    );
    let write = bench
        .registrar
        .ask(bench.ask(Verb::WebWrite, "shop"), Record::ByVerb);
    tokio::pin!(write);
    assert!(
        timeout(Duration::from_millis(100), &mut write)
            .await
            .is_err()
    );
    drop(release);
    let write = timeout(SOON, write).await.unwrap().unwrap();
    assert!(write.is_recorded());
    assert_eq!(read.recorded().await, Ok(()));
    assert!(read.entry() < write.entry());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_can_ask_for_the_record_before_everything() {
    let bench = bench().await;
    let release = bench.hold_syncs();
    let read = bench
        .registrar
        .ask(bench.ask(Verb::WebRead, "shop"), Record::Before);
    tokio::pin!(read);
    assert!(
        timeout(Duration::from_millis(100), &mut read)
            .await
            .is_err()
    );
    drop(release);
    assert!(timeout(SOON, read).await.unwrap().unwrap().is_recorded());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permit_that_is_given_back_or_dropped_fires_its_cut() {
    let bench = bench().await;
    let dropped = bench.permit(Verb::WebRead).await.unwrap();
    let signal = dropped.cut().clone();
    assert_eq!(signal.now(), None);
    drop(dropped);
    let cut = timeout(SOON, signal.fired()).await.unwrap();
    assert_eq!(cut.cause, CutCause::Released);
    let closed = bench.permit(Verb::WebRead).await.unwrap();
    let signal = closed.cut().clone();
    closed.close(Closing {
        by: ClosedBy::Client,
        closed: bench.registrar.now(),
        bytes_in: 0,
        bytes_out: 0,
    });
    assert!(signal.now().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_idle_deadline_cuts_and_the_entry_says_how_late_it_was() {
    let bench = bench().await;
    let permit = bench.permit(Verb::WebRead).await.unwrap();
    bench.pass(2_000);
    let cut = timeout(SOON, permit.cut().fired()).await.unwrap();
    let closed = bench.registrar.now();
    assert_eq!(cut.cause, CutCause::SessionEnded(EndReason::Idle));
    let deadline = cut.deadline.unwrap();
    assert!(closed >= deadline.at, "never before its time");
    permit.close(Closing {
        by: cut.cause.closed_by(),
        closed,
        bytes_in: 1,
        bytes_out: 2,
    });
    let Event::ActionClosed(entry) = bench
        .recorded(|event| matches!(event, Event::ActionClosed(_)))
        .await
    else {
        panic!("another event");
    };
    assert_eq!(
        (entry.by, entry.deadline),
        (ClosedBy::SessionEnd, Some(deadline))
    );
    assert_eq!(entry.late, Some(closed.saturating_since(deadline.at)));
    bench.proven();
    let ends = bench.entries().into_iter().filter(|event| {
        matches!(event, Event::SessionEnded { reason: EndReason::Idle, deadline: Some(at), .. }
            if *at == deadline.at)
    });
    assert_eq!(ends.count(), 1);
    assert!(matches!(
        bench.permit(Verb::WebRead).await,
        Err(Refusal::Ended { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_person_started_is_activity_until_it_ends() {
    let bench = bench().await;
    let permit = bench.permit(Verb::WebConnect).await.unwrap();
    let busy = permit.activity().busy();
    bench.pass(2_500);
    let idle = timeout(A_MOMENT, permit.cut().fired()).await;
    assert!(idle.is_err(), "a running statement is not idle");
    drop(busy);
    bench.pass(2_000);
    let cut = timeout(SOON, permit.cut().fired()).await.unwrap();
    assert_eq!(cut.deadline.unwrap().cause, DeadlineCause::Idle);
    assert!(
        bench
            .entries()
            .iter()
            .any(|event| matches!(event, Event::SessionActive { .. }))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn touches_move_the_idle_deadline_but_never_the_age_of_authentication() {
    let bench = bench().await;
    let permit = bench.permit(Verb::WebConnect).await.unwrap();
    let touched = async {
        loop {
            permit.activity().touch();
            bench.pass(500);
            let wait = timeout(A_MOMENT, permit.cut().fired()).await;
            if let Ok(cut) = wait {
                return cut;
            }
        }
    };
    let cut = timeout(SOON, touched).await.unwrap();
    assert_eq!(cut.cause, CutCause::SessionEnded(EndReason::Reauth));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_one_resource_cuts_that_resource_alone() {
    let bench = bench().await;
    let ask = bench.ask(Verb::WebRead, "vault");
    let vault = bench.registrar.ask(ask, Record::ByVerb).await.unwrap();
    let shop = bench.permit(Verb::WebRead).await.unwrap();
    bench.pass(250);
    let cut = timeout(SOON, vault.cut().fired()).await.unwrap();
    assert_eq!(cut.cause, CutCause::Limit(DeadlineCause::Reauth));
    assert_eq!(shop.cut().now(), None);
    let ask = bench.ask(Verb::WebRead, "vault");
    let again = bench.registrar.ask(ask, Record::ByVerb).await;
    assert!(matches!(again, Err(Refusal::StepUp(_))), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ending_a_session_cuts_everything_it_has() {
    let bench = bench().await;
    let permits = [
        bench.permit(Verb::WebRead).await.unwrap(),
        bench.permit(Verb::WebConnect).await.unwrap(),
    ];
    assert!(matches!(bench.end().await, Ok(Verdict::Ended { .. })));
    for permit in &permits {
        let cut = permit.cut().now().expect("cut before the end was answered");
        assert_eq!(cut.cause, CutCause::SessionEnded(EndReason::EndedByAdmin));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_cuts_what_is_live_and_closes_the_ledger() {
    let bench = bench().await;
    let permit = bench.permit(Verb::WebConnect).await.unwrap();
    let registrar = bench.registrar.clone();
    let stop = tokio::spawn(async move { registrar.stop().await });
    let cut = timeout(SOON, permit.cut().fired()).await.unwrap();
    assert_eq!(cut.cause, CutCause::Shutdown);
    drop(permit);
    assert_eq!(timeout(SOON, stop).await.unwrap().unwrap(), Ok(()));
    assert!(matches!(
        bench.entries().last(),
        Some(Event::GatewayStopped {})
    ));
    bench.proven();
}
