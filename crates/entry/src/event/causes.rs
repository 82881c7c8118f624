//! Why something was refused, and why it ended: closed lists.

use serde::{Deserialize, Serialize};

use crate::limits::DeadlineCause;

/// Why a session ended. A closed list.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// No activity for too long.
    Idle,
    /// The authentication grew too old.
    Reauth,
    /// The session grew too old.
    Lifetime,
    /// The person signed out.
    SignedOut,
    /// An administrator ended it.
    EndedByAdmin,
    /// The identity provider signed the person out.
    IdpSignedOut,
    /// A shared signal ended it.
    SharedSignal,
    /// The risk grew too high.
    Risk,
    /// The account was disabled or removed.
    AccountDisabled,
    /// The subject had too many sessions.
    TooManySessions,
    /// A credential of the account changed.
    CredentialChanged,
    /// A refresh token was used twice.
    RefreshReused,
    /// A new policy no longer allows it.
    PolicyChanged,
    /// The gateway stopped for good.
    Shutdown,
}

impl EndReason {
    /// Whether only a clock gives this reason.
    pub const fn is_clock(self) -> bool {
        matches!(self, Self::Idle | Self::Reauth | Self::Lifetime)
    }
}

impl From<DeadlineCause> for EndReason {
    fn from(cause: DeadlineCause) -> Self {
        match cause {
            DeadlineCause::Idle => Self::Idle,
            DeadlineCause::Reauth => Self::Reauth,
            DeadlineCause::Lifetime => Self::Lifetime,
        }
    }
}

/// Why a sign-in was refused.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCause {
    /// No such account.
    UnknownAccount,
    /// The password is wrong.
    WrongPassword,
    /// The one-time code is wrong.
    WrongCode,
    /// The one-time code was used before.
    CodeReused,
    /// The account is disabled.
    Disabled,
    /// Too many attempts; not even looked at.
    TooManyAttempts,
    /// No rule permits a session.
    NotPermitted,
    /// The authentication is too weak or too old for the session that policy permits.
    InsufficientProof,
}

/// Why an action was denied.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DenialCause {
    /// No rule permits it.
    NotPermitted,
    /// A rule forbids it.
    Forbidden,
    /// The session is older than the resource allows; only a new session helps.
    TooOld,
    /// The credential is for another resource, or the verb cannot be done to this kind of resource.
    WrongAudience,
    /// The resource is not known.
    UnknownResource,
}

/// Why a credential of a live session opens nothing.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialFault {
    /// It was taken back, or replaced at a re-authentication.
    Revoked,
    /// Its own time is over.
    Expired,
    /// It was presented as something it is not, or on a plane that takes no such credential.
    WrongClass,
    /// It is for another resource.
    WrongAudience,
}
