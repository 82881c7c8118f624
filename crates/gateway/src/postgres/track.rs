//! What is under way upstream, and what the client's names stand for.
//!
//! PostgreSQL answers in order, so a queue of what was sent says what each answer belongs to. That
//! is how an answer finds the permit it must wait for, how a refusal of ours takes its place among
//! pipelined answers, and how a name is known to stand for the statement it really stands for.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::frame::Complaint;
use super::sql::{Class, Statement};
use crate::permit::{Busy, Permit};

/// Messages sent and not yet answered. Beyond this the client is not read. A server holds back up
/// to 8 KiB of answers of at least 5 bytes until a Sync; 16,384 of them are ten times as much, so
/// waiting here never waits for a Sync that is still in the client.
pub(crate) const OUTSTANDING_MAX: usize = 16_384;
/// Prepared statements and portals a connection may have: 8,192 × about 300 bytes are 2.4 MB.
const NAMES_MAX: usize = 8_192;
/// PostgreSQL's names end after 63 bytes, silently.
const NAME_BYTES: usize = 63;
/// Permits kept for portals that may give more rows; beyond, such a portal asks anew.
const SUSPENDED_MAX: usize = 256;

/// A statement or portal that a name may stand for.
#[derive(Clone, Debug)]
struct Meaning {
    /// Rises with each message that gives a meaning.
    id: u64,
    /// In which run between two Syncs it was sent.
    segment: u64,
    /// The server has said yes to it.
    settled: bool,
    statement: Arc<Statement>,
}

/// What a kind of names stands for.
#[derive(Debug, Default)]
struct Names(HashMap<Box<[u8]>, Vec<Meaning>>);

/// A name as the server keeps it.
fn key(name: &[u8]) -> &[u8] {
    name.get(..NAME_BYTES).unwrap_or(name)
}

impl Names {
    fn add(&mut self, name: &[u8], meaning: Meaning) -> bool {
        let name = key(name);
        if let Some(meanings) = self.0.get_mut(name) {
            meanings.push(meaning);
            return true;
        }
        let has_room = self.0.len() < NAMES_MAX;
        if has_room {
            self.0.insert(name.into(), vec![meaning]);
        }
        has_room
    }

    /// Makes room by forgetting the oldest name that may be forgotten: what is not known counts
    /// as a write, so nothing that is more than that. Clients that deallocate by SQL need this.
    fn make_room(&mut self) {
        if self.0.len() < NAMES_MAX {
            return;
        }
        let forgettable = |meanings: &Vec<Meaning>| {
            meanings
                .iter()
                .all(|meaning| meaning.settled && meaning.statement.class < Class::Ddl)
        };
        let oldest = self
            .0
            .iter()
            .filter(|(_, meanings)| forgettable(meanings))
            .min_by_key(|(_, meanings)| meanings.last().map(|meaning| meaning.id))
            .map(|(name, _)| name.clone());
        if let Some(oldest) = oldest {
            self.0.remove(&oldest);
        }
    }

    /// The server took it: whatever it stood for before is gone.
    fn settle(&mut self, name: &[u8], id: u64) {
        if let Some(meanings) = self.0.get_mut(key(name)) {
            meanings.retain(|meaning| meaning.id >= id);
            for meaning in meanings.iter_mut().filter(|meaning| meaning.id == id) {
                meaning.settled = true;
            }
        }
    }

    /// The server did not take it.
    fn fail(&mut self, name: &[u8], id: u64) {
        self.forget(name, |meaning| meaning.id == id);
    }

    /// The server closed the name; what was sent later stays.
    fn close(&mut self, name: &[u8], id: u64) {
        self.forget(name, |meaning| meaning.id < id);
    }

    fn forget(&mut self, name: &[u8], gone: impl Fn(&Meaning) -> bool) {
        let name = key(name);
        if let Some(meanings) = self.0.get_mut(name) {
            meanings.retain(|meaning| !gone(meaning));
            if meanings.is_empty() {
                self.0.remove(name);
            }
        }
    }

