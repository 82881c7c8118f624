//! One exchange on its way: both directions, the permit and the connection, which end together.
//!
//! ```text
//!   client ──▶ Upload ──▶ upstream ──▶ Download ──▶ client
//!                 └────────▶ Flow ◀────────┘   permit · lease of the connection · what has flowed
//! ```
//!
//! The permit lives until the last byte that it admits has gone, whichever way: an answer that
//! comes early does not end the upload. A cut answer ends with an error: HTTP/1.1 breaks off
//! without its final chunk, HTTP/2 resets the stream, so that a client can tell it from a whole
//! one.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use curfew_entry::ClosedBy;
use curfew_gate::permit::{Activity, Busy, Closing, Cut, CutSignal, Permit};
use curfew_gate::registrar::Registrar;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;

use super::upstream::{Answer, Lease};
use super::{Body, BoxError, fields};

/// The body was stopped by Curfew.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the session's permit ended")]
pub(super) struct Stopped;

/// An exchange, shared by its two directions.
pub(super) struct Flow {
    state: Mutex<State>,
    cut: CutSignal,
    registrar: Registrar,
    /// Where the person's doing is noted; none where it is not theirs.
    activity: Option<Activity>,
    to_resource: AtomicU64,
    to_client: AtomicU64,
    start: Instant,
    /// Milliseconds after `start` at which something last came from the client.
    moved: AtomicU64,
    /// The head of the answer has come.
    answered: AtomicBool,
}

#[derive(Default)]
struct State {
    /// The client still sends.
    uploading: bool,
    /// A direction ended before its end: the connection cannot serve again.
    broken: bool,
    /// Held while the whole request is with the resource and its answer has not begun.
    busy: Option<Busy>,
    live: Option<Live>,
    /// The permit was taken back while the answer was under way.
    cut: bool,
    waker: Option<Waker>,
}

/// What is held until both directions have ended.
struct Live {
    /// None once the answer has ended.
    answer: Option<Answer>,
    lease: Lease,
    permit: Permit,
    /// Its end is an entry of its own.
    long: bool,
}

