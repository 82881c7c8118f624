//! Bodies that end at the moment their permit does.
//!
//! Both directions are counted and polled together with the cut. A cut answer ends with an error:
//! HTTP/1.1 breaks off without its final chunk, HTTP/2 resets the stream, so that a client can
//! tell it from a whole one.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use curfew_authority::ClosedBy;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::upstream::Lease;
use super::{Body, BoxError};
use crate::permit::{Closing, Cut, CutSignal, Permit};
use crate::registrar::Registrar;

/// The body was stopped by Curfew.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the session's permit ended")]
struct Stopped;

/// What has flowed, and when something last did.
#[derive(Debug)]
pub(super) struct Meter {
    to_resource: AtomicU64,
    to_client: AtomicU64,
    /// The client's body broke off, or was no body.
    torn: AtomicBool,
    start: Instant,
    /// Milliseconds after `start`.
    moved: AtomicU64,
}

impl Meter {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            to_resource: AtomicU64::new(0),
            to_client: AtomicU64::new(0),
            torn: AtomicBool::new(false),
            start: Instant::now(),
            moved: AtomicU64::new(0),
        })
    }

    pub(super) fn count_to_resource(&self, bytes: usize) {
        self.to_resource
            .fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
        let moved = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(moved, Ordering::Relaxed);
    }

    pub(super) fn count_to_client(&self, bytes: usize) {
        self.to_client
            .fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
    }

    /// Whether it was the client who did not send what it began.
    pub(super) fn is_torn(&self) -> bool {
        self.torn.load(Ordering::Relaxed)
    }

    /// Waits until nothing has come from the client for `span`.
    pub(super) async fn silent_for(&self, span: Duration) {
        loop {
            let moved = Duration::from_millis(self.moved.load(Ordering::Relaxed));
            let until = self.start + moved + span;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    /// How the stream ended, just now.
    pub(super) fn closing(&self, by: ClosedBy, registrar: &Registrar) -> Closing {
        Closing {
            by,
            closed: registrar.now(),
            bytes_in: self.to_resource.load(Ordering::Relaxed),
            bytes_out: self.to_client.load(Ordering::Relaxed),
        }
    }
}

/// What the client sends.
pub(super) struct Upload {
    inner: Incoming,
    cut: Pin<Box<dyn Future<Output = Cut> + Send>>,
    meter: Arc<Meter>,
}

impl Upload {
    /// The client's body, for as long as `signal` has not fired.
    pub(super) fn wrap(inner: Incoming, signal: &CutSignal, meter: &Arc<Meter>) -> Body {
        if inner.is_end_stream() {
            return super::answer::empty();
        }
        let signal = signal.clone();
        let cut = Box::pin(async move { signal.fired().await });
        Body::new(Self {
            inner,
            cut,
            meter: Arc::clone(meter),
        })
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
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if matches!(frame, Some(Err(_))) {
            self.meter.torn.store(true, Ordering::Relaxed);
        }
        let size = frame
            .as_ref()
            .and_then(|frame| frame.as_ref().ok()?.data_ref().map(Buf::remaining));
        self.meter.count_to_resource(size.unwrap_or(0));
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// What the resource answers, and everything that must end with it.
struct Live {
    inner: Incoming,
    lease: Lease,
    permit: Permit,
}

struct Shared {
    flow: Mutex<Flow>,
    meter: Arc<Meter>,
    registrar: Registrar,
    /// Its end is an entry of its own, however it comes.
    long: bool,
}

struct Flow {
    live: Option<Live>,
    cut: bool,
    waker: Option<Waker>,
}

impl Shared {
    fn flow(&self) -> MutexGuard<'_, Flow> {
        // Only hyper's body is polled while this is held; a panic there leaves nothing torn.
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The permit was taken back: nothing more leaves the resource, whoever is or is not reading.
    fn cut(&self, cut: Cut) {
        let waker = {
            let mut flow = self.flow();
            let Some(live) = flow.live.take() else { return };
            flow.cut = true;
            let Live {
                inner,
                lease,
                permit,
            } = live;
            drop((inner, lease));
            permit.close(self.meter.closing(cut.cause.closed_by(), &self.registrar));
            flow.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// It ended by itself.
    fn end(&self, flow: &mut Flow, by: ClosedBy, whole: bool) {
        let Some(Live {
            inner,
            lease,
            permit,
        }) = flow.live.take()
        else {
            return;
        };
        drop(inner);
        if whole {
            lease.finish();
        }
        if self.long {
            permit.close(self.meter.closing(by, &self.registrar));
        }
    }
}

/// The answer's body on its way to the client.
pub(super) struct Download {
    shared: Arc<Shared>,
    watcher: AbortHandle,
}

impl Download {
    /// The resource's body, for as long as the permit holds. A watcher of its own sees the cut
    /// even where the client has stopped reading and nobody polls the body.
    pub(super) fn wrap(
        inner: Incoming,
        lease: Lease,
        permit: Permit,
        meter: &Arc<Meter>,
        registrar: &Registrar,
        long: bool,
    ) -> Body {
        if inner.is_end_stream() {
            lease.finish();
            return super::answer::empty();
        }
        let signal = permit.cut().clone();
        let live = Some(Live {
            inner,
            lease,
            permit,
        });
        let shared = Arc::new(Shared {
            flow: Mutex::new(Flow {
                live,
                cut: false,
                waker: None,
            }),
            meter: Arc::clone(meter),
            registrar: registrar.clone(),
            long,
        });
        let watched = Arc::clone(&shared);
        let watcher = tokio::spawn(async move { watched.cut(signal.fired().await) }).abort_handle();
        Body::new(Self { shared, watcher })
    }
}

impl http_body::Body for Download {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let shared = &self.shared;
        let mut flow = shared.flow();
        let Some(live) = &mut flow.live else {
            return Poll::Ready(flow.cut.then(|| Err(Stopped.into())));
        };
        if let Some(cut) = live.permit.cut().now() {
            drop(flow);
            shared.cut(cut);
            return Poll::Ready(Some(Err(Stopped.into())));
        }
        let Poll::Ready(frame) = Pin::new(&mut live.inner).poll_frame(cx) else {
            flow.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let over = live.inner.is_end_stream();
        match frame {
            None => {
                shared.end(&mut flow, ClosedBy::Upstream, true);
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                shared.end(&mut flow, ClosedBy::Upstream, false);
                Poll::Ready(Some(Err(error.into())))
            }
            Some(Ok(frame)) => {
                shared
                    .meter
                    .count_to_client(frame.data_ref().map_or(0, Buf::remaining));
                if over {
                    shared.end(&mut flow, ClosedBy::Upstream, true);
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let flow = self.shared.flow();
        flow.live.is_none() && !flow.cut
    }

    fn size_hint(&self) -> SizeHint {
        let flow = self.shared.flow();
        match &flow.live {
            Some(live) => live.inner.size_hint(),
            None if flow.cut => SizeHint::default(),
            None => SizeHint::with_exact(0),
        }
    }
}

impl Drop for Download {
    /// The client went away before the end.
    fn drop(&mut self) {
        self.watcher.abort();
        let mut flow = self.shared.flow();
        self.shared.end(&mut flow, ClosedBy::Client, false);
    }
}
