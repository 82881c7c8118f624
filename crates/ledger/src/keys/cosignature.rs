//! Cosignatures: what a witness says about a checkpoint, and when.
//!
//! Source: C2SP tlog-cosignature v1.0.1 (Ed25519, type 0x04) and v1.1.0-rc.1 (ML-DSA-44, type
//! 0x06). An Ed25519 cosignature covers the whole text of the checkpoint and not the name of the
//! cosigner, so each cosigner needs a key of its own. An ML-DSA-44 cosignature covers the name, the
//! origin, the size and the root, and not the extension lines.
//!
//! Ed25519 is verified strictly: `s` must be reduced, and neither the key nor `R` may be of small
//! order. A signature that one honest verifier takes and another refuses does not pass here.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use ml_dsa::MlDsa44;
use sha2::{Digest, Sha256};

use crate::format::note::{Checkpoint, Note, NoteError, SIGNATURE_PREFIX, check_name};

/// Longest name that an ML-DSA-44 cosignature can cover, in bytes: its length is one byte.
pub const COVERED_NAME_BYTES_MAX: usize = 255;

/// Largest time of a cosignature, in seconds since 1970: the specification ends at 2^63 - 1.
pub const TIME_SECONDS_MAX: u64 = i64::MAX as u64;

/// Opens the message of an ML-DSA-44 cosignature.
const SUBTREE_LABEL: &[u8; 12] = b"subtree/v1\n\0";

/// How a cosigner signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Ed25519 with a timestamp, type 0x04.
    Ed25519,
    /// ML-DSA-44 (FIPS 204) with a timestamp, type 0x06; safe against quantum computers.
    MlDsa44,
}

impl Algorithm {
    /// The type byte in key ids and verifier keys.
    fn kind(self) -> u8 {
        match self {
            Algorithm::Ed25519 => 0x04,
            Algorithm::MlDsa44 => 0x06,
        }
    }
}

/// The key itself. ML-DSA keys are kept expanded, which takes kilobytes.
#[derive(Clone)]
enum Public {
    Ed25519(VerifyingKey),
    MlDsa44(Box<ml_dsa::VerifyingKey<MlDsa44>>),
}

/// The public half of a cosigner's key, as in `name+hash+base64` with type 0x04 or 0x06.
#[derive(Clone)]
pub struct CosignerKey {
    name: String,
    id: u32,
    public: Public,
}

