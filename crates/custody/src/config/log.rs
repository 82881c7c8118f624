//! `[log]`: keeping the ledger, and who else speaks for it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use curfew_entry::Field;
use http::Uri;
use serde::Deserialize;

use curfew_gate::settings::{Complaint, Duration};

/// Keeping the ledger.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// The socket of `curfew signer serve`, which has the signing key in place of the data folder.
    /// Relative to the configuration file.
    pub signer: Option<PathBuf>,
    /// How long no checkpoint may have been signed before `log.signing_failed` is recorded.
    pub signing_alarm_after: Duration,
    /// Who cosigns the ledger's checkpoints.
    pub witness: Option<Witnesses>,
    /// Who says when the ledger's checkpoints existed.
    pub timestamp: Option<Timestamps>,
    /// The fields of actions whose values stand beside the log, encrypted, from where they can be
    /// erased; the log only commits to them.
    pub conceal: BTreeSet<Field>,
    /// How long entries are kept. Without it they are kept for ever.
    pub retention: Option<Retention>,
}

/// How long entries are kept.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// An entry stays at least this long.
    pub keep: Keep,
    /// Entries go although no archive has them.
    #[serde(default)]
    pub unarchived: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            signer: None,
            signing_alarm_after: alarm_after(),
            witness: None,
            timestamp: None,
            conceal: BTreeSet::new(),
            retention: None,
        }
    }
}

/// A time above zero and up to 100 years, written as `400d`, `26w`, `12h`. A day has 24 hours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Keep(pub std::time::Duration);

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let text = String::deserialize(deserializer)?;
        let parsed = text.parse::<jiff::Span>().ok();
        // Months and years have no length of their own.
        let days = jiff::SpanRelativeTo::days_are_24_hours();
        let signed = parsed.and_then(|span| span.to_duration(days).ok());
        let duration = signed.and_then(|signed| std::time::Duration::try_from(signed).ok());
        let fits = |duration: &std::time::Duration| {
            !duration.is_zero() && duration.as_secs() <= 100 * 366 * 86_400
        };
        duration.filter(fits).map(Self).ok_or_else(|| {
            D::Error::custom(format!(
                "`{text}` is not a time above zero and up to 100 years; write it in days, like 400d"
            ))
        })
    }
}

/// Who cosigns the ledger's checkpoints.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Witnesses {
    /// A file in the form of C2SP tlog-policy: the witnesses with their URLs, and how many of them
    /// are a quorum. Relative to the configuration file.
    pub policy: PathBuf,
    /// How long no quorum may have cosigned before `log.quorum_lost` is recorded.
    #[serde(default = "alarm_after")]
    pub alarm_after: Duration,
    /// How often a cosigned checkpoint is recorded as `log.witnessed`, at most.
    #[serde(default = "record_every")]
    pub record_every: Duration,
}

fn alarm_after() -> Duration {
    Duration(std::time::Duration::from_secs(60))
}

fn record_every() -> Duration {
    Duration(std::time::Duration::from_secs(600))
}

/// Who says when the ledger's checkpoints existed (RFC 3161).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timestamps {
    /// The timestamping authority's address, `http://…` or `https://…`. What it answers is signed.
    pub url: String,
    /// A PEM file with the certificate authorities that may vouch for it; none other may. Relative
    /// to the configuration file.
    pub ca: PathBuf,
    /// How long after one token the next is asked for, where the ledger has grown.
    #[serde(default = "interval")]
    pub interval: Duration,
    /// How long a question and its answer may take.
    #[serde(default = "timeout")]
    pub timeout: Duration,
    /// How long a token may have been wanted before `log.timestamps_stopped` is recorded.
    #[serde(default = "stamps_alarm_after")]
    pub alarm_after: Duration,
}

fn interval() -> Duration {
    Duration(std::time::Duration::from_secs(3_600))
}

fn timeout() -> Duration {
    Duration(std::time::Duration::from_secs(30))
}

fn stamps_alarm_after() -> Duration {
    Duration(std::time::Duration::from_secs(600))
}

impl Log {
    /// The files it names.
    pub fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let witness = self.witness.as_mut().map(|witness| &mut witness.policy);
        let timestamp = self.timestamp.as_mut().map(|timestamp| &mut timestamp.ca);
        let files = [self.signer.as_mut(), witness, timestamp];
        files.into_iter().flatten()
    }

    /// What is wrong with it.
    pub fn problem(&self) -> Option<Complaint<'_>> {
        let url = &self.timestamp.as_ref()?.url;
        let fits = url.parse::<Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
        });
        (!fits).then(|| {
            let problem = format!("`{url}` is no timestamping authority");
            let hint = "write it as http://tsa.example.com/tsr; what it answers is signed";
            (url.as_str(), problem, hint)
        })
    }
}
