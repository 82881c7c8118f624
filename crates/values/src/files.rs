//! The files of records: appended to in the order of the log, cut where the log ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use curfew_ledger::Disk;
use curfew_ledger::disk::{DiskFile, OpenMode};

use crate::ValuesError;
use crate::record::{HEADER_BYTES, Header};

/// A file past this size is followed by another. To find a record its file is read: 8 MiB take a few
/// milliseconds, and 100 GB of values are 12,000 files.
const FILE_BYTES: u64 = 8 * 1024 * 1024;

/// The largest file that is read: one batch of the ledger, at most 65,536 entries of 4.5 KB, goes
/// into one file.
const FILE_BYTES_MAX: u64 = 512 * 1024 * 1024;

const SUFFIX: &str = ".val";

/// A whole file of records in memory.
#[derive(Debug, Default)]
pub(crate) struct Content {
    bytes: Vec<u8>,
    /// Each record's head, and where what follows it begins.
    pub(crate) records: Vec<(Header, usize)>,
}

impl Content {
    /// Reads a file. Damage is stepped over: what comes after it is found again.
    pub(crate) fn read(disk: &dyn Disk, path: &Path) -> Result<Self, ValuesError> {
        let file = disk.open(path, OpenMode::Read);
        let file = file.map_err(ValuesError::at("open", path))?;
        let length = file.len_bytes().map_err(ValuesError::at("look at", path))?;
        let too_large = || ValuesError::at("read", path)(std::io::ErrorKind::FileTooLarge.into());
        if length > FILE_BYTES_MAX {
            return Err(too_large());
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| too_large())?];
        file.read_exact_at(&mut bytes, 0)
            .map_err(ValuesError::at("read", path))?;
        let mut records = Vec::new();
        let mut at = 0;
        while at + HEADER_BYTES <= bytes.len() {
            match bytes.get(at..).and_then(Header::read) {
                Some(header) if at + HEADER_BYTES + header.rest <= bytes.len() => {
                    records.push((header, at + HEADER_BYTES));
                    at += HEADER_BYTES + header.rest;
                }
                _ => at += 1,
            }
        }
        Ok(Self { bytes, records })
    }

    /// What stands behind a record's head.
    pub(crate) fn rest(&self, header: &Header, at: usize) -> &[u8] {
        self.bytes.get(at..at + header.rest).unwrap_or_default()
    }

    /// The record of an entry.
    pub(crate) fn find(&self, index: u64) -> Option<(&Header, &[u8])> {
        let at = self
            .records
            .partition_point(|(header, _)| header.index < index);
        let (header, rest) = self.records.get(at)?;
        (header.index == index).then(|| (header, self.rest(header, *rest)))
    }
}

/// The first entry of each file, in order.
pub(crate) fn names(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>, ValuesError> {
    let listed = disk.list(dir).map_err(ValuesError::at("list", dir))?;
    let first = |name: &str| name.strip_suffix(SUFFIX)?.parse().ok();
    Ok(listed
        .iter()
        .filter_map(|entry| first(&entry.name))
        .collect())
}

/// The file that begins with this entry.
pub(crate) fn path_of(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}{SUFFIX}"))
}

/// The file in which the record of an entry must be, if there is one.
pub(crate) fn holding(names: &[u64], index: u64) -> Option<u64> {
    let after = names.partition_point(|first| *first <= index);
    names.get(after.checked_sub(1)?).copied()
}

/// The files, with the end of the last one, where records are added.
#[derive(Debug)]
pub(crate) struct Files {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    names: Vec<u64>,
    last: Option<(PathBuf, Box<dyn DiskFile>)>,
    end: u64,
}

