//! A log that is served over HTTP in the form of C2SP tlog-tiles, read as if it were a directory.
//!
//! It is the log as of the checkpoint that was fetched first: what it gains meanwhile is not looked
//! at. Nothing that the server says is believed; it can only fail to answer.

mod ahead;
mod client;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use curfew_ledger::PRUNE_POINT_BYTES_MAX;
use curfew_ledger::disk::{DirEntry, Disk, DiskFile, DiskLock, OpenMode};
use curfew_ledger::note::NOTE_BYTES_MAX;
use curfew_ledger::tile::Tile;

use ahead::Ahead;
pub(crate) use client::{Client, Credentials};

/// The checkpoint's name.
const CHECKPOINT: &str = "checkpoint";

/// The name of the checkpoint with the signatures of witnesses.
const WITNESSED: &str = "witnessed";
/// The name of what stands for pruned entries.
const HORIZON: &str = "horizon";

/// A served log as a directory that can only be read.
#[derive(Debug)]
pub(crate) struct Served {
    dir: PathBuf,
    checkpoint: Vec<u8>,
    /// The checkpoint with the signatures of witnesses, where that was asked for and there is one.
    witnessed: Option<Vec<u8>>,
    /// What stands for entries that were pruned.
    horizon: Option<Vec<u8>>,
    /// Number of entries that the checkpoint is said to be over.
    size: u64,
    ahead: Ahead,
}

impl Served {
    /// Fetches the checkpoint of the log at `url`, and what witnesses say if that `is_witnessed`. Tiles
    /// are fetched from that of entry `from` on.
    pub(crate) fn open(
        url: &str,
        credentials: &Credentials,
        from: u64,
        is_witnessed: bool,
    ) -> io::Result<Served> {
        let client = Arc::new(Client::new(url, credentials)?);
        // Before the checkpoint: the log goes on, and witnesses may have seen more than that is over.
        let witnessed = match is_witnessed {
            true => client.get(WITNESSED, NOTE_BYTES_MAX)?,
            false => None,
        };
        let checkpoint = client.get(CHECKPOINT, NOTE_BYTES_MAX)?;
        let checkpoint = checkpoint.ok_or_else(|| {
            let text = format!("{url} serves no log: there is no checkpoint");
            io::Error::new(io::ErrorKind::NotFound, text)
        })?;
        // Only so as to know what to fetch: it is verified like any other.
        let size = size_of(&checkpoint).unwrap_or(0);
        let horizon = client.get(HORIZON, PRUNE_POINT_BYTES_MAX)?;
        let pruned = horizon.as_deref().and_then(pruned_by).unwrap_or(0);
        let from = from.max(pruned);
        Ok(Served {
            dir: client.dir(),
            checkpoint,
            witnessed,
            horizon,
            size,
            ahead: Ahead::start(client, from, size),
        })
    }

    /// The directory that the log is in.
    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.clone()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let name = path.strip_prefix(&self.dir).map_err(|_| missing())?;
        let name = name.to_str().ok_or_else(missing)?;
        if name == CHECKPOINT {
            return Ok(self.checkpoint.clone());
        }
        if name == WITNESSED {
            return self.witnessed.clone().ok_or_else(missing);
        }
        if name == HORIZON {
            return self.horizon.clone().ok_or_else(missing);
        }
        let tile = Tile::parse(name).ok_or_else(missing)?;
        if tile.end_leaf().is_none_or(|end| end > self.size) {
            return Err(missing());
        }
        self.ahead.take(tile)?.ok_or_else(missing)
    }
}

/// The number of entries in the second line of a checkpoint.
fn size_of(note: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(note).ok()?;
    text.lines().nth(1)?.parse().ok()
}

/// The number of entries that a horizon says it stands for.
fn pruned_by(horizon: &[u8]) -> Option<u64> {
    let line = horizon.split(|byte| *byte == b'\n').next()?;
    std::str::from_utf8(line)
        .ok()?
        .split(' ')
        .nth(3)?
        .parse()
        .ok()
}

/// A file that was fetched.
#[derive(Debug)]
struct Fetched(Vec<u8>);

fn refused() -> io::Error {
    io::Error::new(
        io::ErrorKind::ReadOnlyFilesystem,
        "a served log is only read",
    )
}

impl DiskFile for Fetched {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.0.get(start..).unwrap_or_default();
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(refused())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(refused())
    }

    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn set_len_bytes(&self, _: u64) -> io::Result<()> {
        Err(refused())
    }
}

impl Disk for Served {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        if mode != OpenMode::Read {
            return Err(refused());
        }
        Ok(Box::new(Fetched(self.read(path)?)))
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Err(refused())
    }

    /// Nothing is listed: what is there is known from the checkpoint.
    fn list(&self, _: &Path) -> io::Result<Vec<DirEntry>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn remove_file(&self, _: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn try_lock(&self, _: &Path) -> io::Result<Option<Box<dyn DiskLock>>> {
        Err(refused())
    }

    /// Of what is known to be there: the checkpoint and the folder of tiles.
    fn permissions(&self, path: &Path) -> io::Result<u32> {
        let known = ["tile", CHECKPOINT].map(|name| self.dir.join(name));
        if known.iter().any(|known| known == path) {
            Ok(0o444)
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }
}
