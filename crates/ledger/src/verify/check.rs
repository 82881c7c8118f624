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

use crate::disk::Disk;
use crate::format::error::{FileError, ReadError};
use crate::format::merkle::Hash;
use crate::format::note::{Checkpoint, VerifierKey};
use crate::format::segment::{
    Corruption, CorruptionKind, FOLDER, PREPARED, parse_segment_name, segment_path,
};
use crate::keys::key_chain::KeyChain;
use crate::read::prune_point::FILE as PRUNE_POINT_FILE;
use crate::read::tail::TornTail;
use crate::read::verified_state::VerifiedState;
use crate::verify::failure::{Failure, FailureKind};
use crate::verify::signed::Signed;
use crate::verify::tiles::{check_tile, check_tree};
use crate::verify::walk::Walk;

/// Most failures reported: 100 show the pattern, and a wholly different log would give millions.
pub const FAILURES_MAX: usize = 100;

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

    /// The statement on a rotation of the log's key that stands in this entry, see
    /// [`crate::Rotation`]: what entries mean, the log does not know. Called before
    /// [`Visitor::entry`].
    fn rotation(&mut self, index: u64, entry: &[u8]) -> Option<Vec<u8>> {
        let _ = (index, entry);
        None
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
    /// The keys that have signed one after the other, as the entries tell of them.
    pub keys: KeyChain,
    /// From where the next verification can go on: the newest checkpoint.
    pub verified_state: Option<VerifiedState>,
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
    /// The keys of the log. Every checkpoint must be signed by one whose name is its origin, or by
    /// one that the log's rotations lead to from there, forwards or back, and by the one whose turn it was.
    pub keys: &'a [VerifierKey],
    /// A signed checkpoint from an earlier verification or from elsewhere, with which the log must
    /// be consistent.
    pub remembered: Option<&'a [u8]>,
    /// Where an earlier verification had come to: only what comes after it is verified, and that it
    /// does come after it.
    pub from: Option<&'a VerifiedState>,
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
        chain: KeyChain::new(what.keys),
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
    pub(crate) from: Option<VerifiedState>,
    pub(crate) failures: Vec<Failure>,
    /// The size of the newest checkpoint.
    pub(crate) newest: u64,
    /// The keys, as far as the log has told of them.
    pub(crate) chain: KeyChain,
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

    fn fail_walk(&mut self, error: &ReadError) {
        match error {
            ReadError::File(error) => self.fail_file(error),
            ReadError::Corrupt(error) => self.fail_corrupt(error),
            // It was pruned while it was gone over.
            ReadError::Pruned { index, first } => {
                let problem =
                    format!("entry {index} is needed, and what is left begins at {first}");
                let path = Path::new(PRUNE_POINT_FILE);
                self.fail(path, None, None, FailureKind::Unreadable(problem));
            }
            ReadError::PastEnd { index, size } => {
                let problem = format!("entry {index} of {size}");
                let path = Path::new(FOLDER);
                self.fail(path, None, None, FailureKind::Unreadable(problem));
            }
            ReadError::Missing { dir } => {
                let path = segment_path(dir, 0);
                self.fail(&path, None, Some(0), FailureKind::Missing);
            }
        }
    }

    fn run(&mut self, visitor: &mut dyn Visitor) -> Option<Report> {
        let pruned = self.begin()?;
        let remembered = self.read_remembered();
        let remembered = self.check_passed(remembered)?;
        let mut walk = Walk::from(self.from.as_ref(), remembered);
        let mut signed = self.open_signed(walk.builder.size())?;
        visitor.signed(signed.newest);
        self.newest = signed.newest;
        self.reach(&mut walk, &mut signed);
        let torn_tail = match self.walk(&mut walk, &mut signed, visitor) {
            Ok(torn_tail) => torn_tail,
            Err(error) => {
                self.fail_walk(&error);
                self.check_rest(&mut signed);
                return None;
            }
        };
        self.check_keys(&mut signed);
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
            keys: self.chain.clone(),
            verified_state: walk.verified_state,
        })
    }

    pub(crate) fn compare(
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
        for (tile, bytes) in walk.complete().partial() {
            check_tile(self, tile, bytes, false);
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
