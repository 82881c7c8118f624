//! The key that seals secrets at rest.

use zeroize::ZeroizeOnDrop;

/// The 32 bytes under which TOTP secrets are sealed. Whoever has them and the store has the codes.
#[derive(ZeroizeOnDrop)]
pub struct VaultKey([u8; 32]);

impl VaultKey {
    /// The key with these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}
