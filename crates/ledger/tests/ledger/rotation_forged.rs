//! Rotations that do not hold, and keys that sign out of their turn.

use std::path::Path;
use std::sync::Arc;

use curfew_ledger::verify::{Failure, FailureKind, Report};
use curfew_ledger::{Checkpoint, LogKey, Options, Rotation, RotationError, VerifierKey};

use crate::common::*;
use crate::rotation::{checkpoint, entry_of, other, prove, twice};

pub(crate) fn kinds(failures: &[Failure]) -> Vec<FailureKind> {
    failures
        .iter()
        .map(|failure| failure.kind.clone())
        .collect()
}

/// A log by [`key`], entry 20 of which is `said(checkpoint)` and after which `by` signs. What is found
/// wrong with it by whoever knows the first key.
fn forged(
    said: impl Fn(&Checkpoint) -> String,
    by: &LogKey,
    upto: u64,
) -> Result<Report, Vec<Failure>> {
    let disk = disk();
    let log = create(&disk, options());
    log.fill(20);
    log.writer.close().unwrap();
    let newest = Checkpoint::verify(&checkpoint(&disk), &keys()).unwrap();
    let signers = Both(by.clone());
    let log = open(
        &disk,
        Options {
            signer: Arc::new(signers),
            ..options()
        },
    )
    .unwrap();
    for index in 20..upto {
        log.append(&entry(index));
    }
    log.append(&entry_of(&said(&newest)));
    log.acks.wait_durable(upto + 1);
    log.writer.close().unwrap();
    prove(&disk, &keys())
}

/// Signs by its key, and takes up what [`key`] has signed.
#[derive(Debug)]
pub(crate) struct Both(pub(crate) LogKey);

impl curfew_ledger::Signer for Both {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn verifiers(&self) -> Vec<VerifierKey> {
        vec![self.0.verifier(), key().verifier()]
    }

    fn sign_checkpoint(
        &self,
        checkpoint: &Checkpoint,
        extends: &dyn curfew_ledger::signer::Extends,
    ) -> Result<String, curfew_ledger::SignError> {
        self.0.sign_checkpoint(checkpoint, extends)
    }

    fn frame_nonces(&self, epoch: u64) -> Result<Vec<u64>, curfew_ledger::SignError> {
        self.0.frame_nonces(epoch)
    }
}

/// What is found wrong with an entry that says this.
fn found(said: &dyn Fn(&Checkpoint) -> String, by: &LogKey, upto: u64) -> Vec<FailureKind> {
    kinds(&forged(said, by, upto).unwrap_err())
}

fn has(kinds: &[FailureKind], is: fn(&RotationError) -> bool) -> bool {
    kinds
        .iter()
        .any(|kind| matches!(kind, FailureKind::Rotation(error) if is(error)))
}

fn honest(at: &Checkpoint) -> String {
    Rotation::sign(at, &key(), &other(8)).unwrap()
}

#[test]
fn a_rotation_that_does_not_hold_is_found() {
    let new = other(8);
    assert_eq!(forged(honest, &new, 20).unwrap().keys.rotations().len(), 1);

    // By one key only, whichever.
    for missing in [new.verifier(), key().verifier()] {
        let one = found(&|at| without(&honest(at), &missing), &new, 20);
        assert!(
            has(&one, |e| matches!(e, RotationError::Unsigned(_))),
            "{one:?}"
        );
    }
    // Signatures of other keys in their place.
    let wrong = found(&|at| honest(at).replace("\n20\n", "\n19\n"), &new, 20);
    assert!(
        has(&wrong, |e| matches!(e, RotationError::Unsigned(_))),
        "{wrong:?}"
    );
}

