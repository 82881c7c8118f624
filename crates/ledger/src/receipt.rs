//! Receipts: a proof for one entry that can be carried away and checked offline, in the form of
//! C2SP tlog-proof (2026-07). The entry itself is its `extra` data, so that nothing else is needed:
//! what is not authenticated there is hashed, and the hash is.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::ENTRY_BYTES_MAX;
use crate::error::ReadError;
use crate::merkle::{HEIGHT_MAX, Hash, ProofError, leaf_hash, verify_inclusion};
use crate::note::{Checkpoint, NOTE_BYTES_MAX, Note, NoteError, VerifierKey};
use crate::published::Published;

/// Longest receipt, in bytes: the entry in base64, 64 hashes of 45 bytes, a note; rounded up.
pub const RECEIPT_BYTES_MAX: usize = 384 * 1024;

/// First line.
const HEADER: &str = "c2sp.org/tlog-proof@v1";

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
}

impl Reached {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Reached::Durable => "durable",
            Reached::Signed => "signed",
            Reached::Witnessed => "witnessed",
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
    /// The receipt for entry `index`, which is `entry`, and how far it has come: by the newest
    /// witnessed checkpoint if that covers it, by the newest signed one otherwise, and none where
    /// neither does. Nobody's signature is checked here; that is for whoever gets it.
    ///
    /// # Errors
    /// When checkpoints or tiles cannot be read.
    pub fn receipt(
        &self,
        index: u64,
        entry: &[u8],
    ) -> Result<(Reached, Option<Receipt>), ReadError> {
        let found = [
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
}
