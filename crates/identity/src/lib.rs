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
//!    that costs something, and what it refuses counts against no account. A browser in which the
//!    account was signed in to before needs none: whoever guesses at the same address, behind the
//!    same router or load balancer, does not keep its owner waiting.
//! 2. **The account** may have to wait: after 5 failures in a row 1 s, doubling with each further
//!    failure up to 15 minutes.
//! 3. **All addresses together** have a token bucket.
//! 4. **A hash** needs a turn: as many run as there are cores, a few may queue, the rest are told
//!    to come back. This bounds the memory (19 MiB each) and the CPU that strangers can take.
//! 5. **Both factors are judged**, always both, and a verdict is reached in one write transaction:
//!    two attempts with one code cannot both find it fresh, and of many guesses made at once those
//!    that find the account waiting by then are not told whether they were right.
//!
//! What the limits refuse is neither looked at nor counted as a failure. Neither is a code that was
//! right and has been used, beside the right password: that is a form sent twice, or one code in two
//! places, and no guess.
//!
//! # What a stranger can learn
//!
//! Every refusal has one text ([`Refused::client_text`]), but for a used code beside the right
//! password, which only somebody has who had both. A name that is nobody's is held to a decoy: the
//! same look-ups, a hash of the same cost, a sealed secret, the same write, and the same waits, which
//! survive a restart. What an account knows of its owner makes no difference to anybody else: it
//! knows browsers by a secret they hold, not addresses, which others share. Two limits to this:
//! failures of nobody's names are kept in 65,536 slots, so that an hour of trying names at the highest
//! rate can make one of them be forgotten early; and an account whose hash was made at another cost
//! answers in another time until its next sign-in.
//!
//! # Keeping the owner out
//!
//! A limit on failures is also a weapon: whoever fails on purpose makes the owner wait. So:
//!
//! - Waits end after 15 minutes, and nothing but the next rule outlasts them.
//! - An account remembers the last eight browsers in which it was signed in to ([`Browser`], after
//!   the device cookies of OWASP). Attempts from there are counted and made to wait by themselves
//!   (the *near* lane), need no token of their address, have their own share of the bucket of step 3
//!   and the rear half of the queue. Everybody else (the *far* lane) can make the owner wait only in
//!   browsers that are new.
//! - After 50 failures in a row a lane is locked: NIST SP 800-63B-4 section 3.2.2 demands that an
//!   authenticator be disabled after at most 100, which are those of both lanes. With the waits it
//!   takes an attacker 9 hours at least (1 + 2 + … + 512 s, then 35 times 15 minutes). A locked far
//!   lane leaves known browsers as they are, and a sign-in there unlocks it, as a password does that
//!   an administrator sets. No automatic rule takes an account out of use.
//! - The address buckets come first, so that one host cannot do this to many accounts at once, and
//!   a bucket that is full of one attacker's attempts is that attacker's own.
//!
//! Attempts that succeed are given back to the buckets: an office behind one address does not run
//! dry when its day begins.

mod accounts;
mod backoff;
mod browser;
mod error;
mod password;
pub mod rate;
mod store;
mod throttle;
pub mod totp;
mod vault;

pub use accounts::{AccountView, Accounts, Origin, TotpEnrollment, Verified};
pub use browser::Browser;
pub use error::{IdentityError, Refused, SignInError, WeakPassword};
pub use password::{PASSWORD_CHARS_MAX, PASSWORD_CHARS_MIN, PasswordCost};
pub use totp::{TotpSecret, TotpSecretError};
pub use vault::VaultKey;
