//! The archive: a copy of the log in an object store, complete and verifiable at every moment.
//!
//! What is archived is the log in its C2SP tlog-tiles form, so the copy needs nothing of Curfew to be
//! read, and `curfew-verify` proves it as it proves the log. Tiles and bundles go first, each only
//! where there is none yet, and `checkpoint` last: whatever it covers is there. It is replaced only by
//! one that goes on from it, so no restored or rewritten log can wipe out the archive of the true one.
//!
//! How far the archive has come is read from its own `checkpoint`. There is no cursor to lose.

mod alarm;
mod place;

use std::sync::Arc;
use std::time::Duration;

use alarm::Alarm;
use bytes::Bytes;
use curfew_entry::ArchivingFault;
use curfew_gate::registrar::Registrar;
use curfew_ledger::merkle::verify_growth;
use curfew_ledger::note::Note;
use curfew_ledger::tile::{TILE_WIDTH, Tile, TileKind, kinds, tiles_at};
use curfew_ledger::{Checkpoint, Published};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, UpdateVersion};
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::progress::{Kind, Progress};

pub use place::{Access, PlaceError};

/// Objects under way at once.
const UNDER_WAY: usize = 8;

/// How long archiving may take when the gateway stops: half a second less than it waits for all its
/// tasks. The next start does the rest.
const STOP_TIME: Duration = Duration::from_millis(1_500);

/// Why the log could not be archived.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The log cannot be read.
    #[error("the log cannot be read: {0}")]
    Log(String),
    /// There is no signed checkpoint yet.
    #[error("the log has no signed checkpoint yet")]
    Unsigned,
    /// The store does not do as it should, or cannot be reached.
    #[error("{object}: {problem}")]
    Store {
        /// What was to be written or read.
        object: String,
        /// What the store said.
        problem: String,
    },
    /// Something else is there under a name that is written once.
    #[error("{object} is there already, with other content: somebody else has written it")]
    Other {
        /// Which.
        object: String,
    },
    /// What the archive lacks is no longer in the log.
    #[error(
        "the archive covers {before} entries, and the log was pruned up to entry {first}: what is \
         between is in neither"
    )]
    Pruned {
        /// How many entries the archive covers.
        before: u64,
        /// The first entry that the log still has.
        first: u64,
    },
    /// The archive has what this log does not: an old copy of the log, or of another.
    #[error(
        "the archive covers {archived} entries that are not the first of this log's {size}: it is \
         another log's, or this is an older copy"
    )]
    NotAPrefix {
        /// How many entries the archive covers.
        archived: u64,
        /// How many this log has signed.
        size: u64,
    },
}

