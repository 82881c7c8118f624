//! Listeners: TLS, the limits on what a client may send before anybody knows who it is, and the
//! dispatch of web traffic by host name.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use rustls::ServerConfig;
use rustls::server::ResolvesServerCert;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use crate::certificate::{Shown, TlsError};
use crate::gateway::Gateway;
use crate::{console, web};

/// From the first byte to the end of the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// From there to as many bytes as tell HTTP/2 from HTTP/1.1: only then do the limits of either
/// begin to hold.
const GREETING: Duration = Duration::from_secs(10);
/// The preface of HTTP/2 (RFC 9113 section 3.4). A request that names a host has more.
const GREETING_BYTES: usize = 24;
/// From the start of a request to the end of its header section.
const HEADERS: Duration = Duration::from_secs(10);
/// Header fields of one request. Browsers send about 25.
const HEADERS_MAX: usize = 100;
/// Buffer of one HTTP/1.1 connection, and so the longest header section: 10,000 connections
/// hold at most 640 MB.
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Decoded header section of one HTTP/2 request.
const H2_HEADER_BYTES_MAX: u32 = 32 * 1024;
/// Requests at once on one HTTP/2 connection.
const H2_STREAMS_MAX: u32 = 128;
/// A dead HTTP/2 peer is noticed after this and half of it again. Not activity.
const H2_PING: Duration = Duration::from_secs(30);
/// How long clients may take to go once the gateway stops.
const DRAIN: Duration = Duration::from_secs(1);

/// An error of a body; it ends the stream and says no more than that.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A body of an answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The client's address, as a request extension.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// What each listener shows its clients.
pub(crate) struct Acceptors {
    pub(crate) web: TlsAcceptor,
    pub(crate) postgres: TlsAcceptor,
}

/// How each listener speaks TLS, with the certificate that is shown at that moment.
pub(crate) fn tls(shown: &Arc<Shown>) -> Result<Acceptors, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let base = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(shown) as Arc<dyn ResolvesServerCert>);
    let with = |protocols: &[&[u8]]| {
        let mut config = base.clone();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    };
    Ok(Acceptors {
        web: with(&[b"h2", b"http/1.1"]),
        postgres: with(&[b"postgresql"]),
    })
}

/// Serves pages and APIs until told to stop.
pub(crate) async fn serve_web(
    listener: TcpListener,
    tls: TlsAcceptor,
    gateway: Arc<Gateway>,
    stopping: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(gateway.config.tuning.connections_max));
    let graceful = Arc::new(GracefulShutdown::new());
    let site = Site {
        console: console::router(Arc::clone(&gateway)),
        gateway,
    };
    loop {
        let (stream, peer, slot) = tokio::select! {
            () = stopping.cancelled() => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        let (tls, site, graceful) = (tls.clone(), site.clone(), Arc::clone(&graceful));
        tokio::spawn(async move {
            let _slot = slot;
            if let Err(error) = serve_connection(stream, peer, tls, site, &graceful).await {
                tracing::debug!(%peer, %error, "web connection");
            }
        });
    }
    if let Some(graceful) = Arc::into_inner(graceful) {
        let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
    }
}

/// The next connection, once there is room for one more.
pub(crate) async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Nagle's delay would hold back the last bytes of a cut.
                let _ = stream.set_nodelay(true);
                return (stream, peer, slot);
            }
            Err(error) => {
                // Out of file descriptors, most likely: pausing lets some be closed.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: TlsAcceptor,
    site: Site,
    graceful: &GracefulShutdown,
) -> Result<(), BoxError> {
    let stream = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await??;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_header_list_size(H2_HEADER_BYTES_MAX)
        .keep_alive_interval(H2_PING)
        .keep_alive_timeout(H2_PING / 2);
    let peer = Peer(peer.ip().to_canonical());
    let service = hyper::service::service_fn(move |request| {
        let site = site.clone();
        async move { Ok::<_, Infallible>(site.respond(peer, request).await) }
    });
    let stream = TokioIo::new(Greeted::new(stream));
    let connection = builder.serve_connection_with_upgrades(stream, service);
    graceful.watch(connection.into_owned()).await
}

/// A stream that fails when its client does not begin in time.
struct Greeted {
    stream: TlsStream<TcpStream>,
    /// Until when, and how many bytes are missing.
    waiting: Option<(Pin<Box<Sleep>>, usize)>,
}

impl Greeted {
    fn new(stream: TlsStream<TcpStream>) -> Self {
        let limit = Box::pin(tokio::time::sleep(GREETING));
        Self {
            stream,
            waiting: Some((limit, GREETING_BYTES)),
        }
    }
}

impl AsyncRead for Greeted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some((limit, _)) = &mut self.waiting
            && limit.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let count = buf.filled().len() - before;
        self.waiting = self.waiting.take().and_then(|(limit, missing)| {
            let missing = missing.saturating_sub(count);
            (missing > 0).then_some((limit, missing))
        });
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Greeted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Everything that is served by host name.
#[derive(Clone)]
struct Site {
    gateway: Arc<Gateway>,
    console: axum::Router,
}

impl Site {
    async fn respond(mut self, peer: Peer, mut request: Request<Incoming>) -> Response<Body> {
        let Some(host) = host_of(&request) else {
            return plain(StatusCode::BAD_REQUEST, "The request names no host.\n");
        };
        if host.eq_ignore_ascii_case(&self.gateway.config.portal) {
            request.extensions_mut().insert(peer);
            let request = request.map(axum::body::Body::new);
            let answer = match self.console.call(request).await {
                Ok(answer) => answer,
                Err(never) => match never {},
            };
            return answer.map(|body| body.map_err(Into::into).boxed_unsync());
        }
        let resources = &self.gateway.config.web;
        let found = resources
            .iter()
            .find(|web| host.eq_ignore_ascii_case(&web.host));
        match found {
            Some(resource) => web::respond(&self.gateway, resource, peer.0, request).await,
            // RFC 9110 section 15.5.20: this server does not speak for that host.
            None => plain(
                StatusCode::MISDIRECTED_REQUEST,
                "Nothing is served under this host.\n",
            ),
        }
    }
}

/// The host a request is for, without its port. HTTP/2 says it in the URI.
fn host_of<B>(request: &Request<B>) -> Option<String> {
    let authority = match request.uri().authority() {
        Some(authority) => authority.clone(),
        None => {
            let mut hosts = request.headers().get_all(header::HOST).iter();
            let host = hosts.next()?.to_str().ok()?.parse().ok()?;
            // RFC 9112 section 3.2: more than one Host field is an error.
            if hosts.next().is_some() {
                return None;
            }
            host
        }
    };
    Some(authority.host().to_owned())
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let body = Full::new(Bytes::from_static(text.as_bytes()));
    let mut answer = Response::new(body.map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
