//! What is wrong or doubtful about a set-up, for the operator: where it stands, what it is, what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How grave a problem is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Curfew does not start with it.
    Error,
    /// It starts, and something will not work, or not for long.
    Warning,
}

/// Something about a set-up that is wrong or doubtful.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Problem {
    /// How grave it is.
    pub severity: Severity,
    /// The file, the key of the configuration, or the name of the resource.
    pub place: String,
    /// What is wrong there.
    pub what: String,
    /// What to do about it.
    pub fix: String,
}

impl Problem {
    /// One with which Curfew does not start.
    pub fn error(
        place: impl Into<String>,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Error,
            place: place.into(),
            what: what.into(),
            fix: fix.into(),
        }
    }

    /// One with which it starts.
    pub fn warning(
        place: impl Into<String>,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(place, what, fix)
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}
