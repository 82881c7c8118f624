//! Checked names and identifiers. Each has a private field and one way in, so that a value of the
//! type is a value that passed its check.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not an identifier of the wanted kind. Safe to show to a client.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{kind} must be {rule}")]
pub struct IdError {
    kind: &'static str,
    rule: &'static str,
}

fn is_name(text: &str, extra: &[u8]) -> bool {
    (1..=NAME_CHARS_MAX).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || extra.contains(&byte))
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The longest name of a subject, role, resource, environment or rule, in bytes.
const NAME_CHARS_MAX: usize = 64;

/// Reads an identifier from a text without copying it first.
struct Text<T>(PhantomData<T>);

impl<T: FromStr<Err = IdError>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an identifier")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// The forms that every identifier has, by way of its check and its text.
macro_rules! forms {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Text(PhantomData))
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

/// An identifier that is a text.
macro_rules! identifier {
    ($(#[$meta:meta])* $name:ident, $kind:literal, $rule:literal, $check:expr) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(Box<str>);

        impl $name {
            /// The text of the identifier.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(IdError { kind: $kind, rule: $rule })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        forms!($name);
    };
}

/// An identifier that is 96 random bits, held as the number: sessions are looked up several times
/// for each entry. Numbers and texts have the same order.
macro_rules! numbered {
    ($(#[$meta:meta])* $name:ident, $kind:literal, $rule:literal, $prefix:literal) => {
        $(#[$meta])*
        #[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(u128);

        impl $name {
            /// The identifier made of these random bytes.
            pub fn from_random(bytes: [u8; 12]) -> Self {
                let number = bytes.iter().fold(0, |sum, byte| sum << 8 | u128::from(*byte));
                Self(number)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let digits = text.strip_prefix($prefix);
                let number = digits.and_then(number).map(Self);
                number.ok_or(IdError { kind: $kind, rule: $rule })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{:024x}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        forms!($name);
    };
}

/// What each byte is worth as a lower-case hexadecimal digit; [`NO_DIGIT`] for others.
///
/// The digits are random, so that asking of each whether it is a letter is slow: half the time a
/// processor guesses wrong.
const DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        digits[b"0123456789abcdef"[value as usize] as usize] = value;
        value += 1;
    }
    digits
};

/// More than any digit is worth, in bits that none has.
const NO_DIGIT: u8 = 0x80;

/// The number in 24 lower-case hexadecimal digits.
fn number(digits: &str) -> Option<u128> {
    let digits: &[u8; 24] = digits.as_bytes().try_into().ok()?;
    let mut wrong = 0;
    let mut sum = |digits: &[u8]| {
        digits.iter().fold(0_u64, |sum, digit| {
            let value = DIGITS.get(usize::from(*digit)).copied().unwrap_or(NO_DIGIT);
            wrong |= value;
            sum << 4 | u64::from(value & 0x0f)
        })
    };
    let (high, low) = digits.split_at(8);
    let (high, low) = (sum(high), sum(low));
    (wrong < NO_DIGIT).then_some(u128::from(high) << 64 | u128::from(low))
}

identifier!(
    /// The name of a person or program, as it signs in.
    SubjectName,
    "a subject name",
    "1 to 64 letters, digits, '.', '_', '-' or '@', starting with a letter or digit",
    |text| is_name(text, b"._-@")
);
identifier!(
    /// The name of a role, as policy and accounts use it.
    RoleName,
    "a role name",
    "1 to 64 letters, digits, '_' or '-', starting with a letter or digit",
    |text| is_name(text, b"_-")
);
identifier!(
    /// The name of a resource: a web app, an API, a database.
    ResourceName,
    "a resource name",
    "1 to 64 letters, digits, '_' or '-', starting with a letter or digit",
    |text| is_name(text, b"_-")
);
identifier!(
    /// The name of an environment, such as `production`.
    EnvironmentName,
    "an environment name",
    "1 to 64 letters, digits, '_' or '-', starting with a letter or digit",
    |text| is_name(text, b"_-")
);
identifier!(
    /// The `@id` of a policy rule.
    RuleId,
    "a rule id",
    "1 to 64 letters, digits, '.', '_' or '-', starting with a letter or digit",
    |text| is_name(text, b"._-")
);
numbered!(
    /// The public identifier of a session. It names a session in the log and opens nothing.
    SessionId,
    "a session id",
    "'s_' and 24 lower-case hexadecimal digits",
    "s_"
);
numbered!(
    /// The public identifier of one credential of a session. It opens nothing.
    CredentialId,
    "a credential id",
    "'c_' and 24 lower-case hexadecimal digits",
    "c_"
);
numbered!(
    /// The identifier of one erasure.
    ErasureId,
    "an erasure id",
    "'e_' and 24 lower-case hexadecimal digits",
    "e_"
);
identifier!(
    /// SHA-256 of a credential's secret, in lower-case hexadecimal. The secret has at least 128
    /// bits of entropy, so the hash reveals nothing and may stand in the log.
    CredentialHash,
    "a credential hash",
    "64 lower-case hexadecimal digits",
    |text| is_hex(text, 64)
);
identifier!(
    /// SHA-256 of a policy's text, in lower-case hexadecimal.
    PolicyDigest,
    "a policy digest",
    "64 lower-case hexadecimal digits",
    |text| is_hex(text, 64)
);

identifier!(
    /// SHA-256 of a salted value, in lower-case hexadecimal.
    ValueDigest,
    "a commitment",
    "64 lower-case hexadecimal digits",
    |text| is_hex(text, 64)
);

fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

impl SessionId {
    /// The first of its bytes.
    pub fn first_byte(&self) -> u8 {
        // Its 96 bits are the last of these sixteen bytes.
        self.0.to_be_bytes()[4]
    }
}

impl ResourceName {
    /// The gateway itself.
    pub fn gateway() -> Self {
        Self(crate::resource::Resource::GATEWAY.into())
    }
}

impl EnvironmentName {
    /// The environment of the gateway itself, where none is configured.
    pub fn gateway() -> Self {
        Self(crate::resource::Resource::GATEWAY.into())
    }
}

impl CredentialHash {
    /// The hash with these bytes, SHA-256 of the secret.
    pub fn from_sha256(bytes: [u8; 32]) -> Self {
        Self(hex(&bytes).into())
    }
}

impl PolicyDigest {
    /// The digest with these bytes, SHA-256 of the policy's text.
    pub fn from_sha256(bytes: [u8; 32]) -> Self {
        Self(hex(&bytes).into())
    }
}

impl ValueDigest {
    /// The digest with these bytes.
    pub fn from_sha256(bytes: [u8; 32]) -> Self {
        Self(hex(&bytes).into())
    }
}