#[test]
fn a_rotation_over_something_else_than_stands_before_it_is_found() {
    let new = other(8);
    // Over another number of entries, other entries, or at another place.
    let size = |at: &Checkpoint| {
        Rotation::sign(
            &Checkpoint {
                size: 19,
                ..at.clone()
            },
            &key(),
            &new,
        )
    };
    let place = found(&|at| size(at).unwrap(), &new, 20);
    assert!(
        has(&place, |e| matches!(
            e,
            RotationError::Place {
                size: 19,
                index: 20
            }
        )),
        "{place:?}"
    );
    let late = found(&honest, &new, 22);
    assert!(
        has(&late, |e| matches!(
            e,
            RotationError::Place {
                size: 20,
                index: 22
            }
        )),
        "{late:?}"
    );
    let root = |at: &Checkpoint| {
        let root = curfew_ledger::Hash([3; 32]);
        Rotation::sign(&Checkpoint { root, ..at.clone() }, &key(), &new)
    };
    let root = found(&|at| root(at).unwrap(), &new, 20);
    assert!(
        has(&root, |e| matches!(e, RotationError::Root { .. })),
        "{root:?}"
    );
    // From a key that did not sign until then.
    let foreign = found(
        &|at| Rotation::sign(at, &other(7 + 2), &new).unwrap(),
        &new,
        20,
    );
    assert!(
        has(&foreign, |e| matches!(e, RotationError::NotInForce { .. })),
        "{foreign:?}"
    );
    // No statement at all.
    let none = found(&|_| "nothing of the sort".to_owned(), &new, 20);
    assert!(
        has(&none, |e| matches!(e, RotationError::Malformed(_))),
        "{none:?}"
    );
    // The old key signs on.
    let old = found(&honest, &key(), 20);
    assert!(
        old.iter().any(|kind| matches!(kind, FailureKind::Note(_))),
        "{old:?}"
    );
}

/// The note without the signature of this key.
pub(crate) fn without(note: &str, key: &VerifierKey) -> String {
    let lines = key.lines(&curfew_ledger::note::Note::parse(note.as_bytes()).unwrap());
    assert!(!lines.is_empty());
    note.replace(&lines, "")
}

#[test]
fn a_key_that_signs_out_of_its_turn_is_found_by_whoever_knows_any_of_them() {
    let (disk, keys) = twice();
    // The history of the first key, but for one checkpoint that is signed by the second.
    let new = other(8);
    let (theirs, _) = (disk.copy(), ());
    let path = Path::new("/log/checkpoints");
    let all = String::from_utf8(theirs.files()[path].clone()).unwrap();
    let note = all
        .split("checkpoint ")
        .nth(2)
        .unwrap()
        .split_once('\n')
        .unwrap()
        .1;
    let text = curfew_ledger::note::Note::parse(note.as_bytes())
        .unwrap()
        .text()
        .to_owned();
    assert!(text.contains("\n20\n"));
    let nothing = Checkpoint::parse(&text).unwrap();
    let forged = {
        use curfew_ledger::Signer as _;
        new.sign_checkpoint(&nothing, &Never).unwrap()
    };
    assert_eq!(forged.len(), note.len());
    theirs.put(path, all.replace(note, &forged).as_bytes());
    for key in &keys {
        let failures = prove(&theirs, std::slice::from_ref(key)).unwrap_err();
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert!(
            matches!(failures[0].kind, FailureKind::Note(_)),
            "{failures:?}"
        );
        assert!(failures[0].offset.is_some());
    }
}

struct Never;

impl curfew_ledger::signer::Extends for Never {
    fn consistency_proof(
        &self,
        _size: u64,
    ) -> Result<Vec<curfew_ledger::Hash>, curfew_ledger::ReadError> {
        Ok(Vec::new())
    }
}

#[test]
fn a_statement_is_no_checkpoint_and_has_one_form() {
    let at = Checkpoint {
        origin: "example.com/curfew".to_owned(),
        size: 7,
        root: curfew_ledger::Hash([1; 32]),
    };
    let (old, new) = (key(), other(8));
    let note = Rotation::sign(&at, &old, &new).unwrap();
    let rotation = Rotation::verify(note.as_bytes()).unwrap();
    assert_eq!((rotation.size, rotation.root), (at.size, at.root));
    for keys in [old.verifier(), new.verifier()] {
        assert!(Checkpoint::verify(note.as_bytes(), &[keys]).is_err());
    }
    assert!(Rotation::verify(old_note(&at).as_bytes()).is_err());
    let same = Rotation::sign(&at, &old, &old);
    assert_eq!(same, Err(RotationError::SameKey));
    let elsewhere = LogKey::from_seed("example.com/other", &[8; 32]).unwrap();
    let foreign = Rotation::sign(&at, &old, &elsewhere);
    assert!(matches!(foreign, Err(RotationError::Origin { .. })));
    for (from, to) in [("\n7\n", "\n07\n"), ("v1\n", "v2\n"), ("\n7\n", "\n7\n\n")] {
        let changed = note.replacen(from, to, 1);
        assert!(Rotation::verify(changed.as_bytes()).is_err(), "{changed}");
    }
}

fn old_note(at: &Checkpoint) -> String {
    use curfew_ledger::Signer as _;
    key().sign_checkpoint(at, &Never).unwrap()
}
