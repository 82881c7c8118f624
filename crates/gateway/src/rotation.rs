//! Changing the key that signs the log, in a data folder whose gateway is stopped.
//!
//! ```text
//! curfew key rotate ──▶ everything is signed ──▶ both keys sign the statement
//!                                                   │ from here on it only goes forward
//!          gateway's next start, if it was cut short ▼
//!                        log.key_rotated ──▶ checkpoint by the new key ──▶ keys/ledger.pub ──▶ keys/ledger.key
//! ```
//!
//! Where another process signs, it has the statement: it is asked for its key at each start.

use std::path::Path;
use std::sync::Arc;

use curfew_custody::signer::RemoteSigner;
use curfew_custody::witness;
use curfew_entry::{Entry, Event};
use curfew_gate::clock::wall_now;
use curfew_ledger::disk::replace_file_durably;
use curfew_ledger::rotate::{RotateError, begin, complete};
use curfew_ledger::{KeyFile, Options, RealDisk, Rotation, SignError, VerifierKey};

use crate::data::{DataDir, DataError, at};

/// What a change of the key came to.
#[derive(Clone, Debug)]
pub struct Rotated {
    /// Number of entries after which it took effect.
    pub size: u64,
    /// The verifier key until then.
    pub old: String,
    /// The verifier key since.
    pub new: String,
    /// An earlier change that was cut short was brought to its end, and no other made.
    pub resumed: bool,
}

impl Rotated {
    fn of(rotation: &Rotation, resumed: bool) -> Self {
        Self {
            size: rotation.size,
            old: rotation.old.to_string(),
            new: rotation.new.to_string(),
            resumed,
        }
    }
}

/// A rotation that is stated and not finished, and who signs since.
#[allow(
    clippy::large_enum_variant,
    reason = "there is one, on its way to be used once"
)]
enum Pending {
    /// Both keys are here.
    Here(KeyFile),
    /// Another process has them.
    There(RemoteSigner, String),
}

impl DataDir {
    /// Makes the key that is to sign the log after the one that does, and gives its verifier key. One
    /// that was made before is replaced. Nothing else changes, and the gateway may run.
    ///
    /// # Errors
    /// When another process signs, or the disk refuses.
    pub fn prepare_key(&self) -> Result<String, DataError> {
        self.master()?;
        if let Some(socket) = self.signer() {
            let problem = format!(
                "the key is with the signer at {}: make the new one there",
                socket.display()
            );
            return Err(RotateError::Sign(SignError::Refused(problem)).into());
        }
        let key = KeyFile::open(Arc::new(RealDisk), &self.ledger_key())?;
        Ok(key.prepare()?.to_string())
    }

    /// Changes the key that signs the log, to the prepared one where there is one. A change that was begun and cut short is brought to its end instead. The gateway must be stopped; whoever signs for it must run.
    ///
    /// # Errors
    /// When the log is in use, cannot be signed, or the disk refuses; when there are witnesses, and no key
    /// was prepared that they could know of, or their policy does not name it. It can be tried again.
    pub fn rotate_key(&self) -> Result<Rotated, DataError> {
        self.master()?;
        if let Some(rotation) = self.finish_rotation()? {
            return Ok(Rotated::of(&rotation, true));
        }
        let disk = Arc::new(RealDisk);
        if self.signer().is_none() {
            let key = KeyFile::open(disk.clone(), &self.ledger_key())?;
            self.have_next(&key)?;
        }
        begin(self.options()?, disk)?;
        match self.finish_rotation()? {
            Some(rotation) => Ok(Rotated::of(&rotation, false)),
            // Only if somebody else brought it to its end just now.
            None => Err(DataError::Missing(self.ledger_key().display().to_string())),
        }
    }

