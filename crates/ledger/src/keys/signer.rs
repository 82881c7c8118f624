//! Who signs checkpoints: a key in this process, or somebody else who is asked.

use std::{fmt, io};

use crate::format::error::ReadError;
use crate::format::merkle::Hash;
use crate::format::note::{Checkpoint, VerifierKey};
use crate::keys::key::{LogKey, sign_note};

/// Signs the checkpoints of one log.
///
/// The publisher asks, once a checkpoint, from a thread of its own: what is queued becomes durable
/// whether or not anybody signs. A signer may therefore block, but should give up within seconds,
/// since closing the log waits for its last answer.
pub trait Signer: fmt::Debug + Send + Sync {
    /// The name of the log: the origin of its checkpoints.
    fn name(&self) -> &str;

    /// The keys by which checkpoints of this log are told, the one that signs from now on first.
    /// The newest checkpoint on disk must be signed by one of them. Never empty.
    fn verifiers(&self) -> Vec<VerifierKey>;

    /// Signs a checkpoint, and gives the whole note. `extends` proves that it goes on from an
    /// earlier one, for signers that keep their own.
    ///
    /// # Errors
    /// When it cannot or will not. The publisher asks again.
    fn sign_checkpoint(
        &self,
        checkpoint: &Checkpoint,
        extends: &dyn Extends,
    ) -> Result<String, SignError>;

    /// The numbers that mark the frames of an epoch, the one for frames to be written first (see
    /// [`crate::format::segment`]). Only who holds a key of the log can tell them. Asked when a log is
    /// opened, never while it is written.
    ///
    /// # Errors
    /// When it cannot: the log is not opened then.
    fn frame_nonces(&self, epoch: u64) -> Result<Vec<u64>, SignError>;

    /// States that a key prepared beforehand takes this one's place after `checkpoint`, which covers
    /// all of the log and is the newest it has signed: see [`crate::Rotation`]. Gives the statement.
    /// This signer must not be asked to sign more; the one that has both keys goes on.
    ///
    /// # Errors
    /// When it cannot or will not. Whether it has stated it all the same, it tells when asked anew.
    fn rotate(&self, checkpoint: &Checkpoint) -> Result<String, SignError> {
        let _ = checkpoint;
        Err(SignError::Refused("its key cannot be changed".to_owned()))
    }
}

/// Proves that the checkpoint to be signed goes on from an earlier one.
pub trait Extends {
    /// The RFC 6962 consistency proof from the first `size` entries.
    ///
    /// # Errors
    /// When `size` is more than the checkpoint covers, or tiles cannot be read.
    fn consistency_proof(&self, size: u64) -> Result<Vec<Hash>, ReadError>;
}

/// Why a checkpoint was not signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The signer did not answer.
    #[error("the signer cannot be reached: {0}")]
    Unreachable(#[source] io::Error),
    /// The signer answered, and will not sign.
    #[error("the signer refuses: {0}")]
    Refused(String),
    /// The signer gave something that is not a signature on what it was asked to sign.
    #[error("the signer's answer is wrong: {0}")]
    Wrong(String),
    /// The proof that a signer asked for could not be made.
    #[error("the signer's proof cannot be made: {0}")]
    Proof(#[from] ReadError),
}

impl Signer for LogKey {
    fn name(&self) -> &str {
        LogKey::name(self)
    }

    fn verifiers(&self) -> Vec<VerifierKey> {
        vec![self.verifier()]
    }

    fn sign_checkpoint(
        &self,
        checkpoint: &Checkpoint,
        _extends: &dyn Extends,
    ) -> Result<String, SignError> {
        Ok(sign_note(&checkpoint.to_string(), &[self]))
    }

    fn frame_nonces(&self, epoch: u64) -> Result<Vec<u64>, SignError> {
        Ok(vec![self.frame_nonce(epoch)])
    }
}

/// Has `signer` sign, and looks at what it gives: nothing is published that does not verify.
pub(crate) fn sign(
    signer: &dyn Signer,
    checkpoint: &Checkpoint,
    extends: &dyn Extends,
) -> Result<String, SignError> {
    let note = signer.sign_checkpoint(checkpoint, extends)?;
    match Checkpoint::verify(note.as_bytes(), &signer.verifiers()) {
        Ok(signed) if signed == *checkpoint => Ok(note),
        Ok(signed) => Err(SignError::Wrong(format!(
            "it signed size {} for size {}",
            signed.size, checkpoint.size
        ))),
        Err(error) => Err(SignError::Wrong(error.to_string())),
    }
}

/// What a log's first checkpoint, of no entries, goes on from.
pub(crate) struct Nothing;

impl Extends for Nothing {
    fn consistency_proof(&self, _size: u64) -> Result<Vec<Hash>, ReadError> {
        Ok(Vec::new())
    }
}
