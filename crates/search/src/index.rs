//! The index: opened only when it is of this log, made anew otherwise, and filled in order.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use curfew_entry::{Entry, Subjects, Timestamp};
use curfew_ledger::{Fetch, LogReader, ReadError, merkle};
use futures_executor::block_on;
use futures_util::FutureExt;
use serde::{Deserialize, Serialize};
use tantivy::directory::{Advice, MmapDirectory};
use tantivy::index::SegmentId;
use tantivy::indexer::NoMergePolicy;
use tantivy::{FutureResult, Index, IndexReader, IndexWriter, ReloadPolicy, SegmentMeta};

use crate::resolve::lookup;
use crate::schema::{FORMAT, Fields, schema};
use crate::search::Searcher;
use crate::walk::{Part, parts};

/// The folder within the one that was chosen. Nothing outside it is ever deleted.
const FOLDER: &str = "curfew-index";

/// Memory for entries that are not yet in a file, in bytes. Tantivy asks for 15 MB at least; with
/// 64 MB a file holds some 150,000 entries, and starting the next one is rare.
const HEAP_BYTES: usize = 64_000_000;

/// Sessions whose subject is kept in memory: 100,000 × some 150 bytes are 15 MB. Past it all are
/// forgotten and looked up in the index as they are needed.
const SESSIONS_MAX: usize = 100_000;

/// Sizes, in entries, below which parts of the index are small, middling and large. Eight
/// neighbours of a size become one of the next.
const TIERS: [u32; 3] = [20_000, 160_000, 1_280_000];

/// How many neighbours are merged into one.
const MERGED: usize = 8;

/// Entries in one part at most, so that a merge takes seconds: 4 million.
const PART_MAX: u32 = 4_000_000;

/// Entries that become one commit while an index is being made: a part each, or two.
pub(crate) const COMMIT_ENTRIES: u64 = 200_000;

/// Why the index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// A folder or file cannot be made or removed.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The folder can be entered by others, who would learn what the log says.
    #[error("{0} can be entered by others; set its mode to 0700")]
    Exposed(String),
    /// Another process fills it.
    #[error("{0} is being filled by another process")]
    Busy(String),
    /// The index itself.
    #[error("the search index: {0}")]
    Index(#[from] tantivy::TantivyError),
    /// The index broke while it was used.
    #[error("the search index is damaged")]
    Damaged,
}

/// What a commit says of itself: of which log it is, and how much of it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Stamp {
    format: u32,
    /// The first entry that the log held.
    pub(crate) first: u64,
    /// One more than the last entry in the index.
    pub(crate) size: u64,
    /// Leaf hash of the first entry in it.
    first_leaf: String,
    /// Leaf hash of the last one.
    last_leaf: String,
    /// Times have never fallen from one entry to the next.
    pub(crate) ordered: bool,
    /// The highest time so far.
    newest: u64,
}

/// The index as searches see it, at one commit.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) searcher: tantivy::Searcher,
    pub(crate) parts: Vec<Part>,
    pub(crate) fields: Fields,
    pub(crate) stamp: Stamp,
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> IndexError + '_ {
    move |source| IndexError::File {
        path: path.display().to_string(),
        source,
    }
}

/// Fills the index from the log. One at a time for a folder.
pub struct Indexer {
    dir: PathBuf,
    log: LogReader,
    index: Index,
    fields: Fields,
    writer: IndexWriter,
    reader: IndexReader,
    /// Of the last commit, and of what has been added since.
    stamp: Stamp,
    committed: u64,
    subjects: Subjects,
    merging: Option<FutureResult<Option<SegmentMeta>>>,
    searcher: Searcher,
    rebuilt: bool,
    _lock: Lock,
}

impl std::fmt::Debug for Indexer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Indexer at {} of {}", self.stamp.size, self.log.size())
    }
}

fn make_folder(dir: &Path) -> Result<(), IndexError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(dir).map_err(at(dir))?;
    let mode = fs::metadata(dir).map_err(at(dir))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(IndexError::Exposed(dir.display().to_string()));
    }
    Ok(())
}

fn leaf(fetch: &mut Fetch, index: u64) -> Result<String, ReadError> {
    let bytes = fetch.entry(index, None)?;
    Ok(merkle::leaf_hash(&bytes).to_string())
}

