//! A gateway that has its log cosigned by three witnesses, one of whom misbehaves.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use curfew_authority::Command;
use curfew_custody::witness::server::WitnessServer;
use curfew_entry::{Entry, Event};
use curfew_ledger::cosignature::Algorithm;
use curfew_ledger::trust::{Judged, TrustPolicy};
use curfew_ledger::witness::SIZE_TYPE;
use curfew_ledger::{Cosigner, CosignerKey, LogReader, Published, RealDisk, VerifierKey, Witness};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

#[allow(dead_code, reason = "no client connects here")]
#[path = "../shared/gateway.rs"]
pub(crate) mod gateway;

use gateway::Gateway;

use crate::address::free_address;

const POLICY: &str = r#"
@id("sessions") @idle("15m") @reauth("8h") @lifetime("24h")
permit (principal, action == Action::"session.start", resource == Resource::"gateway");
@id("web")
permit (principal, action in [Action::"web.read", Action::"web.write"], resource in Environment::"test");
@id("shop") @record("signed")
permit (principal, action, resource == Resource::"shop");
@id("vault") @record("witnessed")
permit (principal, action, resource == Resource::"vault");
"#;

/// How long anything may take on a machine that has much to do.
const LONG: Duration = Duration::from_secs(60);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// One that is not there yet.
pub(crate) struct Place {
    dir: PathBuf,
    address: SocketAddr,
    key: CosignerKey,
}

impl Place {
    fn new(folder: &Path, name: &str, log: &VerifierKey, algorithm: Algorithm) -> Self {
        let dir = folder.join(name);
        let keys = Witness::create(&RealDisk, &dir, &format!("{name}.example")).unwrap();
        Witness::trust(&RealDisk, &dir, log).unwrap();
        let key = keys
            .into_iter()
            .find(|key| key.algorithm() == algorithm)
            .unwrap();
        Self {
            dir,
            address: free_address(),
            key,
        }
    }

    pub(crate) async fn serve(&self) -> JoinHandle<()> {
        let server = WitnessServer::bind(&self.dir, self.address).await.unwrap();
        tokio::spawn(async move { server.serve().await })
    }
}

/// The gateway, its witnesses `north` and `south`, and where a third, `east`, is said to be.
pub(crate) struct Stage {
    pub(crate) gateway: Gateway,
    pub(crate) north: Place,
    pub(crate) south: Place,
    east: SocketAddr,
    policy: TrustPolicy,
    log: VerifierKey,
    _folder: tempfile::TempDir,
}

/// `east` is the seed of the third witness's key.
async fn stage(east: u8, alarm_after: &str, record_every: &str) -> Stage {
    stage_with(east, alarm_after, record_every, "10s").await
}

/// `record_wait` is how long an action may wait for the witnesses.
pub(crate) async fn stage_with(
    east: u8,
    alarm_after: &str,
    record_every: &str,
    record_wait: &str,
) -> Stage {
    let folder = tempfile::tempdir().unwrap();
    let mut config = crate::config::config(&format!(
        "[log.witness]\npolicy = \"witness.policy\"\nalarm_after = \"{alarm_after}\"\n\
         record_every = \"{record_every}\"\n\
         [tuning]\nrecord_wait = \"{record_wait}\"\n"
    ));
    for name in ["blog", "shop", "vault"] {
        config += &format!(
            "[[web]]\nname = \"{name}\"\nenvironment = \"test\"\nhost = \"{name}.localhost\"\n\
             upstream = \"http://127.0.0.1:9\"\n"
        );
    }
    let third = Cosigner::from_seed("east.example", Algorithm::Ed25519, &[east; 32]).unwrap();
    let address = free_address();
    let (gateway, (north, south, text, log)) =
        Gateway::start(&["curfew.localhost"], &config, POLICY, |dir, data| {
            let log = std::fs::read_to_string(data.public_key()).unwrap();
            let log = VerifierKey::parse(log.trim()).unwrap();
            let north = Place::new(folder.path(), "north", &log, Algorithm::Ed25519);
            let south = Place::new(folder.path(), "south", &log, Algorithm::MlDsa44);
            let text = format!(
                "log {log}\nwitness north {} http://{}\nwitness south {} http://{}/\n\
                 witness east {} http://{address}\ngroup two 2 north south east\nquorum two\n",
                north.key,
                north.address,
                south.key,
                south.address,
                third.verifier()
            );
            std::fs::write(dir.join("witness.policy"), &text).unwrap();
            (north, south, text, log)
        })
        .await;
    Stage {
        gateway,
        north,
        south,
        east: address,
        policy: TrustPolicy::parse(text.as_bytes()).unwrap(),
        log,
        _folder: folder,
    }
}

impl Stage {
    /// Something to record.
    async fn entry(&self) {
        let command = Command::StepClock { wall_offset_us: 1 };
        self.gateway
            .running
            .registrar()
            .carry_out(command)
            .await
            .unwrap();
    }

