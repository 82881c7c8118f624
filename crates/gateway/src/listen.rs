//! Listeners: TLS, the limits on what a client may send before anybody knows who it is, and the
//! dispatch of web traffic by host name.

mod connection;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use curfew_gate::clients::{self, Listener, OpenRequest, Peer, Seat, Seats, accepted, introduce};
use curfew_gate::tls::TlsError;
use curfew_web as web;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::server::ResolvesServerCert;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use self::connection::{Answering, ClientStream, Noticed, Watch, drive};
use crate::certificate::Shown;
use crate::gateway::Gateway;

pub(crate) use curfew_web::{Body, BoxError};

/// From the first byte to the end of the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
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
    let entrance = Arc::new(Entrance {
        seats: Seats::new(gateway.config.tuning.places()),
        tls,
        site: Site {
            console: curfew_portal::router(Arc::clone(&gateway.portal)),
            gateway,
        },
        stopping: stopping.clone(),
    });
    let connections = TaskTracker::new();
    loop {
        let (stream, peer) = tokio::select! {
            () = stopping.cancelled() => break,
            accepted = accepted(&listener) => accepted,
        };
        let entrance = Arc::clone(&entrance);
        connections.spawn(async move {
            if let Err(error) = entrance.serve(stream, peer).await {
                tracing::debug!(%peer, %error, "web connection");
            }
        });
    }
    connections.close();
    let _ = tokio::time::timeout(DRAIN, connections.wait()).await;
}

/// What every web connection needs.
struct Entrance {
    seats: Arc<Seats>,
    tls: TlsAcceptor,
    site: Site,
    stopping: CancellationToken,
}

impl Entrance {
    async fn serve(&self, mut stream: TcpStream, peer: SocketAddr) -> Result<(), BoxError> {
        let gateway = &self.site.gateway;
        let listen = &gateway.config.listen;
        let peer = introduce(&mut stream, peer, listen, Listener::Web).await?;
        let is_proxy = listen.client_header.is_some() && listen.trusts(peer);
        let Some(seat) = self.seats.find(peer, is_proxy).await else {
            tracing::warn!(%peer, "too many connections: one was turned away");
            return Ok(());
        };
        let handshake = tokio::time::timeout(HANDSHAKE, self.tls.accept(stream));
        let stream = tokio::select! {
            stream = handshake => stream??,
            () = seat.gives_way().cancelled() => return Ok(()),
        };
        seat.enter();
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let watch = Watch::new(h2, gateway.config.tuning.keep_alive.0, seat.clone());
        let stream = ClientStream::new(stream, Arc::clone(&watch));
        let (site, begun) = (self.site.clone(), Arc::clone(&watch));
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let open = begun.begin(!request.body().is_end_stream());
            let client = Client {
                address: peer,
                seat: seat.clone(),
                request: open.request.clone(),
            };
            let site = site.clone();
            async move {
                let answer = site.respond(client, request).await;
                Ok::<_, Infallible>(answer.map(|body| Answering { body, _open: open }))
            }
        });
        let (io, stopping) = (TokioIo::new(stream), &self.stopping);
        if h2 {
            let connection = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(H2_STREAMS_MAX)
                .max_header_list_size(H2_HEADER_BYTES_MAX)
                .keep_alive_interval(H2_PING)
                .keep_alive_timeout(H2_PING / 2)
                .serve_connection(io, service);
            drive(
                connection,
                http2::Connection::graceful_shutdown,
                &watch,
                stopping,
            )
            .await
        } else {
            let connection = http1::Builder::new()
                .max_headers(HEADERS_MAX)
                .max_buf_size(HEADER_BYTES_MAX)
                .serve_connection(io, service)
                .with_upgrades();
            let wind_down = http1::UpgradeableConnection::graceful_shutdown;
            drive(connection, wind_down, &watch, stopping).await
        }
    }
}

/// Who sends a request.
struct Client {
    address: IpAddr,
    seat: Seat,
    request: OpenRequest,
}

/// Everything that is served by host name.
#[derive(Clone)]
struct Site {
    gateway: Arc<Gateway>,
    console: axum::Router,
}

impl Site {
    async fn respond(mut self, client: Client, mut request: Request<Incoming>) -> Response<Body> {
        let config = &self.gateway.config;
        let peer = clients::of_request(request.headers(), client.address, &config.listen);
        let Some(host) = host_of(&request) else {
            return plain(StatusCode::BAD_REQUEST, "The request names no host.\n");
        };
        if host.eq_ignore_ascii_case(&config.portal) {
            request.extensions_mut().insert(Peer(peer));
            request.extensions_mut().insert(client.seat);
            let request = request.map(|body| {
                axum::body::Body::new(Noticed {
                    body,
                    request: client.request,
                })
            });
            let answer = match self.console.call(request).await {
                Ok(answer) => answer,
                Err(never) => match never {},
            };
            return answer.map(|body| body.map_err(Into::into).boxed_unsync());
        }
        let found = config
            .web
            .iter()
            .find(|web| host.eq_ignore_ascii_case(&web.host));
        match found {
            Some(resource) => {
                web::respond(&self.gateway.web, resource, peer, &client.seat, request).await
            }
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
