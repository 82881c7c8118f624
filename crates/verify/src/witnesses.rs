//! What witnesses say of a log or a receipt, and whether they are enough.

use std::fmt;
use std::path::Path;

use curfew_entry::Timestamp;
use curfew_ledger::trust::{Judged, TrustPolicy};
use curfew_ledger::{Published, VerifierKey};
use serde::Serialize;

use crate::report::{Fault, Outcome, Report};

/// What witnesses say, judged by a policy.
#[derive(Clone, Debug, Serialize)]
pub struct Witnesses {
    /// Those who have cosigned are a quorum.
    pub met: bool,
    /// Number of entries in the checkpoint they have cosigned; none where there is no such checkpoint.
    pub size: Option<u64>,
    /// Who has cosigned it.
    pub cosigned: Vec<Cosigned>,
    /// Who has not.
    pub missing: Vec<String>,
}

/// One who has cosigned.
#[derive(Clone, Debug, Serialize)]
pub struct Cosigned {
    /// Its name in the policy.
    pub witness: String,
    /// When, by its own clock.
    pub time: Timestamp,
}

impl Witnesses {
    pub(crate) fn of(judged: Judged) -> Self {
        let cosigned = judged.cosigned.into_iter().map(|cosigned| Cosigned {
            witness: cosigned.witness,
            time: Timestamp::from_micros(cosigned.seconds.saturating_mul(1_000_000)),
        });
        Self {
            met: judged.met,
            size: Some(judged.checkpoint.size),
            cosigned: cosigned.collect(),
            missing: judged.missing,
        }
    }

    fn nobody(policy: &TrustPolicy) -> Self {
        let names = policy.witnesses().iter().map(|w| w.name.clone());
        Self {
            met: policy.is_met(&[].into()),
            size: None,
            cosigned: Vec::new(),
            missing: names.collect(),
        }
    }
}

impl fmt::Display for Witnesses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.met {
            "✓ quorum"
        } else {
            "✗ NO QUORUM"
        })?;
        if let Some(size) = self.size {
            write!(f, ", {size} entries cosigned")?;
        }
        for (at, Cosigned { witness, time }) in self.cosigned.iter().enumerate() {
            let by = if at == 0 { " by" } else { "," };
            write!(f, "{by} {witness} ({time})")?;
        }
        if !self.missing.is_empty() {
            write!(f, "; missing: {}", self.missing.join(", "))?;
        }
        Ok(())
    }
}

/// Adds to the report of a log what witnesses say by the checkpoint `note`, which was read
/// from there before the log was.
pub(crate) fn add(
    report: &mut Report,
    log: &Published,
    note: Option<&[u8]>,
    policy: &TrustPolicy,
    keys: &[VerifierKey],
) {
    let Some(note) = note else {
        conclude(report, Witnesses::nobody(policy));
        return;
    };
    // The logs that a policy names stand for the keys that theirs were replaced by, too.
    let chain = report.chain.as_ref().filter(|chain| {
        let mut logs = policy.logs().iter().peekable();
        logs.peek().is_none() || logs.any(|log| chain.keys().contains(&log.key))
    });
    let judged = match chain {
        Some(chain) => chain
            .verify(note)
            .and_then(|checkpoint| policy.judge_signed(note, checkpoint)),
        None => policy.judge(note, keys),
    };
    match judged {
        Ok(judged) => {
            let problem = whole(report, log, &judged);
            let size = judged.checkpoint.size;
            conclude(report, Witnesses::of(judged));
            if let Some(problem) = problem {
                broken(report, Some(size), problem);
            }
        }
        Err(error) => {
            conclude(report, Witnesses::nobody(policy));
            broken(report, None, error.to_string());
        }
    }
}

fn conclude(report: &mut Report, witnesses: Witnesses) {
    if !witnesses.met && report.outcome == Outcome::Proven {
        report.outcome = Outcome::Unwitnessed;
    }
    report.witnesses = Some(witnesses);
}

fn broken(report: &mut Report, index: Option<u64>, detail: String) {
    report.outcome = Outcome::IntegrityBroken;
    report.faults.push(Fault {
        file: Path::new(&report.directory)
            .join("witnessed")
            .display()
            .to_string(),
        offset: None,
        index,
        detail,
    });
}

/// What is wrong between the log, which was found whole, and what was cosigned of it.
fn whole(report: &Report, log: &Published, judged: &Judged) -> Option<String> {
    // Of a log that is broken, its own faults say more.
    let signed = report.signed?;
    let checkpoint = &judged.checkpoint;
    if checkpoint.size > signed {
        return Some(format!(
            "{} entries were cosigned, and {signed} are signed here: the end was cut off",
            checkpoint.size
        ));
    }
    match log.root(checkpoint.size) {
        Ok(root) if root == checkpoint.root => None,
        Ok(_) => Some("another history was cosigned than is here".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}
