//! Proves who someone is. Decides nothing: what a proven person may do is the authority's matter.
//!
//! TODO

mod accounts;
mod backoff;
mod error;
mod password;
mod store;
mod throttle;
pub mod totp;
mod vault;

pub use accounts::{AccountView, Accounts, TotpEnrollment, Verified};
pub use error::{IdentityError, Refused, SignInError, WeakPassword};
pub use password::{PASSWORD_CHARS_MAX, PASSWORD_CHARS_MIN, PasswordCost};
pub use totp::{TotpSecret, TotpSecretError};
pub use vault::VaultKey;
