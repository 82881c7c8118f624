//! A gateway that has its log stamped by a real timestamping authority, which misbehaves in turn.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_types,
    clippy::wildcard_enum_match_arm,
    missing_docs,
    unreachable_pub
)]

#[path = "../shared/address.rs"]
mod address;
#[allow(dead_code, reason = "no client connects here")]
#[path = "../shared/config.rs"]
mod config;
#[path = "../shared/gateway.rs"]
mod gateway;
#[path = "../shared/person.rs"]
mod person;
#[path = "../shared/tsa.rs"]
mod tsa;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use curfew_authority::Command;
use curfew_custody::witness::server::WitnessServer;
use curfew_entry::{Entry, Event, LogTimestamped, RecordLevel, Verb};
use curfew_gate::{Refusal, Unavailable};
use curfew_gateway::config::Config;
use curfew_ledger::note::Note;
use curfew_ledger::{LogReader, Published, RealDisk, VerifierKey, Witness};
use curfew_timestamp::{Roots, verify};
use sha2::{Digest, Sha256};

use address::free_address;
use gateway::Gateway;
use person::Person;
use tsa::{Mode, Tsa, is_missing};

/// No token comes by itself, and what waits for one has time.
const ON_DEMAND: &str = "interval = \"1h\"";

const POLICY: &str = r#"
@id("sessions") @idle("15m") @reauth("8h") @lifetime("24h")
permit (principal, action == Action::"session.start", resource == Resource::"gateway");
@id("vault") @record("timestamped")
permit (principal, action, resource == Resource::"vault");
"#;

/// How long anything may take on a machine that has much to do.
const LONG: Duration = Duration::from_secs(90);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

struct Stage {
    gateway: Gateway,
    tsa: Arc<Tsa>,
    config: String,
}

/// `more` is added to the configuration; `prepare` sees the folder it lies in.
async fn stage(times: &str, more: &str, prepare: impl FnOnce(&Path, &VerifierKey)) -> Stage {
    let tsa = Tsa::new(free_address());
    let config = config::config(&format!(
        "[log.timestamp]\nurl = \"{}\"\nca = \"root.pem\"\n{times}\n{more}\
         [[web]]\nname = \"vault\"\nenvironment = \"test\"\nhost = \"vault.localhost\"\n\
         upstream = \"http://127.0.0.1:9\"\n",
        tsa.url()
    ));
    let root = tsa.root();
    let (gateway, ()) = Gateway::start(&["curfew.localhost"], &config, POLICY, |dir, data| {
        std::fs::copy(root, dir.join("root.pem")).unwrap();
        let key = std::fs::read_to_string(data.public_key()).unwrap();
        prepare(dir, &VerifierKey::parse(key.trim()).unwrap());
    })
    .await;
    Stage {
        gateway,
        tsa,
        config,
    }
}

impl Stage {
    /// Something to record.
    async fn entry(&self) {
        let command = Command::StepClock { wall_offset_us: 1 };
        let registrar = self.gateway.running.registrar();
        registrar.carry_out(command).await.unwrap();
    }

    fn events(&self) -> Vec<Event> {
        let reader = LogReader::open(&self.gateway.ledger()).unwrap();
        let entries = reader.range(0..reader.size());
        entries
            .map(|entry| Entry::from_bytes(&entry.unwrap().1).unwrap().event)
            .collect()
    }

    /// Number of entries up to the last that is no note of the log on itself.
    fn substance(&self) -> u64 {
        let events = self.events();
        let last = events.iter().rposition(|event| !event.is_note_on_log());
        last.unwrap() as u64 + 1
    }

    fn stamps(&self) -> Vec<LogTimestamped> {
        let told = |event| match event {
            Event::LogTimestamped(told) => Some(told),
            _ => None,
        };
        self.events().into_iter().filter_map(told).collect()
    }

    /// Waits until all that the log tells of others is stamped, and that is noted.
    async fn stamped(&self) -> LogTimestamped {
        wait(|| {
            let substance = self.substance();
            self.stamps().pop().filter(|told| told.size >= substance)
        })
        .await
    }

    async fn event(&self, fits: impl Fn(&Event) -> bool) -> Event {
        wait(|| self.events().into_iter().find(&fits)).await
    }

    fn published(&self) -> Published {
        Published::new(&self.gateway.ledger())
    }

    /// The token that is told of is there, holds, and was not changed since.
    fn check(&self, told: &LogTimestamped) {
        let held = self.published().timestamp(told.size).unwrap().unwrap();
        let roots = Roots::from_pem(&std::fs::read(self.tsa.root()).unwrap()).unwrap();
        let token = verify(&held.response, &held.checkpoint, None, &roots).unwrap();
        assert_eq!(told.tsa, token.tsa);
        assert_eq!(told.tsa_time.as_micros(), token.time_us);
        assert_eq!(told.accuracy_us, Some(1_000_000));
        let digest = Sha256::digest(&held.response);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(told.digest, digest);
    }
}

