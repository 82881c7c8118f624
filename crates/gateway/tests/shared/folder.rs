//! A folder that goes with its test, although a gateway is still at work in it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between two tries to remove it.
const PAUSE: Duration = Duration::from_millis(10);

/// So many tries the test itself makes, a second in all; and so many another thread, if the test's
/// process still lives: 30 s.
const TRIES: usize = 100;
const MORE_TRIES: usize = 3_000;

/// So often in a row it must have been gone: the gateway's threads end after the test's own, and make
/// again what they need until then.
const GONE: usize = 20;

/// A new folder. What lies in it takes 128 MiB, segments made beforehand, so that none may be left.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap().keep())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.0);
        remove(&path, TRIES, 1);
        std::thread::spawn(move || remove(&path, MORE_TRIES, GONE));
    }
}

/// Tries until it is gone so often in a row.
#[allow(
    clippy::disallowed_methods,
    reason = "a test may wait a moment at its end"
)]
fn remove(path: &Path, tries: usize, enough: usize) {
    let mut gone = 0;
    for _ in 0..tries {
        match std::fs::remove_dir_all(path) {
            Ok(()) => gone = 1,
            Err(error) if error.kind() == ErrorKind::NotFound => gone += 1,
            Err(_) => gone = 0,
        }
        if gone >= enough {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}
