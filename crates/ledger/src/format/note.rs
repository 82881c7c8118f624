//! Signed notes and checkpoints.
//!
//! Source: C2SP signed-note v1.0.0 and tlog-checkpoint v1.0.0. Signatures are Ed25519 (type 0x01);
//! those of unknown keys (witnesses, later algorithms) are carried along untouched.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::format::merkle::Hash;

/// Longest signed note that is read, in bytes: the text of a checkpoint is under 400 bytes, and
/// 64 signatures of the longest known kind (ML-DSA-44: 2,420 bytes, 3,240 in base64) with names of
/// up to 256 bytes take 64 × 3,500 = 224,000.
pub const NOTE_BYTES_MAX: usize = 256 * 1024;

/// Longest key name, in bytes. The specification gives no limit; ours keeps one line readable.
pub const KEY_NAME_BYTES_MAX: usize = 256;

/// Most signatures read on one note. The specification asks for at least 16.
pub const SIGNATURES_MAX: usize = 64;

/// The signature type of plain Ed25519 (C2SP signed-note).
const ED25519: u8 = 0x01;

/// Opens every signature line: an em dash and a space.
pub(crate) const SIGNATURE_PREFIX: &str = "\u{2014} ";

/// Why a note, checkpoint or verifier key was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// Not the form that C2SP signed-note gives.
    #[error("malformed signed note: {0}")]
    Malformed(&'static str),
    /// The text is not that of a checkpoint.
    #[error("malformed checkpoint: {0}")]
    Checkpoint(&'static str),
    /// No key we know has signed.
    #[error("not signed by {name}")]
    Unsigned {
        /// The key that should have signed.
        name: String,
    },
    /// A key we know is named, but its signature is wrong.
    #[error("the signature of {name} is wrong")]
    BadSignature {
        /// The name of the key.
        name: String,
    },
    /// A key of the log has signed, but it was not its turn.
    #[error("signed by a key of this log that does not sign for {size} entries; {key} does")]
    NotInForce {
        /// The key whose turn it was.
        key: String,
        /// Number of entries in the checkpoint.
        size: u64,
    },
    /// The checkpoint is of another log.
    #[error("the checkpoint is of the log {found}, not of {expected}")]
    Origin {
        /// The origin in the checkpoint.
        found: String,
        /// The origin asked for.
        expected: String,
    },
    /// A verifier key cannot be read.
    #[error("malformed verifier key: {0}")]
    VerifierKey(&'static str),
}

/// The public half of a key, as in `name+hash+base64` (C2SP signed-note, "verifier key").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: u32,
    key: VerifyingKey,
}

impl VerifierKey {
    pub(crate) fn new(name: String, key: VerifyingKey) -> VerifierKey {
        let id = key_id(&name, key.as_bytes());
        VerifierKey { name, id, key }
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// [`NoteError::VerifierKey`] when it is malformed, of another type than Ed25519, not a point
    /// of the curve, of small order, or when the hash does not fit.
    pub fn parse(text: &str) -> Result<VerifierKey, NoteError> {
        let fail = NoteError::VerifierKey;
        // The base64 part may hold a `+` of its own, so only the first two count.
        let mut parts = text.splitn(3, '+');
        let name = parts.next().unwrap_or_default();
        let hash = parts.next().ok_or(fail("it has no hash"))?;
        let data = parts.next().ok_or(fail("it has no key"))?;
        check_name(name).map_err(fail)?;
        if hash.len() != 8 || !hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(fail("its hash is not eight lower-case hex digits"));
        }
        let id = u32::from_str_radix(hash, 16).map_err(|_| fail("its hash is not hex"))?;
        let data = STANDARD
            .decode(data)
            .map_err(|_| fail("its key is not base64"))?;
        let (kind, public) = data.split_first().ok_or(fail("its key is empty"))?;
        if *kind != ED25519 {
            return Err(fail("its type is not Ed25519"));
        }
        let public: &[u8; 32] = public
            .try_into()
            .map_err(|_| fail("its key is not 32 bytes"))?;
        if key_id(name, public) != id {
            return Err(fail("its hash does not fit its name and key"));
        }
        let key = VerifyingKey::from_bytes(public).map_err(|_| fail("not a point of the curve"))?;
        if key.is_weak() {
            return Err(fail("a point of small order"));
        }
        Ok(VerifierKey {
            name: name.to_owned(),
            id,
            key,
        })
    }

    /// The name, which is also the origin of the log the key signs for.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is the same key, under whatever name.
    #[must_use]
    pub fn same_key(&self, other: &VerifierKey) -> bool {
        self.key == other.key
    }

    /// A signature of this key as a line of a note, with its newline.
    pub(crate) fn signature_line(&self, signature: &[u8]) -> String {
        signature_line(&self.name, self.id, signature)
    }

    /// The signature lines of this key on a note, as they stand and unchecked.
    #[must_use]
    pub fn lines(&self, note: &Note) -> String {
        note.lines_of(&self.name, self.id)
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut data = vec![ED25519];
        data.extend_from_slice(self.key.as_bytes());
        write!(f, "{}+{:08x}+{}", self.name, self.id, STANDARD.encode(data))
    }
}

/// First four bytes of SHA-256(name ‖ 0x0A ‖ type ‖ public key), big-endian.
fn key_id(name: &str, public: &[u8; 32]) -> u32 {
    let mut hash = Sha256::new();
    hash.update(name.as_bytes());
    hash.update([b'\n', ED25519]);
    hash.update(public);
    let hash = hash.finalize();
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

pub(crate) fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        Err("its name is empty")
    } else if name.len() > KEY_NAME_BYTES_MAX {
        Err("its name is longer than 256 bytes")
    } else if name
        .chars()
        .any(|c| c.is_whitespace() || c.is_control() || c == '+')
    {
        Err("its name has a space, a control character or a plus sign")
    } else {
        Ok(())
    }
}

