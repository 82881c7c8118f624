//! Secrets at rest: sealed with XChaCha20-Poly1305 under a key that lies elsewhere.

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::IdentityError;

/// Bytes of a nonce. 192 bits: random ones never meet.
const NONCE_LEN: usize = 24;

/// The 32 bytes under which TOTP secrets are sealed. Whoever has them and the store has the codes.
#[derive(ZeroizeOnDrop)]
pub struct VaultKey([u8; 32]);

impl VaultKey {
    /// The key with these bytes, which come from a random generator or a key store.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl std::fmt::Debug for VaultKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("VaultKey(…)")
    }
}

/// The keys derived from a vault key, one per use.
pub(crate) struct Vault {
    seal: Zeroizing<[u8; 32]>,
    names: Zeroizing<[u8; 32]>,
}

/// What was sealed cannot be opened: another key, another context, or damage.
#[derive(Debug)]
pub(crate) struct Unsealable;

impl Vault {
    pub(crate) fn new(key: &VaultKey) -> Self {
        Self {
            seal: mac(&key.0, &[b"curfew identity seal v1"]),
            names: mac(&key.0, &[b"curfew identity names v1"]),
        }
    }

    /// Seals `secret`, bound to `context` and `name`: it opens under no other.
    pub(crate) fn seal(
        &self,
        context: &str,
        name: &str,
        secret: &[u8],
    ) -> Result<Vec<u8>, IdentityError> {
        let mut sealed = vec![0; NONCE_LEN];
        getrandom::fill(&mut sealed).map_err(IdentityError::Random)?;
        let nonce = nonce(&sealed).map_err(|Unsealable| IdentityError::Damaged("a nonce"))?;
        let aad = associated(context, name);
        let payload = Payload {
            msg: secret,
            aad: &aad,
        };
        let ciphertext = self
            .cipher()
            .encrypt(&nonce, payload)
            .map_err(|_| IdentityError::Damaged("a secret that cannot be sealed"))?;
        sealed.extend_from_slice(&ciphertext);
        Ok(sealed)
    }

    /// Opens what `seal` made for the same context and name.
    pub(crate) fn open(
        &self,
        context: &str,
        name: &str,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
        let (head, ciphertext) = sealed.split_at_checked(NONCE_LEN).ok_or(Unsealable)?;
        let aad = associated(context, name);
        let payload = Payload {
            msg: ciphertext,
            aad: &aad,
        };
        self.cipher()
            .decrypt(&nonce(head)?, payload)
            .map(Zeroizing::new)
            .map_err(|_| Unsealable)
    }

    /// A pseudonym of `name` that nobody without the key can predict.
    pub(crate) fn pseudonym(&self, name: &str) -> [u8; 32] {
        *mac(&self.names, &[name.as_bytes()])
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&(*self.seal).into())
    }
}

fn nonce(bytes: &[u8]) -> Result<XNonce, Unsealable> {
    XNonce::try_from(bytes).map_err(|_| Unsealable)
}

/// Neither part can hold a zero byte, so no two pairs give the same bytes.
fn associated(context: &str, name: &str) -> Vec<u8> {
    [context.as_bytes(), &[0], name.as_bytes()].concat()
}

#[allow(
    clippy::expect_used,
    reason = "HMAC takes keys of every length; nothing from outside is involved"
)]
fn mac(key: &[u8; 32], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).expect("any key length");
    for part in parts {
        mac.update(part);
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_under_the_same_key_context_and_name() {
        let vault = Vault::new(&VaultKey::from_bytes([1; 32]));
        let sealed = vault
            .seal("totp", "alice", b"twenty bytes of it!!")
            .unwrap();
        assert_eq!(
            vault.open("totp", "alice", &sealed).unwrap().as_slice(),
            b"twenty bytes of it!!"
        );
        assert!(vault.open("totp", "bob", &sealed).is_err());
        assert!(vault.open("check", "alice", &sealed).is_err());
        assert!(vault.open("totp", "alice", &sealed[..10]).is_err());
        let other = Vault::new(&VaultKey::from_bytes([2; 32]));
        assert!(other.open("totp", "alice", &sealed).is_err());
        let mut bent = sealed.clone();
        *bent.last_mut().unwrap() ^= 1;
        assert!(vault.open("totp", "alice", &bent).is_err());
        assert!(!sealed.windows(6).any(|part| part == b"twenty"));
    }

    #[test]
    fn debug_shows_no_key() {
        let shown = format!("{:?}", VaultKey::from_bytes([7; 32]));
        assert_eq!(shown, "VaultKey(…)");
    }
}