    /// Makes sure that there is a key to change to, and that the log's witnesses can know of it.
    fn have_next(&self, key: &KeyFile) -> Result<(), DataError> {
        // One that cannot be read is of no use to anybody.
        let next = key.prepared().ok().flatten();
        match (next, self.witnesses()) {
            (None, None) => key.prepare().map(drop)?,
            (Some(_), None) => {}
            (None, Some(_)) => return Err(DataError::Unannounced),
            (Some(next), Some(policy)) => {
                let checked = witness::check_next_key(policy, &next);
                checked.map_err(|problem| DataError::WitnessPolicy {
                    path: policy.display().to_string(),
                    problem,
                })?;
            }
        }
        Ok(())
    }

    /// What the policy on the log's witnesses lacks once this verifier key signs; none where there is
    /// no policy, or nothing is lacking.
    pub fn witnesses_lack(&self, key: &str) -> Option<String> {
        let (policy, key) = (self.witnesses()?, VerifierKey::parse(key).ok()?);
        let lacks = witness::check_next_key(policy, &key).err()?;
        Some(format!("{}: {lacks}", policy.display()))
    }

    /// Brings a rotation to its end that was stated. Without one it does nothing.
    pub(crate) fn finish_rotation(&self) -> Result<Option<Rotation>, DataError> {
        let Some(pending) = self.pending()? else {
            return Ok(None);
        };
        let rotation = match *pending {
            Pending::Here(mut key) => {
                key.settle()?;
                let note = key.statement().unwrap_or_default().to_owned();
                let rotation = self.complete(self.signed_by(key.clone()), &note)?;
                self.publish_key(&rotation)?;
                key.finish()?;
                rotation
            }
            Pending::There(signer, note) => {
                let rotation = self.complete(self.signed_by(signer), &note)?;
                self.publish_key(&rotation)?;
                rotation
            }
        };
        tracing::info!(after = rotation.size, key = %rotation.new, "the log's key was changed");
        Ok(Some(rotation))
    }

    fn pending(&self) -> Result<Option<Box<Pending>>, DataError> {
        let Some(socket) = self.signer() else {
            let key = KeyFile::open(Arc::new(RealDisk), &self.ledger_key())?;
            let pending = key.pending().is_some();
            return Ok(pending.then(|| Box::new(Pending::Here(key))));
        };
        let signer = RemoteSigner::new(socket, self.verifier()?);
        // One that is away or has another key is told of when the log is opened.
        let rotated = signer.rotated().unwrap_or_default();
        Ok(rotated.map(|(rotation, note)| {
            let signer = RemoteSigner::rotated_to(socket, &rotation);
            Box::new(Pending::There(signer, note))
        }))
    }

    fn complete(&self, options: Options, note: &str) -> Result<Rotation, DataError> {
        let done = complete(options, Arc::new(RealDisk), note, &entry_of, &note_of);
        Ok(done?)
    }

    /// Makes `keys/ledger.pub` tell the new key.
    fn publish_key(&self, rotation: &Rotation) -> Result<(), DataError> {
        let path = self.public_key();
        let text = format!("{}\n", rotation.new);
        replace_file_durably(&RealDisk, Path::new(&path), text.as_bytes()).map_err(at(&path))
    }
}

/// The entry that tells of a rotation: at the time of the one before it, since ledger time stands still
/// while no gateway runs.
fn entry_of(note: &str, before: Option<&[u8]>) -> Vec<u8> {
    let at = wall_now();
    let before = before.and_then(|bytes| Entry::from_bytes(bytes).ok());
    let event = Event::LogKeyRotated {
        at,
        note: note.to_owned(),
    };
    let entry = Entry {
        time: before.map_or(at, |entry| entry.time),
        event,
    };
    // A statement of at most 4 KiB fits; what does not is refused by the log as empty.
    entry.to_bytes().unwrap_or_default()
}

