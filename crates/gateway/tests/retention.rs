//! Entries past their time go, once everybody has them who must, and the gateway goes on from what
//! stands for them.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]
#![allow(clippy::disallowed_methods, reason = "tests may wait and read files")]

#[path = "shared/config.rs"]
mod config;
#[path = "shared/person.rs"]
mod person;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use curfew_authority::{Command, Verdict};
use curfew_entry::{AccountChange, Actor, Entry, Event, LogPruned, Verb};
use curfew_export::range::{Place, between};
use curfew_export::{Chunks, Format, Packing, Source};
use curfew_gateway::config::Config;
use curfew_gateway::data::DataDir;
use curfew_gateway::{Running, StartError};
use curfew_ledger::verify::{Report, Verify, verify};
use curfew_ledger::{LogReader, PrunePoint, RealDisk, VerifierKey};
use person::Person;

const POLICY: &str = r#"
@id("sessions") @idle("15m") @reauth("1h") @lifetime("8h")
permit (principal, action == Action::"session.start", resource);
"#;

/// How long anything may take on a machine that has much to do.
const LONG: Duration = Duration::from_secs(120);

struct World {
    folder: tempfile::TempDir,
    config: Config,
}

impl World {
    fn new(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["curfew.localhost".to_owned()]).unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).unwrap();
        };
        write("cert.pem", &made.cert.pem());
        write("key.pem", &made.signing_key.serialize_pem());
        let text = config::config(&format!("[tuning]\nsegment_mib = 1\n{more}"));
        let config = Config::parse("curfew.toml", &text, folder.path()).unwrap();
        DataDir::of(&config).create(&config.origin).unwrap();
        Self { folder, config }
    }

    async fn start(&self) -> Result<Running, StartError> {
        curfew_gateway::start(self.config.clone(), "policy.cedar", POLICY).await
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("data/ledger")
    }

    fn horizon(&self) -> u64 {
        PrunePoint::size_at(&RealDisk, &self.dir()).unwrap()
    }

    fn reader(&self) -> LogReader {
        LogReader::open(&self.dir()).unwrap()
    }

    fn pruned(&self) -> Vec<LogPruned> {
        let reader = self.reader();
        let entries = reader.range(0..reader.size()).map(Result::unwrap);
        let events = entries.map(|(_, bytes)| Entry::from_bytes(&bytes).unwrap().event);
        let pruned = events.filter_map(|event| {
            if let Event::LogPruned(told) = event {
                Some(told)
            } else {
                None
            }
        });
        pruned.collect()
    }

    fn verified(&self) -> Report {
        let key = std::fs::read_to_string(DataDir::of(&self.config).public_key()).unwrap();
        let what = Verify {
            dir: &self.dir(),
            keys: &[VerifierKey::parse(key.trim()).unwrap()],
            remembered: None,
            from: None,
            disk: Arc::new(RealDisk),
        };
        verify(&what, &mut ()).unwrap_or_else(|failures| panic!("{failures:?}"))
    }

    async fn wait(&self, what: &str, done: impl Fn() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < LONG, "{what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Entries one by one: each is a frame of its own, so that 256 of them fill a segment. Over some
/// seconds, since there is a checkpoint in each.
async fn entries(running: &Running, count: u64) {
    for number in 0..count {
        if number % 100 == 99 {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let command = Command::StepClock { wall_offset_us: 1 };
        running.registrar().carry_out(command).await.unwrap();
    }
}

async fn disable(running: &Running, subject: &str) {
    let verdict = running.registrar().command(Command::ChangeAccount {
        subject: subject.parse().unwrap(),
        change: AccountChange::Disabled,
        by: Actor::Host("root".to_owned()),
    });
    assert!(!matches!(verdict.await.unwrap(), Verdict::Refused(_)));
}

/// An export has what is left, and says from where. Gives it.
fn exported(reader: &LogReader) -> String {
    let (first, size) = (reader.first(), reader.size());
    let zero = Some(Place::Index(0));
    let mut text = Vec::new();
    for range in [
        between(reader, None, None, size),
        between(reader, zero, None, size),
    ] {
        let range = range.unwrap();
        assert_eq!(range, first..size);
        let source = Source::of("curfew.test/log");
        let (format, packing) = (Format::Csv, Packing::Plain);
        let mut chunks = Chunks::new(
            reader,
            range,
            format,
            packing,
            source,
            curfew_authority::Auditor::sessions_kept,
        )
        .unwrap();
        text.clear();
        while let Some(piece) = chunks.piece().unwrap() {
            text.extend(piece);
        }
        assert_eq!(chunks.written(), size - first);
    }
    String::from_utf8(text).unwrap()
}

/// Whose the entries of this kind are, as an export says.
fn subjects(exported: &str, kind: &str) -> Vec<String> {
    let mut table = csv::Reader::from_reader(exported.as_bytes());
    let head = table.headers().unwrap().clone();
    let column = |name: &str| head.iter().position(|head| head == name).unwrap();
    let (kinds, subjects) = (column("kind"), column("subject"));
    let rows = table.records().map(Result::unwrap);
    let of_kind = rows.filter(|row| &row[kinds] == kind);
    of_kind.map(|row| row[subjects].to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_past_its_time_goes_and_the_state_it_led_to_stays() {
    let world = World::new("[log.retention]\nkeep = \"1s\"\nunarchived = true\n");
    let running = world.start().await.unwrap();
    let ana = Person::new(running.registrar()).await;
    disable(&running, "eve").await;
    entries(&running, 1_500).await;
    world.wait("entries go", || world.horizon() > 0).await;
    entries(&running, 1_500).await;
    let before = world.horizon();
    world.wait("more go", || world.horizon() > before).await;
    running.stop().await.unwrap();

    let horizon = world.horizon();
    let report = world.verified();
    assert_eq!(report.pruned, horizon);
    assert_eq!(world.reader().first(), horizon);
    exported(&world.reader());
    let told = world.pruned();
    let last = told.iter().find(|told| told.size == horizon).unwrap();
    let kept = PrunePoint::read(&RealDisk, &world.dir()).unwrap().unwrap();
    assert_eq!(last.digest, kept.digest());
    assert_eq!((last.keep.as_micros(), last.archived), (1_000_000, false));
    assert!(!world.dir().join("tile/entries/000").exists());

    // As if it had been interrupted before the last bundle went.
    let left = format!("tile/entries/{:03}", horizon / 256 - 1);
    let left = world.dir().join(left);
    std::fs::write(&left, "").unwrap();
    // Eve is disabled by an entry that is gone.
    let running = world.start().await.unwrap();
    world.wait("what was left goes", || !left.exists()).await;
    let disabled = running.registrar().is_disabled("eve".parse().unwrap());
    assert!(disabled.await.unwrap());
    // Whose session this is, an entry says that is gone too.
    let refused = ana.ask(running.registrar(), Verb::WebRead, "nothing").await;
    assert!(refused.is_err());
    entries(&running, 10).await;
    running.stop().await.unwrap();
    world.verified();
    let exported = exported(&world.reader());
    assert_eq!(subjects(&exported, "action.denied"), ["ana"]);
    assert!(subjects(&exported, "session.started").is_empty());

    let path = world.dir().join("horizon");
    let forged = std::fs::read_to_string(&path).unwrap();
    let forged = forged.replacen("\"disabled\":[\"eve\"]", "\"disabled\":[]", 1);
    std::fs::write(&path, forged).unwrap();
    let refused = world.start().await.map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("no entry names"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_that_the_archive_does_not_have() {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("archive");
    let more = format!(
        "[log.retention]\nkeep = \"1s\"\n[archive]\nurl = \"file://{}\"\nevery = \"1s\"\n",
        archive.display()
    );
    let world = World::new(&more);
    let running = world.start().await.unwrap();
    entries(&running, 1_500).await;
    world.wait("entries go", || world.horizon() > 0).await;
    running.stop().await.unwrap();
    assert!(world.pruned().iter().all(|told| told.archived));
    let size = |dir: &Path| {
        let note = std::fs::read_to_string(dir.join("checkpoint")).unwrap();
        note.lines().nth(1).unwrap().parse::<u64>().unwrap()
    };
    assert!(size(&archive) >= world.horizon());
    assert!(archive.join("tile/entries/000").exists());

    // An archive that begins now would have a gap.
    std::fs::remove_dir_all(&archive).unwrap();
    let before = world.horizon();
    let running = world.start().await.unwrap();
    entries(&running, 1_500).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    running.stop().await.unwrap();
    assert_eq!(world.horizon(), before);
    assert!(!archive.join("checkpoint").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_that_a_receiver_has_not_acknowledged() {
    // Nobody listens there: the port is reserved and never assigned.
    let world = World::new(
        "[log.retention]\nkeep = \"1s\"\nunarchived = true\n\
         [[forward]]\nname = \"siem\"\nkind = \"otlp\"\nurl = \"http://127.0.0.1:1/v1/logs\"\n",
    );
    let running = world.start().await.unwrap();
    entries(&running, 1_500).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    running.stop().await.unwrap();
    assert_eq!(world.horizon(), 0);
    assert!(world.pruned().is_empty());
}

#[test]
fn entries_may_be_gone_for_good_only_if_that_is_said() {
    let text = config::config("[log.retention]\nkeep = \"400d\"\n");
    let refused = Config::parse("curfew.toml", &text, Path::new("/tmp")).unwrap_err();
    let refused = refused.to_string();
    assert!(refused.contains("gone for good"), "{refused}");
    let said = text.replace("400d", "1y");
    let refused = Config::parse("curfew.toml", &said, Path::new("/tmp")).unwrap_err();
    assert!(
        refused.to_string().contains("write it in days"),
        "{refused}"
    );
    let said = format!("{text}unarchived = true\n");
    Config::parse("curfew.toml", &said, Path::new("/tmp")).unwrap();
}