/// One signature line: not checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SignatureLine {
    name: String,
    id: u32,
    signature: Vec<u8>,
}

/// A note taken apart: the signed text and the signatures on it, none of them checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<SignatureLine>,
}

impl Note {
    /// Takes a signed note apart.
    ///
    /// # Errors
    /// [`NoteError::Malformed`] when it is not of the form in C2SP signed-note, or too long.
    pub fn parse(bytes: &[u8]) -> Result<Note, NoteError> {
        let fail = NoteError::Malformed;
        if bytes.len() > NOTE_BYTES_MAX {
            return Err(fail("longer than 256 KiB"));
        }
        let note = std::str::from_utf8(bytes).map_err(|_| fail("not UTF-8"))?;
        if note.bytes().any(|b| b < 0x20 && b != b'\n') {
            return Err(fail("a control character"));
        }
        let split = note.rfind("\n\n").ok_or(fail("no blank line"))?;
        let (text, lines) = (&note[..=split], &note[split + 2..]);
        let lines = lines
            .strip_suffix('\n')
            .ok_or(fail("no newline at the end"))?;
        let mut signatures = Vec::new();
        for line in lines.split('\n') {
            if signatures.len() == SIGNATURES_MAX {
                return Err(fail("more than 64 signatures"));
            }
            signatures.push(parse_signature(line).map_err(fail)?);
        }
        Ok(Note {
            text: text.to_owned(),
            signatures,
        })
    }

    /// The signed text, with its last newline.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How many signatures there are.
    #[must_use]
    pub fn signatures(&self) -> usize {
        self.signatures.len()
    }

    /// What the lines of this key hold after the key id, in order, none of it checked.
    pub(crate) fn signatures_of(&self, name: &str, id: u32) -> impl Iterator<Item = &[u8]> {
        self.signatures
            .iter()
            .filter(move |line| line.name == name && line.id == id)
            .map(|line| line.signature.as_slice())
    }

    /// The lines of this key as they stand, each with its newline, none of it checked.
    pub(crate) fn lines_of(&self, name: &str, id: u32) -> String {
        self.signatures_of(name, id)
            .map(|signature| signature_line(name, id, signature))
            .collect()
    }

    /// Checks that `key` has signed, and that every line naming it is right.
    ///
    /// # Errors
    /// [`NoteError::Unsigned`] or [`NoteError::BadSignature`].
    pub fn verify(&self, key: &VerifierKey) -> Result<(), NoteError> {
        let mut signed = false;
        for line in self
            .signatures
            .iter()
            .filter(|s| s.name == key.name && s.id == key.id)
        {
            let bad = || NoteError::BadSignature {
                name: key.name.clone(),
            };
            let signature = Signature::from_slice(&line.signature).map_err(|_| bad())?;
            key.key
                .verify_strict(self.text.as_bytes(), &signature)
                .map_err(|_| bad())?;
            signed = true;
        }
        if signed {
            Ok(())
        } else {
            Err(NoteError::Unsigned {
                name: key.name.clone(),
            })
        }
    }
}

