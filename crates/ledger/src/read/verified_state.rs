//! The state of a verified log at a signed checkpoint, from which the next verification continues.
//!
//! It holds the tree and its incomplete tiles at the checkpoint, so that the hashes of all later entries
//! can be computed without the earlier ones. Since these hashes must lead to the roots signed later, a
//! log that verifies from here on extends the one that was verified.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::format::merkle::Hash;
use crate::format::note::{Checkpoint, NoteError, VerifierKey};
use crate::format::segment::payload_is;
use crate::format::tile::{TILE_LEVEL_MAX, TileBuilder, TileKind, tiles_at};
use crate::keys::key_chain::KeyChain;
use crate::keys::rotation::{Rotation, is_chain};

/// A signed checkpoint up to which a log was verified, with the tree there.
///
/// A verification that starts here trusts it, so it must be kept where nobody else can change it.
#[derive(Debug, Clone)]
pub struct VerifiedState {
    /// The signed checkpoint.
    pub(crate) note: Vec<u8>,
    /// The key that signed it.
    pub(crate) signing: VerifierKey,
    /// The rotations before it, in the order of the log.
    pub(crate) rotations: Vec<Rotation>,
    /// The tree and the incomplete tiles.
    pub(crate) builder: TileBuilder,
    /// The epoch of the newest frame; 0 if no frame was read.
    pub(crate) epoch: u64,
    /// Byte offset of the checkpoint's record in `checkpoints`; 0 without that file.
    pub(crate) record_at: u64,
    /// Number of checkpoints before it.
    pub(crate) before: u64,
}

/// Why a verification cannot continue from a verified state.
#[derive(Debug, thiserror::Error)]
pub enum VerifiedStateError {
    /// The text was not written by [`VerifiedState::encode`].
    #[error("malformed")]
    Malformed,
    /// Its checkpoint is of another log, or its signature does not verify.
    #[error("its checkpoint: {0}")]
    Note(#[from] NoteError),
    /// Its tree does not have the root in its checkpoint.
    #[error("its tree is not the one that was signed")]
    Root,
}

impl VerifiedState {
    /// Number of entries it covers.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.builder.size()
    }

    /// The signed checkpoint, verified by `keys`.
    ///
    /// # Errors
    /// When it is signed neither by one of `keys` nor by a key that rotations connect with one of them,
    /// or has another root than the tree.
    pub fn checkpoint(&self, keys: &[VerifierKey]) -> Result<Checkpoint, VerifiedStateError> {
        let chain = KeyChain::resume(keys, &self.rotations, &self.signing);
        if !chain.is_anchored() {
            // For its error, which says what is wrong by these keys.
            Checkpoint::verify(&self.note, keys)?;
            return Err(VerifiedStateError::Malformed);
        }
        self.own_checkpoint()
    }

    /// The signed checkpoint, verified by the key that the state itself names: shows that the state is
    /// consistent, not whose it is.
    pub(crate) fn own_checkpoint(&self) -> Result<Checkpoint, VerifiedStateError> {
        let checkpoint = Checkpoint::verify(&self.note, std::slice::from_ref(&self.signing))?;
        let (size, root): (u64, Hash) = (self.builder.size(), self.builder.root());
        if (checkpoint.size, checkpoint.root) == (size, root) {
            Ok(checkpoint)
        } else {
            Err(VerifiedStateError::Root)
        }
    }

    /// The rotation statements before it as signed notes, in the order of the log.
    #[must_use]
    pub fn statements(&self) -> Vec<String> {
        self.rotations.iter().map(|r| r.note.clone()).collect()
    }

    /// The state as base64 text, for storage.
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

    /// Reads what [`VerifiedState::encode`] wrote.
    ///
    /// # Errors
    /// [`VerifiedStateError::Malformed`] for anything else. Signatures are not checked here, except those
    /// of rotations.
    pub fn decode(text: &str) -> Result<VerifiedState, VerifiedStateError> {
        let bytes = STANDARD
            .decode(text)
            .map_err(|_| VerifiedStateError::Malformed)?;
        parse(&bytes).ok_or(VerifiedStateError::Malformed)
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

fn parse(mut rest: &[u8]) -> Option<VerifiedState> {
    let rest = &mut rest;
    let [size, epoch, record_at, before] =
        [number(rest)?, number(rest)?, number(rest)?, number(rest)?];
    let note = take(rest)?;
    let signing = String::from_utf8(take(rest)?).ok()?;
    let signing = VerifierKey::parse(&signing).ok()?;
    // The text may come from whoever holds the log: each rotation is verified, and must follow the last.
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
    // Each level holds exactly the hashes that are not in a full tile yet.
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
    Some(VerifiedState {
        note,
        signing,
        rotations,
        builder: TileBuilder::from_parts(size, bundle, levels),
        epoch,
        record_at,
        before,
    })
}
