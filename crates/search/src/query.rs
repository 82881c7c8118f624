//! What is looked for, and whether an entry is that.

use std::fmt::{self, Display};
use std::net::IpAddr;
use std::ops::Range;

use curfew_entry::{Entry, ResourceName, SessionId, SubjectName, Timestamp, Verb};

use sha2::{Digest, Sha256};

use crate::words::words_of_entry;

/// Entries in one answer where nothing is said.
pub const LIMIT_DEFAULT: usize = 100;

/// Entries in one answer at most. 1,000 of the usual 400 bytes are 0.4 MB.
pub const LIMIT_MAX: usize = 1_000;

/// In which order entries are given.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Order {
    /// From the end of the log backwards.
    #[default]
    Newest,
    /// From its beginning on.
    Oldest,
}

/// A kind of entry, or a family of them: `action.denied`, `action`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KindPattern(pub(crate) String);

impl Display for KindPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl KindPattern {
    fn takes(&self, kind: &str) -> bool {
        kind.strip_prefix(self.0.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

/// A checked question. Every field that is not empty must fit; of several values in one, any.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Query {
    /// Not before this moment.
    pub since: Option<Timestamp>,
    /// Before this moment.
    pub until: Option<Timestamp>,
    /// Who did it, or whom it is about.
    pub subjects: Vec<SubjectName>,
    /// In which session, or about which.
    pub sessions: Vec<SessionId>,
    /// To what.
    pub resources: Vec<ResourceName>,
    /// Which kind.
    pub kinds: Vec<KindPattern>,
    /// What was asked to be done.
    pub verbs: Vec<Verb>,
    /// From where.
    pub addresses: Vec<IpAddr>,
    /// Words that all occur in its texts, in lower case.
    pub words: Vec<String>,
    /// Below this index.
    pub before: Option<u64>,
    /// Above this index.
    pub after: Option<u64>,
    /// The order of the answer.
    pub order: Order,
    /// So many at most.
    pub limit: usize,
}

fn any<T>(wanted: &[T], fits: impl FnMut(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(fits)
}

impl Query {
    /// The question as the log keeps it. Words stand there by their number and the head of their
    /// SHA-256: people look for what must not stand in the log.
    #[must_use]
    pub fn recorded(&self) -> String {
        fn list<T: Display>(values: &[T]) -> Option<String> {
            let values: Vec<String> = values.iter().map(ToString::to_string).collect();
            (!values.is_empty()).then(|| values.join(","))
        }
        let words = (!self.words.is_empty()).then(|| {
            let hash = Sha256::digest(self.words.join(" "));
            let head: String = hash
                .iter()
                .take(8)
                .map(|byte| format!("{byte:02x}"))
                .collect();
            format!("{}:{head}", self.words.len())
        });
        let fields = [
            ("since", self.since.map(|at| at.to_string())),
            ("until", self.until.map(|at| at.to_string())),
            ("subject", list(&self.subjects)),
            ("session", list(&self.sessions)),
            ("resource", list(&self.resources)),
            ("kind", list(&self.kinds)),
            ("verb", list(&self.verbs)),
            ("address", list(&self.addresses)),
            ("words", words),
            ("before", self.before.map(|index| index.to_string())),
            ("after", self.after.map(|index| index.to_string())),
        ];
        let told: Vec<String> = fields
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", value?)))
            .collect();
        told.join(" ")
    }

    /// Whether an entry is wanted. `whose` says whose session it is.
    pub(crate) fn takes(
        &self,
        index: u64,
        bytes: &[u8],
        entry: &Entry,
        mut whose: impl FnMut(&SessionId) -> Option<SubjectName>,
    ) -> bool {
        let facets = entry.event.facets();
        let fits = self.indexes().contains(&index)
            && self.takes_time(entry.time)
            && any(&self.kinds, |kind| kind.takes(entry.event.kind()))
            && any(&self.verbs, |verb| facets.verb == Some(*verb))
            && any(&self.resources, |name| facets.resource == Some(name))
            && any(&self.addresses, |address| facets.address == Some(*address))
            && any(&self.sessions, |id| {
                facets.sessions().any(|named| named == id)
            });
        if !fits || !self.takes_words(bytes) {
            return false;
        }
        self.subjects.is_empty()
            || facets
                .subject
                .is_some_and(|name| self.subjects.contains(name))
            || facets
                .sessions()
                .any(|session| whose(session).is_some_and(|name| self.subjects.contains(&name)))
    }

    pub(crate) fn takes_time(&self, time: Timestamp) -> bool {
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time < until)
    }

    fn takes_words(&self, bytes: &[u8]) -> bool {
        if self.words.is_empty() {
            return true;
        }
        let mut missing: Vec<&String> = self.words.iter().collect();
        words_of_entry(bytes, &mut |word| missing.retain(|wanted| *wanted != word));
        missing.is_empty()
    }

    /// The indexes that the cursors leave.
    pub(crate) fn indexes(&self) -> Range<u64> {
        let start = self.after.map_or(0, |after| after.saturating_add(1));
        start..self.before.unwrap_or(u64::MAX).max(start)
    }
}
