//! Passwords: which are good enough, and their hashes.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use curfew_entry::SubjectName;
use secrecy::{ExposeSecret, SecretString};

use crate::{IdentityError, WeakPassword};

/// The fewest characters of a password. NIST SP 800-63B-4 section 3.1.1.2 asks for 8 where the
/// password is one of two factors; the rest is margin.
pub const PASSWORD_CHARS_MIN: usize = 12;
/// The most characters of a password. NIST SP 800-63B-4 asks to permit at least 64.
pub const PASSWORD_CHARS_MAX: usize = 256;
/// The most bytes of a password: `PASSWORD_CHARS_MAX` characters of at most 4 bytes in UTF-8.
const PASSWORD_BYTES_MAX: usize = PASSWORD_CHARS_MAX * 4;

/// Memory of one hash in KiB: 19 MiB. This and the next two are the least that the OWASP Password
/// Storage Cheat Sheet asks of Argon2id: 19 MiB of memory, 2 iterations, parallelism 1.
const STANDARD_MEMORY_KIB: u32 = 19 * 1024;
/// Passes over that memory.
const STANDARD_PASSES: u32 = 2;
/// Lanes.
const STANDARD_LANES: u32 = 1;
/// Bytes of salt, as RFC 9106 section 3.1 recommends.
const SALT_LEN: usize = 16;
/// What remains of a password without its account's name must have as many characters.
const BESIDE_NAME_CHARS_MIN: usize = 8;
/// A password must have as many different characters.
const DISTINCT_CHARS_MIN: usize = 4;

/// What hashing a password costs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PasswordCost {
    /// What a store that people sign in to uses: 19 MiB, 2 passes.
    Standard,
    /// Next to nothing. For tests only: a stolen store would give its passwords away.
    Minimal,
}

/// Makes and checks hashes at one cost.
pub(crate) struct Hasher {
    params: Params,
}

impl Hasher {
    pub(crate) fn new(cost: PasswordCost) -> Result<Self, IdentityError> {
        let (memory, passes, lanes) = match cost {
            PasswordCost::Standard => (STANDARD_MEMORY_KIB, STANDARD_PASSES, STANDARD_LANES),
            PasswordCost::Minimal => (Params::MIN_M_COST, Params::MIN_T_COST, Params::MIN_P_COST),
        };
        let params = Params::new(memory, passes, lanes, None)
            .map_err(|_| IdentityError::Hash("the cost is out of range"))?;
        Ok(Self { params })
    }

    /// A PHC string with a new salt.
    pub(crate) fn hash(&self, password: &SecretString) -> Result<String, IdentityError> {
        let mut salt = [0; SALT_LEN];
        getrandom::fill(&mut salt).map_err(IdentityError::Random)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params.clone());
        let hash: PasswordHash = argon2
            .hash_password_with_salt(password.expose_secret().as_bytes(), &salt)
            .map_err(|_| IdentityError::Hash("argon2 refused the password"))?;
        Ok(hash.to_string())
    }

    /// Whether `phc` is the hash of `password`. Takes the time that the PHC string's parameters
    /// say, whatever the password, and compares in constant time.
    pub(crate) fn is_hash_of(
        &self,
        password: &SecretString,
        phc: &str,
    ) -> Result<bool, IdentityError> {
        let hash = PasswordHash::new(phc)
            .map_err(|_| IdentityError::Damaged("a password hash is not a PHC string"))?;
        let given = password.expose_secret().as_bytes();
        let head = given.get(..PASSWORD_BYTES_MAX).unwrap_or(given);
        let matches = Argon2::default().verify_password(head, &hash).is_ok();
        Ok(matches & (given.len() <= PASSWORD_BYTES_MAX))
    }

    /// Whether `phc` was made at another cost, and should be made anew.
    pub(crate) fn is_outdated(&self, phc: &str) -> bool {
        PasswordHash::new(phc)
            .ok()
            .and_then(|hash| Params::try_from(&hash).ok())
            .is_none_or(|params| {
                (params.m_cost(), params.t_cost(), params.p_cost())
                    != (
                        self.params.m_cost(),
                        self.params.t_cost(),
                        self.params.p_cost(),
                    )
            })
    }
}

/// Whether `password` may be used for the account `name` (NIST SP 800-63B-4 section 3.1.1.2: a
/// length and a blocklist, no rules of composition).
pub(crate) fn check_strength(
    name: &SubjectName,
    password: &SecretString,
) -> Result<(), WeakPassword> {
    let password = password.expose_secret();
    match password.chars().count() {
        ..PASSWORD_CHARS_MIN => return Err(WeakPassword::TooShort),
        PASSWORD_CHARS_MIN..=PASSWORD_CHARS_MAX => {}
        _ => return Err(WeakPassword::TooLong),
    }
    let folded = zeroize::Zeroizing::new(password.to_lowercase());
    let name = name.as_str().to_ascii_lowercase();
    if folded.contains(&name) {
        let beside = zeroize::Zeroizing::new(folded.replace(&name, ""));
        if beside.chars().count() < BESIDE_NAME_CHARS_MIN {
            return Err(WeakPassword::LikeName);
        }
    }
    let mut distinct: Vec<char> = folded.chars().collect();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() < DISTINCT_CHARS_MIN || COMMON.contains(&folded.as_str()) {
        return Err(WeakPassword::Common);
    }
    Ok(())
}

