//! The log: proven as it is, refused where it was changed, refused where it was forged.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use curfew_entry::{ActionDetail, Demands, Entry, Event, SessionId, Span, Verb};
use curfew_verify::ledger::{
    LogKey, LogReader, Observer, Options, RealDisk, VerifierKey, WriteError, Writer,
};
use curfew_verify::{Audit, Outcome as Verdict, Report, audit};

use super::super::stage::Stage;
use super::broken;
use crate::failure::{Doing, Outcome};

/// The segment size of the demo's configuration.
const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;

/// Verifies the log in `dir` with the demo's key.
fn verify(stage: &Stage, dir: &Path) -> Outcome<Report> {
    let keys = [VerifierKey::parse(&stage.key).doing("the demo's key")?];
    Ok(audit(
        &Audit {
            dir,
            disk: Arc::new(RealDisk),
            keys: &keys,
            since: None,
            state: None,
        },
        &mut |_| (),
    ))
}

fn expect(report: &Report, wanted: Verdict) -> Outcome {
    if report.outcome == wanted {
        return Ok(());
    }
    broken(format_args!("the log should be {wanted:?}, but:\n{report}"))
}

/// The log as it is.
pub(super) fn as_it_is(stage: &Stage) -> Outcome<String> {
    let report = verify(stage, &stage.data().join("ledger"))?;
    expect(&report, Verdict::Proven)?;
    Ok(report.to_string())
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else if entry.file_type()?.is_file() {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// A copy of the data folder, as somebody with all files and keys has it.
fn copied(stage: &Stage, name: &str) -> Outcome<PathBuf> {
    let to = stage.folder.join(name);
    copy(&stage.data(), &to).doing("cannot copy the log")?;
    Ok(to)
}

/// A copy in which one name was changed in place.
pub(super) fn tampered(stage: &Stage) -> Outcome<String> {
    let ledger = copied(stage, "tampered")?.join("ledger");
    let segment = ledger.join(format!("segments/{:020}.seg", 0));
    let mut bytes = fs::read(&segment).doing(segment.display())?;
    let before: &[u8] = br#""subject":"ana""#;
    let Some(at) = bytes.windows(before.len()).position(|part| part == before) else {
        return broken("the log does not name ana");
    };
    bytes[at..at + before.len()].copy_from_slice(br#""subject":"eve""#);
    fs::write(&segment, bytes).doing(segment.display())?;
    let report = verify(stage, &ledger)?;
    expect(&report, Verdict::IntegrityBroken)?;
    let fault = report
        .faults
        .first()
        .map_or_else(String::new, ToString::to_string);
    let place = fault.rsplit('/').next().unwrap_or_default().to_owned();
    Ok(format!(
        "one name changed at byte {at} of the first segment; refused with exit code {}:\n{place}",
        report.outcome.code()
    ))
}

struct Silent;

impl Observer for Silent {
    fn durable(&self, _: u64) {}
    fn failed(&self, _: u64, error: &WriteError) {
        tracing::error!(%error, "the forged log could not be written");
    }
}

/// A copy to which somebody with the key has appended an action of an ended session, well-formed,
/// hashed and signed.
pub(super) fn forged(stage: &Stage, session: &str) -> Outcome<String> {
    let data = copied(stage, "forged")?;
    let ledger = data.join("ledger");
    let reader = LogReader::open(&ledger).doing("cannot read the log")?;
    let size = reader.size();
    let last = reader
        .entry(size.saturating_sub(1))
        .doing("cannot read the log")?;
    let last = Entry::from_bytes(&last).doing("cannot read the log")?;
    let session: SessionId = session.parse().doing("the session's name")?;
    let action = ActionDetail {
        method: Some("GET".to_owned()),
        path: Some("/".to_owned()),
        ..ActionDetail::new(Verb::WebRead, "shop".parse().doing("the app's name")?)
    };
    let forged = Entry {
        time: last.time.saturating_add(Span::from_millis(1)),
        event: Event::ActionAllowed {
            session: session.clone(),
            action,
            rules: vec!["analyst-web".parse().doing("the rule's name")?],
            demands: Demands::default(),
        },
    };
    let key = LogKey::load(&data.join("keys/ledger.key")).doing("cannot load the key")?;
    let mut options = Options::new(&ledger, data.join("guard/last-signed"), key);
    options.segment_bytes = SEGMENT_BYTES;
    let (writer, _) = Writer::open(options, Arc::new(RealDisk), Arc::new(Silent))
        .doing("cannot open the copy")?;
    writer
        .append(forged.to_bytes().doing("cannot forge")?)
        .doing("cannot forge")?;
    writer.close().doing("cannot sign the forged log")?;
    let report = verify(stage, &ledger)?;
    expect(&report, Verdict::LegitimacyBroken)?;
    let Some(found) = report.findings.iter().find(|found| found.index == size) else {
        return broken(format_args!(
            "the forged entry {size} was not named:\n{report}"
        ));
    };
    Ok(format!(
        "an action appended to the ended session {session}, hashed and signed with the log's own \
         key\nintegrity holds; legitimacy refuses with exit code {}: entry {} ({}): {}: {}",
        report.outcome.code(),
        found.index,
        found.entry,
        found.kind,
        found.detail
    ))
}
