//! Giving up entries past their time.
//!
//! ```text
//! entries older than `keep` that are sealed, signed, archived and forwarded
//!   ─▶ audited once more, so that no trace of anything wrong goes
//!   ─▶ log.pruned, with the digest of what stands for them ─▶ signed
//!   ─▶ `horizon` in place ─▶ their bundles and values gone
//! ```
//!
//! Whatever is not so far stays: nothing here is in a hurry, and each step can be done again. The log's
//! hashes stay for ever, so that proofs go on working; see [`curfew_ledger::PrunePoint`].

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use curfew_authority::{Auditor, Command, RecallError};
use curfew_entry::{Entry, LogPruned, Span, Timestamp};
use curfew_export::range::{Place, first_at};
use curfew_gate::NotCarriedOut;
use curfew_gate::conditions::{Conditions, Part};
use curfew_gate::registrar::Registrar;
use curfew_ledger::{
    Disk, FileError, KeyChain, LogReader, Prunable, PruneError, PrunePoint, ReadError, RealDisk,
    RotationError, VerifierKey,
};
use curfew_values::{Store, ValuesError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Retention;
use crate::progress::Progress;

/// How often it is looked whether anything is past its time: a sixteenth of the time that entries are
/// kept, at most a day, so that what stands for the pruned part is not made for a handful of entries.
const LOOKS: u32 = 16;

/// The longest and the shortest time between two looks.
const LOOK_MAX: Duration = Duration::from_secs(24 * 3_600);
const LOOK_MIN: Duration = Duration::from_secs(1);

/// How long an entry may wait for its signature before this look is given up: the next comes.
const SIGNED_WAIT: Duration = Duration::from_secs(60);

type Checkpoints = watch::Receiver<Option<(u64, Arc<str>)>>;

/// Why nothing was given up this time.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// The log cannot be read, or is not what was signed.
    #[error(transparent)]
    Prune(#[from] PruneError),
    /// What stands for the part pruned before.
    #[error("what stands for the pruned part: {0}")]
    Recall(#[from] RecallError),
    /// The entries tell of something wrong, and are evidence.
    #[error("entry {index} tells of something wrong ({finding}), and is kept as evidence")]
    Finding {
        /// Which.
        index: u64,
        /// What.
        finding: String,
    },
    /// What an auditor knows cannot be written down.
    #[error("what stands for the entries cannot be written: {0}")]
    Bequeath(#[from] serde_json::Error),
    /// The log takes no entries.
    #[error("it cannot be recorded: {0}")]
    Unrecorded(#[from] NotCarriedOut),
    /// No checkpoint covers the entry that says so.
    #[error("no checkpoint has been signed since it was recorded")]
    Unsigned,
    /// Values of pruned entries cannot be removed.
    #[error(transparent)]
    Values(#[from] ValuesError),
    /// The program is at fault.
    #[error("{0}")]
    Task(#[from] tokio::task::JoinError),
}

impl From<FileError> for Trouble {
    fn from(error: FileError) -> Self {
        Self::Prune(error.into())
    }
}

impl From<ReadError> for Trouble {
    fn from(error: ReadError) -> Self {
        Self::Prune(error.into())
    }
}

/// How long entries are kept, and who must have them before they go.
#[derive(Clone, Debug)]
pub struct Setup {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    keys: KeyChain,
    keep: Span,
    /// Time between two looks.
    every: Duration,
    /// Who must have entries before they go.
    followers: Vec<Arc<Progress>>,
    /// The archive is one of them.
    archived: bool,
}

impl Setup {
    /// With the receivers, and the archive where there is one.
    pub fn new(
        retention: &Retention,
        ledger: PathBuf,
        key: &VerifierKey,
        receivers: impl Iterator<Item = Arc<Progress>>,
        archive: Option<Arc<Progress>>,
    ) -> Self {
        let keep = retention.keep.0;
        let archive = archive.filter(|_| !retention.unarchived);
        Self {
            dir: ledger,
            disk: Arc::new(RealDisk),
            keys: KeyChain::new(std::slice::from_ref(key)),
            keep: Span::from_duration(keep),
            every: (keep / LOOKS).clamp(LOOK_MIN, LOOK_MAX),
            archived: archive.is_some(),
            followers: receivers.chain(archive).collect(),
        }
    }

    /// Takes in the statements on all changes of the log's key: what is past its time was mostly signed
    /// by an earlier one.
    pub fn follow(&mut self, rotations: &[String]) -> Result<(), RotationError> {
        self.keys = self.keys.told(rotations)?;
        Ok(())
    }

    /// Gives up what is past its time, look after look, until the gateway stops.
    pub async fn run(
        self,
        registrar: Registrar,
        values: Option<Arc<Store>>,
        checkpoints: Checkpoints,
        (conditions, stopping): (Arc<Conditions>, CancellationToken),
    ) {
        let pruner = Pruner {
            setup: self,
            registrar,
            values,
            stopping: stopping.clone(),
        };
        let mut said = None;
        loop {
            let looked = tokio::select! {
                () = stopping.cancelled() => return,
                looked = pruner.look(&checkpoints) => looked,
            };
            conditions.look(Part::Retention, &looked);
            let trouble = looked.err().map(|trouble| trouble.to_string());
            match &trouble {
                Some(trouble) if said.as_ref() != Some(trouble) => {
                    tracing::error!(trouble, "entries past their time are kept");
                }
                None if said.is_some() => tracing::warn!("entries past their time go again"),
                _ => {}
            }
            said = trouble;
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(pruner.setup.every) => {}
            }
        }
    }

    /// Removes what `horizon`, which is in place, stands for, as far as it is still there.
    fn clear(&self, horizon: &PrunePoint, values: Option<&Store>) -> Result<(), Trouble> {
        horizon.clear(&*self.disk, &self.dir)?;
        if let Some(values) = values {
            values.forget(horizon.size())?;
        }
        Ok(())
    }

    /// What stands for all entries that may go at `now`, after `earlier`; `None` where none may.
    fn prepare(
        &self,
        earlier: Option<&PrunePoint>,
        now: Timestamp,
        stop: &AtomicBool,
    ) -> Result<Option<PrunePoint>, Trouble> {
        let log = LogReader::open_on(&self.dir, Arc::clone(&self.disk))?;
        let Some(past) = now.as_micros().checked_sub(self.keep.as_micros()) else {
            return Ok(None);
        };
        let past = Place::Time(Timestamp::from_micros(past));
        let past = first_at(&log, past, log.size())?;
        let has = self.followers.iter().map(|follower| follower.has());
        let most = has.fold(past, u64::min);
        let prunable = Prunable {
            dir: &self.dir,
            disk: &self.disk,
            keys: &self.keys,
            prune_point: earlier,
        };
        let Some(place) = prunable.checkpoint(most)? else {
            return Ok(None);
        };
        let mut auditor = match earlier {
            Some(earlier) => Auditor::inherit(earlier.state())?,
            None => Auditor::new(),
        };
        let mut finding = None;
        let milestone = prunable.advance(&place, |index, bytes| {
            finding = judge(&mut auditor, index, bytes);
            finding.is_none() && !stop.load(Ordering::Relaxed)
        });
        let milestone = match (milestone, finding) {
            (Err(PruneError::Refused { index }), Some(finding)) => {
                return Err(Trouble::Finding { index, finding });
            }
            (Err(PruneError::Refused { .. }), None) => return Ok(None),
            (milestone, _) => milestone?,
        };
        if !auditor.erasures_approved().is_empty() {
            // Its end is not long in coming, and where it was approved must be there until then.
            return Ok(None);
        }
        let state = auditor.bequeath()?;
        Ok(Some(PrunePoint::new(milestone, earlier, state)))
    }
}

/// The first thing that is wrong with an entry.
fn judge(auditor: &mut Auditor, index: u64, bytes: &[u8]) -> Option<String> {
    match Entry::from_bytes(bytes) {
        Ok(entry) => {
            let found = auditor.check(index, &entry);
            found.first().map(|finding| finding.kind.to_string())
        }
        Err(error) => Some(error.to_string()),
    }
}

/// The work itself.
struct Pruner {
    setup: Setup,
    registrar: Registrar,
    values: Option<Arc<Store>>,
    stopping: CancellationToken,
}

impl Pruner {
    async fn look(&self, checkpoints: &Checkpoints) -> Result<(), Trouble> {
        let (setup, values) = (self.setup.clone(), self.values.clone());
        let now = self.registrar.now();
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let prepared = tokio::task::spawn_blocking(move || {
            let earlier = PrunePoint::read(&*setup.disk, &setup.dir)?;
            if let Some(earlier) = &earlier {
                // What an interruption has left.
                setup.clear(earlier, values.as_deref())?;
            }
            setup.prepare(earlier.as_ref(), now, &told)
        });
        // Reading may take long: whoever stops must not wait for it.
        let guard = self.stopping.clone();
        let watched = tokio::spawn(async move {
            guard.cancelled().await;
            stop.store(true, Ordering::Relaxed);
        });
        let prepared = prepared.await;
        watched.abort();
        let Some(horizon) = prepared?? else {
            return Ok(());
        };
        let size = horizon.size();
        self.record(&horizon, checkpoints.clone()).await?;
        let (setup, values) = (self.setup.clone(), self.values.clone());
        let put = tokio::task::spawn_blocking(move || {
            horizon.put(&*setup.disk, &setup.dir)?;
            setup.clear(&horizon, values.as_deref())
        });
        put.await??;
        tracing::info!(size, "entries past their time are given up");
        Ok(())
    }

    /// Says it in the log, and waits until that is signed: then it cannot be taken back unseen.
    async fn record(
        &self,
        horizon: &PrunePoint,
        mut checkpoints: Checkpoints,
    ) -> Result<(), Trouble> {
        let told = LogPruned {
            size: horizon.size(),
            digest: horizon.digest(),
            keep: self.setup.keep,
            archived: self.setup.archived,
        };
        self.registrar.carry_out(Command::Prune(told)).await?;
        let entries = self
            .registrar
            .log()
            .await
            .map_err(NotCarriedOut::from)?
            .entries;
        let covers = |newest: &Option<(u64, Arc<str>)>| {
            newest.as_ref().is_some_and(|(size, _)| *size >= entries)
        };
        let signed = tokio::time::timeout(SIGNED_WAIT, checkpoints.wait_for(covers)).await;
        match signed {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Trouble::Unsigned),
        }
    }
}
