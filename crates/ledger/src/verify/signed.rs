//! The part of verification that reads the signed checkpoints along with the entries, and sees to it that
//! each is signed by the key whose turn it was.
//!
//! A rotation of the key stands before all checkpoints of the new key, so the keys are known in time when
//! the first one was given. Where only a later one was, the checkpoints before are read a second time
//! once the rotation names the key that signed them: what they are worth follows from the rotation,
//! which the later key has signed together with all that came before.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::disk::read_file;
use crate::format::checkpoints::{Record, Records};
use crate::format::error::{FileError, ReadError};
use crate::format::note::{Checkpoint, NOTE_BYTES_MAX, Note, NoteError, VerifierKey};
use crate::format::segment::list_segments;
use crate::keys::rotation::{Rotation, RotationError};
use crate::read::verified_state::VerifiedState;
use crate::verify::bundles::bundle_at;
use crate::verify::check::Check;
use crate::verify::failure::FailureKind;
use crate::verify::tiles::check_tile;
use crate::verify::walk::Walk;

/// The newest signed checkpoint.
const CURRENT: &str = "checkpoint";

/// All signed checkpoints.
const RECORDS: &str = "checkpoints";

/// How often `checkpoint` and `checkpoints` are read again while they differ: a writer changes one
/// just after the other.
const SNAPSHOT_TRIES: u32 = 5;

/// Time between these tries: publishing takes some milliseconds.
const SNAPSHOT_PAUSE: Duration = Duration::from_millis(20);

/// The signed checkpoints, read along with the entries.
pub(crate) struct Signed {
    path: PathBuf,
    /// The rest of them; none where a copy has no file of all checkpoints.
    records: Option<Records>,
    /// The next one to be reached, with the offset of its note.
    pub(crate) next: Option<(u64, Checkpoint)>,
    /// The last one read.
    pub(crate) last: Option<Checkpoint>,
    pub(crate) count: u64,
    /// Where the record of the last one starts, its note, and the key that was found to have signed it.
    record_at: u64,
    note: Vec<u8>,
    by: Option<VerifierKey>,
    /// Where the records start of which it is not known yet whose turn it was to sign them.
    undecided: Option<u64>,
    /// Size of the first one that is read.
    start: u64,
    /// Size of the newest one.
    pub(crate) newest: u64,
}

impl Signed {
    fn new(path: PathBuf, records: Option<Records>, newest: u64) -> Signed {
        Signed {
            path,
            records,
            next: None,
            last: None,
            count: 0,
            record_at: 0,
            note: Vec::new(),
            by: None,
            undecided: None,
            start: 0,
            newest,
        }
    }
}

