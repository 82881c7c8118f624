//! Browsers that are known again by a secret they hold.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Bytes of the hash that is kept.
const HASH_LEN: usize = 16;

/// A browser, by the first half of SHA-256 of a random secret that was given to it. Accounts remember
/// the browsers in which they were signed in to: what is tried from there is counted by itself, so
/// that nobody elsewhere can keep a person out.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Browser([u8; HASH_LEN]);

impl Browser {
    /// The browser that shows `secret`, which has 256 random bits.
    pub fn with(secret: &str) -> Self {
        let digest = Sha256::digest(secret.as_bytes());
        let mut hash = [0; HASH_LEN];
        hash.copy_from_slice(&digest[..HASH_LEN]);
        Self(hash)
    }
}

impl PartialEq for Browser {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Browser {}
