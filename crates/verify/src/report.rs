//! What a verification found, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::Path;

use curfew_entry::{SessionId, Timestamp};
use curfew_ledger::KeyChain;
use serde::{Deserialize, Serialize};

use crate::place::Place;
use crate::rotations::KeyChange;
use crate::timestamps::Timestamps;
use crate::witnesses::Witnesses;

/// What a verification comes to.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Whole and legitimate.
    Proven,
    /// Something was changed, or is not signed as it must be.
    IntegrityBroken,
    /// Whole, but it tells of something that was not allowed to happen.
    LegitimacyBroken,
    /// It could not be read.
    Unreadable,
    /// Whole and legitimate, but no quorum of witnesses has cosigned.
    Unwitnessed,
    /// Whole and legitimate, but it has no timestamp token, or one that does not hold.
    Untimestamped,
}

impl Outcome {
    /// The exit code that says so.
    pub fn code(self) -> u8 {
        match self {
            Self::Proven => 0,
            Self::IntegrityBroken => 1,
            Self::LegitimacyBroken => 3,
            Self::Unreadable => 4,
            Self::Unwitnessed => 5,
            Self::Untimestamped => 6,
        }
    }
}

/// What a verification found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What it comes to.
    pub outcome: Outcome,
    /// The directory.
    pub directory: String,
    /// The log's own name.
    pub origin: Option<String>,
    /// Entries gone over, signed or not.
    pub size: u64,
    /// Entries that an earlier verification had gone over, and this one not again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub earlier: Option<u64>,
    /// Entries that the newest checkpoint covers.
    pub signed: Option<u64>,
    /// Entries that were pruned: their hashes are in the log, and what they led to.
    #[serde(skip_serializing_if = "is_zero")]
    pub pruned: u64,
    /// The root of these, as its checkpoint says it.
    pub root: Option<String>,
    /// Signed checkpoints, all of them checked.
    pub checkpoints: u64,
    /// All entries were read from C2SP tlog-tiles: there were no segments.
    pub tiles_only: bool,
    /// Bytes of an interrupted write after the last entry, which count for nothing.
    pub torn_bytes: Option<u64>,
    /// Changes of the key that signs, each with the signatures of both keys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyChange>,
    /// The same for what else is signed.
    #[serde(skip)]
    pub(crate) chain: Option<KeyChain>,
    /// The time of the first entry.
    pub first: Option<Timestamp>,
    /// The time of the last entry.
    pub last: Option<Timestamp>,
    /// What witnesses say, where a policy on them was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub witnesses: Option<Witnesses>,
    /// What timestamp tokens say, where the authorities behind them were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamps: Option<Timestamps>,
    /// The SHA-256 that entries give of tokens, by the size these are over.
    #[serde(skip)]
    pub(crate) noted: BTreeMap<u64, String>,
    /// Sessions it tells of.
    pub sessions: Sessions,
    /// Actions allowed.
    pub actions: u64,
    /// What breaks integrity.
    pub faults: Vec<Fault>,
    /// What breaks legitimacy; the first of them, where there are very many.
    pub findings: Vec<Found>,
    /// How many there are in all.
    pub findings_total: u64,
}

/// Sessions a log tells of.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Sessions {
    /// How many started.
    pub started: u64,
    /// How many ended.
    pub ended: u64,
    /// How many live on after the last entry.
    pub live: u64,
    /// The latest end, measured from its deadline, in microseconds.
    pub late_us_max: Option<u64>,
}

/// Something that breaks integrity.
#[derive(Clone, Debug, Serialize)]
pub struct Fault {
    /// The file.
    pub file: String,
    /// The byte in it, where that makes sense.
    pub offset: Option<u64>,
    /// The entry concerned, or the size of the log.
    pub index: Option<u64>,
    /// What is wrong.
    pub detail: String,
}

