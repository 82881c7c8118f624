//! How far everybody who follows the log has come: receivers, the archive, witnesses, the
//! timestamping authority. What each lacks, since when, and what stands in the way.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use curfew_entry::{Entry, SigningFault, Timestamp};
use curfew_gate::clock;
use curfew_gate::conditions::{Condition, Conditions, Part};
use curfew_gate::problem::Problem;
use curfew_gate::recorder::Durability;
use curfew_identity::Accounts;
use curfew_ledger::LogReader;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::progress::{Follower, Kind, Progress, Reader};

/// How the log and its followers stand.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Status {
    /// Ledger time of the look.
    pub now: Timestamp,
    /// Durable entries.
    pub entries: u64,
    /// How many of them a signed checkpoint covers.
    pub signed: u64,
    /// Why no checkpoint is signed at the moment.
    pub not_signed: Option<SigningFault>,
    /// In order of the configuration.
    pub followers: Vec<Follower>,
    /// What is out of order. For the operator of the host alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// What was wrong or doubtful about the set-up when it was last looked at, and when that was. For
    /// the operator of the host alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked: Option<Checked>,
}

/// What a look at the set-up found.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Checked {
    /// When.
    pub at: Timestamp,
    /// What is wrong or doubtful.
    pub problems: Vec<Problem>,
}

/// All followers of a log, and the rest of what an operator wants to know.
#[derive(Debug)]
pub struct Standing {
    followers: Vec<Arc<Progress>>,
    has_timestamps: bool,
    durability: Arc<Durability>,
    ledger: PathBuf,
    /// The accounts, which are looked at when an operator asks.
    accounts: Arc<Accounts>,
    /// What is out of order.
    pub conditions: Arc<Conditions>,
    checked: Mutex<Option<Checked>>,
}

impl Standing {
    /// Of the log in `ledger`, which these follow besides its timestamping authority, if there is one.
    pub fn new(
        followers: Vec<Arc<Progress>>,
        has_timestamps: bool,
        ledger: PathBuf,
        durability: &Arc<Durability>,
        accounts: &Arc<Accounts>,
        conditions: &Arc<Conditions>,
    ) -> Self {
        Self {
            followers,
            has_timestamps,
            durability: Arc::clone(durability),
            ledger,
            accounts: Arc::clone(accounts),
            conditions: Arc::clone(conditions),
            checked: Mutex::default(),
        }
    }

    /// Takes in what a look at the set-up found.
    pub fn checked(&self, at: Timestamp, problems: Vec<Problem>) {
        *self.checked.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Checked { at, problems });
    }

    /// Looks at what tells nobody by itself when it is out of order.
    fn look_around(&self) {
        self.conditions.look(Part::Accounts, &self.accounts.check());
        self.conditions.look(Part::Disk, &room(&self.ledger));
        match clock::wall() {
            Some(wall) if !wall.synced => self.conditions.failed(
                Part::Clock,
                "nobody keeps the wall clock in step with others: run chrony or systemd-timesyncd",
            ),
            // Where the kernel does not say, nothing is known.
            Some(_) | None => self.conditions.well(Part::Clock),
        }
    }

    /// How it stands now. Blocks for some reads of the log.
    pub fn look(&self, now: Timestamp, reader: Reader) -> Status {
        if reader == Reader::Operator {
            self.look_around();
        }
        let moment = (now, Instant::now());
        let mut followers: Vec<Follower> = self
            .followers
            .iter()
            .map(|progress| progress.look(moment, reader))
            .collect();
        if self.has_timestamps {
            let (kind, has) = (Kind::Timestamps, self.durability.stamped());
            let progress = Progress::new(kind, kind.as_str(), Some(has));
            followers.push(progress.look(moment, reader));
        }
        // After the followers, so that none has more than is signed.
        let checkpoint = self.durability.checkpoints();
        let newest = checkpoint.borrow().as_ref().map_or(0, |(size, _)| *size);
        let signing = *self.durability.signing().borrow();
        let signed = signing.size.max(newest);
        let mut log = None;
        for follower in &mut followers {
            let Some(has) = follower.has else { continue };
            let lacks = signed.saturating_sub(has);
            follower.lacks = Some(lacks);
            if lacks > 0 {
                let log = log.get_or_insert_with(|| LogReader::open(&self.ledger).ok());
                follower.since = log.as_ref().and_then(|log| recorded(log, has));
            }
        }
        Status {
            now,
            entries: self.durability.size(),
            signed,
            not_signed: signing.last.and_then(Result::err),
            followers,
            conditions: match reader {
                Reader::Operator => self.conditions.all(moment),
                Reader::Session => Vec::new(),
            },
            checked: match reader {
                Reader::Operator => {
                    let checked = self.checked.lock();
                    checked.unwrap_or_else(PoisonError::into_inner).clone()
                }
                Reader::Session => None,
            },
        }
    }
}

/// Room that should be left where the data is: for two segments of the default size, as many tiles, and
/// the search index beside them.
const ROOM_BYTES_MIN: u64 = 256 * 1024 * 1024;

/// Whether there is room where the data is.
///
/// # Errors
/// How little is left, or that nobody can tell.
pub fn room(dir: &Path) -> Result<(), String> {
    let space = rustix::fs::statvfs(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let left = space.f_bavail.saturating_mul(space.f_frsize);
    if left >= ROOM_BYTES_MIN {
        return Ok(());
    }
    Err(format!(
        "{} MiB are left at {}; nothing new is admitted once it is full",
        left / (1024 * 1024),
        dir.display()
    ))
}

/// When an entry was recorded; none where that cannot be read.
fn recorded(log: &LogReader, index: u64) -> Option<Timestamp> {
    let bytes = log.entry(index).ok()?;
    Some(Entry::from_bytes(&bytes).ok()?.time)
}

/// How everything stands, looked at on a thread that may block. None when that thread failed.
pub async fn look(standing: &Arc<Standing>, now: Timestamp, reader: Reader) -> Option<Status> {
    let standing = Arc::clone(standing);
    let looked = tokio::task::spawn_blocking(move || standing.look(now, reader)).await;
    looked
        .inspect_err(|error| tracing::error!(%error, "the look at the log's followers failed"))
        .ok()
}
