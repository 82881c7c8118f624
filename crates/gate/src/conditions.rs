//! What is not as it should be right now, and since when: told by whoever finds it, taken back by whoever
//! finds it well again, and shown by `curfew status`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use curfew_entry::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// What can be out of order.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The audit log takes no entries: nothing new is admitted.
    Recording,
    /// Nobody can sign in, and no account can be changed: their file fails.
    Accounts,
    /// Little room is left where the data is.
    Disk,
    /// Nobody keeps the wall clock in step with others.
    Clock,
    /// An erasure that was approved cannot be carried out.
    Erasing,
    /// Entries past their time cannot be given up.
    Retention,
    /// The search index stands still: searches read the log itself.
    Search,
    /// What was changed in the configuration, the policy or the certificate was not taken in.
    Reload,
}

impl Part {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recording => "recording",
            Self::Accounts => "accounts",
            Self::Disk => "disk",
            Self::Clock => "clock",
            Self::Erasing => "erasing",
            Self::Retention => "retention",
            Self::Search => "search",
            Self::Reload => "reload",
        }
    }
}

/// Something that is out of order.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Condition {
    /// What.
    pub part: Part,
    /// Since when that is known.
    pub since: Timestamp,
    /// In which way, for the operator of the host.
    pub text: String,
}

/// All that is out of order.
#[derive(Debug, Default)]
pub struct Conditions(Mutex<BTreeMap<Part, (Instant, String)>>);

impl Conditions {
    fn known(&self) -> MutexGuard<'_, BTreeMap<Part, (Instant, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is out of order, in this way. Since when it has been is kept.
    pub fn failed(&self, part: Part, text: impl Into<String>) {
        self.failed_at(Instant::now(), part, text.into());
    }

    fn failed_at(&self, at: Instant, part: Part, text: String) {
        let mut known = self.known();
        let since = known.get(&part).map_or(at, |(since, _)| *since);
        known.insert(part, (since, text));
    }

    /// It is in order.
    pub fn well(&self, part: Part) {
        self.known().remove(&part);
    }

    /// What came of a look at it.
    pub fn look<T, E: std::fmt::Display>(&self, part: Part, looked: &Result<T, E>) {
        match looked {
            Ok(_) => self.well(part),
            Err(error) => self.failed(part, error.to_string()),
        }
    }

    /// All of them, as ledger time `now` and this instant are the same moment.
    pub fn all(&self, (now, instant): (Timestamp, Instant)) -> Vec<Condition> {
        let known = self.known();
        let all = known.iter().map(|(part, (began, text))| {
            let passed = instant.saturating_duration_since(*began);
            Condition {
                part: *part,
                since: now.saturating_sub(Span::from_duration(passed)),
                text: text.clone(),
            }
        });
        all.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_counts_from_the_first_time_until_it_is_well_again() {
        let conditions = Conditions::default();
        let first = Instant::now();
        let moment = (
            Timestamp::from_micros(1_000_000_000),
            first + Duration::from_secs(60),
        );
        conditions.failed_at(first, Part::Disk, "full".to_owned());
        conditions.failed_at(moment.1, Part::Disk, "still full".to_owned());
        let all = conditions.all(moment);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].since.as_micros(), 940_000_000);
        assert_eq!(all[0].text, "still full");
        conditions.look(Part::Disk, &Ok::<_, String>(()));
        assert!(conditions.all(moment).is_empty());
    }
}