/// Whether a stamp tells of this very log, and mostly of entries that are left. An index of many that
/// were pruned is worth making anew, since nothing is ever removed from one.
fn is_of(stamp: &Stamp, log: &LogReader) -> Result<bool, ReadError> {
    let first = log.first();
    let of_log = stamp.format == FORMAT && stamp.first <= first && stamp.size <= log.size();
    if !of_log || stamp.size <= first {
        return Ok(false);
    }
    if first - stamp.first > stamp.size - first {
        return Ok(false);
    }
    let mut fetch = log.fetch()?;
    // Of a log that was pruned since, the last one must do.
    let begins = stamp.first < first || leaf(&mut fetch, stamp.first)? == stamp.first_leaf;
    Ok(begins && leaf(&mut fetch, stamp.size - 1)? == stamp.last_leaf)
}

/// Opens what is there, if it is whole and of this log. What breaks on the way is not whole.
fn existing(
    dir: &Path,
    log: &LogReader,
    thorough: bool,
) -> Result<Option<(Index, Stamp)>, IndexError> {
    let open = || -> tantivy::Result<Option<(Index, Stamp)>> {
        let index = Index::open_in_dir(dir)?;
        let stamp: Option<Stamp> = index
            .load_metas()?
            .payload
            .and_then(|payload| serde_json::from_str(&payload).ok());
        let (wanted, _) = schema();
        if index.schema() != wanted || (thorough && !index.validate_checksum()?.is_empty()) {
            return Ok(None);
        }
        Ok(stamp.map(|stamp| (index, stamp)))
    };
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok(Some((index, stamp)))) if is_of(&stamp, log)? => Ok(Some((index, stamp))),
        Ok(Ok(_) | Err(_)) | Err(_) => Ok(None),
    }
}

fn fresh(dir: &Path) -> Result<Index, IndexError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(at(dir)(error)),
        _ => {}
    }
    make_folder(dir)?;
    let (schema, _) = schema();
    Ok(Index::create_in_dir(dir, schema)?)
}

fn snapshot(reader: &IndexReader, fields: Fields, stamp: Stamp) -> Result<Snapshot, IndexError> {
    let searcher = reader.searcher();
    Ok(Snapshot {
        parts: parts(&searcher)?,
        searcher,
        fields,
        stamp,
    })
}

/// Reads the index in `dir` on an opening of its own, which the kernel does not read ahead in: a
/// search touches a few pages in each of many files, and what is read around them can be megabytes.
fn reader_of(dir: &Path) -> tantivy::Result<IndexReader> {
    let files = MmapDirectory::open_with_madvice(dir, Advice::Random)?;
    Index::open(files)?
        .reader_builder()
        .reload_policy(ReloadPolicy::Manual)
        .try_into()
}

/// The index in `dir` as another process left or keeps it, without filling it.
pub(crate) fn look(log: &LogReader, dir: &Path) -> Result<Option<Snapshot>, IndexError> {
    let folder = dir.join(FOLDER);
    let Some((_, stamp)) = existing(&folder, log, false)? else {
        return Ok(None);
    };
    let (_, fields) = schema();
    snapshot(&reader_of(&folder)?, fields, stamp).map(Some)
}

/// A name for the index of a log among those of others: of where the log is.
///
/// # Errors
/// When there is no such folder.
pub fn folder_name(log_dir: &Path) -> std::io::Result<String> {
    let path = fs::canonicalize(log_dir)?;
    let hash = merkle::leaf_hash(path.as_os_str().as_encoded_bytes()).to_string();
    Ok(hash.chars().take(32).collect())
}

/// Throws away the index in `dir`. It can be made again from the log.
fn discard(dir: &Path) -> Result<(), IndexError> {
    let folder = dir.join(FOLDER);
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(at(&folder)(error)),
        _ => Ok(()),
    }
}

/// The one filling of an index at a time.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone would leave it to a child process that has not yet run its program.
        let _ = self.0.unlock();
    }
}

impl Indexer {
    /// Opens the index in `dir` for the log in `log_dir`, or begins it anew when there is none, it
    /// is of another log, of another version, or damaged. `thorough` reads all of it to know that
    /// it is whole: a second or so for ten million entries.
    ///
    /// # Errors
    /// When the log cannot be read or the folder not be used.
    pub fn open(log_dir: &Path, dir: &Path, thorough: bool) -> Result<Self, IndexError> {
        Self::open_for(Searcher::new(log_dir), dir, thorough)
    }

