//! HTTP/2 to an upstream: many exchanges on one connection, each of which can be taken back
//! without the others.
//!
//! On `h2` itself rather than on hyper's client: at the cut a stream is reset together with what
//! of it waits to be sent, which hyper gives no handle for.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use curfew_gate::permit::CutSignal;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::{ANSWER_HEAD_BYTES_MAX, Failure, Io};
use crate::{Body, BoxError};

/// Requests on one connection. Below the 100 that servers commonly allow, so that quiet event
/// streams never make others wait.
const STREAMS_MAX: usize = 64;

/// What an upstream may send ahead of a client that reads slowly: on one stream, and on all 64 of
/// a connection together. At 100 ms of round trip 1 MiB is 10 MB/s.
const WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// How long a connection may be silent before it is asked for a sign of life, and how long that
/// may take.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_WAIT: Duration = Duration::from_secs(10);

/// A connection. Cheap to clone: all clones are one connection.
#[derive(Clone, Debug)]
pub(super) struct H2 {
    sender: SendRequest<Bytes>,
    streams: Arc<AtomicUsize>,
    /// It takes no new streams.
    retired: Arc<AtomicBool>,
    task: AbortHandle,
}

/// One of a connection's places, for as long as this is held.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Why a request has no answer.
pub(super) enum Unanswered {
    /// The upstream has seen nothing of it.
    Unsent(Option<Body>),
    /// The connection closed.
    Closed,
    /// The upstream ended it, or what came was no answer.
    Broken,
}

impl H2 {
    pub(super) async fn new(io: Box<dyn Io>) -> Result<Self, Failure> {
        let (sender, mut connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(ANSWER_HEAD_BYTES_MAX)
            .enable_push(false)
            .handshake(io)
            .await
            .map_err(|_| Failure::Broken)?;
        let streams = Arc::new(AtomicUsize::new(0));
        let pings = connection.ping_pong();
        let counted = Arc::clone(&streams);
        let driving = async move {
            tokio::select! {
                result = connection => if let Err(error) = result {
                    tracing::debug!(%error, "an HTTP/2 connection to an upstream ended");
                },
                () = unheard(pings, &counted) => {
                    tracing::warn!("an upstream no longer answers on its HTTP/2 connection");
                }
            }
        };
        Ok(Self {
            sender,
            streams,
            retired: Arc::default(),
            task: tokio::spawn(driving).abort_handle(),
        })
    }

    /// Whether it can take another request at all.
    pub(super) fn serves(&self) -> bool {
        !self.task.is_finished() && !self.retired.load(Ordering::Acquire)
    }

    /// A place for one more request, if there is one. Called by one at a time.
    pub(super) fn place(&self) -> Option<Place> {
        let room = STREAMS_MAX.min(self.sender.current_max_send_streams());
        if self.streams.load(Ordering::Acquire) >= room {
            return None;
        }
        self.streams.fetch_add(1, Ordering::AcqRel);
        Some(Place(Arc::clone(&self.streams)))
    }

    /// Sends a request and waits for the head of its answer. At the cut the stream is reset,
    /// whoever is or is not reading.
    pub(super) async fn send(
        self,
        request: Request<()>,
        body: Option<Body>,
        wanted: Option<&CancellationToken>,
        cut: &CutSignal,
    ) -> Result<Response<Stream>, Unanswered> {
        let retired = Arc::clone(&self.retired);
        let unsent = |body| {
            retired.store(true, Ordering::Release);
            Unanswered::Unsent(body)
        };
        let Ok(mut sender) = self.sender.ready().await else {
            return Err(unsent(body));
        };
        let Ok((mut response, stream)) = sender.send_request(request, body.is_none()) else {
            return Err(unsent(body));
        };
        let whole = body.is_none();
        if let Some(body) = body {
            tokio::spawn(pump(body, stream, cut.clone()));
        }
        if let Some(wanted) = wanted {
            wait_for_continue(&mut response, wanted).await;
        }
        match response.await {
            Ok(response) => {
                // `h2` holds the data to it.
                let length = response.headers().get(header::CONTENT_LENGTH);
                let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
                Ok(response.map(|stream| Stream::new(stream, length)))
            }
            Err(error) => {
                if error.is_go_away() || error.is_io() {
                    retired.store(true, Ordering::Release);
                }
                // RFC 9113 section 8.7: nothing of it was processed.
                if whole && error.reason() == Some(Reason::REFUSED_STREAM) {
                    return Err(Unanswered::Unsent(None));
                }
                tracing::debug!(%error, "no answer on an HTTP/2 stream");
                Err(if error.is_go_away() || error.is_io() {
                    Unanswered::Closed
                } else {
                    Unanswered::Broken
                })
            }
        }
    }
}

/// Tells when the upstream wants the body, as far as it says so before it answers.
async fn wait_for_continue(response: &mut ResponseFuture, wanted: &CancellationToken) {
    while let Some(Ok(told)) = poll_fn(|cx| response.poll_informational(cx)).await {
        if told.status() == StatusCode::CONTINUE {
            return wanted.cancel();
        }
    }
}

/// Returns once the upstream does not answer a ping while it has something to do.
async fn unheard(pings: Option<PingPong>, streams: &AtomicUsize) {
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(PING_EVERY).await;
        if streams.load(Ordering::Acquire) == 0 {
            continue;
        }
        let heard = tokio::time::timeout(PING_WAIT, pings.ping(Ping::opaque())).await;
        if !matches!(heard, Ok(Ok(_))) {
            return;
        }
    }
}

