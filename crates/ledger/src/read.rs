//! Reading entries. (Bodies follow.)
use crate::disk::Disk;
use crate::error::ReadError;
use std::path::Path;
use std::sync::Arc;

/// Reads a log, whether a writer runs or not, and without ever writing to it.
#[derive(Debug)]
pub struct LogReader {
    size: u64,
}
impl LogReader {
    /// Opens the log in `dir`.
    ///
    /// # Errors
    /// When there is no log, or it cannot be read.
    pub fn open(dir: &Path) -> Result<LogReader, ReadError> {
        LogReader::open_on(dir, Arc::new(crate::disk::RealDisk))
    }
    /// The same on another disk.
    ///
    /// # Errors
    /// When there is no log, or it cannot be read.
    pub fn open_on(dir: &Path, _disk: Arc<dyn Disk>) -> Result<LogReader, ReadError> {
        Err(ReadError::Missing {
            dir: dir.to_path_buf(),
        })
    }
    /// Number of entries found at open or at the last [`LogReader::refresh`].
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
    /// Looks again how far the log goes, and gives its size.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn refresh(&mut self) -> Result<u64, ReadError> {
        Ok(self.size)
    }
    /// One entry.
    ///
    /// # Errors
    /// When there is none of that index, or it cannot be read.
    pub fn entry(&self, index: u64) -> Result<Vec<u8>, ReadError> {
        Err(ReadError::PastEnd {
            index,
            size: self.size,
        })
    }
    /// The entries of a range of indexes, in order; ends at the size of the log.
    pub fn range(&self, _range: std::ops::Range<u64>) -> Entries {
        Entries {}
    }
    /// The last `count` entries.
    pub fn tail(&self, count: u64) -> Entries {
        self.range(self.size.saturating_sub(count)..self.size)
    }
}
/// Entries in index order. After an error it ends.
#[derive(Debug)]
pub struct Entries {}
impl Iterator for Entries {
    type Item = Result<(u64, Vec<u8>), ReadError>;
    fn next(&mut self) -> Option<Self::Item> {
        None
    }
}
