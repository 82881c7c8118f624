//! Secrets Curfew makes: session cookies, bearer tokens, database passwords. Only hashes are kept.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use curfew_entry::{CredentialHash, CredentialId, ErasureId, SessionId};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Random bytes in a secret: 256 bits, twice what ASVS 7.2.3 asks for.
const SECRET_BYTES: usize = 32;

/// The system could not give random bytes, or a key file is not usable.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The operating system's generator failed.
    #[error("the system gave no random bytes: {0}")]
    Random(getrandom::Error),
    /// The key file could not be read or written.
    #[error("key file {path}: {source}")]
    File {
        /// Which file.
        path: String,
        /// What went wrong.
        source: io::Error,
    },
    /// The key file can be read by others, or is not 64 hexadecimal digits.
    #[error("key file {path}: {problem}")]
    Unfit {
        /// Which file.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// This many random bytes from the operating system.
///
/// # Errors
/// When the operating system cannot give any.
pub fn random<const N: usize>() -> Result<[u8; N], SecretError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(SecretError::Random)?;
    Ok(bytes)
}

/// A fresh session name.
///
/// # Errors
/// When the operating system gives no random bytes.
pub fn session_id() -> Result<SessionId, SecretError> {
    random().map(SessionId::from_random)
}

/// A fresh erasure name.
///
/// # Errors
/// When the operating system gives no random bytes.
pub fn erasure_id() -> Result<ErasureId, SecretError> {
    random().map(ErasureId::from_random)
}

/// A fresh credential name.
///
/// # Errors
/// When the operating system gives no random bytes.
pub fn credential_id() -> Result<CredentialId, SecretError> {
    random().map(CredentialId::from_random)
}

/// A fresh secret that starts with `prefix`, which says what it is when it is found somewhere.
///
/// # Errors
/// When the operating system gives no random bytes.
pub fn token(prefix: &str) -> Result<SecretString, SecretError> {
    let bytes = Zeroizing::new(random::<SECRET_BYTES>()?);
    Ok(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(*bytes)).into())
}

/// The hash by which a presented secret is looked up. Hashing first makes the look-up's timing
/// tell nothing about the secret.
pub fn hash(secret: &str) -> CredentialHash {
    CredentialHash::from_sha256(Sha256::digest(secret.as_bytes()).into())
}

/// The gateway's own key. Everything derived from it names its purpose.
#[derive(Debug)]
pub struct MasterKey(SecretBox<[u8; 32]>);

impl MasterKey {
    /// Makes a new key and writes it to a 0600 file that must not exist.
    ///
    /// # Errors
    /// When the file exists or cannot be written.
    pub fn create(path: &Path) -> Result<Self, SecretError> {
        let failed = |source| SecretError::File {
            path: path.display().to_string(),
            source,
        };
        let bytes = Zeroizing::new(random::<32>()?);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        let text = Zeroizing::new(hex(bytes.as_slice()));
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(failed)?;
        Ok(Self(SecretBox::new(Box::new(*bytes))))
    }

    /// Reads the key from its file.
    ///
    /// # Errors
    /// When it cannot be read, when others may read it, or when it is not a key.
    pub fn load(path: &Path) -> Result<Self, SecretError> {
        let name = || path.display().to_string();
        let failed = |source| SecretError::File {
            path: name(),
            source,
        };
        let mode = fs::metadata(path).map_err(failed)?.mode();
        if mode & 0o077 != 0 {
            let problem = "it can be read by others; set its mode to 0600";
            return Err(SecretError::Unfit {
                path: name(),
                problem,
            });
        }
        let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
        let bytes = unhex(text.trim()).ok_or_else(|| SecretError::Unfit {
            path: name(),
            problem: "it is not 64 hexadecimal digits",
        })?;
        Ok(Self(SecretBox::new(Box::new(bytes))))
    }

    /// 32 bytes for one purpose (HMAC-SHA256 as a key derivation, NIST SP 800-108).
    pub fn derive(&self, purpose: &str, input: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut mac = match <Hmac<Sha256> as KeyInit>::new_from_slice(self.0.expose_secret()) {
            Ok(mac) => mac,
            Err(_) => unreachable!("HMAC takes keys of any length"),
        };
        mac.update(purpose.as_bytes());
        // A purpose holds no zero byte, so purpose and input cannot be confused.
        mac.update(&[0]);
        mac.update(input);
        Zeroizing::new(mac.finalize().into_bytes().into())
    }

    /// The password of a database credential. Derived, so that SCRAM can be answered after a
    /// restart without any password being stored.
    pub fn database_password(&self, credential: &CredentialId) -> SecretString {
        let bytes = self.derive("database-password", credential.to_string().as_bytes());
        format!("cfd_{}", URL_SAFE_NO_PAD.encode(*bytes)).into()
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// The longest token in a file, in bytes: twice what a large JSON Web Token has.
const TOKEN_BYTES_MAX: u64 = 16 * 1024;

/// Reads what proves us to others – a bearer token, a secret key – from its file. The error is for the
/// operator, and names the file.
pub fn read_token(path: &Path) -> Result<SecretString, String> {
    let at = |problem: String| format!("{}: {problem}", path.display());
    let about = fs::metadata(path).map_err(|error| at(error.to_string()))?;
    if about.mode() & 0o077 != 0 {
        return Err(at(
            "it can be read by others; set its mode to 0600".to_owned()
        ));
    }
    if about.len() > TOKEN_BYTES_MAX {
        return Err(at("longer than 16 KiB".to_owned()));
    }
    let text = fs::read_to_string(path).map_err(|error| at(error.to_string()))?;
    let text = Zeroizing::new(text);
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(at("it holds no token".to_owned()));
    }
    Ok(token.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_private_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let made = MasterKey::create(&path).unwrap();
        let read = MasterKey::load(&path).unwrap();
        assert_eq!(*made.derive("a", b"x"), *read.derive("a", b"x"));
        assert_ne!(*made.derive("a", b"x"), *made.derive("b", b"x"));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(
            MasterKey::create(&path).is_err(),
            "an existing key is never overwritten"
        );
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        MasterKey::create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            MasterKey::load(&path),
            Err(SecretError::Unfit { .. })
        ));
    }
}
