//! How far a receiver has acknowledged: a small file, replaced as a whole and synced.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use curfew_ledger::disk::replace_file_durably;
use curfew_ledger::{Disk as _, RealDisk};
use serde::{Deserialize, Serialize};

/// The longest such file, in bytes: three short values and an origin of at most 255.
const FILE_BYTES_MAX: u64 = 4 * 1024;

/// The form of the file that this program writes and reads.
const VERSION: u32 = 1;

/// What a receiver has acknowledged.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cursor {
    v: u32,
    /// The origin of the log.
    log: String,
    /// The first index that it has not acknowledged.
    pub(super) next: u64,
    /// The leaf hash before that, in hexadecimal: a log with another is another log.
    pub(super) leaf: String,
}

impl Cursor {
    /// One that says: everything before `next` is not to be sent. `leaf` is the hash before that,
    /// or nothing before the first entry.
    pub(super) fn new(log: &str, next: u64, leaf: String) -> Self {
        Self {
            v: VERSION,
            log: log.to_owned(),
            next,
            leaf,
        }
    }

    /// Reads it, where there is one.
    pub(super) fn load(path: &Path, log: &str) -> Result<Option<Self>, String> {
        let at = |problem: String| format!("{}: {problem}", path.display());
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(error.to_string())),
        };
        let mut bytes = Vec::new();
        let read = file.take(FILE_BYTES_MAX).read_to_end(&mut bytes);
        read.map_err(|error| at(error.to_string()))?;
        let cursor: Self = serde_json::from_slice(&bytes).map_err(|error| at(error.to_string()))?;
        if cursor.v != VERSION || cursor.log != log {
            return Err(at(format!(
                "it is not of this log, {log}; without the file, it begins again where \
                 `start` says"
            )));
        }
        Ok(Some(cursor))
    }

    /// Writes it. Once this returns it survives a crash; before, the old one does.
    pub(super) fn save(&self, path: &Path) -> io::Result<()> {
        if let Some(folder) = path.parent()
            && !folder.exists()
        {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(folder)?;
            if let Some(above) = folder.parent() {
                RealDisk.sync_dir(above)?;
            }
        }
        let mut bytes = serde_json::to_vec(self)?;
        bytes.push(b'\n');
        replace_file_durably(&RealDisk, path, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written_and_what_is_not_its_own_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("forward/siem.json");
        assert_eq!(Cursor::load(&path, "a.test/log").unwrap(), None);
        let cursor = Cursor::new("a.test/log", 7, "00".repeat(32));
        cursor.save(&path).unwrap();
        assert_eq!(Cursor::load(&path, "a.test/log").unwrap(), Some(cursor));
        assert!(
            Cursor::load(&path, "b.test/log")
                .unwrap_err()
                .contains("not of this log")
        );
        fs::write(&path, "{\"v\":1").unwrap();
        assert!(Cursor::load(&path, "a.test/log").is_err());
    }
}
