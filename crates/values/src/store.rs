//! The store as the gateway holds it, and as a verifier reads it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use curfew_entry::{Commitment, Concealed, Field, SubjectName};
use curfew_ledger::Disk;
use curfew_ledger::disk::{DiskFile, OpenMode};
use zeroize::Zeroizing;

use crate::ValuesError;
use crate::files::{self, Content, Files};
use crate::keys::{self, SLOT_BYTES, Slot, State};
use crate::record::{Header, Opened, Record};

/// What can be shown of a field that an entry conceals.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Shown {
    /// The value, which is the one that the entry commits to.
    Value(String),
    /// Its key has been erased, and the value with it.
    Erased,
    /// It is not there, or cannot be read.
    Missing,
    /// What is there is not what the entry commits to.
    Wrong,
}

impl Shown {
    /// The value, or in its place what has become of it, with the commitment: `erased:…`,
    /// `missing:…`, `wrong:…`.
    pub fn told(self, commitment: &Commitment) -> String {
        match self {
            Self::Value(value) => value,
            Self::Erased => format!("erased:{commitment}"),
            Self::Missing => format!("missing:{commitment}"),
            Self::Wrong => format!("wrong:{commitment}"),
        }
    }
}

/// The same of all fields of an entry.
pub fn told(fields: Fields, concealed: &Concealed) -> Vec<(Field, String)> {
    let told = |(field, shown): (Field, Shown)| {
        let commitment = concealed.get(&field)?;
        Some((field, shown.told(commitment)))
    };
    fields.into_iter().filter_map(told).collect()
}

/// What can be shown of an entry's concealed fields, in their order.
pub type Fields = Vec<(Field, Shown)>;

/// What stands in the store for an entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Kept {
    /// Whose key it is under, where that can be told.
    pub subject: Option<SubjectName>,
    /// What can be shown.
    pub fields: Fields,
}

impl From<Opened> for Shown {
    fn from(opened: Opened) -> Self {
        match opened {
            Opened::Value(value) => Self::Value(value),
            Opened::Wrong => Self::Wrong,
            Opened::Missing => Self::Missing,
        }
    }
}

/// What a reader of many entries keeps from one to the next: the file it has read.
#[derive(Debug, Default)]
pub struct Held(Option<(u64, Content)>);

/// The keys of a subject that are to be erased: no more in memory, not yet gone from the disk.
#[derive(Clone, Debug)]
pub struct Condemned {
    slots: BTreeSet<u64>,
    /// Entries from this one on are left alone.
    before: u64,
}

/// What an erasure has come to. Counts what earlier ones of the same subject had erased as well, so
/// that one that a crash has cut short says the same when it is done again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Wiped {
    /// Keys overwritten.
    pub keys: u64,
    /// Entries whose values cannot be read any more.
    pub entries: u64,
}

/// Everything in memory. Held for moments only, never while the disk is at work.
#[derive(Debug, Default)]
struct Front {
    slots: Vec<Option<Slot>>,
    /// The key under which a subject's next values go.
    current: BTreeMap<SubjectName, u64>,
    /// Slots that are not known to be on the disk.
    unwritten: BTreeSet<u64>,
    /// Records whose entries are not known to be durable, in the order of the log.
    held: VecDeque<(u64, Vec<u8>)>,
    /// How many of them are durable themselves.
    flushed: usize,
    failed: bool,
}

#[derive(Debug)]
struct Back {
    files: Files,
    keys: Box<dyn DiskFile>,
}

/// The values of a log that is being written. One per log; the ledger's lock keeps others out.
#[derive(Debug)]
pub struct Store {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    front: Mutex<Front>,
    /// Taken before `front` where both are.
    back: Mutex<Back>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves it whole: each change is one step, and what was under way is redone.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn keys_path(dir: &Path) -> PathBuf {
    dir.join("keys")
}

impl Back {
    fn open(disk: &Arc<dyn Disk>, dir: &Path, size: u64) -> Result<Self, ValuesError> {
        Ok(Self {
            keys: keys::file(&**disk, &keys_path(dir))?,
            files: Files::open(Arc::clone(disk), dir, size)?,
        })
    }

