//! The witness's side: `curfew witness serve`, a C2SP tlog-witness over plain HTTP/1.1.
//!
//! What is cosigned is decided in [`curfew_ledger::witness`]; here is what a client may send and for
//! how long. A proxy in front gives it TLS, which it does not need to be believed.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use curfew_ledger::witness::{AddError, REQUEST_BYTES_MAX, SIZE_TYPE, WitnessError};
use curfew_ledger::{RealDisk, Witness};
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use curfew_gate::clients::accept;

/// Connections at once: each log that is witnessed has one or two. Each holds at most its buffer and
/// a request: 256 × 80 KiB = 20 MiB.
const CONNECTIONS_MAX: usize = 256;

/// From the start of a request to the end of its header section, and from there to the end of its
/// body. A log sends a few kilobytes at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// Buffer of one connection, and so the longest header section.
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// A witness that listens.
#[derive(Debug)]
pub struct WitnessServer {
    witness: Arc<Witness>,
    listener: TcpListener,
    address: SocketAddr,
}

/// Why a witness does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// What it knows cannot be used.
    #[error(transparent)]
    Witness(#[from] WitnessError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

impl WitnessServer {
    /// Takes up the witness in `dir` and listens on `address`.
    ///
    /// # Errors
    /// When its directory cannot be used or the address cannot be listened on.
    pub async fn bind(dir: &Path, address: SocketAddr) -> Result<Self, ServeError> {
        let witness = Arc::new(Witness::open(Arc::new(RealDisk), dir)?);
        let failed = |source| ServeError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self {
            witness,
            listener,
            address,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it knows.
    pub fn witness(&self) -> &Witness {
        &self.witness
    }

    /// Answers for as long as the process lives.
    pub async fn serve(&self) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        // They end with this: nothing is cosigned by a witness that was stopped.
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let (stream, peer, slot) = accept(&self.listener, &slots).await;
            let witness = Arc::clone(&self.witness);
            connections.spawn(async move {
                let _slot = slot;
                let service = hyper::service::service_fn(|request| {
                    let witness = Arc::clone(&witness);
                    async move { Ok::<_, Infallible>(respond(witness, request).await) }
                });
                let served = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(PATIENCE)
                    .max_buf_size(HEADER_BYTES_MAX)
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = served.await {
                    tracing::debug!(%peer, %error, "witness connection");
                }
            });
        }
    }
}

type Answer = Response<Full<Bytes>>;

async fn respond(witness: Arc<Witness>, request: Request<Incoming>) -> Answer {
    let path = request.uri().path();
    if path == "/add-checkpoint" {
        if request.method() != Method::POST {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only POST\n");
            let allow = HeaderValue::from_static("POST");
            answer.headers_mut().insert(header::ALLOW, allow);
            return answer;
        }
        return add_checkpoint(witness, request).await;
    }
    let hash = path
        .strip_prefix('/')
        .and_then(|path| path.strip_suffix("/checkpoint"));
    let is_get = request.method() == Method::GET;
    match hash.and_then(|hash| witness.checkpoint(hash)) {
        Some(note) if is_get => text(StatusCode::OK, note),
        _ => text(StatusCode::NOT_FOUND, "nothing is here\n"),
    }
}

async fn add_checkpoint(witness: Arc<Witness>, request: Request<Incoming>) -> Answer {
    let body = Limited::new(request.into_body(), REQUEST_BYTES_MAX);
    let body = match tokio::time::timeout(PATIENCE, body.collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "over 64 KiB\n");
        }
        Ok(Err(_)) => return text(StatusCode::BAD_REQUEST, "the body broke off\n"),
        Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "the body did not come\n"),
    };
    let Some(now) = wall_seconds() else {
        tracing::error!("the wall clock is not set: nothing is cosigned");
        return text(StatusCode::SERVICE_UNAVAILABLE, "its clock is not set\n");
    };
    // It ends in a sync of the disk.
    let added = tokio::task::spawn_blocking(move || witness.add_checkpoint(&body, now));
    match added.await {
        Ok(Ok(lines)) => text(StatusCode::OK, lines),
        Ok(Err(error)) => refused(&error),
        Err(error) => {
            tracing::error!(%error, "a request was not answered");
            text(StatusCode::INTERNAL_SERVER_ERROR, "it failed\n")
        }
    }
}

fn refused(error: &AddError) -> Answer {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let AddError::Elsewhere { size } = error {
        let mut answer = text(status, format!("{size}\n"));
        let kind = HeaderValue::from_static(SIZE_TYPE);
        answer.headers_mut().insert(header::CONTENT_TYPE, kind);
        return answer;
    }
    if matches!(error, AddError::Inconsistent { .. }) {
        // The log's key has signed a history that cannot be: the one thing a witness is there for.
        tracing::error!(%error, "REFUSED A FORKED LOG");
    } else if matches!(error, AddError::OldKey(_)) {
        // A stolen key, or an old copy of the log that goes on by it.
        tracing::error!(%error, "REFUSED A WITHDRAWN KEY");
    } else {
        tracing::warn!(%error, "refused to cosign");
    }
    if status.is_server_error() {
        // Files are nobody's business.
        return text(status, "it cannot be remembered at present\n");
    }
    text(status, format!("{error}\n"))
}

/// The wall clock: the time in a cosignature is for others to compare with theirs.
/// None where it stands before anybody could have set it: 0 would mean that no time is told.
fn wall_seconds() -> Option<u64> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    u64::try_from(now.tv_sec).ok().filter(|now| *now > 0)
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
