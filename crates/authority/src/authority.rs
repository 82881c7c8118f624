//! The set of sessions and the one place where their state changes.

use crate::command::{Command, Decision};
use crate::event::Entry;
use crate::ids::{CredentialHash, SessionId, SubjectName};
use crate::limits::{Deadline, Limits};
use crate::session::{Credential, LiveSession, SessionView};
use crate::time::Timestamp;

/// All state that decides: policy, resources, accounts' standing, sessions, credentials.
#[derive(Clone, Debug, Default)]
pub struct Authority {}

impl Authority {
    /// The state before the first entry.
    pub fn new() -> Self {
        Self::default()
    }

    /// What would happen if `command` came at `now`. Changes nothing.
    pub fn decide(&self, _command: &Command, _now: Timestamp) -> Decision {
        todo!()
    }

    /// Lets one recorded entry take effect.
    pub fn apply(&mut self, _entry: &Entry) {
        todo!()
    }

    /// No later than the next moment at which a session runs out.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        todo!()
    }

    /// A live session by name.
    pub fn session(&self, _session: &SessionId) -> Option<&LiveSession> {
        todo!()
    }

    /// The live session's nearest deadline under these limits.
    pub fn deadline(&self, _session: &SessionId, _limits: &Limits) -> Option<Deadline> {
        todo!()
    }

    /// The session and credential that this hash presents, live or lately ended.
    pub fn credential(&self, _hash: &CredentialHash) -> Option<(&SessionId, &Credential)> {
        todo!()
    }

    /// The credentials for databases that this subject could present for `audience` now.
    pub fn database_credentials(
        &self,
        _subject: &SubjectName,
        _audience: &crate::ids::ResourceName,
        _now: Timestamp,
    ) -> Vec<(&SessionId, &Credential)> {
        todo!()
    }

    /// All live sessions, in order of start.
    pub fn live(&self) -> Vec<SessionView> {
        todo!()
    }
}
