//! A key that remembers what it has signed.

use std::path::Path;
use std::sync::Arc;

use curfew_ledger::guarded_signer::{GuardedSigner, GuardedSignerError, SignRefusal};
use curfew_ledger::merkle::CompactTree;
use curfew_ledger::{Checkpoint, Disk, Hash, LogKey, LogReader};
use curfew_ledger_faults::{Fault, FaultyDisk, Op};

use crate::common::{DIR, create, disk, entry, key, keys, options};

const STATE: &str = "/keep/signed";

/// A log of 300 entries whose tiles are there, and the text of its checkpoint at each size.
fn log() -> (FaultyDisk, Vec<String>) {
    let disk = disk();
    let log = create(&disk, options());
    log.fill(300);
    log.writer.close().unwrap();
    let mut tree = CompactTree::new();
    let text = |tree: &CompactTree| {
        Checkpoint {
            origin: "example.com/curfew".to_owned(),
            size: tree.size(),
            root: tree.root(),
        }
        .to_string()
    };
    let mut texts = vec![text(&tree)];
    for index in 0..300 {
        tree.push(curfew_ledger::merkle::leaf_hash(&entry(index)));
        texts.push(text(&tree));
    }
    (disk, texts)
}

fn proof(disk: &FaultyDisk, first: u64) -> Vec<Hash> {
    let reader = LogReader::open_on(Path::new(DIR), Arc::new(disk.clone())).unwrap();
    reader.consistency_proof(first, 300).unwrap()
}

fn signer(disk: &FaultyDisk) -> GuardedSigner {
    GuardedSigner::open(Arc::new(disk.clone()), Path::new(STATE), key()).unwrap()
}

#[test]
fn a_guarded_signer_signs_what_goes_on_from_what_it_signed_and_nothing_else() {
    let (disk, texts) = log();
    GuardedSigner::create(&disk, Path::new(STATE), &key(), None).unwrap();
    let signer = signer(&disk);
    let note = signer.sign(&texts[200], 0, &[]).unwrap();
    let signed = Checkpoint::verify(note.as_bytes(), &keys()).unwrap();
    assert_eq!((signed.size, signer.size()), (200, 200));

    // A rollback, a fork of the same size, a fork further on, a wrong start.
    let proof = proof(&disk, 200);
    let root = texts[200].lines().nth(2).unwrap();
    let fork = texts[200].replace(root, texts[201].lines().nth(2).unwrap());
    let longer_fork = texts[300].replace(texts[300].lines().nth(2).unwrap(), root);
    let shorter = signer.sign(&texts[199], 200, &[]);
    assert!(matches!(shorter, Err(SignRefusal::Shorter { .. })));
    let forked = signer.sign(&fork, 200, &[]);
    assert!(matches!(forked, Err(SignRefusal::Fork { signed: 200 })));
    for (text, proof) in [
        (&longer_fork, &proof[..]),
        (&texts[300], &proof[1..]),
        (&texts[300], &[]),
    ] {
        let forked = signer.sign(text, 200, proof);
        assert!(matches!(forked, Err(SignRefusal::Fork { signed: 200 })));
    }
    for old in [0, 199, 300] {
        let elsewhere = signer.sign(&texts[300], old, &proof);
        assert!(matches!(
            elsewhere,
            Err(SignRefusal::Elsewhere { size: 200 })
        ));
    }
    // What is not a plain checkpoint of this log.
    for text in [
        texts[300].replace("example.com/curfew", "example.com/other"),
        format!("{}more\n", texts[300]),
        "curfew signs this\n".to_owned(),
    ] {
        let refused = signer.sign(&text, 200, &proof);
        assert!(matches!(refused, Err(SignRefusal::Checkpoint(_))), "{text}");
    }
    // The same again is the same signature; and on it goes.
    assert_eq!(signer.sign(&texts[200], 200, &[]).unwrap(), note);
    signer.sign(&texts[300], 200, &proof).unwrap();
}

#[test]
fn a_guarded_signer_remembers_over_restarts_and_refuses_to_start_without_its_memory() {
    let (disk, texts) = log();
    let state = Path::new(STATE);
    let open = |key| GuardedSigner::open(Arc::new(disk.clone()), state, key).map(|_| ());
    assert!(matches!(
        open(key()),
        Err(GuardedSignerError::Missing { .. })
    ));
    GuardedSigner::create(&disk, state, &key(), None).unwrap();
    let again = GuardedSigner::create(&disk, state, &key(), None);
    assert!(matches!(
        again,
        Err(GuardedSignerError::AlreadyThere { .. })
    ));
    {
        let signer = signer(&disk);
        assert!(matches!(
            open(key()),
            Err(GuardedSignerError::Locked { .. })
        ));
        signer.sign(&texts[150], 0, &[]).unwrap();
    }
    assert_eq!(disk.permissions(state).unwrap() & 0o077, 0);
    assert_eq!(signer(&disk).size(), 150);
    let other = LogKey::from_seed("example.com/curfew", &[9; 32]).unwrap();
    assert!(matches!(
        open(other),
        Err(GuardedSignerError::Checkpoint { .. })
    ));

    // From a checkpoint that was signed before, when a log gets a signer later.
    let note = disk.files()[Path::new("/keep/last-signed")].clone();
    disk.remove_file(state).unwrap();
    GuardedSigner::create(&disk, state, &key(), Some(&note)).unwrap();
    assert_eq!(signer(&disk).size(), 300);
}

#[test]
fn what_could_not_be_remembered_is_not_given_away() {
    let (disk, texts) = log();
    GuardedSigner::create(&disk, Path::new(STATE), &key(), None).unwrap();
    let signer = signer(&disk);
    disk.set_plan(|op| {
        matches!(op, Op::Rename(_)).then_some(Fault::Fail(std::io::ErrorKind::StorageFull))
    });
    let refused = signer.sign(&texts[300], 0, &[]);
    assert!(matches!(refused, Err(SignRefusal::File(_))), "{refused:?}");
    assert_eq!(signer.size(), 0);
}
