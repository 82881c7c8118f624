//! What a log shows to others beside its entries: checkpoints, and proofs out of its tiles.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, RealDisk, read_file, replace_file_durably};
use crate::format::error::{FileError, ReadError};
use crate::format::merkle::{self, Hash};
use crate::format::note::NOTE_BYTES_MAX;
use crate::format::tile::{BUNDLE_BYTES_MAX, HASH_TILE_BYTES, Tile, TileKind};
use crate::keys::signer::Extends as _;
use crate::read::prune_point::{self, PRUNE_POINT_BYTES_MAX, PrunePoint};
use crate::read::reader::TilesAt;

/// The folder of timestamp tokens.
const TIMESTAMPS: &str = "timestamps";

/// A signed checkpoint, and what a timestamping authority (RFC 3161) answered over its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamped {
    /// The signed checkpoint.
    pub checkpoint: Vec<u8>,
    /// The whole response, in DER.
    pub response: Vec<u8>,
}

/// The published side of the log in a directory. Looks at no entry, so it costs nothing to open.
#[derive(Debug, Clone)]
pub struct Published {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl Published {
    /// Of the log in `dir`.
    #[must_use]
    pub fn new(dir: &Path) -> Published {
        Published::new_on(dir, Arc::new(RealDisk))
    }

    /// The same on another disk.
    #[must_use]
    pub fn new_on(dir: &Path, disk: Arc<dyn Disk>) -> Published {
        Published {
            disk,
            dir: dir.to_path_buf(),
        }
    }

    /// The newest signed checkpoint, as it stands and unchecked; `None` before there is one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn checkpoint(&self) -> Result<Option<Vec<u8>>, FileError> {
        self.read("checkpoint", NOTE_BYTES_MAX)
    }

    /// The newest checkpoint that a quorum of witnesses has cosigned, with their signatures, as it
    /// stands and unchecked; `None` before there is one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn witnessed(&self) -> Result<Option<Vec<u8>>, FileError> {
        self.read("witnessed", NOTE_BYTES_MAX)
    }

    /// Keeps `note` as the newest witnessed checkpoint, durably.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn keep_witnessed(&self, note: &str) -> Result<(), FileError> {
        let path = self.dir.join("witnessed");
        let replaced = replace_file_durably(&*self.disk, &path, note.as_bytes());
        replaced.map_err(FileError::at("replace", &path))
    }

    /// The bytes of a tile; of a partial one whose full one has taken its place, as much as it
    /// held. `None` where the log has not come that far.
    ///
    /// # Errors
    /// When it cannot be read, or is longer than a tile may be.
    pub fn tile(&self, tile: Tile) -> Result<Option<Vec<u8>>, FileError> {
        let bytes_max = match tile.kind {
            TileKind::Entries => BUNDLE_BYTES_MAX,
            TileKind::Hashes(_) => HASH_TILE_BYTES,
        };
        let found = self.read(&tile.to_string(), bytes_max)?;
        if found.is_some() || tile == tile.full() {
            return Ok(found);
        }
        let full = self.read(&tile.full().to_string(), bytes_max)?;
        Ok(full.map(|bytes| tile.prefix(&bytes).to_vec()))
    }

    /// Numbers of entries of the checkpoints over which a timestamp token is kept, ascending.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn timestamps(&self) -> Result<Vec<u64>, FileError> {
        let dir = self.dir.join(TIMESTAMPS);
        let listed = match self.disk.list(&dir) {
            Ok(listed) => listed,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(FileError::at("list", &dir)(error)),
        };
        let size = |name: &str| name.strip_suffix(".tsr")?.parse().ok();
        let mut sizes: Vec<u64> = listed
            .iter()
            .filter_map(|entry| size(&entry.name))
            .collect();
        sizes.sort_unstable();
        Ok(sizes)
    }

    /// The response of a timestamping authority over the signed checkpoint of `size` entries, and
    /// that checkpoint, as they were kept and unchecked; `None` where one of them is missing.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn timestamp(&self, size: u64) -> Result<Option<Stamped>, FileError> {
        let response = self.read(&format!("{TIMESTAMPS}/{size}.tsr"), NOTE_BYTES_MAX)?;
        let checkpoint = self.read(&format!("{TIMESTAMPS}/{size}.checkpoint"), NOTE_BYTES_MAX)?;
        Ok(checkpoint
            .zip(response)
            .map(|(checkpoint, response)| Stamped {
                checkpoint,
                response,
            }))
    }

    /// Keeps what a timestamping authority answered over a signed checkpoint of `size` entries,
    /// durably. The checkpoint is kept with it: a token is over these bytes and no others. What is
    /// there already stays: `false`.
    ///
    /// # Errors
    /// `WouldBlock` where another process keeps one at this moment; otherwise whatever the disk
    /// reports.
    pub fn keep_timestamp(&self, size: u64, stamped: &Stamped) -> Result<bool, FileError> {
        let dir = self.dir.join(TIMESTAMPS);
        let made = self.disk.create_dir_all(&dir);
        made.map_err(FileError::at("create", &dir))?;
        let synced = self.disk.sync_dir(&self.dir);
        synced.map_err(FileError::at("sync", &self.dir))?;
        // The gateway and a command may both have asked: the second must see the first.
        let path = dir.join("lock");
        let locked = self.disk.try_lock(&path).and_then(|lock| {
            let held = || io::Error::new(ErrorKind::WouldBlock, "another process keeps a token");
            lock.ok_or_else(held)
        });
        let _lock = locked.map_err(FileError::at("lock", &path))?;
        if self.timestamp(size)?.is_some() {
            return Ok(false);
        }
        // The response last: where it is, its checkpoint is.
        for (ending, bytes) in [
            ("checkpoint", &stamped.checkpoint),
            ("tsr", &stamped.response),
        ] {
            let path = dir.join(format!("{size}.{ending}"));
            let replaced = replace_file_durably(&*self.disk, &path, bytes);
            replaced.map_err(FileError::at("replace", &path))?;
        }
        Ok(true)
    }

    /// Index of the first entry that is left: 0 unless earlier ones were pruned.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn first(&self) -> Result<u64, FileError> {
        PrunePoint::size_at(&*self.disk, &self.dir)
    }

    /// The file that stands for what was pruned; `None` where nothing was.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn prune_point(&self) -> Result<Option<Vec<u8>>, FileError> {
        self.read(prune_point::FILE, PRUNE_POINT_BYTES_MAX)
    }

    /// The root of the first `size` entries.
    ///
    /// # Errors
    /// When a tile is missing: tiles are there for every published size.
    pub fn root(&self, size: u64) -> Result<Hash, ReadError> {
        merkle::root(&mut &TilesAt::new(&*self.disk, &self.dir, size), size)
    }

    /// The proof that entry `index` is in the tree of the first `size` entries.
    ///
    /// # Errors
    /// When `index >= size`, or a tile is missing: tiles are there for every published size.
    pub fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Hash>, ReadError> {
        TilesAt::new(&*self.disk, &self.dir, size).inclusion_proof(index)
    }

    /// The proof that the first `first` entries are the same in the tree of `second`.
    ///
    /// # Errors
    /// When `first > second`, or a tile is missing: tiles are there for every published size.
    pub fn consistency_proof(&self, first: u64, second: u64) -> Result<Vec<Hash>, ReadError> {
        TilesAt::new(&*self.disk, &self.dir, second).consistency_proof(first)
    }

    fn read(&self, name: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, FileError> {
        let path = self.dir.join(name);
        match read_file(&*self.disk, &path, bytes_max as u64) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FileError::at("read", &path)(error)),
        }
    }
}
