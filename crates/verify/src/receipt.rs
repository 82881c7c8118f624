//! Proving one entry by its receipt, without the log.

use std::fmt;

use curfew_ledger::verify::receipt::ReceiptError;
use curfew_ledger::{Reached, Receipt, TrustPolicy, VerifierKey};
use curfew_timestamp::Roots;
use serde::Serialize;

use crate::report::Outcome;
use crate::timestamps::{self, Stamp};
use crate::witnesses::Witnesses;

/// What a receipt was found to prove.
#[derive(Clone, Debug, Serialize)]
pub struct ReceiptReport {
    /// What it comes to.
    pub outcome: Outcome,
    /// The file.
    pub file: String,
    /// The log's own name, where it is signed for.
    pub origin: Option<String>,
    /// The entry's index in the log.
    pub index: Option<u64>,
    /// How far it is shown to have come: `signed`, `witnessed` by the policy, or `timestamped` by the
    /// certificates of timestamping authorities.
    pub reached: Option<&'static str>,
    /// Number of entries in the checkpoint that covers it.
    pub size: Option<u64>,
    /// The entry, byte for byte.
    pub entry: Option<String>,
    /// What witnesses say of the checkpoint, where a policy was given.
    pub witnesses: Option<Witnesses>,
    /// What a timestamping authority says of the checkpoint, where certificates were given and it
    /// holds.
    pub timestamp: Option<Stamp>,
    /// Why none holds, where certificates were given.
    pub untimestamped: Option<String>,
    /// Why it proves nothing.
    pub problem: Option<String>,
}

/// What else a receipt must show.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demands<'a> {
    /// A quorum of these witnesses.
    pub policy: Option<&'a TrustPolicy>,
    /// A timestamp by an authority that these certificates vouch for.
    pub roots: Option<&'a Roots>,
}

/// Checks a receipt against the keys of its log, and what else is demanded.
pub fn check(
    file: &str,
    bytes: &[u8],
    keys: &[VerifierKey],
    demands: Demands<'_>,
) -> ReceiptReport {
    let mut report = ReceiptReport {
        outcome: Outcome::IntegrityBroken,
        file: file.to_owned(),
        origin: None,
        index: None,
        reached: None,
        size: None,
        entry: None,
        witnesses: None,
        timestamp: None,
        untimestamped: None,
        problem: None,
    };
    if let Err(error) = prove(&mut report, bytes, keys, demands) {
        report.problem = Some(error.to_string());
    }
    report
}

fn prove(
    report: &mut ReceiptReport,
    bytes: &[u8],
    keys: &[VerifierKey],
    demands: Demands<'_>,
) -> Result<(), ReceiptError> {
    let receipt = Receipt::parse(bytes)?;
    let checkpoint = receipt.verify(keys)?;
    let mut reached = Reached::Signed;
    let mut outcome = Outcome::Proven;
    if let Some(policy) = demands.policy {
        let judged = policy.judge(receipt.checkpoint.as_bytes(), keys)?;
        if judged.met {
            reached = Reached::Witnessed;
        } else {
            outcome = Outcome::Unwitnessed;
        }
        report.witnesses = Some(Witnesses::of(judged));
    }
    if let Some(roots) = demands.roots {
        match timestamps::of_receipt(&receipt, checkpoint.size, roots) {
            Ok(stamp) => {
                reached = Reached::Timestamped;
                report.timestamp = Some(stamp);
            }
            Err(problem) => {
                report.untimestamped = Some(problem);
                if outcome == Outcome::Proven {
                    outcome = Outcome::Untimestamped;
                }
            }
        }
    }
    report.outcome = outcome;
    report.reached = Some(reached.as_str());
    report.origin = Some(checkpoint.origin);
    report.size = Some(checkpoint.size);
    report.index = Some(receipt.index);
    let entry = receipt.entry.unwrap_or_default();
    report.entry = Some(String::from_utf8_lossy(&entry).into_owned());
    Ok(())
}

impl fmt::Display for ReceiptReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "receipt     {}", self.file)?;
        if let (Some(origin), Some(index), Some(reached), Some(size)) =
            (&self.origin, self.index, self.reached, self.size)
        {
            writeln!(f, "origin      {origin}")?;
            writeln!(f, "entry       {index}, {reached} with {size} entries")?;
        }
        if let Some(witnesses) = &self.witnesses {
            writeln!(f, "witnesses   {witnesses}")?;
        }
        if let Some(stamp) = &self.timestamp {
            writeln!(f, "timestamp   ✓ existed before {stamp}")?;
        }
        if let Some(problem) = &self.untimestamped {
            writeln!(f, "timestamp   ✗ NONE: {problem}")?;
        }
        match (&self.problem, &self.entry) {
            (Some(problem), _) => write!(f, "proof       ✗ NONE: {problem}"),
            (None, Some(entry)) => write!(f, "proof       ✓ of this entry\n\n{entry}"),
            (None, None) => Ok(()),
        }
    }
}