/// One signature line with its newline: `data` is what follows the key id.
fn signature_line(name: &str, id: u32, data: &[u8]) -> String {
    let data = STANDARD.encode([&id.to_be_bytes(), data].concat());
    format!("{SIGNATURE_PREFIX}{name} {data}\n")
}

fn parse_signature(line: &str) -> Result<SignatureLine, &'static str> {
    let rest = line
        .strip_prefix(SIGNATURE_PREFIX)
        .ok_or("a signature line without a dash")?;
    let (name, data) = rest
        .split_once(' ')
        .ok_or("a signature line without a name")?;
    check_name(name).map_err(|_| "a bad name in a signature line")?;
    let data = STANDARD
        .decode(data)
        .map_err(|_| "a signature that is not base64")?;
    let Some((id, signature)) = data.split_first_chunk::<4>() else {
        return Err("a signature shorter than a key id");
    };
    if signature.is_empty() {
        return Err("an empty signature");
    }
    Ok(SignatureLine {
        name: name.to_owned(),
        id: u32::from_be_bytes(*id),
        signature: signature.to_vec(),
    })
}

/// The size and root of a log at one moment (C2SP tlog-checkpoint).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The name of the log.
    pub origin: String,
    /// Number of entries covered: those with an index below it.
    pub size: u64,
    /// RFC 6962 Merkle tree hash of these entries.
    pub root: Hash,
}

impl Checkpoint {
    /// Reads the text of a checkpoint. Extension lines are accepted and left out.
    ///
    /// # Errors
    /// [`NoteError::Checkpoint`] when it is malformed.
    pub fn parse(text: &str) -> Result<Checkpoint, NoteError> {
        let fail = NoteError::Checkpoint;
        let mut lines = text
            .strip_suffix('\n')
            .ok_or(fail("no newline at the end"))?
            .split('\n');
        let origin = lines
            .next()
            .filter(|o| !o.is_empty())
            .ok_or(fail("no origin"))?;
        let digits = lines.next().ok_or(fail("no size"))?;
        let size: u64 = digits
            .parse()
            .map_err(|_| fail("the size is not a number"))?;
        // One size, one text: neither `007` nor `+7`.
        if size.to_string() != digits {
            return Err(fail("the size is not in its plain form"));
        }
        let root = lines.next().ok_or(fail("no root"))?;
        let root = STANDARD
            .decode(root)
            .map_err(|_| fail("the root is not base64"))?;
        let root = Hash(
            root.try_into()
                .map_err(|_| fail("the root is not 32 bytes"))?,
        );
        if lines.any(str::is_empty) {
            return Err(fail("an empty extension line"));
        }
        Ok(Checkpoint {
            origin: origin.to_owned(),
            size,
            root,
        })
    }

    /// Reads a signed note, and checks that one of `keys` has signed it for the log of its name.
    ///
    /// # Errors
    /// What is wrong with it; with several keys, what is wrong for the one that came closest.
    pub fn verify(note: &[u8], keys: &[VerifierKey]) -> Result<Checkpoint, NoteError> {
        let note = Note::parse(note)?;
        let checkpoint = Checkpoint::parse(note.text())?;
        let Some(first) = keys.first() else {
            return Err(NoteError::Unsigned {
                name: checkpoint.origin,
            });
        };
        let Some(_) = keys.iter().find(|key| key.name == checkpoint.origin) else {
            return Err(NoteError::Origin {
                found: checkpoint.origin,
                expected: first.name.clone(),
            });
        };
        let mut outcome = Err(NoteError::Unsigned {
            name: checkpoint.origin.clone(),
        });
        for key in keys.iter().filter(|key| key.name == checkpoint.origin) {
            match note.verify(key) {
                // A wrong signature of a known key spoils the note, whatever else is on it.
                Err(error @ NoteError::BadSignature { .. }) => return Err(error),
                Ok(()) => outcome = Ok(()),
                Err(_) => {}
            }
        }
        outcome.map(|()| checkpoint)
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}\n{}\n{}",
            self.origin,
            self.size,
            STANDARD.encode(self.root.0)
        )
    }
}
