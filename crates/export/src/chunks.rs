//! An export in pieces: each is made when it is asked for, so that memory holds one.

use std::io::{self, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::{fmt, mem};

use curfew_ledger::{Entries, LogReader, ReadError};

use crate::format::{Exporter, Format, Packing, WriteError};
use crate::record::{HorizonError, Opener, Recall, Source, Stream};

/// Bytes of a piece, from where no more is added to it. A Parquet row group comes as one.
const CHUNK_BYTES: usize = 128 * 1024;

/// Entries that are looked at before the caller is asked whether to go on: some milliseconds.
const STRETCH: usize = 4_096;

/// Why an export did not go on.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The log cannot be read.
    #[error("the log cannot be read: {0}")]
    Read(#[from] ReadError),
    /// It cannot be told whose the sessions of a pruned log are.
    #[error(transparent)]
    Horizon(#[from] HorizonError),
    /// What it commits to cannot be read.
    #[error("the values beside the log cannot be read: {0}")]
    Values(String),
    /// An entry cannot be written in this format.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// What was written and not taken yet.
#[derive(Clone, Debug, Default)]
struct Outlet(Arc<Mutex<Vec<u8>>>);

impl Outlet {
    fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn take(&self) -> Vec<u8> {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Entries of a log in one format, piece by piece. Everything it does blocks.
pub struct Chunks {
    entries: Entries,
    /// Where what is given begins. Before it only whose the sessions are is learned.
    from: u64,
    at: u64,
    written: u64,
    stream: Stream,
    /// Shows concealed values.
    opener: Option<Box<Opener>>,
    /// None once it is whole.
    exporter: Option<Exporter<Outlet>>,
    outlet: Outlet,
}

impl fmt::Debug for Chunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Chunks");
        shown.field("from", &self.from).finish_non_exhaustive()
    }
}

impl Chunks {
    /// Of the entries in `range`, which must not go beyond the log.
    ///
    /// # Errors
    /// When the format cannot begin, or what stands for the entries of a pruned log that are gone
    /// cannot be read.
    pub fn new(
        reader: &LogReader,
        range: Range<u64>,
        format: Format,
        packing: Packing,
        source: Source,
        recall: Recall,
    ) -> Result<Self, ExportError> {
        let outlet = Outlet::default();
        // Whose the sessions are is said at their start, which may lie before the range.
        let (first, stream) = if range.is_empty() {
            (range.end, Stream::new())
        } else {
            (0, Stream::before(reader, recall)?)
        };
        Ok(Self {
            entries: reader.range(first..range.end),
            at: first,
            from: range.start,
            written: 0,
            stream,
            opener: None,
            exporter: Some(Exporter::new(format, packing, source, outlet.clone())?),
            outlet,
        })
    }

    /// The same, with what `opener` has in the place of concealed values.
    #[must_use]
    pub fn revealing(mut self, opener: Box<Opener>) -> Self {
        self.opener = Some(opener);
        self
    }

    /// The index behind the last entry that was read.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// How many entries were given to the format so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The next piece. An empty one says only that the work goes on; none, that it is whole.
    ///
    /// # Errors
    /// When the log cannot be read or an entry not be written. What was given before is then not
    /// the whole export.
    pub fn piece(&mut self) -> Result<Option<Vec<u8>>, ExportError> {
        let Some(exporter) = &mut self.exporter else {
            return Ok(None);
        };
        for _ in 0..STRETCH {
            let Some(entry) = self.entries.next() else {
                if let Some(exporter) = self.exporter.take() {
                    exporter.finish()?;
                }
                break;
            };
            let (index, bytes) = entry?;
            self.at = index + 1;
            if index < self.from {
                self.stream.learn(index, &bytes);
                continue;
            }
            let record = match &mut self.opener {
                Some(opener) => {
                    let record = self.stream.revealed(index, bytes, opener);
                    record.map_err(ExportError::Values)?
                }
                None => self.stream.record(index, bytes),
            };
            exporter.push(record)?;
            self.written += 1;
            if self.outlet.len() >= CHUNK_BYTES {
                break;
            }
        }
        Ok(Some(self.outlet.take()))
    }
}
