//! What entries say of the log itself.

use serde::{Deserialize, Serialize};

use crate::time::{Span, Timestamp};

/// What a token says, and by what it is known again.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LogTimestamped {
    /// Number of entries that the checkpoint covers.
    pub size: u64,
    /// The subject of the authority's certificate.
    pub tsa: String,
    /// The time in the token, by the authority's clock.
    pub tsa_time: Timestamp,
    /// How far that clock may be off, in microseconds, if the authority says so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub accuracy_us: Option<u64>,
    /// Ledger time when it was asked. Absent where somebody else had asked before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub asked: Option<Timestamp>,
    /// Where its clock and ledger time contradict each other, by how much: the token's time minus
    /// ledger time, in microseconds, as far as neither the way there and back nor the clock's
    /// accuracy accounts for it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub off_us: Option<i64>,
    /// SHA-256 of the whole answer that is kept, in lower-case hexadecimal.
    pub digest: String,
    /// How the wall clock stood when it was kept, as far as the kernel knows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub wall: Option<WallClock>,
}

impl LogTimestamped {
    /// By how much the clocks contradict each other: the token's time lies outside the time between
    /// `asked` and `answered`, widened by the accuracy of the authority's clock and by the second
    /// that many authorities round to. Microseconds, token minus ledger time; `None` where they
    /// agree.
    pub fn off(
        tsa_time: Timestamp,
        accuracy_us: Option<u64>,
        asked: Timestamp,
        answered: Timestamp,
    ) -> Option<i64> {
        const ROUNDING_US: u64 = 1_000_000;
        let slack = accuracy_us.unwrap_or(0).saturating_add(ROUNDING_US);
        let told = tsa_time.as_micros();
        let signed = |micros: u64| i64::try_from(micros).unwrap_or(i64::MAX);
        let earliest = asked.as_micros().saturating_sub(slack);
        let latest = answered.as_micros().saturating_add(slack);
        if told < earliest {
            return Some(-signed(asked.as_micros().saturating_sub(told)));
        }
        (told > latest).then(|| signed(told.saturating_sub(answered.as_micros())))
    }
}

/// How the host's wall clock stands: what the kernel knows by whoever keeps it (adjtimex(2)).
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WallClock {
    /// It is kept in step with other clocks (not STA_UNSYNC).
    pub synced: bool,
    /// What is still to be corrected, in microseconds.
    pub offset_us: i64,
    /// How far it may be off at most, in microseconds.
    pub error_us: u64,
}

/// Which entries are given up, and what stands for them.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LogPruned {
    /// How many: the index of the first entry that is left.
    pub size: u64,
    /// SHA-256 of the file `horizon` that stands for them, in lower-case hexadecimal.
    pub digest: String,
    /// How long entries are kept, in microseconds: each of these was older.
    #[serde(rename = "keep_us")]
    pub keep: Span,
    /// A complete copy of them is in the log's archive.
    pub archived: bool,
}

/// Since when the log could not be archived, and why.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LogArchivingFailed {
    /// When the first try failed.
    pub since: Timestamp,
    /// Number of entries that the archive covered when it was last up to date, as far as that is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<u64>,
    /// What stood in the way the last time.
    pub cause: ArchivingFault,
}

/// Why the log could not be archived.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ArchivingFault {
    /// The store cannot be reached, or does not do what it is asked.
    Store,
    /// The log cannot be read.
    Log,
    /// Something else is in the archive under a name that is written once.
    OtherContent,
    /// What the archive lacks was given up, and is not in the log any more.
    Pruned,
    /// The archive covers entries that are not this log's first ones: it is another log's, or this is
    /// an older copy.
    OtherLog,
}

impl ArchivingFault {
    /// The word in the entry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Log => "log",
            Self::OtherContent => "other_content",
            Self::Pruned => "pruned",
            Self::OtherLog => "other_log",
        }
    }
}

/// Why no checkpoint could be signed and published.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SigningFault {
    /// The signer cannot be reached.
    SignerAway,
    /// The signer answers, and will not sign.
    SignerRefused,
    /// What the signer gave is not a signature by the log's key.
    SignerWrong,
    /// The guard does not take the checkpoint.
    Guard,
    /// A file cannot be read or written.
    Disk,
    /// What is on the disk is not what was written there, or this program is at fault.
    Damaged,
}

impl SigningFault {
    /// The word in the entry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SignerAway => "signer_away",
            Self::SignerRefused => "signer_refused",
            Self::SignerWrong => "signer_wrong",
            Self::Guard => "guard",
            Self::Disk => "disk",
            Self::Damaged => "damaged",
        }
    }
}

/// Whether a field has nothing to say.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_agree_within_the_way_there_and_back_and_what_is_rounded() {
        let at = |seconds: u64| Timestamp::from_micros(seconds * 1_000_000);
        let off = |told, accuracy| LogTimestamped::off(at(told), accuracy, at(100), at(103));
        for told in 99..=104 {
            assert_eq!(off(told, None), None, "{told}");
        }
        assert_eq!(off(98, None), Some(-2_000_000));
        assert_eq!(off(105, None), Some(2_000_000));
        assert_eq!(off(105, Some(1_000_000)), None);
        assert_eq!(off(0, Some(u64::MAX)), None);
    }
}
