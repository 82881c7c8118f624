//! One pass over a ledger on two cores: the ledger crate checks hashes and signatures, and beside
//! it the authority's auditor judges each entry.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use curfew_authority::{Auditor, Finding};
use curfew_entry::{Entry, Event, SessionId, Timestamp};
use curfew_ledger::verify::{
    self as ledger, Failure, FailureKind, Progress, Verify, Visitor, verify,
};
use curfew_ledger::{Disk, PrunePoint, VerifierKey};

use crate::place::place_of;
use crate::report::{Fault, Found, Outcome, Report};
use crate::rotations::KeyChange;
use crate::state::{Kept, State, Totals};

/// Most findings kept: the first ones name the cause, the rest mostly follow from it.
pub const FINDINGS_MAX: usize = 100;

/// Bytes of entries handed from one core to the other at once: some 200 entries, so that the
/// hand-over costs nothing beside them.
const BATCH_BYTES: usize = 64 * 1024;

/// Batches on their way: 32 × 64 KiB are 2 MiB, enough to even out a slow read.
const BATCHES_MAX: usize = 32;

/// The kind of entry that holds a statement on a rotation of the key.
const ROTATED: &[u8] = b"\"kind\":\"log.key_rotated\"";

/// Where the kind of an entry stands: after its version and its time, which have one form.
const KIND_AT: usize = r#"{"v":1,"time":"2026-11-23T16:40:00.123456Z","#.len();

/// What to verify, and against what.
#[derive(Clone, Debug)]
pub struct Audit<'a> {
    /// The directory of the ledger.
    pub dir: &'a Path,
    /// Where that is.
    pub disk: Arc<dyn Disk>,
    /// Its verifier keys.
    pub keys: &'a [VerifierKey],
    /// A signed checkpoint from earlier or elsewhere that the log must continue.
    pub since: Option<&'a [u8]>,
    /// What an earlier verification found out: only what is new since is looked at.
    pub state: Option<&'a State>,
}

/// Why an entry cannot be judged at all.
#[derive(Debug, thiserror::Error)]
#[error("not an entry that Curfew writes: {0}")]
pub struct Broken(#[from] curfew_entry::EntryError);

/// What the pass begins with.
#[derive(Default)]
struct Start {
    auditor: Auditor,
    totals: Totals,
    size: u64,
    /// The digest of what stands for pruned entries, where the auditor comes from there: an entry
    /// must name it.
    unproven: Option<String>,
    /// How much of it an earlier verification had found out.
    earlier: Option<u64>,
}

impl Start {
    /// Where the ledger's own part begins as well: at the first entry, at the horizon, or where an
    /// earlier verification had come to.
    fn of(what: &Audit<'_>) -> Result<Self, Fault> {
        // A file that cannot be read is found by whoever proves integrity.
        let horizon = PrunePoint::read(&*what.disk, what.dir).ok().flatten();
        let pruned = horizon.as_ref().map_or(0, PrunePoint::size);
        // What it was read from is known to be good.
        let known = what.state.filter(|state| state.size() >= pruned);
        if let Some((state, auditor)) = known.and_then(|state| Some((state, state.auditor().ok()?)))
        {
            return Ok(Self {
                auditor,
                totals: state.kept.totals,
                size: state.size(),
                unproven: None,
                earlier: Some(state.size()),
            });
        }
        let Some(horizon) = horizon else {
            return Ok(Self::default());
        };
        let auditor = Auditor::inherit(horizon.state()).map_err(|error| Fault {
            file: what.dir.join("horizon").display().to_string(),
            offset: None,
            index: Some(pruned),
            detail: error.to_string(),
        })?;
        Ok(Self {
            auditor,
            size: pruned,
            unproven: Some(horizon.digest()),
            ..Self::default()
        })
    }
}

/// What is gathered while the entries go by.
struct Pass<'a> {
    dir: &'a Path,
    auditor: Auditor,
    totals: Totals,
    size: u64,
    unproven: Option<String>,
    /// What entries say of tokens: some hundred bytes for each, of which there are few.
    noted: BTreeMap<u64, String>,
    /// What is known where the newest checkpoint was reached.
    kept: Option<Kept>,
    findings: Vec<Found>,
    findings_total: u64,
}

