//! The signer's side: `curfew signer`.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use curfew_ledger::guarded_signer::{GuardedSigner, GuardedSignerError, SignRefusal};
use curfew_ledger::key_file::KeyFileError;
use curfew_ledger::{KeyError, KeyFile, LogKey, RealDisk};
use rustix::net::sockopt::socket_peercred;

use super::{Answer, Ask, PATIENCE, Request, VERSION, hashes, read_line, write_line};

/// Longest checkpoint file that a signer starts from, in bytes: as long as a note may be.
const NOTE_BYTES_MAX: u64 = 256 * 1024;

/// Why the signer cannot work.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// Its key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Its key, where it is being changed.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// What it remembers.
    #[error(transparent)]
    Keeper(#[from] GuardedSignerError),
    /// A file or the socket.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// What went wrong.
        source: io::Error,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> SignerError + '_ {
    move |source| SignerError::File {
        path: path.display().to_string(),
        source,
    }
}

/// Where the signer with the key `key` remembers what it signed: beside it.
fn memory(key: &Path) -> PathBuf {
    let mut name = key.as_os_str().to_os_string();
    name.push(".signed");
    name.into()
}

/// Begins to remember for the key in the file `key`: from the signed checkpoint in `from`, or from
/// nothing where the key has signed none. Gives the verifier key.
///
/// # Errors
/// When it remembers already, or a file cannot be read or made.
pub fn begin(key: &Path, from: Option<&Path>) -> Result<String, SignerError> {
    let path = key;
    let key = LogKey::load(path)?;
    let note = match from {
        Some(from) => {
            let len = fs::metadata(from).map_err(at(from))?.len();
            if len > NOTE_BYTES_MAX {
                return Err(at(from)(io::ErrorKind::FileTooLarge.into()));
            }
            Some(fs::read(from).map_err(at(from))?)
        }
        None => None,
    };
    GuardedSigner::create(&RealDisk, &memory(path), &key, note.as_deref())?;
    Ok(key.verifier().to_string())
}

/// Makes the key that is to take the place of the one in the file `key`, beside it: KEY.next. It does so
/// when the gateway's operator asks for it. Gives its verifier key.
///
/// # Errors
/// When a change of the key is under way, or a file cannot be read or made.
pub fn prepare(key: &Path) -> Result<String, SignerError> {
    let key = KeyFile::open(Arc::new(RealDisk), key)?;
    Ok(key.prepare()?.to_string())
}

/// A signer that listens.
#[derive(Debug)]
pub struct SignerServer {
    keeper: GuardedSigner,
    listener: UnixListener,
    uid: u32,
}

impl SignerServer {
    /// Takes up the key and listens on `socket`, for the user `uid` alone. A socket that a dead
    /// signer left behind is replaced.
    ///
    /// # Errors
    /// When the key or what it has signed cannot be read, or the socket cannot be made.
    pub fn bind(key: &Path, socket: &Path, uid: u32) -> Result<Self, SignerError> {
        let disk = Arc::new(RealDisk);
        let held = KeyFile::open(disk.clone(), key)?;
        let keeper = GuardedSigner::open(disk, &memory(key), held)?;
        match fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(socket)(error)),
            _ => {}
        }
        let listener = UnixListener::bind(socket).map_err(at(socket))?;
        // Another user can only connect where the mode lets everyone; who it is, the kernel says.
        let own = rustix::process::geteuid().as_raw();
        let mode = if uid == own { 0o600 } else { 0o666 };
        fs::set_permissions(socket, fs::Permissions::from_mode(mode)).map_err(at(socket))?;
        Ok(Self {
            keeper,
            listener,
            uid,
        })
    }

    /// The verifier key.
    pub fn verifier(&self) -> String {
        self.keeper.verifier().to_string()
    }

    /// Number of entries in the last checkpoint it signed.
    pub fn size(&self) -> u64 {
        self.keeper.size()
    }

    /// Answers, one after the other, for as long as the process lives.
    pub fn serve(&self) {
        for stream in self.listener.incoming() {
            let outcome = stream.and_then(|stream| self.answer(&stream));
            if let Err(error) = outcome {
                tracing::warn!(%error, "a request was not answered");
            }
        }
    }

    fn answer(&self, stream: &UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let peer = socket_peercred(stream)?.uid.as_raw();
        if peer != self.uid {
            tracing::warn!(uid = peer, "somebody else asked for a signature");
            let problem = format!("only uid {} may ask", self.uid);
            return write_line(stream, &Answer::Refused { problem });
        }
        let line = read_line(stream)?;
        let answer = match serde_json::from_str::<Request>(&line) {
            Ok(Request { v: VERSION, ask }) => self.decide(ask),
            Ok(Request { v, .. }) => Answer::Refused {
                problem: format!("version {v} is not known"),
            },
            Err(error) => Answer::Refused {
                problem: format!("not a request: {error}"),
            },
        };
        write_line(stream, &answer)
    }

    fn decide(&self, ask: Ask) -> Answer {
        let (checkpoint, old, proof) = match ask {
            Ask::Key {} => {
                return Answer::Key {
                    verifier: self.verifier(),
                    rotation: self.keeper.rotation(),
                };
            }
            Ask::Rotate { checkpoint } => {
                return match self.keeper.rotate(&checkpoint) {
                    Ok(note) => {
                        tracing::info!(key = %self.verifier(), "the key was changed");
                        Answer::Rotated { note }
                    }
                    Err(error) => refuse(&error),
                };
            }
            Ask::FrameNonce { epoch } => {
                return Answer::FrameNonce {
                    nonce: self.keeper.frame_nonce(epoch),
                };
            }
            Ask::Sign {
                checkpoint,
                old,
                proof,
            } => (checkpoint, old, proof),
        };
        let Some(proof) = hashes(&proof) else {
            return Answer::Refused {
                problem: "the proof is not one of hashes".to_owned(),
            };
        };
        match self.keeper.sign(&checkpoint, old, &proof) {
            Ok(note) => Answer::Signed { note },
            Err(SignRefusal::Elsewhere { size }) => Answer::Elsewhere { size },
            Err(error) => refuse(&error),
        }
    }
}

fn refuse(error: &SignRefusal) -> Answer {
    tracing::error!(%error, "refused to sign");
    Answer::Refused {
        problem: error.to_string(),
    }
}
