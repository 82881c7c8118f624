//! The keys of a log one after the other, as its own rotations give them.

use crate::format::note::{Checkpoint, NoteError, VerifierKey};
use crate::keys::rotation::{Rotation, RotationError};

/// Which key signs for a log, at which size. It starts from keys that somebody was given, and grows by
/// the rotations that the log tells of; one key of the whole chain must be among those given.
#[derive(Debug, Clone)]
pub struct KeyChain {
    given: Vec<VerifierKey>,
    /// In the order of the log.
    rotations: Vec<Rotation>,
    /// The key that signs now, as soon as that is known.
    signing: Option<VerifierKey>,
}

impl KeyChain {
    /// Of a log that no rotation is known of yet.
    #[must_use]
    pub fn new(given: &[VerifierKey]) -> KeyChain {
        KeyChain {
            given: given.to_vec(),
            rotations: Vec::new(),
            signing: None,
        }
    }

    /// Of a log that is known to have had these rotations, given as the signed notes they are.
    ///
    /// # Errors
    /// When one of them does not hold, or does not follow on the one before.
    pub fn of<'a>(
        given: &[VerifierKey],
        notes: impl IntoIterator<Item = &'a str>,
    ) -> Result<KeyChain, RotationError> {
        let mut chain = KeyChain::new(given);
        for note in notes {
            chain.rotate(Rotation::verify(note.as_bytes())?)?;
        }
        Ok(chain)
    }

    /// The same of the keys known here, once the log's rotations are known: given as the signed notes
    /// they are.
    ///
    /// # Errors
    /// As of [`KeyChain::of`].
    pub fn told(&self, notes: &[String]) -> Result<KeyChain, RotationError> {
        KeyChain::of(&self.keys(), notes.iter().map(String::as_str))
    }

    /// Goes on from what was known earlier.
    pub(crate) fn resume(
        given: &[VerifierKey],
        rotations: &[Rotation],
        signing: &VerifierKey,
    ) -> KeyChain {
        KeyChain {
            given: given.to_vec(),
            rotations: rotations.to_vec(),
            signing: Some(signing.clone()),
        }
    }

    /// The rotations, in the order of the log.
    #[must_use]
    pub fn rotations(&self) -> &[Rotation] {
        &self.rotations
    }

    /// The key that signs from the last rotation on; `None` before anything showed which one that is.
    #[must_use]
    pub fn signing(&self) -> Option<&VerifierKey> {
        self.signing.as_ref()
    }

    /// Whether one of the keys that were given is of this chain, or nothing showed a chain yet.
    #[must_use]
    pub fn is_anchored(&self) -> bool {
        let rotated = self.rotations.iter().flat_map(|r| [&r.old, &r.new]);
        let mut keys = rotated.chain(&self.signing).peekable();
        keys.peek().is_none() || keys.any(|key| self.given.contains(key))
    }

    /// All keys: those given, and those of the chain.
    #[must_use]
    pub fn keys(&self) -> Vec<VerifierKey> {
        let mut keys = self.given.clone();
        let chain = self.rotations.iter().flat_map(|r| [&r.old, &r.new]);
        for key in chain.chain(&self.signing) {
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
        keys
    }

    /// The keys by which a checkpoint of `size` entries may be signed: the one whose turn it was, or
    /// those given, where nothing shows that yet.
    #[must_use]
    pub fn at(&self, size: u64) -> Vec<VerifierKey> {
        let later = self.rotations.iter().find(|r| r.size >= size);
        match later.map(|r| &r.old).or(self.signing.as_ref()) {
            Some(key) => vec![key.clone()],
            None => self.given.clone(),
        }
    }

    /// Reads a checkpoint of the log, and checks that the key has signed it whose turn it was.
    ///
    /// # Errors
    /// What is wrong with it; [`NoteError::NotInForce`] where another key of the log has signed it.
    pub fn verify(&self, note: &[u8]) -> Result<Checkpoint, NoteError> {
        // Of any key, so that a wrong signature of one that is known is told as such.
        let checkpoint = Checkpoint::verify(note, &self.keys())?;
        let at = self.at(checkpoint.size);
        match Checkpoint::verify(note, &at) {
            Err(NoteError::Unsigned { name }) => Err(NoteError::NotInForce {
                key: at.first().map_or(name, VerifierKey::to_string),
                size: checkpoint.size,
            }),
            outcome => outcome,
        }
    }

    /// Takes it that this key signs: the first that was seen to.
    pub(crate) fn adopt(&mut self, key: VerifierKey) {
        self.signing.get_or_insert(key);
    }

    /// Takes in a rotation that holds by itself and stands where it says.
    pub(crate) fn rotate(&mut self, rotation: Rotation) -> Result<(), RotationError> {
        if let Some(signing) = self.signing.as_ref().filter(|key| **key != rotation.old) {
            return Err(RotationError::NotInForce {
                stated: rotation.old.to_string(),
                signing: signing.to_string(),
            });
        }
        if self.rotations.iter().any(|r| r.old.same_key(&rotation.new)) {
            return Err(RotationError::Retired {
                key: rotation.new.to_string(),
            });
        }
        self.signing = Some(rotation.new.clone());
        self.rotations.push(rotation);
        Ok(())
    }
}
