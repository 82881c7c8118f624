//! A log with three witnesses: one is killed and comes back from an old copy, one never comes. Then
//! whoever holds key and disk rewrites the log, and is found out.

use std::path::Path;
use std::sync::Arc;

use curfew_ledger::{
    AppendError, Checkpoint, LogKey, LogReader, Observer, Options, Published, RealDisk, Receipt,
    VerifierKey, WriteError, Writer,
};

use crate::kit::{Place, Running, curfew, done, set_up, verify, witnessed};

#[test]
fn a_witnessed_log_cannot_be_rewritten_even_by_whoever_has_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let log = set_up(dir, "");
    let north = Place::new(dir, "north", 0, &log);
    let south = Place::new(dir, "south", 1, &log);
    let east = Place::new(dir, "east", 0, &log);
    let mut text = format!("log {log}\n");
    for (name, place) in [("north", &north), ("south", &south), ("east", &east)] {
        text += &format!("witness {name} {} http://{}\n", place.vkey, place.address);
    }
    text += "group two 2 north south east\nquorum two\n";
    let policy = dir.join("witness.policy");
    std::fs::write(&policy, text).unwrap();
    let policy = policy.to_str().unwrap();
    let ledger = dir.join("data/ledger");
    let ledger_text = ledger.to_str().unwrap();
    let config = dir.join("curfew.toml");
    let serve = ["serve", "--config", config.to_str().unwrap()];

    // `east` never comes.
    let (north_runs, _south_runs) = (north.serve(), south.serve());
    let gateway = Running::start(&serve);
    let first = witnessed(&ledger, 0);
    let (state, old) = north.state();
    // kill -9 for the gateway, which goes on, and then for `north`, which comes back as it was.
    drop(gateway);
    let gateway = Running::start(&serve);
    let second = witnessed(&ledger, first);
    drop(north_runs);
    std::fs::write(&state, &old).unwrap();
    let _north_runs = north.serve();
    drop(gateway);
    let gateway = Running::start(&serve);
    let third = witnessed(&ledger, second);
    assert_ne!(north.state().1, old);
    drop(gateway);

    let whole = verify(&["--policy", policy, ledger_text]);
    assert_eq!(whole.code, 0, "{}", whole.text);
    for wanted in ["✓ quorum", "by north (20", ", south (20", "missing: east"] {
        assert!(whole.text.contains(wanted), "{}", whole.text);
    }
    let strict = dir.join("strict.policy");
    let all = std::fs::read_to_string(policy)
        .unwrap()
        .replace(" 2 north", " all north");
    std::fs::write(&strict, all).unwrap();
    let strict = strict.to_str().unwrap();
    let unmet = verify(&["--policy", strict, ledger_text]);
    assert_eq!(unmet.code, 5, "{}", unmet.text);
    assert!(unmet.text.contains("✗ NO QUORUM"), "{}", unmet.text);

    receipts(dir, &ledger, policy, strict, third);
    rewritten(dir, &ledger, policy, &log);
}

/// Any entry can be proved without the log.
fn receipts(dir: &Path, ledger: &Path, policy: &str, strict: &str, size: u64) {
    let file = dir.join("one.tlog-proof");
    let (file, ledger) = (file.to_str().unwrap(), ledger.to_str().unwrap());
    for index in [0, size - 1] {
        let index = index.to_string();
        done(&["log", "receipt", &index, "--dir", ledger, "--out", file]);
        let proved = verify(&["--receipt", file, "--policy", policy]);
        assert_eq!(proved.code, 0, "{}", proved.text);
        assert!(proved.text.contains("witnessed with"), "{}", proved.text);
        assert!(proved.text.contains("\"kind\":\""), "{}", proved.text);
    }
    let json = done(&["log", "receipt", "0", "--dir", ledger, "--json"]);
    let given: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(given["reached"], "witnessed");
    assert_eq!(verify(&["--receipt", file, "--policy", strict]).code, 5);
    let mut receipt = Receipt::parse(&std::fs::read(file).unwrap()).unwrap();
    receipt.entry = Some(b"{}".to_vec());
    std::fs::write(file, receipt.to_string()).unwrap();
    let forged = verify(&["--receipt", file, "--policy", policy]);
    assert_eq!(forged.code, 1, "{}", forged.text);
    assert!(forged.text.contains("is another one"), "{}", forged.text);
    assert_eq!(
        verify(&["--receipt", "/nowhere", "--policy", policy]).code,
        4
    );
    assert_eq!(verify(&["--receipt", file, "--policy", "/nowhere"]).code, 2);
    let past = curfew(&["log", "receipt", "999999", "--dir", ledger]);
    assert_eq!(past.status.code(), Some(1));
}

struct Silent;

impl Observer for Silent {
    fn durable(&self, _: u64) {}
    fn failed(&self, _: u64, error: &WriteError) {
        panic!("{error}");
    }
}

/// A log of the same name, by the same key, that leaves the last entry but one out.
fn rewritten(dir: &Path, ledger: &Path, policy: &str, log: &str) {
    let key = LogKey::load(&dir.join("data/keys/ledger.key")).unwrap();
    let reader = LogReader::open(ledger).unwrap();
    let size = reader.size();
    let forged = dir.join("forged");
    let options = Options::new(&forged, dir.join("forged-guard"), key);
    let (writer, _) = Writer::create(options, Arc::new(RealDisk), Arc::new(Silent)).unwrap();
    for entry in reader.range(0..size) {
        let (index, bytes) = entry.unwrap();
        if index + 2 == size {
            continue;
        }
        while let Err(error) = writer.append(&bytes) {
            assert!(matches!(error, AppendError::Full), "{error}");
        }
    }
    writer.close().unwrap();
    let key = VerifierKey::parse(log).unwrap();
    let note = Published::new(&forged).checkpoint().unwrap().unwrap();
    assert!(
        Checkpoint::verify(&note, &[key]).is_ok(),
        "it is rightly signed"
    );
    let forged_text = forged.to_str().unwrap();
    // By itself it is whole; the witnesses have not cosigned it.
    let alone = verify(&["--key", log, forged_text]);
    assert_ne!(alone.code, 1, "{}", alone.text);
    let unwitnessed = verify(&["--policy", policy, forged_text]);
    assert!(
        unwitnessed.text.contains("✗ NO QUORUM"),
        "{}",
        unwitnessed.text
    );
    // What they cosigned does not fit it, be it shorter or of the same length.
    std::fs::copy(ledger.join("witnessed"), forged.join("witnessed")).unwrap();
    let cut = verify(&["--policy", policy, forged_text]);
    assert_eq!(cut.code, 1, "{}", cut.text);
    assert!(cut.text.contains("witnessed"), "{}", cut.text);
}
