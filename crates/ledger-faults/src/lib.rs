//! A disk in memory that fails when told to, and loses on a crash what was not synced.
//!
//! For tests and for the simulation of the whole system. What it models:
//!
//! - Writes go to a cache. A sync stores them; a crash keeps, of each 512-byte sector written since
//!   the last sync, either all or nothing, by a seed (see [`Kept`]).
//! - Names created, renamed or removed are cached in the same way, in order, per directory, as in a
//!   journal. Directories themselves are there at once.
//! - A sync that fails may have stored everything, or nothing; in the second case the cache still
//!   reads well and later syncs say `Ok`, as Linux does, but a crash shows that it is lost. Each
//!   other opening of the file hears of it once.
//! - A write that fails may have written a part.
//! - A capacity in bytes: writing where the file has no blocks yet fails on a full disk.

mod inode;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, io};

use curfew_ledger::disk::{DirEntry, Disk, DiskFile, DiskLock, OpenMode};

use self::inode::{Inode, Random};

/// What a disk writes at once or not at all, in bytes.
const SECTOR_BYTES: usize = 512;

/// Something asked of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Reading from this file.
    Read(PathBuf),
    /// Writing so many bytes at this offset of this file.
    Write(PathBuf, u64, usize),
    /// Syncing this file.
    Sync(PathBuf),
    /// Syncing this directory.
    SyncDir(PathBuf),
    /// Creating this file.
    Create(PathBuf),
    /// Renaming to this name.
    Rename(PathBuf),
    /// Setting the length of this file.
    SetLen(PathBuf),
    /// Removing this file, or this directory.
    Remove(PathBuf),
    /// Creating this directory.
    CreateDir(PathBuf),
}

/// What the disk does about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Fail, with nothing done.
    Fail(io::ErrorKind),
    /// Fail after doing all of it: a sync that reports an error, but stored everything.
    FailAfter(io::ErrorKind),
    /// For the sync of a file: fail, and forget that these writes are still to be stored. Else the
    /// same as [`Fault::Fail`].
    Lose(io::ErrorKind),
    /// For a write: fail after writing so many bytes. Else the same as [`Fault::Fail`].
    Torn(usize, io::ErrorKind),
}

/// What a power cut leaves of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// All of it.
    All,
    /// None of it.
    Nothing,
    /// Each sector or not, in any order, and of the names the older ones, by this seed.
    Some(u64),
}

/// Decides for each operation whether it fails.
pub type Plan = Box<dyn FnMut(&Op) -> Option<Fault> + Send>;

type InodeId = usize;

/// A name and what it then stands for.
type NameChange = (PathBuf, Option<InodeId>);

#[derive(Default)]
struct DiskState {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, InodeId>,
    stored_names: BTreeMap<PathBuf, InodeId>,
    /// Changes of names not synced yet, in order; those of one rename belong together.
    pending: Vec<Vec<NameChange>>,
    dirs: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
    capacity_bytes: Option<u64>,
    plan: Option<Plan>,
}

/// A simulated disk; clones are the same disk.
#[derive(Clone, Default)]
pub struct FaultyDisk {
    state: Arc<Mutex<DiskState>>,
}

impl fmt::Debug for FaultyDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyDisk")
    }
}

impl FaultyDisk {
    /// An empty disk without faults.
    #[must_use]
    pub fn new() -> FaultyDisk {
        FaultyDisk::default()
    }

    fn lock(&self) -> MutexGuard<'_, DiskState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what decides about faults from now on.
    pub fn set_plan(&self, plan: impl FnMut(&Op) -> Option<Fault> + Send + 'static) {
        self.lock().plan = Some(Box::new(plan));
    }

    /// No more faults.
    pub fn clear_plan(&self) {
        self.lock().plan = None;
    }

