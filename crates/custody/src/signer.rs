//! Signing in a process of its own, so that the log's keeper can be denied the key.
//!
//! Gateway and signer speak over a Unix socket: one request a connection, one line of JSON each
//! way. This is the gateway's side and the words; [`server`] is the other side. Both block: the
//! ledger asks from its publisher's thread.

pub mod server;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use curfew_ledger::signer::Extends;
use curfew_ledger::{Checkpoint, Hash, Rotation, SignError, Signer, VerifierKey};
use serde::{Deserialize, Serialize};

/// The version of the words.
const VERSION: u8 = 1;

/// Longest line, in bytes: a checkpoint of 400 bytes, 64 hashes of 47 in a proof, a note of 1 KiB;
/// rounded up to hold all of them several times over.
const LINE_BYTES_MAX: u64 = 16 * 1024;

/// Most hashes in a proof: two for each level of a tree of 2^63 entries.
const PROOF_MAX: usize = 128;

/// How long one read or write may take on either side. Signing and remembering take milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is asked.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Request {
    v: u8,
    ask: Ask,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Ask {
    /// Whose key is it?
    Key {},
    /// The number that marks the frames of an epoch.
    FrameNonce { epoch: u64 },
    /// Sign `checkpoint`, which `proof` shows to go on from the first `old` entries.
    Sign {
        checkpoint: String,
        old: u64,
        proof: Vec<String>,
    },
    /// State that the key prepared beside yours takes its place after `checkpoint`, your last.
    Rotate { checkpoint: String },
}

/// What is answered.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// The verifier key, and the newest statement that it took the place of another.
    Key {
        verifier: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rotation: Option<String>,
    },
    /// The statement.
    Rotated { note: String },
    /// The number asked for.
    FrameNonce { nonce: u64 },
    /// The signed note.
    Signed { note: String },
    /// The proof must go on from this size.
    Elsewhere { size: u64 },
    /// No.
    Refused { problem: String },
}

