//! Limits in memory, so that sign-ins cannot exhaust the host: how often each address and all of
//! them may try, and how many hashes run at once.

use std::net::IpAddr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use curfew_entry::{Span, Timestamp};

use crate::backoff::Lane;
use crate::rate::{Bucket, Networks, Rate};

/// Failed attempts that one address may make at once. With the next: 20 at first, then one every
/// three seconds. An attempt that succeeds is given back, so that an office behind one address
/// does not run dry when its day begins.
const ADDRESS_BURST: u64 = 20;
/// The time in which an address earns one more attempt.
const ADDRESS_INTERVAL: Span = Span::from_secs(3);
/// Attempts that all addresses together may make at once, for each core and lane.
const GLOBAL_BURST_PER_CORE: u64 = 32;
/// Attempts per second of all addresses together, for each core and lane. Where a hash of
/// standard cost takes 30 ms, a flood through both lanes takes about half of a core.
const GLOBAL_PER_SEC_PER_CORE: u64 = 8;
/// Attempts that may wait for a hash, for each core. Where a hash takes 30 ms, 8 of them
/// are about a quarter of a second, the longest that anybody waits.
const QUEUE_PER_CORE: usize = 8;
/// The part of the queue that strangers may fill; the rest is for known browsers.
const FAR_QUEUE_PER_CORE: usize = 4;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the locks here guard is whole at every moment, also where a holder panicked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often anybody may try.
pub(crate) struct Throttle {
    addresses: Mutex<Networks>,
    near: Mutex<Bucket>,
    far: Mutex<Bucket>,
    global: Rate,
}

const ADDRESS_RATE: Rate = Rate {
    interval: ADDRESS_INTERVAL,
    burst: ADDRESS_BURST,
};

impl Throttle {
    pub(crate) fn new(cores: usize) -> Self {
        let cores = u64::try_from(cores).unwrap_or(1).max(1);
        Self {
            addresses: Mutex::default(),
            near: Mutex::default(),
            far: Mutex::default(),
            global: Rate {
                interval: Span::from_micros(
                    1_000_000 / (GLOBAL_PER_SEC_PER_CORE * cores).min(1_000_000),
                ),
                burst: GLOBAL_BURST_PER_CORE * cores,
            },
        }
    }

    /// One attempt from this network, or how long until it may make one.
    pub(crate) fn take_address(&self, network: IpAddr, now: Timestamp) -> Result<(), Span> {
        lock(&self.addresses)
            .bucket(network)
            .take(ADDRESS_RATE, now)
    }

    /// One attempt of all, or how long until there may be one.
    pub(crate) fn take_global(&self, lane: Lane, now: Timestamp) -> Result<(), Span> {
        lock(self.of(lane)).take(self.global, now)
    }

    /// The attempt counts for nothing at its address.
    pub(crate) fn give_back_address(&self, network: IpAddr) {
        lock(&self.addresses)
            .bucket(network)
            .give_back(ADDRESS_RATE);
    }

    /// The attempt succeeded, and counts for nothing among all.
    pub(crate) fn give_back_global(&self, lane: Lane) {
        lock(self.of(lane)).give_back(self.global);
    }

    fn of(&self, lane: Lane) -> &Mutex<Bucket> {
        match lane {
            Lane::Near => &self.near,
            Lane::Far => &self.far,
        }
    }
}

/// Lets a bounded number of hashes run and a bounded number of callers wait for their turn.
pub(crate) struct Gate {
    cores: usize,
    state: Mutex<GateState>,
    freed: Condvar,
}

#[derive(Default)]
struct GateState {
    running: usize,
    waiting: usize,
}

/// The right to run one hash, until dropped.
pub(crate) struct Slot<'a>(&'a Gate);

impl Gate {
    pub(crate) fn new(cores: usize) -> Self {
        Self {
            cores: cores.max(1),
            state: Mutex::default(),
            freed: Condvar::new(),
        }
    }

    /// A turn for somebody signing in, unless too many wait already.
    pub(crate) fn enter(&self, lane: Lane) -> Option<Slot<'_>> {
        let per_core = match lane {
            Lane::Near => QUEUE_PER_CORE,
            Lane::Far => FAR_QUEUE_PER_CORE,
        };
        self.enter_behind(per_core.saturating_mul(self.cores))
    }

    /// A turn for an administrator, however many wait.
    pub(crate) fn enter_always(&self) -> Option<Slot<'_>> {
        self.enter_behind(usize::MAX)
    }

    #[cfg(test)]
    pub(crate) fn pretend_waiting(&self, waiting: usize) {
        lock(&self.state).waiting = waiting;
    }

    fn enter_behind(&self, most_waiting: usize) -> Option<Slot<'_>> {
        let mut state = lock(&self.state);
        if state.running >= self.cores && state.waiting >= most_waiting {
            return None;
        }
        state.waiting += 1;
        while state.running >= self.cores {
            state = self
                .freed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
        state.running += 1;
        Some(Slot(self))
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).running -= 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
#[path = "throttle_tests.rs"]
mod tests;
