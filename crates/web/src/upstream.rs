//! The way to the protected resources: one pool of connections for each.
//!
//! Nothing is sent but with a [`Permit`] in hand: [`Upstream::exchange`] takes it by value and
//! gives it back. HTTP/2 is spoken where the resource offers it by ALPN.

mod answer;
mod h1;
mod h2;
mod lease;
mod socket;
mod tls;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use curfew_entry::{ResourceName, SessionId};
use curfew_gate::permit::{Cut, CutSignal, Permit};
use curfew_gate::secret::MasterKey;
use http::request::Parts;
use http::{Request, Response, Uri, Version, header};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use self::h1::H1;
use self::h2::{H2, Place, Unanswered};
use self::socket::{Breaker, Socket};
use self::tls::Configs;
use super::Body;
use super::assertion::Assertions;
use super::head::Shape;
use crate::config::{Patterns, WebResource};

pub(super) use self::answer::Answer;
pub(super) use self::lease::Lease;

/// How long name look-up, TCP and TLS may take together. A local network needs milliseconds;
/// two lost SYN packets cost 3 s.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// How long an unused connection is kept. Many servers close after 5 s: let go before, so that a
/// request does not run into the close.
const IDLE_TIME: Duration = Duration::from_secs(4);

/// Unused connections kept for one resource. Each holds about 10 kB: 640 kB.
const IDLE_MAX: usize = 64;

/// Requests and streams open to one resource at once, 64 connections' worth of HTTP/2.
const OPEN_MAX: usize = 4_096;

/// How many of them one session may have: nobody's event streams shut others out.
const OPEN_PER_SESSION_MAX: usize = OPEN_MAX / 4;

/// The longest head of an answer: as much as browsers take.
const ANSWER_HEAD_BYTES_MAX: u32 = 256 * 1024;

/// How often a request is tried: twice on a kept connection, which may have just closed, and then
/// on a fresh one.
const TRIES: usize = 3;

/// Why there is no answer. Safe to show to a client: it names no address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Failure {
    /// No connection.
    Unreachable,
    /// The connection broke before an answer, or what came was no HTTP.
    Broken,
    /// The head of the answer is too long.
    TooLarge,
    /// Too much is open already.
    Busy,
    /// This session has too much open already.
    Crowded,
    /// Nothing moved for the resource's `answer_timeout`.
    Slow,
    /// The permit was taken back.
    Cut(Cut),
}

/// Why the pools cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// An upstream that cannot be spoken to as configured.
    #[error("upstream of `{resource}`: {problem}")]
    Unfit {
        /// Of which resource.
        resource: ResourceName,
        /// What is wrong.
        problem: String,
    },
}

/// Every web resource's pool, and what signs assertions for them.
#[derive(Debug)]
pub struct Upstreams {
    pools: BTreeMap<ResourceName, Arc<Upstream>>,
    /// Made with the first request; `None` where the key turned out to be of no use.
    assertions: OnceLock<Option<Assertions>>,
}

impl Upstreams {
    /// Pools for every web resource. Connects to none of them yet.
    ///
    /// # Errors
    /// When a certificate file cannot be read or a host name is none.
    pub fn new(resources: &[WebResource]) -> Result<Self, UpstreamError> {
        let pools = resources
            .iter()
            .map(|web| Ok((web.name.clone(), Arc::new(Upstream::new(web)?))))
            .collect::<Result<_, UpstreamError>>()?;
        Ok(Self {
            pools,
            assertions: OnceLock::new(),
        })
    }

    /// The public keys that `Curfew-Assertion` can be checked with, as a JSON Web Key Set.
    pub fn jwks(&self, master: &MasterKey) -> Option<&str> {
        self.assertions(master).map(Assertions::jwks)
    }

    pub(super) fn assertions(&self, master: &MasterKey) -> Option<&Assertions> {
        self.assertions
            .get_or_init(|| Assertions::new(master).ok())
            .as_ref()
    }

    pub(super) fn of(&self, resource: &ResourceName) -> Option<&Arc<Upstream>> {
        self.pools.get(resource)
    }
}