impl Flow {
    /// Of a request that has `permit`. `active`: it is a person's doing.
    pub(super) fn new(
        permit: &Permit,
        active: bool,
        uploads: bool,
        registrar: &Registrar,
    ) -> Arc<Self> {
        let activity = active.then(|| permit.activity().clone());
        let state = State {
            uploading: uploads,
            busy: activity.as_ref().filter(|_| !uploads).map(Activity::busy),
            ..State::default()
        };
        Arc::new(Self {
            state: Mutex::new(state),
            cut: permit.cut().clone(),
            registrar: registrar.clone(),
            activity,
            to_resource: AtomicU64::new(0),
            to_client: AtomicU64::new(0),
            start: Instant::now(),
            moved: AtomicU64::new(0),
            answered: AtomicBool::new(false),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Only the answer's body is polled while this is held; a panic there leaves nothing torn.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn signal(&self) -> &CutSignal {
        &self.cut
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

    /// The person did something that has no entry of its own.
    pub(super) fn touch(&self) {
        if let Some(activity) = &self.activity {
            activity.touch();
        }
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

    /// How the exchange ended, just now.
    pub(super) fn closing(&self, by: ClosedBy) -> Closing {
        Closing {
            by,
            closed: self.registrar.now(),
            bytes_in: self.to_resource.load(Ordering::Relaxed),
            bytes_out: self.to_client.load(Ordering::Relaxed),
        }
    }

    pub(super) fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Whether the client still sends.
    pub(super) fn is_uploading(&self) -> bool {
        self.state().uploading
    }

    /// The head of the answer has come: what follows is nobody's doing.
    pub(super) fn answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
        self.state().busy = None;
    }

    /// The client has sent everything, or sends no more.
    pub(super) fn uploaded(self: &Arc<Self>, whole: bool) {
        let mut state = self.state();
        if !state.uploading {
            return;
        }
        state.uploading = false;
        state.broken |= !whole;
        if whole && !self.is_answered() {
            state.busy = self.activity.as_ref().map(Activity::busy);
        }
        self.settle(state);
    }

    /// Takes over an answer with everything that must end with it, and gives the body for the
    /// client. `long`: its end is an entry of its own.
    pub(super) fn carry(
        self: &Arc<Self>,
        answer: Answer,
        lease: Lease,
        permit: Permit,
        long: bool,
    ) -> Body {
        let empty = answer.is_end_stream();
        let mut state = self.state();
        // An upload that outlasts its answer is a stream of its own.
        let long = long || state.uploading && empty;
        state.live = Some(Live {
            answer: (!empty).then_some(answer),
            lease,
            permit,
            long,
        });
        self.settle(state);
        if self.state().live.is_some() {
            // It sees the cut even where nobody polls, since neither side reads. Giving the permit
            // back fires the signal, too.
            let flow = Arc::clone(self);
            tokio::spawn(async move {
                let cut = flow.cut.fired().await;
                flow.cut_off(cut);
            });
        }
        if empty {
            return super::answer::empty();
        }
        Body::new(Download {
            flow: Arc::clone(self),
        })
    }

    /// Ends everything once both directions have ended.
    fn settle(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if state.uploading || state.live.as_ref().is_none_or(|live| live.answer.is_some()) {
            return;
        }
        let broken = state.broken;
        let Some(live) = state.live.take() else {
            return;
        };
        drop(state);
        let Live {
            lease,
            permit,
            long,
            ..
        } = live;
        if broken {
            drop(lease);
        } else if let Some(settling) = lease.finish() {
            // The last bytes of the request are still on their way.
            let flow = Arc::clone(self);
            tokio::spawn(async move {
                settling.run(permit.cut()).await;
                flow.release(permit, long, ClosedBy::Upstream);
            });
            return;
        }
        self.release(permit, long, ClosedBy::Upstream);
    }

    /// Gives the permit back, now that nothing moves any more. A cut has an entry always.
    fn release(&self, permit: Permit, long: bool, by: ClosedBy) {
        match permit.cut().now() {
            Some(cut) => permit.close(self.closing(cut.cause.closed_by())),
            None if long => permit.close(self.closing(by)),
            None => {}
        }
    }

    /// The permit was taken back: nothing more moves, whoever is or is not reading.
    fn cut_off(&self, cut: Cut) {
        let waker = {
            let mut state = self.state();
            let Some(live) = state.live.take() else {
                return;
            };
            state.cut = live.answer.is_some();
            state.busy = None;
            let Live {
                answer,
                lease,
                permit,
                ..
            } = live;
            drop((answer, lease));
            permit.close(self.closing(cut.cause.closed_by()));
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The client has gone before the end of the answer: nothing of its request goes on either.
    fn abandoned(&self) {
        let mut state = self.state();
        let Some(live) = state.live.take_if(|live| live.answer.is_some()) else {
            return;
        };
        drop(state);
        let Live {
            answer,
            lease,
            permit,
            long,
            ..
        } = live;
        drop((answer, lease));
        self.release(permit, long, ClosedBy::Client);
    }

    fn poll_answer(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut guard = self.state();
        let state = &mut *guard;
        let Some(live) = &mut state.live else {
            return Poll::Ready(state.cut.then(|| Err(Stopped.into())));
        };
        let Some(answer) = &mut live.answer else {
            return Poll::Ready(None);
        };
        if let Some(cut) = self.cut.now() {
            drop(guard);
            self.cut_off(cut);
            return Poll::Ready(Some(Err(Stopped.into())));
        }
        let Poll::Ready(frame) = Pin::new(&mut *answer).poll_frame(cx) else {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let failed = matches!(frame, Some(Err(_)));
        if failed || frame.is_none() || answer.is_end_stream() {
            live.answer = None;
            live.long |= state.uploading;
            state.broken |= failed;
            if failed {
                // The connection is gone, and with it the way for the upload.
                state.uploading = false;
            }
            self.settle(guard);
        }
        Poll::Ready(frame.map(|frame| {
            let mut frame = frame?;
            self.count_to_client(frame.data_ref().map_or(0, Buf::remaining));
            if let Some(trailers) = frame.trailers_mut() {
                fields::pass_trailers(trailers);
            }
            Ok(frame)
        }))
    }
}

/// The answer's body on its way to the client.
struct Download {
    flow: Arc<Flow>,
}

impl http_body::Body for Download {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.flow.poll_answer(cx)
    }

    fn is_end_stream(&self) -> bool {
        let state = self.flow.state();
        let ended = state.live.as_ref().is_none_or(|live| live.answer.is_none());
        ended && !state.cut
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.flow.state();
        match &state.live {
            Some(Live {
                answer: Some(answer),
                ..
            }) => answer.size_hint(),
            _ if state.cut => SizeHint::default(),
            _ => SizeHint::with_exact(0),
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.flow.abandoned();
    }
}