/// Entries on their way from the core that hashes to the core that judges.
#[derive(Default)]
struct Batch {
    first: u64,
    bytes: Vec<u8>,
    /// Where each entry ends in `bytes`.
    ends: Vec<usize>,
    /// After its last entry all is as the newest checkpoint says.
    signed: bool,
}

/// Hands entries over in batches, and takes the emptied ones back.
struct Feed<'a> {
    batch: Batch,
    full: SyncSender<Batch>,
    empty: Receiver<Batch>,
    progress: &'a mut dyn FnMut(Progress),
    /// Where the pass starts, and the size that the newest checkpoint is over.
    start: u64,
    newest: u64,
}

impl Feed<'_> {
    fn hand_over(&mut self) {
        let next = self.empty.try_recv().unwrap_or_default();
        let full = std::mem::replace(&mut self.batch, next);
        // The judge ends before us only by a panic, which is met when it is joined.
        let _ = self.full.send(full);
    }
}

impl Visitor for Feed<'_> {
    fn entry(&mut self, index: u64, bytes: &[u8]) {
        if self.batch.ends.is_empty() {
            self.batch.first = index;
        }
        self.batch.bytes.extend_from_slice(bytes);
        self.batch.ends.push(self.batch.bytes.len());
        self.batch.signed = index + 1 == self.newest;
        if self.batch.signed || self.batch.bytes.len() >= BATCH_BYTES {
            self.hand_over();
        }
    }

    fn rotation(&mut self, _index: u64, bytes: &[u8]) -> Option<Vec<u8>> {
        statement_in(bytes)
    }

    fn signed(&mut self, size: u64) {
        self.newest = size;
        if size == self.start {
            self.batch.signed = true;
            self.hand_over();
        }
    }

    fn progress(&mut self, progress: Progress) {
        (self.progress)(progress);
    }
}

/// The statement on a rotation of the key that an entry holds.
fn statement_in(bytes: &[u8]) -> Option<Vec<u8>> {
    // Cheap, since it is asked of every entry.
    if !bytes.get(KIND_AT..)?.starts_with(ROTATED) {
        return None;
    }
    let Event::LogKeyRotated { note, .. } = Entry::from_bytes(bytes).ok()?.event else {
        return None;
    };
    Some(note.into_bytes())
}

/// Judges what comes, and gives the emptied batches back.
fn judge(pass: &mut Pass<'_>, full: &Receiver<Batch>, empty: &Sender<Batch>) {
    for mut batch in full {
        let mut start = 0;
        for (index, end) in (batch.first..).zip(&batch.ends) {
            pass.entry(index, batch.bytes.get(start..*end).unwrap_or_default());
            start = *end;
        }
        if batch.signed {
            pass.keep_state();
        }
        batch.bytes.clear();
        batch.ends.clear();
        batch.signed = false;
        // At the end nobody takes them back.
        let _ = empty.send(batch);
    }
    pass.finish();
}

