//! The operator's desk: what somebody with a shell on the host can do, through a Unix socket of
//! mode 0600 while the gateway runs, or directly while it does not.
//!
//! One JSON object a line each way.

mod accounts;

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use curfew_authority::{Command, EndCause, Policy};
use curfew_custody::progress::Reader;
use curfew_custody::standing::{self, Standing, Status};
use curfew_entry::{Actor, EndReason, RoleName, SessionId, SubjectName};
use curfew_gate::registrar::{NotCarriedOut, Refusal, Registrar};
use curfew_identity::Accounts;
use curfew_postgres::{Database, DatabaseStatus, Databases};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::gateway::Core;

/// One request or answer: a policy of 48 KiB, escaped, or a long list of sessions.
const LINE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How long an operator's command may take. Hashing a password takes a tenth of a second.
const OPERATION: Duration = Duration::from_secs(30);

/// What an operator can ask for.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Add an account. Answers with its enrolment.
    UserAdd {
        /// Its name.
        name: SubjectName,
        /// Its roles.
        roles: BTreeSet<RoleName>,
        /// Its password.
        password: Password,
    },
    /// Set a new password. The account's sessions end.
    UserPassword {
        /// Whose.
        name: SubjectName,
        /// The password.
        password: Password,
    },
    /// Make a new TOTP secret. The account's sessions end. Answers with the enrolment.
    UserTotp {
        /// Whose.
        name: SubjectName,
    },
    /// Disable an account. Its sessions end everywhere.
    UserDisable {
        /// Whose.
        name: SubjectName,
    },
    /// Enable an account again.
    UserEnable {
        /// Whose.
        name: SubjectName,
    },
    /// List all accounts.
    UserList,
    /// List all live sessions.
    SessionList,
    /// End a session.
    SessionEnd {
        /// Which.
        session: SessionId,
    },
    /// How the log and those who follow it stand. Of a gateway that runs alone.
    Status,
    /// Put a new policy text in force.
    PolicyLoad {
        /// What messages call the file.
        name: String,
        /// The Cedar text.
        text: String,
    },
}

/// A password on its way to be hashed. Never shown.
#[derive(Clone, Deserialize)]
#[serde(from = "String")]
pub struct Password(SecretString);

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

impl Serialize for Password {
    /// Only ever towards the socket.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose_secret())
    }
}

/// How everything stands, for the operator of the host.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct OperatorStatus {
    /// The log and those who follow it.
    #[serde(flatten)]
    pub status: Status,
    /// The databases.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub databases: Vec<DatabaseStatus>,
}

/// What came of it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done and recorded.
    Done,
    /// Done; this is shown once and kept nowhere.
    Enrolled {
        /// The `otpauth://` address, for a QR code.
        uri: String,
        /// The secret in base32, to type in.
        secret: String,
        /// What is doubtful about the account.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<String>,
    },
    /// All accounts, in order of name.
    Users(serde_json::Value),
    /// All live sessions, in order of start.
    Sessions(serde_json::Value),
    /// How everything stands.
    Status(Box<OperatorStatus>),
    /// Refused, with a text for the operator.
    Failed(String),
}

/// Where operations are carried out.
#[derive(Clone, Debug)]
pub struct Desk {
    registrar: Registrar,
    accounts: Arc<Accounts>,
    config: Arc<Config>,
    /// None where nothing runs.
    standing: Option<(Arc<Standing>, Databases)>,
}

impl Desk {
    pub(crate) fn new(registrar: &Registrar, accounts: &Arc<Accounts>, config: &Config) -> Self {
        Self {
            registrar: registrar.clone(),
            accounts: Arc::clone(accounts),
            config: Arc::new(config.clone()),
            standing: None,
        }
    }

    /// The same, of a gateway that runs.
    #[must_use]
    pub(crate) fn with(mut self, standing: Arc<Standing>, databases: Databases) -> Self {
        self.standing = Some((standing, databases));
        self
    }

    /// The desk of a gateway that does not run: operations go straight to ledger and accounts.
    pub fn offline(core: &Core, config: &Config) -> Self {
        Self::new(&core.registrar, &core.accounts, config)
    }

    /// Carries out one operation for this user of the host.
    pub async fn carry_out(&self, operation: Operation, by: &str) -> Outcome {
        let by = Actor::Host(by.to_owned());
        match self.try_carry_out(operation, by).await {
            Ok(outcome) => outcome,
            Err(text) => Outcome::Failed(text),
        }
    }

