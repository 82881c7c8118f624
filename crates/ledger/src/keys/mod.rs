//! Who signs, and whose signatures count.

pub mod cosignature;
pub mod keeper;
pub(crate) mod key;
pub(crate) mod key_chain;
pub mod key_file;
pub mod rotation;
pub mod signer;
pub mod trust;
pub mod witness;
pub(crate) mod witness_key;
