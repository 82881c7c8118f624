//! The changes of a log's key, for people and for programs.

use std::fmt;

use curfew_ledger::{KeyChain, Rotation};
use serde::Serialize;

/// Another key took the place of the one that signed.
#[derive(Clone, Debug, Serialize)]
pub struct KeyChange {
    /// The entry that tells of it, and number of entries that the old key has signed.
    pub entry: u64,
    /// The verifier key until then.
    pub old: String,
    /// The verifier key since.
    pub new: String,
}

impl KeyChange {
    fn of(rotation: &Rotation) -> Self {
        Self {
            entry: rotation.size,
            old: rotation.old.to_string(),
            new: rotation.new.to_string(),
        }
    }

    /// All of a log, in its order.
    pub(crate) fn all(keys: &KeyChain) -> Vec<Self> {
        keys.rotations().iter().map(Self::of).collect()
    }
}

impl fmt::Display for KeyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entry, old, new } = self;
        write!(f, "changed at entry {entry}, from {old} to {new}")
    }
}
