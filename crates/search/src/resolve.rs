//! Whose session it is, as the ledger says.

use std::collections::BTreeMap;
use std::time::Instant;

use curfew_entry::{Entry, Event, SessionId, SubjectName};
use curfew_ledger::{Fetch, LogReader};

use crate::index::Snapshot;
use crate::walk::first_with;

/// Entries between two looks at the time.
const LOOK_EVERY: u64 = 1_024;

/// What the start of a session reads like in an entry: what has not got this is none.
const START: &[u8] = br#""kind":"session.started""#;

/// Finds a session's start through the index and reads it in the ledger. What the index says is
/// only where to look.
pub(crate) fn lookup(
    seen: &Snapshot,
    fetch: &mut Fetch,
    session: &SessionId,
) -> Option<(u64, SubjectName)> {
    let term = seen.fields.start_term(session);
    let found = first_with(&seen.searcher, &seen.parts, term).ok()??;
    let bytes = fetch.entry(found.at, Some(found.place)).ok()?;
    started(&bytes)
        .filter(|(id, _)| id == session)
        .map(|(_, subject)| (found.at, subject))
}

/// The session that an entry starts, and whose it is.
pub(crate) fn started(bytes: &[u8]) -> Option<(SessionId, SubjectName)> {
    // Looked for first: reading an entry costs twenty times as much.
    let head = bytes.get(..bytes.len().min(80))?;
    head.windows(START.len()).find(|part| *part == START)?;
    let entry = Entry::from_bytes(bytes).ok()?;
    if let Event::SessionStarted {
        session, subject, ..
    } = entry.event
    {
        return Some((session, subject));
    }
    None
}

/// Looks up subjects of sessions for one search, each once.
pub(crate) struct Whose<'a> {
    pub(crate) log: &'a LogReader,
    pub(crate) seen: Option<&'a Snapshot>,
    pub(crate) fetch: &'a mut Fetch,
    /// Entries from here on are in no index.
    pub(crate) tail: u64,
    pub(crate) size: u64,
    pub(crate) until: Instant,
    known: BTreeMap<SessionId, Option<(u64, SubjectName)>>,
    tail_read: bool,
    /// Time ran out before it could be said whose session it is.
    pub(crate) undecided: bool,
}

impl<'a> Whose<'a> {
    pub(crate) fn new(
        log: &'a LogReader,
        seen: Option<&'a Snapshot>,
        fetch: &'a mut Fetch,
        tail: u64,
        size: u64,
        until: Instant,
    ) -> Self {
        Self {
            log,
            seen,
            fetch,
            tail,
            size,
            until,
            known: BTreeMap::new(),
            tail_read: false,
            undecided: false,
        }
    }

    /// Whose session it is, if the log says so before entry `at`.
    pub(crate) fn of(&mut self, session: &SessionId, at: u64) -> Option<SubjectName> {
        if !self.known.contains_key(session) {
            let found = self.seen.and_then(|seen| lookup(seen, self.fetch, session));
            if found.is_none() {
                self.read_tail();
            }
            if found.is_some() || !self.undecided {
                self.known.entry(session.clone()).or_insert(found);
            }
        }
        let (start, subject) = self.known.get(session)?.as_ref()?;
        (*start <= at).then(|| subject.clone())
    }

    /// Notes every session that starts where no index reaches.
    fn read_tail(&mut self) {
        if self.tail_read {
            return;
        }
        for next in self.log.range(self.tail..self.size) {
            let Ok((index, bytes)) = next else { break };
            if let Some((session, subject)) = started(&bytes) {
                self.known.entry(session).or_insert(Some((index, subject)));
            }
            if index % LOOK_EVERY == 0 && Instant::now() >= self.until {
                self.undecided = true;
                return;
            }
        }
        self.tail_read = true;
    }
}
