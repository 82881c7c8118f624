//! Values that an entry commits to without telling them.
//!
//! The value, with a random salt, lies in a store beside the ledger, from where it can be erased;
//! the entry keeps the commitment, so that every hash still verifies and whoever is shown the value
//! can check that it is the one.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::event::{ActionDetail, Event};
use crate::ids::{IdError, ValueDigest};

/// What keeps these hashes apart from all others.
const DOMAIN: &[u8] = b"curfew/value/v1\0";

/// Bytes of a salt. As many random bits as the hash has: nothing can be found by trying values.
pub const SALT_BYTES: usize = 32;

/// The fields of an action whose values may be concealed. Policy sees none of them, so that a
/// verifier can judge every entry without them.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// The path of a request.
    Path,
    /// The text of a statement.
    Statement,
    /// The name a client gives itself.
    Client,
    /// What a search of the log asked for.
    Search,
}

/// The commitments of an entry, by field.
pub type Concealed = BTreeMap<Field, Commitment>;

/// SHA-256 over a domain, the field, a salt and the value: it binds to the value and, as long as
/// nobody has the salt, tells nothing of it.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Commitment(ValueDigest);

impl Field {
    /// All of them, in the order of an entry.
    pub const ALL: [Self; 4] = [Self::Path, Self::Statement, Self::Client, Self::Search];

    /// The name in entries and in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Statement => "statement",
            Self::Client => "client",
            Self::Search => "search",
        }
    }

    /// Where an action has this field.
    fn of(self, action: &mut ActionDetail) -> &mut Option<String> {
        match self {
            Self::Path => &mut action.path,
            Self::Statement => &mut action.statement,
            Self::Client => &mut action.client,
            Self::Search => &mut action.search,
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Commitment {
    /// The commitment to this value of this field under this salt:
    /// `SHA-256("curfew/value/v1\0" ‖ length of the field's name (1 byte) ‖ name ‖ salt (32) ‖
    /// length of the value (8 bytes, big-endian) ‖ value)`.
    pub fn of(field: Field, salt: &[u8; SALT_BYTES], value: &str) -> Self {
        let name = field.as_str().as_bytes();
        let mut hash = Sha256::new();
        hash.update(DOMAIN);
        // Names are a few bytes long, and a text in memory fits 64 bits.
        hash.update([name.len() as u8]);
        hash.update(name);
        hash.update(salt);
        hash.update((value.len() as u64).to_be_bytes());
        hash.update(value);
        Self(ValueDigest::from_sha256(hash.finalize().into()))
    }

    /// In lower-case hexadecimal.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for Commitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Commitment {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        text.parse().map(Self)
    }
}

impl ActionDetail {
    /// Takes the value of a field out, and leaves the commitment to it in its place. `None` where
    /// the field has nothing to say.
    pub fn conceal(&mut self, field: Field, salt: &[u8; SALT_BYTES]) -> Option<String> {
        let value = field.of(self).take()?;
        let commitment = Commitment::of(field, salt, &value);
        self.concealed.insert(field, commitment);
        Some(value)
    }

    /// Puts a text in the place of a concealed value, to be shown. The commitment stays, so such an
    /// action is never written to the log.
    pub fn show(&mut self, field: Field, text: String) {
        *field.of(self) = Some(text);
    }

    /// Whether a field is both told and concealed, which no gateway writes.
    pub fn tells_what_it_conceals(&self) -> bool {
        self.concealed.keys().any(|field| match field {
            Field::Path => self.path.is_some(),
            Field::Statement => self.statement.is_some(),
            Field::Client => self.client.is_some(),
            Field::Search => self.search.is_some(),
        })
    }
}

impl Event {
    /// The action it tells of, in whose session, where it tells of one.
    pub fn action_mut(&mut self) -> Option<&mut ActionDetail> {
        if let Self::ActionAllowed { action, .. }
        | Self::ActionSteppedUp { action, .. }
        | Self::ActionDenied { action, .. } = self
        {
            Some(action)
        } else {
            None
        }
    }

    /// What it commits to without telling it; empty for most.
    pub fn concealed(&self) -> Option<&Concealed> {
        if let Self::ActionAllowed { action, .. }
        | Self::ActionSteppedUp { action, .. }
        | Self::ActionDenied { action, .. } = self
        {
            Some(&action.concealed).filter(|concealed| !concealed.is_empty())
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commitment_binds_to_field_salt_and_value() {
        let one = Commitment::of(Field::Path, &[7; 32], "/a");
        assert_eq!(one, Commitment::of(Field::Path, &[7; 32], "/a"));
        assert_ne!(one, Commitment::of(Field::Search, &[7; 32], "/a"));
        assert_ne!(one, Commitment::of(Field::Path, &[8; 32], "/a"));
        assert_ne!(one, Commitment::of(Field::Path, &[7; 32], "/b"));
        assert_eq!(one, one.to_string().parse().unwrap());
    }

    #[test]
    fn the_hash_is_the_one_that_is_documented() {
        // printf 'curfew/value/v1\0\004path%s\0\0\0\0\0\0\0\002/a' (32 zero bytes) | sha256sum
        let mut bytes = b"curfew/value/v1\0\x04path".to_vec();
        bytes.extend([0; 32]);
        bytes.extend(2_u64.to_be_bytes());
        bytes.extend(b"/a");
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        let wanted = ValueDigest::from_sha256(digest);
        let made = Commitment::of(Field::Path, &[0; 32], "/a");
        assert_eq!(made.as_str(), wanted.as_str());
    }
}
