//! From the first byte to a standing connection: TLS, who it is, the permit, the database.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use curfew_entry::{
    ActionDetail, Credential, CredentialClass, CredentialHash, CredentialId, Plane as Kind,
    ResourceName, SubjectName,
};
use curfew_gate::permit::{Closing, Permit};
use curfew_gate::{Ask, Presenter, secret};
use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use super::cancel::Issued;
use super::frame::{self, Complaint, FrameSplitter, HEAD_BYTES};
use super::scram::{CANDIDATES_MAX, Exchange, MECHANISM, ScramError};
use super::startup::{self, First, Startup};
use super::upstream::{ConnectError, Stream, Upstream};
use super::words::Words;
use super::{Plane, relay};

/// From the first byte to a proved password. People do not type it: programs hold it.
const AUTHENTICATE: Duration = Duration::from_secs(10);
/// The largest SASL message; libpq's have about 100 bytes.
const SASL_BYTES_MAX: usize = 2_048;
/// The name a client gives itself, as the log takes it.
const CLIENT_BYTES_MAX: usize = 256;
/// How long a refusal may take to be taken by the client's kernel.
const REFUSE: Duration = Duration::from_millis(500);
/// How long the server may take for a cancel request of a client.
const CANCEL: Duration = Duration::from_secs(5);

/// A client that has spoken TLS.
type Client = TlsStream<TcpStream>;

/// A client that has proved a password.
struct Proved {
    client: Client,
    read: BytesMut,
    startup: Startup,
    words: Words,
    resource: ResourceName,
    hash: CredentialHash,
}

/// How a greeting ends other than well.
enum Stop {
    /// Without a word: the client is gone, or must not be told anything.
    Silently,
    /// With a word over the open connection.
    Refused(Box<TcpStream>, Complaint),
    /// With a word over TLS.
    RefusedTls(Box<Client>, Complaint),
}

impl From<std::io::Error> for Stop {
    fn from(_: std::io::Error) -> Self {
        Self::Silently
    }
}

/// Serves one client to its end. `entering` is given back once it is known who the client is.
pub(crate) async fn serve(
    plane: Arc<Plane>,
    stream: TcpStream,
    address: IpAddr,
    tls: TlsAcceptor,
    entering: Option<OwnedSemaphorePermit>,
    stopping: CancellationToken,
) {
    let greeted = tokio::select! {
        biased;
        // Who is connected is cut by the registrar; who is not yet has nothing to lose.
        () = stopping.cancelled() => return,
        greeted = tokio::time::timeout(AUTHENTICATE, greet(&plane, stream, address, tls)) => greeted,
    };
    drop(entering);
    match greeted {
        Ok(Ok(proved)) => connect(plane, proved, address).await,
        Ok(Err(Stop::Refused(stream, complaint))) => refuse(*stream, &complaint).await,
        Ok(Err(Stop::RefusedTls(stream, complaint))) => refuse(*stream, &complaint).await,
        Ok(Err(Stop::Silently)) => {}
        Err(_) => tracing::debug!(%address, "a client took too long to authenticate"),
    }
}

async fn refuse<S: Stream>(mut stream: S, complaint: &Complaint) {
    let mut out = BytesMut::new();
    complaint.write(&mut out);
    tell(&mut stream, &mut out).await;
}

/// Writes last words and closes.
async fn tell<S: Stream>(stream: &mut S, out: &mut BytesMut) {
    let told = async {
        stream.write_all_buf(out).await?;
        stream.shutdown().await?;
        // With something unread a close becomes a reset, and that can overtake the last words.
        let mut nowhere = [0; 1_024];
        while stream.read(&mut nowhere).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    let _ = tokio::time::timeout(REFUSE, told).await;
}

async fn read_packet<S: Stream>(stream: &mut S) -> std::io::Result<Result<First, Complaint>> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    // Who begins like that does not speak this protocol, and is told nothing, as by PostgreSQL.
    let length = startup::packet_length(head).ok_or(std::io::ErrorKind::InvalidData)?;
    let mut packet = vec![0; length];
    let (front, rest) = packet.split_at_mut(head.len());
    front.copy_from_slice(&head);
    stream.read_exact(rest).await?;
    Ok(startup::parse(&packet))
}

