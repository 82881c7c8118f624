//! Signed notes, keys and checkpoints.
#![allow(
    clippy::disallowed_methods,
    reason = "a test looks at what was written"
)]

use curfew_ledger::merkle::empty_root;
use curfew_ledger::note::{Note, NoteError};
use curfew_ledger::{Checkpoint, KeyError, LogKey, VerifierKey};
use std::os::unix::fs::PermissionsExt as _;

use crate::common;

/// The example of the Go implementation of signed notes (golang.org/x/mod/sumdb/note).
const VKEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const NOTE: &str = "If you think cryptography is the answer to your problem,\n\
    then you don't know what your problem is.\n\n\
    \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

#[test]
fn the_known_example_verifies() {
    let key = VerifierKey::parse(VKEY).unwrap();
    assert_eq!(key.to_string(), VKEY);
    Note::parse(NOTE.as_bytes()).unwrap().verify(&key).unwrap();
    let changed = NOTE.replace("answer", "Answer");
    let outcome = Note::parse(changed.as_bytes()).unwrap().verify(&key);
    assert_eq!(
        outcome,
        Err(NoteError::BadSignature {
            name: "PeterNeumann".into()
        })
    );
}

#[test]
fn the_key_of_a_known_log_is_read() {
    let text = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx";
    let key = VerifierKey::parse(text).unwrap();
    assert_eq!(
        (key.name(), key.to_string().as_str()),
        ("example.com/log/testdata", text)
    );
}

#[test]
fn bad_keys_are_refused() {
    let long = format!("{}{}", "n".repeat(300), &VKEY[12..]);
    for wrong in [
        "",
        "PeterNeumann",
        "PeterNeumann+c74f20a3",
        "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+C74F20A3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10T",
        "PeterNeumann+c74f20a3+AhpcIQcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "Peter Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        long.as_str(),
    ] {
        assert!(VerifierKey::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn malformed_notes_are_refused() {
    for wrong in [
        "",
        "\n\n",
        "text\n",
        "text\n\n",
        "text\n\nno dash\n",
        "text\n\n\u{2014} name\n",
        "text\n\n\u{2014} name AAAA\n",
        "text\n\n\u{2014} name AAAAAAAA",
        "te\txt\n\n\u{2014} name AAAAAAAA\n",
        "text\n\n\u{2014} na+me AAAAAAAA\n",
        "text\n\n\u{2014} name !!!!\n",
    ] {
        assert!(Note::parse(wrong.as_bytes()).is_err(), "{wrong:?}");
    }
    assert!(Note::parse(b"\xff\n\n").is_err());
    // Signatures of strangers are no fault, and no use.
    let stranger = Note::parse("text\n\n\u{2014} name AAAAAAAA\n".as_bytes()).unwrap();
    let key = VerifierKey::parse(VKEY).unwrap();
    assert_eq!(
        stranger.verify(&key),
        Err(NoteError::Unsigned {
            name: "PeterNeumann".into()
        })
    );
}

#[test]
fn checkpoints_have_one_form() {
    let checkpoint = Checkpoint {
        origin: "log".into(),
        size: 12,
        root: empty_root(),
    };
    let text = checkpoint.to_string();
    assert_eq!(Checkpoint::parse(&text), Ok(checkpoint));
    for (from, to) in [
        ("\n12\n", "\n012\n"),
        ("\n12\n", "\n+12\n"),
        ("log\n", "\n"),
        ("=\n", "="),
    ] {
        assert!(
            Checkpoint::parse(&text.replacen(from, to, 1)).is_err(),
            "{to:?}"
        );
    }
}

#[test]
fn key_files_are_for_their_owner() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.key");
    let key = LogKey::create(&path, "example.com/log").unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(LogKey::load(&path).unwrap().verifier(), key.verifier());
    assert!(!format!("{key:?}").contains(&std::fs::read_to_string(&path).unwrap()[33..]));

    let again = LogKey::create(&path, "example.com/log");
    assert!(matches!(again, Err(KeyError::File(_))), "never overwritten");
    for mode in [0o640, 0o604, 0o620, 0o644] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        assert!(
            matches!(LogKey::load(&path), Err(KeyError::Exposed { .. })),
            "{mode:o}"
        );
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&path, "curfew-log-key-1\nname\nAAAA\n").unwrap();
    assert!(matches!(
        LogKey::load(&path),
        Err(KeyError::Malformed { .. })
    ));
    assert!(matches!(
        LogKey::from_seed("a b", &[1; 32]),
        Err(KeyError::Name { .. })
    ));
}

#[test]
fn a_checkpoint_counts_only_under_its_own_name() {
    let disk = common::disk();
    let log = common::create(&disk, common::options());
    let note = log.writer.checkpoint().unwrap();
    let checkpoint = Checkpoint::verify(note.as_bytes(), &common::keys()).unwrap();
    assert_eq!((checkpoint.size, checkpoint.root), (0, empty_root()));
    let other = LogKey::from_seed("example.com/other", &[7; 32])
        .unwrap()
        .verifier();
    let outcome = Checkpoint::verify(note.as_bytes(), &[other]);
    assert!(matches!(outcome, Err(NoteError::Origin { .. })));
    let impostor = LogKey::from_seed("example.com/curfew", &[8; 32])
        .unwrap()
        .verifier();
    let outcome = Checkpoint::verify(note.as_bytes(), &[impostor]);
    assert!(matches!(outcome, Err(NoteError::Unsigned { .. })));
    assert!(Checkpoint::verify(note.as_bytes(), &[]).is_err());
}
