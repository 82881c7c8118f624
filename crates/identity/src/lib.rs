//! Proves who someone is. Decides nothing: what a proven person may do is the authority's matter.
//!
//! Local accounts live in one file ([`Accounts`]). Signing in always takes a password and a
//! one-time code; nothing here signs anybody in with less. All calls block.
//!
//! # What is at rest
//!
//! Passwords as argon2id hashes. TOTP secrets sealed under a key that is not in the file, each
//! bound to its account's name. The file is its owner's only. Whoever steals it alone can guess
//! passwords at the price of their hashes and gets no codes. Names that are nobody's are kept as
//! keyed pseudonyms only: such a name may be a password typed into the wrong box, and is not told
//! to the log either.
//!
//! # One attempt, in order
//!
//! 1. **The address** has a token bucket (an IPv6 address counts as its /64). It comes before all
//!    else, so that what it refuses costs nothing and counts against no account.
//! 2. **The account** may have to wait: after 5 failures in a row 1 s, doubling with each further
//!    failure up to 15 minutes.
//! 3. **All addresses together** have a token bucket.
//! 4. **A hash** needs a turn: as many run as there are cores, a few may queue, the rest are told
//!    to come back. This bounds the memory (19 MiB each) and the CPU that strangers can take.
//! 5. **Both factors are judged**, always both, and a verdict is reached in one write transaction:
//!    two attempts with one code cannot both find it fresh, and of many guesses made at once those
//!    that find the account waiting by then are not told whether they were right.
//!
//! What the limits refuse is neither looked at nor counted as a failure.
//!
//! # What a stranger can learn
//!
//! Every refusal has one text ([`Refused::client_text`]). A name that is nobody's is held to a
//! decoy: the same look-ups, a hash of the same cost, a sealed secret, the same write, and the same
//! waits, which survive a restart. Two limits to this: failures of nobody's names are kept in 4,096
//! slots, so that a flood of names can make one of them be forgotten early; and an account whose
//! hash was made at another cost answers in another time until its next sign-in.
//!
//! # Keeping the owner out
//!
//! A limit on failures is also a weapon: whoever fails on purpose makes the owner wait. So:
//!
//! - Waits end after 15 minutes, and nothing but the next rule outlasts them.
//! - An account remembers the last four networks it was signed in from. Attempts from there are
//!   counted and made to wait by themselves (the *near* lane), have their own share of the bucket
//!   of step 3 and the rear half of the queue. An attacker elsewhere (the *far* lane) can make
//!   the owner wait only where the owner never was.
//! - After 100 failures in a row, both lanes together, the password is locked until an
//!   administrator sets it anew: NIST SP 800-63B-4 section 3.2.2 demands this. With the waits it
//!   takes an attacker 21 hours at least (1 + 2 + … + 512 s, then 85 times 15 minutes) from one
//!   lane, all of it in the log, and each sign-in of the owner starts it over. It is not for
//!   ever, and no other automatic rule takes an account out of use.
//! - The address buckets come first, so that one host cannot do this to many accounts at once, and
//!   a bucket that is full of one attacker's attempts is that attacker's own.
//!
//! Attempts that succeed are given back to the buckets: an office behind one address does not run
//! dry when its day begins.

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