async fn greet(
    plane: &Arc<Plane>,
    stream: TcpStream,
    address: IpAddr,
    tls: TlsAcceptor,
) -> Result<Proved, Stop> {
    let mut client = encrypt(plane, stream, tls).await?;
    let startup = match read_packet(&mut client).await? {
        Ok(First::Startup(startup)) => startup,
        Ok(First::Cancel(key)) => {
            plane.cancel(&key, CANCEL).await;
            // libpq takes an end without TLS's own goodbye for a failure.
            client.shutdown().await?;
            return Err(Stop::Silently);
        }
        Ok(First::Ssl | First::GssEnc) => {
            let complaint = Complaint::fatal("08P01", "the connection is encrypted already");
            return Err(Stop::RefusedTls(Box::new(client), complaint));
        }
        Err(complaint) => return Err(Stop::RefusedTls(Box::new(client), complaint)),
    };
    if let Some(options) = &startup.negotiate {
        let mut out = BytesMut::new();
        frame::negotiate_protocol_version(&mut out, startup.version, options);
        client.write_all(&out).await?;
    }
    match authenticate(plane, &mut client, startup, address).await? {
        Ok((startup, words, resource, hash, read)) => Ok(Proved {
            client,
            read,
            startup,
            words,
            resource,
            hash,
        }),
        Err(complaint) => Err(Stop::RefusedTls(Box::new(client), complaint)),
    }
}

/// Brings the connection to TLS, asked for or direct.
async fn encrypt(
    plane: &Arc<Plane>,
    mut stream: TcpStream,
    tls: TlsAcceptor,
) -> Result<Client, Stop> {
    /// The first byte of a TLS handshake; no startup packet of at most 10,000 bytes begins with it.
    const HANDSHAKE: u8 = 0x16;
    let mut first = [0; 1];
    if stream.peek(&mut first).await? == 0 {
        return Err(Stop::Silently);
    }
    if first == [HANDSHAKE] {
        let client = tls.accept(stream).await?;
        if client.get_ref().1.alpn_protocol() != Some(b"postgresql") {
            let complaint =
                Complaint::fatal("08P01", "direct TLS needs the ALPN protocol \"postgresql\"");
            return Err(Stop::RefusedTls(Box::new(client), complaint));
        }
        return Ok(client);
    }
    let mut asked_gss = false;
    loop {
        match read_packet(&mut stream).await? {
            Ok(First::Ssl) => break,
            Ok(First::GssEnc) if !asked_gss => {
                asked_gss = true;
                stream.write_all(b"N").await?;
            }
            Ok(First::Cancel(key)) => {
                // Older libpq sends these in the clear; the key was given over TLS.
                plane.cancel(&key, CANCEL).await;
                return Err(Stop::Silently);
            }
            Ok(First::Startup(_) | First::GssEnc) => {
                return Err(Stop::Refused(Box::new(stream), startup::tls_required()));
            }
            Err(complaint) => return Err(Stop::Refused(Box::new(stream), complaint)),
        }
    }
    // Bytes in the clear before the handshake were slipped in by somebody on the way
    // (CVE-2021-23222).
    if matches!(stream.peek(&mut first).now_or_never(), Some(Ok(1..))) {
        let complaint = Complaint::fatal("08P01", "received unencrypted data after SSL request");
        return Err(Stop::Refused(Box::new(stream), complaint));
    }
    stream.write_all(b"S").await?;
    Ok(tls.accept(stream).await?)
}

type Authenticated = (Startup, Words, ResourceName, CredentialHash, BytesMut);

