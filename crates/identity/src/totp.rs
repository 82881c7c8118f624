//! One-time codes (RFC 6238): SHA-1, six digits, 30 seconds, which every authenticator app knows.

use curfew_entry::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use subtle::{Choice, ConstantTimeEq};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::IdentityError;

/// Seconds that one code stands for.
pub const STEP_SECS: u64 = 30;
/// Bytes of a secret: 160 bits, as RFC 4226 section 4 recommends.
const SECRET_LEN: usize = 20;
/// Who issued the secret, as apps show it.
const ISSUER: &str = "Curfew";

/// The secret that an authenticator app and the account share.
#[derive(Clone, ZeroizeOnDrop)]
pub struct TotpSecret([u8; SECRET_LEN]);

/// Why a text is not a TOTP secret.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a TOTP secret is 32 characters of base32 (A to Z, 2 to 7)")]
pub struct TotpSecretError;

impl TotpSecret {
    /// The secret with these bytes.
    pub fn from_bytes(bytes: [u8; SECRET_LEN]) -> Self {
        Self(bytes)
    }

    /// Reads base32, as apps show it: spaces, hyphens, lower case and padding are fine.
    pub fn from_base32(text: &str) -> Result<Self, TotpSecretError> {
        let mut clean = Zeroizing::new(String::with_capacity(text.len()));
        clean.extend(
            text.chars()
                .filter(|c| !c.is_whitespace() && !matches!(c, '-' | '='))
                .map(|c| c.to_ascii_uppercase()),
        );
        let secret =
            totp_rs::Secret::try_from_base32(clean.as_str()).map_err(|_| TotpSecretError)?;
        secret
            .as_bytes()
            .try_into()
            .map(Self)
            .map_err(|_| TotpSecretError)
    }

    /// As base32 without padding.
    pub fn to_base32(&self) -> SecretString {
        totp_rs::Secret::new_stack(self.0).to_base32().into()
    }

    /// A new secret from the system's random generator.
    pub(crate) fn generate() -> Result<Self, IdentityError> {
        let mut secret = Self([0; SECRET_LEN]);
        getrandom::fill(&mut secret.0).map_err(IdentityError::Random)?;
        Ok(secret)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; SECRET_LEN] {
        &self.0
    }

    /// The `otpauth://` address that apps read from a QR code. `account` is a subject's name,
    /// whose characters all may stand in an address as they are.
    pub(crate) fn uri(&self, account: &str) -> SecretString {
        let secret = self.to_base32();
        // 110 fixed characters, 32 of the secret, at most 64 of the name: never grown, so that no
        // copy of the secret is left behind.
        let mut uri = String::with_capacity(256);
        for part in [
            "otpauth://totp/",
            ISSUER,
            ":",
            account,
            "?secret=",
            secret.expose_secret(),
            "&issuer=",
            ISSUER,
            "&algorithm=SHA1&digits=6&period=30",
        ] {
            uri.push_str(part);
        }
        uri.into()
    }
}

impl std::fmt::Debug for TotpSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TotpSecret(…)")
    }
}

/// The six digits that an app shows at `now`.
pub fn code(secret: &TotpSecret, now: Timestamp) -> String {
    code_of_step(secret, now.as_secs() / STEP_SECS)
}

fn code_of_step(secret: &TotpSecret, step: u64) -> String {
    totp_rs::Builder::new()
        .with_algorithm(totp_rs::Algorithm::SHA1)
        .with_digits(6)
        .with_step_duration(STEP_SECS)
        .with_secret(totp_rs::Secret::new_stack(secret.0))
        .build_noncompliant()
        .generate(step.saturating_mul(STEP_SECS))
        .to_string()
}

/// What a given code is worth.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum CodeCheck {
    /// It is the code of this step, which is newer than the last one used.
    Fresh(u64),
    /// It was right once, and no longer is.
    Used,
    /// It is not right.
    Wrong,
}