    /// Writes slots in place and makes that durable.
    fn write(
        &self,
        dir: &Path,
        slots: &[(u64, Zeroizing<[u8; SLOT_BYTES]>)],
    ) -> Result<(), ValuesError> {
        if slots.is_empty() {
            return Ok(());
        }
        let path = keys_path(dir);
        for (number, bytes) in slots {
            let written = self.keys.write_all_at(&**bytes, number * SLOT_BYTES as u64);
            written.map_err(ValuesError::at("write", &path))?;
        }
        let synced = self.keys.sync_data();
        synced.map_err(ValuesError::at("sync", &path))
    }
}

impl Front {
    fn slot(&self, number: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(number).ok()?)?.as_ref()
    }

    /// The subject's key, made where there is none.
    fn key_of(&mut self, subject: &SubjectName, first: u64) -> Result<u64, ValuesError> {
        if let Some(number) = self.current.get(subject) {
            return Ok(*number);
        }
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *key).map_err(|_| ValuesError::Random)?;
        let number = self.slots.len() as u64;
        self.slots.push(Some(Slot {
            subject: subject.clone(),
            first,
            state: State::Live(key),
        }));
        self.current.insert(subject.clone(), number);
        self.unwritten.insert(number);
        Ok(number)
    }

    fn bytes_of(
        &self,
        numbers: impl Iterator<Item = u64>,
    ) -> Vec<(u64, Zeroizing<[u8; SLOT_BYTES]>)> {
        numbers
            .filter_map(|number| Some((number, self.slot(number)?.bytes(number))))
            .collect()
    }
}

/// What is shown of the record of an entry.
fn shown(slot: Option<&Slot>, record: Option<(&Header, &[u8])>, concealed: &Concealed) -> Fields {
    let all = |shown: Shown| {
        let fields = concealed.keys();
        fields.map(|field| (*field, shown.clone())).collect()
    };
    match (slot.map(|slot| &slot.state), record) {
        (Some(State::Live(key)), Some((header, rest))) => match Record::open(header, rest, key) {
            Some(record) => record
                .held_against(concealed)
                .into_iter()
                .map(|(field, opened)| (field, opened.into()))
                .collect(),
            None => all(Shown::Missing),
        },
        (Some(State::Erased), Some(_)) => all(Shown::Erased),
        (Some(State::Damaged) | None, _) | (_, None) => all(Shown::Missing),
    }
}

