//! What an auditor knows, in a form that can be kept, so that it goes on where it stopped.
//!
//! Whoever keeps it must be trusted as much as the auditor: what is in it is not judged again.

use curfew_entry::SessionsKept;
use serde::{Deserialize, Serialize};

use super::Auditor;
use crate::deadlines::Deadlines;

/// The form in which an auditor is kept. It changes with what an auditor knows, and with how it judges:
/// what an earlier one has judged need not be so for a later one.
pub const AUDITOR_FORM: u32 = 5;

/// Why nothing can be made of what was kept.
#[derive(Debug, thiserror::Error)]
pub enum RecallError {
    /// It is no auditor.
    #[error("this is not an auditor that was kept: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A later version kept it.
    #[error("a later version of Curfew kept it, in form {0}")]
    Later(u32),
}

/// An auditor that stands for entries that are gone.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Heir<T> {
    form: u32,
    auditor: T,
}

/// The form alone.
#[derive(Deserialize)]
struct Form {
    form: u32,
}

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
        let mut auditor: Auditor = serde_json::from_str(kept)?;
        auditor.deadlines = Deadlines::of(&auditor.authority);
        Ok(auditor)
    }

    /// All that it knows, to stand for the entries so far once they are gone. Every later version reads
    /// it: a field that is added to what an auditor knows has a default.
    ///
    /// # Errors
    /// None that are known: all of it can be written as JSON.
    pub fn bequeath(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Heir {
            form: AUDITOR_FORM,
            auditor: self,
        })
    }

    /// What [`Auditor::bequeath`] gave, in this or an earlier version.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn inherit(kept: &[u8]) -> Result<Auditor, RecallError> {
        let Form { form } = serde_json::from_slice(kept)?;
        if form > AUDITOR_FORM {
            return Err(RecallError::Later(form));
        }
        let mut auditor = serde_json::from_slice::<Heir<Auditor>>(kept)?.auditor;
        auditor.hand_over();
        auditor.deadlines = Deadlines::of(&auditor.authority);
        Ok(auditor)
    }

    /// Which sessions stand in what [`Auditor::bequeath`] wrote.
    ///
    /// # Errors
    /// The text of the [`RecallError`] that [`Auditor::inherit`] gives.
    pub fn sessions_kept(kept: &[u8]) -> Result<SessionsKept, String> {
        let auditor = Self::inherit(kept).map_err(|error| error.to_string())?;
        Ok(SessionsKept {
            live: auditor.authority().live(),
            ended: auditor.authority().lately_ended(),
        })
    }

    /// What it knew until form 3, and its authority knows since.
    fn hand_over(&mut self) {
        let permits = std::mem::take(&mut self.erase_permits);
        self.authority.adopt_erase_permits(permits);
        for (session, trace) in self.traces.iter_mut() {
            for (index, opened) in trace.take_connections() {
                self.authority.adopt_connection(session, index, opened);
            }
        }
    }
}
