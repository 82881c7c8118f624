//! What a verification found out, kept in a file, so that the next one looks at what is new alone.
//!
//! The file is trusted like the program itself: what is in it is not proven again. So it is written for
//! its owner alone (0600), not read where others may change it, and used only by the version of the
//! auditor that wrote it, for the log it was written for. Its hash is against damage, not against people.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use curfew_authority::{AUDITOR_FORM, Auditor};
use curfew_entry::Timestamp;
use curfew_ledger::merkle::leaf_hash;
use curfew_ledger::{VerifiedState, VerifierKey};
use serde::{Deserialize, Serialize};

use crate::report::Sessions;

/// The first line of the file, with the number of its form.
const HEAD: &str = "curfew-verify state 2";

/// The largest file that is read: 256 MiB are some hundred thousand live sessions.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// What a verification found out, up to a signed checkpoint.
#[derive(Clone, Debug)]
pub struct State {
    /// Where it had come to.
    pub(crate) milestone: VerifiedState,
    pub(crate) kept: Kept,
}

/// What the judge of the entries knows there.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// As [`Auditor::remember`] gives it.
    pub(crate) auditor: String,
    pub(crate) totals: Totals,
}

/// What a report counts.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Totals {
    pub(crate) first: Option<Timestamp>,
    pub(crate) last: Option<Timestamp>,
    pub(crate) actions: u64,
    pub(crate) sessions: Sessions,
}

/// The file but for its first two lines.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Written {
    program: String,
    auditor_form: u32,
    milestone: String,
    totals: Totals,
    auditor: String,
}

/// Why a file cannot be gone on from.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file cannot be read.
    #[error("{0}")]
    File(#[from] io::Error),
    /// Others may read or change it.
    #[error("others than its owner may read or change it; it is trusted, so: chmod 600")]
    Open,
    /// It is none of these files, or damaged.
    #[error(
        "this is no state of a verification, or it is damaged; remove it to verify all of the log"
    )]
    Damaged,
    /// Another version wrote it.
    #[error("version {0} wrote it; remove it to verify all of the log with this one")]
    Version(String),
    /// It is of another log, or of another key.
    #[error("it is of another log or key: {0}")]
    Foreign(#[from] curfew_ledger::VerifiedStateError),
}

impl State {
    /// Number of entries that were verified.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.milestone.size()
    }

    pub(crate) fn auditor(&self) -> Result<Auditor, StateError> {
        Auditor::recall(&self.kept.auditor).map_err(|_| StateError::Damaged)
    }

    /// As it is written to a file.
    ///
    /// # Errors
    /// None that are known: all of it can be written as JSON.
    pub fn encode(&self) -> Result<String, serde_json::Error> {
        let body = serde_json::to_string(&Written {
            program: env!("CARGO_PKG_VERSION").to_owned(),
            auditor_form: AUDITOR_FORM,
            milestone: self.milestone.encode(),
            totals: self.kept.totals,
            auditor: self.kept.auditor.clone(),
        })?;
        Ok(format!("{HEAD}\n{}\n{body}\n", leaf_hash(body.as_bytes())))
    }

    /// What [`State::encode`] gave, of the log with one of these keys.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn decode(bytes: &[u8], keys: &[VerifierKey]) -> Result<Self, StateError> {
        let text = std::str::from_utf8(bytes).map_err(|_| StateError::Damaged)?;
        let whole = text.strip_suffix('\n').and_then(|text| {
            let (head, rest) = text.split_once('\n')?;
            let (hash, body) = rest.split_once('\n')?;
            let is_whole = hash == leaf_hash(body.as_bytes()).to_string();
            (head == HEAD && is_whole).then_some(body)
        });
        let body = whole.ok_or(StateError::Damaged)?;
        let written: serde_json::Value =
            serde_json::from_str(body).map_err(|_| StateError::Damaged)?;
        let program = written["program"].as_str().unwrap_or("unknown");
        let form = written["auditor_form"].as_u64();
        if program != env!("CARGO_PKG_VERSION") || form != Some(AUDITOR_FORM.into()) {
            return Err(StateError::Version(program.to_owned()));
        }
        let written: Written = serde_json::from_value(written).map_err(|_| StateError::Damaged)?;
        let milestone =
            VerifiedState::decode(&written.milestone).map_err(|_| StateError::Damaged)?;
        milestone.checkpoint(keys)?;
        let (auditor, totals) = (written.auditor, written.totals);
        let kept = Kept { auditor, totals };
        let state = Self { milestone, kept };
        state.auditor()?;
        Ok(state)
    }

    /// Reads the file; `None` when there is none yet.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn read(path: &Path, keys: &[VerifierKey]) -> Result<Option<Self>, StateError> {
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let metadata = file.metadata()?;
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(StateError::Open);
        }
        if metadata.len() > FILE_BYTES_MAX {
            return Err(StateError::Damaged);
        }
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Self::decode(&bytes, keys).map(Some)
    }

    /// Replaces the file in one step, so that a crash leaves the old or the new one.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let text = self.encode()?;
        let fresh = path.with_added_extension("new");
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}