/// Something that breaks legitimacy.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// The entry.
    pub index: u64,
    /// Its own kind, such as `action.allowed`.
    pub entry: String,
    /// Its time.
    pub time: Option<Timestamp>,
    /// The kind of finding, such as `outside_session`.
    pub kind: &'static str,
    /// The session it is about, if it is about one.
    pub session: Option<SessionId>,
    /// In a sentence.
    pub detail: String,
    /// Where it lies.
    pub place: Place,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(offset) = self.offset {
            write!(f, ", byte {offset}")?;
        }
        if let Some(index) = self.index {
            write!(f, ", entry {index}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

impl Report {
    /// Of the log in `dir`, before anything is known of it.
    pub(crate) fn of(dir: &Path) -> Self {
        Self {
            outcome: Outcome::Proven,
            directory: dir.display().to_string(),
            origin: None,
            size: 0,
            signed: None,
            earlier: None,
            pruned: 0,
            root: None,
            checkpoints: 0,
            tiles_only: false,
            torn_bytes: None,
            keys: Vec::new(),
            chain: None,
            first: None,
            last: None,
            witnesses: None,
            timestamps: None,
            noted: BTreeMap::new(),
            sessions: Sessions::default(),
            actions: 0,
            faults: Vec::new(),
            findings: Vec::new(),
            findings_total: 0,
        }
    }

    /// Of one that cannot be read at all.
    pub(crate) fn unreadable(dir: &Path, problem: String) -> Self {
        let mut report = Self::of(dir);
        report.outcome = Outcome::Unreadable;
        report.faults.push(Fault {
            file: report.directory.clone(),
            offset: None,
            index: None,
            detail: problem,
        });
        report
    }

    fn verdicts(&self) -> (&'static str, &'static str) {
        let integrity = match self.outcome {
            Outcome::Unreadable => "? could not be read",
            Outcome::IntegrityBroken => "✗ BROKEN",
            Outcome::Proven
            | Outcome::LegitimacyBroken
            | Outcome::Unwitnessed
            | Outcome::Untimestamped => "✓ proven",
        };
        let legitimacy = match (self.outcome, self.findings_total) {
            (Outcome::Unreadable, _) => "? could not be read",
            (Outcome::IntegrityBroken, 0) => "? nothing to be concluded from a changed log",
            (Outcome::IntegrityBroken, _) => "? findings below, but of a changed log",
            (_, 0) => "✓ proven",
            (_, _) => "✗ BROKEN",
        };
        (integrity, legitimacy)
    }

    fn write_findings(&self, text: &mut String) -> fmt::Result {
        for found in &self.findings {
            let time = found
                .time
                .map_or_else(String::new, |time| format!(", {time}"));
            writeln!(
                text,
                "\n  entry {} ({}{time}): {}",
                found.index, found.entry, found.kind
            )?;
            writeln!(text, "    {}", found.detail)?;
            if let Some(session) = &found.session {
                writeln!(text, "    session {session}")?;
            }
            writeln!(text, "    in {}", found.place)?;
        }
        let shown = u64::try_from(self.findings.len()).unwrap_or(u64::MAX);
        if self.findings_total > shown {
            writeln!(
                text,
                "\n  and {} more findings",
                self.findings_total - shown
            )?;
        }
        Ok(())
    }

    /// Entries that were not gone over.
    fn write_left_out(&self, text: &mut String) -> fmt::Result {
        if self.pruned > 0 {
            let pruned = self.pruned;
            writeln!(
                text,
                "pruned      {pruned} of them, up to entry {}; their hashes are there, and what they led to",
                pruned - 1
            )?;
        }
        if let Some(earlier) = self.earlier {
            writeln!(text, "earlier     {earlier} of them were verified before")?;
        }
        Ok(())
    }

    fn write(&self, text: &mut String) -> fmt::Result {
        let (integrity, legitimacy) = self.verdicts();
        let form = if self.tiles_only { " (tiles only)" } else { "" };
        writeln!(text, "ledger      {}{form}", self.directory)?;
        if let Some(origin) = &self.origin {
            writeln!(text, "origin      {origin}")?;
        }
        if let (Some(first), Some(last)) = (self.first, self.last) {
            writeln!(text, "time        {first} to {last}")?;
        }
        let unsigned = self
            .signed
            .map(|signed| self.size.saturating_sub(signed))
            .filter(|unsigned| *unsigned > 0)
            .map_or_else(String::new, |unsigned| {
                format!(", {unsigned} not signed yet")
            });
        writeln!(
            text,
            "entries     {} ({} actions allowed){unsigned}",
            self.size, self.actions
        )?;
        self.write_left_out(text)?;
        let Sessions {
            started,
            ended,
            live,
            late_us_max,
        } = self.sessions;
        let late = late_us_max.map_or_else(String::new, |late| {
            format!(
                ", latest end {:.3} ms after its deadline",
                micros_as_millis(late)
            )
        });
        writeln!(
            text,
            "sessions    {started} started, {ended} ended, {live} live{late}"
        )?;
        if let (Some(signed), Some(root)) = (self.signed, &self.root) {
            writeln!(
                text,
                "checkpoint  {signed} entries, root {root} ({} checkpoints checked)",
                self.checkpoints
            )?;
        }
        for change in &self.keys {
            writeln!(text, "key         {change}")?;
        }
        if let Some(witnesses) = &self.witnesses {
            writeln!(text, "witnesses   {witnesses}")?;
        }
        if let Some(timestamps) = &self.timestamps {
            write!(text, "{timestamps}")?;
        }
        if let Some(bytes) = self.torn_bytes {
            writeln!(
                text,
                "tail        {bytes} bytes of an interrupted write, counted as nothing"
            )?;
        }
        writeln!(text, "integrity   {integrity}")?;
        for fault in &self.faults {
            writeln!(text, "  {fault}")?;
        }
        writeln!(text, "legitimacy  {legitimacy}")?;
        self.write_findings(text)
    }
}

/// For display only.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn micros_as_millis(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(&mut text)?;
        f.write_str(text.trim_end())
    }
}
