//! What timestamp tokens kept with a log say: how much of it existed at which time.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use curfew_entry::Timestamp;
use curfew_ledger::{Checkpoint, Published, Receipt, VerifierKey};
use curfew_timestamp::{Roots, Token};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::report::{Fault, Outcome, Report};

/// The newest tokens that a report shows to people; programs are given all.
const SHOWN_MAX: usize = 5;

/// What timestamp tokens say.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Timestamps {
    /// Those that hold, oldest first.
    pub tokens: Vec<Stamp>,
    /// Those that do not.
    pub refused: Vec<Refused>,
}

/// The entries before `size` existed at `time`.
#[derive(Clone, Debug, Serialize)]
pub struct Stamp {
    /// Number of entries.
    pub size: u64,
    /// The time, by the clock of the timestamping authority.
    pub time: Timestamp,
    /// How far that clock may be off, in microseconds, if the authority says so.
    pub accuracy_us: Option<u64>,
    /// The subject of the authority's certificate.
    pub tsa: String,
}

impl fmt::Display for Stamp {
    /// The time, how exact it is, and by whom.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.time)?;
        if let Some(micros) = self.accuracy_us {
            let (seconds, millis) = (micros / 1_000_000, micros / 1_000 % 1_000);
            write!(f, " ± {seconds}.{millis:03} s")?;
        }
        write!(f, ", says {}", self.tsa)
    }
}

/// What the token says that a receipt carries over its checkpoint of `size` entries, or why it says
/// nothing. The checkpoint must have been verified.
pub(crate) fn of_receipt(receipt: &Receipt, size: u64, roots: &Roots) -> Result<Stamp, String> {
    let stamped = receipt.stamped();
    let stamped = stamped.ok_or("no timestamp token is in it")?;
    let token = curfew_timestamp::verify(&stamped.response, &stamped.checkpoint, None, roots);
    let token = token.map_err(|error| error.to_string())?;
    Ok(Stamp {
        size,
        time: Timestamp::from_micros(token.time_us),
        accuracy_us: token.accuracy_us,
        tsa: token.tsa,
    })
}

/// A token that does not hold.
#[derive(Clone, Debug, Serialize)]
pub struct Refused {
    /// Number of entries it is said to be over.
    pub size: u64,
    /// Why.
    pub detail: String,
}

impl fmt::Display for Timestamps {
    /// One line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tokens.is_empty() && self.refused.is_empty() {
            return writeln!(f, "timestamps  ✗ NONE");
        }
        let older = self.tokens.len().saturating_sub(SHOWN_MAX);
        for stamp in &self.tokens[older..] {
            let Some(last) = stamp.size.checked_sub(1) else {
                continue;
            };
            writeln!(
                f,
                "timestamps  ✓ everything up to entry {last} existed before {stamp}"
            )?;
        }
        if older > 0 {
            writeln!(f, "timestamps  ✓ and {older} older ones")?;
        }
        for refused in self.refused.iter().take(SHOWN_MAX) {
            let Refused { size, detail } = refused;
            writeln!(f, "timestamps  ✗ timestamps/{size}.tsr: {detail}")?;
        }
        let more = self.refused.len().saturating_sub(SHOWN_MAX);
        if more > 0 {
            writeln!(f, "timestamps  ✗ and {more} more that do not hold")?;
        }
        Ok(())
    }
}

/// What one token comes to.
enum Judged {
    Holds(Stamp),
    Refused(String),
    /// It holds, and the log is not what it is over.
    Broken(String),
}

/// Adds to the report of a log what the tokens over its first `sizes` entries say, which
/// were listed before the log was read.
pub(crate) fn add(
    report: &mut Report,
    log: &Published,
    sizes: &[u64],
    roots: &Roots,
    keys: &[VerifierKey],
) {
    let mut timestamps = Timestamps::default();
    // What an entry tells of must be there, whether or not it was when they were listed.
    let told = report.noted.keys().copied();
    let all: BTreeSet<u64> = sizes.iter().copied().chain(told).collect();
    for size in all {
        let missing = if sizes.contains(&size) {
            "the checkpoint it is over is missing"
        } else {
            "an entry of the log tells of it, and it is missing"
        };
        match judge(report, log, (size, missing), roots, keys) {
            Judged::Holds(stamp) => timestamps.tokens.push(stamp),
            Judged::Refused(detail) => timestamps.refused.push(Refused { size, detail }),
            Judged::Broken(detail) => {
                report.outcome = Outcome::IntegrityBroken;
                let path =
                    Path::new(&report.directory).join(format!("timestamps/{size}.checkpoint"));
                report.faults.push(Fault {
                    file: path.display().to_string(),
                    offset: None,
                    index: Some(size),
                    detail,
                });
            }
        }
    }
    let holds = timestamps.refused.is_empty() && !timestamps.tokens.is_empty();
    if !holds && report.outcome == Outcome::Proven {
        report.outcome = Outcome::Untimestamped;
    }
    report.timestamps = Some(timestamps);
}

fn judge(
    report: &Report,
    log: &Published,
    (size, missing): (u64, &str),
    roots: &Roots,
    keys: &[VerifierKey],
) -> Judged {
    let stamped = match log.timestamp(size) {
        Ok(Some(stamped)) => stamped,
        Ok(None) => return Judged::Refused(missing.to_owned()),
        Err(error) => return Judged::Refused(error.to_string()),
    };
    let digest = Sha256::digest(&stamped.response);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    if report.noted.get(&size).is_some_and(|told| *told != digest) {
        return Judged::Refused("it is not the one that an entry of the log tells of".to_owned());
    }
    // Whoever asked had checked the nonce; it proves nothing to others.
    let token = curfew_timestamp::verify(&stamped.response, &stamped.checkpoint, None, roots);
    let Token {
        time_us,
        accuracy_us,
        tsa,
    } = match token {
        Ok(token) => token,
        Err(error) => return Judged::Refused(error.to_string()),
    };
    let verified = match &report.chain {
        Some(chain) => chain.verify(&stamped.checkpoint),
        None => Checkpoint::verify(&stamped.checkpoint, keys),
    };
    let checkpoint = match verified {
        Ok(checkpoint) if checkpoint.size == size => checkpoint,
        Ok(checkpoint) => {
            let detail = format!("it is over {} entries", checkpoint.size);
            return Judged::Refused(detail);
        }
        Err(error) => return Judged::Refused(format!("the checkpoint it is over: {error}")),
    };
    // Of a log that is broken, its own faults say more.
    let signed = report.signed.unwrap_or(u64::MAX);
    if size > signed {
        let detail = format!(
            "{size} entries existed at the time of its token, and {signed} are signed here: the \
             end was cut off"
        );
        return Judged::Broken(detail);
    }
    match log.root(size) {
        Ok(root) if root == checkpoint.root => Judged::Holds(Stamp {
            size,
            time: Timestamp::from_micros(time_us),
            accuracy_us,
            tsa,
        }),
        Ok(_) => {
            Judged::Broken("another history existed at the time of its token than is here".into())
        }
        Err(error) => Judged::Broken(error.to_string()),
    }
}