impl Pass<'_> {
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

    /// Keeps what is known now.
    fn keep_state(&mut self) {
        let auditor = self.auditor.remember().ok();
        let totals = self.totals;
        self.kept = auditor.map(|auditor| Kept { auditor, totals });
    }

    fn count(&mut self, entry: &Entry) {
        self.totals.first.get_or_insert(entry.time);
        self.totals.last = Some(entry.time);
        if let Event::LogPruned(told) = &entry.event
            && self.unproven.as_ref() == Some(&told.digest)
        {
            self.unproven = None;
        }
        if let Event::LogTimestamped(told) = &entry.event {
            self.noted.insert(told.size, told.digest.clone());
        }
        if let Event::SessionStarted { .. } = &entry.event {
            self.totals.sessions.started += 1;
        }
        if let Event::ActionAllowed { .. } = &entry.event {
            self.totals.actions += 1;
        }
        if let Event::SessionEnded { late, .. } = &entry.event {
            self.totals.sessions.ended += 1;
            let late = late.map(curfew_entry::Span::as_micros);
            self.totals.sessions.late_us_max = self.totals.sessions.late_us_max.max(late);
        }
    }

    /// What should be there by the time of the last entry and is not.
    fn finish(&mut self) {
        let last = self.totals.last.unwrap_or_default();
        for finding in self.auditor.finish(last) {
            self.add(finding, None);
        }
        if self.unproven.is_some() {
            let detail = "no entry names the digest of what stands for the pruned part".to_owned();
            self.keep(self.size, "horizon_unproven", None, detail, None);
        }
        let live = self.auditor.authority().live().len();
        self.totals.sessions.live = u64::try_from(live).unwrap_or(u64::MAX);
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
fn is_unreadable(what: &Audit<'_>, failures: &[Failure]) -> bool {
    let is_there = |name: &&str| what.disk.permissions(&what.dir.join(name)).is_ok();
    let is_log = ["segments", "tile"].iter().any(is_there);
    !is_log
        || failures
            .iter()
            .all(|failure| matches!(failure.kind, FailureKind::Unreadable(_)))
}

/// Proves integrity on this core while another judges what the entries tell.
fn replay(
    what: &Audit<'_>,
    pass: &mut Pass<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<ledger::Report, Vec<Failure>> {
    let start = pass.size;
    std::thread::scope(|scope| {
        let (full, taken) = sync_channel(BATCHES_MAX);
        let (given, empty) = channel();
        let judge = scope.spawn(|| judge(pass, &{ taken }, &{ given }));
        let mut feed = Feed {
            batch: Batch::default(),
            full,
            empty,
            progress,
            start,
            newest: u64::MAX,
        };
        let verified = verify(
            &Verify {
                dir: what.dir,
                keys: what.keys,
                remembered: what.since,
                from: what.state.map(|state| &state.milestone),
                disk: what.disk.clone(),
            },
            &mut feed,
        );
        feed.hand_over();
        drop(feed);
        // A verdict without the judge would be none.
        if let Err(panic) = judge.join() {
            std::panic::resume_unwind(panic);
        }
        verified
    })
}

/// Verifies a ledger in one pass, in memory that does not grow with it beyond its live sessions.
pub fn audit(what: &Audit<'_>, progress: &mut dyn FnMut(Progress)) -> Report {
    audit_onward(what, progress).0
}

/// The same, and what the next verification can go on from, unless something is wrong.
pub fn audit_onward(
    what: &Audit<'_>,
    progress: &mut dyn FnMut(Progress),
) -> (Report, Option<State>) {
    let start = match Start::of(what) {
        Ok(start) => start,
        Err(fault) => {
            let mut report = Report::of(what.dir);
            report.outcome = Outcome::IntegrityBroken;
            report.faults.push(fault);
            return (report, None);
        }
    };
    let mut pass = Pass {
        dir: what.dir,
        totals: start.totals,
        size: start.size,
        auditor: start.auditor,
        unproven: start.unproven,
        noted: BTreeMap::new(),
        kept: None,
        findings: Vec::new(),
        findings_total: 0,
    };
    let verified = replay(what, &mut pass, progress);
    let mut report = Report {
        origin: what.keys.first().map(|key| key.name().to_owned()),
        size: pass.size,
        earlier: start.earlier,
        first: pass.totals.first,
        last: pass.totals.last,
        sessions: pass.totals.sessions,
        actions: pass.totals.actions,
        noted: pass.noted,
        findings: pass.findings,
        findings_total: pass.findings_total,
        ..Report::of(what.dir)
    };
    let mut milestone = None;
    match verified {
        Ok(ledger) => {
            milestone = ledger.verified_state;
            report.keys = KeyChange::all(&ledger.keys);
            report.chain = Some(ledger.keys);
            report.size = ledger.size;
            report.signed = Some(ledger.signed.size);
            report.root = ledger.signed.to_string().lines().nth(2).map(str::to_owned);
            report.origin = Some(ledger.signed.origin);
            report.pruned = ledger.pruned;
            report.checkpoints = ledger.checkpoints;
            report.tiles_only = ledger.tiles_only;
            report.torn_bytes = ledger.torn_tail.map(|tail| tail.len_bytes);
            if report.findings_total > 0 {
                report.outcome = Outcome::LegitimacyBroken;
            }
        }
        Err(failures) => {
            report.outcome = if is_unreadable(what, &failures) {
                Outcome::Unreadable
            } else {
                Outcome::IntegrityBroken
            };
            report.faults = failures.iter().map(fault).collect();
        }
    }
    let good = report.outcome == Outcome::Proven;
    let state = milestone.zip(pass.kept).filter(|_| good);
    let state = state.map(|(milestone, kept)| State { milestone, kept });
    (report, state)
}