impl CosignerKey {
    fn new(name: &str, public: Public) -> CosignerKey {
        let mut key = CosignerKey {
            name: name.to_owned(),
            id: 0,
            public,
        };
        key.id = key_id(name, &key.encoded());
        key
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// [`NoteError::VerifierKey`] when it is malformed, of another type, when the key is none of
    /// its kind (for Ed25519 also one of small order), or when the hash does not fit.
    pub fn parse(text: &str) -> Result<CosignerKey, NoteError> {
        let fail = NoteError::VerifierKey;
        // The base64 part may hold a `+` of its own, so only the first two count.
        let mut parts = text.splitn(3, '+');
        let name = parts.next().unwrap_or_default();
        let hash = parts.next().ok_or(fail("it has no hash"))?;
        let data = parts.next().ok_or(fail("it has no key"))?;
        check_name(name).map_err(fail)?;
        let data = STANDARD
            .decode(data)
            .map_err(|_| fail("its key is not base64"))?;
        let public = match data.split_first() {
            Some((0x04, public)) => ed25519_public(public).map_err(fail)?,
            Some((0x06, public)) => {
                check_covered(name).map_err(fail)?;
                ml_dsa_public(public).map_err(fail)?
            }
            Some(_) => return Err(fail("its type is not that of a cosigner (04 or 06)")),
            None => return Err(fail("its key is empty")),
        };
        let key = CosignerKey::new(name, public);
        if format!("{:08x}", key.id) != hash {
            return Err(fail("its hash does not fit its name and key"));
        }
        Ok(key)
    }

    /// The name of the cosigner.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it signs.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self.public {
            Public::Ed25519(_) => Algorithm::Ed25519,
            Public::MlDsa44(_) => Algorithm::MlDsa44,
        }
    }

    /// The signature lines of this key on a note, as they stand and unchecked.
    #[must_use]
    pub fn lines(&self, note: &Note) -> String {
        note.lines_of(&self.name, self.id)
    }

    /// Whether it is the same key, under whatever name.
    #[must_use]
    pub fn same_key(&self, other: &CosignerKey) -> bool {
        self.encoded() == other.encoded()
    }

    /// The type byte and the public key.
    fn encoded(&self) -> Vec<u8> {
        let mut data = vec![self.algorithm().kind()];
        match &self.public {
            Public::Ed25519(key) => data.extend_from_slice(key.as_bytes()),
            Public::MlDsa44(key) => data.extend_from_slice(&key.encode()),
        }
        data
    }

    /// When this cosigner last cosigned the checkpoint `note`, in seconds since 1970.
    ///
    /// A cosignature with time 0 says nothing about when and does not count; it must be right all
    /// the same.
    ///
    /// # Errors
    /// [`NoteError::Unsigned`] when there is none that counts, [`NoteError::BadSignature`] when any
    /// line of this key is wrong, [`NoteError::Checkpoint`] when the text is not a checkpoint.
    pub fn verify(&self, note: &Note) -> Result<u64, NoteError> {
        let checkpoint = Checkpoint::parse(note.text())?;
        let mut newest = None;
        for payload in note.signatures_of(&self.name, self.id) {
            let seconds = self
                .verify_one(note.text(), &checkpoint, payload)
                .ok_or_else(|| NoteError::BadSignature {
                    name: self.name.clone(),
                })?;
            newest = newest.max(Some(seconds).filter(|s| *s > 0));
        }
        newest.ok_or_else(|| NoteError::Unsigned {
            name: self.name.clone(),
        })
    }

    fn verify_one(&self, text: &str, checkpoint: &Checkpoint, payload: &[u8]) -> Option<u64> {
        let (time, signature) = payload.split_first_chunk::<8>()?;
        let seconds = u64::from_be_bytes(*time);
        if seconds > TIME_SECONDS_MAX {
            return None;
        }
        match &self.public {
            Public::Ed25519(key) => {
                let signature = Signature::from_slice(signature).ok()?;
                let message = ed25519_message(text, seconds);
                key.verify_strict(message.as_bytes(), &signature).ok()?;
            }
            Public::MlDsa44(key) => {
                let signature = ml_dsa::Signature::<MlDsa44>::try_from(signature).ok()?;
                let message = ml_dsa_message(&self.name, checkpoint, seconds)?;
                if !key.verify_with_context(&message, &[], &signature) {
                    return None;
                }
            }
        }
        Some(seconds)
    }
}

impl PartialEq for CosignerKey {
    fn eq(&self, other: &CosignerKey) -> bool {
        self.name == other.name && self.encoded() == other.encoded()
    }
}

impl Eq for CosignerKey {}

impl fmt::Display for CosignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = STANDARD.encode(self.encoded());
        write!(f, "{}+{:08x}+{key}", self.name, self.id)
    }
}

impl fmt::Debug for CosignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CosignerKey({}+{:08x})", self.name, self.id)
    }
}

/// The secret half. It is wiped when dropped and never printed.
pub struct Cosigner {
    verifier: CosignerKey,
    secret: Secret,
}

enum Secret {
    Ed25519(Box<SigningKey>),
    MlDsa44(Box<ml_dsa::SigningKey<MlDsa44>>),
}

impl Cosigner {
    /// A cosigner from its 32 secret bytes (RFC 8032 or the seed of FIPS 204).
    ///
    /// # Errors
    /// [`NoteError::VerifierKey`] when `name` cannot be that of a cosigner.
    pub fn from_seed(
        name: &str,
        algorithm: Algorithm,
        seed: &[u8; 32],
    ) -> Result<Cosigner, NoteError> {
        check_name(name).map_err(NoteError::VerifierKey)?;
        let (public, secret) = match algorithm {
            Algorithm::Ed25519 => {
                let key = Box::new(SigningKey::from_bytes(seed));
                (Public::Ed25519(key.verifying_key()), Secret::Ed25519(key))
            }
            Algorithm::MlDsa44 => {
                check_covered(name).map_err(NoteError::VerifierKey)?;
                let seed = zeroize::Zeroizing::new(ml_dsa::Seed::from(*seed));
                let key = Box::new(ml_dsa::SigningKey::<MlDsa44>::from_seed(&seed));
                let public = Box::new(key.expanded_key().verifying_key());
                (Public::MlDsa44(public), Secret::MlDsa44(key))
            }
        };
        Ok(Cosigner {
            verifier: CosignerKey::new(name, public),
            secret,
        })
    }