/// Finds out whose password the client knows. All failures look the same from outside.
async fn authenticate(
    plane: &Arc<Plane>,
    client: &mut Client,
    startup: Startup,
    address: IpAddr,
) -> Result<Result<Authenticated, Complaint>, Stop> {
    let names = startup
        .user
        .parse::<SubjectName>()
        .ok()
        .zip(startup.database.parse().ok());
    let shown = names
        .as_ref()
        .map_or_else(|| plane.any_resource(), |(_, name)| Clone::clone(name));
    let words = Words {
        portal: plane.setup.site.portal_url(),
        resource: shown,
        account: None,
    };
    let live = match &names {
        Some((subject, resource)) => plane.live_candidates(subject, resource).await,
        None => Vec::new(),
    };
    let mut read = BytesMut::new();
    let broken = |_| Complaint::fatal("08P01", "malformed SASL message");

    let mut out = BytesMut::new();
    frame::authentication_sasl(&mut out, MECHANISM);
    client.write_all(&out).await?;
    let Ok(first) = read_sasl(client, &mut read).await? else {
        return Ok(Err(broken(())));
    };
    let nonce = match super::unguessable() {
        Ok(nonce) => nonce,
        Err(complaint) => return Ok(Err(complaint)),
    };
    let salt = plane.verifiers.salt(&startup.user);
    let exchange = match Exchange::begin(&first, &salt, &nonce) {
        Ok(exchange) => exchange,
        Err(ScramError::Binding) => {
            let complaint = Complaint::fatal("0A000", "channel binding is not supported")
                .hint("Connect without channel_binding=require.");
            return Ok(Err(complaint));
        }
        Err(_) => return Ok(Err(broken(()))),
    };
    out.clear();
    frame::authentication_sasl_continue(&mut out, exchange.server_first());
    client.write_all(&out).await?;
    let Ok(last) = read_sasl(client, &mut read).await? else {
        return Ok(Err(broken(())));
    };
    if let Some((candidate, signature)) = plane.proved(&exchange, &last, &startup.user, &live).await
    {
        out.clear();
        frame::authentication_sasl_final(&mut out, &signature);
        client.write_all(&out).await?;
        let resource = words.resource.clone();
        return Ok(Ok((startup, words, resource, candidate.hash, read)));
    }
    if let Some((subject, resource)) = &names {
        let spent = plane.spent_candidates(subject, resource).await;
        if let Some((candidate, _)) = plane.proved(&exchange, &last, &startup.user, &spent).await {
            return Ok(Err(plane
                .refuse_hash(&words, candidate.hash, address)
                .await));
        }
    }
    plane.note_unknown(&words, address).await;
    Ok(Err(plane
        .no_password(&words, &exchange, &last, &startup)
        .await))
}