    /// Bounds the bytes of all files together; `None` lifts the bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity_bytes = bytes;
    }

    /// Bytes of all files together.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.lock().used_bytes()
    }

    /// What a machine would find after losing power now. This disk goes on unharmed, so that one
    /// run can be crashed at many moments.
    #[must_use]
    pub fn after_crash(&self, seed: u64) -> FaultyDisk {
        self.after_power_cut(Kept::Some(seed))
    }

    /// The same, with a say in what is kept.
    #[must_use]
    pub fn after_power_cut(&self, kept: Kept) -> FaultyDisk {
        let state = self.lock();
        let mut random = match kept {
            Kept::Some(seed) => Random(seed),
            Kept::All | Kept::Nothing => Random(0),
        };
        let mut inodes = state.inodes.clone();
        for inode in &mut inodes {
            // A mix mostly; but all or nothing are the common cases and are worth their share.
            let mode = match kept {
                Kept::All => 0,
                Kept::Nothing => 1,
                Kept::Some(_) => random.below(4),
            };
            inode.crash(mode, &mut random);
        }
        let mut names = state.stored_names.clone();
        // Changes of names reach the disk in order, as in a journal, up to some point.
        let kept = match kept {
            Kept::All => state.pending.len(),
            Kept::Nothing => 0,
            Kept::Some(_) => random.below(state.pending.len() as u64 + 1) as usize,
        };
        for (path, inode) in state.pending[..kept].iter().flatten() {
            apply(&mut names, path, *inode);
        }
        let after = DiskState {
            inodes,
            stored_names: names.clone(),
            names,
            dirs: state.dirs.clone(),
            capacity_bytes: state.capacity_bytes,
            ..DiskState::default()
        };
        FaultyDisk {
            state: Arc::new(Mutex::new(after)),
        }
    }

    /// A disk of its own with the same files, nothing lost, no plan and no locks.
    #[must_use]
    pub fn copy(&self) -> FaultyDisk {
        let state = self.lock();
        let copy = DiskState {
            inodes: state.inodes.clone(),
            names: state.names.clone(),
            stored_names: state.stored_names.clone(),
            pending: state.pending.clone(),
            dirs: state.dirs.clone(),
            capacity_bytes: state.capacity_bytes,
            ..DiskState::default()
        };
        FaultyDisk {
            state: Arc::new(Mutex::new(copy)),
        }
    }

    /// All files there are, with what reads would give.
    #[must_use]
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = self.lock();
        state
            .names
            .iter()
            .map(|(p, i)| (p.clone(), state.inodes[*i].cached.clone()))
            .collect()
    }

    /// Puts a file there, durably; for planting damage.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        self.put_as(path, bytes, false);
    }

    /// The same, for its owner alone (0600).
    pub fn put_secret(&self, path: &Path, bytes: &[u8]) {
        self.put_as(path, bytes, true);
    }

    fn put_as(&self, path: &Path, bytes: &[u8], secret: bool) {
        let mut state = self.lock();
        let id = state.inodes.len();
        let (cached, stored) = (bytes.to_vec(), bytes.to_vec());
        state.inodes.push(Inode {
            cached,
            stored,
            secret,
            ..Inode::default()
        });
        state.names.insert(path.to_path_buf(), id);
        state.stored_names.insert(path.to_path_buf(), id);
    }

    /// Removes a file, durably.
    pub fn delete(&self, path: &Path) {
        let mut state = self.lock();
        state.names.remove(path);
        state.stored_names.remove(path);
    }
}

fn apply(names: &mut BTreeMap<PathBuf, InodeId>, path: &Path, inode: Option<InodeId>) {
    match inode {
        Some(inode) => names.insert(path.to_path_buf(), inode),
        None => names.remove(path),
    };
}

impl DiskState {
    fn used_bytes(&self) -> u64 {
        let ids: BTreeSet<_> = self.names.values().collect();
        ids.into_iter()
            .map(|id| self.inodes[*id].cached.len() as u64)
            .sum()
    }

    fn fault(&mut self, op: &Op) -> Option<Fault> {
        self.plan.as_mut().and_then(|plan| plan(op))
    }

    /// For operations that are done in full or not at all: an error at once when it is not to be
    /// done, else what to answer after doing it.
    fn check(&mut self, op: &Op) -> io::Result<io::Result<()>> {
        match self.fault(op) {
            None => Ok(Ok(())),
            Some(Fault::FailAfter(kind)) => Ok(Err(kind.into())),
            Some(Fault::Fail(kind) | Fault::Lose(kind) | Fault::Torn(_, kind)) => Err(kind.into()),
        }
    }

    fn change_names(&mut self, changes: Vec<NameChange>) {
        for (path, inode) in &changes {
            apply(&mut self.names, path, *inode);
        }
        self.pending.push(changes);
    }

    /// Stores what was done in a directory, and what was done before to the same names elsewhere: a
    /// rename is in two directories, and no disk does it before the removal of what was there.
    fn store_names(&mut self, dir: &Path) {
        let mut touched = BTreeSet::new();
        let mut stored = Vec::new();
        for changes in std::mem::take(&mut self.pending).into_iter().rev() {
            let concerned = changes
                .iter()
                .any(|(name, _)| name.parent() == Some(dir) || touched.contains(name));
            if concerned {
                touched.extend(changes.iter().map(|(name, _)| name.clone()));
                stored.push(changes);
            } else {
                self.pending.push(changes);
            }
        }
        self.pending.reverse();
        for (path, inode) in stored.iter().rev().flatten() {
            apply(&mut self.stored_names, path, *inode);
        }
    }
}

#[derive(Debug)]
struct FaultyFile {
    disk: FaultyDisk,
    path: PathBuf,
    inode: InodeId,
    writable: bool,
    /// Of how many losses this opening has heard: of each once.
    heard: AtomicU64,
}

#[derive(Debug)]
struct FaultyLock {
    disk: FaultyDisk,
    path: PathBuf,
}

impl DiskLock for FaultyLock {}

impl Drop for FaultyLock {
    fn drop(&mut self) {
        self.disk.lock().locks.remove(&self.path);
    }
}

