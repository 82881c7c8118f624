//! Who signs for a log, and whose signatures on it count.
//!
//! | module | part |
//! |---|---|
//! | [`signer`] | the trait by which the writer asks for signatures, whoever gives them |
//! | `key` | the Ed25519 key of a log, in a file of its owner's |
//! | [`key_file`] | that file while the key is rotated: no moment without a key that opens the log |
//! | [`guarded_signer`] | a key apart from the log, that signs only what extends what it signed before |
//! | `rotation` | the statement, signed by both keys, that one key follows another |
//! | `key_chain` | which key signs at which size, as the statements tell it |
//! | [`cosignature`], `witness_key` | C2SP cosignatures and the keys that make them |
//! | [`witness`] | a party that cosigns checkpoints of other logs, by C2SP tlog-witness |
//! | [`trust`] | a policy: which log keys and how many witnesses a reader asks for |
//!
//! A log is signed by one key at a time. [`signer::Signer`] hides where it is: in this process
//! ([`crate::LogKey`], [`crate::KeyFile`]) or behind [`guarded_signer::GuardedSigner`] in another. Rotations lead from
//! one key to the next, and [`crate::KeyChain`] follows them, so that a verifier who knows any one of
//! the keys knows the others. Witnesses sign beside the log, by keys of their own.
//!
//! Builds on the disk and on [`crate::note`] and [`crate::merkle`]. Nothing here reads entries.

pub mod cosignature;
pub mod guarded_signer;
pub(crate) mod key;
pub(crate) mod key_chain;
pub mod key_file;
pub(crate) mod rotation;
pub mod signer;
pub mod trust;
pub mod witness;
pub(crate) mod witness_key;
