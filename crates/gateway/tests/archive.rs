//! The archive of a log: complete at every moment, and never replaced by another's.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests may wait, and run a server that is not ours"
)]

#[path = "shared/config.rs"]
mod config;
#[path = "shared/gateway.rs"]
mod gateway;
#[path = "shared/left_out.rs"]
mod left_out;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use curfew_custody::archive::{Access, Archive, ArchiveError, Archived};
use curfew_entry::{ArchivingFault, Entry, Event};
use curfew_ledger::verify::{Verify, verify};
use curfew_ledger::{
    LogKey, LogReader, Observer, Options, Published, RealDisk, WriteError, Writer,
};
use gateway::Gateway;
use tempfile::TempDir;

struct Quiet;

impl Observer for Quiet {
    fn durable(&self, _: u64) {}
    fn failed(&self, _: u64, error: &WriteError) {
        panic!("{error}");
    }
}

fn key() -> LogKey {
    LogKey::from_seed("archive.test/log", &[7; 32]).unwrap()
}

/// A log and its archive.
struct World {
    folder: TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let (writer, _) =
            Writer::create(world.options(), Arc::new(RealDisk), Arc::new(Quiet)).unwrap();
        writer.close().unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn options(&self) -> Options {
        Options {
            segment_bytes: 256 * 1024,
            ..Options::new(self.path("log"), self.path("guard"), key())
        }
    }

