//! The auditor: replays entries and judges each by the same code that made it.

use crate::event::Entry;

/// Replays a ledger and finds what should not be there, or is missing.
#[derive(Debug, Default)]
pub struct Auditor {}

/// Something that is not as it must be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// The entry it is about.
    pub index: u64,
    /// What is wrong.
    pub kind: FindingKind,
    /// In a sentence.
    pub detail: String,
}

/// The kinds of finding.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FindingKind {
    /// An action outside a live session.
    OutsideSession,
}

impl Auditor {
    /// Judges the next entry.
    pub fn check(&mut self, _index: u64, _entry: &Entry) -> Vec<Finding> {
        todo!()
    }
}