    pub(crate) fn size(&self) -> u64 {
        LogReader::open(&self.gateway.ledger()).unwrap().size()
    }

    pub(crate) fn judged(&self) -> Option<Judged> {
        let note = Published::new(&self.gateway.ledger())
            .witnessed()
            .unwrap()?;
        Some(
            self.policy
                .judge(&note, std::slice::from_ref(&self.log))
                .unwrap(),
        )
    }

    /// Waits until a quorum has cosigned so many entries.
    pub(crate) async fn witnessed(&self, size: u64) -> Judged {
        wait(|| {
            self.judged()
                .filter(|judged| judged.checkpoint.size >= size)
        })
        .await
    }

    pub(crate) async fn events(&self, fits: fn(&Event) -> bool, count: usize) -> Vec<(u64, Event)> {
        wait(|| {
            let reader = LogReader::open(&self.gateway.ledger()).unwrap();
            let entries = reader.range(0..reader.size()).map(|entry| {
                let (index, bytes) = entry.unwrap();
                (index, Entry::from_bytes(&bytes).unwrap().event)
            });
            let found: Vec<_> = entries.filter(|(_, event)| fits(event)).collect();
            (found.len() >= count).then_some(found)
        })
        .await
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

fn names(judged: &Judged) -> Vec<&str> {
    judged
        .cosigned
        .iter()
        .map(|cosigned| cosigned.witness.as_str())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_are_enough_and_a_restart_from_an_old_copy_shows() {
    let stage = stage(3, "10m", "10m").await;
    // `east` is down for good.
    let (north, _south) = (stage.north.serve().await, stage.south.serve().await);
    let first = stage.witnessed(stage.size()).await;
    assert_eq!(names(&first), ["north", "south"]);
    assert_eq!(first.missing, ["east"]);
    let kept: Vec<_> = list(&stage.north.dir);

    // Each further checkpoint goes on from the last, by proof.
    for _ in 0..3 {
        stage.entry().await;
        stage.witnessed(stage.size()).await;
    }
    // `north` comes back with what it knew at first: it is proved to from there, and cosigns.
    north.abort();
    let _ = north.await;
    // What it was answering just then may still end.
    drop(wait(|| Witness::open(Arc::new(RealDisk), &stage.north.dir).ok()).await);
    for (path, bytes) in kept {
        std::fs::write(path, bytes).unwrap();
    }
    let back = wait(|| Witness::open(Arc::new(RealDisk), &stage.north.dir).ok()).await;
    assert!(back.logs().next().unwrap().1 < stage.size());
    drop(back);
    let _north = stage.north.serve().await;
    stage.entry().await;
    let last = stage.witnessed(stage.size()).await;
    assert_eq!(names(&last), ["north", "south"]);
    // What was cosigned is in the log, once, with signatures that can be checked.
    let noted = stage
        .events(|event| matches!(event, Event::LogWitnessed { .. }), 1)
        .await;
    let [
        (
            index,
            Event::LogWitnessed {
                size,
                witnesses,
                checkpoint,
                wall,
            },
        ),
    ] = noted.as_slice()
    else {
        panic!("{noted:?}");
    };
    assert!(size <= index);
    assert_eq!(witnesses.as_slice(), ["north", "south"]);
    let judged = stage.policy.judge(checkpoint.as_bytes(), &[]).unwrap();
    assert!(judged.met && judged.checkpoint.size == *size);
    // How the clock stood, wherever the kernel tells.
    let started = |event: &Event| matches!(event, Event::GatewayStarted { .. });
    let started = stage.events(started, 1).await;
    let told = matches!(&started[0].1, Event::GatewayStarted { wall: Some(_), .. });
    assert_eq!(wall.is_some(), told);
}

fn list(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = std::fs::read_dir(dir.join("logs")).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    paths
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect()
}

/// How a witness answers that is none.
type Lie = fn(&Cosigner, &str) -> (u16, &'static str, String);

/// Answers whatever `lie` makes of the checkpoint it is shown.
async fn lying(address: SocketAddr, seed: u8, lie: Lie) {
    let key = Cosigner::from_seed("east.example", Algorithm::Ed25519, &[seed; 32]).unwrap();
    let key = Arc::new(key);
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let key = Arc::clone(&key);
        tokio::spawn(async move {
            let mut asked = String::new();
            let mut buffer = [0; 4096];
            // All of it comes at once or nearly so; its end is that of the note.
            while !asked.contains("\u{2014} ") || !asked.ends_with('\n') {
                let count = stream.read(&mut buffer).await.unwrap_or(0);
                if count == 0 {
                    return;
                }
                asked.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
            let body = asked.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            let note = body.split_once("\n\n").map_or("", |(_, note)| note);
            let text = note.split_once("\n\n").map_or("", |(text, _)| text);
            let (status, kind, answer) = lie(&key, &format!("{text}\n"));
            let head = format!(
                "HTTP/1.1 {status} Lie\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\
                 connection: close\r\n\r\n",
                answer.len()
            );
            let _ = stream.write_all((head + &answer).as_bytes()).await;
        });
    }
}

const LIES: &[Lie] = &[
    // It signs something else.
    |key, text| {
        let other = text.replacen("curfew.test/log", "curfew.test/lie", 1);
        (
            200,
            "text/plain",
            key.cosign(&other, 1_800_000_000).unwrap(),
        )
    },
    // Another key under its name.
    |_, text| {
        let other = Cosigner::from_seed("east.example", Algorithm::Ed25519, &[99; 32]).unwrap();
        (
            200,
            "text/plain",
            other.cosign(text, 1_800_000_000).unwrap(),
        )
    },
    // It agrees without signing, or with what is no signature.
    |_, _| (200, "text/plain", String::new()),
    |_, _| {
        (
            200,
            "text/plain",
            "\u{2014} east.example AAAA\n".repeat(100),
        )
    },
    // It has seen more than there is, or something else each time.
    |_, _| (409, SIZE_TYPE, "18446744073709551615\n".to_owned()),
    |_, _| (409, SIZE_TYPE, "1\n".to_owned()),
    |_, _| (409, "text/plain", "1\n".to_owned()),
    |_, _| (422, "text/plain", "no\n".to_owned()),
    // It never ends.
    |_, _| (200, "text/plain", "x".repeat(1024 * 1024)),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_lying_witness_counts_for_nothing() {
    let mut lies = tokio::task::JoinSet::new();
    for (at, lie) in LIES.iter().enumerate() {
        lies.spawn(lied_to(at, *lie));
    }
    while let Some(outcome) = lies.join_next().await {
        outcome.unwrap();
    }
}

async fn lied_to(at: usize, lie: Lie) {
    let seed = 40 + u8::try_from(at).unwrap();
    let stage = stage(seed, "100ms", "10m").await;
    tokio::spawn(lying(stage.east, seed, lie));
    // With one honest witness beside it there is no quorum, and the log says so.
    let _north = stage.north.serve().await;
    let lost = stage
        .events(|event| matches!(event, Event::LogQuorumLost { .. }), 1)
        .await;
    let (_, Event::LogQuorumLost { missing, .. }) = &lost[0] else {
        panic!("{lost:?}");
    };
    assert!(missing.contains(&"east".to_owned()), "{at}: {missing:?}");
    assert!(stage.judged().is_none(), "{at}");
    // With two there is, and the lie is not among what is kept.
    let _south = stage.south.serve().await;
    let judged = stage.witnessed(1).await;
    assert_eq!(names(&judged), ["north", "south"], "{at}");
    let met = stage
        .events(|event| matches!(event, Event::LogQuorumMet { .. }), 1)
        .await;
    assert!(met[0].0 > lost[0].0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_third_is_asked_again_and_an_idle_log_stays_idle() {
    let stage = stage(7, "100ms", "1ms").await;
    let (_north, _south) = (stage.north.serve().await, stage.south.serve().await);
    stage.witnessed(stage.size()).await;
    // A witness that signs whatever it is shown, as an honest one would do here.
    tokio::spawn(lying(stage.east, 7, |key, text| {
        (200, "text/plain", key.cosign(text, 1_800_000_000).unwrap())
    }));
    wait(|| stage.judged().filter(|judged| judged.missing.is_empty())).await;
    // Notes on witnesses do not call for further notes: after a while nothing more comes.
    let mut size = stage.size();
    loop {
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        let now = stage.size();
        if now == size {
            break;
        }
        assert!(now < 40, "it feeds itself: {now} entries");
        size = now;
    }
    let lost = stage
        .events(|event| matches!(event, Event::LogQuorumLost { .. }), 0)
        .await;
    let met = stage
        .events(|event| matches!(event, Event::LogQuorumMet { .. }), 0)
        .await;
    assert_eq!(lost.len(), met.len(), "each alarm is taken back");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_unwitnessed_by_a_stop() {
    let stage = stage(3, "10m", "10m").await;
    let (_north, _south) = (stage.north.serve().await, stage.south.serve().await);
    stage.witnessed(1).await;
    stage.entry().await;
    let Stage {
        gateway,
        policy,
        log,
        ..
    } = stage;
    let ledger = gateway.ledger();
    gateway.running.stop().await.unwrap();
    // Without another start there is nothing that was not cosigned.
    let reader = LogReader::open(&ledger).unwrap();
    let note = Published::new(&ledger).witnessed().unwrap().unwrap();
    let judged = policy.judge(&note, &[log]).unwrap();
    assert!(judged.met);
    assert_eq!(judged.checkpoint.size, reader.size());
    let last = Entry::from_bytes(&reader.entry(reader.size() - 1).unwrap()).unwrap();
    assert!(matches!(last.event, Event::GatewayStopped {}));
}
