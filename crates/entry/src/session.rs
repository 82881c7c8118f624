//! A session: one subject's authenticated presence, its three clocks, and the credentials that
//! present it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::event::EndReason;
use crate::ids::{CredentialHash, CredentialId, ResourceName, RoleName, SessionId, SubjectName};
use crate::limits::{Aal, Deadline, DeadlineCause, Limits};
use crate::time::Timestamp;

/// The evidence of one authentication.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Proof {
    /// What was shown, as RFC 8176 `amr` values.
    pub amr: BTreeSet<Factor>,
    /// The assurance level reached. Missing evidence means the lowest.
    pub aal: Aal,
    /// When the person authenticated.
    pub at: Timestamp,
}

/// One authentication method (RFC 8176 section 2).
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Factor {
    /// A password.
    #[serde(rename = "pwd")]
    Password,
    /// A one-time password.
    #[serde(rename = "otp")]
    OneTimePassword,
}

/// Where a session is used from. Part of what policy sees.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Context {
    /// The client's address.
    pub address: IpAddr,
    /// The class of that network, such as `office`; `unknown` where none is configured.
    pub network: String,
}

/// What a credential is for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialClass {
    /// A cookie of one host.
    Cookie,
    /// A bearer token for APIs and the CLI.
    Bearer,
    /// A database password.
    Database,
}

/// One way to present a session. Only the hash of its secret is known here.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Credential {
    /// Its public name.
    pub id: CredentialId,
    /// What it is for.
    pub class: CredentialClass,
    /// SHA-256 of its secret.
    pub hash: CredentialHash,
    /// The one resource it opens; absent for a bearer token, which opens all web resources.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub audience: Option<ResourceName>,
    /// When it stops opening anything, if before the session's end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires: Option<Timestamp>,
}

/// A session that has started and not ended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LiveSession {
    /// Its public name.
    pub id: SessionId,
    /// Who.
    pub subject: SubjectName,
    /// The roles held since sign-in.
    pub roles: BTreeSet<RoleName>,
    /// The newest authentication.
    pub proof: Proof,
    /// From where it was started.
    pub context: Context,
    /// The gateway's limits: passing one ends the session.
    pub limits: Limits,
    /// Reset by nothing.
    pub started_at: Timestamp,
    /// Reset by re-authentication only.
    pub authenticated_at: Timestamp,
    /// Reset by activity and re-authentication.
    pub active_at: Timestamp,
}

impl LiveSession {
    /// The nearest moment at which one of `limits` runs out on this session's clocks.
    pub fn deadline(&self, limits: &Limits) -> Deadline {
        [
            (
                self.active_at.saturating_add(limits.idle),
                DeadlineCause::Idle,
            ),
            (
                self.authenticated_at.saturating_add(limits.reauth),
                DeadlineCause::Reauth,
            ),
            (
                self.started_at.saturating_add(limits.lifetime),
                DeadlineCause::Lifetime,
            ),
        ]
        .into_iter()
        .map(|(at, cause)| Deadline { at, cause })
        .min()
        .unwrap_or(Deadline {
            at: self.started_at,
            cause: DeadlineCause::Lifetime,
        })
    }

    /// What a re-authentication at `now` does to the clocks. Neither moves backwards, and an
    /// authentication in the future counts as of now.
    pub fn renew(&mut self, proof: &Proof, now: Timestamp) {
        self.authenticated_at = self.authenticated_at.max(proof.at.min(now));
        self.active_at = self.active_at.max(now);
        self.proof = proof.clone();
    }

    /// The moment the session itself ends, unless something happens before.
    pub fn end_deadline(&self) -> Deadline {
        self.deadline(&self.limits)
    }
}

/// A session as lists and the console show it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SessionView {
    /// Its public name.
    pub session: SessionId,
    /// Who.
    pub subject: SubjectName,
    /// The roles held.
    pub roles: BTreeSet<RoleName>,
    /// From where it was started.
    pub context: Context,
    /// How strong the newest authentication was.
    pub aal: Aal,
    /// When it started.
    pub started_at: Timestamp,
    /// When it last authenticated.
    pub authenticated_at: Timestamp,
    /// When it was last active.
    pub active_at: Timestamp,
    /// When it ends unless something happens before.
    pub deadline: Deadline,
    /// Set when the session is over.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended: Option<EndReason>,
}

/// The sessions that a pruned log still knows of.
#[derive(Clone, Debug, Default)]
pub struct SessionsKept {
    /// Those that lived when the entries before this point were given up.
    pub live: Vec<SessionView>,
    /// Those that had ended within the day before.
    pub ended: Vec<SessionView>,
}
