//! Where a verification has come to, and what the next one needs to go on from there.
//!
//! A milestone stands at a signed checkpoint. It holds what the tree and its incomplete tiles are made
//! of there, so that the hashes of all later entries can be computed without the earlier ones; and since
//! these lead to the roots that are signed later, what comes later continues what was verified.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::format::merkle::Hash;
use crate::format::note::{Checkpoint, NoteError, VerifierKey};
use crate::format::segment::payload_is;
use crate::format::tile::{TILE_LEVEL_MAX, TileBuilder, TileKind, tiles_at};
use crate::keys::key_chain::KeyChain;
use crate::keys::rotation::{Rotation, is_chain};

/// A signed checkpoint of a log that was verified up to there.
///
/// Whoever goes on from it believes that: it must come from where nobody else could change it.
#[derive(Debug, Clone)]
pub struct Milestone {
    /// The signed checkpoint.
    pub(crate) note: Vec<u8>,
    /// The key that has signed it, and the rotations before.
    pub(crate) signing: VerifierKey,
    pub(crate) rotations: Vec<Rotation>,
    pub(crate) builder: TileBuilder,
    /// The epoch of the newest frame.
    pub(crate) epoch: u64,
    /// Where the record of the checkpoint starts in `checkpoints`; 0 without that file.
    pub(crate) record_at: u64,
    /// How many checkpoints came before it.
    pub(crate) before: u64,
}

/// Why a milestone is none to go on from.
#[derive(Debug, thiserror::Error)]
pub enum MilestoneError {
    /// It is not what [`Milestone::encode`] gave.
    #[error("malformed")]
    Malformed,
    /// Its checkpoint is not one of this log, or not rightly signed.
    #[error("its checkpoint: {0}")]
    Note(#[from] NoteError),
    /// Its tree is not the one that its checkpoint is over.
    #[error("its tree is not the one that was signed")]
    Root,
}

impl Milestone {
    /// Number of entries it is over.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.builder.size()
    }

    /// The signed checkpoint it stands at.
    ///
    /// # Errors
    /// When that is not signed by one of these keys or one that the log's rotations lead to from
    /// there, or is over another tree.
    pub fn checkpoint(&self, keys: &[VerifierKey]) -> Result<Checkpoint, MilestoneError> {
        let chain = KeyChain::resume(keys, &self.rotations, &self.signing);
        if !chain.is_anchored() {
            // Says what is wrong with it by these keys.
            Checkpoint::verify(&self.note, keys)?;
            return Err(MilestoneError::Malformed);
        }
        self.own_checkpoint()
    }

    /// The same by the key it names itself, whoever that is.
    pub(crate) fn own_checkpoint(&self) -> Result<Checkpoint, MilestoneError> {
        let checkpoint = Checkpoint::verify(&self.note, std::slice::from_ref(&self.signing))?;
        let (size, root): (u64, Hash) = (self.builder.size(), self.builder.root());
        if (checkpoint.size, checkpoint.root) == (size, root) {
            Ok(checkpoint)
        } else {
            Err(MilestoneError::Root)
        }
    }

    /// The statements on the changes of the log's key before it, in the order of the log.
    #[must_use]
    pub fn statements(&self) -> Vec<String> {
        self.rotations.iter().map(|r| r.note.clone()).collect()
    }

    /// As text, to be kept.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut bytes = Vec::new();
        for number in [self.size(), self.epoch, self.record_at, self.before] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        put(&mut bytes, &self.note);
        put(&mut bytes, self.signing.to_string().as_bytes());
        bytes.extend_from_slice(&(self.rotations.len() as u64).to_be_bytes());
        for rotation in &self.rotations {
            put(&mut bytes, rotation.note.as_bytes());
        }
        let (bundle, levels) = self.builder.parts();
        put(&mut bytes, bundle);
        for level in levels {
            put(&mut bytes, level);
        }
        STANDARD.encode(bytes)
    }

    /// What [`Milestone::encode`] gave.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn decode(text: &str) -> Result<Milestone, MilestoneError> {
        let bytes = STANDARD
            .decode(text)
            .map_err(|_| MilestoneError::Malformed)?;
        parse(&bytes).ok_or(MilestoneError::Malformed)
    }
}

/// Appends bytes after their length.
fn put(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    to.extend_from_slice(bytes);
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let (number, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u64::from_be_bytes(*number))
}

fn take(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let len = usize::try_from(number(rest)?).ok()?;
    let (bytes, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(bytes.to_vec())
}

fn parse(mut rest: &[u8]) -> Option<Milestone> {
    let rest = &mut rest;
    let [size, epoch, record_at, before] =
        [number(rest)?, number(rest)?, number(rest)?, number(rest)?];
    let note = take(rest)?;
    let signing = String::from_utf8(take(rest)?).ok()?;
    let signing = VerifierKey::parse(&signing).ok()?;
    // It may come from whoever has the log: each of them is held to its signatures, and to the one before.
    let mut rotations = Vec::new();
    for _ in 0..number(rest)? {
        rotations.push(Rotation::verify(&take(rest)?).ok()?);
    }
    if !is_chain(&rotations, &signing, size) {
        return None;
    }
    let bundle = take(rest)?;
    let (_, width) = tiles_at(TileKind::Entries, size);
    if !payload_is(&bundle, width.into()) {
        return None;
    }
    let mut levels = Vec::new();
    while !rest.is_empty() {
        levels.push(take(rest)?);
    }
    // Each holds the hashes that are not in a full tile yet, and none is left out.
    for level in 0..=TILE_LEVEL_MAX {
        let (n, width) = tiles_at(TileKind::Hashes(level), size);
        match levels.get(usize::from(level)) {
            Some(hashes) if hashes.len() == usize::from(width) * 32 => {}
            None if n == 0 && width == 0 => {}
            _ => return None,
        }
    }
    if levels.len() > usize::from(TILE_LEVEL_MAX) + 1 {
        return None;
    }
    Some(Milestone {
        note,
        signing,
        rotations,
        builder: TileBuilder::from_parts(size, bundle, levels),
        epoch,
        record_at,
        before,
    })
}
