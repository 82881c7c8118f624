//! One pass over a ledger: the ledger crate checks hashes and signatures, the authority's auditor
//! judges each entry as it goes by.

use std::path::Path;
use std::sync::Arc;

use curfew_authority::{Auditor, Entry, Event, Finding, SessionId, Timestamp};
use curfew_ledger::verify::{Failure, FailureKind, Progress, Verify, Visitor, verify};
use curfew_ledger::{RealDisk, VerifierKey};

use crate::place::place_of;
use crate::report::{Fault, Found, Outcome, Report, Sessions};

/// Most findings kept: the first ones name the cause, the rest mostly follow from it.
pub const FINDINGS_MAX: usize = 100;

/// What to verify, and against what.
#[derive(Clone, Copy, Debug)]
pub struct Audit<'a> {
    /// The directory of the ledger.
    pub dir: &'a Path,
    /// Its verifier keys.
    pub keys: &'a [VerifierKey],
    /// A signed checkpoint from earlier or elsewhere that the log must continue.
    pub since: Option<&'a [u8]>,
}

/// Why an entry cannot be judged at all.
#[derive(Debug, thiserror::Error)]
#[error("not an entry that Curfew writes: {0}")]
pub struct Broken(#[from] curfew_authority::EntryError);

/// What is gathered while the entries go by.
struct Pass<'a> {
    dir: &'a Path,
    auditor: Auditor,
    progress: &'a mut dyn FnMut(Progress),
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    size: u64,
    actions: u64,
    sessions: Sessions,
    findings: Vec<Found>,
    findings_total: u64,
}

impl Visitor for Pass<'_> {
    fn entry(&mut self, index: u64, bytes: &[u8]) {
        self.size = index + 1;
        match Entry::from_bytes(bytes).map_err(Broken) {
            Ok(entry) => {
                self.count(&entry);
                for finding in self.auditor.check(index, &entry) {
                    self.add(finding, Some((entry.time, bytes)));
                }
            }
            Err(broken) => {
                let detail = broken.to_string();
                self.keep(index, "malformed_entry", None, detail, Some((None, bytes)));
            }
        }
    }

    fn progress(&mut self, progress: Progress) {
        (self.progress)(progress);
    }
}

impl Pass<'_> {
    fn count(&mut self, entry: &Entry) {
        self.first.get_or_insert(entry.time);
        self.last = Some(entry.time);
        if let Event::SessionStarted { .. } = &entry.event {
            self.sessions.started += 1;
        }
        if let Event::ActionAllowed { .. } = &entry.event {
            self.actions += 1;
        }
        if let Event::SessionEnded { late, .. } = &entry.event {
            self.sessions.ended += 1;
            let late = late.map(curfew_authority::Span::as_micros);
            self.sessions.late_us_max = self.sessions.late_us_max.max(late);
        }
    }

    /// What should be there by the time of the last entry and is not.
    fn finish(&mut self) {
        let last = self.last.unwrap_or_default();
        for finding in self.auditor.finish(last) {
            self.add(finding, None);
        }
        let live = self.auditor.authority().live().len();
        self.sessions.live = u64::try_from(live).unwrap_or(u64::MAX);
    }

    fn add(&mut self, finding: Finding, entry: Option<(Timestamp, &[u8])>) {
        let Finding {
            index,
            kind,
            session,
            detail,
        } = finding;
        let entry = entry.map(|(time, bytes)| (Some(time), bytes));
        self.keep(index, kind.as_str(), session, detail, entry);
    }

    fn keep(
        &mut self,
        index: u64,
        kind: &'static str,
        session: Option<SessionId>,
        detail: String,
        entry: Option<(Option<Timestamp>, &[u8])>,
    ) {
        self.findings_total += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Found {
                index,
                entry: entry
                    .map_or_else(|| "end of the log".to_owned(), |(_, bytes)| kind_of(bytes)),
                time: entry.and_then(|(time, _)| time),
                kind,
                session,
                detail,
                place: place_of(self.dir, index),
            });
        }
    }
}

/// The `kind` an entry gives itself, whatever else is wrong with it.
fn kind_of(bytes: &[u8]) -> String {
    serde_json::from_slice::<serde_json::Value>(bytes)
        .ok()
        .and_then(|value| value.get("kind")?.as_str().map(str::to_owned))
        .unwrap_or_else(|| "unknown".to_owned())
}

fn fault(failure: &Failure) -> Fault {
    Fault {
        file: failure.path.display().to_string(),
        offset: failure.offset,
        index: failure.index,
        detail: failure.kind.to_string(),
    }
}

/// Whether the log is not there, or the system does not let us read it, rather than being wrong.
fn is_unreadable(dir: &Path, failures: &[Failure]) -> bool {
    !dir.join("segments").is_dir()
        || failures
            .iter()
            .all(|failure| matches!(failure.kind, FailureKind::Unreadable(_)))
}

/// Verifies a ledger in one pass, in memory that does not grow with it beyond its live sessions.
pub fn audit(what: Audit<'_>, progress: &mut dyn FnMut(Progress)) -> Report {
    let mut pass = Pass {
        dir: what.dir,
        auditor: Auditor::default(),
        progress,
        first: None,
        last: None,
        size: 0,
        actions: 0,
        sessions: Sessions::default(),
        findings: Vec::new(),
        findings_total: 0,
    };
    let verified = verify(
        &Verify {
            dir: what.dir,
            keys: what.keys,
            remembered: what.since,
            disk: Arc::new(RealDisk),
        },
        &mut pass,
    );
    pass.finish();
    let mut report = Report {
        outcome: Outcome::Proven,
        directory: what.dir.display().to_string(),
        origin: what.keys.first().map(|key| key.name().to_owned()),
        size: pass.size,
        signed: None,
        root: None,
        checkpoints: 0,
        torn_bytes: None,
        first: pass.first,
        last: pass.last,
        sessions: pass.sessions,
        actions: pass.actions,
        faults: Vec::new(),
        findings: pass.findings,
        findings_total: pass.findings_total,
    };
    match verified {
        Ok(ledger) => {
            report.size = ledger.size;
            report.signed = Some(ledger.signed.size);
            report.root = ledger.signed.to_string().lines().nth(2).map(str::to_owned);
            report.origin = Some(ledger.signed.origin);
            report.checkpoints = ledger.checkpoints;
            report.torn_bytes = ledger.torn_tail.map(|tail| tail.len_bytes);
            if report.findings_total > 0 {
                report.outcome = Outcome::LegitimacyBroken;
            }
        }
        Err(failures) => {
            report.outcome = if is_unreadable(what.dir, &failures) {
                Outcome::Unreadable
            } else {
                Outcome::IntegrityBroken
            };
            report.faults = failures.iter().map(fault).collect();
        }
    }
    report
}
