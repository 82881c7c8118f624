//! The database behind: connecting with the account that the permit names, and cancelling there.
//!
//! Only a [`Permit`] opens a connection for a client, and the connection keeps it. What Curfew asks
//! a server itself, it asks through [`super::direct`].

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fmt, io};

use bytes::BytesMut;
use curfew_entry::{AccountClass, ResourceName};
use curfew_gate::permit::Permit;
use curfew_gate::registrar::Record;
use curfew_gate::settings::RecordWhen;
use curfew_gate::tls::trusting;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use rustls_pki_types::ServerName;
use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::accounts::{Login, Logins};
use super::direct::fields;
use super::frame::{Complaint, FrameSplitter, HEAD_BYTES};
use super::health::{Health, NotServed};
use super::startup::CancelKey;
use crate::config::{PostgresResource, UpstreamTls};

/// From the first packet to the server's first ReadyForQuery. PostgreSQL's own authentication
/// timeout is 60 s; a person waits less.
pub(super) const CONNECT: Duration = Duration::from_secs(10);
/// A setting by which the server looks while it works whether this side is still there: PostgreSQL 14
/// and later have it, poolers do not take it. Once a connection is closed under a statement that does
/// not yield to being cancelled, the server ends it, which no statement can catch.
const WATCH: (&str, &str) = ("client_connection_check_interval", "1s");
/// The most that a server says before it is ready: some 30 parameters of about 50 bytes.
const GREETING_BYTES_MAX: usize = 64 * 1_024;

/// Whatever a server is reached over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// A database that cannot be set up from its configuration.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// A file that cannot be read.
    #[error("database `{name}`: {path}: {problem}")]
    File {
        /// Which database.
        name: ResourceName,
        /// Which file.
        path: String,
        /// Why.
        problem: String,
    },
    /// No TLS can be set up.
    #[error("database `{name}`: {problem}")]
    Tls {
        /// Which database.
        name: ResourceName,
        /// Why.
        problem: String,
    },
}

/// A database behind Curfew, ready to be connected to.
#[derive(Clone)]
pub struct Database {
    pub(crate) name: ResourceName,
    pub(crate) record: Record,
    pub(super) target: Arc<Target>,
    pub(super) database: String,
    pub(super) logins: Logins,
    /// Whether it may be connected to.
    pub(super) health: Arc<Health>,
}

/// Where a server is, and how it is spoken to.
pub(super) struct Target {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// Takes [`WATCH`].
    watches: AtomicBool,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Why a database could not be connected to. What it holds is for the log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The network, or TLS.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It took too long.
    #[error("no answer within {} s", CONNECT.as_secs())]
    Slow,
    /// The server does not speak TLS.
    #[error("the server does not speak TLS")]
    NoTls,
    /// The server wants a password and there is none, or one over a line that can be read.
    #[error("the server asks for {0}")]
    Authentication(&'static str),
    /// The server gave no key to cancel by.
    #[error("the server gave no key to cancel by")]
    NoKey,
    /// The server refused: SQLSTATE and message.
    #[error("the server refused: {0} {1}")]
    Refused(String, String),
    /// The database is not served at the moment.
    #[error("{0}")]
    NotServed(NotServed),
    /// There is no account for what the permit is for.
    #[error("there is no account of the permit's class")]
    NoAccount,
}

impl ConnectError {
    /// What the client is told: nothing of the account Curfew uses or where the server is.
    pub(crate) fn complaint(&self) -> Complaint {
        match self {
            // What the server says of its own state, or of parameters that came from the client.
            Self::Refused(code, message) if code.starts_with("22") => {
                Complaint::fatal("22023", message.clone())
            }
            Self::Refused(code, _) if code == "53300" => {
                Complaint::fatal("53300", "the database server has too many connections")
                    .hint("Try again later.")
            }
            Self::Refused(code, _) if code == "57P03" => {
                Complaint::fatal("57P03", "the database server is not ready")
                    .hint("Try again in a moment.")
            }
            Self::NotServed(not_served) => not_served.complaint(),
            Self::Refused(..) | Self::Authentication(_) | Self::NoTls | Self::NoAccount => {
                Complaint::fatal("08004", "the database server did not accept the gateway")
                    .hint("Whoever runs Curfew finds the reason in its own log.")
            }
            Self::Io(_) | Self::Slow | Self::NoKey => {
                Complaint::fatal("08006", "the database server cannot be reached")
                    .hint("Try again later; whoever runs Curfew finds the reason in its own log.")
            }
        }
    }
}

/// A connection to a database, and the permit it rests on.
pub(crate) struct Upstream {
    pub(crate) permit: Permit,
    /// What its account can do, where there is one for each class: what is above it is asked for in
    /// vain here, whatever policy permits meanwhile.
    pub(crate) account: Option<AccountClass>,
    pub(crate) stream: Box<dyn Stream>,
    /// What was read past the greeting.
    pub(crate) rest: BytesMut,
    /// What the server says of itself, in order.
    pub(crate) parameters: Vec<(String, String)>,
    /// What it gave notice of, as the messages that it sent: of a password that expires, of what
    /// runs at every login.
    pub(crate) notices: BytesMut,
    pub(crate) cancel: CancelHandle,
}

/// How to cancel what a connection is running.
#[derive(Clone)]
pub(crate) struct CancelHandle {
    target: Arc<Target>,
    key: CancelKey,
}

impl fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CancelHandle(…)")
    }
}

