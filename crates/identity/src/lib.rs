//! Proves who someone is. Decides nothing: what a proven person may do is the authority's matter.

mod accounts;
mod error;
pub mod totp;
mod vault;

pub use accounts::{AccountView, Accounts, PasswordCost, TotpEnrollment, Verified};
pub use error::{IdentityError, Refused, SignInError, WeakPassword};
pub use totp::TotpSecret;
pub use vault::VaultKey;

/// The fewest characters of a password.
pub const PASSWORD_CHARS_MIN: usize = 12;
/// The most characters of a password.
pub const PASSWORD_CHARS_MAX: usize = 256;
