//! The keys of a witness: one file, readable by its owner only.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::disk::Disk;
use crate::keys::cosignature::{Algorithm, Cosigner};
use crate::keys::key::{KeyError, read_secret, write_secret};

/// First line of a key file; then the name, then the seeds in the order of [`ALGORITHMS`].
const HEADER: &str = "curfew-witness-key-1";

/// What a witness signs with: one that every client knows, and one that quantum computers leave
/// whole.
const ALGORITHMS: [Algorithm; 2] = [Algorithm::Ed25519, Algorithm::MlDsa44];

/// Longest key file, in bytes: header 20, name 255, two seeds of 44, four newlines; doubled.
const KEY_FILE_BYTES_MAX: u64 = 1024;

/// Makes keys for the witness `name` in a new file of mode 0600.
pub(crate) fn create(disk: &dyn Disk, path: &Path, name: &str) -> Result<Vec<Cosigner>, KeyError> {
    let mut text = Zeroizing::new(format!("{HEADER}\n{name}\n"));
    let mut cosigners = Vec::new();
    for algorithm in ALGORITHMS {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(|e| KeyError::Random(e.into()))?;
        cosigners.push(cosigner(name, algorithm, &seed)?);
        text.push_str(&Zeroizing::new(STANDARD.encode(*seed)));
        text.push('\n');
    }
    write_secret(disk, path, &text)?;
    Ok(cosigners)
}

/// Reads a key file.
pub(crate) fn load(disk: &dyn Disk, path: &Path) -> Result<Vec<Cosigner>, KeyError> {
    let malformed = |problem| KeyError::Malformed {
        path: path.to_path_buf(),
        problem,
    };
    let bytes = read_secret(disk, path, KEY_FILE_BYTES_MAX)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| malformed("not text"))?;
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        return Err(malformed("the first line is not curfew-witness-key-1"));
    }
    let name = lines.next().ok_or_else(|| malformed("no name"))?;
    let mut cosigners = Vec::new();
    for algorithm in ALGORITHMS {
        let seed = lines.next().ok_or_else(|| malformed("a key is missing"))?;
        let seed = Zeroizing::new(STANDARD.decode(seed).map_err(|_| malformed("bad base64"))?);
        let seed: &[u8; 32] = seed
            .as_slice()
            .try_into()
            .map_err(|_| malformed("a key is not 32 bytes"))?;
        cosigners.push(cosigner(name, algorithm, seed)?);
    }
    if lines.next().is_some() {
        return Err(malformed("more lines than keys"));
    }
    Ok(cosigners)
}

fn cosigner(name: &str, algorithm: Algorithm, seed: &[u8; 32]) -> Result<Cosigner, KeyError> {
    Cosigner::from_seed(name, algorithm, seed).map_err(|_| KeyError::Name {
        name: name.to_owned(),
        problem: "a name has 1 to 255 bytes, no space, no control character and no plus sign",
    })
}