    pub(crate) fn open_for(
        searcher: Searcher,
        dir: &Path,
        thorough: bool,
    ) -> Result<Self, IndexError> {
        // First, so that nothing is left behind where there is no log.
        let log = LogReader::open(searcher.log_dir())?;
        make_folder(dir)?;
        let lock_path = dir.join("lock");
        let lock = File::create(&lock_path).map_err(at(&lock_path))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => IndexError::Busy(dir.display().to_string()),
            fs::TryLockError::Error(source) => at(&lock_path)(source),
        })?;
        let folder = dir.join(FOLDER);
        let found = existing(&folder, &log, thorough)?;
        let rebuilt = found.is_none();
        let (index, stamp) = match found {
            Some(found) => found,
            None => (fresh(&folder)?, Stamp::empty(log.first())),
        };
        let (_, fields) = schema();
        // One thread, so that entries stay in the order of the log.
        let writer: IndexWriter = index.writer_with_num_threads(1, HEAP_BYTES)?;
        writer.set_merge_policy(Box::new(NoMergePolicy));
        let reader = reader_of(&folder)?;
        let indexer = Self {
            dir: dir.to_owned(),
            committed: stamp.size,
            log,
            index,
            fields,
            writer,
            reader,
            stamp,
            subjects: Subjects::default(),
            merging: None,
            searcher,
            rebuilt,
            _lock: Lock(lock),
        };
        indexer.publish()?;
        Ok(indexer)
    }

    /// Searches over this index, also while it is being filled.
    #[must_use]
    pub fn searcher(&self) -> Searcher {
        self.searcher.clone()
    }

    /// Whether the index was begun anew when it was opened.
    #[must_use]
    pub fn was_rebuilt(&self) -> bool {
        self.rebuilt
    }

    /// Entries that are in the index and found through it.
    #[must_use]
    pub fn indexed(&self) -> u64 {
        self.committed
    }

    /// One more than the last entry added, findable or not.
    pub(crate) fn added(&self) -> u64 {
        self.stamp.size
    }

    /// Whether parts are being merged.
    pub(crate) fn is_merging(&self) -> bool {
        self.merging.is_some()
    }

    fn publish(&self) -> Result<(), IndexError> {
        let seen = snapshot(&self.reader, self.fields, self.stamp.clone())?;
        self.searcher.show(Some(Arc::new(seen)));
        Ok(())
    }

    /// Adds entries up to index `to`, `count` of them at most, and says whether that is all.
    /// They are found through the index after [`Indexer::commit`].
    ///
    /// # Errors
    /// When the log cannot be read, the index not be written, or a search found it wrong. Open it
    /// again then.
    pub fn add(&mut self, to: u64, count: u64) -> Result<bool, IndexError> {
        if self.searcher.take_damaged() {
            // Nothing of it is kept: what is opened next is made from the ledger.
            discard(&self.dir)?;
            return Err(IndexError::Damaged);
        }
        if self.log.size() < to {
            self.log.refresh()?;
        }
        let to = to.min(self.log.size());
        let start = self.stamp.size;
        let end = to.min(start.saturating_add(count));
        if start >= end {
            return Ok(true);
        }
        let seen = self.searcher.snapshot();
        let mut fetch = self.log.fetch()?;
        let mut entries = self.log.range(start..end);
        let mut last = Vec::new();
        while let Some(next) = entries.next() {
            let (index, bytes) = next?;
            let entry = Entry::from_bytes(&bytes).ok();
            if let Some(entry) = &entry {
                self.subjects.note(&entry.event);
            }
            let subjects = &mut self.subjects;
            let whose = |session: &_| {
                if let Some(known) = subjects.of(session) {
                    return Some(known.clone());
                }
                let (_, found) = lookup(seen.as_deref()?, &mut fetch, session)?;
                subjects.learn(session.clone(), found.clone());
                Some(found)
            };
            let place = entries.place();
            let time = self.stamp.note(index, &bytes, entry.as_ref());
            let entry = entry.as_ref();
            let doc = self
                .fields
                .document(index, place, &bytes, time, entry, whose);
            self.writer.add_document(doc)?;
            last = bytes;
        }
        self.stamp.last_leaf = merkle::leaf_hash(&last).to_string();
        Ok(end == to)
    }

    /// Makes what was added findable and keeps it.
    ///
    /// # Errors
    /// When the index cannot be written. Open it again then.
    pub fn commit(&mut self) -> Result<(), IndexError> {
        if self.stamp.size > self.committed {
            let payload = serde_json::to_string(&self.stamp).map_err(|_| IndexError::Damaged)?;
            let mut commit = self.writer.prepare_commit()?;
            commit.set_payload(&payload);
            commit.commit()?;
            self.committed = self.stamp.size;
            if self.subjects.len() > SESSIONS_MAX {
                self.subjects.clear();
            }
        }
        self.merge()
    }

    /// Takes note of a merge that is done, and begins one where there are many small parts.
    fn merge(&mut self) -> Result<(), IndexError> {
        if let Some(done) = self.merging.as_mut().and_then(FutureExt::now_or_never) {
            self.merging = None;
            done?;
        }
        self.reader.reload()?;
        self.publish()?;
        if self.merging.is_none() {
            let ids = self.to_merge();
            if !ids.is_empty() {
                self.merging = Some(self.writer.merge(&ids));
            }
        }
        Ok(())
    }

    /// Neighbours that are to become one part, oldest first.
    fn to_merge(&self) -> Vec<SegmentId> {
        let Some(seen) = self.searcher.snapshot() else {
            return Vec::new();
        };
        let sizes: Vec<u32> = seen.parts.iter().map(Part::docs).collect();
        let run = neighbours(&sizes);
        let parts = seen.parts.get(run).unwrap_or_default();
        parts
            .iter()
            .map(|part| part.segment_id(&seen.searcher))
            .collect()
    }

    /// Fills the index up to the end of the log, telling how far it is.
    ///
    /// # Errors
    /// As [`Indexer::add`] and [`Indexer::commit`].
    pub fn catch_up(&mut self, mut progress: impl FnMut(u64, u64)) -> Result<(), IndexError> {
        let to = self.log.refresh()?;
        loop {
            let done = self.add(to, COMMIT_ENTRIES)?;
            self.commit()?;
            progress(self.committed, to);
            if done {
                return self.settle();
            }
        }
    }

    /// Waits until no merge is under way.
    ///
    /// # Errors
    /// When one failed.
    pub fn settle(&mut self) -> Result<(), IndexError> {
        while let Some(merging) = self.merging.take() {
            // Not its own `wait`, which may not follow on a look at it as `merge` takes.
            block_on(merging)?;
            self.merge()?;
        }
        Ok(())
    }

    /// Throws the index away, for whoever found it wrong: the next to open it makes it anew.
    ///
    /// # Errors
    /// When its files cannot be removed.
    pub fn discard(self) -> Result<(), IndexError> {
        discard(&self.dir)
    }

    /// Bytes that the index takes on disk.
    ///
    /// # Errors
    /// When its files cannot be looked at.
    pub fn bytes(&self) -> Result<u64, IndexError> {
        let space = self.index.reader()?.searcher().space_usage();
        let space = space.map_err(|source| IndexError::File {
            path: FOLDER.to_owned(),
            source,
        })?;
        Ok(space.total().get_bytes())
    }
}

