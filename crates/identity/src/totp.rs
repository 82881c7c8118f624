//! One-time codes (RFC 6238): SHA-1, six digits, 30 seconds, which every authenticator app knows.

use curfew_authority::Timestamp;
use secrecy::SecretString;
use zeroize::ZeroizeOnDrop;

/// The secret that an authenticator app and the account share.
#[derive(Clone, ZeroizeOnDrop)]
pub struct TotpSecret([u8; 20]);

/// Why a text is not a TOTP secret.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a TOTP secret is 32 characters of base32 (A to Z, 2 to 7)")]
pub struct TotpSecretError;

impl TotpSecret {
    /// The secret with these bytes.
    pub fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// Reads base32, as apps show it: spaces, lower case and padding are fine.
    pub fn from_base32(_text: &str) -> Result<Self, TotpSecretError> {
        todo!()
    }

    /// As base32 without padding.
    pub fn to_base32(&self) -> SecretString {
        todo!()
    }
}

/// The six digits that an app shows at `now`.
pub fn code(_secret: &TotpSecret, _now: Timestamp) -> String {
    todo!()
}
