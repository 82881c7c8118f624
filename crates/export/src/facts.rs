//! What an entry says, in terms that all formats share.

use std::net::IpAddr;

/// How grave an entry is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// The normal course of things.
    Informational,
    /// Worth a look when something else is odd.
    Low,
    /// Worth a look by itself.
    Medium,
    /// Somebody should look today.
    High,
    /// Somebody should look now.
    Critical,
}

impl Severity {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Informational => "informational",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// Whether what was tried came about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It did.
    Success,
    /// It did not.
    Failure,
}

impl Outcome {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }
}

/// What Curfew did about it, where it stood between somebody and something.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
    /// Let it through.
    Allowed,
    /// Asked for fresh or stronger authentication.
    Challenged,
    /// Kept it out.
    Blocked,
    /// Took back what had been given.
    Revoked,
}

impl Decision {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Challenged => "challenged",
            Self::Blocked => "blocked",
            Self::Revoked => "revoked",
        }
    }
}

/// What an entry is about: the class of event it becomes. One arm of `ocsf.rs` each.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Class {
    /// The log itself.
    Log(LogActivity),
    /// The gateway as a program.
    Application(ApplicationActivity),
    /// A thing that is managed: a policy, the resources.
    Entity {
        /// What it is.
        entity: Entity,
        /// Its name.
        name: String,
        /// What was done.
        activity: EntityActivity,
    },
    /// An account.
    Account(AccountActivity),
    /// Signing in, staying in, getting out.
    Authentication(AuthenticationActivity),
    /// A question to a resource; which kind of resource the verb says.
    Action,
    /// A connection that is over.
    Closed,
    /// Something that somebody should look at.
    Finding,
    /// Nothing this program knows.
    Unknown,
}

/// What happened to the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogActivity {
    /// It was begun, or takes entries again.
    Start,
    /// It takes no entries.
    Stop,
    /// Something in it was removed.
    Delete,
    /// A part of it was put away.
    Archive,
    /// A key or a file took the place of another.
    Rotate,
    /// Something else, in a word.
    Other(&'static str),
}

/// What happened to the gateway.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ApplicationActivity {
    /// It took up its work.
    Start,
    /// It ended its work.
    Stop,
    /// Something else, in a word.
    Other(&'static str),
}

/// What is managed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Entity {
    /// A policy.
    Policy,
    /// Something else, in a word.
    Other(&'static str),
}

/// What was done to a thing that is managed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EntityActivity {
    /// It is new.
    Create,
    /// It changed.
    Update,
    /// It is gone.
    Delete,
}

/// What was done to an account.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AccountActivity {
    /// It is new.
    Create,
    /// It works again.
    Enable,
    /// It works no more.
    Disable,
    /// Its password was set by somebody else.
    PasswordReset,
    /// It got another second factor.
    FactorSet,
}

/// What happened to a session or one of its credentials.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AuthenticationActivity {
    /// Somebody authenticated, or tried to.
    Logon,
    /// A session is over.
    Logoff,
    /// A credential was given out.
    Ticket,
    /// Something else, in a word.
    Other(&'static str),
}

/// Everything the formats need to know of an entry besides its bytes.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The entry's `kind`.
    pub kind: &'static str,
    /// What it is about.
    pub class: Class,
    /// How grave it is.
    pub severity: Severity,
    /// Whether it came about.
    pub outcome: Outcome,
    /// What Curfew did.
    pub decision: Option<Decision>,
    /// A sentence without the subject.
    pub message: String,
    /// Who it is about; resolved from the session where the entry does not name it.
    pub subject: Option<String>,
    /// The roles held.
    pub roles: Vec<String>,
    /// Which session.
    pub session: Option<String>,
    /// Which credential.
    pub credential: Option<String>,
    /// The kind of traffic.
    pub plane: Option<&'static str>,
    /// What was to be done.
    pub verb: Option<&'static str>,
    /// To what.
    pub resource: Option<String>,
    /// From where.
    pub address: Option<IpAddr>,
    /// The class of that network.
    pub network: Option<String>,
    /// The rules that decided.
    pub rules: Vec<String>,
    /// Why: a word of a closed list.
    pub reason: Option<String>,
    /// Who did it, where that is not the subject.
    pub by: Option<String>,
    /// The HTTP method.
    pub method: Option<String>,
    /// The path.
    pub path: Option<String>,
    /// The statement, without its literals.
    pub statement: Option<String>,
    /// The statement's fingerprint.
    pub fingerprint: Option<String>,
    /// What the client calls itself.
    pub client: Option<String>,
    /// The class of database account that a connection uses.
    pub account: Option<&'static str>,
    /// The index of the entry that opened the connection.
    pub connection: Option<u64>,
    /// When it had to be over, in microseconds since 1970.
    pub deadline_us: Option<u64>,
    /// How late it was, in microseconds.
    pub late_us: Option<u64>,
    /// Bytes from the client.
    pub bytes_in: Option<u64>,
    /// Bytes to the client.
    pub bytes_out: Option<u64>,
    /// Two factors were shown.
    pub mfa: Option<bool>,
}

impl Facts {
    /// The facts every entry has.
    pub(crate) fn new(
        kind: &'static str,
        class: Class,
        severity: Severity,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            class,
            severity,
            outcome: Outcome::Success,
            decision: None,
            message: message.into(),
            subject: None,
            roles: Vec::new(),
            session: None,
            credential: None,
            plane: None,
            verb: None,
            resource: None,
            address: None,
            network: None,
            rules: Vec::new(),
            reason: None,
            by: None,
            method: None,
            path: None,
            statement: None,
            fingerprint: None,
            client: None,
            account: None,
            connection: None,
            deadline_us: None,
            late_us: None,
            bytes_in: None,
            bytes_out: None,
            mfa: None,
        }
    }
}