    /// What the name stands for when used in this segment: the highest of all it may.
    ///
    /// Within a segment the newest meaning holds: had the server not taken it, it would skip its
    /// use too. A meaning from an earlier segment that is not settled may have been skipped there.
    fn look(&self, name: &[u8], segment: u64) -> Option<&Meaning> {
        let meanings = self.0.get(key(name))?;
        let newest = meanings.last()?;
        if newest.settled || newest.segment == segment {
            return Some(newest);
        }
        let last_settled = meanings
            .iter()
            .rposition(|meaning| meaning.settled)
            .unwrap_or(0);
        let possible = meanings.get(last_settled..)?;
        possible
            .iter()
            .max_by_key(|meaning| meaning.statement.class)
    }
}

/// A statement under way, with what it rests on.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) permit: Permit,
    /// Holds the session active until the statement ends.
    _busy: Busy,
}

impl Running {
    /// What the person started and what is theirs until it ends.
    pub(crate) fn new(permit: Permit) -> Self {
        Self {
            _busy: permit.activity().busy(),
            permit,
        }
    }
}

/// What was sent, or put in the place of something sent, and waits for its answer.
#[derive(Debug)]
enum Sent {
    Query(Running),
    Execute {
        running: Running,
        meaning: u64,
    },
    Parse {
        name: Box<[u8]>,
        id: u64,
    },
    Bind {
        name: Box<[u8]>,
        id: u64,
    },
    Close {
        portal: bool,
        name: Box<[u8]>,
        id: u64,
    },
    Describe,
    Sync,
    /// CopyDone or CopyFail sent before the server said that it wants a copy.
    CopyEnd,
    /// Our own answer to a simple query that was refused: it is never sent upstream.
    Refused(Complaint),
    /// In the place of a refused message: something the server answers with an error, so that it
    /// skips to the next Sync as it does for errors of its own. Ours replaces its error.
    Poison(Complaint),
}

/// What becomes of a message of the server.
#[derive(Debug)]
pub(crate) enum Fate {
    /// It goes to the client.
    Pass,
    /// This goes to the client in its place.
    Replace(Complaint),
}

/// The state of one connection's protocol.
#[derive(Debug)]
pub(crate) struct Track {
    sent: VecDeque<Sent>,
    statements: Names,
    portals: Names,
    /// Permits of portals that have more rows, by the id of the portal's meaning.
    suspended: HashMap<u64, Permit>,
    segment: u64,
    next: u64,
    /// The server waits for the client's copy data.
    copying: bool,
    /// The transaction status of the newest ReadyForQuery.
    pub(crate) status: u8,
}

/// There are more names than a connection may have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct TooMany;