impl Check<'_> {
    /// Reads a checkpoint, and finds out which of the keys known by now has signed it. That it is none of
    /// them is no error yet: the log may tell of others.
    fn read_checkpoint(&self, note: &[u8]) -> Result<(Checkpoint, Option<VerifierKey>), NoteError> {
        let keys = self.chain.keys();
        match Checkpoint::verify(note, &keys) {
            Ok(checkpoint) => {
                let signed = |key: &&VerifierKey| {
                    keys.len() == 1 || Checkpoint::verify(note, &[(*key).clone()]).is_ok()
                };
                Ok((checkpoint, keys.iter().find(signed).cloned()))
            }
            Err(NoteError::Unsigned { .. }) => {
                Ok((Checkpoint::parse(Note::parse(note)?.text())?, None))
            }
            Err(error) => Err(error),
        }
    }

    /// The checkpoint remembered from elsewhere; who has signed it is seen at the end.
    pub(crate) fn read_remembered(&mut self) -> Option<Checkpoint> {
        match self.read_checkpoint(self.what.remembered?) {
            Ok((checkpoint, _)) => Some(checkpoint),
            Err(error) => {
                let path = Path::new("the remembered checkpoint");
                self.fail(path, None, None, FailureKind::Note(error));
                None
            }
        }
    }

    /// The signed checkpoints, before the first that is over at least `start` entries.
    pub(crate) fn open_signed(&mut self, start: u64) -> Option<Signed> {
        let signed = self.open_signed_at(start)?;
        if signed.newest < start && self.failures.is_empty() {
            let (signed, size) = (start, signed.newest);
            let path = self.what.dir.join(CURRENT);
            let kind = FailureKind::TooSmall { signed, size };
            self.fail(&path, None, Some(size), kind);
            return None;
        }
        Some(signed)
    }

    fn open_signed_at(&mut self, start: u64) -> Option<Signed> {
        let whole = self
            .what
            .disk
            .permissions(&self.what.dir.join(RECORDS))
            .is_ok();
        if !whole && self.is_tiles() {
            return self.open_single();
        }
        let mut signed = self.open_records()?;
        if let Some(from) = &self.from {
            signed.start = start;
            signed.count = from.before;
            if let Some(records) = &mut signed.records {
                records.offset = from.record_at.min(records.len_bytes);
            }
        }
        self.advance_signed(&mut signed);
        Some(signed)
    }

    /// Whether the log has no segments (any more), but is there in its tiles.
    pub(crate) fn is_tiles(&self) -> bool {
        match list_segments(&*self.what.disk, self.what.dir) {
            Ok(segments) => segments.is_empty(),
            Err(error) => matches!(error, ReadError::Missing { .. }),
        }
    }

    /// Takes `checkpoint` for the only one, as others than the log's own writer keep it.
    fn open_single(&mut self) -> Option<Signed> {
        let path = self.what.dir.join(CURRENT);
        let note = match read_file(&*self.what.disk, &path, NOTE_BYTES_MAX as u64) {
            Ok(note) => note,
            Err(error) => {
                self.fail_file(&FileError::at("read", &path)(error));
                return None;
            }
        };
        match self.read_checkpoint(&note) {
            Ok((checkpoint, by)) => Some(Signed {
                last: Some(checkpoint.clone()),
                count: 1,
                note,
                by,
                newest: checkpoint.size,
                next: Some((0, checkpoint)),
                ..Signed::new(path, None, 0)
            }),
            Err(error) => {
                self.fail(&path, Some(0), None, FailureKind::Note(error));
                None
            }
        }
    }

    /// Opens `checkpoints` and compares its last with `checkpoint`.
    fn open_records(&mut self) -> Option<Signed> {
        let disk = &*self.what.disk;
        let current = self.what.dir.join(CURRENT);
        let path = self.what.dir.join(RECORDS);
        for attempt in 1..=SNAPSHOT_TRIES {
            // The writer changes `checkpoints` first, so it is read last.
            let note = read_file(disk, &current, NOTE_BYTES_MAX as u64);
            let mut records = match Records::open(disk, &path) {
                Ok(Some(records)) => records,
                Ok(None) => {
                    self.fail(&path, None, None, FailureKind::Missing);
                    return None;
                }
                Err(error) => {
                    self.fail_file(&error);
                    return None;
                }
            };
            let last = match records.last() {
                Ok(last) => last.ok().flatten(),
                Err(error) => {
                    self.fail_file(&error);
                    return None;
                }
            };
            records.offset = 0;
            let is = |note: &Vec<u8>, record: &Option<Vec<u8>>| Some(note) == record.as_ref();
            let same = note.as_ref().is_ok_and(|note| is(note, &last));
            // A writer that died between the two left the one before. The next open mends it.
            let behind = note
                .as_ref()
                .is_ok_and(|note| is(note, &records.before_last));
            if !same && attempt < SNAPSHOT_TRIES {
                std::thread::sleep(SNAPSHOT_PAUSE);
                continue;
            }
            match note {
                Err(error) => self.fail_file(&FileError::at("read", &current)(error)),
                Ok(note) => {
                    // What is recorded as well, is judged there.
                    let found = if same || behind {
                        self.read_checkpoint(&note)
                            .map(|(checkpoint, _)| checkpoint)
                    } else {
                        Checkpoint::verify(&note, self.what.keys)
                    };
                    match found {
                        Err(error) => self.fail(&current, Some(0), None, FailureKind::Note(error)),
                        Ok(found) if !same && !behind => {
                            self.fail(&current, Some(0), Some(found.size), FailureKind::NotNewest);
                        }
                        Ok(_) => {}
                    }
                }
            }
            let newest = last.and_then(|note| self.read_checkpoint(&note).ok());
            let newest = newest.map_or(0, |(checkpoint, _)| checkpoint.size);
            return Some(Signed::new(path, Some(records), newest));
        }
        None
    }

    /// Reads the next checkpoint; what is wrong with it is noted, and those that cannot be trusted
    /// are passed over.
    fn advance_signed(&mut self, signed: &mut Signed) {
        signed.next = None;
        let Some(records) = &mut signed.records else {
            return;
        };
        loop {
            let at = records.offset;
            let record = match records.next() {
                Ok(record) => record,
                Err(error) => return self.fail_file(&error),
            };
            let (offset, note) = match record {
                Record::End if signed.last.is_none() => {
                    return self.fail(&signed.path, Some(at), None, FailureKind::Record);
                }
                Record::End => return,
                Record::Torn | Record::Malformed => {
                    return self.fail(&signed.path, Some(at), None, FailureKind::Record);
                }
                Record::Note(offset, note) => (offset, note),
            };
            signed.count += 1;
            let (checkpoint, by) = match self.read_checkpoint(&note) {
                Ok(found) => found,
                Err(error) => {
                    self.fail(&signed.path, Some(offset), None, FailureKind::Note(error));
                    continue;
                }
            };
            let size = checkpoint.size;
            let before = signed.last.as_ref().map(|last| last.size);
            match before {
                // The log begins with the checkpoint of nothing, and goes on from where it was.
                None if size != signed.start => {
                    let kind = FailureKind::Record;
                    self.fail(&signed.path, Some(offset), Some(size), kind);
                }
                Some(before) if size <= before => {
                    let kind = FailureKind::Order { size, before };
                    self.fail(&signed.path, Some(offset), Some(size), kind);
                    continue;
                }
                _ => {}
            }
            signed.last = Some(checkpoint.clone());
            signed.next = Some((offset, checkpoint));
            (signed.record_at, signed.note, signed.by) = (at, note, by);
            return;
        }
    }

    /// Compares roots at a size that was signed.
    pub(crate) fn reach(&mut self, walk: &mut Walk, signed: &mut Signed) {
        let size = walk.builder.size();
        if let Some(checkpoint) = walk.remembered.as_ref().filter(|c| c.size == size) {
            let root = checkpoint.root;
            walk.remembered_done = true;
            let path = Path::new("the remembered checkpoint");
            self.compare(path, None, size, root, walk.builder.root());
        }
        while let Some((offset, checkpoint)) = signed.next.as_ref().filter(|(_, c)| c.size == size)
        {
            let (offset, root) = (*offset, checkpoint.root);
            let path = signed.path.clone();
            self.judge(signed, offset);
            self.compare(&path, Some(offset), size, root, walk.builder.root());
            let signing = self.chain.signing().filter(|_| size == signed.newest);
            if let Some(signing) = signing {
                walk.verified_state = Some(VerifiedState {
                    note: signed.note.clone(),
                    signing: signing.clone(),
                    rotations: self.chain.rotations().to_vec(),
                    builder: walk.complete(),
                    epoch: walk.epoch,
                    record_at: signed.record_at,
                    before: signed.count - 1,
                });
            }
            self.advance_signed(signed);
        }
        if size == signed.newest && size > 0 {
            // What clients of the newest checkpoint need, is there.
            for (tile, bytes) in walk.complete().partial() {
                check_tile(self, tile, bytes, true);
            }
        }
    }

    /// Whether the checkpoint read last, over what the log has come to, is signed by the key whose turn
    /// it is.
    fn judge(&mut self, signed: &mut Signed, offset: u64) {
        if signed.undecided.is_some()
            || (signed.by.is_some() && signed.by.as_ref() == self.chain.signing())
        {
            return;
        }
        match (self.chain.signing(), signed.by.clone()) {
            (None, Some(key)) => self.chain.adopt(key),
            // Those before a rotation, to whoever only knows a later key.
            (None, None) => signed.undecided = Some(signed.record_at),
            (Some(_), _) => {
                if let Err(error) = self.chain.verify(&signed.note) {
                    self.fail(&signed.path, Some(offset), None, FailureKind::Note(error));
                }
            }
        }
    }

    /// Takes in the statement that stands in entry `index`, which comes next.
    pub(crate) fn rotate(&mut self, index: u64, note: &[u8], walk: &Walk, signed: &mut Signed) {
        if let Err(error) = self.take_rotation(index, note, walk, signed) {
            let path = self.what.dir.join(bundle_at(index).to_string());
            self.fail(&path, None, Some(index), FailureKind::Rotation(error));
        }
    }

    fn take_rotation(
        &mut self,
        index: u64,
        note: &[u8],
        walk: &Walk,
        signed: &mut Signed,
    ) -> Result<(), RotationError> {
        let rotation = Rotation::verify(note)?;
        if rotation.size != index {
            let size = rotation.size;
            return Err(RotationError::Place { size, index });
        }
        let found = walk.builder.root();
        if rotation.root != found {
            let stated = rotation.root;
            return Err(RotationError::Root { stated, found });
        }
        let old = rotation.old.clone();
        self.chain.rotate(rotation)?;
        if let Some(from) = signed.undecided.take() {
            // What comes next is over more, so it is the new key's.
            let until = signed.next.as_ref().map(|_| signed.record_at);
            self.decide(signed, from, until, &[old]);
        }
        Ok(())
    }

    /// Reads the checkpoints of which it was not known whose they are again.
    fn decide(&mut self, signed: &Signed, from: u64, until: Option<u64>, keys: &[VerifierKey]) {
        if signed.records.is_none() {
            if let Err(error) = Checkpoint::verify(&signed.note, keys) {
                self.fail(&signed.path, Some(0), None, FailureKind::Note(error));
            }
            return;
        }
        let mut records = match Records::open(&*self.what.disk, &signed.path) {
            Ok(Some(records)) => records,
            Ok(None) => return self.fail(&signed.path, None, None, FailureKind::Missing),
            Err(error) => return self.fail_file(&error),
        };
        records.offset = from;
        while until.is_none_or(|until| records.offset < until) {
            let (offset, note) = match records.next() {
                Ok(Record::Note(offset, note)) => (offset, note),
                // What else is wrong, was found before.
                Ok(_) => return,
                Err(error) => return self.fail_file(&error),
            };
            if let Err(error @ NoteError::Unsigned { .. }) = Checkpoint::verify(&note, keys) {
                self.fail(&signed.path, Some(offset), None, FailureKind::Note(error));
            }
        }
    }

    /// Reads the checkpoints that were not reached: their signatures count all the same.
    pub(crate) fn check_rest(&mut self, signed: &mut Signed) {
        while let Some((offset, _)) = signed.next {
            self.judge(signed, offset);
            self.advance_signed(signed);
        }
    }

    /// After all entries: every checkpoint has been signed by the key whose turn it was, and one of all
    /// these keys is one that was given.
    pub(crate) fn check_keys(&mut self, signed: &mut Signed) {
        if let Some(from) = signed.undecided.take() {
            self.decide(signed, from, None, self.what.keys);
        }
        if !self.chain.is_anchored() {
            let path = self.what.dir.join(CURRENT);
            self.fail(&path, None, None, FailureKind::ForeignKeys);
        }
        if let Some(note) = self.what.remembered
            && let Err(error) = self.chain.verify(note)
        {
            let path = Path::new("the remembered checkpoint");
            self.fail(path, None, None, FailureKind::Note(error));
        }
    }
}
