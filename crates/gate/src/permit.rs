//! The right to do one recorded action, and the signal that takes it back.
//!
//! A [`Permit`] exists only because the registrar accepted an entry for it. It is not `Clone`, has
//! no public constructor, and every way to an upstream (`dial`) wants one by value:
//!
//! ```compile_fail,E0451
//! let permit = curfew_gate::Permit { inner: None };
//! ```
//! ```
//! // Its twin compiles: the type is there, only the constructor is not.
//! fn wants_a_permit(_: &curfew_gate::Permit) {}
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use curfew_authority::Grant;
use curfew_authority::traffic::{ActivityCell, LastActivity, PermitId};
use curfew_entry::{ClosedBy, SessionId};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::recorder::{Durability, Unrecorded};
pub use curfew_authority::traffic::{Closing, Cut, CutCause};

/// The right to do one action, bound to its entry in the ledger.
///
/// Held for as long as anything of the action flows, in either direction. Whoever holds it polls
/// [`Permit::cut`] together with all I/O, and lets nothing more through once it has fired. Giving
/// the permit back, or dropping it, fires it too.
#[derive(Debug)]
pub struct Permit {
    inner: Option<Inner>,
}

#[derive(Debug)]
struct Inner {
    id: PermitId,
    entry: u64,
    grant: Grant,
    cut: CutSignal,
    activity: Activity,
    recording: Recording,
    /// Which of its entries stand for something that was never done.
    skipped: Mutex<Vec<usize>>,
    released: mpsc::UnboundedSender<Released>,
}

/// How a permit's entry comes along.
#[derive(Debug)]
pub(crate) struct Recording {
    durability: Arc<Durability>,
    /// Until when it must have come as far as its rules demand.
    until: Instant,
    /// It has not: nothing of the action may be let out any more.
    late: AtomicBool,
}

impl Recording {
    /// The entry may take so long to come further than durable.
    pub(crate) fn new(durability: Arc<Durability>, wait: Duration) -> Self {
        Self {
            durability,
            until: Instant::now() + wait,
            late: AtomicBool::new(false),
        }
    }
}

/// A permit that its holder gave back.
#[derive(Debug)]
pub(crate) struct Released {
    pub(crate) id: PermitId,
    pub(crate) closing: Option<Closing>,
    /// Places among its entries of what was never done.
    pub(crate) skipped: Vec<usize>,
}

impl Permit {
    /// Made by the registrar, once the entry with index `entry` has been taken by the ledger: the
    /// last one of those it rests on.
    pub(crate) fn mint(
        id: PermitId,
        entry: u64,
        grant: Grant,
        cut: CutSignal,
        activity: Activity,
        recording: Recording,
        released: mpsc::UnboundedSender<Released>,
    ) -> Self {
        let inner = Inner {
            id,
            entry,
            grant,
            cut,
            activity,
            recording,
            skipped: Mutex::default(),
            released,
        };
        Self { inner: Some(inner) }
    }

    fn inner(&self) -> &Inner {
        match &self.inner {
            Some(inner) => inner,
            // `inner` is taken only by `close` and `drop`, which both consume the permit.
            None => unreachable!("a permit is whole while somebody holds it"),
        }
    }

    /// Whose it is and what it rests on.
    pub fn grant(&self) -> &Grant {
        &self.inner().grant
    }

    /// The session it belongs to.
    pub fn session(&self) -> &SessionId {
        &self.inner().grant.session
    }

    /// The index of its `action.allowed` entry, the last one where there are several.
    pub fn entry(&self) -> u64 {
        self.inner().entry
    }

    /// The signal that takes it back.
    pub fn cut(&self) -> &CutSignal {
        &self.inner().cut
    }

    /// Where activity without an entry of its own is noted.
    pub fn activity(&self) -> &Activity {
        &self.inner().activity
    }

    /// Waits until the entry is durable, and has come as far beyond as its rules demand. No byte of
    /// an answer may be let out before.
    ///
    /// # Errors
    /// When the ledger failed before the entry was durable, or it did not come far enough in time:
    /// nothing may be let out at all, now or later.
    pub async fn recorded(&self) -> Result<(), Unrecorded> {
        let inner = self.inner();
        let recording = &inner.recording;
        recording.durability.wait(inner.entry).await?;
        let Some(level) = inner.grant.record else {
            return Ok(());
        };
        let reached = recording.durability.reach(inner.entry, level);
        let late = recording.late.load(Ordering::Acquire);
        if !late && timeout_at(recording.until, reached).await.is_ok() {
            return Ok(());
        }
        if !recording.late.swap(true, Ordering::AcqRel) {
            let level = level.as_str();
            tracing::error!(
                entry = inner.entry,
                demanded = level,
                "an action was refused: its entry did not come as far in time as its rules demand"
            );
        }
        Err(Unrecorded::Late(level))
    }