/// One resource's pool.
#[derive(Debug)]
pub(super) struct Upstream {
    host: String,
    port: u16,
    /// What the resource is told that its host is; none where that is its public name.
    told: Option<String>,
    tls: Option<(ServerName<'static>, Configs)>,
    pub(super) answer_timeout: Duration,
    body_timeout: Duration,
    heartbeats: Patterns,
    kept: Mutex<Kept>,
    open: Arc<Semaphore>,
    by_session: Mutex<BTreeMap<SessionId, usize>>,
}

#[derive(Debug, Default)]
struct Kept {
    h1: Vec<(H1, Instant)>,
    h2: Vec<H2>,
}

enum Connection {
    H1(H1),
    H2(H2, Place),
}

/// A request as it goes out, but for what depends on the protocol that the upstream speaks.
pub(super) struct Outgoing {
    pub(super) head: Parts,
    /// None where there is none.
    pub(super) body: Option<Body>,
    /// How long the body is, where that is known and is to be said.
    pub(super) length: Option<u64>,
    /// Opened once the upstream wants the body, where the client waits for that.
    pub(super) wanted: Option<CancellationToken>,
    /// It may be sent twice: it only reads (RFC 9110 section 9.2.2).
    pub(super) repeatable: bool,
}

/// Bytes to and from an upstream.
trait Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl Io for Socket {}
impl Io for TlsStream<Socket> {}

/// A fresh connection, and what it agreed on.
struct Dialled {
    io: Box<dyn Io>,
    h2: bool,
    breaker: Breaker,
}

impl Upstream {
    fn new(web: &WebResource) -> Result<Self, UpstreamError> {
        let unfit = |problem: &str| UpstreamError::Unfit {
            resource: web.name.clone(),
            problem: problem.to_owned(),
        };
        let uri: Uri = web.upstream.parse().map_err(|_| unfit("it is not a URL"))?;
        let host = uri.host().ok_or_else(|| unfit("it has no host"))?;
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tls = if secure {
            let name = web
                .upstream_tls_name
                .clone()
                .unwrap_or_else(|| host.clone());
            let name = ServerName::try_from(name)
                .map_err(|_| unfit("its host cannot stand in a certificate"))?;
            Some((name, tls::configs(web)?))
        } else {
            None
        };
        Ok(Self {
            host,
            port,
            told: web.upstream_host.clone(),
            tls,
            answer_timeout: web.answer_timeout.0,
            body_timeout: web.body_timeout.0,
            heartbeats: web.passive_messages.clone(),
            kept: Mutex::default(),
            open: Arc::new(Semaphore::new(OPEN_MAX)),
            by_session: Mutex::default(),
        })
    }

    /// The names the resource goes by, where `public` is what browsers call it.
    pub(super) fn names<'a>(&'a self, public: &'a str) -> super::address::Names<'a> {
        super::address::Names {
            public,
            host: &self.host,
            port: self.port,
            told: self.told.as_deref(),
        }
    }

    pub(super) fn body_timeout(&self) -> Duration {
        self.body_timeout
    }

    pub(super) fn heartbeats(&self) -> &Patterns {
        &self.heartbeats
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A panic while holding the pool leaves it whole: each change is one push or removal.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shares(&self) -> MutexGuard<'_, BTreeMap<SessionId, usize>> {
        // As above: each change is one count.
        self.by_session
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, h1: H1) {
        let now = Instant::now();
        let mut kept = self.kept();
        // Dropping the sender lets the connection's task end by itself.
        kept.h1
            .retain(|(held, since)| !held.sender.is_closed() && now - *since < IDLE_TIME);
        if kept.h1.len() < IDLE_MAX && !h1.sender.is_closed() {
            kept.h1.push((h1, now));
        }
    }

    fn take(&self) -> Option<Connection> {
        let now = Instant::now();
        let mut kept = self.kept();
        kept.h2.retain(H2::serves);
        // Counted up under the lock, so that no connection is given out beyond its share.
        let room = kept.h2.iter().find_map(|held| Some((held, held.place()?)));
        if let Some((held, place)) = room {
            return Some(Connection::H2(held.clone(), place));
        }
        while let Some((held, since)) = kept.h1.pop() {
            if held.sender.is_ready() && now - since < IDLE_TIME {
                return Some(Connection::H1(held));
            }
        }
        None
    }

    async fn connect(&self, upgrade: bool) -> Result<Dialled, Failure> {
        let connecting = async {
            let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
            tcp.set_nodelay(true)?;
            let (socket, breaker) = Socket::new(tcp);
            let Some((name, configs)) = &self.tls else {
                let io: Box<dyn Io> = Box::new(socket);
                return Ok::<_, std::io::Error>(Dialled {
                    io,
                    h2: false,
                    breaker,
                });
            };
            let config = if upgrade { &configs.h1 } else { &configs.any };
            let connector = TlsConnector::from(Arc::clone(config));
            let stream = connector.connect(name.clone(), socket).await?;
            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            Ok(Dialled {
                io: Box::new(stream),
                h2,
                breaker,
            })
        };
        match tokio::time::timeout(CONNECT_TIME, connecting).await {
            Ok(Ok(connected)) => Ok(connected),
            Ok(Err(error)) => {
                tracing::warn!(%error, "no connection to an upstream");
                Err(Failure::Unreachable)
            }
            Err(_) => {
                tracing::warn!("an upstream took too long to connect");
                Err(Failure::Unreachable)
            }
        }
    }

