//! The bytes of an entry: one canonical JSON object, `v`, `time`, `kind`, then the kind's fields.

use serde::Deserialize;

use crate::event::{ActionDetail, DenialCause, ENTRY_BYTES_MAX, Entry, EntryError, Event};
use crate::ids::{ResourceName, RuleId, SessionId};
use crate::limits::{Aal, Deadline, Demands};
use crate::resource::Verb;
use crate::session::Context;
use crate::time::Timestamp;

/// The version of the entries this program writes and reads.
const VERSION: u64 = 1;

impl Entry {
    /// The canonical JSON form, without a line end.
    ///
    /// # Errors
    ///
    /// [`EntryError::TooLarge`] where it exceeds [`ENTRY_BYTES_MAX`]; what
    /// [`crate::Authority::decide`] gives never does.
    pub fn to_bytes(&self) -> Result<Vec<u8>, EntryError> {
        let mut bytes = Vec::with_capacity(512);
        self.write(&mut bytes)?;
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(EntryError::TooLarge(bytes.len()));
        }
        Ok(bytes)
    }

    fn write(&self, bytes: &mut Vec<u8>) -> Result<(), EntryError> {
        bytes.extend_from_slice(b"{\"v\":1,\"time\":");
        serde_json::to_writer(&mut *bytes, &self.time)?;
        let brace = bytes.len();
        serde_json::to_writer(&mut *bytes, &self.event)?;
        // The event is an object of its own: its opening brace becomes the comma.
        if let Some(byte) = bytes.get_mut(brace) {
            *byte = b',';
        }
        Ok(())
    }

    /// Reads the canonical form and no other.
    ///
    /// # Errors
    ///
    /// See [`EntryError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(EntryError::TooLarge(bytes.len()));
        }
        let entry = Self::read(bytes)?;
        let mut again = Vec::with_capacity(bytes.len());
        entry.write(&mut again)?;
        // This also refuses unknown and repeated fields, other orders, other spellings.
        if again != bytes {
            return Err(EntryError::NotCanonical);
        }
        Ok(entry)
    }

    fn read(bytes: &[u8]) -> Result<Self, EntryError> {
        if let Some(entry) = read_action(bytes) {
            return Ok(entry);
        }
        let head: Head = serde_json::from_slice(bytes)?;
        if head.v != VERSION {
            return Err(EntryError::Version(head.v));
        }
        let time = head.time.ok_or_else(|| missing("time"))?;
        // The event ignores the two fields before it.
        let event: Event = serde_json::from_slice(bytes)?;
        Ok(Self { time, event })
    }
}

#[derive(Deserialize)]
struct Head {
    v: u64,
    // Optional, so that an entry of a later version is told as such whatever it holds.
    time: Option<Timestamp>,
}

fn missing(field: &'static str) -> EntryError {
    EntryError::Malformed(serde::de::Error::missing_field(field))
}

/// The fields of the three kinds of action, as they stand side by side in the JSON.
///
/// Most entries of a ledger are actions. Serde reads a tagged and flattened enum by way of a
/// buffer; this reads the same in one pass, at three times the speed. What it lets through too
/// much, such as a field of another kind, the comparison with the canonical form refuses.
#[derive(Deserialize)]
struct Action {
    v: u64,
    time: Timestamp,
    session: SessionId,
    verb: Verb,
    resource: ResourceName,
    context: Option<Context>,
    connection: Option<u64>,
    method: Option<String>,
    path: Option<String>,
    statement: Option<String>,
    fingerprint: Option<String>,
    client: Option<String>,
    search: Option<String>,
    target: Option<SessionId>,
    #[serde(default)]
    passive: bool,
    #[serde(default)]
    rules: Vec<RuleId>,
    #[serde(default)]
    demands: Demands,
    passed: Option<Deadline>,
    need_aal: Option<Aal>,
    cause: Option<DenialCause>,
}

/// The three kinds that [`Action`] reads.
enum ActionKind {
    Allowed,
    SteppedUp,
    Denied,
}

/// Where the kind stands: behind version, time (27 characters) and the quotes around them.
const KIND_AT: usize = r#"{"v":1,"time":"2026-11-23T16:40:00.123456Z","#.len();

/// Reads an action; `None` for another kind, or where the plain way must say what is wrong.
fn read_action(bytes: &[u8]) -> Option<Entry> {
    let rest = bytes.get(KIND_AT..)?.strip_prefix(br#""kind":"action."#)?;
    let kind = if rest.starts_with(br#"allowed""#) {
        ActionKind::Allowed
    } else if rest.starts_with(br#"stepped_up""#) {
        ActionKind::SteppedUp
    } else if rest.starts_with(br#"denied""#) {
        ActionKind::Denied
    } else {
        return None;
    };
    let read: Action = serde_json::from_slice(bytes).ok()?;
    if read.v != VERSION {
        return None;
    }
    let session = read.session;
    let action = ActionDetail {
        verb: read.verb,
        resource: read.resource,
        context: read.context,
        connection: read.connection,
        method: read.method,
        path: read.path,
        statement: read.statement,
        fingerprint: read.fingerprint,
        client: read.client,
        search: read.search,
        target: read.target,
        passive: read.passive,
    };
    let rules = read.rules;
    let event = match kind {
        ActionKind::Allowed => Event::ActionAllowed {
            session,
            action,
            rules,
            demands: read.demands,
        },
        ActionKind::SteppedUp => Event::ActionSteppedUp {
            session,
            action,
            rules,
            passed: read.passed,
            assurance: read.need_aal,
        },
        ActionKind::Denied => Event::ActionDenied {
            session,
            action,
            cause: read.cause?,
            rules,
        },
    };
    Some(Entry {
        time: read.time,
        event,
    })
}