fn note_of(entry: &[u8]) -> Option<String> {
    let Event::LogKeyRotated { note, .. } = Entry::from_bytes(entry).ok()?.event else {
        return None;
    };
    Some(note)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use curfew_custody::signer::server::{SignerServer, begin as remember, prepare};
    use curfew_gate::recorder::Durability;
    use curfew_ledger::Checkpoint;

    use super::*;
    use crate::config::{Config, LEAST};

    /// Its thread goes with the test.
    fn serve(key: &Path, socket: &Path) {
        let uid = rustix::process::geteuid().as_raw();
        let server = SignerServer::bind(key, socket, uid).unwrap();
        std::thread::spawn(move || server.serve());
    }

    /// A data folder whose key a signer has, with some entries. The signer's key file.
    fn data_with_signer(dir: &Path) -> (DataDir, PathBuf) {
        let config = format!("{LEAST}[log]\nsigner = \"signer.sock\"\n");
        let config = Config::parse("curfew.toml", &config, dir).unwrap();
        let data = DataDir::of(&config);
        data.create(&config.origin).unwrap();
        let key = dir.join("signer.key");
        std::fs::rename(data.public_key().with_file_name("ledger.key"), &key).unwrap();
        remember(&key, None).unwrap();
        serve(&key, &dir.join("signer.sock"));
        write_on(&data, 3);
        (data, key)
    }

    /// Opens the log as a gateway does, which then has so many entries, and writes some more.
    fn write_on(data: &DataDir, count: usize) -> u64 {
        let (failures, _) = tokio::sync::mpsc::unbounded_channel();
        let (writer, recovered) = data
            .open_ledger(Arc::new(Durability::new(0, failures)))
            .unwrap();
        for at in 0..count {
            writer.append(format!("an entry, {at}")).unwrap();
        }
        writer.close().unwrap();
        recovered.size
    }

    fn public_key(data: &DataDir) -> String {
        let text = std::fs::read_to_string(data.public_key()).unwrap();
        text.trim().to_owned()
    }

    #[test]
    fn a_signer_changes_its_key_when_both_sides_ask_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let (data, key) = data_with_signer(folder.path());
        let old = public_key(&data);
        // Whoever has the gateway alone changes nothing.
        let refused = data.rotate_key().unwrap_err().to_string();
        assert!(refused.contains("no new key was made"), "{refused}");
        assert_eq!((public_key(&data), write_on(&data, 1)), (old.clone(), 3));

        let new = prepare(&key).unwrap();
        let rotated = data.rotate_key().unwrap();
        assert_eq!((&rotated.old, &rotated.new, rotated.size), (&old, &new, 4));
        assert!(!rotated.resumed);
        assert_eq!((public_key(&data), write_on(&data, 2)), (new.clone(), 5));
        let signed = std::fs::read(data.ledger().join("checkpoint")).unwrap();
        let by = [VerifierKey::parse(&new).unwrap()];
        assert_eq!(Checkpoint::verify(&signed, &by).unwrap().size, 7);
        // And once more, after the signer was started anew.
        let socket = folder.path().join("signer.sock");
        std::fs::remove_file(&socket).unwrap();
        let copy = folder.path().join("later");
        std::fs::create_dir(&copy).unwrap();
        for name in ["signer.key", "signer.key.signed", "signer.key.rotation"] {
            std::fs::copy(folder.path().join(name), copy.join(name)).unwrap();
        }
        let key = copy.join("signer.key");
        let third = prepare(&key).unwrap();
        serve(&key, &socket);
        assert_eq!(data.rotate_key().unwrap().new, third);
        assert_eq!((public_key(&data), write_on(&data, 1)), (third, 8));
    }

    #[test]
    fn a_change_that_only_the_signer_knows_of_is_brought_to_its_end() {
        for by_start in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let (data, key) = data_with_signer(folder.path());
            let new = prepare(&key).unwrap();
            let old = VerifierKey::parse(&public_key(&data)).unwrap();
            let signer = RemoteSigner::new(&folder.path().join("signer.sock"), old);
            let guard = data.ledger().with_file_name("guard").join("last-signed");
            let options = Options::new(data.ledger(), guard, signer);
            begin(options, Arc::new(RealDisk)).unwrap();
            assert_ne!(public_key(&data), new);
            if by_start {
                // The entry that tells of it comes before anything else.
                assert_eq!(write_on(&data, 1), 4);
            } else {
                assert!(data.rotate_key().unwrap().resumed);
            }
            assert_eq!(public_key(&data), new);
            write_on(&data, 1);
        }
    }
}
