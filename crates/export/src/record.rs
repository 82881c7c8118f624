//! One neutral view of an entry, and the stream that makes it.
//!
//! An entry names its session and no more. The stream remembers whose sessions these are, so that
//! every record names its subject. Of a pruned log it begins with what stands for the entries that are
//! gone, which knows the sessions that lived then.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use curfew_entry::{Concealed, Entry, Field, SessionView, SessionsKept, Timestamp};
use curfew_ledger::merkle::leaf_hash;
use curfew_ledger::{FileError, Hash, LogReader};
use serde::{Deserialize, Serialize};

use crate::facts::{Class, Facts, Outcome, Severity};
use crate::kinds;
use crate::text::hex;

/// Sessions remembered after their end: late closes and uses after the end still name their
/// subject. 65,536 × about 200 bytes are 13 MB.
pub const ENDED_KEPT_MAX: usize = 65_536;

/// Open connections remembered a session, so that their end names the resource: as many as a
/// busy pool has. 1,024 × about 60 bytes are 60 kB.
const CONNECTIONS_KEPT_MAX: usize = 1_024;

/// Reads which sessions a pruned log knew from what stands for the entries that are gone:
/// `curfew_authority::Auditor::sessions_kept`. An argument, so that a reader of logs need not
/// build what decides.
pub type Recall = fn(&[u8]) -> Result<SessionsKept, String>;

/// Where a log comes from: the same for all its records.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Source {
    /// The origin of the log, such as `curfew.example.com/log`.
    pub origin: String,
    /// The name of this host in syslog and OTLP.
    pub host: String,
}

impl Source {
    /// The log of this origin. Its host is the first part of the origin, whatever machine reads it.
    pub fn of(origin: &str) -> Self {
        let host = origin.split('/').next().unwrap_or(origin).to_owned();
        let origin = origin.to_owned();
        Self { origin, host }
    }
}

/// An entry as the formats see it.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its index in the log.
    pub index: u64,
    /// Its leaf in the tree: with index and log this finds the proof.
    pub leaf: Hash,
    /// Its bytes as they stand in the log.
    pub bytes: Vec<u8>,
    /// Ledger time of the decision.
    pub time: Timestamp,
    /// What it says.
    pub facts: Facts,
}

impl Record {
    /// The entry as JSON text; empty where it is no UTF-8.
    pub fn entry(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap_or_default()
    }

    /// The leaf in lower-case hexadecimal.
    pub fn leaf_hex(&self) -> String {
        hex(&self.leaf.0)
    }

    /// The same without anything that came from outside: kind, time and severity, and where the
    /// entry is found.
    #[must_use]
    pub fn bare(&self) -> Self {
        let message = "the receiver refused this entry; it stands in the log";
        let facts = Facts::new(
            self.facts.kind,
            self.facts.class.clone(),
            self.facts.severity,
            message,
        );
        Self {
            index: self.index,
            leaf: self.leaf,
            bytes: Vec::new(),
            time: self.time,
            facts,
        }
    }

    /// A sentence that names the subject.
    pub fn message(&self) -> String {
        match &self.facts.subject {
            Some(subject) => format!("{subject}: {}", self.facts.message),
            None => self.facts.message.clone(),
        }
    }
}

/// Gives the texts to be shown for the concealed values of an entry with this index.
pub type Opener =
    dyn FnMut(u64, &Concealed) -> Result<Vec<(Field, String)>, String> + Send + 'static;

/// What is known of a session.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
struct Known {
    subject: String,
    roles: Vec<String>,
    address: Option<IpAddr>,
    network: Option<String>,
    /// Open connections, by the index of the entry that opened them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    connections: BTreeMap<u64, String>,
}

/// Turns entries into records, in order.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Stream {
    live: BTreeMap<String, Known>,
    ended: BTreeMap<String, Known>,
    /// The ended ones, the oldest first.
    order: VecDeque<String>,
    last: u64,
}

