//! Database passwords: made for one session and one database, shown once, gone with the session.

use curfew_entry::{Credential, CredentialClass, ResourceName, Timestamp, Verb};
use curfew_gate::{Command, NewCredential, Refusal, Verdict, secret};
use secrecy::{ExposeSecret, SecretString};

use super::Portal;
use super::viewer::{Access, Viewer};
use crate::Setup;

/// What a database client needs.
#[derive(Debug)]
pub(super) struct DatabasePassword {
    pub(super) user: String,
    pub(super) password: SecretString,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) database: ResourceName,
    pub(super) expires: Timestamp,
}

/// Why there is no password.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum NoPassword {
    /// There is no database of that name.
    Unknown,
    /// The database wants a fresh or stronger sign-in first.
    AfterSignIn,
    /// The session has as many credentials as it can.
    TooMany,
    /// The operating system gave no random bytes.
    Random,
    /// The registrar refused.
    Refused(Refusal),
}

impl From<Refusal> for NoPassword {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A new password for the session of `viewer`.
pub(super) async fn issue(
    portal: &Portal,
    viewer: &Viewer,
    name: &str,
) -> Result<DatabasePassword, NoPassword> {
    let setup = &portal.setup;
    let database = setup
        .databases
        .iter()
        .find(|database| database.name.as_str() == name)
        .ok_or(NoPassword::Unknown)?;
    match viewer
        .access(portal, Verb::SqlConnect, &database.name)
        .await?
    {
        Access::Open => {}
        Access::AfterSignIn => return Err(NoPassword::AfterSignIn),
        Access::Closed(Some(denial)) => return Err(Refusal::Denied(denial).into()),
        Access::Closed(None) => return Err(Refusal::Unauthenticated.into()),
    }
    let id = secret::credential_id().map_err(|_| NoPassword::Random)?;
    let password = setup.master.database_password(&id);
    let session = &viewer.session;
    // Idle time may be extended; neither of these can, without a new sign-in.
    let expires = setup
        .registrar
        .now()
        .saturating_add(setup.password_life)
        .min(session.started_at.saturating_add(session.limits.lifetime));
    let credential = Credential {
        id,
        class: CredentialClass::Database,
        hash: secret::hash(password.expose_secret()),
        audience: Some(database.name.clone()),
        expires: Some(expires),
    };
    let command = Command::IssueCredential(NewCredential {
        session: session.id.clone(),
        credential,
    });
    let verdict = setup.registrar.command(command).await?;
    issued(verdict)?;
    Ok(DatabasePassword {
        user: session.subject.to_string(),
        password,
        host: setup.site.portal.clone(),
        port: port(setup),
        database: database.name.clone(),
        expires,
    })
}

fn issued(verdict: Verdict) -> Result<(), NoPassword> {
    match verdict {
        Verdict::Done | Verdict::Allow(_) => Ok(()),
        Verdict::Ended { session, reason } => {
            Err(NoPassword::Refused(Refusal::Ended { session, reason }))
        }
        Verdict::Refused(curfew_gate::NotDone::TooManyCredentials(_)) => Err(NoPassword::TooMany),
        Verdict::Deny(denial) => Err(NoPassword::Refused(Refusal::Denied(denial))),
        Verdict::StepUp(_) => Err(NoPassword::AfterSignIn),
        Verdict::Unauthenticated | Verdict::Refused(_) => {
            Err(NoPassword::Refused(Refusal::Unauthenticated))
        }
    }
}

/// The port on which databases are reached.
pub(super) fn port(setup: &Setup) -> u16 {
    setup.postgres_port.unwrap_or_default()
}

impl DatabasePassword {
    /// The connection as psql takes it, without the password.
    pub(super) fn conninfo(&self) -> String {
        let Self {
            user,
            host,
            port,
            database,
            ..
        } = self;
        format!(
            "host={host} port={port} dbname={database} user={user} \
             sslmode=verify-full sslrootcert=system"
        )
    }
}
