//! Erasures that a failing disk or a crash cut short.

use curfew_authority::ErasureStep;
use curfew_entry::SubjectName;
use curfew_ledger_faults::Kept;
use curfew_values::Shown;

use super::*;

impl Bench {
    /// One asks, another approves.
    async fn erase(&self, subject: &str) {
        let erasure = secret::erasure_id().unwrap();
        let subject: SubjectName = subject.parse().unwrap();
        let request = ErasureStep::Request {
            session: self.sign_in("bo").await,
            erasure: erasure.clone(),
            subject,
        };
        let approve = ErasureStep::Approve {
            session: self.sign_in("cy").await,
            erasure,
        };
        for step in [request, approve] {
            let (ErasureStep::Request { session, .. } | ErasureStep::Approve { session, .. }) =
                &step
            else {
                unreachable!("one of the two above");
            };
            let mut ask = self.ask(Verb::LogErase, "gateway");
            ask.presenter = Presenter::Session(session.clone());
            ask.action.path = None;
            self.registrar.ask(ask, Record::ByVerb).await.unwrap();
            let verdict = self.registrar.command(Command::Erasure(step)).await;
            assert_eq!(verdict, Ok(Verdict::Done));
        }
    }
}

/// What a machine would show of the first concealed value after losing power now.
fn first_value(disk: &FaultyDisk, bench: &Bench) -> Shown {
    let disk = disk.after_power_cut(Kept::Nothing);
    let entries = bench.entries();
    let concealing = entries.iter().position(|event| event.concealed().is_some());
    let index = concealing.unwrap();
    let store = values(&disk, entries.len() as u64);
    let concealed = entries[index].concealed().unwrap();
    let mut fields = store.read(index as u64, concealed).unwrap();
    fields.remove(0).1
}

fn is_done(event: &Event) -> bool {
    matches!(
        event,
        Event::ErasureDone {
            keys: 1,
            entries: 1,
            ..
        }
    )
}

/// The same log and store, on what a power cut left.
fn restarted(disk: &FaultyDisk) -> Registrar {
    let (failures, failed) = mpsc::unbounded_channel();
    let durability = Arc::new(Durability::new(0, failures));
    let (writer, recovered) =
        Writer::open(options(), Arc::new(disk.clone()), durability.clone()).unwrap();
    durability.resume(recovered.size);
    let replayed = crate::replay::replay(&recovered).unwrap();
    let store = Arc::new(values(disk, recovered.size));
    durability.keep_values(Arc::clone(&store));
    start(Start {
        authority: replayed.authority,
        approved: replayed.approved,
        ledger: Ledger {
            writer,
            reopen: Arc::new(|_| Err("not in this test".into())),
            durability,
            concealer: Some(Concealer {
                store,
                fields: BTreeSet::new(),
            }),
            failures: failed,
        },
        clock: Clock::start(replayed.last.as_ref()),
        outage_grace: Duration::from_millis(300),
        record_wait: Duration::from_millis(300),
        conditions: Arc::default(),
    })
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approved_erasure_is_tried_again_and_done_at_the_next_start() {
    let mut bench = bench_concealing(&[Field::Path]).await;
    let _permit = bench.permit(Verb::WebWrite).await.unwrap();
    bench.disk.set_plan(|op| match op {
        Op::Write(path, ..) if path.ends_with("keys") => Some(Fault::Fail(ErrorKind::Other)),
        _ => None,
    });
    bench.erase("ana").await;
    // As the machine is found that died here.
    let cut = bench.disk.after_power_cut(Kept::Nothing);
    let kept = Shown::Value("/orders/7".into());
    assert_eq!(first_value(&cut, &bench), kept);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(!bench.entries().iter().any(is_done), "it could not be done");
    bench.disk.clear_plan();
    bench.recorded(is_done).await;
    assert_eq!(first_value(&bench.disk, &bench), Shown::Erased);

    bench.disk = cut.clone();
    assert!(!bench.entries().iter().any(is_done));
    bench.registrar = restarted(&cut);
    bench.recorded(is_done).await;
    assert_eq!(first_value(&cut, &bench), Shown::Erased);
}
