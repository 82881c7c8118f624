//! Pruning: entries past their time are given up, and a [`PrunePoint`] stands for them.
//!
//! Only what is sealed (see [`crate::write::seal`]) is pruned.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, parent, replace_file_durably};
use crate::format::checkpoints::{Record, Records};
use crate::format::error::FileError;
use crate::format::note::{Checkpoint, VerifierKey};
use crate::format::segment::list_segments;
use crate::format::tile::{TILE_WIDTH, TileKind};
use crate::keys::key_chain::KeyChain;
use crate::read::bundles::full;
use crate::read::entries::Entries;
use crate::read::prune_point::{FILE, PrunePoint};
use crate::read::verified_state::VerifiedState;
use crate::write::error::PruneError;

impl PrunePoint {
    /// Puts it in place, durably. What it stands for may go from then on; see [`PrunePoint::clear`].
    ///
    /// # Errors
    /// Whatever the disk reports. It may be in place all the same.
    pub fn put(&self, disk: &dyn Disk, dir: &Path) -> Result<(), FileError> {
        let path = dir.join(FILE);
        replace_file_durably(disk, &path, &self.encode()).map_err(FileError::at("replace", &path))
    }

    /// Removes the bundles of entries before it, and gives how many there were. What an interruption
    /// leaves, the next call removes.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn clear(&self, disk: &dyn Disk, dir: &Path) -> Result<u64, FileError> {
        let mut removed = 0;
        let width = u64::from(TILE_WIDTH);
        for n in self.before / width..self.size() / width {
            let path = dir.join(full(TileKind::Entries, n).to_string());
            match disk.remove_file(&path) {
                Ok(()) => removed += 1,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(FileError::at("remove", &path)(error)),
            }
            if n % 1000 == 999 {
                // Where something is left in it, it stays.
                let _ = disk.remove_dir(parent(&path));
            }
        }
        Ok(removed)
    }
}

/// A log that is to be pruned.
#[derive(Debug, Clone, Copy)]
pub struct Prunable<'a> {
    /// The directory of the log.
    pub dir: &'a Path,
    /// Where that is.
    pub disk: &'a Arc<dyn Disk>,
    /// The keys of the log, with all changes from one to the next.
    pub keys: &'a KeyChain,
    /// Its present prune point.
    pub prune_point: Option<&'a PrunePoint>,
}

impl Prunable<'_> {
    /// The newest checkpoint at which at most `most` entries would go: only sealed ones. `None` where
    /// none would.
    ///
    /// # Errors
    /// When the log cannot be read, or the checkpoint is not rightly signed.
    pub fn checkpoint(&self, most: u64) -> Result<Option<Place>, PruneError> {
        let sealed = list_segments(&**self.disk, self.dir)?.first().copied();
        let most = most.min(sealed.unwrap_or_default());
        let start = self
            .prune_point
            .map(|prune_point| &prune_point.verified_state);
        let path = self.dir.join("checkpoints");
        let Some(mut records) = Records::open(&**self.disk, &path)? else {
            return Ok(None);
        };
        let mut before = start.map_or(0, |start| start.before);
        records.offset = start
            .map_or(0, |start| start.record_at)
            .min(records.len_bytes);
        let mut found = None;
        loop {
            let record_at = records.offset;
            let Record::Note(_, note) = records.next()? else {
                break;
            };
            // Which signature it has is looked at once it is the one.
            let Some(size) = unproven_size(&note).filter(|size| *size <= most) else {
                break;
            };
            found = Some((size, record_at, before, note));
            before += 1;
        }
        let had = start.map_or(0, VerifiedState::size);
        let Some((_, record_at, before, note)) = found.filter(|found| found.0 > had) else {
            return Ok(None);
        };
        Ok(Some(Place {
            checkpoint: self.keys.verify(&note)?,
            note,
            record_at,
            before,
        }))
    }

    /// Goes over the entries from the present prune point to `place`, which was found in the same state.
    /// `visit` sees each of them and may end it by saying no.
    ///
    /// # Errors
    /// When an entry cannot be read, the entries are not what was signed, or `visit` says no.
    pub fn advance(
        &self,
        place: &Place,
        mut visit: impl FnMut(u64, &[u8]) -> bool,
    ) -> Result<VerifiedState, PruneError> {
        let start = self
            .prune_point
            .map(|prune_point| prune_point.verified_state.builder.clone());
        let mut builder = start.unwrap_or_default();
        let size = place.checkpoint.size;
        let range = builder.size()..size;
        for next in Entries::new(self.disk.clone(), self.dir, range) {
            let (index, entry) = next?;
            builder.push(&entry, |_, _| {});
            if !visit(index, &entry) {
                return Err(PruneError::Refused { index });
            }
        }
        if builder.root() != place.checkpoint.root {
            return Err(PruneError::Root { size });
        }
        let signing = self.keys.at(size);
        let signed = |key: &&VerifierKey| {
            signing.len() == 1 || Checkpoint::verify(&place.note, &[(*key).clone()]).is_ok()
        };
        // It was verified by one of them.
        let signing = signing.iter().find(signed).cloned();
        let rotations = self.keys.rotations().iter();
        Ok(VerifiedState {
            note: place.note.clone(),
            signing: signing.ok_or(PruneError::Root { size })?,
            rotations: rotations.filter(|r| r.size < size).cloned().collect(),
            builder,
            // Frames before it are gone: any that follows is later.
            epoch: 0,
            record_at: place.record_at,
            before: place.before,
        })
    }
}

/// A signed checkpoint at which a log can be pruned.
#[derive(Debug, Clone)]
pub struct Place {
    checkpoint: Checkpoint,
    note: Vec<u8>,
    record_at: u64,
    before: u64,
}

impl Place {
    /// Number of entries before it.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.checkpoint.size
    }
}

fn unproven_size(note: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(note).ok()?;
    text.lines().nth(1)?.parse().ok()
}