impl Files {
    /// Opens them and cuts off what belongs to entries from `size` on: they never became part of
    /// the log, and others will have their indexes.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: &Path, size: u64) -> Result<Self, ValuesError> {
        let mut files = Self {
            names: names(&*disk, dir)?,
            dir: dir.to_path_buf(),
            disk,
            last: None,
            end: 0,
        };
        while files.names.last().is_some_and(|first| *first >= size) {
            if let Some(first) = files.names.pop() {
                let path = path_of(dir, first);
                let removed = files.disk.remove_file(&path);
                removed.map_err(ValuesError::at("remove", &path))?;
            }
        }
        let synced = files.disk.sync_dir(dir);
        synced.map_err(ValuesError::at("sync", dir))?;
        if let Some(first) = files.names.last() {
            let path = path_of(dir, *first);
            let content = Content::read(&*files.disk, &path)?;
            let kept = content.records.iter().rev();
            let mut kept = kept.skip_while(|(header, _)| header.index >= size);
            let end = kept.next().map_or(0, |(header, at)| at + header.rest);
            files.end = end as u64;
            let file = files.disk.open(&path, OpenMode::Write);
            let file = file.map_err(ValuesError::at("open", &path))?;
            let cut = file.set_len_bytes(files.end);
            cut.and_then(|()| file.sync_data())
                .map_err(ValuesError::at("cut", &path))?;
            files.last = Some((path, file));
        }
        Ok(files)
    }

    /// Makes records durable that come after all that are there.
    pub(crate) fn append(&mut self, records: &[(u64, Vec<u8>)]) -> Result<(), ValuesError> {
        let Some((first, _)) = records.first() else {
            return Ok(());
        };
        if self.last.is_none() || self.end >= FILE_BYTES {
            let path = path_of(&self.dir, *first);
            let file = self.disk.open(&path, OpenMode::CreateSecret);
            let file = file.map_err(ValuesError::at("create", &path))?;
            let synced = self.disk.sync_dir(&self.dir);
            synced.map_err(ValuesError::at("sync", &self.dir))?;
            self.names.push(*first);
            self.last = Some((path, file));
            self.end = 0;
        }
        if let Some((path, file)) = &self.last {
            let bytes: Vec<u8> = records
                .iter()
                .flat_map(|(_, bytes)| bytes)
                .copied()
                .collect();
            let written = file.write_all_at(&bytes, self.end);
            written.map_err(ValuesError::at("write", path))?;
            file.sync_data().map_err(ValuesError::at("sync", path))?;
            self.end += bytes.len() as u64;
        }
        Ok(())
    }

    /// Removes whole files of which every record is of an entry before this one.
    pub(crate) fn forget(&mut self, before: u64) -> Result<u64, ValuesError> {
        let mut removed = 0;
        while let [first, next, ..] = self.names[..]
            && next <= before
        {
            let path = path_of(&self.dir, first);
            match self.disk.remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(ValuesError::at("remove", &path)(error));
                }
                // An earlier try may have come so far.
                _ => {}
            }
            self.names.remove(0);
            removed += 1;
        }
        // Even where nothing went: an earlier sync may have failed.
        let synced = self.disk.sync_dir(&self.dir);
        synced.map_err(ValuesError::at("sync", &self.dir))?;
        Ok(removed)
    }

    pub(crate) fn names(&self) -> &[u64] {
        &self.names
    }
}

#[cfg(test)]
mod tests {
    use curfew_ledger_faults::{Fault, FaultyDisk, Kept, Op};

    use super::*;

    #[test]
    fn whole_files_of_earlier_entries_go_and_the_last_one_stays() {
        let disk = FaultyDisk::new();
        let dir = Path::new("/values");
        disk.create_dir_all(dir).unwrap();
        let mut files = Files::open(Arc::new(disk.clone()), dir, 0).unwrap();
        let full = vec![7; usize::try_from(FILE_BYTES).unwrap()];
        for first in [0, 10, 20] {
            files.append(&[(first, full.clone())]).unwrap();
        }
        let left = |files: &Files| files.names().to_vec();
        assert_eq!(files.forget(9).unwrap(), 0);
        assert_eq!(files.forget(10).unwrap(), 1);
        assert_eq!(left(&files), [10, 20]);
        assert_eq!(names(&disk, dir).unwrap(), [10, 20]);
        // One that is cut short is done by the next.
        disk.set_plan(|op| {
            let fails = matches!(op, Op::SyncDir(_));
            fails.then_some(Fault::Fail(std::io::ErrorKind::Other))
        });
        files.forget(25).unwrap_err();
        disk.clear_plan();
        files.forget(25).unwrap();
        assert_eq!(left(&files), [20]);
        let disk = disk.after_power_cut(Kept::Nothing);
        assert_eq!(names(&disk, dir).unwrap(), [20]);
    }
}