    /// Whether the entry has come far enough already, so that nobody need wait.
    pub fn is_recorded(&self) -> bool {
        let inner = self.inner();
        let recording = &inner.recording;
        let durable = recording.durability.size() > inner.entry;
        let reached = |level| recording.durability.has_reached(inner.entry, level);
        durable && inner.grant.record.is_none_or(reached) && !recording.late.load(Ordering::Acquire)
    }

    /// Of what it allows, these were never done: places among the questions that were asked together.
    pub fn skipped(&self, places: &[usize]) {
        let skipped = &self.inner().skipped;
        let mut skipped = skipped.lock().unwrap_or_else(PoisonError::into_inner);
        skipped.extend_from_slice(places);
    }

    /// Gives the permit back and records how the connection or stream ended.
    pub fn close(mut self, closing: Closing) {
        self.release(Some(closing));
    }

    fn release(&mut self, closing: Option<Closing>) {
        if let Some(inner) = self.inner.take() {
            // Whatever still polls the signal must not go on without a permit behind it.
            inner.cut.fire(Cut::of(CutCause::Released));
            // Allowed, and not let out all the same: the log says so.
            let closing = if inner.recording.late.load(Ordering::Acquire) {
                let (bytes_in, bytes_out) = closing.map_or((0, 0), |c| (c.bytes_in, c.bytes_out));
                Some(Closing {
                    by: ClosedBy::Unrecorded,
                    closed: inner.activity.clock.now(),
                    bytes_in,
                    bytes_out,
                })
            } else {
                closing
            };
            // The registrar outlives every permit but at the very end, when nobody is asked.
            let _ = inner.released.send(Released {
                id: inner.id,
                closing,
                skipped: inner
                    .skipped
                    .into_inner()
                    .unwrap_or_else(PoisonError::into_inner),
            });
        }
    }
}

impl Drop for Permit {
    /// A short action needs no entry for its end: giving the permit back is enough.
    fn drop(&mut self) {
        self.release(None);
    }
}

/// Fires once, when a permit stops being valid. Cheap to clone and to poll.
#[derive(Clone, Debug, Default)]
pub struct CutSignal {
    token: CancellationToken,
    cut: Arc<OnceLock<Cut>>,
}

impl CutSignal {
    /// Cuts. Anybody may: nothing can be opened by it.
    pub fn fire(&self, cut: Cut) {
        // The first cause stands; a later one changes nothing.
        if self.cut.set(cut).is_ok() {
            self.token.cancel();
        }
    }

    /// Waits for the cut. Safe to drop and call again.
    pub async fn fired(&self) -> Cut {
        self.token.cancelled().await;
        self.now().unwrap_or(Cut::of(CutCause::Shutdown))
    }

    /// The cut, if it has fired.
    pub fn now(&self) -> Option<Cut> {
        self.cut.get().copied()
    }
}

/// The activity of one session, noted by all its planes.
#[derive(Clone, Debug)]
pub(crate) struct SharedActivity(Arc<Mutex<LastActivity>>);

impl ActivityCell for SharedActivity {
    fn new(activity: LastActivity) -> Self {
        Self(Arc::new(Mutex::new(activity)))
    }

    fn with<T>(&self, look: impl FnOnce(&mut LastActivity) -> T) -> T {
        // A panic while holding it leaves it whole: each change is made of moments that were.
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where a plane notes activity: what a person does, never pings, keepalives or server-sent data.
#[derive(Clone, Debug)]
pub struct Activity {
    shared: SharedActivity,
    clock: Clock,
}

impl Activity {
    pub(crate) fn new(shared: SharedActivity, clock: Clock) -> Self {
        Self { shared, clock }
    }

    /// Notes that the person did something just now. Costs no entry and no timer.
    pub fn touch(&self) {
        let now = self.clock.now();
        self.shared.with(|activity| activity.note(now));
    }

    /// Holds the session active while something the person started is running.
    pub fn busy(&self) -> Busy {
        let now = self.clock.now();
        self.shared.with(|activity| activity.begin(now));
        Busy(self.clone())
    }
}

/// Something the person started is running, until this is dropped.
#[derive(Debug)]
pub struct Busy(Activity);

impl Drop for Busy {
    fn drop(&mut self) {
        let now = self.0.clock.now();
        self.0.shared.with(|activity| activity.finish(now));
    }
}