fn to_usize(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.lock();
        state.check(&Op::Read(self.path.clone()))??;
        let bytes = &state.inodes[self.inode].cached;
        let rest = bytes.get(to_usize(offset)?..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let fault = state.fault(&Op::Write(self.path.clone(), offset, buf.len()));
        let (len, outcome) = match fault {
            None => (buf.len(), Ok(())),
            Some(Fault::Fail(kind) | Fault::Lose(kind)) => (0, Err(kind.into())),
            Some(Fault::FailAfter(kind)) => (buf.len(), Err(kind.into())),
            Some(Fault::Torn(len, kind)) => (len.min(buf.len()), Err(kind.into())),
        };
        let offset = to_usize(offset)?;
        let grown = (offset + len).saturating_sub(state.inodes[self.inode].cached.len()) as u64;
        if grown > 0
            && state
                .capacity_bytes
                .is_some_and(|max| state.used_bytes() + grown > max)
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if len > 0 {
            state.inodes[self.inode].write(&buf[..len], offset);
        }
        outcome
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        let fault = state.fault(&Op::Sync(self.path.clone()));
        let inode = &mut state.inodes[self.inode];
        match fault {
            None => inode.store(),
            Some(Fault::Fail(kind) | Fault::Torn(_, kind)) => return Err(kind.into()),
            Some(Fault::FailAfter(kind)) => {
                inode.store();
                return Err(kind.into());
            }
            Some(Fault::Lose(kind)) => {
                inode.dirty.clear();
                inode.losses += 1;
                self.heard.store(inode.losses, Ordering::Relaxed);
                return Err(kind.into());
            }
        }
        // As Linux does: each opening of the file hears of a loss, once.
        let losses = inode.losses;
        if self.heard.swap(losses, Ordering::Relaxed) < losses {
            return Err(io::ErrorKind::Other.into());
        }
        Ok(())
    }

    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.disk.lock().inodes[self.inode].cached.len() as u64)
    }

    fn set_len_bytes(&self, len_bytes: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        let outcome = state.check(&Op::SetLen(self.path.clone()))?;
        let inode = &mut state.inodes[self.inode];
        let (old, new) = (inode.cached.len(), to_usize(len_bytes)?);
        inode.cached.resize(new, 0);
        inode.resized = true;
        // What was cut off does not come back where the file grows again.
        inode
            .dirty
            .extend(new / SECTOR_BYTES..old.div_ceil(SECTOR_BYTES));
        outcome
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.lock();
        let found = state.names.get(path).copied();
        let mut outcome = Ok(());
        let inode = match (found, mode) {
            (Some(_), OpenMode::CreateSecret) => return Err(io::ErrorKind::AlreadyExists.into()),
            (None, OpenMode::Read | OpenMode::Write) => return Err(io::ErrorKind::NotFound.into()),
            (Some(inode), _) => inode,
            (None, OpenMode::Create | OpenMode::CreateSecret) => {
                outcome = state.check(&Op::Create(path.to_path_buf()))?;
                let secret = mode == OpenMode::CreateSecret;
                state.inodes.push(Inode {
                    secret,
                    ..Inode::default()
                });
                let inode = state.inodes.len() - 1;
                state.change_names(vec![(path.to_path_buf(), Some(inode))]);
                inode
            }
        };
        outcome?;
        let writable = mode != OpenMode::Read;
        let path = path.to_path_buf();
        Ok(Box::new(FaultyFile {
            disk: self.clone(),
            path,
            heard: AtomicU64::new(state.inodes[inode].losses),
            inode,
            writable,
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        let outcome = state.check(&Op::CreateDir(path.to_path_buf()))?;
        state.dirs.extend(path.ancestors().map(Path::to_path_buf));
        outcome
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.lock();
        if !state.dirs.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let entry = |child: &PathBuf, is_dir| {
            let name = (child.parent() == Some(path)).then(|| child.file_name())??;
            Some(DirEntry {
                name: name.to_string_lossy().into_owned(),
                is_dir,
            })
        };
        let files = state.names.keys().filter_map(|file| entry(file, false));
        let dirs = state.dirs.iter().filter_map(|dir| entry(dir, true));
        let mut entries: Vec<_> = files.chain(dirs).collect();
        entries.sort();
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        let outcome = state.check(&Op::Rename(to.to_path_buf()))?;
        let inode = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        if !to.parent().is_some_and(|dir| state.dirs.contains(dir)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_names(vec![
            (to.to_path_buf(), Some(inode)),
            (from.to_path_buf(), None),
        ]);
        outcome
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let outcome = state.check(&Op::Remove(path.to_path_buf()))?;
        state.change_names(vec![(path.to_path_buf(), None)]);
        outcome
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        let outcome = state.check(&Op::Remove(path.to_path_buf()))?;
        state.dirs.remove(path);
        outcome
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        let outcome = state.check(&Op::SyncDir(path.to_path_buf()))?;
        state.store_names(path);
        outcome
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>> {
        let fresh = self.lock().locks.insert(path.to_path_buf());
        let lock = || -> Box<dyn DiskLock> {
            Box::new(FaultyLock {
                disk: self.clone(),
                path: path.to_path_buf(),
            })
        };
        Ok(fresh.then(lock))
    }

    fn permissions(&self, path: &Path) -> io::Result<u32> {
        let state = self.lock();
        let inode = state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(if state.inodes[*inode].secret {
            0o600
        } else {
            0o644
        })
    }
}
