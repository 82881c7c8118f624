//! Receipts: a proof for one entry that can be carried away and checked offline, in the form of
//! C2SP tlog-proof (2026-07). The entry itself is its `extra` data, so that nothing else is needed:
//! what is not authenticated there is hashed, and the hash is. A timestamp token (RFC 3161) stands as
//! the last signature line of the checkpoint: it is over the note before that line.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::format::ENTRY_BYTES_MAX;
use crate::format::error::ReadError;
use crate::format::merkle::{HEIGHT_MAX, Hash, ProofError, leaf_hash, verify_inclusion};
use crate::format::note::{
    Checkpoint, NOTE_BYTES_MAX, Note, NoteError, SIGNATURE_PREFIX, VerifierKey,
};
use crate::read::published::{Published, Stamped};

/// Longest receipt, in bytes: the entry in base64, 64 hashes of 45 bytes, a note; rounded up.
pub const RECEIPT_BYTES_MAX: usize = 384 * 1024;

/// First line.
const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// The name on the line of a note that holds a timestamp token.
const TOKEN_NAME: &str = "rfc3161.timestamp";

/// Its signature type (C2SP signed-note: 0xff, then a text that nobody else uses).
const TOKEN_TYPE: &[u8] = b"\xffcurfew RFC 3161 response over the note before this line";

/// Stamped checkpoints that are looked at for one with signatures of witnesses as well.
const LOOKED_AT_MAX: usize = 16;

/// How far an entry has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reached {
    /// It survives a crash. No checkpoint covers it yet, so nothing can be proved of it.
    Durable,
    /// A signed checkpoint covers it: the log can no longer deny it.
    Signed,
    /// A quorum of witnesses has cosigned such a checkpoint: the log can no longer show others
    /// another history.
    Witnessed,
    /// A timestamping authority (RFC 3161) has said when such a checkpoint existed: nobody can have
    /// made the entry up later, not even the log's operator.
    Timestamped,
}

impl Reached {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Reached::Durable => "durable",
            Reached::Signed => "signed",
            Reached::Witnessed => "witnessed",
            Reached::Timestamped => "timestamped",
        }
    }
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a receipt proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// Not of the form of C2SP tlog-proof.
    #[error("malformed receipt: {0}")]
    Malformed(&'static str),
    /// The checkpoint in it.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// It holds no entry.
    #[error("it holds no entry to be proved")]
    NoEntry,
    /// The entry is not the one in the log.
    #[error("entry {index} of the log is another one: {error}")]
    Proof {
        /// The index it claims.
        index: u64,
        /// What is wrong with the proof.
        error: ProofError,
    },
}

/// The proof for one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The entry; not to be believed before [`Receipt::verify`].
    pub entry: Option<Vec<u8>>,
    /// Its index in the log.
    pub index: u64,
    /// The inclusion proof, leaf side first.
    pub proof: Vec<Hash>,
    /// The checkpoint it leads to, as a signed note.
    pub checkpoint: String,
}