impl Database {
    /// From its configuration.
    pub(crate) fn load(config: &PostgresResource) -> Result<Self, DatabaseError> {
        Ok(Self {
            name: config.name.clone(),
            record: match config.record {
                RecordWhen::ByVerb => Record::ByVerb,
                RecordWhen::Before => Record::Before,
            },
            target: Arc::new(Target::of(config)?),
            database: config.database.clone(),
            logins: Logins::load(config)?,
            health: Arc::new(Health::of(config)),
        })
    }

    /// Connects, on the strength of this permit and with the account that it names. Where that fails
    /// the permit comes back, so that the end can be recorded with it.
    pub(crate) async fn open(
        &self,
        permit: Permit,
        parameters: &[(String, String)],
    ) -> Result<Upstream, (Permit, ConnectError)> {
        let account = permit.grant().account;
        let opened = tokio::select! {
            biased;
            // What the permit was for is gone; nobody waits for the answer.
            _ = permit.cut().fired() => Err(ConnectError::Slow),
            opened = tokio::time::timeout(CONNECT, self.greet(account, parameters)) => {
                opened.unwrap_or(Err(ConnectError::Slow))
            }
        };
        match opened {
            Ok(greeting) => Ok(Upstream {
                permit,
                account,
                stream: greeting.stream,
                rest: greeting.rest,
                parameters: greeting.parameters,
                notices: greeting.notices,
                cancel: CancelHandle {
                    target: Arc::clone(&self.target),
                    key: greeting.key,
                },
            }),
            Err(error) => Err((permit, error)),
        }
    }

    async fn greet(
        &self,
        account: Option<AccountClass>,
        parameters: &[(String, String)],
    ) -> Result<Greeting, ConnectError> {
        self.health
            .served()
            .await
            .map_err(ConnectError::NotServed)?;
        let login = self.logins.of(account).ok_or(ConnectError::NoAccount)?;
        let mut parameters = read_only(account, parameters);
        parameters.retain(|(name, _)| !name.eq_ignore_ascii_case(WATCH.0));
        if self.target.watches.load(Ordering::Relaxed) {
            let mut watched = parameters.clone();
            watched.push((WATCH.0.to_owned(), WATCH.1.to_owned()));
            match self.target.greet(login, &self.database, &watched).await {
                Err(ConnectError::Refused(_, message)) if message.contains(WATCH.0) => {
                    tracing::warn!(
                        database = %self.name, %message,
                        "a statement that catches its cancellation goes on at this server"
                    );
                    self.target.watches.store(false, Ordering::Relaxed);
                }
                greeted => return greeted,
            }
        }
        self.target.greet(login, &self.database, &parameters).await
    }
}

/// The parameters of a connection whose account must not write: its transactions only read unless
/// they say otherwise. The account's rights hold whatever they say; this keeps from an error what
/// would be one later, and from the server what a reader need not cause, such as row locks.
fn read_only(
    account: Option<AccountClass>,
    parameters: &[(String, String)],
) -> Vec<(String, String)> {
    const SETTING: &str = "default_transaction_read_only";
    let mut parameters = parameters.to_vec();
    if matches!(account, Some(AccountClass::Connect | AccountClass::Read)) {
        parameters.retain(|(name, _)| !name.eq_ignore_ascii_case(SETTING));
        parameters.push((SETTING.to_owned(), "on".to_owned()));
    }
    parameters
}