/// Judges `given` against the steps before, at and after `now` (RFC 6238 section 5.2). All three
/// are always computed and compared.
pub(crate) fn check(
    secret: &TotpSecret,
    given: &str,
    now: Timestamp,
    last_used: Option<u64>,
) -> CodeCheck {
    let given: String = given.chars().filter(|c| !c.is_whitespace()).collect();
    let current = now.as_secs() / STEP_SECS;
    let mut used = Choice::from(0);
    let mut fresh = None;
    for step in current.saturating_sub(1)..=current + 1 {
        let right = given
            .as_bytes()
            .ct_eq(code_of_step(secret, step).as_bytes());
        if last_used.is_some_and(|last| step <= last) {
            used |= right;
        } else if bool::from(right) {
            fresh = Some(step);
        }
    }
    match fresh {
        Some(step) => CodeCheck::Fresh(step),
        None if bool::from(used) => CodeCheck::Used,
        None => CodeCheck::Wrong,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_micros(secs * 1_000_000)
    }

    fn rfc() -> TotpSecret {
        TotpSecret::from_bytes(*b"12345678901234567890")
    }

    /// RFC 6238 appendix B, SHA-1; the last six of its eight digits.
    #[test]
    fn the_vectors_of_rfc_6238() {
        for (secs, eight) in [
            (59, "94287082"),
            (1_111_111_109, "07081804"),
            (1_111_111_111, "14050471"),
            (1_234_567_890, "89005924"),
            (2_000_000_000, "69279037"),
            (20_000_000_000, "65353130"),
        ] {
            assert_eq!(code(&rfc(), at(secs)), &eight[2..], "at {secs}");
        }
    }

    #[test]
    fn base32_there_and_back() {
        let text = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
        assert_eq!(rfc().to_base32().expose_secret(), text);
        let loose = "gezd gnbv-gy3t qojq GEZD GNBV GY3T QOJQ====";
        for given in [text, loose] {
            let read = TotpSecret::from_base32(given).unwrap();
            assert_eq!(read.as_bytes(), rfc().as_bytes());
        }
        for bad in ["", "GEZDGNBV", "1EZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", "ÄÖÜ"] {
            assert!(TotpSecret::from_base32(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_step_either_side_and_no_more() {
        let now = at(1_000_000_000);
        let step = 1_000_000_000 / STEP_SECS;
        let check_step = |given| check(&rfc(), &code_of_step(&rfc(), given), now, None);
        assert_eq!(check_step(step - 2), CodeCheck::Wrong);
        assert_eq!(check_step(step - 1), CodeCheck::Fresh(step - 1));
        assert_eq!(check_step(step), CodeCheck::Fresh(step));
        assert_eq!(check_step(step + 1), CodeCheck::Fresh(step + 1));
        assert_eq!(check_step(step + 2), CodeCheck::Wrong);
    }

    #[test]
    fn a_used_step_and_all_before_it_are_used_up() {
        let now = at(1_000_000_000);
        let step = 1_000_000_000 / STEP_SECS;
        let check_step = |given, last| check(&rfc(), &code_of_step(&rfc(), given), now, Some(last));
        assert_eq!(check_step(step, step), CodeCheck::Used);
        assert_eq!(check_step(step - 1, step), CodeCheck::Used);
        assert_eq!(check_step(step + 1, step), CodeCheck::Fresh(step + 1));
        assert_eq!(check_step(step + 1, step + 1), CodeCheck::Used);
    }

    #[test]
    fn only_the_six_digits() {
        let now = at(59);
        assert_eq!(check(&rfc(), " 287 082 ", now, None), CodeCheck::Fresh(1));
        for bad in [
            "", "287", "0287082", "2870820", "287082a", "94287082", "+87082",
        ] {
            assert_eq!(check(&rfc(), bad, now, None), CodeCheck::Wrong, "{bad}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", rfc()), "TotpSecret(…)");
    }
}