impl Track {
    pub(crate) fn new() -> Self {
        Self {
            sent: VecDeque::new(),
            statements: Names::default(),
            portals: Names::default(),
            suspended: HashMap::new(),
            segment: 0,
            next: 0,
            copying: false,
            status: b'I',
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.sent.len() >= OUTSTANDING_MAX
    }

    /// Whether every message has had its answer.
    pub(crate) fn is_idle(&self) -> bool {
        self.sent.is_empty()
    }

    /// Whether a statement is under way upstream.
    pub(crate) fn is_running(&self) -> bool {
        self.sent
            .iter()
            .any(|sent| matches!(sent, Sent::Query(_) | Sent::Execute { .. }))
    }

    /// Whether a ReadyForQuery is still to come for something sent.
    pub(crate) fn awaits_ready(&self) -> bool {
        self.sent
            .iter()
            .any(|sent| matches!(sent, Sent::Query(_) | Sent::Sync | Sent::Refused(_)))
    }

    /// The statement whose answer comes next.
    pub(crate) fn front(&self) -> Option<&Running> {
        match self.sent.front() {
            Some(Sent::Query(running) | Sent::Execute { running, .. }) => Some(running),
            _ => None,
        }
    }

    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    // What the client sends.

    pub(crate) fn query(&mut self, running: Running) {
        self.sent.push_back(Sent::Query(running));
    }

    pub(crate) fn execute(&mut self, running: Running, portal: &[u8]) {
        let meaning = self
            .portals
            .look(portal, self.segment)
            .map_or(0, |meaning| meaning.id);
        self.sent.push_back(Sent::Execute { running, meaning });
    }

    pub(crate) fn parse(&mut self, name: &[u8], statement: Arc<Statement>) -> Result<(), TooMany> {
        let id = self.id();
        let meaning = Meaning {
            id,
            segment: self.segment,
            settled: false,
            statement,
        };
        self.statements.make_room();
        if !self.statements.add(name, meaning) {
            return Err(TooMany);
        }
        self.sent.push_back(Sent::Parse {
            name: name.into(),
            id,
        });
        Ok(())
    }

    /// A `PREPARE` in a statement's text. Whether it worked is not known until something else is
    /// prepared under the name, so the highest meaning counts until then.
    pub(crate) fn prepare(&mut self, name: &str, statement: Arc<Statement>) -> Result<(), TooMany> {
        let id = self.id();
        // No use can be in segment 0 once this has been sent.
        let meaning = Meaning {
            id,
            segment: 0,
            settled: false,
            statement,
        };
        self.segment += u64::from(self.segment == 0);
        let already = self
            .statements
            .0
            .get(key(name.as_bytes()))
            .is_some_and(|meanings| {
                meanings
                    .iter()
                    .any(|known| known.statement.class >= meaning.statement.class)
            });
        self.statements.make_room();
        // A loop that prepares the same again does not pile up.
        if already || self.statements.add(name.as_bytes(), meaning) {
            Ok(())
        } else {
            Err(TooMany)
        }
    }

    pub(crate) fn bind(&mut self, portal: &[u8], statement: &[u8]) -> Result<(), TooMany> {
        let id = self.id();
        let found = self.statements.look(statement, self.segment);
        let statement = match found {
            Some(meaning) => Arc::clone(&meaning.statement),
            None => Arc::new(Statement::unknown()),
        };
        let meaning = Meaning {
            id,
            segment: self.segment,
            settled: false,
            statement,
        };
        if !self.portals.add(portal, meaning) {
            return Err(TooMany);
        }
        self.sent.push_back(Sent::Bind {
            name: portal.into(),
            id,
        });
        Ok(())
    }

    pub(crate) fn close(&mut self, portal: bool, name: &[u8]) {
        let id = self.id();
        self.sent.push_back(Sent::Close {
            portal,
            name: name.into(),
            id,
        });
    }

    pub(crate) fn describe(&mut self) {
        self.sent.push_back(Sent::Describe);
    }

    pub(crate) fn sync(&mut self) {
        // A server that takes in a copy does not answer a Sync.
        if !self.copying {
            self.sent.push_back(Sent::Sync);
        }
        self.segment += 1;
    }

    pub(crate) fn copy_end(&mut self) {
        if self.copying {
            self.copying = false;
        } else {
            self.sent.push_back(Sent::CopyEnd);
        }
    }

    pub(crate) fn refuse(&mut self, complaint: Complaint) {
        self.sent.push_back(Sent::Refused(complaint));
    }

    pub(crate) fn poison(&mut self, complaint: Complaint) {
        self.sent.push_back(Sent::Poison(complaint));
    }

    // What names stand for.

    /// The statement that this portal runs.
    pub(crate) fn portal(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        self.portals
            .look(name, self.segment)
            .map(|meaning| &meaning.statement)
    }

    /// The class of a prepared statement that is run by name. Unlike a portal's, it may have been
    /// prepared in the same text, or not have been prepared at all.
    pub(crate) fn prepared_class(&self, name: &str) -> Class {
        let meanings = self.statements.0.get(key(name.as_bytes()));
        let highest = meanings
            .into_iter()
            .flatten()
            .map(|meaning| meaning.statement.class)
            .max();
        highest.unwrap_or(Class::Write)
    }

    /// The class of what a `FETCH` from this name may run. A cursor that was declared by SQL has
    /// been asked for when it was declared.
    pub(crate) fn fetched_class(&self, name: &str) -> Class {
        let meanings = self.portals.0.get(key(name.as_bytes()));
        let highest = meanings
            .into_iter()
            .flatten()
            .map(|meaning| meaning.statement.class)
            .max();
        highest.unwrap_or(Class::Read)
    }

    /// The permit of this portal, where it has given some of its rows and may give more.
    pub(crate) fn resume(&mut self, portal: &[u8]) -> Option<Permit> {
        let id = self.portals.look(portal, self.segment)?.id;
        let permit = self.suspended.remove(&id)?;
        permit.cut().now().is_none().then_some(permit)
    }

    // What the server answers.

    /// Takes in that a message of this type begins. All of its answers must have been let through
    /// up to here.
    pub(crate) fn answer(&mut self, tag: u8) -> Fate {
        match tag {
            b'1' | b'2' | b'3' | b'n' | b'T' => self.pop_simple(tag),
            b'C' | b'I' | b's' => self.pop_execute(tag),
            b'E' => return self.error(),
            b'G' => self.copy_begins(),
            _ => {}
        }
        Fate::Pass
    }

    fn pop_simple(&mut self, tag: u8) {
        let fits = match self.sent.front() {
            Some(Sent::Parse { .. }) => tag == b'1',
            Some(Sent::Bind { .. }) => tag == b'2',
            Some(Sent::Close { .. }) => tag == b'3',
            Some(Sent::Describe) => matches!(tag, b'n' | b'T'),
            _ => false,
        };
        if !fits {
            return;
        }
        match self.sent.pop_front() {
            Some(Sent::Parse { name, id }) => self.statements.settle(&name, id),
            Some(Sent::Bind { name, id }) => self.portals.settle(&name, id),
            Some(Sent::Close {
                portal: true,
                name,
                id,
            }) => self.portals.close(&name, id),
            Some(Sent::Close {
                portal: false,
                name,
                id,
            }) => self.statements.close(&name, id),
            _ => {}
        }
    }

    fn pop_execute(&mut self, tag: u8) {
        if !matches!(self.sent.front(), Some(Sent::Execute { .. })) {
            return;
        }
        self.copying = false;
        if let Some(Sent::Execute { running, meaning }) = self.sent.pop_front()
            && tag == b's'
        {
            if self.suspended.len() >= SUSPENDED_MAX {
                self.suspended.clear();
            }
            self.suspended.insert(meaning, running.permit);
        }
    }

    fn error(&mut self) -> Fate {
        self.copying = false;
        let fate = match self.sent.front() {
            // The end of a query, and of a Sync, is its ReadyForQuery.
            Some(Sent::Query(_) | Sent::Sync) | None => return Fate::Pass,
            Some(Sent::Poison(complaint)) => Fate::Replace(complaint.clone()),
            Some(_) => Fate::Pass,
        };
        while let Some(sent) = self.sent.pop_front_if(|sent| !matches!(sent, Sent::Sync)) {
            self.skipped(sent);
        }
        fate
    }

    fn skipped(&mut self, sent: Sent) {
        match sent {
            Sent::Parse { name, id } => self.statements.fail(&name, id),
            Sent::Bind { name, id } => self.portals.fail(&name, id),
            Sent::Query(_)
            | Sent::Execute { .. }
            | Sent::Close { .. }
            | Sent::Describe
            | Sent::Sync
            | Sent::CopyEnd
            | Sent::Refused(_)
            | Sent::Poison(_) => {}
        }
    }

    /// The server wants a copy. Syncs that it reads before the copy's end it ignores.
    fn copy_begins(&mut self) {
        if let Some(end) = self
            .sent
            .iter()
            .position(|sent| matches!(sent, Sent::CopyEnd))
        {
            let mut at = 0;
            self.sent.retain(|sent| {
                at += 1;
                at - 1 > end || !matches!(sent, Sent::Sync | Sent::CopyEnd)
            });
        } else {
            self.copying = true;
            self.sent.retain(|sent| !matches!(sent, Sent::Sync));
        }
    }

    /// Takes in a ReadyForQuery with this status.
    pub(crate) fn ready(&mut self, status: u8) {
        self.status = status;
        self.copying = false;
        while let Some(sent) = self.sent.pop_front() {
            if matches!(sent, Sent::Query(_) | Sent::Sync) {
                break;
            }
            self.skipped(sent);
        }
        if status == b'I' {
            // Portals live no longer than their transaction.
            self.suspended.clear();
            self.portals.0.retain(|_, meanings| {
                meanings.retain(|meaning| !meaning.settled);
                !meanings.is_empty()
            });
        }
    }

    /// A refusal of ours whose turn it is.
    pub(crate) fn settle(&mut self) -> Option<Complaint> {
        while matches!(self.sent.front(), Some(Sent::CopyEnd)) {
            self.sent.pop_front();
        }
        match self.sent.front() {
            Some(Sent::Refused(_)) => match self.sent.pop_front() {
                Some(Sent::Refused(complaint)) => Some(complaint),
                _ => None,
            },
            _ => None,
        }
    }
}
