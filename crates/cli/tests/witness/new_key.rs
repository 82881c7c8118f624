//! The log's key is changed while witnesses and a timestamping authority look on, as docs/witness.md
//! tells its operator; one of the witnesses is not told in time.

use std::cell::Cell;
use std::fs::File;
use std::path::{Path, PathBuf};

use curfew_entry::{Entry, Event};
use curfew_ledger::{LogReader, Published};
use serde_json::Value;

use crate::address::free_address;
use crate::kit::{Place, Running, Verified, curfew_with, done, set_up, verify, wait, witnessed};
use crate::tsa::{Tsa, is_missing};

/// The log, two witnesses who must both cosign, and an authority.
struct Stage {
    folder: tempfile::TempDir,
    north: Place,
    south: Place,
    first: String,
    _runtime: tokio::runtime::Runtime,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let tsa = Tsa::new(free_address());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(tsa.serve());
        std::fs::copy(tsa.root(), dir.join("tsa.pem")).unwrap();
        let stamps = format!(
            "[log.timestamp]\nurl = \"{}\"\nca = \"tsa.pem\"\ninterval = \"1s\"\n",
            tsa.url()
        );
        let first = set_up(dir, &stamps);
        let north = Place::new(dir, "north", 0, &first);
        let south = Place::new(dir, "south", 1, &first);
        let stage = Self {
            north,
            south,
            first,
            _runtime: runtime,
            folder,
        };
        std::fs::write(stage.path("witness.policy"), stage.policy(&[&stage.first])).unwrap();
        let add = ["user", "add", "ana", "--role", "clerk", "--password-stdin"];
        let added = stage.command_with(&add, "a long enough one 42\n");
        assert_eq!(added.code, 0, "{}", added.text);
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn ledger(&self) -> PathBuf {
        self.path("data/ledger")
    }

    /// A policy whose `log` lines name these keys.
    fn policy(&self, keys: &[&str]) -> String {
        let logs: String = keys.iter().map(|key| format!("log {key}\n")).collect();
        let (north, south) = (&self.north, &self.south);
        format!(
            "{logs}witness north {} http://{}\nwitness south {} http://{}\n\
             group both all north south\nquorum both\n",
            north.vkey, north.address, south.vkey, south.address
        )
    }

    fn command(&self, words: &[&str]) -> Verified {
        self.command_with(words, "")
    }

    fn command_with(&self, words: &[&str], input: &str) -> Verified {
        let config = self.path("curfew.toml");
        Verified::of(&curfew_with(words, &[("CURFEW_CONFIG", &config)], input))
    }

    /// The gateway, once it runs; what it has to say goes to `errors`.
    fn serve(&self) -> Running {
        let errors = File::create(self.path("errors")).unwrap();
        let config = self.path("curfew.toml");
        let serve = ["serve", "--config", config.to_str().unwrap()];
        let running = Running::telling(&serve, errors);
        // Before that a command would take up the data folder itself.
        wait(|| (self.command(&["status"]).code == 0).then_some(()));
        running
    }

    /// Waits until it has said this, and gives the line.
    fn said(&self, path: &Path, text: &str) -> String {
        wait(|| {
            let errors = std::fs::read_to_string(path).unwrap();
            let line = errors.lines().find(|line| line.contains(text))?;
            Some(line.to_owned())
        })
    }

    fn public_key(&self) -> String {
        let key = std::fs::read_to_string(self.path("data/keys/ledger.pub")).unwrap();
        key.trim().to_owned()
    }

    fn events(&self) -> Vec<Event> {
        let reader = LogReader::open(&self.ledger()).unwrap();
        let entries = reader.range(0..reader.size());
        entries
            .map(|entry| Entry::from_bytes(&entry.unwrap().1).unwrap().event)
            .collect()
    }

    /// What was noted last of the quorum: whether it was lost.
    fn lost(&self) -> Option<bool> {
        let told = |event: &Event| match event {
            Event::LogQuorumLost { .. } => Some(true),
            Event::LogQuorumMet { .. } => Some(false),
            _ => None,
        };
        self.events().iter().rev().find_map(told)
    }

    /// Waits until a checkpoint of more than `size` entries that both witnesses have cosigned is
    /// stamped. Gives its size.
    fn stamped(&self, size: u64) -> u64 {
        let log = Published::new(&self.ledger());
        let (disabled, poked) = (Cell::new(false), Cell::new(size));
        wait(|| {
            let newest = *log.timestamps().unwrap().last()?;
            let held = log.timestamp(newest).unwrap()?;
            let note = String::from_utf8(held.checkpoint).unwrap();
            let is_cosigned = ["north", "south"]
                .iter()
                .all(|name| note.contains(&format!("\u{2014} {name}.example ")));
            if newest > size && is_cosigned {
                return Some(newest);
            }
            if newest > poked.get() {
                // Stamped without them, where they took too long: the next one comes with the next entry.
                poked.set(newest);
                let how = if disabled.get() { "enable" } else { "disable" };
                disabled.set(!disabled.get());
                assert_eq!(self.command(&["user", how, "ana"]).code, 0);
            }
            None
        })
    }

