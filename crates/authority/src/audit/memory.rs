//! What an auditor knows, in a form that can be kept, so that it goes on where it stopped.
//!
//! Whoever keeps it must be trusted as much as the auditor: what is in it is not judged again.

use super::Auditor;

/// The form in which an auditor is kept. It changes with what an auditor knows, and with how it judges:
/// what an earlier one has judged need not be so for a later one.
pub const AUDITOR_FORM: u32 = 1;

/// Why nothing can be made of what was kept.
#[derive(Debug, thiserror::Error)]
#[error("this is not an auditor that was kept: {0}")]
pub struct RecallError(#[from] serde_json::Error);

impl Auditor {
    /// All that it knows, as one line of JSON; the same for the same entries.
    ///
    /// # Errors
    /// None that are known: all of it can be written as JSON.
    pub fn remember(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// One that goes on as the one that was kept would have.
    ///
    /// # Errors
    /// When it is not what [`Auditor::remember`] gave.
    pub fn recall(kept: &str) -> Result<Auditor, RecallError> {
        Ok(serde_json::from_str(kept)?)
    }
}