/// Reads one line of at most [`LINE_BYTES_MAX`] bytes.
fn read_line(stream: &UnixStream) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut line)?;
    if line.ends_with('\n') {
        Ok(line)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

fn write_line(mut stream: &UnixStream, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_string(value)?;
    line.push('\n');
    stream.write_all(line.as_bytes())
}

/// The signer behind a socket.
#[derive(Debug)]
pub struct RemoteSigner {
    socket: PathBuf,
    key: VerifierKey,
    /// The key that signed until a rotation of which the log does not tell yet.
    before: Option<VerifierKey>,
    /// The last size it is known to have signed.
    size: AtomicU64,
}

impl RemoteSigner {
    /// The signer at `socket`, which is asked for nothing yet. What it signs must be by `key`.
    pub fn new(socket: &Path, key: VerifierKey) -> Self {
        Self {
            socket: socket.to_path_buf(),
            key,
            before: None,
            size: AtomicU64::new(0),
        }
    }

    /// The same signer, which signs by another key since a rotation of which the log is yet to tell.
    pub fn rotated_to(socket: &Path, rotation: &Rotation) -> Self {
        Self {
            before: Some(rotation.old.clone()),
            ..Self::new(socket, rotation.new.clone())
        }
    }

    /// The rotation from the key it is known by to the one it has now, with the statement on it; none
    /// where it still has that key.
    ///
    /// # Errors
    /// When it does not answer, or has a key that no such statement leads to.
    pub fn rotated(&self) -> Result<Option<(Rotation, String)>, SignError> {
        let answer = self.ask(Ask::Key {})?;
        let Answer::Key { verifier, rotation } = answer else {
            return Err(unexpected(&answer));
        };
        if verifier == self.key.to_string() {
            return Ok(None);
        }
        let wrong = |why: String| SignError::Wrong(why);
        let note = rotation.ok_or_else(|| wrong(format!("it signs by {verifier}")))?;
        let rotation =
            Rotation::verify(note.as_bytes()).map_err(|error| wrong(error.to_string()))?;
        if rotation.old != self.key || rotation.new.to_string() != verifier {
            return Err(wrong(format!("its statement does not lead to {verifier}")));
        }
        Ok(Some((rotation, note)))
    }

    fn ask(&self, ask: Ask) -> Result<Answer, SignError> {
        let exchange = || {
            let stream = UnixStream::connect(&self.socket)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            // Who is refused outright may find the socket closed for writing, the answer in it.
            let sent = write_line(&stream, &Request { v: VERSION, ask });
            read_line(&stream).map_err(|error| sent.err().unwrap_or(error))
        };
        let line = exchange().map_err(SignError::Unreachable)?;
        match serde_json::from_str(&line) {
            Ok(Answer::Refused { problem }) => Err(SignError::Refused(problem)),
            Ok(answer) => Ok(answer),
            Err(error) => Err(SignError::Wrong(error.to_string())),
        }
    }

    /// Asks whose key the signer has, and compares.
    fn check_key(&self) -> Result<(), SignError> {
        let answer = self.ask(Ask::Key {})?;
        let Answer::Key { verifier, .. } = &answer else {
            return Err(unexpected(&answer));
        };
        if *verifier == self.key.to_string() {
            return Ok(());
        }
        Err(SignError::Wrong(format!(
            "it signs by {verifier}, but keys/ledger.pub says {}",
            self.key
        )))
    }
}

fn unexpected(answer: &Answer) -> SignError {
    SignError::Wrong(format!("it answered something else: {answer:?}"))
}

impl Signer for RemoteSigner {
    fn name(&self) -> &str {
        self.key.name()
    }

    fn verifiers(&self) -> Vec<VerifierKey> {
        std::iter::once(&self.key)
            .chain(&self.before)
            .cloned()
            .collect()
    }

    fn sign_checkpoint(
        &self,
        checkpoint: &Checkpoint,
        extends: &dyn Extends,
    ) -> Result<String, SignError> {
        let mut old = self.size.load(Ordering::Relaxed);
        // The second time with the size that the signer names, which no other can have moved.
        for _ in 0..2 {
            let proof = if old == 0 {
                Vec::new()
            } else {
                extends.consistency_proof(old)?
            };
            let ask = Ask::Sign {
                checkpoint: checkpoint.to_string(),
                old,
                proof: proof.iter().map(|hash| STANDARD.encode(hash.0)).collect(),
            };
            let answer = self.ask(ask)?;
            if let Answer::Signed { note } = answer {
                // What is signed from here on, is after the rotation.
                let signed = Checkpoint::verify(note.as_bytes(), std::slice::from_ref(&self.key));
                signed.map_err(|error| SignError::Wrong(error.to_string()))?;
                self.size.store(checkpoint.size, Ordering::Relaxed);
                return Ok(note);
            }
            let Answer::Elsewhere { size } = answer else {
                return Err(unexpected(&answer));
            };
            old = size;
            self.size.store(size, Ordering::Relaxed);
        }
        Err(SignError::Wrong(
            "it names another size each time".to_owned(),
        ))
    }

    fn frame_nonces(&self, epoch: u64) -> Result<Vec<u64>, SignError> {
        self.check_key()?;
        let answer = self.ask(Ask::FrameNonce { epoch })?;
        let Answer::FrameNonce { nonce } = answer else {
            return Err(unexpected(&answer));
        };
        Ok(vec![nonce])
    }

    fn rotate(&self, checkpoint: &Checkpoint) -> Result<String, SignError> {
        let checkpoint = checkpoint.to_string();
        let answer = self.ask(Ask::Rotate { checkpoint })?;
        let Answer::Rotated { note } = answer else {
            return Err(unexpected(&answer));
        };
        Ok(note)
    }
}

fn hashes(proof: &[String]) -> Option<Vec<Hash>> {
    if proof.len() > PROOF_MAX {
        return None;
    }
    let hash = |text: &String| Some(Hash(STANDARD.decode(text).ok()?.try_into().ok()?));
    proof.iter().map(hash).collect()
}
