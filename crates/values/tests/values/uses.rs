//! Keeping, reading, erasing.

use std::path::Path;
use std::sync::Arc;

use curfew_entry::{Commitment, Concealed, Field};
use curfew_ledger_faults::FaultyDisk;
use curfew_values::{Held, Reader, Shown};

use crate::kit::{DIR, concealed, name, open, shown, stage, told};

#[test]
fn values_are_shown_again_and_held_against_their_commitments() {
    let disk = FaultyDisk::new();
    let store = open(&disk, 0).unwrap();
    for index in [3, 4, 9] {
        stage(&store, index, "ada").unwrap();
    }
    store.flush().unwrap();
    store.durable(10);
    let store = open(&disk, 10).unwrap();
    for index in [3, 4, 9] {
        assert_eq!(shown(&store, index), told(index));
    }
    assert_eq!(shown(&store, 5), Shown::Missing);
    let other = Commitment::of(Field::Path, &[0; 32], "another");
    let wrong = store.read(4, &Concealed::from([(Field::Path, other)]));
    assert_eq!(wrong.unwrap(), [(Field::Path, Shown::Wrong)]);
}

#[test]
fn nothing_of_a_value_can_be_read_on_the_disk() {
    let disk = FaultyDisk::new();
    let store = open(&disk, 0).unwrap();
    stage(&store, 0, "ada").unwrap();
    store.flush().unwrap();
    let found = |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).any(|part| part == text);
    for (path, bytes) in disk.files() {
        assert!(!found(&bytes, b"patients"), "{}", path.display());
    }
}

#[test]
fn an_erased_subject_is_gone_and_others_and_later_values_are_not() {
    let disk = FaultyDisk::new();
    let store = open(&disk, 0).unwrap();
    for (index, subject) in [(0, "ada"), (1, "bob"), (2, "ada")] {
        stage(&store, index, subject).unwrap();
    }
    store.flush().unwrap();
    let keys_before = disk.files()[&Path::new(DIR).join("keys")][..512].to_vec();
    let condemned = store.condemn(&name("ada"), 5);
    assert_eq!(shown(&store, 0), Shown::Erased, "at once");
    stage(&store, 7, "ada").unwrap();
    let wiped = store.wipe(&condemned).unwrap();
    assert_eq!((wiped.keys, wiped.entries), (1, 2));
    store.flush().unwrap();
    let again = store.wipe(&condemned).unwrap();
    assert_eq!(again, wiped, "done again it says the same");
    let key = &keys_before[129..161];
    for (path, bytes) in disk.files() {
        let kept = bytes.windows(key.len()).any(|part| part == key);
        assert!(!kept, "the key is still in {}", path.display());
    }
    for store in [store, open(&disk, 8).unwrap()] {
        assert_eq!(shown(&store, 0), Shown::Erased);
        assert_eq!(shown(&store, 1), told(1));
        assert_eq!(shown(&store, 2), Shown::Erased);
        assert_eq!(shown(&store, 7), told(7), "a new key");
        let condemned = store.condemn(&name("ada"), 5);
        let wiped = store.wipe(&condemned).unwrap();
        assert_eq!((wiped.keys, wiped.entries), (1, 2), "as after a restart");
        assert_eq!(shown(&store, 7), told(7));
    }
}

#[test]
fn what_was_staged_and_not_flushed_when_its_subject_was_erased_is_erased() {
    let disk = FaultyDisk::new();
    let store = open(&disk, 0).unwrap();
    stage(&store, 0, "ada").unwrap();
    let condemned = store.condemn(&name("ada"), 1);
    store.flush().unwrap();
    store.wipe(&condemned).unwrap();
    assert_eq!(shown(&store, 0), Shown::Erased);
    assert_eq!(shown(&open(&disk, 1).unwrap(), 0), Shown::Erased);
}

#[test]
fn an_entry_that_was_not_taken_leaves_nothing() {
    let disk = FaultyDisk::new();
    let store = open(&disk, 0).unwrap();
    stage(&store, 0, "ada").unwrap();
    store.unstage(0);
    stage(&store, 0, "bob").unwrap();
    store.flush().unwrap();
    store.unstage(0);
    assert_eq!(shown(&store, 0), told(0), "flushed is flushed");
    let mut reader = Reader::open(Arc::new(disk.clone()), Path::new(DIR)).unwrap();
    let kept = reader.read(0, &concealed(0)).unwrap();
    assert_eq!(kept.subject, Some(name("bob")));
    assert_eq!(kept.fields, [(Field::Path, told(0))]);
    assert_eq!(reader.read(1, &concealed(1)).unwrap().subject, None);
}

#[test]
fn a_flipped_bit_never_shows_another_value() {
    let disk = FaultyDisk::new();
    let store = open(&disk, 0).unwrap();
    for index in 0..2 {
        stage(&store, index, "ada").unwrap();
    }
    store.flush().unwrap();
    for (path, whole) in disk.files() {
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            let disk = disk.copy();
            disk.put(&path, &changed);
            let store = open(&disk, 2).unwrap();
            let found = [shown(&store, 0), shown(&store, 1)];
            for (index, found) in (0..).zip(&found) {
                let fine = *found == told(index) || *found == Shown::Missing;
                assert!(fine, "{} {at}: {found:?}", path.display());
            }
            if path.extension().is_some() {
                // Damage to one record is stepped over.
                assert!(found.iter().any(|found| *found != Shown::Missing), "{at}");
            }
        }
    }
}

#[test]
fn whoever_reads_on_sees_what_came_since_and_nothing_that_was_erased_since() {
    let disk = FaultyDisk::new();
    let store = open(&disk, 0).unwrap();
    for index in [3, 5, 6] {
        let subject = if index == 6 { "ben" } else { "ann" };
        stage(&store, index, subject).unwrap();
        store.flush().unwrap();
    }
    store.durable(7);
    let mut held = Held::default();
    let mut read = |index| {
        let mut fields = store.read_on(&mut held, index, &concealed(index)).unwrap();
        fields.remove(0).1
    };
    assert_eq!(read(3), told(3));
    assert_eq!(read(4), Shown::Missing);
    stage(&store, 9, "ben").unwrap();
    store.flush().unwrap();
    let condemned = store.condemn(&name("ann"), 8);
    assert_eq!(read(5), Shown::Erased, "its file was read before");
    store.wipe(&condemned).unwrap();
    assert_eq!(read(5), Shown::Erased);
    assert_eq!(read(6), told(6));
    assert_eq!(read(9), told(9), "it was added to the same file");
    assert_eq!(read(10), Shown::Missing);
}
