//! A record: the concealed values of one entry, encrypted.
//!
//! ```text
//! header   magic "CVAL" (4), length of the rest (4), entry (8), key slot (8), CRC32C of these (4)
//! rest     nonce (24), ciphertext with its tag (16), bound to entry and slot
//! plain    per value: field (1), salt (32), length (4), value
//! ```

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use curfew_entry::{Commitment, Concealed, Field, SALT_BYTES};
use zeroize::Zeroizing;

use crate::keys::Key;
use crate::{ValuesError, number_at, word_at};

const MAGIC: &[u8; 4] = b"CVAL";

/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = 28;

/// Bytes of a nonce. 192 bits: random ones never meet.
const NONCE_BYTES: usize = 24;

/// The longest rest of a record. The values of an entry have at most 4,352 bytes by the limits of
/// its fields; this leaves room for more fields, and bounds what a damaged length can ask for.
pub(crate) const REST_BYTES_MAX: usize = 64 * 1024;

/// What the head of a record says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Header {
    pub(crate) index: u64,
    pub(crate) slot: u64,
    pub(crate) rest: usize,
}

/// The values of an entry, each with its field and salt.
#[derive(Debug, Default)]
pub struct Record(Vec<(Field, [u8; SALT_BYTES], Zeroizing<String>)>);

/// A record's values, opened and each held against its commitment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Opened {
    /// The value that the entry commits to.
    Value(String),
    /// There is a value, and it is not the one that the entry commits to.
    Wrong,
    /// The record has no value of this field.
    Missing,
}

impl Record {
    /// Adds a value.
    pub fn push(&mut self, field: Field, salt: [u8; SALT_BYTES], value: String) {
        self.0.push((field, salt, Zeroizing::new(value)));
    }

    /// Whether it holds no value.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the entry's commitments stand for, as far as this record shows.
    pub(crate) fn held_against(&self, concealed: &Concealed) -> Vec<(Field, Opened)> {
        let opened = |(field, commitment): (&Field, &Commitment)| {
            let held = self.0.iter().find(|(held, ..)| held == field);
            let opened = match held {
                Some((_, salt, value)) if Commitment::of(*field, salt, value) == *commitment => {
                    Opened::Value(value.to_string())
                }
                Some(_) => Opened::Wrong,
                None => Opened::Missing,
            };
            (*field, opened)
        };
        concealed.iter().map(opened).collect()
    }

    fn plain(&self) -> Zeroizing<Vec<u8>> {
        let mut plain = Zeroizing::new(Vec::with_capacity(256));
        for (field, salt, value) in &self.0 {
            plain.push(code(*field));
            plain.extend_from_slice(salt);
            // Far below 4 GiB: `seal` refuses what is over the limit of a record.
            plain.extend_from_slice(&(value.len() as u32).to_be_bytes());
            plain.extend_from_slice(value.as_bytes());
        }
        plain
    }

    fn read(mut plain: &[u8]) -> Option<Self> {
        let mut record = Self::default();
        while let Some((code, rest)) = plain.split_first() {
            let field = Field::ALL
                .into_iter()
                .find(|field| self::code(*field) == *code)?;
            let (salt, rest) = rest.split_first_chunk::<SALT_BYTES>()?;
            let (length, rest) = rest.split_first_chunk::<4>()?;
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            let (value, rest) = rest.split_at_checked(length)?;
            let value = std::str::from_utf8(value).ok()?.to_owned();
            record.push(field, *salt, value);
            plain = rest;
        }
        Some(record)
    }

    /// The bytes of the record of entry `index`, under the key in `slot`.
    pub(crate) fn seal(&self, index: u64, slot: u64, key: &Key) -> Result<Vec<u8>, ValuesError> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| ValuesError::Random)?;
        let plain = self.plain();
        let payload = Payload {
            msg: &plain,
            aad: &bound_to(index, slot),
        };
        let sealed = XChaCha20Poly1305::new(&(**key).into())
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| ValuesError::TooLarge)?;
        let rest = NONCE_BYTES + sealed.len();
        if rest > REST_BYTES_MAX {
            return Err(ValuesError::TooLarge);
        }
        let header = Header { index, slot, rest };
        let mut bytes = header.bytes().to_vec();
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&sealed);
        Ok(bytes)
    }

    /// Opens what stands behind a header; `None` where the key does not fit or it was tampered with.
    pub(crate) fn open(header: &Header, rest: &[u8], key: &Key) -> Option<Self> {
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>()?;
        let payload = Payload {
            msg: sealed,
            aad: &bound_to(header.index, header.slot),
        };
        let plain = XChaCha20Poly1305::new(&(**key).into())
            .decrypt(&XNonce::from(*nonce), payload)
            .ok()?;
        Self::read(&Zeroizing::new(plain))
    }
}

impl Header {
    pub(crate) fn bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(MAGIC);
        // At most REST_BYTES_MAX.
        bytes[4..8].copy_from_slice(&(self.rest as u32).to_be_bytes());
        bytes[8..16].copy_from_slice(&self.index.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.slot.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[..24]);
        bytes[24..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// The header that these bytes begin with.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..24)?;
        if !head.starts_with(MAGIC) || word_at(bytes, 24)? != crc32c::crc32c(head) {
            return None;
        }
        let rest = usize::try_from(word_at(bytes, 4)?).ok()?;
        (rest <= REST_BYTES_MAX).then_some(Self {
            index: number_at(bytes, 8)?,
            slot: number_at(bytes, 16)?,
            rest,
        })
    }
}

const fn code(field: Field) -> u8 {
    match field {
        Field::Path => 1,
        Field::Statement => 2,
        Field::Client => 3,
        Field::Search => 4,
    }
}

/// A record moved to another entry or key does not open.
fn bound_to(index: u64, slot: u64) -> Vec<u8> {
    let mut bound = b"curfew/values/v1\0".to_vec();
    bound.extend_from_slice(&index.to_be_bytes());
    bound.extend_from_slice(&slot.to_be_bytes());
    bound
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_opens_under_its_key_at_its_place_and_nowhere_else() {
        let mut record = Record::default();
        record.push(Field::Path, [1; 32], "/patients/7".into());
        record.push(Field::Client, [2; 32], "ü".into());
        let key = Zeroizing::new([3; 32]);
        let bytes = record.seal(5, 1, &key).unwrap();
        let header = Header::read(&bytes).unwrap();
        assert_eq!((header.index, header.slot), (5, 1));
        let rest = &bytes[HEADER_BYTES..];
        assert_eq!(rest.len(), header.rest);
        let opened = Record::open(&header, rest, &key).unwrap();
        let concealed = Concealed::from([
            (
                Field::Path,
                Commitment::of(Field::Path, &[1; 32], "/patients/7"),
            ),
            (Field::Client, Commitment::of(Field::Client, &[2; 32], "u")),
            (Field::Search, Commitment::of(Field::Search, &[2; 32], "x")),
        ]);
        assert_eq!(
            opened.held_against(&concealed),
            [
                (Field::Path, Opened::Value("/patients/7".into())),
                (Field::Client, Opened::Wrong),
                (Field::Search, Opened::Missing),
            ]
        );
        let moved = Header { index: 6, ..header };
        assert!(Record::open(&moved, rest, &key).is_none());
        assert!(Record::open(&header, rest, &Zeroizing::new([4; 32])).is_none());
        assert!(!bytes.windows(4).any(|bytes| bytes == b"pati"));
    }
}
