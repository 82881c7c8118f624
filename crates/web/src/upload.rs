//! What a client sends on: counted, paced, and stopped at the moment the permit is.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use curfew_gate::permit::Cut;
use http::Version;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::activity::MOVED_BYTES;
use super::flow::{Flow, Stopped};
use super::{BoxError, fields};

/// What an upload must bring in for each second beyond `body_timeout` that Curfew waits for it, in
/// bytes. GPRS carries ten times as much.
const PACE_BYTES: u64 = 256;

/// How long a body is held back for the resource's `100 Continue`. curl waits as long for ours;
/// a resource that knows nothing of it costs an upload this much.
const CONTINUE_TIME: Duration = Duration::from_secs(1);

/// How long the rest of a body is read and thrown away over HTTP/2, at most and while nothing
/// comes: a client whose stream is reset under its upload may take the answer for lost.
const DISCARD_TIME: Duration = Duration::from_secs(30);
const DISCARD_IDLE: Duration = Duration::from_secs(5);

/// Lets a request go whose body nobody wants any more. An HTTP/1.1 connection lingers by itself.
pub(super) fn leave_unread(mut body: Incoming, version: Version) {
    if body.is_end_stream() || version != Version::HTTP_2 {
        return;
    }
    let rest =
        async move { while let Ok(Some(Ok(_))) = timeout(DISCARD_IDLE, body.frame()).await {} };
    // None while the program ends.
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(timeout(DISCARD_TIME, rest));
    }
}

/// Why a body broke off at the client's side.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Torn {
    /// The client went away, or what it sent was no body.
    Broken,
    /// It sent too little for too long.
    Stalled,
}

/// Says afterwards how a body broke off; the error itself gets lost on its way through the client
/// of the upstream.
#[derive(Clone, Debug, Default)]
pub(super) struct Tear(Arc<AtomicU8>);

impl Tear {
    fn set(&self, torn: Torn) {
        let value = match torn {
            Torn::Broken => 1,
            Torn::Stalled => 2,
        };
        self.0.store(value, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Option<Torn> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(Torn::Broken),
            _ => Some(Torn::Stalled),
        }
    }
}

/// The body came too slowly.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the client sent too little for too long")]
struct Stalled;

/// Holds a body back until the resource wants it (RFC 9110 section 10.1.1), or has answered without
/// it.
pub(super) struct Gate {
    open: Pin<Box<dyn Future<Output = ()> + Send>>,
    limit: Pin<Box<Sleep>>,
}

impl Gate {
    /// A gate, and what opens it.
    pub(super) fn new() -> (Self, CancellationToken) {
        let token = CancellationToken::new();
        let gate = Self {
            open: Box::pin(token.clone().cancelled_owned()),
            limit: Box::pin(tokio::time::sleep(CONTINUE_TIME)),
        };
        (gate, token)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.open.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        self.limit.as_mut().poll(cx)
    }
}

/// How long the client has been waited for.
struct Pace {
    /// What it may take besides what it has earned.
    grace: Duration,
    /// Waited for so far, and since when once more.
    waited: Duration,
    since: Option<Instant>,
    received: u64,
    limit: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    fn came(&mut self, bytes: usize) {
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
        self.received = self.received.saturating_add(bytes as u64);
    }

    /// Ready once the client has been waited for too long.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let earned = Duration::from_secs(self.received / PACE_BYTES);
        let left = (self.grace + earned).saturating_sub(self.waited);
        let limit = self
            .limit
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(since + left)));
        if limit.deadline() != since + left {
            limit.as_mut().reset(since + left);
        }
        limit.as_mut().poll(cx)
    }
}

/// What the client sends.
pub(super) struct Upload {
    /// None once it is given up, or was never asked for.
    inner: Option<Incoming>,
    version: Version,
    cut: Pin<Box<dyn Future<Output = Cut> + Send>>,
    gate: Option<Gate>,
    pace: Pace,
    /// Bytes since they last were activity.
    moved: usize,
    tear: Tear,
    flow: Arc<Flow>,
}

impl Upload {
    /// The client's body, for as long as the permit behind `flow` holds and the client keeps up
    /// its pace after `grace`.
    pub(super) fn new(
        inner: Incoming,
        version: Version,
        flow: &Arc<Flow>,
        grace: Duration,
        gate: Option<Gate>,
        tear: Tear,
    ) -> Self {
        let signal = flow.signal().clone();
        Self {
            inner: Some(inner),
            version,
            cut: Box::pin(async move { signal.fired().await }),
            gate,
            pace: Pace {
                grace,
                waited: Duration::ZERO,
                since: None,
                received: 0,
                limit: None,
            },
            moved: 0,
            tear,
            flow: Arc::clone(flow),
        }
    }

    fn stalled(&mut self, cx: &mut Context<'_>) -> bool {
        // Once the resource answers, both talk for as long as they like.
        !self.flow.is_answered() && self.pace.poll_late(cx).is_ready() && !self.flow.is_answered()
    }

    fn came(&mut self, bytes: usize) {
        self.pace.came(bytes);
        self.flow.count_to_resource(bytes);
        self.moved += bytes;
        if self.moved >= MOVED_BYTES {
            self.moved %= MOVED_BYTES;
            self.flow.touch();
        }
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(Stopped.into())));
        }
        if let Some(gate) = &mut self.gate {
            ready!(gate.poll(cx));
            self.gate = None;
            if self.flow.is_answered() {
                // The client was never told to go on, and may never do.
                self.inner = None;
                self.flow.uploaded(false);
            }
        }
        let Some(inner) = &mut self.inner else {
            // An end or an error would break the answer off, too.
            return Poll::Pending;
        };
        let Poll::Ready(frame) = Pin::new(inner).poll_frame(cx) else {
            if self.stalled(cx) {
                self.tear.set(Torn::Stalled);
                return Poll::Ready(Some(Err(Stalled.into())));
            }
            return Poll::Pending;
        };
        Poll::Ready(match frame {
            None => {
                self.flow.uploaded(true);
                None
            }
            Some(Err(error)) => {
                self.tear.set(Torn::Broken);
                Some(Err(error.into()))
            }
            Some(Ok(mut frame)) => {
                self.came(frame.data_ref().map_or(0, Buf::remaining));
                if let Some(trailers) = frame.trailers_mut() {
                    fields::pass_trailers(trailers);
                }
                if self.is_end_stream() {
                    self.flow.uploaded(true);
                }
                Some(Ok(frame))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_some_and(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.inner.as_ref();
        inner.map_or_else(SizeHint::default, Incoming::size_hint)
    }
}

impl Drop for Upload {
    /// Whoever took it wants no more of it.
    fn drop(&mut self) {
        self.flow.uploaded(self.is_end_stream());
        if let Some(inner) = self.inner.take() {
            leave_unread(inner, self.version);
        }
    }
}
