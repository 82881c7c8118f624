//! One web connection: how long it may take, wait and linger.
//!
//! ```text
//!   handshake ─▶ first request ─▶ answered ─▶ … ─▶ idle for `keep_alive` ─▶ wound down ─▶ closed
//!     10 s            10 s                                                     lingers
//! ```
//!
//! hyper has one limit for both the head of a request and the time between requests, and none for
//! an HTTP/2 connection without requests. So the limits are kept here, by what flows.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use curfew_gate::clients::{OpenRequest, Seat};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{Body, BoxError};

/// From the first byte of a request to the end of its header section; and from the handshake to
/// the first request.
pub(super) const HEAD: Duration = Duration::from_secs(10);

/// How long an answer waits for a client that still sends, at most and while nothing comes. To
/// close earlier would reset the connection, and the client would lose the answer.
const LINGER: Duration = Duration::from_secs(30);
const LINGER_IDLE: Duration = Duration::from_secs(5);

/// How long a connection may take to close once it is told to, lingering included.
const WIND_DOWN: Duration = Duration::from_secs(35);

/// What is read and thrown away at once while lingering.
const SCRATCH_BYTES: usize = 16 * 1024;

/// What happens on a connection, seen from both of its ends: the stream and the requests.
#[derive(Debug)]
pub(super) struct Watch {
    state: Mutex<State>,
    /// HTTP/2 has frames that belong to no request; their bytes do not begin one.
    multiplexed: bool,
    keep_alive: Duration,
    seat: Seat,
}

#[derive(Debug)]
struct State {
    /// Requests that are not yet answered to the end.
    open: usize,
    /// Since when that is none.
    idle_since: Instant,
    /// Since when a request has been coming that is not yet known.
    coming_since: Option<Instant>,
    served: bool,
    /// The last request had a body.
    bodied: bool,
}

/// When a connection without requests must have one.
enum Due {
    /// It has some; look again by then.
    Later(Instant),
    /// By then it is wound down.
    Idle(Instant),
    /// By then it is dropped.
    Late(Instant),
}

impl Due {
    fn at(&self) -> Instant {
        match self {
            Self::Later(at) | Self::Idle(at) | Self::Late(at) => *at,
        }
    }
}

impl Watch {
    pub(super) fn new(multiplexed: bool, keep_alive: Duration, seat: Seat) -> Arc<Self> {
        let state = State {
            open: 0,
            idle_since: Instant::now(),
            coming_since: None,
            served: false,
            bodied: false,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            multiplexed,
            keep_alive,
            seat,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes have come.
    fn heard(&self) {
        self.seat.heard();
        let mut state = self.state();
        if !self.multiplexed && state.open == 0 {
            state.coming_since.get_or_insert_with(Instant::now);
        }
    }

    /// A request has begun; it is open for as long as what is returned is held.
    pub(super) fn begin(self: &Arc<Self>, bodied: bool) -> Open {
        let request = self.seat.begin(bodied);
        let mut state = self.state();
        state.open += 1;
        state.coming_since = None;
        state.served = true;
        state.bodied = bodied;
        Open {
            watch: Arc::clone(self),
            request,
        }
    }

    fn due(&self) -> Due {
        let state = self.state();
        match state.coming_since {
            _ if state.open > 0 => Due::Later(Instant::now() + self.keep_alive),
            Some(since) => Due::Late(since + HEAD),
            None if state.served => Due::Idle(state.idle_since + self.keep_alive),
            // There is nobody to say goodbye to.
            None => Due::Late(state.idle_since + HEAD),
        }
    }
}

/// A request that is not yet answered to the end.
#[derive(Debug)]
pub(super) struct Open {
    watch: Arc<Watch>,
    pub(super) request: OpenRequest,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut state = self.watch.state();
        state.open = state.open.saturating_sub(1);
        state.idle_since = Instant::now();
    }
}

/// The body of an answer, whose request is open for as long as it is.
pub(super) struct Answering {
    pub(super) body: Body,
    pub(super) _open: Open,
}

impl http_body::Body for Answering {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body of a request to Curfew's own pages, which tells when all of it has come.
pub(super) struct Noticed {
    pub(super) body: Incoming,
    pub(super) request: OpenRequest,
}

impl http_body::Body for Noticed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.request.received();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

enum Closing {
    Not,
    Told,
    Lingering {
        until: Instant,
        idle: Pin<Box<Sleep>>,
    },
    Done,
}

/// The client's stream, with its place among the connections.
pub(super) struct ClientStream {
    stream: TlsStream<TcpStream>,
    watch: Arc<Watch>,
    closing: Closing,
    /// The seat behind it is held to the end, and a WebSocket takes the stream with it.
    gives_way: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl ClientStream {
    pub(super) fn new(stream: TlsStream<TcpStream>, watch: Arc<Watch>) -> Self {
        let gives_way = watch.seat.gives_way().clone();
        Self {
            stream,
            watch,
            closing: Closing::Not,
            gives_way: Box::pin(gives_way.cancelled_owned()),
        }
    }

    fn poll_given_way(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.gives_way.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "somebody else needed its place",
            )),
            Poll::Pending => Ok(()),
        }
    }

