//! What is protected, and the verbs that can be done to it.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{EnvironmentName, ResourceName};

/// Something protected: a web app, an API, a database, or the gateway itself.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Resource {
    /// Its name, unique in a gateway. `gateway` is the gateway itself and always exists.
    pub name: ResourceName,
    /// The kind of traffic it takes.
    pub plane: Plane,
    /// The environment it belongs to.
    pub environment: EnvironmentName,
    /// Free words that policy can ask for with `resource.tags.contains("…")`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
}

impl Resource {
    /// The name of the gateway itself, and of the environment it is in where none is configured.
    pub const GATEWAY: &'static str = "gateway";

    /// The gateway itself, as it is where the configuration does not speak of it.
    pub fn gateway() -> Self {
        Self {
            name: ResourceName::gateway(),
            plane: Plane::Console,
            environment: EnvironmentName::gateway(),
            tags: BTreeSet::new(),
        }
    }
}

/// A kind of traffic Curfew speaks.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Plane {
    /// Web pages and HTTP APIs.
    Web,
    /// PostgreSQL's wire protocol.
    Postgres,
    /// Curfew's own pages and API.
    Console,
}

impl fmt::Display for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Web => "web",
            Self::Postgres => "postgres",
            Self::Console => "console",
        })
    }
}

/// What a session asks to do. In policy: `Action::"sql.write"`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Verb {
    /// Have a session at all: the gateway's own limits.
    #[serde(rename = "session.start")]
    SessionStart,
    /// A safe HTTP method (RFC 9110 section 9.2.1).
    #[serde(rename = "web.read")]
    WebRead,
    /// Any other HTTP method.
    #[serde(rename = "web.write")]
    WebWrite,
    /// Open a WebSocket.
    #[serde(rename = "web.connect")]
    WebConnect,
    /// Open a database connection.
    #[serde(rename = "sql.connect")]
    SqlConnect,
    /// A statement known to be read-only.
    #[serde(rename = "sql.read")]
    SqlRead,
    /// A statement that changes data, or is not known to be read-only.
    #[serde(rename = "sql.write")]
    SqlWrite,
    /// A statement that changes definitions, rights or the server.
    #[serde(rename = "sql.ddl")]
    SqlDdl,
    /// List live sessions.
    #[serde(rename = "session.list")]
    SessionList,
    /// End someone else's session.
    #[serde(rename = "session.end")]
    SessionEnd,
    /// Read the ledger.
    #[serde(rename = "log.read")]
    LogRead,
    /// See values that the ledger only commits to.
    #[serde(rename = "log.reveal")]
    LogReveal,
    /// Ask for, or approve, the erasure of values that the ledger only commits to.
    #[serde(rename = "log.erase")]
    LogErase,
}

impl Verb {
    /// Every verb, in the order of the schema.
    pub const ALL: [Self; 13] = [
        Self::SessionStart,
        Self::WebRead,
        Self::WebWrite,
        Self::WebConnect,
        Self::SqlConnect,
        Self::SqlRead,
        Self::SqlWrite,
        Self::SqlDdl,
        Self::SessionList,
        Self::SessionEnd,
        Self::LogRead,
        Self::LogReveal,
        Self::LogErase,
    ];

    /// The name policy and log use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SessionStart => "session.start",
            Self::WebRead => "web.read",
            Self::WebWrite => "web.write",
            Self::WebConnect => "web.connect",
            Self::SqlConnect => "sql.connect",
            Self::SqlRead => "sql.read",
            Self::SqlWrite => "sql.write",
            Self::SqlDdl => "sql.ddl",
            Self::SessionList => "session.list",
            Self::SessionEnd => "session.end",
            Self::LogRead => "log.read",
            Self::LogReveal => "log.reveal",
            Self::LogErase => "log.erase",
        }
    }

    /// The plane whose resources it can be done to. Verbs of the console are done to `gateway`.
    pub const fn plane(self) -> Plane {
        match self {
            Self::WebRead | Self::WebWrite | Self::WebConnect => Plane::Web,
            Self::SqlConnect | Self::SqlRead | Self::SqlWrite | Self::SqlDdl => Plane::Postgres,
            Self::SessionStart
            | Self::SessionList
            | Self::SessionEnd
            | Self::LogRead
            | Self::LogReveal
            | Self::LogErase => Plane::Console,
        }
    }

    /// Whether the record may be written while the action is already under way, its answer held
    /// back until the record is durable (DESIGN: writes wait for the record; for reads the
    /// answer waits).
    pub const fn is_read(self) -> bool {
        matches!(
            self,
            Self::WebRead | Self::SqlRead | Self::SessionList | Self::LogRead | Self::LogReveal
        )
    }
}

/// What the database account that a connection uses may do: the database refuses the rest, however a
/// statement reads. Ordered by reach.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountClass {
    /// Connect, and not even read tables.
    Connect,
    /// Read.
    Read,
    /// Change data.
    Write,
    /// Change definitions too.
    Ddl,
}

impl AccountClass {
    /// Every class, the least reach first.
    pub const ALL: [Self; 4] = [Self::Connect, Self::Read, Self::Write, Self::Ddl];

    /// The name in configuration and log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Read => "read",
            Self::Write => "write",
            Self::Ddl => "ddl",
        }
    }

    /// What policy must permit besides [`Verb::SqlConnect`] for a connection with such an account:
    /// all that the account can do.
    pub const fn verbs(self) -> &'static [Verb] {
        match self {
            Self::Connect => &[],
            Self::Read => &[Verb::SqlRead],
            Self::Write => &[Verb::SqlRead, Verb::SqlWrite],
            Self::Ddl => &[Verb::SqlRead, Verb::SqlWrite, Verb::SqlDdl],
        }
    }
}

impl fmt::Display for AccountClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