impl Store {
    /// Opens the store of a log with `size` durable entries, and makes it where it is missing. What
    /// was kept for entries that did not become part of the log is removed.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, size: u64) -> Result<Self, ValuesError> {
        let made = disk.create_dir_all(dir);
        made.map_err(ValuesError::at("create", dir))?;
        let back = Back::open(&disk, dir, size)?;
        let slots = keys::load(&*back.keys, &keys_path(dir))?;
        let mut current = BTreeMap::new();
        for (number, slot) in (0..).zip(&slots) {
            if let Some(slot) = slot {
                // A later key takes over; one that cannot be used leaves room for another.
                match slot.state {
                    State::Live(_) => current.insert(slot.subject.clone(), number),
                    State::Erased | State::Damaged => current.remove(&slot.subject),
                };
            }
        }
        Ok(Self {
            disk,
            dir: dir.to_path_buf(),
            front: Mutex::new(Front {
                slots,
                current,
                ..Front::default()
            }),
            back: Mutex::new(back),
        })
    }

    /// Opens it again after a failure, at a log of `size` durable entries. What was staged for
    /// entries past them is staged again.
    ///
    /// # Errors
    /// Whatever the disk reports; it stays failed then.
    pub fn reopen(&self, size: u64) -> Result<(), ValuesError> {
        let mut back = lock(&self.back);
        *back = Back::open(&self.disk, &self.dir, size)?;
        let mut front = lock(&self.front);
        front.flushed = 0;
        front.failed = false;
        drop(front);
        drop(back);
        self.durable(size);
        Ok(())
    }

    /// Takes in the values of the entry that will have this index, which must be past all before.
    /// Does not touch the disk.
    ///
    /// # Errors
    /// Where there are no random bytes, or the store has failed.
    pub fn stage(
        &self,
        index: u64,
        subject: &SubjectName,
        record: &Record,
    ) -> Result<(), ValuesError> {
        let mut front = lock(&self.front);
        if front.failed {
            return Err(ValuesError::Failed);
        }
        let number = front.key_of(subject, index)?;
        let Some(State::Live(key)) = front.slot(number).map(|slot| &slot.state) else {
            return Err(ValuesError::Failed);
        };
        let sealed = record.seal(index, number, key)?;
        front.held.push_back((index, sealed));
        Ok(())
    }

    /// Takes back what was staged last, since its entry was not taken.
    pub fn unstage(&self, index: u64) {
        let mut front = lock(&self.front);
        let last = front.held.back().is_some_and(|(held, _)| *held == index);
        if last && front.held.len() > front.flushed {
            front.held.pop_back();
        }
    }

    /// Makes everything staged durable. Blocks; the ledger calls it before it writes the entries.
    ///
    /// # Errors
    /// Whatever the disk reports. The store has failed then, until [`Self::reopen`].
    pub fn flush(&self) -> Result<(), ValuesError> {
        let mut back = lock(&self.back);
        let (slots, records) = {
            let front = lock(&self.front);
            if front.failed {
                return Err(ValuesError::Failed);
            }
            let records: Vec<_> = front.held.iter().skip(front.flushed).cloned().collect();
            (front.bytes_of(front.unwritten.iter().copied()), records)
        };
        // A key is there before anything that needs it.
        let written = back
            .write(&self.dir, &slots)
            .and_then(|()| back.files.append(&records));
        let mut front = lock(&self.front);
        if let Err(error) = written {
            front.failed = true;
            return Err(error);
        }
        for (number, _) in slots {
            front.unwritten.remove(&number);
        }
        if let Some((last, _)) = records.last() {
            front.flushed = front.held.partition_point(|(index, _)| index <= last);
        }
        Ok(())
    }

    /// The log has so many durable entries: what was kept to stage it again is let go.
    pub fn durable(&self, size: u64) {
        let mut front = lock(&self.front);
        let gone = front.held.partition_point(|(index, _)| *index < size);
        front.held.drain(..gone);
        front.flushed = front.flushed.saturating_sub(gone);
    }

    /// Removes values of entries before this one, by whole files: those that hold none of later entries.
    /// Gives how many. Blocks.
    ///
    /// # Errors
    /// Whatever the disk reports. To be called again then.
    pub fn forget(&self, before: u64) -> Result<u64, ValuesError> {
        lock(&self.back).files.forget(before)
    }

    /// From here on nothing of this subject in entries before `before` can be read through this
    /// store, and values to come have a new key. Does not touch the disk: see [`Self::wipe`].
    pub fn condemn(&self, subject: &SubjectName, before: u64) -> Condemned {
        let mut front = lock(&self.front);
        let mut slots = BTreeSet::new();
        for (number, slot) in (0..).zip(&mut front.slots) {
            if let Some(slot) = slot
                && slot.subject == *subject
                && slot.first < before
            {
                slot.state = State::Erased;
                slots.insert(number);
            }
        }
        if let Some(current) = front.current.get(subject)
            && slots.contains(current)
        {
            front.current.remove(subject);
        }
        Condemned { slots, before }
    }

    /// Overwrites the condemned keys in place; once they are gone from the disk, what was encrypted
    /// under them is overwritten too. Blocks, for as long as it takes to read all values.
    ///
    /// # Errors
    /// Whatever the disk reports. To be called again until it comes back without.
    pub fn wipe(&self, condemned: &Condemned) -> Result<Wiped, ValuesError> {
        let back = lock(&self.back);
        let slots = lock(&self.front).bytes_of(condemned.slots.iter().copied());
        back.write(&self.dir, &slots)?;
        // Only now, under the same lock: a flush in between would have written them as they are.
        let mut front = lock(&self.front);
        for (number, _) in &slots {
            front.unwritten.remove(number);
        }
        drop(front);
        let names = back.files.names().to_vec();
        drop(back);
        let mut entries = 0;
        for first in names.into_iter().filter(|first| *first < condemned.before) {
            entries += self.blank(&files::path_of(&self.dir, first), condemned)?;
        }
        Ok(Wiped {
            keys: slots.len() as u64,
            entries,
        })
    }

    /// Overwrites the condemned records of a file, and counts them.
    fn blank(&self, path: &Path, condemned: &Condemned) -> Result<u64, ValuesError> {
        let content = Content::read(&*self.disk, path)?;
        let gone: Vec<_> = content
            .records
            .iter()
            .filter(|(header, _)| {
                // What is past `before` may be cut and written again meanwhile: hands off.
                header.index < condemned.before && condemned.slots.contains(&header.slot)
            })
            .collect();
        if gone.is_empty() {
            return Ok(0);
        }
        let file = self.disk.open(path, OpenMode::Write);
        let file = file.map_err(ValuesError::at("open", path))?;
        for (header, at) in &gone {
            if content.rest(header, *at).iter().any(|byte| *byte != 0) {
                let written = file.write_all_at(&vec![0; header.rest], *at as u64);
                written.map_err(ValuesError::at("write", path))?;
            }
        }
        file.sync_data().map_err(ValuesError::at("sync", path))?;
        Ok(gone.len() as u64)
    }

    /// What can be shown of the values that an entry conceals, each held against its commitment.
    /// Blocks, for as long as it takes to read one file.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn read(&self, index: u64, concealed: &Concealed) -> Result<Fields, ValuesError> {
        self.read_on(&mut Held::default(), index, concealed)
    }

    /// The same, for whoever reads one durable entry after the other, in order: a file is read once as
    /// long as nothing is added to it. What is erased meanwhile is not shown all the same.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn read_on(
        &self,
        held: &mut Held,
        index: u64,
        concealed: &Concealed,
    ) -> Result<Fields, ValuesError> {
        let covers = |(first, content): &(u64, Content)| {
            let last = content.records.last();
            *first <= index && last.is_some_and(|(header, _)| index <= header.index)
        };
        if !held.0.as_ref().is_some_and(covers) {
            let names = files::names(&*self.disk, &self.dir)?;
            held.0 = match files::holding(&names, index) {
                Some(first) => {
                    let path = files::path_of(&self.dir, first);
                    Some((first, Content::read(&*self.disk, &path)?))
                }
                None => None,
            };
        }
        let content = held.0.as_ref().map(|(_, content)| content);
        let record = content.and_then(|content| content.find(index));
        let front = lock(&self.front);
        let slot = record.and_then(|(header, _)| front.slot(header.slot));
        Ok(shown(slot, record, concealed))
    }
}

