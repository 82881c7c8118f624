//! kill -9 while entries are forwarded: a receiver gets each signed entry, in order, and twice only
//! what it had not acknowledged, or what the gateway had not yet put down as acknowledged.

#[path = "../../../gateway/tests/forward/collector.rs"]
#[allow(dead_code, reason = "here it only takes what it is given")]
mod collector;
#[path = "../../../gateway/tests/forward/hub.rs"]
#[allow(dead_code, reason = "here it ends connections properly alone")]
mod hub;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command as Process;
use std::time::{Duration, Instant};

use curfew_export::range;
use curfew_ledger::LogReader;
use curfew_ledger::merkle::leaf_hash;
use serde_json::Value;

use self::collector::Collector;
use self::hub::Hub;
use crate::kill::kills;
use crate::kit::Place;

/// How long anything may take on a machine that has much to do.
const LONG: Duration = Duration::from_secs(120);

/// Entries of one OTLP request, and of one syslog window, at most.
const REQUEST: u64 = 256;
const WINDOW: u64 = 4_096;

/// What arrived of one entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Arrived {
    pub(crate) index: u64,
    pub(crate) leaf: String,
}

fn signed(ledger: &Path) -> u64 {
    range::checkpoint(ledger).map_or(0, |checkpoint| checkpoint.size)
}

/// What the cursor of a receiver says on disk.
fn cursor(place: &Place, name: &str) -> u64 {
    let path = place.dir.join(format!("data/forward/{name}.json"));
    let Ok(text) = std::fs::read_to_string(path) else {
        return 0;
    };
    let cursor: Value = serde_json::from_str(&text).unwrap();
    cursor["next"].as_u64().unwrap()
}

/// Asks for one path after the other until the gateway is gone.
async fn load(client: reqwest::Client, url: String) {
    for number in 0_u64.. {
        let answer = client.post(format!("{url}/{number}")).send().await;
        if !answer.is_ok_and(|answer| answer.status() == 200) {
            return;
        }
    }
}

/// What is to be seen of one receiver at the kills.
#[derive(Default)]
struct Watched {
    /// The cursor on disk after each kill: where the next run began.
    cursors: Vec<u64>,
}

impl Watched {
    /// A gateway was killed: nothing may be put down as acknowledged that is not.
    fn killed(&mut self, cursor: u64, acknowledged: &[u64]) {
        let end = acknowledged.iter().max().map_or(0, |index| index + 1);
        assert!(
            cursor <= end,
            "put down up to {cursor}, acknowledged to {end}"
        );
        assert!(self.cursors.last().is_none_or(|before| *before <= cursor));
        self.cursors.push(cursor);
    }

    /// Each entry in order; every repetition begins at a cursor, in the order of the kills, and has
    /// no more than what can be under way. Gives how many came twice.
    fn judge(&self, arrived: &[Arrived], under_way: u64) -> u64 {
        let (mut end, mut last, mut twice) = (0, None, 0);
        let mut kills = self.cursors.iter();
        for one in arrived {
            if last.map_or(0, |last| last + 1) != one.index {
                let begins = kills.any(|cursor| *cursor == one.index);
                assert!(begins, "{last:?} then {}: {:?}", one.index, self.cursors);
                assert!(one.index <= end, "{end} to {} are missing", one.index);
                assert!(end - one.index <= under_way, "{end} back to {}", one.index);
            }
            twice += u64::from(one.index < end);
            end = end.max(one.index + 1);
            last = Some(one.index);
        }
        twice
    }
}

/// The log's entries, as they should arrive.
fn expected(place: &Place, size: u64) -> Vec<String> {
    let reader = LogReader::open(&place.ledger()).unwrap();
    let leaves = reader.range(0..size).map(|entry| {
        let hash = leaf_hash(&entry.unwrap().1).0;
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    });
    leaves.collect()
}

/// What `curfew status` says of each receiver: what it has and what it lacks.
fn status(place: &Place) -> Vec<(u64, u64)> {
    let output = Process::new(env!("CARGO_BIN_EXE_curfew"))
        .args(["status", "--json", "--config"])
        .arg(place.dir.join("curfew.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    let followers = status["followers"].as_array().unwrap().iter();
    let told = |follower: &Value, field: &str| follower[field].as_u64().unwrap();
    followers
        .map(|follower| (told(follower, "has"), told(follower, "lacks")))
        .collect()
}

async fn stage(dir: &Path) -> (Place, Collector, Hub) {
    let place = Place::new(dir).await;
    let token = dir.join("token");
    std::fs::write(&token, "abc.def\n").unwrap();
    std::fs::set_permissions(token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let collector = Collector::start(&place).await;
    let hub = Hub::start(&place, &[]).await;
    let syslog = hub.forward("window = \"700ms\"\n").replace("siem", "hub");
    place.configure(&format!("{}{syslog}", collector.forward()));
    (place, collector, hub)
}

#[tokio::test(flavor = "multi_thread")]
async fn receivers_get_every_signed_entry_in_order_and_twice_only_what_was_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let (place, collector, hub) = stage(dir.path()).await;
    let ana = place.session("ana", "worker").await;
    let client = place.client(&ana.bearer);
    let (mut siem, mut window) = (Watched::default(), Watched::default());
    let rounds = (kills() / 8).max(6);
    for round in 0..rounds {
        let served = place.serve();
        let clients: Vec<_> = (0..4)
            .map(|number| {
                let url = place.url(&format!("/{round}/{number}"));
                tokio::spawn(load(client.clone(), url))
            })
            .collect();
        // Long enough for some checkpoints and windows; a spread of moments, the same in every run.
        tokio::time::sleep(Duration::from_millis(1_500 + round * 379 % 1_000)).await;
        served.kill();
        // Nothing is put down any more, and what is acknowledged only grows.
        siem.killed(
            cursor(&place, "siem"),
            &collector.see(|seen| seen.acknowledged.clone()),
        );
        window.killed(
            cursor(&place, "hub"),
            &hub.see(|seen| seen.confirmed.clone()),
        );
        for client in clients {
            client.await.unwrap();
        }
        // What the dead one had sent is read before the next one sends.
        let start = Instant::now();
        while collector.see(|seen| seen.open) > 0 {
            assert!(
                start.elapsed() < LONG,
                "a connection of the dead stays open"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert!(
        siem.cursors[0] > 0 && window.cursors[0] > 0,
        "nothing was ever acknowledged"
    );

    let served = place.serve();
    let start = Instant::now();
    let size = LogReader::open(&place.ledger()).unwrap().size();
    loop {
        let told = status(&place);
        if told.iter().all(|(has, lacks)| *has >= size && *lacks == 0) {
            break;
        }
        assert!(start.elapsed() < LONG, "{told:?} of {size}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    served.kill();
    let leaves = expected(&place, size);
    let (taken, arrived) = (
        collector.see(|seen| seen.taken.clone()),
        hub.see(|seen| seen.arrived.clone()),
    );
    for (name, came, watched, under_way) in [
        ("siem", taken, siem, REQUEST),
        ("hub", arrived, window, WINDOW),
    ] {
        let twice = watched.judge(&came, under_way);
        let end = came.iter().map(|one| one.index + 1).max().unwrap();
        assert!(end >= size, "{name} ends at {end} of {size}");
        for one in came.iter().filter(|one| one.index < size) {
            let index = usize::try_from(one.index).unwrap();
            assert_eq!(one.leaf, leaves[index], "{name}: {index}");
        }
        println!("{name}: {rounds} kills, {size} entries, {twice} twice");
    }
}