    /// How an operator sees the witnesses: how far they are, and why no further.
    fn witnesses(&self) -> (u64, String) {
        let status = self.command(&["status", "--json"]);
        let status: Value = serde_json::from_str(&status.text).unwrap();
        let followers = status["followers"].as_array().unwrap();
        let found = followers.iter().find(|f| f["kind"] == "witnesses").unwrap();
        let error = found["failing"]["error"].as_str().unwrap_or_default();
        (found["has"].as_u64().unwrap(), error.to_owned())
    }

    /// Takes the receipt of an entry away.
    fn receipt(&self, index: u64, name: &str) -> PathBuf {
        let (path, ledger) = (self.path(name), self.ledger());
        let (index, out) = (index.to_string(), path.to_str().unwrap());
        let dir = ledger.to_str().unwrap();
        done(&["log", "receipt", &index, "--dir", dir, "--out", out]);
        path
    }

    fn checked(&self, receipt: &Path, more: &[&str]) -> Verified {
        let root = self.path("tsa.pem");
        let words = [
            "--receipt",
            receipt.to_str().unwrap(),
            "--tsa-ca",
            root.to_str().unwrap(),
        ];
        verify(&[&words, more].concat())
    }

    /// The whole log, with all that others say of it.
    fn verified(&self, more: &[&str]) -> Verified {
        let (root, ledger) = (self.path("tsa.pem"), self.ledger());
        let words = ["--tsa-ca", root.to_str().unwrap(), ledger.to_str().unwrap()];
        verify(&[&words, more].concat())
    }
}

fn change_keys(place: &Place, how: &str, key: &str) {
    done(&["witness", how, place.dir.to_str().unwrap(), key]);
}

#[test]
fn a_log_changes_its_key_under_the_eyes_of_its_witnesses() {
    if is_missing() {
        return;
    }
    let stage = Stage::new();
    let (north, south) = (stage.north.serve_telling(), stage.south.serve());
    let gateway = stage.serve();
    let before = stage.stamped(0);
    let old_receipt = stage.receipt(0, "before.tlog-proof");
    assert!(gateway.stop().success());
    drop(south);

    let second = announced(&stage);
    change_keys(&stage.south, "trust", &second);
    let _south = stage.south.serve();
    let rotated = stage.command(&["key", "rotate"]);
    assert_eq!(rotated.code, 0, "{}", rotated.text);
    let withdraw = format!("witness distrust DIR {}", stage.first);
    assert!(rotated.text.contains(&withdraw), "{}", rotated.text);
    assert_eq!(stage.public_key(), second);
    let place = |event: &Event| matches!(event, Event::LogKeyRotated { .. });
    let place = stage.events().iter().position(place).unwrap() as u64;
    assert!(place >= before);

    // `north` knows the old key alone: it refuses, which is told everywhere with what is to be done.
    let gateway = stage.serve();
    refused(&stage, place, &second);
    assert!(gateway.stop().success());
    partly(&stage, place);
    drop(north);
    change_keys(&stage.north, "trust", &second);
    let north = stage.north.serve();
    let gateway = stage.serve();
    stage.stamped(place + 1);
    wait(|| (stage.lost() == Some(false)).then_some(()));
    wait(|| stage.witnesses().1.is_empty().then_some(()));
    assert!(gateway.stop().success());

    // Withdrawn by one of them, the old key is needed no more.
    drop(north);
    change_keys(&stage.north, "distrust", &stage.first);
    let _north = stage.north.serve();
    let size = witnessed(&stage.ledger(), place);
    let gateway = stage.serve();
    witnessed(&stage.ledger(), size);
    assert!(gateway.stop().success());
    whole(&stage, &second);
    receipts(&stage, &old_receipt, place, &second);
}

/// The next key, which whoever must know it knows before it signs.
fn announced(stage: &Stage) -> String {
    let refused = stage.command(&["key", "rotate"]);
    assert_eq!(refused.code, 1, "{}", refused.text);
    assert!(
        refused.text.contains("curfew key prepare"),
        "{}",
        refused.text
    );
    let prepared = stage.command(&["key", "prepare"]);
    assert_eq!(prepared.code, 0, "{}", prepared.text);
    let second = prepared.text.lines().next().unwrap().to_owned();
    let (trust, line) = (
        format!("witness trust DIR {second}"),
        format!("Add the line `log {second}`"),
    );
    for wanted in [&trust, &line] {
        assert!(prepared.text.contains(wanted), "{}", prepared.text);
    }
    // The gateway would not start with its policy on witnesses as it is.
    let refused = stage.command(&["key", "rotate"]);
    assert_eq!(refused.code, 1, "{}", refused.text);
    assert!(refused.text.contains(&line), "{}", refused.text);
    assert_eq!(stage.public_key(), stage.first);
    let policy = stage.policy(&[&stage.first, &second]);
    std::fs::write(stage.path("witness.policy"), policy).unwrap();
    second
}

