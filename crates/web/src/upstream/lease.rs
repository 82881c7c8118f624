//! The connection an answer comes through, and its place among what is open to a resource.

use std::sync::Arc;
use std::time::Duration;

use curfew_entry::SessionId;
use curfew_gate::permit::CutSignal;
use tokio::sync::OwnedSemaphorePermit;

use super::h1::H1;
use super::h2::Place;
use super::{Failure, OPEN_PER_SESSION_MAX, Upstream};

/// How long a connection may take to become ready for the next request once an answer is through
/// and the request has been read to its end. The permit goes on to cover it.
const SETTLE_TIME: Duration = Duration::from_secs(30);

/// A session's share of what is open to a resource.
#[derive(Debug)]
struct Share {
    pool: Arc<Upstream>,
    session: SessionId,
    _open: OwnedSemaphorePermit,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut shares = self.pool.shares();
        if let Some(count) = shares.get_mut(&self.session) {
            *count -= 1;
            if *count == 0 {
                shares.remove(&self.session);
            }
        }
    }
}

/// The connection an answer comes through. Let go without [`Lease::finish`], it is broken off:
/// what was cut must not go on in the background.
#[derive(Debug)]
pub(crate) struct Lease {
    pool: Arc<Upstream>,
    pub(super) h1: Option<H1>,
    pub(super) place: Option<Place>,
    _share: Share,
}

/// A connection over which the last bytes of a request are still to go.
#[derive(Debug)]
pub(crate) struct Settling {
    lease: Lease,
}

impl Lease {
    /// A place among what is open, counted against its session.
    pub(super) fn new(pool: &Arc<Upstream>, session: &SessionId) -> Result<Self, Failure> {
        let open = Arc::clone(&pool.open)
            .try_acquire_owned()
            .map_err(|_| Failure::Busy)?;
        let mut shares = pool.shares();
        let count = shares.get(session).copied().unwrap_or_default();
        if count >= OPEN_PER_SESSION_MAX {
            return Err(Failure::Crowded);
        }
        shares.insert(session.clone(), count + 1);
        drop(shares);
        Ok(Self {
            pool: Arc::clone(pool),
            h1: None,
            place: None,
            _share: Share {
                pool: Arc::clone(pool),
                session: session.clone(),
                _open: open,
            },
        })
    }

    /// Both the request and its answer are through: the connection can serve again, or will once
    /// what is returned has run.
    pub(crate) fn finish(mut self) -> Option<Settling> {
        match self.h1.take() {
            Some(h1) if h1.sender.is_ready() => self.pool.keep(h1),
            // It closes by itself.
            Some(h1) if h1.sender.is_closed() => {}
            Some(h1) => {
                self.h1 = Some(h1);
                return Some(Settling { lease: self });
            }
            None => {}
        }
        None
    }

    /// The same share without the connection that turned out stale.
    pub(super) fn renew(&mut self) {
        if let Some(h1) = self.h1.take() {
            h1.break_off();
        }
        self.place = None;
    }
}

impl Settling {
    /// Waits until the connection is ready, for as long as the permit holds.
    pub(crate) async fn run(mut self, cut: &CutSignal) {
        let Some(h1) = &mut self.lease.h1 else { return };
        let ready = tokio::select! {
            biased;
            _ = cut.fired() => false,
            ready = tokio::time::timeout(SETTLE_TIME, h1.sender.ready()) => matches!(ready, Ok(Ok(()))),
        };
        if ready && let Some(h1) = self.lease.h1.take() {
            self.lease.pool.keep(h1);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renew();
    }
}
