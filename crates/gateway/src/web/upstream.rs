//! The way to the protected resources: one pool of connections for each.
//!
//! Nothing is sent but with a [`Permit`] in hand: [`Upstream::exchange`] takes it by value and
//! gives it back. HTTP/2 is spoken where the resource offers it by ALPN.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use curfew_authority::ResourceName;
use http::header::{self, HeaderValue};
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Body;
use super::assertion::Assertions;
use super::body::Meter;
use super::head::Shape;
use super::tls::{self, Configs};
use crate::config::{Config, WebResource};
use crate::permit::{Cut, Permit};
use crate::secret::MasterKey;

/// How long name look-up, TCP and TLS may take together. A local network needs milliseconds;
/// two lost SYN packets cost 3 s.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// How long an unused connection is kept. Many servers close after 5 s: let go before, so that a
/// request does not run into the close.
const IDLE_TIME: Duration = Duration::from_secs(4);

/// Unused connections kept for one resource. Each holds about 10 kB: 640 kB.
const IDLE_MAX: usize = 64;

/// Requests on one HTTP/2 connection. Below the 100 that servers commonly allow, so that quiet
/// event streams never make others wait.
const STREAMS_MAX: usize = 64;

/// Requests and streams open to one resource at once, 64 connections' worth of HTTP/2.
const OPEN_MAX: usize = 4_096;

/// How long an HTTP/2 connection may be silent before it is asked for a sign of life, and how
/// long that may take.
const H2_PING_EVERY: Duration = Duration::from_secs(20);
const H2_PING_WAIT: Duration = Duration::from_secs(10);

/// How long a connection may take to become ready for the next request once an answer is through.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// How long an upstream may be silent before the head of its answer, counted from the last byte
/// of the request: two minutes, twice what other proxies grant.
const SILENCE_TIME: Duration = Duration::from_secs(120);

/// How often a request that was not sent, because a kept connection had just closed, is tried on
/// another kept one before a fresh connection is made.
const STALE_TRIES: usize = 2;

/// Why there is no answer. Safe to show to a client: it names no address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Failure {
    /// No connection.
    Unreachable,
    /// The connection broke before an answer, or what came was no HTTP.
    Broken,
    /// Too much is open already.
    Busy,
    /// Nothing moved for [`SILENCE_TIME`].
    Slow,
    /// The permit was taken back.
    Cut(Cut),
}