/// `north` does not know the key that signs from entry `place` on.
fn refused(stage: &Stage, place: u64, second: &str) {
    let told = "it does not know this key of the log (403 Forbidden";
    let told = stage.said(&stage.path("errors"), told);
    for wanted in ["north", &format!("let it know {second}")] {
        assert!(told.contains(wanted), "{told}");
    }
    let told = stage.said(&stage.north.dir.join("errors"), "refused to cosign");
    assert!(told.contains("must be told of it first"), "{told}");
    wait(|| (stage.lost() == Some(true)).then_some(()));
    let (has, error) = wait(|| Some(stage.witnesses()).filter(|(_, error)| !error.is_empty()));
    assert!(error.contains("north: it does not know"), "{error}");
    // What was cosigned under the old key is still known, and nothing later counts.
    assert!(0 < has && has <= place, "{has}");
    assert_eq!(witnessed(&stage.ledger(), 0), has);
}

/// While it is not witnessed by its new key, the log is proven to be witnessed as far as it was.
fn partly(stage: &Stage, place: u64) {
    let has = witnessed(&stage.ledger(), 0);
    assert!(has <= place);
    let policy = stage.path("witness.policy");
    let seen = verify(&[
        "--policy",
        policy.to_str().unwrap(),
        stage.ledger().to_str().unwrap(),
    ]);
    assert_eq!(seen.code, 0, "{}", seen.text);
    let wanted = format!("✓ quorum, {has} entries cosigned");
    assert!(seen.text.contains(&wanted), "{}", seen.text);
}

/// Whichever key is known, all of the log holds.
fn whole(stage: &Stage, second: &str) {
    let size = witnessed(&stage.ledger(), 0);
    let name = |keys: &[&str], name: &str| {
        let path = stage.path(name);
        std::fs::write(&path, stage.policy(keys)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let both = name(&[&stage.first, second], "both.policy");
    let none = name(&[], "none.policy");
    let from: [&[&str]; 5] = [
        &["--policy", &both],
        &["--policy", &name(&[&stage.first], "first.policy")],
        &["--policy", &name(&[second], "second.policy")],
        &["--policy", &none, "--key", &stage.first],
        &["--policy", &none, "--key", second],
    ];
    for words in from {
        let seen = stage.verified(words);
        assert_eq!(seen.code, 0, "{words:?}: {}", seen.text);
        let change = format!("from {} to {second}", stage.first);
        let quorum = format!("✓ quorum, {size} entries cosigned");
        for wanted in [change.as_str(), &quorum, "timestamps  ✓"] {
            assert!(seen.text.contains(wanted), "{wanted}: {}", seen.text);
        }
        assert!(!seen.text.contains("timestamps  ✗"), "{}", seen.text);
    }
}

/// Receipts from before the change, and of entries before and after it.
fn receipts(stage: &Stage, old_receipt: &Path, place: u64, second: &str) {
    let (both, none) = (stage.path("both.policy"), stage.path("none.policy"));
    let (both, none) = (both.to_str().unwrap(), none.to_str().unwrap());
    let early = stage.receipt(0, "early.tlog-proof");
    let change = stage.receipt(place, "change.tlog-proof");
    let late = stage.receipt(place + 1, "late.tlog-proof");
    let holds = |receipt: &Path, more: &[&str]| {
        let seen = stage.checked(receipt, more);
        assert_eq!(seen.code, 0, "{}", seen.text);
        for wanted in ["✓ quorum", "timestamped with", "timestamp   ✓"] {
            assert!(seen.text.contains(wanted), "{}", seen.text);
        }
    };
    for receipt in [old_receipt, &early, &change, &late] {
        holds(receipt, &["--policy", both]);
    }
    // By the one key that signed its checkpoint, the oldest that will do, and by no other.
    let first = stage.first.as_str();
    for (receipt, by, other) in [
        (old_receipt, first, second),
        (&early, first, second),
        (&change, second, first),
        (&late, second, first),
    ] {
        holds(receipt, &["--policy", none, "--key", by]);
        let refused = stage.checked(receipt, &["--policy", none, "--key", other]);
        assert_eq!(refused.code, 1, "{}", refused.text);
    }
}