/// The values of a log, to be read beside it. Changes nothing.
#[derive(Debug)]
pub struct Reader {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    slots: Vec<Option<Slot>>,
    names: Vec<u64>,
    /// The file that was read last: entries mostly come in order.
    content: Option<(u64, Content)>,
}

impl Reader {
    /// Opens the store in `dir`.
    ///
    /// # Errors
    /// Where there is none, or it cannot be read.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, ValuesError> {
        let path = keys_path(dir);
        let keys = disk.open(&path, OpenMode::Read);
        let keys = keys.map_err(ValuesError::at("open", &path))?;
        Ok(Self {
            slots: keys::load(&*keys, &path)?,
            names: files::names(&*disk, dir)?,
            dir: dir.to_path_buf(),
            disk,
            content: None,
        })
    }

    /// What stands in the store for an entry that conceals these fields.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn read(&mut self, index: u64, concealed: &Concealed) -> Result<Kept, ValuesError> {
        let Some(first) = files::holding(&self.names, index) else {
            return Ok(Kept {
                subject: None,
                fields: shown(None, None, concealed),
            });
        };
        let content = match self.content.take().filter(|(held, _)| *held == first) {
            Some((_, content)) => content,
            None => Content::read(&*self.disk, &files::path_of(&self.dir, first))?,
        };
        let record = content.find(index);
        let slot = record
            .and_then(|(header, _)| self.slots.get(usize::try_from(header.slot).ok()?)?.as_ref());
        let kept = Kept {
            subject: slot.map(|slot| slot.subject.clone()),
            fields: shown(slot, record, concealed),
        };
        self.content = Some((first, content));
        Ok(kept)
    }
}
