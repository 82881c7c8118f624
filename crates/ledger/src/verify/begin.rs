//! The part of verification that finds where to begin: at the first entry, at the prune point of a pruned
//! log, or where an earlier verification had come to, whichever is the latest.

use std::path::Path;

use crate::disk::read_file;
use crate::format::error::{FileError, ReadError};
use crate::format::merkle::{Hash, verify_growth};
use crate::format::note::Checkpoint;
use crate::format::tile::{HASH_TILE_BYTES, TILE_WIDTH, Tile, TileBuilder, TileKind};
use crate::keys::key_chain::KeyChain;
use crate::keys::signer::Extends;
use crate::read::prune_point::{self, PrunePoint};
use crate::read::reader::TilesAt;
use crate::read::verified_state::VerifiedState;
use crate::verify::check::Check;
use crate::verify::failure::FailureKind;
use crate::verify::tiles::check_tile;

/// How the earlier verification is called, where a file has its name otherwise.
const EARLIER: &str = "the earlier verification";

impl Check<'_> {
    /// Sets where to begin, and gives how many entries were pruned.
    pub(crate) fn begin(&mut self) -> Option<u64> {
        let earlier = match self.what.from {
            Some(from) => Some(self.trust(from, Path::new(EARLIER))?),
            None => None,
        };
        self.start_at(self.what.from.cloned());
        let prune_point = match PrunePoint::read(&*self.what.disk, self.what.dir) {
            Ok(prune_point) => prune_point,
            Err(error) => {
                self.fail_file(&error);
                return None;
            }
        };
        let Some(prune_point) = prune_point else {
            return Some(0);
        };
        let path = self.what.dir.join(prune_point::FILE);
        self.hold(prune_point.verified_state(), &path)?;
        if earlier
            .as_ref()
            .is_some_and(|e| e.size >= prune_point.size())
        {
            return Some(prune_point.size());
        }
        self.start_at(Some(prune_point.verified_state().clone()));
        if let Some(earlier) = earlier {
            self.goes_on(&earlier, Path::new(EARLIER))?;
        }
        self.check_pruned(prune_point.verified_state())?;
        Some(prune_point.size())
    }

    /// Begins there, with the keys that had signed until then.
    fn start_at(&mut self, from: Option<VerifiedState>) {
        if let Some(from) = &from {
            self.chain = KeyChain::resume(self.what.keys, &from.rotations, &from.signing);
        }
        self.from = from;
    }

    /// Makes sure that a verified state found with the log is one by keys that follow on each other. Whether
    /// one of them is known is seen at the end: what comes after may lead to it.
    fn hold(&mut self, verified_state: &VerifiedState, path: &Path) -> Option<Checkpoint> {
        match verified_state.own_checkpoint() {
            Ok(checkpoint) => Some(checkpoint),
            Err(error) => {
                let kind = FailureKind::VerifiedState(error.to_string());
                self.fail(path, None, Some(verified_state.size()), kind);
                None
            }
        }
    }

    /// The checkpoint of a verified state that is signed as it must be.
    fn trust(&mut self, verified_state: &VerifiedState, path: &Path) -> Option<Checkpoint> {
        match verified_state.checkpoint(self.what.keys) {
            Ok(checkpoint) => Some(checkpoint),
            Err(error) => {
                let kind = FailureKind::VerifiedState(error.to_string());
                self.fail(path, None, Some(verified_state.size()), kind);
                None
            }
        }
    }

    /// A remembered checkpoint that no entry will reach any more is held against the hashes instead.
    pub(crate) fn check_passed(
        &mut self,
        remembered: Option<Checkpoint>,
    ) -> Option<Option<Checkpoint>> {
        let start = self.from.as_ref().map_or(0, VerifiedState::size);
        match remembered {
            Some(earlier) if earlier.size < start => {
                self.goes_on(&earlier, Path::new("the remembered checkpoint"))?;
                Some(None)
            }
            remembered => Some(remembered),
        }
    }

    /// Makes sure that what is begun at goes on from an earlier checkpoint.
    fn goes_on(&mut self, earlier: &Checkpoint, path: &Path) -> Option<()> {
        let (size, root) = self.beginning()?;
        let disk = &*self.what.disk;
        let proof = TilesAt::new(disk, self.what.dir, size).consistency_proof(earlier.size);
        let proof = match proof {
            Ok(proof) => proof,
            Err(error) => {
                self.fail_open(&error);
                return None;
            }
        };
        if verify_growth(earlier.size, size, &proof, &earlier.root, &root).is_err() {
            let kind = FailureKind::VerifiedState("the log does not go on from it".to_owned());
            self.fail(path, None, Some(earlier.size), kind);
            return None;
        }
        Some(())
    }

    fn beginning(&self) -> Option<(u64, Hash)> {
        let from = self.from.as_ref()?;
        Some((from.size(), from.builder.root()))
    }

    /// Makes sure that the hashes of what was pruned are those that were signed: proofs rest on them.
    /// Where only tiles are there, whoever serves them is not asked for those as well.
    fn check_pruned(&mut self, prune_point: &VerifiedState) -> Option<()> {
        if self.is_tiles() {
            return Some(());
        }
        let mut builder = TileBuilder::new();
        while builder.size() < prune_point.size() {
            let tile = Tile {
                kind: TileKind::Hashes(0),
                n: builder.size() / u64::from(TILE_WIDTH),
                width: TILE_WIDTH,
            };
            let path = self.what.dir.join(tile.to_string());
            let bytes = match read_file(&*self.what.disk, &path, HASH_TILE_BYTES as u64) {
                Ok(bytes) => bytes,
                Err(error) => {
                    self.fail_file(&FileError::at("read", &path)(error));
                    return None;
                }
            };
            let left = usize::try_from(prune_point.size() - builder.size()).unwrap_or(usize::MAX);
            let hashes = bytes.as_chunks::<32>().0;
            if hashes.len() != usize::from(TILE_WIDTH) {
                self.fail(&path, None, tile.first_leaf(), FailureKind::Tile);
                return None;
            }
            for hash in hashes.iter().take(left) {
                builder.push_hash(Hash(*hash), |tile, bytes| {
                    if !matches!(tile.kind, TileKind::Hashes(0)) {
                        check_tile(self, tile, bytes, true);
                    }
                });
            }
        }
        if builder.root() != prune_point.builder.root() {
            let kind = FailureKind::Root {
                size: prune_point.size(),
                signed: prune_point.builder.root(),
                computed: builder.root(),
            };
            let path = self.what.dir.join("tile/0");
            self.fail(&path, None, Some(prune_point.size()), kind);
            return None;
        }
        Some(())
    }

    fn fail_open(&mut self, error: &ReadError) {
        if let ReadError::File(error) = error {
            self.fail_file(error);
        } else {
            let path = self.what.dir.join("tile");
            let kind = FailureKind::Unreadable(error.to_string());
            self.fail(&path, None, None, kind);
        }
    }
}
