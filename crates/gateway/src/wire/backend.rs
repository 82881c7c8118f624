//! The resource behind the gateway in tests.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use curfew_web::Body;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::harness::{empty, full};

/// What the resource behind the gateway has seen.
#[derive(Debug, Default)]
pub(super) struct Backend {
    pub(super) connections: AtomicUsize,
    pub(super) requests: AtomicUsize,
    /// Bytes of `/flood` that it could still get rid of.
    pub(super) flooded: AtomicUsize,
    /// An upload that was broken off.
    pub(super) upload_broken: AtomicBool,
    /// Bytes of uploads that came after their answer.
    pub(super) uploaded: AtomicUsize,
    /// Streams that are still held open by the gateway.
    pub(super) open: Arc<AtomicUsize>,
}

/// Serves the resource's connections.
pub(super) async fn serve(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    backend: Arc<Backend>,
) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        backend.connections.fetch_add(1, Ordering::SeqCst);
        let (acceptor, backend) = (acceptor.clone(), Arc::clone(&backend));
        let service = hyper::service::service_fn(move |request| {
            let backend = Arc::clone(&backend);
            async move { Ok::<_, Infallible>(backend.answer(request).await) }
        });
        tokio::spawn(async move {
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = match acceptor {
                None => {
                    builder
                        .serve_connection_with_upgrades(TokioIo::new(stream), service)
                        .await
                }
                Some(acceptor) => {
                    let io = TokioIo::new(acceptor.accept(stream).await.unwrap());
                    builder.serve_connection_with_upgrades(io, service).await
                }
            };
        });
    }
}

/// Counts a stream as open for as long as it is held.
struct Held(Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Backend {
    async fn answer(self: Arc<Self>, mut request: Request<Incoming>) -> Response<Body> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        self.open.fetch_add(1, Ordering::SeqCst);
        let held = Held(Arc::clone(&self.open));
        match request.uri().path() {
            "/events" => self.stream(
                held,
                Duration::from_millis(5),
                b"data: x\n\n",
                "text/event-stream",
            ),
            "/flood" => self.stream(
                held,
                Duration::ZERO,
                &[b'x'; 65_536],
                "application/octet-stream",
            ),
            "/slow" => std::future::pending().await,
            "/upload" => {
                let broken = request.into_body().collect().await.is_err();
                self.upload_broken.store(broken, Ordering::SeqCst);
                Response::new(full("taken".to_owned()))
            }
            "/early" => {
                let mut body = request.into_body();
                tokio::spawn(async move {
                    while let Some(frame) = body.frame().await {
                        let Ok(frame) = frame else {
                            self.upload_broken.store(true, Ordering::SeqCst);
                            break;
                        };
                        let size = frame.data_ref().map_or(0, Bytes::len);
                        self.uploaded.fetch_add(size, Ordering::SeqCst);
                    }
                    drop(held);
                });
                Response::new(full("early".to_owned()))
            }
            "/trailers" => trailers(request).await,
            "/kept" => {
                let mut response = Response::new(full("kept".to_owned()));
                let headers = response.headers_mut();
                headers.insert("cache-control", "max-age=600".parse().unwrap());
                headers.insert("content-type", "text/html".parse().unwrap());
                response
            }
            "/ws" | "/poll/ws" => websocket(&mut request, held),
            _ => echo(request).await,
        }
    }

    fn stream(
        self: &Arc<Self>,
        held: Held,
        pause: Duration,
        chunk: &'static [u8],
        kind: &'static str,
    ) -> Response<Body> {
        let start = (Arc::clone(self), held);
        let frames = futures_util::stream::unfold(start, move |(backend, held)| async move {
            tokio::time::sleep(pause).await;
            backend.flooded.fetch_add(chunk.len(), Ordering::SeqCst);
            Some((Ok(Frame::data(Bytes::from_static(chunk))), (backend, held)))
        });
        let mut response = Response::new(Body::new(StreamBody::new(frames)));
        response
            .headers_mut()
            .insert("content-type", kind.parse().unwrap());
        response
    }
}

/// Says what it was sent: protocol, target, headers and body, a line each.
async fn echo(request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let mut said = format!("{:?} {} {}\n", head.version, head.method, head.uri);
    for (name, value) in &head.headers {
        said.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
    }
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    said.push_str(&format!("\n{}", String::from_utf8_lossy(&body)));
    let mut response = Response::new(
        Full::new(Bytes::from(said))
            .map_err(|never| match never {})
            .boxed_unsync(),
    );
    let headers = response.headers_mut();
    headers.insert("server", "backend/1.0".parse().unwrap());
    headers.append("set-cookie", "own=1".parse().unwrap());
    headers.append(
        "set-cookie",
        "__Host-curfew=evil; Path=/; Secure".parse().unwrap(),
    );
    response
}

/// Answers with trailers, and says which ones it was sent.
async fn trailers(request: Request<Incoming>) -> Response<Body> {
    let sent = request.into_body().collect().await.unwrap();
    let sent = sent.trailers().cloned().unwrap_or_default();
    let mut trailers = HeaderMap::new();
    for name in [
        "grpc-status",
        "curfew-subject",
        "x-forwarded-for",
        "set-cookie",
        "cache_control",
    ] {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        trailers.insert(name, http::HeaderValue::from_static("0"));
    }
    let frames = [
        Ok(Frame::data(Bytes::from(format!(
            "{:?}",
            sent.keys().collect::<Vec<_>>()
        )))),
        Ok(Frame::trailers(trailers)),
    ];
    Response::new(Body::new(StreamBody::new(futures_util::stream::iter(
        frames,
    ))))
}

/// Takes a handshake, and echoes texts.
fn websocket(request: &mut Request<Incoming>, held: Held) -> Response<Body> {
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let io = TokioIo::new(upgrade.await.unwrap());
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() && socket.send(message).await.is_err() {
                break;
            }
        }
        drop(held);
    });
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert("connection", "Upgrade".parse().unwrap());
    headers.insert("upgrade", "websocket".parse().unwrap());
    // The answer to the one key that the tests use (RFC 6455 section 1.3).
    headers.insert(
        "sec-websocket-accept",
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".parse().unwrap(),
    );
    response
}
