//! Files read and written past the page cache (`O_DIRECT` of `open(2)`).
//!
//! The bytes of a segment are written once and read back once, a second later at most. Kept in the page
//! cache they would cost more processor time than the write itself, and push out what others need.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::disk::{DiskFile, OpenMode};

/// What offsets, lengths and places in memory must be multiples of: the page size, which no usual
/// disk's sectors are larger than. A file system that asks for more is written to as usual.
const ALIGNMENT: usize = 4096;

/// Most bytes moved at once.
const PIECE_BYTES: usize = 4 * 1024 * 1024;

/// A file that is read and written past the page cache, and as usual where that cannot be.
#[derive(Debug)]
struct DirectFile {
    direct: File,
    usual: Box<dyn DiskFile>,
    /// Whether something was written as usual.
    is_mixed: AtomicBool,
    /// Memory of which a part has the right place.
    memory: Mutex<Vec<u8>>,
}

/// Opens what is open already once more, past the page cache; gives the usual one where that cannot be.
pub(super) fn open(path: &Path, mode: OpenMode, usual: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
    let opened = OpenOptions::new()
        .read(true)
        .write(mode != OpenMode::Read)
        .custom_flags(rustix::fs::OFlags::DIRECT.bits().cast_signed())
        .open(path);
    match opened {
        Ok(direct) => Box::new(DirectFile {
            direct,
            usual,
            is_mixed: AtomicBool::new(false),
            memory: Mutex::default(),
        }),
        Err(_) => usual,
    }
}

impl DirectFile {
    /// Calls `with` with so many bytes of memory in the right place.
    fn with_memory<T>(&self, len: usize, with: impl FnOnce(&mut [u8]) -> T) -> T {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.len() < len + ALIGNMENT {
            memory.resize(len + ALIGNMENT, 0);
        }
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        with(&mut memory[start..start + len])
    }

    /// Writes a piece; false where it cannot be written this way.
    fn write_piece(&self, piece: &[u8], offset: u64) -> io::Result<bool> {
        if !is_aligned(piece.len(), offset) {
            return Ok(false);
        }
        let written = self.with_memory(piece.len(), |memory| {
            memory.copy_from_slice(piece);
            FileExt::write_all_at(&self.direct, memory, offset)
        });
        match written {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn is_aligned(len: usize, offset: u64) -> bool {
    len.is_multiple_of(ALIGNMENT) && offset.is_multiple_of(ALIGNMENT as u64)
}

impl DiskFile for DirectFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let len = buf.len().min(PIECE_BYTES);
        if !is_aligned(len, offset) {
            return self.usual.read_at(buf, offset);
        }
        let read = self.with_memory(len, |memory| {
            let read = FileExt::read_at(&self.direct, memory, offset)?;
            buf[..read].copy_from_slice(&memory[..read]);
            io::Result::Ok(read)
        });
        match read {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.usual.read_at(buf, offset)
            }
            outcome => outcome,
        }
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        for (piece, at) in buf.chunks(PIECE_BYTES).zip((offset..).step_by(PIECE_BYTES)) {
            if !self.write_piece(piece, at)? {
                self.is_mixed.store(true, Ordering::Relaxed);
                self.usual.write_all_at(piece, at)?;
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        // Each opening hears for itself of what could not be written back.
        if self.is_mixed.load(Ordering::Relaxed) {
            self.usual.sync_data()?;
        }
        self.direct.sync_data()
    }

    fn len_bytes(&self) -> io::Result<u64> {
        self.usual.len_bytes()
    }

    fn set_len_bytes(&self, len_bytes: u64) -> io::Result<()> {
        self.is_mixed.store(true, Ordering::Relaxed);
        self.usual.set_len_bytes(len_bytes)
    }
}

#[cfg(test)]
mod tests {
    use crate::disk::{Disk, OpenMode, RealDisk};

    #[test]
    fn what_is_written_past_the_page_cache_is_read_both_ways() -> std::io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("file");
        let (direct, usual) = (
            RealDisk.open_direct(&path, OpenMode::Create)?,
            RealDisk.open(&path, OpenMode::Write)?,
        );
        let mut expected: Vec<u8> = (0..9_u32 << 20).map(|n| (n >> 9) as u8).collect();
        direct.write_all_at(&expected, 0)?;
        // Neither its place nor its length is one of a block.
        for (at, len) in [(5, 10), (4096, 100), (12_345, 70_000), (4 << 20, 1)] {
            expected[at..at + len].fill(0xab);
            direct.write_all_at(&expected[at..at + len], at as u64)?;
        }
        expected[8192..12_288].fill(0xcd);
        usual.write_all_at(&expected[8192..12_288], 8192)?;
        direct.sync_data()?;
        for file in [&direct, &usual] {
            let mut found = vec![0; expected.len()];
            file.read_exact_at(&mut found, 0)?;
            assert!(found == expected);
            let mut found = [0; 100];
            file.read_exact_at(&mut found, 4097)?;
            assert_eq!(found, expected[4097..4197]);
            assert_eq!(file.len_bytes()?, expected.len() as u64);
            assert_eq!(file.read_at(&mut found, 9 << 20)?, 0, "the end");
        }
        Ok(())
    }
}
