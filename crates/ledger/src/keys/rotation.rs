//! The statement that another key signs for a log from here on: a signed note (C2SP signed-note)
//! that the old key and the new one have both signed.
//!
//! ```text
//! Curfew key rotation v1
//! example.com/curfew                      the log
//! 7                                       entries it goes on from
//! 7bKLuf7…                                their root, in base64
//! example.com/curfew+6c3aa0ec+AU…         the old key
//! example.com/curfew+1f09c2d1+AT…         the new key
//! ```
//!
//! The old key's signature says whom it hands the log over to, the new key's that it takes it over as
//! it is. Nobody can take the text for a checkpoint, whose second line is a number and whose first
//! is a name without spaces. The statement stands in full in the first entry after these, at the index
//! that is their number: checkpoints of up to so many entries are the old key's, later ones the new
//! key's.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::format::merkle::Hash;
use crate::format::note::{Checkpoint, Note, NoteError, VerifierKey};
use crate::keys::key::{LogKey, sign_note};

/// Longest statement, in bytes: three names of 256 and two verifier keys with 55 bytes more, a size and
/// a root of 64, two signature lines of 352; rounded up. It fits into an entry, quoted.
pub(crate) const ROTATION_BYTES_MAX: usize = 4096;

/// First line. It has spaces, so that it cannot be the name of a log.
const HEADER: &str = "Curfew key rotation v1";

/// Why a rotation does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RotationError {
    /// Not the form of a statement.
    #[error("malformed key rotation: {0}")]
    Malformed(&'static str),
    /// It is not signed by both keys.
    #[error("the key rotation is {0}")]
    Unsigned(NoteError),
    /// Its two keys are one.
    #[error("the key rotation is from a key to itself")]
    SameKey,
    /// One of its keys is not named after the log.
    #[error("the key rotation of {origin} names a key of {found}")]
    Origin {
        /// The log.
        origin: String,
        /// The name of the key.
        found: String,
    },
    /// It stands elsewhere than it says.
    #[error("the key rotation goes on from {size} entries, and is entry {index}")]
    Place {
        /// The number of entries it names.
        size: u64,
        /// Where it stands.
        index: u64,
    },
    /// The entries before it are others.
    #[error(
        "the key rotation goes on from the root {stated}, but the entries before it give {found}"
    )]
    Root {
        /// The root it names.
        stated: Hash,
        /// The root of the entries before it.
        found: Hash,
    },
    /// The old key was not the one that signed.
    #[error("the key rotation is from {stated}, but {signing} signed until then")]
    NotInForce {
        /// The old key it names.
        stated: String,
        /// The key in force.
        signing: String,
    },
    /// The new key had been in force before.
    #[error("the key rotation is to {key}, which was replaced earlier")]
    Retired {
        /// The new key it names.
        key: String,
    },
}

/// That one key takes the place of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// The name of the log.
    pub origin: String,
    /// Number of entries it goes on from, and index of the entry it stands in.
    pub size: u64,
    /// RFC 6962 Merkle tree hash of these entries.
    pub root: Hash,
    /// The key that signed up to there.
    pub old: VerifierKey,
    /// The key that signs from there on.
    pub new: VerifierKey,
    /// The statement itself, as a signed note.
    pub note: String,
}

impl Rotation {
    /// Has both keys sign that `new` takes the place of `old` after `checkpoint`. Gives the note.
    ///
    /// # Errors
    /// When the keys are one, or of another log than the checkpoint.
    pub fn sign(
        checkpoint: &Checkpoint,
        old: &LogKey,
        new: &LogKey,
    ) -> Result<String, RotationError> {
        let rotation = Rotation {
            origin: checkpoint.origin.clone(),
            size: checkpoint.size,
            root: checkpoint.root,
            old: old.verifier(),
            new: new.verifier(),
            note: String::new(),
        };
        rotation.check_keys()?;
        Ok(sign_note(&rotation.to_string(), &[old, new]))
    }

    /// Reads a statement, and checks that both keys it names have signed it. Whether one of them is
    /// to be trusted, and whether it stands where it says, is for whoever knows the log.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify(note: &[u8]) -> Result<Rotation, RotationError> {
        let fail = RotationError::Malformed;
        if note.len() > ROTATION_BYTES_MAX {
            return Err(fail("longer than 4 KiB"));
        }
        let whole = std::str::from_utf8(note).map_err(|_| fail("not UTF-8"))?;
        let note = Note::parse(note).map_err(|_| fail("not a signed note"))?;
        let rotation = Rotation {
            note: whole.to_owned(),
            ..parse(note.text()).map_err(fail)?
        };
        // One statement, one text.
        if rotation.to_string() != note.text() {
            return Err(fail("not in its plain form"));
        }
        rotation.check_keys()?;
        for key in [&rotation.old, &rotation.new] {
            note.verify(key).map_err(RotationError::Unsigned)?;
        }
        Ok(rotation)
    }

    fn check_keys(&self) -> Result<(), RotationError> {
        for key in [&self.old, &self.new] {
            if key.name() != self.origin {
                return Err(RotationError::Origin {
                    origin: self.origin.clone(),
                    found: key.name().to_owned(),
                });
            }
        }
        if self.old.same_key(&self.new) {
            return Err(RotationError::SameKey);
        }
        Ok(())
    }
}

impl fmt::Display for Rotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rotation {
            origin,
            size,
            root,
            old,
            new,
            note: _,
        } = self;
        let root = STANDARD.encode(root.0);
        writeln!(f, "{HEADER}\n{origin}\n{size}\n{root}\n{old}\n{new}")
    }
}

fn parse(text: &str) -> Result<Rotation, &'static str> {
    let lines = text.strip_suffix('\n').ok_or("no newline at the end")?;
    let lines: Vec<&str> = lines.split('\n').collect();
    let [header, origin, size, root, old, new] = lines[..] else {
        return Err("not six lines");
    };
    if header != HEADER {
        return Err("the first line is not Curfew key rotation v1");
    }
    let root = STANDARD
        .decode(root)
        .map_err(|_| "the root is not base64")?;
    Ok(Rotation {
        origin: origin.to_owned(),
        size: size.parse().map_err(|_| "the size is not a number")?,
        root: Hash(root.try_into().map_err(|_| "the root is not 32 bytes")?),
        old: VerifierKey::parse(old).map_err(|_| "the old key is not a verifier key")?,
        new: VerifierKey::parse(new).map_err(|_| "the new key is not a verifier key")?,
        note: String::new(),
    })
}

/// Whether rotations that hold follow on each other, before entry `size`, up to `signing`.
pub(crate) fn is_chain(rotations: &[Rotation], signing: &VerifierKey, size: u64) -> bool {
    let follows = |pair: &[Rotation]| match pair {
        [one, next] => one.new == next.old && one.size < next.size,
        _ => false,
    };
    rotations.windows(2).all(follows)
        && rotations
            .last()
            .is_none_or(|last| last.new == *signing && last.size < size)
}