/// Reads one SASL message of the client and gives its body.
async fn read_sasl(
    client: &mut Client,
    read: &mut BytesMut,
) -> std::io::Result<Result<BytesMut, ()>> {
    let mut splitter = FrameSplitter::new(std::mem::take(read));
    loop {
        match splitter.head() {
            Ok(None) => {}
            Ok(Some(head)) if head.tag == b'p' && head.total <= SASL_BYTES_MAX => {
                if let Some(mut message) = splitter.whole(head) {
                    *read = std::mem::take(splitter.buffer());
                    return Ok(Ok(message.split_off(HEAD_BYTES)));
                }
            }
            Ok(Some(_)) | Err(_) => return Ok(Err(())),
        }
        if client.read_buf(splitter.buffer()).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

impl Plane {
    /// The newest passwords that open this database for this subject now.
    async fn live_candidates(
        &self,
        subject: &SubjectName,
        resource: &ResourceName,
    ) -> Vec<Credential> {
        let (subject, resource) = (subject.clone(), resource.clone());
        let registrar = &self.setup.registrar;
        let found = registrar.passwords(subject, resource, CANDIDATES_MAX).await;
        found.unwrap_or_default()
    }

    /// The newest passwords that did, and no longer do.
    async fn spent_candidates(
        &self,
        subject: &SubjectName,
        resource: &ResourceName,
    ) -> Vec<Credential> {
        let (subject, resource) = (subject.clone(), resource.clone());
        let registrar = &self.setup.registrar;
        let spent = registrar.spent_passwords(subject, resource, CANDIDATES_MAX);
        spent.await.unwrap_or_default()
    }

    /// What is said to whoever does not know a password of the database that was asked for.
    async fn no_password(
        &self,
        words: &Words,
        exchange: &Exchange,
        last: &[u8],
        startup: &Startup,
    ) -> Complaint {
        match self.opened_by(exchange, last, startup).await {
            Some(other) if startup.database != other.as_str() => {
                words.other_database(&startup.database, &other)
            }
            Some(_) | None => words.no_password(),
        }
    }

    /// The database that the client's password opens, whichever it has asked for: whoever knows one
    /// has only mistaken the name.
    async fn opened_by(
        &self,
        exchange: &Exchange,
        last: &[u8],
        startup: &Startup,
    ) -> Option<ResourceName> {
        let subject = startup.user.parse::<SubjectName>().ok()?;
        for resource in self.databases.keys() {
            let live = self.live_candidates(&subject, resource).await;
            if !live.is_empty()
                && self
                    .proved(exchange, last, &startup.user, &live)
                    .await
                    .is_some()
            {
                return Some(resource.clone());
            }
        }
        None
    }

    /// Which of these the client has proved to know, and what it is told then.
    async fn proved(
        &self,
        exchange: &Exchange,
        last: &[u8],
        user: &str,
        candidates: &[Credential],
    ) -> Option<(Credential, String)> {
        let ids: Vec<CredentialId> = candidates.iter().map(|one| one.id.clone()).collect();
        let verifiers = self.verifiers.of(user, &ids).await;
        if verifiers.len() != candidates.len() {
            return None;
        }
        let (index, signature) = exchange.finish(last, &verifiers).ok()?;
        Some((candidates.get(index)?.clone(), signature))
    }

    /// A connection with this credential, as it is asked for.
    async fn ask_connect(
        &self,
        words: &Words,
        hash: CredentialHash,
        address: IpAddr,
        client: Option<&str>,
    ) -> Result<Permit, Complaint> {
        let mut action = ActionDetail::connecting(words.resource.clone(), None);
        action.client = client.map(|name| {
            let name = name
                .get(..name.floor_char_boundary(CLIENT_BYTES_MAX))
                .unwrap_or(name);
            name.to_owned()
        });
        let presenter = Presenter::Credential {
            class: CredentialClass::Database,
            hash,
            plane: Kind::Postgres,
        };
        let ask = Ask {
            presenter,
            action,
            context: self.setup.site.context(address),
        };
        let (record, accounts) = match self.databases.get(&words.resource) {
            Some(database) => (database.record, database.logins.classes()),
            None => (curfew_gate::registrar::Record::Before, Vec::new()),
        };
        let least = accounts.first().copied();
        let registrar = &self.setup.registrar;
        let answer = registrar.ask_to_connect(ask, accounts, record).await;
        answer.map_err(|refusal| words.no_connection(&refusal, least))
    }

    /// What is said to somebody who knows a password that no longer opens anything. The registrar
    /// records that it was used.
    async fn refuse_hash(&self, words: &Words, hash: CredentialHash, address: IpAddr) -> Complaint {
        match self.ask_connect(words, hash, address, None).await {
            Err(complaint) => complaint,
            // It opens something after all: it came to life between two questions. Once more, then.
            Ok(_) => words.no_password(),
        }
    }

    /// Records that somebody tried a password Curfew never gave out.
    async fn note_unknown(&self, words: &Words, address: IpAddr) {
        if let Ok(random) = secret::random::<32>() {
            let hash = CredentialHash::from_sha256(random);
            let _ = self.ask_connect(words, hash, address, None).await;
        }
    }
}

/// From the proved password to the standing connection, and through it to its end.
async fn connect(plane: Arc<Plane>, proved: Proved, address: IpAddr) {
    let Proved {
        mut client,
        read,
        startup,
        mut words,
        resource,
        hash,
    } = proved;
    let most = plane.setup.connections_per_person;
    let Some(_place) = plane.crowd.enter(&startup.user, &resource, most) else {
        return refuse(client, &words.too_many_connections(most)).await;
    };
    let application = startup.application.as_deref();
    let asked = plane.ask_connect(&words, hash, address, application).await;
    let permit = match asked {
        Ok(permit) => permit,
        Err(complaint) => return refuse(client, &complaint).await,
    };
    let Some(database) = plane.databases.get(&resource).cloned() else {
        // The resource is known to the authority and not set up here; the log says why.
        let complaint = Complaint::fatal("08004", "the database is not set up")
            .hint("Whoever runs Curfew finds the reason in its own log.");
        close(&plane, permit);
        return refuse(client, &complaint).await;
    };
    if let (Some(complaint), true) = (&startup.doubt, database.logins.classes().is_empty()) {
        close(&plane, permit);
        return refuse(client, complaint).await;
    }
    let upstream = match database.open(permit, &startup.parameters).await {
        Ok(upstream) => upstream,
        Err((permit, error)) => {
            let complaint = not_opened(&words, &permit, &error);
            close(&plane, permit);
            return refuse(client, &complaint).await;
        }
    };
    words.account = upstream.account;
    let cut = upstream.permit.cut().clone();
    let issued = plane
        .cancels
        .issue(startup.version, upstream.cancel.clone(), cut);
    let issued = issued.map_err(|error| super::no_random(&error));
    let (issued, no_portal) = match (issued, super::unguessable()) {
        (Ok(issued), Ok(no_portal)) => (issued, no_portal),
        (Err(complaint), _) | (_, Err(complaint)) => {
            close(&plane, upstream.permit);
            return refuse(client, &complaint).await;
        }
    };
    let out = welcome(&upstream, &issued);
    if client.write_all(&out).await.is_err() || client.flush().await.is_err() {
        close(&plane, upstream.permit);
        return;
    }
    let context = plane.setup.site.context(address);
    relay::run(relay::Parts {
        hangup: hangup(&client),
        no_portal,
        plane,
        database,
        words,
        context,
        client,
        read,
        upstream,
        issued,
    })
    .await;
}

/// What to say where there is no connection to the database.
fn not_opened(words: &Words, permit: &Permit, error: &ConnectError) -> Complaint {
    if let Some(cut) = permit.cut().now() {
        return words.cut(&cut, b'I');
    }
    tracing::warn!(database = %words.resource, %error, "no connection to the database");
    error.complaint()
}

/// What the server says of itself, with a cancel key of ours.
fn welcome(upstream: &Upstream, issued: &Issued) -> BytesMut {
    let mut out = upstream.notices.clone();
    for (name, value) in &upstream.parameters {
        frame::parameter_status(&mut out, name, value);
    }
    frame::backend_key_data(&mut out, issued.key.process, &issued.key.key);
    frame::ready_for_query(&mut out, b'I');
    out
}

/// Looks whether a client has closed its side, without reading from it.
fn hangup(client: &Client) -> relay::Hangup {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let socket = client.get_ref().0.as_fd().try_clone_to_owned();
    Box::new(move || {
        let Ok(socket) = &socket else {
            return false;
        };
        let mut looked = [PollFd::new(socket, PollFlags::RDHUP)];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut looked, Some(&at_once)).is_ok_and(|found| found > 0)
    })
}

/// Records the end of a connection on which nothing flowed.
fn close(plane: &Plane, permit: Permit) {
    let by = match permit.cut().now() {
        Some(cut) => cut.cause.closed_by(),
        None => curfew_entry::ClosedBy::Upstream,
    };
    let closed = plane.setup.registrar.now();
    permit.close(Closing {
        by,
        closed,
        bytes_in: 0,
        bytes_out: 0,
    });
}
