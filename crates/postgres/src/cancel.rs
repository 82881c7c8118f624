//! What clients may cancel: the keys Curfew gave out, and the upstream keys they stand for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use curfew_gate::permit::CutSignal;
use curfew_gate::secret::{self, SecretError};
use subtle::ConstantTimeEq;

use super::startup::{CancelKey, VERSION_3_2};
use super::upstream::CancelHandle;

/// Bytes of a key in protocol 3.2; PostgreSQL's own servers use as many.
const KEY_BYTES: usize = 32;

/// The keys of all live connections.
#[derive(Debug, Default)]
pub(crate) struct Cancels {
    /// By the number of the server's process, which is the server's own: several servers may have
    /// the same.
    live: Mutex<HashMap<i32, Vec<Entry>>>,
    /// Requests that named nothing live.
    ignored: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    key: Box<[u8]>,
    upstream: CancelHandle,
    cut: CutSignal,
}

/// A key that was given out; it opens nothing any more once this is dropped.
#[derive(Debug)]
pub(crate) struct Issued {
    cancels: Arc<Cancels>,
    pub(crate) key: CancelKey,
}

impl Cancels {
    fn live(&self) -> MutexGuard<'_, HashMap<i32, Vec<Entry>>> {
        // A panic while holding the map leaves it whole: each change is one insert or remove.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives out a key for a connection that lives as long as `cut` has not fired.
    pub(crate) fn issue(
        self: &Arc<Self>,
        version: i32,
        upstream: CancelHandle,
        cut: CutSignal,
    ) -> Result<Issued, SecretError> {
        let bytes = secret::random::<KEY_BYTES>()?;
        let length = if version >= VERSION_3_2 { KEY_BYTES } else { 4 };
        let key: Box<[u8]> = bytes.get(..length).unwrap_or_default().into();
        let process = upstream.process();
        self.live().entry(process).or_default().push(Entry {
            key: key.clone(),
            upstream,
            cut,
        });
        Ok(Issued {
            cancels: Arc::clone(self),
            key: CancelKey { process, key },
        })
    }

    /// What to cancel upstream for this request. Nothing where number or key are wrong or the
    /// session is over; the client is never told.
    pub(crate) fn find(&self, request: &CancelKey) -> Option<CancelHandle> {
        let live = self.live();
        let found = live
            .get(&request.process)
            .into_iter()
            .flatten()
            .find(|entry| bool::from(entry.key.ct_eq(&request.key)) && entry.cut.now().is_none())
            .map(|entry| entry.upstream.clone());
        drop(live);
        if found.is_none() {
            let ignored = self.ignored.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::info!(ignored, "a cancel request named nothing live");
        }
        found
    }
}

impl Drop for Issued {
    fn drop(&mut self) {
        let mut live = self.cancels.live();
        if let Some(entries) = live.get_mut(&self.key.process) {
            entries.retain(|entry| entry.key != self.key.key);
            if entries.is_empty() {
                live.remove(&self.key.process);
            }
        }
    }
}