impl Target {
    /// Of a database's server.
    pub(super) fn of(config: &PostgresResource) -> Result<Self, DatabaseError> {
        Ok(Self {
            host: config.host.clone(),
            port: config.port,
            tls: match config.tls {
                UpstreamTls::Disable => None,
                UpstreamTls::VerifyFull => Some(client_tls(config)?),
            },
            watches: AtomicBool::new(true),
        })
    }

    /// Connects and signs in.
    pub(super) async fn greet(
        &self,
        login: &Login,
        database: &str,
        parameters: &[(String, String)],
    ) -> Result<Greeting, ConnectError> {
        let mut stream = self.connect().await?;
        let mut out = BytesMut::new();
        let own = [("user", login.user.as_str()), ("database", database)];
        let passed = parameters
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        frontend::startup_message(own.into_iter().chain(passed), &mut out)?;
        stream.write_all(&out).await?;
        let mut greeting = Greeting {
            stream,
            rest: BytesMut::with_capacity(8 * 1_024),
            parameters: Vec::new(),
            notices: BytesMut::new(),
            key: CancelKey {
                process: 0,
                key: Box::new([0; 4]),
            },
        };
        self.authenticate(login, &mut greeting).await?;
        greeting.until_ready().await?;
        Ok(greeting)
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what is not named is not supported"
    )]
    async fn authenticate(
        &self,
        login: &Login,
        greeting: &mut Greeting,
    ) -> Result<(), ConnectError> {
        let mut scram: Option<sasl::ScramSha256> = None;
        loop {
            let mut out = BytesMut::new();
            match greeting.next().await? {
                Message::AuthenticationOk => return Ok(()),
                Message::AuthenticationCleartextPassword => {
                    if self.can_be_overheard() {
                        return Err(ConnectError::Authentication("a password in the clear"));
                    }
                    frontend::password_message(login.expose()?.as_bytes(), &mut out)?;
                }
                Message::AuthenticationMd5Password(body) => {
                    let password = login.expose()?.as_bytes();
                    let hash = md5_hash(login.user.as_bytes(), password, body.salt());
                    frontend::password_message(hash.as_bytes(), &mut out)?;
                }
                Message::AuthenticationSasl(_) => {
                    let password = login.expose()?.as_bytes();
                    let begun =
                        sasl::ScramSha256::new(password, sasl::ChannelBinding::unsupported());
                    frontend::sasl_initial_response(
                        sasl::SCRAM_SHA_256,
                        begun.message(),
                        &mut out,
                    )?;
                    scram = Some(begun);
                }
                Message::AuthenticationSaslContinue(body) => {
                    let scram = scram
                        .as_mut()
                        .ok_or(ConnectError::Authentication("nonsense"))?;
                    scram.update(body.data())?;
                    frontend::sasl_response(scram.message(), &mut out)?;
                }
                Message::AuthenticationSaslFinal(body) => {
                    let scram = scram
                        .as_mut()
                        .ok_or(ConnectError::Authentication("nonsense"))?;
                    scram.finish(body.data())?;
                }
                _ => {
                    return Err(ConnectError::Authentication(
                        "something that is not supported",
                    ));
                }
            }
            greeting.stream.write_all(&out).await?;
        }
    }
}

impl Login {
    fn expose(&self) -> Result<&str, ConnectError> {
        match &self.password {
            Some(password) => Ok(password.expose_secret()),
            None => Err(ConnectError::Authentication(
                "a password, and none is configured",
            )),
        }
    }
}

/// TLS towards a server whose certificate must name its host.
fn client_tls(
    config: &PostgresResource,
) -> Result<(TlsConnector, ServerName<'static>), DatabaseError> {
    let failed = |problem: String| DatabaseError::Tls {
        name: config.name.clone(),
        problem,
    };
    let builder = trusting(config.ca.as_deref()).map_err(failed)?;
    let name = ServerName::try_from(config.host.clone()).map_err(|_| {
        failed(format!(
            "`{}` is not a name a certificate can bear",
            config.host
        ))
    })?;
    Ok((
        TlsConnector::from(Arc::new(builder.with_no_client_auth())),
        name,
    ))
}

