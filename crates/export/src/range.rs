//! Which entries of a log on this machine: by index or by time, as far as a checkpoint goes.

use std::fmt::{self, Display};
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use curfew_entry::{Entry, Event, Timestamp};
use curfew_ledger::note::Note;
use curfew_ledger::{Checkpoint, LogReader, ReadError};

/// The most bytes that are read of a checkpoint: what a signed note may have.
const CHECKPOINT_BYTES_MAX: u64 = 256 * 1024;

/// One end of a range.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// An index.
    Index(u64),
    /// A moment of ledger time.
    Time(Timestamp),
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => index.fmt(f),
            Self::Time(time) => time.fmt(f),
        }
    }
}

impl FromStr for Place {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(index) = text.parse() {
            return Ok(Self::Index(index));
        }
        // A day begins at midnight in UTC.
        let day = || format!("{text}T00:00:00Z").parse::<jiff::Timestamp>();
        let moment = text.parse::<jiff::Timestamp>().or_else(|_| day()).ok();
        let micros = moment.and_then(|moment| u64::try_from(moment.as_microsecond()).ok());
        micros
            .map(|micros| Self::Time(Timestamp::from_micros(micros)))
            .ok_or_else(|| {
                format!("`{text}` is neither an index nor a time; write 1500, 2026-11-24 or 2026-11-24T08:00:00Z")
            })
    }
}

/// The newest signed checkpoint in the directory of a log. Its signature is not looked at: that
/// is for `curfew-verify`.
pub fn checkpoint(dir: &Path) -> Option<Checkpoint> {
    let mut bytes = Vec::new();
    let file = File::open(dir.join("checkpoint")).ok()?;
    file.take(CHECKPOINT_BYTES_MAX)
        .read_to_end(&mut bytes)
        .ok()?;
    Checkpoint::parse(Note::parse(&bytes).ok()?.text()).ok()
}

/// The origin of a log: its checkpoint's, or what its first entry says.
pub fn origin(dir: &Path, reader: &LogReader) -> Option<String> {
    if let Some(checkpoint) = checkpoint(dir) {
        return Some(checkpoint.origin);
    }
    let first = Entry::from_bytes(&reader.entry(0).ok()?).ok()?;
    if let Event::LogOpened { origin } = first.event {
        Some(origin)
    } else {
        None
    }
}

/// The indexes between two places, of the first `size` entries and of those that are left. Without a
/// place: from the first one that is left, to the last.
///
/// # Errors
/// When the log cannot be read.
pub fn between(
    reader: &LogReader,
    from: Option<Place>,
    to: Option<Place>,
    size: u64,
) -> Result<Range<u64>, ReadError> {
    let end = |place: Option<Place>, otherwise: u64| match place {
        Some(place) => first_at(reader, place, size),
        None => Ok(otherwise),
    };
    let from = end(from, reader.first().min(size))?;
    Ok(from..end(to, size)?.max(from))
}

/// The index of the first entry that is left at or after a place, at most `size`.
///
/// # Errors
/// When the log cannot be read.
pub fn first_at(reader: &LogReader, place: Place, size: u64) -> Result<u64, ReadError> {
    let wanted = match place {
        Place::Index(index) => return Ok(index.max(reader.first()).min(size)),
        Place::Time(time) => time,
    };
    // Ledger time never runs backwards, so that halving finds it.
    let (mut low, mut high) = (reader.first().min(size), size);
    while low < high {
        let middle = low + (high - low) / 2;
        let bytes = reader.entry(middle)?;
        // What is no entry has no time; it counts as early.
        let before = Entry::from_bytes(&bytes).map_or(true, |entry| entry.time < wanted);
        if before {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}
