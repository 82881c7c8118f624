//! What witnesses have cosigned is taken from where the log is served.

use curfew_verify::ledger::cosignature::Algorithm;
use curfew_verify::ledger::note::Note;
use curfew_verify::ledger::{Cosigner, Published};

use crate::history::Log;
use crate::server::{Answer, Server};
use crate::{honest, verify};

/// When the witness cosigned, in seconds.
const SECONDS: u64 = 1_800_000_000;

fn witness(seed: u8) -> Cosigner {
    Cosigner::from_seed("north.example", Algorithm::Ed25519, &[seed; 32]).unwrap()
}

/// The log's newest checkpoint with the witness's signature.
fn cosigned(log: &Log, witness: &Cosigner) -> Vec<u8> {
    let note = Published::new(&log.dir()).checkpoint().unwrap().unwrap();
    let text = Note::parse(&note).unwrap().text().to_owned();
    let line = witness.cosign(&text, SECONDS).unwrap();
    [note, line.into_bytes()].concat()
}

#[test]
fn a_served_log_is_witnessed_by_what_is_served_beside_it() {
    let mut log = Log::new();
    log.grow(300);
    let early = cosigned(&log, &witness(1));
    let other = cosigned(&log, &witness(2));
    let old = std::fs::read(log.dir().join("checkpoint")).unwrap();
    log.grow(600);
    let late = cosigned(&log, &witness(1));
    let policy = tempfile::NamedTempFile::new().unwrap();
    let text = format!("witness north {}\nquorum north\n", witness(1).verifier());
    std::fs::write(policy.path(), text).unwrap();
    let policy = ["--policy", policy.path().to_str().unwrap()];
    let cases = [
        (
            Answer::ok(late.clone()),
            0,
            "✓ quorum, 600 entries cosigned by north",
        ),
        // The witnesses are a little behind.
        (
            Answer::ok(early.clone()),
            0,
            "✓ quorum, 300 entries cosigned by north",
        ),
        (Answer::status(404), 5, "NO QUORUM; missing: north"),
        // By another's key.
        (Answer::ok(other), 5, "NO QUORUM"),
        (Answer::ok(b"nonsense".to_vec()), 1, "witnessed"),
        (Answer::status(403), 4, "may not do `log.read`"),
    ];
    for (answer, wanted, told) in cases {
        let Answer { status, body, .. } = answer;
        let files = honest(&log);
        let server = Server::start(move |name| match name {
            "witnessed" => Answer {
                body: body.clone(),
                ..Answer::status(status)
            },
            name => files(name),
        });
        let (code, text) = verify(&log, &server.url(), &policy);
        assert_eq!(code, Some(wanted), "{text}");
        assert!(text.contains(told), "{told}: {text}");
        // Before the checkpoint, which is then over at least as much.
        assert_eq!(server.asked().first().unwrap(), "witnessed");
        // Nobody asks who does not need it.
        let server = Server::start(honest(&log));
        assert_eq!(verify(&log, &server.url(), &[]).0, Some(0));
        assert!(!server.asked().iter().any(|name| name == "witnessed"));
    }
    // What was cosigned is not there: the end was cut off.
    let files = honest(&log);
    let server = Server::start(move |name| match name {
        "witnessed" => Answer::ok(late.clone()),
        "checkpoint" => Answer::ok(old.clone()),
        name => files(name),
    });
    let (code, text) = verify(&log, &server.url(), &policy);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("the end was cut off"), "{text}");
}