impl Target {
    async fn connect(&self) -> Result<Box<dyn Stream>, ConnectError> {
        if self.host.starts_with('/') {
            let path = format!("{}/.s.PGSQL.{}", self.host, self.port);
            return Ok(Box::new(UnixStream::connect(path).await?));
        }
        let mut stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let Some((connector, name)) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let mut out = BytesMut::new();
        frontend::ssl_request(&mut out);
        stream.write_all(&out).await?;
        // One byte and no more: what came with it would be unauthenticated.
        if stream.read_u8().await? != b'S' {
            return Err(ConnectError::NoTls);
        }
        Ok(Box::new(connector.connect(name.clone(), stream).await?))
    }

    /// Whether somebody on the way could read what is sent.
    fn can_be_overheard(&self) -> bool {
        let local = self.host.starts_with('/')
            || self.host == "localhost"
            || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        self.tls.is_none() && !local
    }
}

/// A connection that has signed in.
pub(super) struct Greeting {
    pub(super) stream: Box<dyn Stream>,
    pub(super) rest: BytesMut,
    parameters: Vec<(String, String)>,
    notices: BytesMut,
    pub(super) key: CancelKey,
}

impl Greeting {
    async fn next(&mut self) -> Result<Message, ConnectError> {
        loop {
            let head = self.rest.get(1..5).and_then(|bytes| bytes.try_into().ok());
            if head.map(i32::from_be_bytes).is_some_and(|length| {
                usize::try_from(length).map_or(true, |length| length > GREETING_BYTES_MAX)
            }) {
                return Err(io::Error::from(io::ErrorKind::InvalidData).into());
            }
            if self.take_notice() {
                continue;
            }
            // The protocol crate gives an error's fields only through another crate's trait.
            let error = (self.rest.first() == Some(&b'E')).then(|| self.rest.clone());
            if let Some(message) = Message::parse(&mut self.rest)? {
                if let Some(error) = error {
                    let (code, message) = fields(error.get(HEAD_BYTES..).unwrap_or_default());
                    return Err(ConnectError::Refused(code, message));
                }
                return Ok(message);
            }
            if self.stream.read_buf(&mut self.rest).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    /// Sets a notice aside that is here as a whole.
    fn take_notice(&mut self) -> bool {
        let mut notices = FrameSplitter::new(std::mem::take(&mut self.rest));
        let notice = match notices.head() {
            Ok(Some(head)) if head.tag == b'N' => notices.whole(head),
            Ok(_) | Err(_) => None,
        };
        self.rest = std::mem::take(notices.buffer());
        let Some(notice) = notice else {
            return false;
        };
        if self.notices.len() + notice.len() <= GREETING_BYTES_MAX {
            self.notices.extend_from_slice(&notice);
        }
        true
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what is not named does not belong here"
    )]
    async fn until_ready(&mut self) -> Result<(), ConnectError> {
        loop {
            match self.next().await? {
                Message::ParameterStatus(body) => {
                    let pair = (body.name()?.to_owned(), body.value()?.to_owned());
                    self.parameters.push(pair);
                }
                Message::BackendKeyData(body) => {
                    let key = Box::new(body.secret_key().to_be_bytes());
                    self.key = CancelKey {
                        process: body.process_id(),
                        key,
                    };
                }
                Message::ReadyForQuery(_) => return Ok(()),
                _ => return Err(io::Error::from(io::ErrorKind::InvalidData).into()),
            }
        }
    }
}

impl CancelHandle {
    /// The number of the server's process.
    pub(crate) const fn process(&self) -> i32 {
        self.key.process
    }

    /// Asks the server to cancel, and waits until it has taken the request in: it then closes the
    /// connection, and the signal is on its way.
    pub(crate) async fn cancel(&self) -> Result<(), ConnectError> {
        let mut stream = self.target.connect().await?;
        let mut out = BytesMut::new();
        let Some(key) = self.key.key.first_chunk().copied() else {
            return Err(ConnectError::NoKey);
        };
        frontend::cancel_request(self.key.process, i32::from_be_bytes(key), &mut out);
        stream.write_all(&out).await?;
        stream.flush().await?;
        let mut nothing = [0; 1];
        // An end without TLS's goodbye is how PostgreSQL closes here.
        let _ = stream.read(&mut nothing).await;
        Ok(())
    }
}