    /// Throws away what still comes, until the client closes too or has had its time.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Closing::Lingering { until, idle } = &mut self.closing else {
            return Poll::Ready(());
        };
        // Nobody will read it, so it is not decrypted.
        let (stream, _) = self.stream.get_mut();
        let mut scratch = [0; SCRATCH_BYTES];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    idle.as_mut()
                        .reset((Instant::now() + LINGER_IDLE).min(*until));
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => break,
            }
            // As much as there is could take for ever.
            if Instant::now() >= *until {
                return Poll::Ready(());
            }
        }
        idle.as_mut().poll(cx)
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_given_way(cx)?;
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.watch.heard();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
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
        let this = &mut *self;
        if matches!(this.closing, Closing::Not) {
            this.closing = Closing::Told;
        }
        if matches!(this.closing, Closing::Told) {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.closing = if this.watch.state().bodied {
                let now = Instant::now();
                Closing::Lingering {
                    until: now + LINGER,
                    idle: Box::pin(tokio::time::sleep_until(now + LINGER_IDLE)),
                }
            } else {
                Closing::Done
            };
        }
        ready!(this.poll_linger(cx));
        this.closing = Closing::Done;
        Poll::Ready(Ok(()))
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

/// Serves a connection to its end, within its limits and until `stopping`. `wind_down` tells it to
/// take no more requests.
pub(super) async fn drive<C: Future<Output = hyper::Result<()>>>(
    connection: C,
    wind_down: impl Fn(Pin<&mut C>),
    watch: &Watch,
    stopping: &CancellationToken,
) -> Result<(), BoxError> {
    let mut connection = pin!(connection);
    let mut stopping = pin!(stopping.cancelled());
    let mut timer = pin!(tokio::time::sleep_until(watch.due().at()));
    let mut winding_down = false;
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                return Poll::Ready(result.map_err(Into::into));
            }
            let told = !winding_down && stopping.as_mut().poll(cx).is_ready();
            if !winding_down && !told {
                // A timer that is too early is corrected when it rings.
                let at = watch.due().at();
                if at < timer.deadline() {
                    timer.as_mut().reset(at);
                }
            }
            if !told {
                ready!(timer.as_mut().poll(cx));
                if winding_down {
                    return Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut).into()));
                }
                let now = Instant::now();
                match watch.due() {
                    Due::Late(at) if at <= now => {
                        return Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut).into()));
                    }
                    Due::Idle(at) if at <= now => {}
                    Due::Late(at) | Due::Idle(at) | Due::Later(at) => {
                        timer.as_mut().reset(at);
                        continue;
                    }
                }
            }
            winding_down = true;
            wind_down(connection.as_mut());
            timer.as_mut().reset(Instant::now() + WIND_DOWN);
        }
    })
    .await
}
