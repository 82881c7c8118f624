//! A store on a disk in memory, and entries to fill it with.

use std::path::Path;
use std::sync::Arc;

use curfew_entry::{Commitment, Concealed, Field, SubjectName};
use curfew_ledger_faults::FaultyDisk;
use curfew_values::{Record, Shown, Store, ValuesError};

pub(crate) const DIR: &str = "/data/values";

pub(crate) fn name(text: &str) -> SubjectName {
    text.parse().unwrap()
}

pub(crate) fn value(index: u64) -> String {
    format!("/patients/{index}")
}

/// What entry `index` commits to in these tests.
pub(crate) fn concealed(index: u64) -> Concealed {
    let salt = [index as u8; 32];
    let commitment = Commitment::of(Field::Path, &salt, &value(index));
    Concealed::from([(Field::Path, commitment)])
}

pub(crate) fn open(disk: &FaultyDisk, size: u64) -> Result<Store, ValuesError> {
    Store::open(Arc::new(disk.clone()), Path::new(DIR), size)
}

pub(crate) fn stage(store: &Store, index: u64, subject: &str) -> Result<(), ValuesError> {
    let mut record = Record::default();
    record.push(Field::Path, [index as u8; 32], value(index));
    store.stage(index, &name(subject), &record)
}

/// What is shown of an entry's one value.
pub(crate) fn shown(store: &Store, index: u64) -> Shown {
    let mut fields = store.read(index, &concealed(index)).unwrap();
    assert_eq!(fields.len(), 1);
    fields.remove(0).1
}

pub(crate) fn told(index: u64) -> Shown {
    Shown::Value(value(index))
}