    async fn fresh(&self, upgrade: bool) -> Result<Connection, Failure> {
        let dialled = self.connect(upgrade).await?;
        if !dialled.h2 {
            return Ok(Connection::H1(H1::new(dialled).await?));
        }
        let held = H2::new(dialled.io).await?;
        // The first one has room for it.
        let place = held.place().ok_or(Failure::Broken)?;
        self.kept().h2.push(held.clone());
        Ok(Connection::H2(held, place))
    }

    /// Sends a request and waits for the head of its answer, for as long as the permit is good
    /// and until `silent`: nothing has moved for too long. `public` is the public host, which is what the resource sees as its
    /// own unless it is told another. A handshake gets a connection of its own, since that may
    /// switch protocols.
    pub(super) async fn exchange(
        self: &Arc<Self>,
        permit: Permit,
        outgoing: Outgoing,
        public: &str,
        shape: Shape,
        silent: impl Future<Output = ()>,
    ) -> (Permit, Result<(Response<Answer>, Lease), Failure>) {
        let authority = self.told.as_deref().unwrap_or(public);
        let answer = tokio::select! {
            biased;
            cut = permit.cut().fired() => Err(Failure::Cut(cut)),
            answer = self.send(&permit, outgoing, authority, shape) => answer,
            () = silent => Err(Failure::Slow),
        };
        (permit, answer)
    }

    async fn send(
        self: &Arc<Self>,
        permit: &Permit,
        mut outgoing: Outgoing,
        authority: &str,
        shape: Shape,
    ) -> Result<(Response<Answer>, Lease), Failure> {
        let mut lease = Lease::new(self, permit.session())?;
        // A connection of its own from the start, or after one that was kept turned out stale.
        let mut alone = shape == Shape::WebSocket;
        for last in (0..TRIES).rev() {
            let kept = if alone || last == 0 {
                None
            } else {
                self.take()
            };
            let is_kept = kept.is_some();
            let connection = match kept {
                Some(kept) => kept,
                None => self.fresh(shape == Shape::WebSocket).await?,
            };
            let again = is_kept.then(|| outgoing.head.clone());
            let repeatable = outgoing.repeatable && outgoing.body.is_none();
            let wanted = outgoing.wanted.clone();
            let length = outgoing.length;
            let tried = match connection {
                Connection::H1(h1) => {
                    let sent = lease.h1.insert(h1).send(outgoing, authority).await;
                    sent.map(|response| response.map(Answer::H1))
                }
                Connection::H2(h2, place) => {
                    lease.place = Some(place);
                    send_h2(h2, outgoing, authority, permit.cut()).await
                }
            };
            let body = match tried {
                Ok(response) => return Ok((response, lease)),
                Err(Tried::Unsent(body)) => body,
                Err(Tried::Closed) if repeatable && is_kept => {
                    alone = true;
                    None
                }
                Err(Tried::Closed | Tried::Broken) => return Err(Failure::Broken),
                Err(Tried::TooLarge) => return Err(Failure::TooLarge),
            };
            let Some(head) = again else {
                return Err(Failure::Broken);
            };
            lease.renew();
            outgoing = Outgoing {
                head,
                body,
                length,
                wanted,
                repeatable,
            };
        }
        Err(Failure::Broken)
    }
}

/// What became of one try.
enum Tried {
    /// The upstream has seen nothing of it.
    Unsent(Option<Body>),
    /// The connection closed without an answer: most likely it was closing when the request came.
    Closed,
    /// The head of the answer exceeds the limits.
    TooLarge,
    /// What came was no answer.
    Broken,
}

async fn send_h2(
    h2: H2,
    outgoing: Outgoing,
    authority: &str,
    cut: &CutSignal,
) -> Result<Response<Answer>, Tried> {
    let Outgoing {
        mut head,
        body,
        length,
        wanted,
        ..
    } = outgoing;
    let path = head.uri.path_and_query().cloned().ok_or(Tried::Broken)?;
    // Path and host in the target.
    head.uri = Uri::builder()
        .scheme("https")
        .authority(authority)
        .path_and_query(path)
        .build()
        .map_err(|_| Tried::Broken)?;
    head.version = Version::HTTP_2;
    if let Some(length) = length {
        head.headers.insert(header::CONTENT_LENGTH, length.into());
    }
    let request = Request::from_parts(head, ());
    match h2.send(request, body, wanted.as_ref(), cut).await {
        Ok(response) => Ok(response.map(Answer::H2)),
        Err(Unanswered::Unsent(body)) => Err(Tried::Unsent(body)),
        Err(Unanswered::Closed) => Err(Tried::Closed),
        Err(Unanswered::Broken) => Err(Tried::Broken),
    }
}