/// Why the pools cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// An upstream that cannot be spoken to as configured.
    #[error("upstream of `{resource}`: {problem}")]
    Unfit {
        /// Of which resource.
        resource: ResourceName,
        /// What is wrong.
        problem: String,
    },
    /// A file with certificate authorities cannot be used.
    #[error("upstream of `{resource}`: {}: {problem}", path.display())]
    Authorities {
        /// Of which resource.
        resource: ResourceName,
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// Every web resource's pool, and what signs assertions for them.
#[derive(Debug)]
pub(crate) struct Upstreams {
    pools: BTreeMap<ResourceName, Arc<Upstream>>,
    /// Made with the first request; `None` where the key turned out to be of no use.
    assertions: OnceLock<Option<Assertions>>,
}

impl Upstreams {
    /// Pools for every web resource. Connects to none of them yet.
    ///
    /// # Errors
    /// When a certificate file cannot be read or a host name is none.
    pub(crate) fn new(config: &Config) -> Result<Self, UpstreamError> {
        let pools = config
            .web
            .iter()
            .map(|web| Ok((web.name.clone(), Arc::new(Upstream::new(web)?))))
            .collect::<Result<_, UpstreamError>>()?;
        Ok(Self {
            pools,
            assertions: OnceLock::new(),
        })
    }

    /// The public keys that `Curfew-Assertion` can be checked with, as a JSON Web Key Set.
    pub(crate) fn jwks(&self, master: &MasterKey) -> Option<&str> {
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
    tls: Option<(ServerName<'static>, Configs)>,
    kept: Mutex<Kept>,
    open: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Kept {
    h1: Vec<(H1, Instant)>,
    h2: Vec<H2>,
}

#[derive(Debug)]
struct H1 {
    sender: http1::SendRequest<Body>,
    task: AbortHandle,
}

#[derive(Clone, Debug)]
struct H2 {
    sender: http2::SendRequest<Body>,
    streams: Arc<AtomicUsize>,
}

enum Connection {
    H1(H1),
    H2(H2),
}

/// The connection an answer comes through. Let go without [`Lease::finish`], it is closed: what
/// was cut must not go on in the background.
#[derive(Debug)]
pub(super) struct Lease {
    pool: Arc<Upstream>,
    h1: Option<H1>,
    streams: Option<Arc<AtomicUsize>>,
    _open: OwnedSemaphorePermit,
}

impl Lease {
    /// The whole answer is through: the connection can serve again.
    pub(super) fn finish(mut self) {
        let Some(mut h1) = self.h1.take() else { return };
        if h1.sender.is_ready() {
            self.pool.keep(h1);
            return;
        }
        let pool = Arc::clone(&self.pool);
        tokio::spawn(async move {
            match tokio::time::timeout(SETTLE_TIME, h1.sender.ready()).await {
                Ok(Ok(())) => pool.keep(h1),
                Ok(Err(_)) | Err(_) => h1.task.abort(),
            }
        });
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(h1) = &self.h1 {
            h1.task.abort();
        }
        if let Some(streams) = &self.streams {
            streams.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// Bytes to and from an upstream.
trait Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl Io for TcpStream {}
impl Io for TlsStream<TcpStream> {}

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
            let name = ServerName::try_from(host.clone())
                .map_err(|_| unfit("its host cannot stand in a certificate"))?;
            Some((name, tls::configs(web)?))
        } else {
            None
        };
        let open = Arc::new(Semaphore::new(OPEN_MAX));
        Ok(Self {
            host,
            port,
            tls,
            kept: Mutex::default(),
            open,
        })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A panic while holding the pool leaves it whole: each change is one push or removal.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
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
        kept.h2.retain(|held| !held.sender.is_closed());
        // Counted up under the lock, so that no connection is given out beyond its share.
        let room = kept
            .h2
            .iter()
            .find(|held| held.streams.load(Ordering::Acquire) < STREAMS_MAX);
        if let Some(held) = room {
            held.streams.fetch_add(1, Ordering::AcqRel);
            return Some(Connection::H2(held.clone()));
        }
        while let Some((held, since)) = kept.h1.pop() {
            if held.sender.is_ready() && now - since < IDLE_TIME {
                return Some(Connection::H1(held));
            }
        }
        None
    }

    async fn connect(&self, upgrade: bool) -> Result<(Box<dyn Io>, bool), Failure> {
        let connecting = async {
            let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
            tcp.set_nodelay(true)?;
            let Some((name, configs)) = &self.tls else {
                return Ok::<(Box<dyn Io>, bool), std::io::Error>((Box::new(tcp), false));
            };
            let config = if upgrade { &configs.h1 } else { &configs.any };
            let connector = TlsConnector::from(Arc::clone(config));
            let stream = connector.connect(name.clone(), tcp).await?;
            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            Ok((Box::new(stream), h2))
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

    async fn fresh(&self) -> Result<Connection, Failure> {
        let (io, h2) = self.connect(false).await?;
        if !h2 {
            return Ok(Connection::H1(h1(io).await?));
        }
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(H2_PING_EVERY)
            .keep_alive_timeout(H2_PING_WAIT)
            .adaptive_window(true)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|_| Failure::Broken)?;
        tokio::spawn(connection);
        let held = H2 {
            sender,
            streams: Arc::new(AtomicUsize::new(1)),
        };
        self.kept().h2.push(held.clone());
        Ok(Connection::H2(held))
    }

    /// Sends a request and waits for the head of its answer, for as long as the permit is good
    /// and something moves. `authority` is the public host, which is what the resource sees as
    /// its own. A handshake gets a connection of its own, since that may switch protocols.
    pub(super) async fn exchange(
        self: &Arc<Self>,
        permit: Permit,
        request: Request<Body>,
        authority: &str,
        shape: Shape,
        meter: &Meter,
    ) -> (Permit, Result<(Response<Incoming>, Lease), Failure>) {
        let answering = async {
            match shape {
                Shape::Plain => self.send(request, authority).await,
                Shape::WebSocket => self.shake_hands(request, authority).await,
            }
        };
        let answer = tokio::select! {
            biased;
            cut = permit.cut().fired() => Err(Failure::Cut(cut)),
            answer = answering => answer,
            () = meter.silent_for(SILENCE_TIME) => Err(Failure::Slow),
        };
        (permit, answer)
    }

    async fn send(
        self: &Arc<Self>,
        mut request: Request<Body>,
        authority: &str,
    ) -> Result<(Response<Incoming>, Lease), Failure> {
        let open = Arc::clone(&self.open)
            .try_acquire_owned()
            .map_err(|_| Failure::Busy)?;
        let mut lease = Lease {
            pool: Arc::clone(self),
            h1: None,
            streams: None,
            _open: open,
        };
        for attempt in 0..=STALE_TRIES {
            let kept = if attempt < STALE_TRIES {
                self.take()
            } else {
                None
            };
            let connection = match kept {
                Some(kept) => kept,
                None => self.fresh().await?,
            };
            let tried = match connection {
                Connection::H1(h1) => {
                    address_h1(&mut request, authority)?;
                    let h1 = lease.h1.insert(h1);
                    h1.sender.try_send_request(request).await
                }
                Connection::H2(mut h2) => {
                    // The lease counts the stream back, whatever happens from here on.
                    lease.streams = Some(h2.streams);
                    address_h2(&mut request, authority)?;
                    h2.sender.try_send_request(request).await
                }
            };
            let mut error = match tried {
                Ok(response) => return Ok((response, lease)),
                Err(error) => error,
            };
            let Some(unsent) = error.take_message() else {
                tracing::warn!(error = %error.into_error(), "an upstream broke off");
                return Err(Failure::Broken);
            };
            request = unsent;
            lease = lease.renew();
        }
        Err(Failure::Broken)
    }

    async fn shake_hands(
        self: &Arc<Self>,
        mut request: Request<Body>,
        authority: &str,
    ) -> Result<(Response<Incoming>, Lease), Failure> {
        let open = Arc::clone(&self.open)
            .try_acquire_owned()
            .map_err(|_| Failure::Busy)?;
        let (io, _) = self.connect(true).await?;
        let mut h1 = h1(io).await?;
        address_h1(&mut request, authority)?;
        let response = h1.sender.send_request(request).await.map_err(|error| {
            tracing::warn!(%error, "an upstream broke off a handshake");
            Failure::Broken
        })?;
        let pool = Arc::clone(self);
        Ok((
            response,
            Lease {
                pool,
                h1: Some(h1),
                streams: None,
                _open: open,
            },
        ))
    }
}

impl Lease {
    /// The same place among the open ones, without the connection that turned out stale.
    fn renew(mut self) -> Self {
        if let Some(h1) = self.h1.take() {
            h1.task.abort();
        }
        if let Some(streams) = self.streams.take() {
            streams.fetch_sub(1, Ordering::AcqRel);
        }
        self
    }
}

async fn h1(io: Box<dyn Io>) -> Result<H1, Failure> {
    let (sender, connection) = http1::Builder::new()
        .handshake(TokioIo::new(io))
        .await
        .map_err(|_| Failure::Broken)?;
    let task = tokio::spawn(connection.with_upgrades()).abort_handle();
    Ok(H1 { sender, task })
}

/// HTTP/1.1 names the host in a header and the path in the request line.
fn address_h1(request: &mut Request<Body>, authority: &str) -> Result<(), Failure> {
    let path = request
        .uri()
        .path_and_query()
        .cloned()
        .ok_or(Failure::Broken)?;
    *request.uri_mut() = Uri::from(path);
    *request.version_mut() = Version::HTTP_11;
    let host = HeaderValue::from_str(authority).map_err(|_| Failure::Broken)?;
    request.headers_mut().insert(header::HOST, host);
    Ok(())
}

/// HTTP/2 names both in the target.
fn address_h2(request: &mut Request<Body>, authority: &str) -> Result<(), Failure> {
    let path = request
        .uri()
        .path_and_query()
        .cloned()
        .ok_or(Failure::Broken)?;
    *request.uri_mut() = Uri::builder()
        .scheme("https")
        .authority(authority)
        .path_and_query(path)
        .build()
        .map_err(|_| Failure::Broken)?;
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().remove(header::HOST);
    Ok(())
}