/// The passwords of at least `PASSWORD_CHARS_MIN` characters that guessers try first, in lower
/// case. Shorter ones are refused for their length.
const COMMON: [&str; 48] = [
    "000000000000000",
    "0123456789ab",
    "012345678910",
    "1111111111111",
    "112233445566",
    "123123123123",
    "1234567890-=",
    "123456789012",
    "1234567890123",
    "12345678901234567890",
    "1234567890qwerty",
    "123456789abc",
    "1234567891011",
    "123456789123",
    "123456789a123456789a",
    "123456qwerty",
    "123qweasdzxc",
    "1q2w3e4r5t6y",
    "1q2w3e4r5t6y7u8i",
    "1qaz2wsx3edc",
    "1qaz2wsx3edc4rfv",
    "1qazxsw23edc",
    "987654321012",
    "abc123abc123",
    "abcdefghijkl",
    "abcdefghijklmnopqrstuvwxyz",
    "administrator",
    "administrator1",
    "asdfghjkl123",
    "changeme1234",
    "changemechangeme",
    "correcthorsebatterystaple",
    "correct horse battery staple",
    "iloveyou1234",
    "iloveyouforever",
    "letmein12345",
    "letmeinletmein",
    "passw0rd1234",
    "password1234",
    "password12345",
    "password123456",
    "passwordpassword",
    "q1w2e3r4t5y6",
    "qwerty123456",
    "qwertyuiop12",
    "qwertyuiop123",
    "qwertyuiopasdfghjkl",
    "qwertyuiop[]",
];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SecretString {
        text.to_owned().into()
    }

    fn strength(name: &str, password: &str) -> Result<(), WeakPassword> {
        check_strength(&name.parse().unwrap(), &secret(password))
    }

    #[test]
    fn the_standard_cost_is_what_owasp_asks_for() {
        let hasher = Hasher::new(PasswordCost::Standard).unwrap();
        let phc = hasher.hash(&secret("plum tart at noon")).unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert!(
            hasher
                .is_hash_of(&secret("plum tart at noon"), &phc)
                .unwrap()
        );
        assert!(
            !hasher
                .is_hash_of(&secret("plum tart at nooN"), &phc)
                .unwrap()
        );
        assert!(!hasher.is_outdated(&phc));
        let minimal = Hasher::new(PasswordCost::Minimal).unwrap();
        assert!(minimal.is_outdated(&phc));
    }

    #[test]
    fn two_hashes_of_one_password_differ() {
        let hasher = Hasher::new(PasswordCost::Minimal).unwrap();
        let [one, two] = [(); 2].map(|()| hasher.hash(&secret("plum tart at noon")).unwrap());
        assert_ne!(one, two);
    }

    #[test]
    fn an_endless_password_is_wrong_and_not_a_prefix_of_a_right_one() {
        let hasher = Hasher::new(PasswordCost::Minimal).unwrap();
        let longest = "\u{1F511}".repeat(PASSWORD_CHARS_MAX);
        let phc = hasher.hash(&secret(&longest)).unwrap();
        assert!(hasher.is_hash_of(&secret(&longest), &phc).unwrap());
        let longer = secret(&format!("{longest}x"));
        assert!(!hasher.is_hash_of(&longer, &phc).unwrap());
    }

    #[test]
    fn a_damaged_hash_is_an_error_and_not_a_wrong_password() {
        let hasher = Hasher::new(PasswordCost::Minimal).unwrap();
        assert!(matches!(
            hasher.is_hash_of(&secret("plum tart at noon"), "nothing"),
            Err(IdentityError::Damaged(_))
        ));
    }

    #[test]
    fn which_passwords_are_good_enough() {
        assert_eq!(strength("alice", "plum tart at"), Ok(()));
        assert_eq!(
            strength("alice", "plum tart a"),
            Err(WeakPassword::TooShort)
        );
        assert_eq!(
            strength("alice", "äöüäöüßäöüä"),
            Err(WeakPassword::TooShort)
        );
        let longest: String = "abcd".repeat(64);
        assert_eq!(strength("alice", &longest), Ok(()));
        assert_eq!(
            strength("alice", &format!("{longest}e")),
            Err(WeakPassword::TooLong)
        );
        for like in ["administrator.x", "Administrator.X", "administrator.x2026"] {
            assert_eq!(
                strength("administrator.x", like),
                Err(WeakPassword::LikeName),
                "{like}"
            );
        }
        assert_eq!(
            strength("al", "alalalalalalal1"),
            Err(WeakPassword::LikeName)
        );
        assert_eq!(strength("alice", "alice likes plum tart"), Ok(()));
        for common in [
            "Password1234",
            "aaaaaaaaaaaaaa",
            "121212121212",
            "1q2w3e4r5t6y",
        ] {
            assert_eq!(
                strength("alice", common),
                Err(WeakPassword::Common),
                "{common}"
            );
        }
    }

    #[test]
    fn the_list_holds_only_what_length_does_not_refuse() {
        for common in COMMON {
            assert!(common.chars().count() >= PASSWORD_CHARS_MIN, "{common}");
            assert_eq!(common, common.to_lowercase());
        }
    }
}
