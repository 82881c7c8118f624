//! Sending the ledger's entries on, as they come, to systems of others.
//!
//! ```text
//! publisher ─▶ newest checkpoint ─▶ lane: signed entries ─▶ window ─▶ receiver: otlp · syslog
//!                                     ▲                      │             │ acknowledged
//!                                     └── learned again ── cursor ◀────────┘ synced, then forgotten
//! ```
//!
//! Each receiver has a lane: a task that reads the ledger by itself, in order, and holds one window
//! of entries until the receiver has acknowledged them. Nothing waits for a lane. Only entries under
//! a signed checkpoint are sent: what leaves cannot be taken back.

mod cursor;
mod lane;
mod otlp;
mod syslog;
mod tls;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use curfew_export::{LogReader, Record, Source, range};
use curfew_gate::secret;
use curfew_ledger::merkle::leaf_hash;
use cursor::Cursor;
use lane::Lane;
use otlp::Otlp;
use syslog::Syslog;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{Forward, ForwardKind, ForwardStart};
use crate::progress::{Kind, Progress};

/// How long what is under way at the end may take: half a second less than the gateway waits for
/// all its tasks.
const STOP_TIME: Duration = Duration::from_millis(1_500);

/// A configured receiver cannot be sent to.
#[derive(Debug, thiserror::Error)]
#[error("the receiver `{name}`: {problem}")]
pub struct ForwardSetupError {
    /// Which.
    name: String,
    /// What is wrong.
    problem: String,
}

/// A receiver that was looked at, and that nothing was sent to yet.
pub struct Setup {
    lane: Lane,
    /// How many entries a checkpoint on disk covers.
    signed: u64,
}

/// Where the log is, and how far each receiver has come.
#[derive(Clone, Debug)]
pub struct Place {
    /// The origin of its checkpoints.
    pub origin: String,
    /// The folder of the ledger.
    pub ledger: PathBuf,
    /// The folder of the cursors.
    pub cursors: PathBuf,
}

impl Setup {
    /// All receivers of a configuration.
    ///
    /// # Errors
    /// The first that cannot be set up.
    pub fn all(forwards: &[Forward], log: &Place) -> Result<Vec<Self>, ForwardSetupError> {
        let made = forwards.iter().map(|forward| {
            Self::new(log, forward).map_err(|problem| ForwardSetupError {
                name: forward.name.clone(),
                problem,
            })
        });
        made.collect()
    }

    fn new(log: &Place, forward: &Forward) -> Result<Self, String> {
        let path = log.cursors.join(format!("{}.json", forward.name));
        let source = Source::of(&log.origin);
        let tls = tls::config(forward)?;
        let receiver = match forward.kind {
            ForwardKind::Otlp => {
                let token = forward
                    .token_file
                    .as_deref()
                    .map(secret::read_token)
                    .transpose()?;
                let url = forward.url.as_deref().unwrap_or_default();
                Receiver::Otlp(Box::new(Otlp::new(url, token, tls, source)?))
            }
            ForwardKind::Syslog => {
                Receiver::Syslog(Box::new(Syslog::new(forward, Arc::new(tls), source)?))
            }
        };
        let ledger = log.ledger.clone();
        let signed = range::checkpoint(&ledger).map_or(0, |checkpoint| checkpoint.size);
        let cursor = match Cursor::load(&path, &log.origin)? {
            Some(cursor) => cursor,
            None => first(log, forward, signed, &path)?,
        };
        let lane = Lane::new(forward.name.clone(), receiver, cursor, path, ledger);
        Ok(Self { lane, signed })
    }

    /// How far it has come, for others.
    pub fn progress(&self) -> Arc<Progress> {
        self.lane.progress()
    }

    /// Sends what each checkpoint covers until told to stop.
    pub async fn run(
        self,
        checkpoints: watch::Receiver<Option<(u64, Arc<str>)>>,
        stopping: CancellationToken,
    ) {
        let overtime = async {
            stopping.cancelled().await;
            tokio::time::sleep(STOP_TIME).await;
        };
        tokio::select! {
            () = self.lane.run(self.signed, checkpoints, stopping.clone()) => {}
            () = overtime => {}
        }
    }
}

/// Where a receiver begins that has no cursor at `path`; `signed` entries are so.
fn first(log: &Place, forward: &Forward, signed: u64, path: &Path) -> Result<Cursor, String> {
    let from = match forward.start {
        ForwardStart::First => 0,
        ForwardStart::Now => signed,
    };
    let mut leaf = String::new();
    if let Some(last) = from.checked_sub(1) {
        let entry = LogReader::open(&log.ledger).and_then(|reader| reader.entry(last));
        let entry = entry.map_err(|error| format!("the ledger cannot be read: {error}"))?;
        leaf = leaf_hash(&entry).to_string();
    }
    let cursor = Cursor::new(&log.origin, from, leaf);
    // On disk before the first connection is accepted: after a crash "now" is still this moment.
    if forward.start == ForwardStart::Now {
        let saved = cursor.save(path);
        saved.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(cursor)
}

/// Why a receiver has not acknowledged. For the operator.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// No connection, or it broke.
    #[error("{0}")]
    Unreachable(String),
    /// It refuses, and may say when to come again.
    #[error("it refuses with {status}: {words}")]
    Refused {
        /// The status.
        status: http::StatusCode,
        /// What it says of it.
        words: String,
        /// When to come again.
        wait: Option<Duration>,
    },
    /// It does what no such receiver does.
    #[error("{0}")]
    Wrong(String),
    /// The ledger cannot be read.
    #[error("the ledger cannot be read: {0}")]
    Ledger(String),
    /// It cannot be remembered what was acknowledged.
    #[error("how far it has got cannot be remembered: {0}")]
    Cursor(String),
}

impl Trouble {
    /// What those are told who may read the log: nothing of networks, nor what a receiver says.
    fn told(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "it cannot be reached, or broke off",
            Self::Refused { .. } => "it refuses what it is sent",
            Self::Wrong(_) => "it does what no such receiver does",
            Self::Ledger(_) => "the log cannot be read for it",
            Self::Cursor(_) => "how far it has got cannot be remembered",
        }
    }
}

/// The most that is held for a receiver until it has acknowledged.
#[derive(Clone, Copy, Debug)]
struct Room {
    records: usize,
    /// Of entries; their records have about twice that.
    bytes: usize,
}

/// Whoever is sent entries.
enum Receiver {
    Otlp(Box<Otlp>),
    Syslog(Box<Syslog>),
}

impl Receiver {
    fn kind(&self) -> Kind {
        match self {
            Self::Otlp(_) => Kind::Otlp,
            Self::Syslog(_) => Kind::Syslog,
        }
    }

    fn room(&self) -> Room {
        match self {
            Self::Otlp(_) => otlp::ROOM,
            Self::Syslog(_) => syslog::ROOM,
        }
    }

    /// Sends what of these was not sent yet. Gives how many of them, from the first, it has
    /// acknowledged. After an error nothing counts as sent that was not acknowledged before.
    /// `closing`: it is to acknowledge now.
    async fn deliver(&mut self, records: &[Record], closing: bool) -> Result<usize, Trouble> {
        match self {
            Self::Otlp(otlp) => otlp.deliver(records).await,
            Self::Syslog(syslog) => syslog.deliver(records, closing).await,
        }
    }

    /// When it is to acknowledge what was sent, though nothing more comes.
    fn due(&self) -> Option<Instant> {
        match self {
            Self::Otlp(_) => None,
            Self::Syslog(syslog) => syslog.due(),
        }
    }
}
