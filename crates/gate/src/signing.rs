//! Whether checkpoints are signed.

use curfew_entry::SigningFault;
use curfew_ledger::{PublishError, ReadError, SignError};

/// How signing stands.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Signing {
    /// Number of entries in the newest checkpoint that is signed and published.
    pub size: u64,
    /// What came of the last try; `None` before the first since the start.
    pub last: Option<Result<(), SigningFault>>,
}

/// What stands in the way.
pub fn fault(error: &PublishError) -> SigningFault {
    match error {
        PublishError::Sign(SignError::Unreachable(_)) => SigningFault::SignerAway,
        PublishError::Sign(SignError::Refused(_)) => SigningFault::SignerRefused,
        PublishError::Guard(_) => SigningFault::Guard,
        PublishError::File(_)
        | PublishError::Read(ReadError::File(_))
        | PublishError::Sign(SignError::Proof(ReadError::File(_))) => SigningFault::Disk,
        PublishError::Read(_)
        | PublishError::Root { .. }
        | PublishError::ThreadEnded
        | PublishError::Sign(SignError::Proof(_)) => SigningFault::Damaged,
        // The type is open to what comes; so far this is a wrong signature alone.
        PublishError::Sign(_) => SigningFault::SignerWrong,
    }
}
