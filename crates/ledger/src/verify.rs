//! Verification: is the log in a directory whole, and is it the one that was signed?
//!
//! One pass over the entries, in memory that does not grow with the log. From the entries alone
//! it recomputes every hash, and compares with everything that is derived from them: running
//! roots, tiles of all levels, all signed checkpoints. Nothing is written, and nothing but the
//! directory and the verifier keys is trusted; a checkpoint remembered from elsewhere shows in
//! addition that the log was not replaced or cut short since.
//!
//! The entries come from the segments; where the oldest of these have been sealed, or there are none
//! at all, from the bundles.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::checkpoints::{Record, Records};
use crate::disk::{Disk, read_file};
use crate::error::{FileError, OpenError, ReadError};
use crate::merkle::Hash;
use crate::milestone::Milestone;
use crate::note::{Checkpoint, NOTE_BYTES_MAX, VerifierKey};
use crate::recover::TornTail;
use crate::segment::{
    Corruption, CorruptionKind, FOLDER, PREPARED, list_segments, parse_segment_name, segment_path,
};
use crate::verify_tiles::{check_tile, check_tree};
use crate::verify_walk::Walk;

pub use crate::failure::{Failure, FailureKind};

/// Most failures reported: 100 show the pattern, and a wholly different log would give millions.
pub const FAILURES_MAX: usize = 100;

/// The newest signed checkpoint.
const CURRENT: &str = "checkpoint";

/// All signed checkpoints.
const RECORDS: &str = "checkpoints";

/// How often `checkpoint` and `checkpoints` are read again while they differ: a writer changes one
/// just after the other.
const SNAPSHOT_TRIES: u32 = 5;

/// Time between these tries: publishing takes some milliseconds.
const SNAPSHOT_PAUSE: Duration = Duration::from_millis(20);

/// How far verification has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Entries gone over.
    pub entries: u64,
    /// Entries that are signed, or gone over where that is more.
    pub entries_total: u64,
}

/// Sees the log pass by.
pub trait Visitor {
    /// An entry, in index order, before it is known whether a checkpoint covers it rightly: what is
    /// concluded from entries counts only if the verification succeeds.
    fn entry(&mut self, index: u64, entry: &[u8]) {
        let _ = (index, entry);
    }

    /// Before the first entry: how many of them the newest checkpoint covers.
    fn signed(&mut self, size: u64) {
        let _ = size;
    }

    /// Once per batch or bundle.
    fn progress(&mut self, progress: Progress) {
        let _ = progress;
    }
}

/// Sees nothing.
impl Visitor for () {}

/// What was found to be true.
#[derive(Debug, Clone)]
pub struct Report {
    /// Number of entries, signed or not.
    pub size: u64,
    /// Merkle tree hash of all of them.
    pub root: Hash,
    /// The newest checkpoint; entries from its size on are not signed yet.
    pub signed: Checkpoint,
    /// Number of checkpoints, each of which was checked.
    pub checkpoints: u64,
    /// The rest of an interrupted write after the last entry, which counts for nothing.
    pub torn_tail: Option<TornTail>,
    /// How many entries were pruned: those before are known by their hashes alone.
    pub pruned: u64,
    /// There are no segments: all entries were read from bundles.
    pub tiles_only: bool,
    /// From where the next verification can go on: the newest checkpoint.
    pub milestone: Option<Milestone>,
}

impl Report {
    /// Number of entries after the newest checkpoint.
    #[must_use]
    pub fn unsigned(&self) -> u64 {
        self.size - self.signed.size
    }
}

/// What to verify, and against what.
#[derive(Debug, Clone)]
pub struct Verify<'a> {
    /// The directory of the log.
    pub dir: &'a Path,
    /// The keys of the log. Every checkpoint must be signed by one whose name is its origin.
    pub keys: &'a [VerifierKey],
    /// A signed checkpoint from an earlier verification or from elsewhere, with which the log must
    /// be consistent.
    pub remembered: Option<&'a [u8]>,
    /// Where an earlier verification had come to: only what comes after it is verified, and that it
    /// does come after it.
    pub from: Option<&'a Milestone>,
    /// Where the directory is.
    pub disk: Arc<dyn Disk>,
}

/// Verifies a log; see the module text. Works on a copy as well as while a writer runs.
///
/// # Errors
/// Everything found to be wrong, at most [`FAILURES_MAX`], never empty.
pub fn verify(what: &Verify<'_>, visitor: &mut dyn Visitor) -> Result<Report, Vec<Failure>> {
    let mut check = Check {
        what,
        from: None,
        failures: Vec::new(),
        newest: 0,
    };
    let report = check.run(visitor);
    match report {
        Some(report) if check.failures.is_empty() => Ok(report),
        _ => Err(check.failures),
    }
}