impl ArchiveError {
    /// What the log says of it; nothing where only a signature is waited for, which it says by itself.
    fn fault(&self) -> Option<ArchivingFault> {
        match self {
            Self::Unsigned => None,
            Self::Log(_) => Some(ArchivingFault::Log),
            Self::Store { .. } => Some(ArchivingFault::Store),
            Self::Other { .. } => Some(ArchivingFault::OtherContent),
            Self::Pruned { .. } => Some(ArchivingFault::Pruned),
            Self::NotAPrefix { .. } => Some(ArchivingFault::OtherLog),
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Archived {
    /// How many entries the archive covered before.
    pub before: u64,
    /// How many it covers now.
    pub size: u64,
    /// How many objects were written.
    pub objects: u64,
    /// How many bytes they have.
    pub bytes: u64,
}

/// Where the copy is.
#[derive(Debug)]
pub struct Archive {
    store: Box<dyn ObjectStore>,
    prefix: Path,
}

impl Archive {
    /// An archive at a URL: `file:///…` or `s3://bucket/prefix`.
    ///
    /// # Errors
    /// When that is no such place.
    pub fn open(url: &str, access: &Access) -> Result<Self, PlaceError> {
        let (store, prefix) = place::open(url, access)?;
        Ok(Self { store, prefix })
    }

    /// Brings the archive up to the newest signed checkpoint of `log`. `progress` is told how many
    /// objects of how many are there.
    ///
    /// # Errors
    /// See [`ArchiveError`]. What was written stays and is not written again.
    pub async fn bring_up(
        &self,
        log: &Published,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Archived, ArchiveError> {
        let (note, new) = newest(log)?;
        let (old, version) = self.checkpoint().await?;
        let before = old.as_ref().map_or(0, |old| old.size);
        check_prefix(log, old.as_ref(), &new)?;
        let mut archived = Archived {
            before,
            size: new.size,
            objects: 0,
            bytes: 0,
        };
        if old.as_ref() == Some(&new) {
            return Ok(archived);
        }
        let first = log.first();
        let first = first.map_err(|error| ArchiveError::Log(error.to_string()))?;
        if before < first {
            return Err(ArchiveError::Pruned { before, first });
        }
        let tiles = tiles(before, new.size);
        let total = tiles.len() as u64 + 1;
        let mut writing = stream::iter(tiles)
            .map(|tile| self.put_tile(log, tile))
            .buffer_unordered(UNDER_WAY);
        while let Some(bytes) = writing.try_next().await? {
            archived.objects += 1;
            archived.bytes += bytes;
            progress(archived.objects, total);
        }
        drop(writing);
        self.put_beside(log).await?;
        archived.objects += 1;
        archived.bytes += note.len() as u64;
        let replaces = match version {
            Some(version) => PutMode::Update(version),
            None => PutMode::Create,
        };
        self.put_checkpoint(note, replaces).await?;
        progress(total, total);
        self.drop_partials(before, new.size).await;
        Ok(archived)
    }

    fn at(&self, name: &str) -> Path {
        name.split('/')
            .fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// The archive's own checkpoint, and which version of the object it is.
    async fn checkpoint(
        &self,
    ) -> Result<(Option<Checkpoint>, Option<UpdateVersion>), ArchiveError> {
        let path = self.at("checkpoint");
        let found = match self.store.get(&path).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok((None, None)),
            Err(error) => return Err(store(&path, &error)),
        };
        let version = UpdateVersion {
            e_tag: found.meta.e_tag.clone(),
            version: found.meta.version.clone(),
        };
        let bytes = found.bytes().await.map_err(|error| store(&path, &error))?;
        let read = Note::parse(&bytes).and_then(|note| Checkpoint::parse(note.text()));
        match read {
            Ok(checkpoint) => Ok((Some(checkpoint), Some(version))),
            Err(_) => Err(ArchiveError::Other {
                object: path.to_string(),
            }),
        }
    }

    async fn put_tile(&self, log: &Published, tile: Tile) -> Result<u64, ArchiveError> {
        let reader = log.clone();
        let read = tokio::task::spawn_blocking(move || reader.tile(tile)).await;
        let bytes = match read {
            Ok(Ok(Some(bytes))) => bytes,
            Ok(Ok(None)) => return Err(ArchiveError::Log(format!("{tile} is missing"))),
            Ok(Err(error)) => return Err(ArchiveError::Log(error.to_string())),
            Err(error) => return Err(ArchiveError::Log(error.to_string())),
        };
        let len = bytes.len() as u64;
        self.put_once(&tile.to_string(), bytes.into()).await?;
        Ok(len)
    }

    /// Writes what is written once. It is no error when the same is there.
    async fn put_once(&self, name: &str, bytes: Bytes) -> Result<(), ArchiveError> {
        let path = self.at(name);
        let create = PutOptions::from(PutMode::Create);
        match self
            .store
            .put_opts(&path, bytes.clone().into(), create)
            .await
        {
            Ok(_) => return Ok(()),
            Err(object_store::Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(store(&path, &error)),
        }
        let found = match self.store.get(&path).await {
            Ok(found) => found.bytes().await,
            Err(error) => Err(error),
        };
        if found.map_err(|error| store(&path, &error))? == bytes {
            return Ok(());
        }
        Err(ArchiveError::Other {
            object: path.to_string(),
        })
    }

    /// What stands beside the tiles: who else has vouched for the log.
    async fn put_beside(&self, log: &Published) -> Result<(), ArchiveError> {
        let unread = |error: curfew_ledger::FileError| ArchiveError::Log(error.to_string());
        if let Some(note) = log.witnessed().map_err(unread)? {
            let path = self.at("witnessed");
            let put = self.store.put(&path, note.into()).await;
            put.map_err(|error| store(&path, &error))?;
        }
        for size in log.timestamps().map_err(unread)? {
            let Some(stamped) = log.timestamp(size).map_err(unread)? else {
                continue;
            };
            let name = format!("timestamps/{size}");
            self.put_once(&format!("{name}.checkpoint"), stamped.checkpoint.into())
                .await?;
            self.put_once(&format!("{name}.tsr"), stamped.response.into())
                .await?;
        }
        Ok(())
    }

    async fn put_checkpoint(&self, note: Vec<u8>, mode: PutMode) -> Result<(), ArchiveError> {
        let path = self.at("checkpoint");
        let note = Bytes::from(note);
        let put = |mode: PutMode| {
            let options = PutOptions::from(mode);
            self.store.put_opts(&path, note.clone().into(), options)
        };
        let outcome = match put(mode).await {
            // A directory cannot compare; nobody else writes there.
            Err(object_store::Error::NotImplemented { .. }) => put(PutMode::Overwrite).await,
            outcome => outcome,
        };
        match outcome {
            Ok(_) => Ok(()),
            Err(
                object_store::Error::Precondition { .. }
                | object_store::Error::AlreadyExists { .. },
            ) => Err(ArchiveError::Other {
                object: path.to_string(),
            }),
            Err(error) => Err(store(&path, &error)),
        }
    }

    /// Removes the incomplete tiles of the last time that are complete by now. What is left over does
    /// no harm, so failures are not reported.
    async fn drop_partials(&self, before: u64, size: u64) {
        for kind in kinds() {
            let (n, width) = tiles_at(kind, before);
            let (full, _) = tiles_at(kind, size);
            if width > 0 && n < full {
                let path = self.at(&Tile { kind, n, width }.to_string());
                let _ = self.store.delete(&path).await;
            }
        }
    }
}

fn store(path: &Path, error: &object_store::Error) -> ArchiveError {
    ArchiveError::Store {
        object: path.to_string(),
        problem: error.to_string(),
    }
}

fn newest(log: &Published) -> Result<(Vec<u8>, Checkpoint), ArchiveError> {
    let note = log.checkpoint();
    let note = note.map_err(|error| ArchiveError::Log(error.to_string()))?;
    let note = note.ok_or(ArchiveError::Unsigned)?;
    let read = Note::parse(&note).and_then(|note| Checkpoint::parse(note.text()));
    let checkpoint = read.map_err(|error| ArchiveError::Log(format!("checkpoint: {error}")))?;
    Ok((note, checkpoint))
}

/// Makes sure that the log goes on from what the archive covers.
fn check_prefix(
    log: &Published,
    old: Option<&Checkpoint>,
    new: &Checkpoint,
) -> Result<(), ArchiveError> {
    let Some(old) = old else {
        return Ok(());
    };
    let refused = ArchiveError::NotAPrefix {
        archived: old.size,
        size: new.size,
    };
    if old.origin != new.origin || old.size > new.size {
        return Err(refused);
    }
    let proof = log.consistency_proof(old.size, new.size);
    let proof = proof.map_err(|error| ArchiveError::Log(error.to_string()))?;
    verify_growth(old.size, new.size, &proof, &old.root, &new.root).map_err(|_| refused)
}

/// The tiles of a log of `size` entries that one of `before` did not have.
fn tiles(before: u64, size: u64) -> Vec<Tile> {
    let mut tiles = Vec::new();
    for kind in kinds() {
        let (from, _) = tiles_at(kind, before);
        let (full, width) = tiles_at(kind, size);
        let tile = |n, width| Tile { kind, n, width };
        tiles.extend((from..full).map(|n| tile(n, TILE_WIDTH)));
        tiles.extend((width > 0).then(|| tile(full, width)));
    }
    // Entries are most of the bytes: small and large ones are mixed, so that none wait for the last.
    tiles.sort_by_key(|tile| (tile.n, tile.kind != TileKind::Entries));
    tiles
}

/// The configured archive, looked at and not written to yet.
#[derive(Debug)]
pub struct Setup {
    archive: Archive,
    log: Published,
    every: Duration,
    alarm_after: Duration,
    progress: Arc<Progress>,
}

impl Setup {
    /// Of the log in this folder.
    ///
    /// # Errors
    /// When the place or the access to it cannot be used.
    pub fn new(config: &config::Archive, ledger: &std::path::Path) -> Result<Self, PlaceError> {
        let access = Access::of(config)?;
        Ok(Self {
            archive: Archive::open(&config.url, &access)?,
            log: Published::new(ledger),
            every: config.every.0,
            alarm_after: config.alarm_after.0,
            progress: Progress::new(Kind::Archive, Kind::Archive.as_str(), None),
        })
    }

    /// How far it has come, for others.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Archives each newest checkpoint until the ledger is closed, and then the last one.
    pub async fn run(
        self,
        registrar: Registrar,
        mut checkpoints: watch::Receiver<Option<(u64, Arc<str>)>>,
        closed: CancellationToken,
    ) {
        let mut alarm = Alarm::new(registrar, self.alarm_after).await;
        loop {
            let outcome = alarm.during(self.round()).await;
            alarm.hear(&outcome);
            let is_failing = alarm.is_failing();
            let pause = async {
                tokio::time::sleep(self.every).await;
                if !is_failing {
                    // Nothing new is nothing to do.
                    let _gone = checkpoints.changed().await;
                }
            };
            tokio::select! {
                () = closed.cancelled() => break,
                () = alarm.during(pause) => {}
            }
        }
        match tokio::time::timeout(STOP_TIME, self.round()).await {
            Ok(outcome) => alarm.hear(&outcome),
            Err(_) => {
                tracing::warn!("the archive was not brought up to the end; the next start does");
            }
        }
    }

    async fn round(&self) -> Result<Archived, ArchiveError> {
        let outcome = self.archive.bring_up(&self.log, |_, _| {}).await;
        match &outcome {
            Ok(archived) => self.progress.reached(archived.size),
            Err(ArchiveError::Unsigned) => {}
            Err(error) => {
                let told = "the log cannot be archived";
                self.progress.failed(told, error.to_string());
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tiles_of_a_log_are_those_it_had_and_the_new_ones() {
        for (before, size) in [(0, 0), (0, 1), (1, 300), (256, 256), (700, 70_000)] {
            let had: std::collections::BTreeSet<_> = tiles(0, before).into_iter().collect();
            let new = tiles(before, size);
            let has: std::collections::BTreeSet<_> = tiles(0, size).into_iter().collect();
            for tile in &has {
                assert!(had.contains(tile) || new.contains(tile), "{tile}");
            }
            assert!(new.iter().all(|tile| has.contains(tile)));
        }
        let names: Vec<_> = tiles(255, 257).iter().map(Tile::to_string).collect();
        let expected = [
            "tile/entries/000",
            "tile/0/000",
            "tile/1/000.p/1",
            "tile/entries/001.p/1",
            "tile/0/001.p/1",
        ];
        assert_eq!(names, expected);
    }
}