    async fn try_carry_out(&self, operation: Operation, by: Actor) -> Result<Outcome, String> {
        match operation {
            Operation::UserAdd {
                name,
                roles,
                password,
            } => self.add_user(name, roles, password, by).await,
            Operation::UserPassword { name, password } => {
                self.set_password(name, password, by).await
            }
            Operation::UserTotp { name } => self.renew_totp(name, by).await,
            Operation::UserDisable { name } => self.set_disabled(name, true, by).await,
            Operation::UserEnable { name } => self.set_disabled(name, false, by).await,
            Operation::UserList => self.list_users().await,
            Operation::SessionList => {
                let live = self.registrar.live().await;
                let sessions = live.map_err(|refusal| told(refusal.into()))?;
                Ok(Outcome::Sessions(serde_json::json!(sessions)))
            }
            Operation::Status => self.status().await,
            Operation::SessionEnd { session } => self.end(session, by).await,
            Operation::PolicyLoad { name, text } => {
                let policy = Policy::parse(&name, &text).map_err(|error| error.to_string())?;
                let checked = self.config.check_policy(&policy);
                checked.map_err(|error| error.to_string())?;
                let loaded = self.registrar.carry_out(Command::LoadPolicy { text });
                loaded.await.map_err(told)?;
                Ok(Outcome::Done)
            }
        }
    }

    async fn status(&self) -> Result<Outcome, String> {
        let (standing, databases) = self.standing.as_ref().ok_or("no gateway runs here")?;
        let looked = standing::look(standing, self.registrar.now(), Reader::Operator).await;
        let status = looked.ok_or("the look failed; see the gateway's own log")?;
        let databases = databases.values().map(Database::status).collect();
        Ok(Outcome::Status(Box::new(OperatorStatus {
            status,
            databases,
        })))
    }

    async fn end(&self, session: SessionId, by: Actor) -> Result<Outcome, String> {
        let found = self.registrar.session(session.clone()).await;
        let found = found.map_err(|refusal| told(refusal.into()))?;
        if found.live.is_none() {
            return Err(format!("no live session is called {session}"));
        }
        let cause = EndCause {
            reason: EndReason::EndedByAdmin,
            by: Some(by),
        };
        let ended = self.registrar.end(session, cause).await;
        // Where it ended otherwise in between, that is recorded.
        ended.map_err(|refusal| told(refusal.into()))?;
        Ok(Outcome::Done)
    }
}

fn told(not: NotCarriedOut) -> String {
    match not {
        NotCarriedOut::Refused(Refusal::Unavailable(_)) => {
            "the audit log cannot take entries now, so nothing was recorded; see the gateway's \
             own log"
                .to_owned()
        }
        NotCarriedOut::Refused(refusal) => format!("refused: {refusal:?}"),
        NotCarriedOut::Impossible(refusal) => refusal.to_string(),
    }
}

/// Makes the socket, for its owner only. One that a dead gateway left behind is replaced.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The folder is 0700, so nobody else can reach the socket before its mode is set.
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves operators until told to stop.
pub(crate) async fn serve(listener: UnixListener, desk: Desk, stopping: CancellationToken) {
    loop {
        let stream = tokio::select! {
            () = stopping.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "control socket");
                    continue;
                }
            },
        };
        let desk = desk.clone();
        tokio::spawn(async move {
            match tokio::time::timeout(OPERATION, serve_one(stream, &desk)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "control socket"),
                Err(_) => tracing::warn!("an operation took too long"),
            }
        });
    }
}

async fn serve_one(mut stream: UnixStream, desk: &Desk) -> io::Result<()> {
    let by = format!("uid {}", stream.peer_cred()?.uid());
    let (read, mut write) = stream.split();
    let mut line = String::new();
    BufReader::new(read.take(LINE_BYTES_MAX))
        .read_line(&mut line)
        .await?;
    let outcome = match serde_json::from_str(&line) {
        Ok(operation) => desk.carry_out(operation, &by).await,
        Err(error) => Outcome::Failed(format!("not an operation: {error}")),
    };
    let mut answer = serde_json::to_string(&outcome)?;
    answer.push('\n');
    write.write_all(answer.as_bytes()).await?;
    write.shutdown().await
}

/// Asks a running gateway.
///
/// # Errors
/// When nobody listens there (`NotFound`, `ConnectionRefused`), or the answer makes no sense.
pub async fn request(socket: &Path, operation: &Operation) -> io::Result<Outcome> {
    let mut stream = UnixStream::connect(socket).await?;
    let mut line = serde_json::to_string(operation)?;
    line.push('\n');
    stream.write_all(line.as_bytes()).await?;
    let mut answer = String::new();
    BufReader::new(stream.take(LINE_BYTES_MAX))
        .read_line(&mut answer)
        .await?;
    Ok(serde_json::from_str(&answer)?)
}