/// The verification under way.
pub(crate) struct Check<'a> {
    pub(crate) what: &'a Verify<'a>,
    /// Where it begins, unless at the first entry.
    pub(crate) from: Option<Milestone>,
    pub(crate) failures: Vec<Failure>,
    /// The size of the newest checkpoint.
    pub(crate) newest: u64,
}

/// The signed checkpoints, read along with the entries.
pub(crate) struct Signed {
    path: PathBuf,
    /// The rest of them; none where a copy has no file of all checkpoints.
    records: Option<Records>,
    /// The next one to be reached, with the offset of its note.
    next: Option<(u64, Checkpoint)>,
    /// The last one read.
    last: Option<Checkpoint>,
    count: u64,
    /// Where the record of the last one starts, and its note.
    record_at: u64,
    note: Vec<u8>,
    /// Size of the first one that is read.
    start: u64,
    /// Size of the newest one.
    pub(crate) newest: u64,
}

impl Check<'_> {
    pub(crate) fn fail(
        &mut self,
        path: &Path,
        offset: Option<u64>,
        index: Option<u64>,
        kind: FailureKind,
    ) {
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(Failure {
                path: path.to_path_buf(),
                offset,
                index,
                kind,
            });
        }
    }

    pub(crate) fn fail_file(&mut self, error: &FileError) {
        let kind = if error.source.kind() == std::io::ErrorKind::NotFound {
            FailureKind::Missing
        } else {
            FailureKind::Unreadable(error.source.to_string())
        };
        self.fail(&error.path, None, None, kind);
    }

    fn fail_corrupt(&mut self, error: &Corruption) {
        let kind = FailureKind::Segment(error.kind);
        self.fail(&error.path, Some(error.offset), Some(error.index), kind);
    }

    fn fail_walk(&mut self, error: &OpenError) {
        if let OpenError::File(error) = error {
            self.fail_file(error);
        } else if let OpenError::Corrupt(error) = error {
            self.fail_corrupt(error);
        } else if let OpenError::Horizon { path, problem } = error {
            // It was pruned while it was gone over.
            self.fail(path, None, None, FailureKind::Unreadable(problem.clone()));
        } else {
            // What else stops the pass, is that there is no first segment.
            let path = segment_path(self.what.dir, 0);
            self.fail(&path, None, Some(0), FailureKind::Missing);
        }
    }

    fn run(&mut self, visitor: &mut dyn Visitor) -> Option<Report> {
        let remembered = self.read_remembered();
        let pruned = self.begin()?;
        let remembered = self.check_passed(remembered)?;
        let builder = self.from.as_ref().map(|from| from.builder.clone());
        let builder = builder.unwrap_or_default();
        let mut signed = self.open_signed(builder.size())?;
        visitor.signed(signed.newest);
        self.newest = signed.newest;
        let mut walk = Walk {
            builder,
            epoch: self.from.as_ref().map_or(0, |from| from.epoch),
            milestone: None,
            segments: Vec::new(),
            from_bundles: false,
            remembered,
            remembered_done: false,
        };
        self.reach(&mut walk, &mut signed);
        let torn_tail = match self.walk(&mut walk, &mut signed, visitor) {
            Ok(torn_tail) => torn_tail,
            Err(error) => {
                self.fail_walk(&error);
                self.check_rest(&mut signed);
                return None;
            }
        };
        let size = walk.builder.size();
        let tiles_only = walk.segments.is_empty();
        check_tree(self, size, tiles_only);
        self.check_segment_names(tiles_only);
        let count = signed.count;
        let signed = signed.last?;
        Some(Report {
            size,
            root: walk.builder.root(),
            signed,
            checkpoints: count,
            torn_tail,
            pruned,
            tiles_only,
            milestone: walk.milestone,
        })
    }

    fn read_remembered(&mut self) -> Option<Checkpoint> {
        match Checkpoint::verify(self.what.remembered?, self.what.keys) {
            Ok(checkpoint) => Some(checkpoint),
            Err(error) => {
                let path = Path::new("the remembered checkpoint");
                self.fail(path, None, None, FailureKind::Note(error));
                None
            }
        }
    }

    /// The signed checkpoints, before the first that is over at least `start` entries.
    fn open_signed(&mut self, start: u64) -> Option<Signed> {
        let signed = self.open_signed_at(start)?;
        if signed.newest < start && self.failures.is_empty() {
            let (signed, size) = (start, signed.newest);
            let path = self.what.dir.join(CURRENT);
            let kind = FailureKind::TooSmall { signed, size };
            self.fail(&path, None, Some(size), kind);
            return None;
        }
        Some(signed)
    }

    fn open_signed_at(&mut self, start: u64) -> Option<Signed> {
        let whole = self
            .what
            .disk
            .permissions(&self.what.dir.join(RECORDS))
            .is_ok();
        if !whole && self.is_tiles() {
            return self.open_single();
        }
        let mut signed = self.open_records()?;
        if let Some(from) = &self.from {
            signed.start = start;
            signed.count = from.before;
            if let Some(records) = &mut signed.records {
                records.offset = from.record_at.min(records.len_bytes);
            }
        }
        self.advance_signed(&mut signed);
        Some(signed)
    }

    /// Whether the log has no segments (any more), but is there in its tiles.
    pub(crate) fn is_tiles(&self) -> bool {
        match list_segments(&*self.what.disk, self.what.dir) {
            Ok(segments) => segments.is_empty(),
            Err(error) => matches!(error, ReadError::Missing { .. }),
        }
    }

    /// Takes `checkpoint` for the only one, as others than the log's own writer keep it.
    fn open_single(&mut self) -> Option<Signed> {
        let path = self.what.dir.join(CURRENT);
        let note = match read_file(&*self.what.disk, &path, NOTE_BYTES_MAX as u64) {
            Ok(note) => note,
            Err(error) => {
                self.fail_file(&FileError::at("read", &path)(error));
                return None;
            }
        };
        match Checkpoint::verify(&note, self.what.keys) {
            Ok(checkpoint) => Some(Signed {
                path,
                records: None,
                newest: checkpoint.size,
                last: Some(checkpoint.clone()),
                next: Some((0, checkpoint)),
                count: 1,
                record_at: 0,
                note,
                start: 0,
            }),
            Err(error) => {
                self.fail(&path, Some(0), None, FailureKind::Note(error));
                None
            }
        }
    }

    /// Opens `checkpoints` and compares its last with `checkpoint`.
    fn open_records(&mut self) -> Option<Signed> {
        let disk = &*self.what.disk;
        let current = self.what.dir.join(CURRENT);
        let path = self.what.dir.join(RECORDS);
        for attempt in 1..=SNAPSHOT_TRIES {
            // The writer changes `checkpoints` first, so it is read last.
            let note = read_file(disk, &current, NOTE_BYTES_MAX as u64);
            let mut records = match Records::open(disk, &path) {
                Ok(Some(records)) => records,
                Ok(None) => {
                    self.fail(&path, None, None, FailureKind::Missing);
                    return None;
                }
                Err(error) => {
                    self.fail_file(&error);
                    return None;
                }
            };
            let last = match records.last() {
                Ok(last) => last.ok().flatten(),
                Err(error) => {
                    self.fail_file(&error);
                    return None;
                }
            };
            records.offset = 0;
            let is = |note: &Vec<u8>, record: &Option<Vec<u8>>| Some(note) == record.as_ref();
            let same = note.as_ref().is_ok_and(|note| is(note, &last));
            // A writer that died between the two left the one before. The next open mends it.
            let behind = note.as_ref().is_ok_and(|note| is(note, &records.before_last));
            if !same && attempt < SNAPSHOT_TRIES {
                std::thread::sleep(SNAPSHOT_PAUSE);
                continue;
            }
            match note {
                Err(error) => self.fail_file(&FileError::at("read", &current)(error)),
                Ok(note) => match Checkpoint::verify(&note, self.what.keys) {
                    Err(error) => self.fail(&current, Some(0), None, FailureKind::Note(error)),
                    Ok(found) if !same && !behind => {
                        self.fail(&current, Some(0), Some(found.size), FailureKind::NotNewest);
                    }
                    Ok(_) => {}
                },
            }
            let newest = last.and_then(|note| Checkpoint::verify(&note, self.what.keys).ok());
            let newest = newest.map_or(0, |checkpoint| checkpoint.size);
            return Some(Signed {
                path,
                records: Some(records),
                next: None,
                last: None,
                count: 0,
                record_at: 0,
                note: Vec::new(),
                start: 0,
                newest,
            });
        }
        None
    }

    /// Reads the next checkpoint; what is wrong with it is noted, and those that cannot be trusted
    /// are passed over.
    fn advance_signed(&mut self, signed: &mut Signed) {
        signed.next = None;
        let Some(records) = &mut signed.records else {
            return;
        };
        loop {
            let at = records.offset;
            let record = match records.next() {
                Ok(record) => record,
                Err(error) => return self.fail_file(&error),
            };
            let (offset, note) = match record {
                Record::End if signed.last.is_none() => {
                    return self.fail(&signed.path, Some(at), None, FailureKind::Record);
                }
                Record::End => return,
                Record::Torn | Record::Malformed => {
                    return self.fail(&signed.path, Some(at), None, FailureKind::Record);
                }
                Record::Note(offset, note) => (offset, note),
            };
            signed.count += 1;
            let checkpoint = match Checkpoint::verify(&note, self.what.keys) {
                Ok(checkpoint) => checkpoint,
                Err(error) => {
                    self.fail(&signed.path, Some(offset), None, FailureKind::Note(error));
                    continue;
                }
            };
            let size = checkpoint.size;
            let before = signed.last.as_ref().map(|last| last.size);
            match before {
                // The log begins with the checkpoint of nothing, and goes on from where it was.
                None if size != signed.start => {
                    let kind = FailureKind::Record;
                    self.fail(&signed.path, Some(offset), Some(size), kind);
                }
                Some(before) if size <= before => {
                    let kind = FailureKind::Order { size, before };
                    self.fail(&signed.path, Some(offset), Some(size), kind);
                    continue;
                }
                _ => {}
            }
            signed.last = Some(checkpoint.clone());
            signed.next = Some((offset, checkpoint));
            (signed.record_at, signed.note) = (at, note);
            return;
        }
    }

    /// Compares roots at a size that was signed.
    pub(crate) fn reach(&mut self, walk: &mut Walk, signed: &mut Signed) {
        let size = walk.builder.size();
        if let Some(checkpoint) = walk.remembered.as_ref().filter(|c| c.size == size) {
            let root = checkpoint.root;
            walk.remembered_done = true;
            let path = Path::new("the remembered checkpoint");
            self.compare(path, None, size, root, walk.builder.root());
        }
        while let Some((offset, checkpoint)) = signed.next.as_ref().filter(|(_, c)| c.size == size)
        {
            let (offset, root) = (*offset, checkpoint.root);
            let path = signed.path.clone();
            self.compare(&path, Some(offset), size, root, walk.builder.root());
            if size == signed.newest {
                walk.milestone = Some(Milestone {
                    note: signed.note.clone(),
                    builder: walk.builder.clone(),
                    epoch: walk.epoch,
                    record_at: signed.record_at,
                    before: signed.count - 1,
                });
            }
            self.advance_signed(signed);
        }
        if size == signed.newest && size > 0 {
            // What clients of the newest checkpoint need, is there.
            let partial: Vec<_> = walk
                .builder
                .partial()
                .map(|(t, b)| (t, b.to_vec()))
                .collect();
            for (tile, bytes) in partial {
                check_tile(self, tile, &bytes, true);
            }
        }
    }

    fn compare(
        &mut self,
        path: &Path,
        offset: Option<u64>,
        size: u64,
        signed: Hash,
        computed: Hash,
    ) {
        if signed != computed {
            let kind = FailureKind::Root {
                size,
                signed,
                computed,
            };
            self.fail(path, offset, Some(size), kind);
        }
    }

    /// After the last entry: nothing that was signed may be left over. The place is where the entries
    /// end, or the next would be.
    pub(crate) fn check_end(
        &mut self,
        walk: &Walk,
        signed: &mut Signed,
        (path, offset): (PathBuf, Option<u64>),
        bad: Option<CorruptionKind>,
    ) {
        let size = walk.builder.size();
        let remembered = walk.remembered.as_ref().filter(|_| !walk.remembered_done);
        let sizes = [
            signed.next.as_ref().map(|next| next.1.size),
            remembered.map(|r| r.size),
        ];
        // They were signed, so something took them away.
        if let Some(kind) = bad.filter(|_| sizes.iter().any(Option::is_some)) {
            self.fail(&path, offset, Some(size), FailureKind::Segment(kind));
        }
        for signed in sizes.into_iter().flatten() {
            let kind = FailureKind::TooSmall { signed, size };
            self.fail(&path, offset, Some(size), kind);
        }
        self.check_rest(signed);
        // Partial tiles of any size that the log has gone through.
        let partial: Vec<_> = walk
            .builder
            .partial()
            .map(|(t, b)| (t, b.to_vec()))
            .collect();
        for (tile, bytes) in partial {
            check_tile(self, tile, &bytes, false);
        }
    }

    /// Reads the checkpoints that were not reached: their signatures count all the same.
    fn check_rest(&mut self, signed: &mut Signed) {
        self.advance_signed(signed);
        while signed.next.is_some() {
            self.advance_signed(signed);
        }
    }

    fn check_segment_names(&mut self, tiles_only: bool) {
        let folder = self.what.dir.join(FOLDER);
        match self.what.disk.list(&folder) {
            Err(error) if tiles_only && error.kind() == ErrorKind::NotFound => {}
            Err(error) => self.fail_file(&FileError::at("list", &folder)(error)),
            Ok(names) => {
                for entry in names {
                    let known = entry.name == PREPARED || parse_segment_name(&entry.name).is_some();
                    if !known || entry.is_dir {
                        self.fail(
                            &folder.join(entry.name),
                            None,
                            None,
                            FailureKind::Unexpected,
                        );
                    }
                }
            }
        }
    }
}