/// Sends a body, and takes back what of it is still here once the permit ends.
async fn pump(mut body: Body, mut stream: SendStream<Bytes>, cut: CutSignal) {
    let sent = tokio::select! {
        biased;
        _ = cut.fired() => false,
        sent = feed(&mut body, &mut stream) => sent,
    };
    drop(body);
    if sent {
        // What waits here to be written is the permit's, too. A stream that is over stays over.
        cut.fired().await;
    }
    stream.send_reset(Reason::CANCEL);
}

/// Whether all of it went.
async fn feed(body: &mut Body, stream: &mut SendStream<Bytes>) -> bool {
    loop {
        let frame = tokio::select! {
            biased;
            _ = poll_fn(|cx| stream.poll_reset(cx)) => return false,
            frame = body.frame() => frame,
        };
        let Some(frame) = frame else {
            return stream.send_data(Bytes::new(), true).is_ok();
        };
        let frame = match frame {
            Ok(frame) => frame,
            Err(_) => return false,
        };
        match frame.into_data() {
            Ok(mut data) => {
                while data.has_remaining() {
                    stream.reserve_capacity(data.remaining());
                    let Some(Ok(room)) = poll_fn(|cx| stream.poll_capacity(cx)).await else {
                        return false;
                    };
                    // No more than the upstream takes now, so that nothing is left to wait here.
                    let piece = data.split_to(room.min(data.remaining()));
                    if !piece.is_empty() && stream.send_data(piece, false).is_err() {
                        return false;
                    }
                }
            }
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                return stream.send_trailers(trailers).is_ok();
            }
        }
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) struct Stream {
    stream: RecvStream,
    /// Bytes to come, where the head says so.
    left: Option<u64>,
    data_over: bool,
    over: bool,
}

impl Stream {
    fn new(stream: RecvStream, length: Option<u64>) -> Self {
        Self {
            stream,
            left: length,
            data_over: false,
            over: false,
        }
    }

    fn poll_trailers(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<HeaderMap, h2::Error>>> {
        let trailers = ready!(self.stream.poll_trailers(cx));
        self.over = true;
        Poll::Ready(trailers.transpose())
    }
}

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if !self.data_over {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Taken, so the upstream may send as much more.
                    self.stream.flow_control().release_capacity(data.len())?;
                    let length = data.len() as u64;
                    self.left = self.left.map(|left| left.saturating_sub(length));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                // A whole answer that needs no more of the request may end it so (RFC 9113 section
                // 8.1).
                Some(Err(error))
                    if error.reason() == Some(Reason::NO_ERROR)
                        && self.left.is_none_or(|left| left == 0) =>
                {
                    self.over = true;
                    return Poll::Ready(None);
                }
                Some(Err(error)) => {
                    self.over = true;
                    return Poll::Ready(Some(Err(error.into())));
                }
                None => self.data_over = true,
            }
        }
        let trailers = ready!(self.poll_trailers(cx));
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers?))))
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.left {
            _ if self.is_end_stream() => SizeHint::with_exact(0),
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}