async fn wait<T>(look: impl Fn() -> Option<T>) -> T {
    let end = tokio::time::Instant::now() + LONG;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(tokio::time::Instant::now() < end, "waited for {LONG:?}");
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_stamped_when_it_has_grown_and_not_by_what_it_notes_of_itself() {
    if is_missing() {
        return;
    }
    let stage = stage("interval = \"1s\"", "", |_, _| {}).await;
    stage.tsa.serve().await;
    let first = stage.stamped().await;
    stage.check(&first);
    assert!(first.asked.is_some());
    assert_eq!(first.off_us, None, "one machine has one clock");
    // Nothing else comes, for several times as long as between two tokens.
    let (count, asked) = (stage.stamps().len(), stage.tsa.asked());
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!((stage.stamps().len(), stage.tsa.asked()), (count, asked));

    stage.entry().await;
    let second = stage.stamped().await;
    assert!(second.size > first.size);
    stage.check(&second);
    stage.check(&first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cosigned_checkpoint_is_stamped_and_the_notes_on_both_come_to_rest() {
    if is_missing() {
        return;
    }
    let address = free_address();
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("witness");
    let more = "[log.witness]\npolicy = \"witness.policy\"\nrecord_every = \"1s\"\n";
    let stage = stage("interval = \"1s\"", more, |dir, log| {
        let keys = Witness::create(&RealDisk, &place, "witness.example").unwrap();
        Witness::trust(&RealDisk, &place, log).unwrap();
        let text = format!(
            "log {log}\nwitness w {} http://{address}\nquorum w\n",
            keys[0]
        );
        std::fs::write(dir.join("witness.policy"), text).unwrap();
    })
    .await;
    stage.tsa.serve().await;
    let server = WitnessServer::bind(&place, address).await.unwrap();
    let server = tokio::spawn(async move { server.serve().await });

    let told = stage.stamped().await;
    stage.check(&told);
    let held = stage.published().timestamp(told.size).unwrap().unwrap();
    assert!(Note::parse(&held.checkpoint).is_ok());
    let text = String::from_utf8(held.checkpoint).unwrap();
    assert!(text.contains("witness.example"), "{text}");
    // Both kinds of note come to an end: each may come once more for the other's last cause.
    let notes = || stage.events().len();
    let mut before = notes();
    let end = tokio::time::Instant::now() + LONG;
    loop {
        tokio::time::sleep(Duration::from_secs(4)).await;
        let now = notes();
        if now == before {
            break;
        }
        before = now;
        assert!(
            tokio::time::Instant::now() < end,
            "they call for each other"
        );
    }

    // Without witnesses there are tokens all the same, a little later.
    server.abort();
    stage.entry().await;
    let told = stage.stamped().await;
    stage.check(&told);
    let held = stage.published().timestamp(told.size).unwrap().unwrap();
    let text = String::from_utf8(held.checkpoint).unwrap();
    assert!(!text.contains("witness.example"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_to_be_believed_is_not_kept_and_the_log_tells_of_it() {
    if is_missing() {
        return;
    }
    let times = "interval = \"1s\"\ntimeout = \"5s\"\nalarm_after = \"1s\"";
    let stage = stage(times, "", |_, _| {}).await;
    // It is not there yet.
    let is_stopped = |event: &Event| matches!(event, Event::LogTimestampsStopped { .. });
    let is_resumed = |event: &Event| matches!(event, Event::LogTimestampsResumed { .. });
    let stopped = stage.event(is_stopped).await;
    let Event::LogTimestampsStopped { size: 0, cause, .. } = &stopped else {
        panic!("{stopped:?}");
    };
    assert!(cause.contains("no answer: "), "{cause}");
    stage.tsa.serve().await;
    stage.event(is_resumed).await;
    stage.stamped().await;

    let count =
        |fits: fn(&Event) -> bool| stage.events().iter().filter(|event| fits(event)).count();
    for (mode, wanted) in [
        (
            Mode::Garbage,
            "it is no response of a timestamping authority",
        ),
        (Mode::Busy, "503"),
        (Mode::Stale, "the token is over other data"),
        (
            Mode::Stranger,
            "the certificate of CN=stranger does not hold",
        ),
        (Mode::Silent, "no answer: nothing for 5s"),
    ] {
        let before = stage.stamped().await;
        let (stops, resumes) = (count(is_stopped), count(is_resumed));
        stage.tsa.behave(mode);
        stage.entry().await;
        let stopped = wait(|| {
            let mut found = stage.events().into_iter().filter(is_stopped);
            found.nth(stops)
        });
        let Event::LogTimestampsStopped { size, cause, .. } = stopped.await else {
            unreachable!()
        };
        assert!(cause.contains(wanted), "{mode:?}: {cause}");
        assert_eq!(size, before.size);
        let kept = stage.published().timestamps().unwrap();
        assert_eq!(kept.last(), Some(&before.size), "{mode:?} was kept");
        stage.tsa.behave(Mode::Good);
        wait(|| (count(is_resumed) > resumes).then_some(())).await;
        assert_eq!(count(is_stopped), stops + 1, "it is said once");
        stage.check(&stage.stamped().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_contradict_each_other_are_told_of() {
    if is_missing() {
        return;
    }
    let stage = stage("interval = \"1s\"", "", |_, _| {}).await;
    stage.tsa.behave(Mode::Late);
    stage.tsa.serve().await;
    let told = stage.stamped().await;
    const DAY_US: i64 = 86_400_000_000;
    let off = told.off_us.unwrap();
    assert!((-3_660 * DAY_US..-3_640 * DAY_US).contains(&off), "{off}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_over_the_end_is_noted_after_the_next_start_and_nothing_is_overwritten() {
    if is_missing() {
        return;
    }
    let mut stage = stage("interval = \"1h\"", "", |_, _| {}).await;
    stage.tsa.serve().await;
    wait(|| stage.stamps().pop()).await;
    stage.entry().await;
    let (ledger, log) = (stage.gateway.ledger(), stage.published());
    stage.gateway.running.stop().await.unwrap();
    let size = LogReader::open(&ledger).unwrap().size();
    let at_the_end = log.timestamps().unwrap();
    // Within the time that a stop may take. On a machine that has much to do it need not be there.
    let is_there = at_the_end.last() == Some(&size);
    let newest = *at_the_end.last().unwrap();
    let bytes = log.timestamp(newest).unwrap();

    let folder = ledger.parent().unwrap().parent().unwrap();
    let config = Config::parse("curfew.toml", &stage.config, folder).unwrap();
    let running = curfew_gateway::start(config, "policy.cedar", POLICY);
    stage.gateway.running = running.await.unwrap();
    if is_there {
        let told = wait(|| stage.stamps().into_iter().find(|told| told.size == newest)).await;
        stage.check(&told);
        assert_eq!(told.asked, None);
    }
    assert_eq!(log.timestamp(newest).unwrap(), bytes);
    let again = log.keep_timestamp(
        newest,
        &curfew_ledger::Stamped {
            checkpoint: b"other".to_vec(),
            response: b"other".to_vec(),
        },
    );
    assert!(!again.unwrap());
    assert_eq!(log.timestamp(newest).unwrap(), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gravest_actions_wait_for_a_token_which_is_asked_for_at_once() {
    if is_missing() {
        return;
    }
    let more = "[tuning]\nrecord_wait = \"10m\"\n";
    let stage = stage(ON_DEMAND, more, |_, _| {}).await;
    stage.tsa.serve().await;
    // The first token comes by itself, and the next not for an hour.
    let first = wait(|| stage.stamps().pop()).await;
    let registrar = stage.gateway.running.registrar();
    let person = Person::new(registrar).await;
    let write = person
        .ask(registrar, Verb::WebWrite, "vault")
        .await
        .unwrap();
    let newest = *stage.published().timestamps().unwrap().last().unwrap();
    assert!(newest > write.entry(), "it was let go without");
    assert!(newest > first.size);
    // A read is let go at once, and its answer waits.
    let read = person.ask(registrar, Verb::WebRead, "vault").await.unwrap();
    assert_eq!(read.recorded().await, Ok(()));
    let newest = *stage.published().timestamps().unwrap().last().unwrap();
    assert!(newest > read.entry());
    let entry = LogReader::open(&stage.gateway.ledger()).unwrap();
    let entry = entry.entry(read.entry()).unwrap();
    let (reached, _) = stage.published().receipt(read.entry(), &entry).unwrap();
    assert_eq!(reached.as_str(), RecordLevel::Timestamped.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gets_no_token_in_time_is_refused() {
    if is_missing() {
        return;
    }
    let more = "[tuning]\nrecord_wait = \"300ms\"\n";
    let stage = stage(ON_DEMAND, more, |_, _| {}).await;
    let registrar = stage.gateway.running.registrar();
    let person = Person::new(registrar).await;
    let refused = person.ask(registrar, Verb::WebWrite, "vault").await;
    let late = Unavailable::Late(RecordLevel::Timestamped);
    assert_eq!(refused.unwrap_err(), Refusal::Unavailable(late));
}