impl Receipt {
    /// Reads a receipt.
    ///
    /// # Errors
    /// [`ReceiptError::Malformed`]; the checkpoint in it is not looked at.
    pub fn parse(bytes: &[u8]) -> Result<Receipt, ReceiptError> {
        let fail = ReceiptError::Malformed;
        if bytes.len() > RECEIPT_BYTES_MAX {
            return Err(fail("longer than 384 KiB"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| fail("not UTF-8"))?;
        let (head, checkpoint) = text.split_once("\n\n").ok_or(fail("no empty line"))?;
        let mut lines = head.split('\n').peekable();
        if lines.next() != Some(HEADER) {
            return Err(fail("the first line is not c2sp.org/tlog-proof@v1"));
        }
        let extra = lines.peek().and_then(|line| line.strip_prefix("extra "));
        let entry = match extra {
            Some(data) => {
                lines.next();
                let data = STANDARD.decode(data);
                Some(data.map_err(|_| fail("the extra data is not base64"))?)
            }
            None => None,
        };
        if entry.as_ref().is_some_and(|e| e.len() > ENTRY_BYTES_MAX) {
            return Err(fail("the entry is longer than one can be"));
        }
        let digits = lines.next().and_then(|line| line.strip_prefix("index "));
        let digits = digits.ok_or(fail("no index"))?;
        let index: u64 = digits.parse().map_err(|_| fail("the index is no number"))?;
        if index.to_string() != digits {
            return Err(fail("the index is not in its plain form"));
        }
        let mut proof = Vec::new();
        for line in lines {
            if proof.len() == HEIGHT_MAX {
                return Err(fail("more hashes than a tree is high"));
            }
            let hash = STANDARD.decode(line).ok();
            let hash = hash.and_then(|hash| hash.try_into().ok());
            proof.push(Hash(hash.ok_or(fail("a line that is no hash"))?));
        }
        if checkpoint.len() > NOTE_BYTES_MAX {
            return Err(fail("the checkpoint is longer than 256 KiB"));
        }
        Ok(Receipt {
            entry,
            index,
            proof,
            checkpoint: checkpoint.to_owned(),
        })
    }

    /// Proves the entry: it is the one of its index in the log that one of `keys` signs for. Gives
    /// the checkpoint that says so.
    ///
    /// # Errors
    /// See [`ReceiptError`].
    pub fn verify(&self, keys: &[VerifierKey]) -> Result<Checkpoint, ReceiptError> {
        let note = self.checkpoint.as_bytes();
        // Of several logs, the one that the checkpoint names.
        let origin = Checkpoint::parse(Note::parse(note)?.text())?.origin;
        let own: Vec<_> = keys
            .iter()
            .filter(|k| k.name() == origin)
            .cloned()
            .collect();
        let keys = if own.is_empty() { keys } else { &own };
        let checkpoint = Checkpoint::verify(note, keys)?;
        let entry = self.entry.as_ref().ok_or(ReceiptError::NoEntry)?;
        let (index, size) = (self.index, checkpoint.size);
        let leaf = leaf_hash(entry);
        verify_inclusion(&leaf, index, size, &self.proof, &checkpoint.root)
            .map_err(|error| ReceiptError::Proof { index, error })?;
        Ok(checkpoint)
    }
}

/// The line that holds a token, as the last one of a note. Who knows nothing of it takes it for a
/// signature by an unknown key, and passes over it.
fn token_line(response: &[u8]) -> String {
    let data = [&token_id()[..], response].concat();
    format!("{SIGNATURE_PREFIX}{TOKEN_NAME} {}\n", STANDARD.encode(data))
}

fn token_id() -> [u8; 4] {
    let mut hash = Sha256::new();
    hash.update(TOKEN_NAME.as_bytes());
    hash.update(b"\n");
    hash.update(TOKEN_TYPE);
    let hash = hash.finalize();
    [hash[0], hash[1], hash[2], hash[3]]
}

impl Receipt {
    /// What a timestamping authority answered over the checkpoint, and the checkpoint as it was then;
    /// neither is to be believed before it is verified. `None` where the receipt has none.
    #[must_use]
    pub fn stamped(&self) -> Option<Stamped> {
        let lines = self.checkpoint.strip_suffix('\n')?;
        let (before, last) = lines.rsplit_once('\n')?;
        let data = last.strip_prefix(SIGNATURE_PREFIX)?;
        let data = data.strip_prefix(TOKEN_NAME)?.strip_prefix(' ')?;
        let data = STANDARD.decode(data).ok()?;
        let response = data.strip_prefix(&token_id()[..])?;
        Some(Stamped {
            checkpoint: format!("{before}\n").into_bytes(),
            response: response.to_vec(),
        })
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        if let Some(entry) = &self.entry {
            writeln!(f, "extra {}", STANDARD.encode(entry))?;
        }
        writeln!(f, "index {}", self.index)?;
        for hash in &self.proof {
            writeln!(f, "{}", STANDARD.encode(hash.0))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

impl Published {
    /// The receipt for entry `index`, which is `entry`, and how far it has come: by the oldest
    /// timestamped checkpoint that covers it, by the newest witnessed one if that does, by the newest signed one otherwise, and none where
    /// neither does. Nobody's signature is checked here; that is for whoever gets it.
    ///
    /// # Errors
    /// When checkpoints or tiles cannot be read.
    pub fn receipt(
        &self,
        index: u64,
        entry: &[u8],
    ) -> Result<(Reached, Option<Receipt>), ReadError> {
        let stamped = self.stamped_after(index)?;
        let found = [
            (Reached::Timestamped, stamped),
            (Reached::Witnessed, self.witnessed()?),
            (Reached::Signed, self.checkpoint()?),
        ];
        for (reached, note) in found {
            let Some(note) = note.and_then(|note| String::from_utf8(note).ok()) else {
                continue;
            };
            let parsed = Note::parse(note.as_bytes());
            let parsed = parsed.and_then(|parsed| Checkpoint::parse(parsed.text()));
            let Some(size) = parsed.ok().map(|c| c.size).filter(|size| *size > index) else {
                continue;
            };
            let receipt = Receipt {
                entry: Some(entry.to_vec()),
                index,
                proof: self.inclusion_proof(index, size)?,
                checkpoint: note,
            };
            return Ok((reached, Some(receipt)));
        }
        Ok((Reached::Durable, None))
    }

    /// The oldest checkpoint after entry `index` that has a timestamp, with that as its last line; one
    /// with signatures of witnesses, where there are witnesses and it is not far.
    fn stamped_after(&self, index: u64) -> Result<Option<Vec<u8>>, ReadError> {
        let sizes = self.timestamps()?;
        let from = sizes.partition_point(|size| *size <= index);
        let has_witnesses = self.witnessed()?.is_some();
        let mut oldest = None;
        for size in sizes.iter().skip(from).take(LOOKED_AT_MAX) {
            let Some(stamped) = self.timestamp(*size)? else {
                continue;
            };
            let mut note = stamped.checkpoint;
            note.extend_from_slice(token_line(&stamped.response).as_bytes());
            // One that has as many signatures as a note can have has no room.
            let Ok(parsed) = Note::parse(&note) else {
                continue;
            };
            // The log's own, and the token.
            if !has_witnesses || parsed.signatures() > 2 {
                return Ok(Some(note));
            }
            oldest = oldest.or(Some(note));
        }
        Ok(oldest)
    }
}