/// Why it is not known whose sessions those of a pruned log are.
#[derive(Debug, thiserror::Error)]
pub enum HorizonError {
    /// What stands for the pruned part cannot be read.
    #[error("the log's horizon cannot be read: {0}")]
    File(#[from] FileError),
    /// It says nothing that this version understands.
    #[error("the log's horizon: {0}")]
    Recall(String),
}

/// Where the kind stands: behind version and time (27 characters with their quotes).
const KIND_AT: usize = r#"{"v":1,"time":"2026-11-23T16:40:00.123456Z","#.len();

/// What stands between kind and verb of an action: `"session":"s_…",`.
const SESSION_CHARS: usize = r#""session":"s_000000000000000000000000","#.len();

/// Whether an entry changes what a stream remembers. Reads no more than a few bytes of it.
fn is_told(bytes: &[u8]) -> bool {
    let Some(rest) = bytes.get(KIND_AT..) else {
        return false;
    };
    let connects = |rest: &[u8]| {
        rest.get(SESSION_CHARS..).is_some_and(|rest| {
            rest.starts_with(br#""verb":"sql.connect""#)
                || rest.starts_with(br#""verb":"web.connect""#)
        })
    };
    rest.starts_with(br#""kind":"session.started""#)
        || rest.starts_with(br#""kind":"session.ended""#)
        || rest.starts_with(br#""kind":"action.closed""#)
        || rest
            .strip_prefix(br#""kind":"action.allowed","#)
            .is_some_and(connects)
}

impl Stream {
    /// A stream that knows no session yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A stream that knows the sessions which began before the first entry that `log` still has: those
    /// that lived there, and those that had ended within a day. The first entry of all: none.
    ///
    /// # Errors
    /// When what stands for the entries that are gone cannot be read.
    pub fn before(log: &LogReader, recall: Recall) -> Result<Self, HorizonError> {
        let mut stream = Self::new();
        if let Some(horizon) = log.prune_point()? {
            let kept = recall(horizon.state()).map_err(HorizonError::Recall)?;
            stream.inherit(kept);
        }
        Ok(stream)
    }

    fn inherit(&mut self, kept: SessionsKept) {
        for view in kept.live {
            let (session, known) = known(view);
            self.live.insert(session, known);
        }
        for view in kept.ended {
            let (session, known) = known(view);
            self.order.push_back(session.clone());
            self.ended.insert(session, known);
        }
        self.forget();
    }

    /// Takes note of an entry without making a record of it.
    pub fn learn(&mut self, index: u64, bytes: &[u8]) {
        if !is_told(bytes) {
            return;
        }
        if let Ok(entry) = Entry::from_bytes(bytes) {
            self.remember(index, &kinds::facts(&entry.event));
        }
    }

    /// The record of the next entry.
    pub fn record(&mut self, index: u64, bytes: Vec<u8>) -> Record {
        let entry = Entry::from_bytes(&bytes).map_err(|error| error.to_string());
        self.record_of(index, bytes, entry)
    }

    /// The same, with what `opener` has in the place of concealed values. The entry itself is given
    /// as it stands in the log.
    ///
    /// # Errors
    /// When `opener` cannot read what it has.
    pub fn revealed(
        &mut self,
        index: u64,
        bytes: Vec<u8>,
        opener: &mut Opener,
    ) -> Result<Record, String> {
        let mut entry = Entry::from_bytes(&bytes).map_err(|error| error.to_string());
        if let Some(action) = entry.as_mut().ok().and_then(|e| e.event.action_mut())
            && !action.concealed.is_empty()
        {
            for (field, text) in opener(index, &action.concealed)? {
                action.show(field, text);
            }
        }
        Ok(self.record_of(index, bytes, entry))
    }

    fn record_of(&mut self, index: u64, bytes: Vec<u8>, entry: Result<Entry, String>) -> Record {
        let leaf = leaf_hash(&bytes);
        let (time, mut facts) = match entry {
            Ok(entry) => (entry.time, kinds::facts(&entry.event)),
            // A ledger that holds anything else is for `curfew-verify` to judge; what it holds is
            // given on as it is.
            Err(problem) => (self.last_time(), unknown(&problem)),
        };
        self.last = time.as_micros();
        self.resolve(&mut facts);
        self.remember(index, &facts);
        Record {
            index,
            leaf,
            bytes,
            time,
            facts,
        }
    }

    fn last_time(&self) -> Timestamp {
        Timestamp::from_micros(self.last)
    }

    fn resolve(&self, facts: &mut Facts) {
        let Some(session) = &facts.session else {
            return;
        };
        let Some(known) = self.live.get(session).or_else(|| self.ended.get(session)) else {
            return;
        };
        if facts.subject.is_none() {
            facts.subject = Some(known.subject.clone());
            facts.roles.clone_from(&known.roles);
        }
        if facts.address.is_none() {
            facts.address = known.address;
            facts.network.clone_from(&known.network);
        }
        if facts.class == Class::Closed {
            let opened = facts.connection.as_ref();
            facts.resource = opened.and_then(|index| known.connections.get(index).cloned());
        }
    }

    /// Lets go of the sessions that ended first, where there are too many.
    fn forget(&mut self) {
        while self.order.len() > ENDED_KEPT_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.ended.remove(&oldest);
            }
        }
    }

    fn remember(&mut self, index: u64, facts: &Facts) {
        let Some(session) = &facts.session else {
            return;
        };
        match facts.kind {
            "session.started" => {
                let known = Known {
                    subject: facts.subject.clone().unwrap_or_default(),
                    roles: facts.roles.clone(),
                    address: facts.address,
                    network: facts.network.clone(),
                    connections: BTreeMap::new(),
                };
                self.live.insert(session.clone(), known);
            }
            "session.ended" => {
                if let Some(known) = self.live.remove(session) {
                    self.ended.insert(session.clone(), known);
                    self.order.push_back(session.clone());
                }
                self.forget();
            }
            "action.allowed" if matches!(facts.verb, Some("sql.connect" | "web.connect")) => {
                if let (Some(known), Some(resource)) = (self.live.get_mut(session), &facts.resource)
                {
                    known.connections.insert(index, resource.clone());
                    if known.connections.len() > CONNECTIONS_KEPT_MAX {
                        known.connections.pop_first();
                    }
                }
            }
            "action.closed" => {
                let known = match self.live.get_mut(session) {
                    Some(known) => Some(known),
                    None => self.ended.get_mut(session),
                };
                if let (Some(known), Some(opened)) = (known, &facts.connection) {
                    known.connections.remove(opened);
                }
            }
            _ => {}
        }
    }
}

/// The session's name, and what its start said of it. What it had open then, nobody has kept.
fn known(view: SessionView) -> (String, Known) {
    let known = Known {
        subject: view.subject.to_string(),
        roles: view.roles.iter().map(ToString::to_string).collect(),
        address: Some(view.context.address),
        network: Some(view.context.network),
        connections: BTreeMap::new(),
    };
    (view.session.to_string(), known)
}

fn unknown(problem: &str) -> Facts {
    let mut facts = Facts::new(
        "unknown",
        Class::Unknown,
        Severity::Medium,
        format!("an entry that this program does not know: {problem}"),
    );
    facts.outcome = Outcome::Failure;
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = include_str!("../../entry/tests/golden/entries.jsonl");

    #[test]
    fn every_kind_is_named_as_in_the_log() {
        let mut stream = Stream::new();
        for (index, line) in (0..).zip(GOLDEN.lines()) {
            let record = stream.record(index, line.as_bytes().to_vec());
            let json: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(json["kind"], record.facts.kind);
            assert_eq!(json["time"], record.time.to_string());
            for field in ["session", "verb", "path", "statement"] {
                let facts = &record.facts;
                let found = match field {
                    "session" => facts.session.clone(),
                    "verb" => facts.verb.map(str::to_owned),
                    "path" => facts.path.clone(),
                    _ => facts.statement.clone(),
                };
                let concealed = json["concealed"][field].as_str();
                let concealed = concealed.map(|hash| format!("commitment:{hash}"));
                let wanted = json[field].as_str().map(str::to_owned).or(concealed);
                assert_eq!(wanted, found, "{field} of {line}");
            }
        }
    }

    #[test]
    fn whose_session_it_is_is_known_from_its_start_until_long_after_its_end() {
        let mut stream = Stream::new();
        let mut learned = Stream::new();
        let mut seen = 0;
        for (index, line) in (0..).zip(GOLDEN.lines()) {
            learned.learn(index, line.as_bytes());
            let record = stream.record(index, line.as_bytes().to_vec());
            let started = index >= 8;
            let of_ann = record.facts.session.as_deref() == Some("s_00112233445566778899aabb");
            if started && of_ann {
                seen += 1;
                assert_eq!(record.facts.subject.as_deref(), Some("ann"), "{line}");
                assert!(record.facts.address.is_some());
            }
        }
        assert!(seen > 10);
        learned.last = stream.last;
        assert_eq!(learned, stream, "learning takes note of the same");
    }

    #[test]
    fn what_is_no_entry_is_given_on_as_unknown() {
        let mut stream = Stream::new();
        for bytes in [&b"\xff"[..], b"", br#"{"v":7,"kind":"future"}"#] {
            let record = stream.record(0, bytes.to_vec());
            assert_eq!(record.facts.class, Class::Unknown);
        }
    }

    #[test]
    fn the_end_of_a_connection_names_its_resource() {
        let mut stream = Stream::new();
        let started = GOLDEN.lines().nth(8).unwrap();
        let opened = r#"{"v":1,"time":"2026-11-23T16:40:00.000119Z","kind":"action.allowed","session":"s_00112233445566778899aabb","verb":"sql.connect","resource":"orders","rules":["r"]}"#;
        let closed = GOLDEN
            .lines()
            .find(|line| line.contains("action.closed"))
            .unwrap();
        stream.learn(0, started.as_bytes());
        stream.learn(41, opened.as_bytes());
        let record = stream.record(42, closed.as_bytes().to_vec());
        assert_eq!(record.facts.resource.as_deref(), Some("orders"));
    }

    #[test]
    fn sessions_from_before_a_horizon_are_known_whether_they_live_or_have_ended() {
        let lines: Vec<&str> = GOLDEN.lines().collect();
        let mut auditor = curfew_authority::Auditor::new();
        let mut ended = None;
        for (index, line) in (0..).zip(&lines) {
            let entry = Entry::from_bytes(line.as_bytes()).unwrap();
            auditor.check(index, &entry);
            ended = ended.or(auditor.authority().lately_ended().first().cloned());
            if ended.is_some() {
                break;
            }
        }
        let ended = ended.unwrap();
        let mut live = ended.clone();
        live.session = "s_0123456789abcdef01234567".parse().unwrap();
        let mut stream = Stream::new();
        stream.inherit(SessionsKept {
            live: vec![live.clone()],
            ended: vec![ended.clone()],
        });
        for view in [live, ended] {
            let entry = format!(
                r#"{{"v":1,"time":"2026-11-23T16:40:00.000114Z","kind":"credential.revoked","session":"{}","credential":"c_00112233445566778899aabb"}}"#,
                view.session
            );
            let facts = stream.record(50, entry.into_bytes()).facts;
            assert_eq!(facts.subject.as_deref(), Some("ann"));
            assert_eq!(facts.roles, ["admin", "dba"]);
            assert_eq!(facts.network.as_deref(), Some("office"));
        }
    }
}
