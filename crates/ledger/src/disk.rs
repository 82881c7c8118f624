//! The only road to the file system.
//!
//! Everything the ledger reads or writes goes through [`Disk`], so that a test can stand a failing
//! disk (the crate `curfew-ledger-faults`) in its place, and so that what the ledger relies on is in one list:
//!
//! 1. [`DiskFile::sync_data`] returns `Ok` only once all earlier writes to that file survive a crash.
//! 2. [`Disk::sync_dir`] does the same for names created, renamed or removed in that directory.
//! 3. [`Disk::rename`] replaces the target atomically.
//! 4. After a failed sync nothing is known about the data written since the last good one. It may
//!    still be readable, be lost at the next crash, and a further sync may say `Ok` all the same.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the one road to the file system"
)]

mod direct;

use std::fmt::Debug;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; the file must exist.
    Read,
    /// For reading and writing; the file must exist.
    Write,
    /// For reading and writing; created empty when missing, with mode 0644 less the umask.
    Create,
    /// For reading and writing; must not exist yet, readable by the owner only (0600).
    CreateSecret,
}

/// An open file. All positions and lengths are in bytes.
pub trait DiskFile: Send + Sync + Debug {
    /// Reads up to `buf.len()` bytes at `offset`; 0 means the end of the file.
    ///
    /// # Errors
    /// Whatever the disk reports.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `buf` at `offset`. After an error any part of it may have been written.
    ///
    /// # Errors
    /// Whatever the disk reports.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;

    /// Makes all earlier writes to this file survive a crash (`fdatasync`).
    ///
    /// # Errors
    /// Whatever the disk reports; see point 4 of the module text.
    fn sync_data(&self) -> io::Result<()>;

    /// The length of the file.
    ///
    /// # Errors
    /// Whatever the disk reports.
    fn len_bytes(&self) -> io::Result<u64>;

    /// Cuts or extends (with zeros) the file to `len_bytes`.
    ///
    /// # Errors
    /// Whatever the disk reports.
    fn set_len_bytes(&self, len_bytes: u64) -> io::Result<()>;

    /// Reads exactly `buf.len()` bytes at `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends before; otherwise whatever the disk reports.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match self.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Held for as long as this process is the one writer; dropping it gives the lock back.
pub trait DiskLock: Send + Sync + Debug {}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The name, without the directory. Names that are not UTF-8 are given lossily.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// A file system.
pub trait Disk: Send + Sync + Debug + 'static {
    /// Opens a file.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists`, or whatever the disk reports.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>>;

    /// The same, past the page cache where the file system can: for bytes that are not read again soon.
    /// What others read or write as usual is seen all the same, and the other way round.
    ///
    /// # Errors
    /// As for [`Disk::open`].
    fn open_direct(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        self.open(path, mode)
    }

    /// Creates a directory and its parents; it is no error when they exist.
    ///
    /// # Errors
    /// Whatever the disk reports.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// What is in a directory, sorted by name.
    ///
    /// # Errors
    /// `NotFound`, or whatever the disk reports.
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>>;

    /// Renames a file, atomically replacing the target.
    ///
    /// # Errors
    /// Whatever the disk reports.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// Whatever the disk reports.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// Whatever the disk reports.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory survive a crash.
    ///
    /// # Errors
    /// Whatever the disk reports.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Takes the advisory lock on `path`, creating the file; `None` when another holds it.
    ///
    /// # Errors
    /// Whatever the disk reports.
    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>>;

    /// The permission bits of a file, e.g. 0o600.
    ///
    /// # Errors
    /// Whatever the disk reports.
    fn permissions(&self, path: &Path) -> io::Result<u32>;
}

/// Reads a whole file of at most `bytes_max` bytes.
///
/// # Errors
/// `FileTooLarge` when it is longer; otherwise whatever the disk reports.
pub(crate) fn read_file(disk: &dyn Disk, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read)?;
    let len = file.len_bytes()?;
    if len > bytes_max {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Replaces `path` by `bytes` so that after a crash either the old or the new content is there.
///
/// # Errors
/// Whatever the disk reports. The replacement may have happened all the same.
pub fn replace_file_durably(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_file_steps(disk, path, bytes).map_err(|(_, error)| error)
}

/// The same, and tells on an error whether the replacement may have happened.
pub(crate) fn replace_file_steps(
    disk: &dyn Disk,
    path: &Path,
    bytes: &[u8],
) -> Result<(), (bool, io::Error)> {
    let temporary = temporary_name(path);
    let written = || {
        let file = disk.open(&temporary, OpenMode::Create)?;
        file.set_len_bytes(0)?;
        file.write_all_at(bytes, 0)?;
        file.sync_data()
    };
    written().map_err(|error| (false, error))?;
    let named = disk.rename(&temporary, path);
    named
        .and_then(|()| disk.sync_dir(parent(path)))
        .map_err(|error| (true, error))
}

/// The directory a path is in; `.` for a bare name.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn temporary_name(path: &Path) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".tmp");
    name.into()
}

/// The file system of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

#[derive(Debug)]
struct RealLock(File);

impl DiskLock for RealLock {}

impl Drop for RealLock {
    fn drop(&mut self) {
        // Closing alone would leave the lock to a child process that was forked but has not yet run
        // its program: it shares the open file until then.
        let _ = self.0.unlock();
    }
}

impl DiskFile for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, buf, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.size())
    }

    fn set_len_bytes(&self, len_bytes: u64) -> io::Result<()> {
        self.set_len(len_bytes)
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => {
                options.write(true);
            }
            OpenMode::Create => {
                options.write(true).create(true).mode(0o644);
            }
            OpenMode::CreateSecret => {
                options.write(true).create_new(true).mode(0o600);
            }
        }
        Ok(Box::new(options.open(path)?))
    }

    fn open_direct(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let usual = self.open(path, mode)?;
        Ok(direct::open(path, mode, usual))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            entries.push(DirEntry {
                name: entry.file_name().to_string_lossy().into_owned(),
                is_dir: entry.file_type()?.is_dir(),
            });
        }
        entries.sort();
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(RealLock(file)))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn permissions(&self, path: &Path) -> io::Result<u32> {
        Ok(std::fs::metadata(path)?.permissions().mode() & 0o7777)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_given_back_though_another_process_still_has_the_file() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("lock");
        let file = File::create(&path)?;
        file.try_lock()?;
        // What a fork copies: another number for the same open file.
        let copy = file.try_clone()?;
        drop(RealLock(file));
        assert!(RealDisk.try_lock(&path)?.is_some());
        drop(copy);
        Ok(())
    }
}