/// Which parts, of these sizes from the oldest to the newest, become one.
fn neighbours(sizes: &[u32]) -> std::ops::Range<usize> {
    for tier in TIERS {
        let small = sizes.iter().rev().take_while(|size| **size < tier).count();
        let start = sizes.len() - small;
        let mut total = 0_u32;
        let fit = sizes
            .iter()
            .skip(start)
            .take_while(|size| {
                total = total.saturating_add(**size);
                total <= PART_MAX
            })
            .count();
        if fit >= MERGED {
            return start..start + fit;
        }
    }
    0..0
}

impl Stamp {
    fn empty(first: u64) -> Self {
        Self {
            format: FORMAT,
            first,
            size: first,
            first_leaf: String::new(),
            last_leaf: String::new(),
            ordered: true,
            newest: 0,
        }
    }

    /// Takes note of the next entry and gives the time it is kept under: what is no entry has that
    /// of its neighbour.
    fn note(&mut self, index: u64, bytes: &[u8], entry: Option<&Entry>) -> Timestamp {
        if index == self.first {
            self.first_leaf = merkle::leaf_hash(bytes).to_string();
        }
        let newest = Timestamp::from_micros(self.newest);
        let time = entry.map_or(newest, |entry| entry.time);
        self.ordered &= time >= newest;
        self.newest = self.newest.max(time.as_micros());
        self.size = index + 1;
        time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_merged_by_size_and_never_beyond_a_part() {
        assert_eq!(neighbours(&[10; 7]), 0..0);
        assert_eq!(neighbours(&[10; 8]), 0..8);
        assert_eq!(neighbours(&[500_000, 10, 10, 10, 10, 10, 10, 10, 10]), 1..9);
        assert_eq!(neighbours(&[150_000; 8]), 0..8);
        assert_eq!(
            neighbours(&[1_200_000; 8]),
            0..0,
            "four million is the most"
        );
        assert_eq!(neighbours(&[450_000; 8]), 0..8);
        let mixed = [
            1_200_000, 150_000, 150_000, 150_000, 30, 30, 30, 30, 30, 30, 30,
        ];
        assert_eq!(neighbours(&mixed), 1..11);
    }
}
