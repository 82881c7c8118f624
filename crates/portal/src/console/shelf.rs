//! Reading the ledger for pages and API. All of it blocks, so all of it runs on the blocking pool.

use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use curfew_ledger::{LogReader, Published, Reached, ReadError, Receipt};

use super::Portal;

/// The most bytes that are read of a checkpoint: what a signed note may have.
const CHECKPOINT_BYTES_MAX: u64 = 256 * 1024;

/// An entry as it stands in the ledger, and where.
pub(super) type Found = (u64, Vec<u8>);

/// The ledger, open for reading once for everybody.
#[derive(Debug)]
pub(super) struct Shelf {
    dir: PathBuf,
    reader: Mutex<Option<LogReader>>,
}

/// What a look back found.
#[derive(Debug)]
pub(super) struct Back {
    /// The newest first.
    pub(super) entries: Vec<Found>,
    /// The oldest of them.
    pub(super) from: u64,
    /// How many entries there are.
    pub(super) size: u64,
    /// The newest signed checkpoint, as a signed note.
    pub(super) checkpoint: Option<String>,
}

/// What a look forward found.
#[derive(Debug)]
pub(super) struct Forward {
    /// The oldest first.
    pub(super) entries: Vec<Found>,
    /// How many entries there are.
    pub(super) size: u64,
}

impl Shelf {
    /// The ledger in this folder.
    pub(super) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            reader: Mutex::new(None),
        }
    }

    fn with<T>(
        &self,
        look: impl FnOnce(&LogReader) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let mut held = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reader = match held.take() {
            Some(reader) => reader,
            None => LogReader::open(&self.dir)?,
        };
        reader.refresh()?;
        let found = look(&reader)?;
        // Kept only while it works: after an error it is opened anew.
        *held = Some(reader);
        Ok(found)
    }

    fn back(&self, before: Option<u64>, count: u64) -> Result<Back, ReadError> {
        self.with(|reader| {
            let size = reader.size();
            let end = before.unwrap_or(size).min(size);
            let from = end.saturating_sub(count);
            let mut entries = reader.range(from..end).collect::<Result<Vec<_>, _>>()?;
            entries.reverse();
            Ok(Back {
                entries,
                from,
                size,
                checkpoint: self.checkpoint(),
            })
        })
    }

    fn forward(
        &self,
        after: Option<u64>,
        count: u64,
        bytes_max: usize,
    ) -> Result<Forward, ReadError> {
        self.with(|reader| {
            let size = reader.size();
            let start = match after {
                Some(after) => after.saturating_add(1).min(size),
                None => size.saturating_sub(count),
            };
            let mut entries = Vec::new();
            let mut bytes_read = 0;
            for found in reader.range(start..size.min(start.saturating_add(count))) {
                let (index, bytes) = found?;
                bytes_read += bytes.len();
                // One entry always fits, so that nobody is stuck before it.
                if bytes_read > bytes_max && !entries.is_empty() {
                    break;
                }
                entries.push((index, bytes));
            }
            Ok(Forward { entries, size })
        })
    }

    fn checkpoint(&self) -> Option<String> {
        let file = std::fs::File::open(self.dir.join("checkpoint")).ok()?;
        let mut text = String::new();
        file.take(CHECKPOINT_BYTES_MAX)
            .read_to_string(&mut text)
            .ok()?;
        Some(text)
    }
}

/// Why nothing was read. Details are in Curfew's own diagnostics.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unread {
    /// There is no entry of that index.
    PastEnd,
    /// The ledger could not be read.
    Failed,
}

async fn blocking<T: Send + 'static>(
    portal: &Arc<Portal>,
    look: impl FnOnce(&Shelf) -> Result<T, ReadError> + Send + 'static,
) -> Result<T, Unread> {
    let portal = Arc::clone(portal);
    let read = tokio::task::spawn_blocking(move || look(&portal.shelf)).await;
    match read {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(ReadError::PastEnd { .. })) => Err(Unread::PastEnd),
        Ok(Err(error)) => {
            tracing::error!(%error, "the ledger could not be read");
            Err(Unread::Failed)
        }
        Err(error) => {
            tracing::error!(%error, "reading the ledger was cut short");
            Err(Unread::Failed)
        }
    }
}

/// The newest entries before `before`, newest first.
pub(super) async fn back(
    portal: &Arc<Portal>,
    before: Option<u64>,
    count: u64,
) -> Result<Back, Unread> {
    blocking(portal, move |shelf| shelf.back(before, count)).await
}

/// The entries after `after`, or the last ones, oldest first.
pub(super) async fn forward(
    portal: &Arc<Portal>,
    after: Option<u64>,
    count: u64,
    bytes_max: usize,
) -> Result<Forward, Unread> {
    blocking(portal, move |shelf| shelf.forward(after, count, bytes_max)).await
}

/// The receipt of one entry, if there is any yet, and how far the entry has come.
pub(super) async fn receipt(
    portal: &Arc<Portal>,
    index: u64,
) -> Result<(Reached, Option<Receipt>), Unread> {
    blocking(portal, move |shelf| {
        let entry = shelf.with(|reader| reader.entry(index))?;
        Published::new(&shelf.dir).receipt(index, &entry)
    })
    .await
}

/// One entry.
pub(super) async fn one(portal: &Arc<Portal>, index: u64) -> Result<Vec<u8>, Unread> {
    blocking(portal, move |shelf| {
        shelf.with(|reader| reader.entry(index))
    })
    .await
}