    /// Entries up to `size`, signed.
    fn grow(&self, size: u64, what: &str) {
        let (writer, _) =
            Writer::open(self.options(), Arc::new(RealDisk), Arc::new(Quiet)).unwrap();
        for index in writer.size()..size {
            let entry = format!("{what} {index} {}", "x".repeat((index % 90) as usize));
            while writer.append(&entry).is_err() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        writer.close().unwrap();
    }

    fn log(&self) -> Published {
        Published::new(&self.path("log"))
    }

    fn archive(&self) -> Archive {
        let url = format!("file://{}", self.path("archive").display());
        Archive::open(&url, &Access::default()).unwrap()
    }

    async fn bring_up(&self) -> Result<Archived, ArchiveError> {
        self.archive().bring_up(&self.log(), |_, _| {}).await
    }

    fn proven(&self) -> u64 {
        proven(&self.path("archive"))
    }
}

/// How many entries the copy proves.
fn proven(dir: &Path) -> u64 {
    let what = Verify {
        dir,
        keys: &[key().verifier()],
        remembered: None,
        from: None,
        disk: Arc::new(RealDisk),
    };
    verify(&what, &mut ()).unwrap().size
}

#[tokio::test(flavor = "multi_thread")]
async fn the_archive_is_a_whole_log_after_every_round() {
    let world = World::new();
    for size in [0, 1, 255, 256, 700, 20_000] {
        world.grow(size, "entry");
        let archived = world.bring_up().await.unwrap();
        assert_eq!(archived.size, size);
        assert_eq!(world.proven(), size);
        // Nothing is written twice.
        let again = world.bring_up().await.unwrap();
        assert_eq!((again.before, again.objects), (size, 0));
    }
    // Incomplete tiles of earlier rounds that are complete now are gone.
    assert!(!world.path("archive/tile/entries/002.p/188").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_short_goes_on_and_is_whole_all_the_while() {
    let world = World::new();
    world.grow(1_000, "entry");
    world.bring_up().await.unwrap();
    world.grow(9_000, "entry");
    // Some of the next round is there; its checkpoint is not.
    for tile in ["tile/entries/004", "tile/0/004", "tile/entries/031"] {
        let to = world.path("archive").join(tile);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(world.path("log").join(tile), to).unwrap();
    }
    let archived = world.bring_up().await.unwrap();
    assert_eq!((archived.before, archived.size), (1_000, 9_000));
    assert_eq!(world.proven(), 9_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_somebody_else_wrote_is_not_overwritten() {
    let world = World::new();
    world.grow(1_000, "entry");
    let planted = world.path("archive/tile/0/002");
    std::fs::create_dir_all(planted.parent().unwrap()).unwrap();
    std::fs::write(&planted, "not ours").unwrap();
    let error = world.bring_up().await.unwrap_err();
    assert!(
        matches!(&error, ArchiveError::Other { object } if object == "tile/0/002"),
        "{error}"
    );
    assert_eq!(std::fs::read(&planted).unwrap(), b"not ours");
    // No checkpoint speaks of it.
    assert!(!world.path("archive/checkpoint").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_archive_of_a_longer_or_another_log_is_left_alone() {
    let (world, other) = (World::new(), World::new());
    world.grow(2_000, "entry");
    world.bring_up().await.unwrap();
    for (size, what) in [(500, "entry"), (2_000, "forged"), (3_000, "forged")] {
        other.grow(size, what);
        let outcome = world.archive().bring_up(&other.log(), |_, _| {}).await;
        let error = outcome.unwrap_err();
        assert!(matches!(error, ArchiveError::NotAPrefix { .. }), "{error}");
        assert_eq!(world.proven(), 2_000);
    }
}

/// Amazon's protocol, as spoken by a server that is not ours. Left out where it cannot be installed.
#[tokio::test(flavor = "multi_thread")]
async fn an_s3_store_holds_the_archive() {
    let Some((server, endpoint)) = moto().await else {
        return;
    };
    let access = Access {
        endpoint: Some(endpoint),
        access_key_id: Some("testing".to_owned()),
        secret_access_key: Some("testing".into()),
        ..Access::default()
    };
    let world = World::new();
    let archive = Archive::open("s3://evidence/curfew", &access).unwrap();
    for size in [300, 5_000] {
        world.grow(size, "entry");
        let archived = archive.bring_up(&world.log(), |_, _| {}).await.unwrap();
        assert_eq!(archived.size, size);
    }
    let again = archive.bring_up(&world.log(), |_, _| {}).await.unwrap();
    assert_eq!((again.before, again.objects), (5_000, 0));
    let other = World::new();
    other.grow(6_000, "forged");
    let refused = archive.bring_up(&other.log(), |_, _| {}).await;
    assert!(matches!(refused, Err(ArchiveError::NotAPrefix { .. })));
    drop(server);
}

/// Ends the server with the test.
struct Server(
    std::process::Child,
    #[allow(dead_code, reason = "where its program is, for as long as it runs")] tempfile::TempDir,
);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where moto's server is: in this folder, installed for this test alone.
fn moto_server(folder: &std::path::Path) -> Result<std::path::PathBuf, String> {
    let run = |program: &std::path::Path, words: &[&str]| {
        let output = std::process::Command::new(program)
            .args(words)
            .current_dir(folder)
            .output()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let last = told.trim().lines().last().unwrap_or_default().to_owned();
        output.status.success().then_some(()).ok_or(last)
    };
    run("python3".as_ref(), &["-m", "venv", "venv"])?;
    let quietly = ["install", "--quiet", "--disable-pip-version-check", MOTO];
    run(&folder.join("venv/bin/pip"), &quietly)?;
    Ok(folder.join("venv/bin/moto_server"))
}

/// With what it takes to serve, and no more of Amazon's services than this one.
const MOTO: &str = "moto[s3,server]>=5";

/// A server with a bucket named `evidence`.
async fn moto() -> Option<(Server, String)> {
    const ADDRESS: &str = "127.83.51.1";
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().to_path_buf();
    let installed = tokio::task::spawn_blocking(move || moto_server(&at)).await;
    let program = match installed.unwrap() {
        Ok(program) => program,
        Err(problem) => {
            left_out::left_out(
                "moto",
                &format!("{MOTO} cannot be installed here: {problem}"),
            );
            return None;
        }
    };
    let spawned = std::process::Command::new(program)
        .args(["-H", ADDRESS, "-p", "9083"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn();
    let server = Server(spawned.unwrap(), folder);
    let endpoint = format!("http://{ADDRESS}:9083");
    let start = Instant::now();
    loop {
        let made = reqwest::Client::new()
            .put(format!("{endpoint}/evidence"))
            .send()
            .await;
        if made.is_ok_and(|answer| answer.status().is_success()) {
            return Some((server, endpoint));
        }
        assert!(start.elapsed() < Duration::from_secs(60), "no server");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What the log says of its archive so far.
fn told(gateway: &Gateway) -> Vec<Event> {
    let reader = LogReader::open(&gateway.ledger()).unwrap();
    let entries = reader.range(0..reader.size()).map(Result::unwrap);
    let events = entries.map(|(_, bytes)| Entry::from_bytes(&bytes).unwrap().event);
    let told = events.filter(|event| event.kind().starts_with("log.archiving_"));
    told.collect()
}

/// Waits until the log has said so much of its archive, doing something meanwhile, and gives the last.
async fn until_told(gateway: &Gateway, count: usize, meanwhile: impl Fn()) -> Event {
    let start = Instant::now();
    loop {
        let mut told = told(gateway);
        assert!(told.len() <= count, "it is said once: {told:?}");
        if told.len() == count {
            return told.remove(count - 1);
        }
        assert!(start.elapsed() < Duration::from_secs(120), "{told:?}");
        meanwhile();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_that_it_is_not_archived_and_that_it_is_again() {
    const POLICY: &str = r#"
        @id("sessions") @idle("15m") @reauth("12h") @lifetime("24h")
        permit (principal, action == Action::"session.start", resource == Resource::"gateway");
    "#;
    let place = tempfile::tempdir().unwrap();
    let archive = place.path().join("archive");
    let config = format!(
        "[archive]\nurl = \"file://{}\"\nevery = \"200ms\"\nalarm_after = \"1s\"\n",
        archive.display()
    );
    let config = config::config(&config);
    let (gateway, ()) = Gateway::start(&["curfew.localhost"], &config, POLICY, |_, _| {}).await;
    let start = Instant::now();
    while !archive.join("checkpoint").exists() {
        assert!(start.elapsed() < Duration::from_secs(120), "it is archived");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(told(&gateway), []);

    // Somebody else's checkpoint is there, again and again: a round may be under way.
    let checkpoint = archive.join("checkpoint");
    let kept = fs::read_to_string(&checkpoint).unwrap();
    let covered: u64 = kept.lines().nth(1).unwrap().parse().unwrap();
    let spoil = || fs::write(&checkpoint, "not a checkpoint").unwrap();
    let Event::LogArchivingFailed(failed) = until_told(&gateway, 1, spoil).await else {
        unreachable!()
    };
    assert_eq!(failed.cause, ArchivingFault::OtherContent);
    // Round after round goes by.
    tokio::time::sleep(Duration::from_secs(2)).await;
    until_told(&gateway, 1, || {}).await;

    let whole = place.path().join("whole");
    fs::write(&whole, kept).unwrap();
    fs::rename(&whole, &checkpoint).unwrap();
    let Event::LogArchivingResumed { size } = until_told(&gateway, 2, || {}).await else {
        unreachable!()
    };
    assert!(size >= covered);
    gateway.running.stop().await.unwrap();
}

#[test]
fn what_is_no_place_or_can_be_overheard_is_refused_by_hand_as_in_the_configuration() {
    let refused = |url: &str, endpoint: Option<&str>| {
        let access = Access {
            endpoint: endpoint.map(str::to_owned),
            ..Access::default()
        };
        Archive::open(url, &access).unwrap_err().to_string()
    };
    for url in ["s3://key@bucket", "s3://bucket?x=y", "file:///srv#part"] {
        let text = refused(url, None);
        assert!(text.contains("a place and nothing else"), "{text}");
    }
    let text = refused("https://bucket/x", None);
    assert!(text.contains("neither file:// nor s3://"), "{text}");
    let text = refused("s3://bucket", Some("http://s3.example.com"));
    assert!(text.contains("https, or http on loopback"), "{text}");
}