    /// The public half.
    #[must_use]
    pub fn verifier(&self) -> &CosignerKey {
        &self.verifier
    }

    /// The signature line, with its newline, that says: at `seconds` since 1970 the checkpoint
    /// `text` was the largest this cosigner had seen, consistent with all before it. Whether that is
    /// so is for the caller to know.
    ///
    /// # Errors
    /// [`NoteError::Checkpoint`] when `text` is not a checkpoint, when its origin is too long for
    /// ML-DSA-44, or when the time is 0 or past [`TIME_SECONDS_MAX`].
    pub fn cosign(&self, text: &str, seconds: u64) -> Result<String, NoteError> {
        let fail = NoteError::Checkpoint;
        let checkpoint = Checkpoint::parse(text)?;
        if !(1..=TIME_SECONDS_MAX).contains(&seconds) {
            return Err(fail("the time of the cosignature is out of range"));
        }
        let name = &self.verifier.name;
        let mut data = self.verifier.id.to_be_bytes().to_vec();
        data.extend_from_slice(&seconds.to_be_bytes());
        match &self.secret {
            Secret::Ed25519(key) => {
                let message = ed25519_message(text, seconds);
                data.extend_from_slice(&key.sign(message.as_bytes()).to_bytes());
            }
            Secret::MlDsa44(key) => {
                let message = ml_dsa_message(name, &checkpoint, seconds)
                    .ok_or(fail("the origin is longer than 255 bytes"))?;
                let signature = key.expanded_key().sign_deterministic(&message, &[]);
                let signature = signature.map_err(|_| fail("it cannot be signed"))?;
                data.extend_from_slice(&signature.encode());
            }
        }
        Ok(format!(
            "{SIGNATURE_PREFIX}{name} {}\n",
            STANDARD.encode(data)
        ))
    }
}

impl fmt::Debug for Cosigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cosigner({:?})", self.verifier)
    }
}

fn ed25519_public(public: &[u8]) -> Result<Public, &'static str> {
    let public: &[u8; 32] = public.try_into().map_err(|_| "its key is not 32 bytes")?;
    let key = VerifyingKey::from_bytes(public).map_err(|_| "not a point of the curve")?;
    if key.is_weak() {
        return Err("a point of small order");
    }
    Ok(Public::Ed25519(key))
}

fn ml_dsa_public(public: &[u8]) -> Result<Public, &'static str> {
    let public = ml_dsa::EncodedVerifyingKey::<MlDsa44>::try_from(public)
        .map_err(|_| "its key is not 1312 bytes")?;
    let key = ml_dsa::VerifyingKey::<MlDsa44>::decode(&public);
    Ok(Public::MlDsa44(Box::new(key)))
}

fn check_covered(name: &str) -> Result<(), &'static str> {
    if name.len() > COVERED_NAME_BYTES_MAX {
        return Err("its name is longer than 255 bytes");
    }
    Ok(())
}

/// First four bytes of SHA-256(name ‖ 0x0A ‖ type ‖ public key), big-endian.
fn key_id(name: &str, encoded: &[u8]) -> u32 {
    let mut hash = Sha256::new();
    hash.update(name.as_bytes());
    hash.update(b"\n");
    hash.update(encoded);
    let hash = hash.finalize();
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

fn ed25519_message(text: &str, seconds: u64) -> String {
    format!("cosignature/v1\ntime {seconds}\n{text}")
}

/// `None` when a name is too long for its one byte of length.
fn ml_dsa_message(name: &str, checkpoint: &Checkpoint, seconds: u64) -> Option<Vec<u8>> {
    let mut message = SUBTREE_LABEL.to_vec();
    message.push(u8::try_from(name.len()).ok()?);
    message.extend_from_slice(name.as_bytes());
    message.extend_from_slice(&seconds.to_be_bytes());
    message.push(u8::try_from(checkpoint.origin.len()).ok()?);
    message.extend_from_slice(checkpoint.origin.as_bytes());
    // A checkpoint covers its entries from the first one on.
    message.extend_from_slice(&0_u64.to_be_bytes());
    message.extend_from_slice(&checkpoint.size.to_be_bytes());
    message.extend_from_slice(&checkpoint.root.0);
    Some(message)
}
