//! Where an entry lies, in the words of whoever has to look at it.

use std::fmt;
use std::path::Path;

use curfew_ledger::tile::{TILE_WIDTH, Tile, TileKind};
use serde::Serialize;

/// Where an entry lies in a ledger's directory.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Place {
    /// The segment that holds it; none when it is sealed, so that only the tile does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment: Option<String>,
    /// The tile that holds its text for readers of C2SP tlog-tiles.
    pub tile: String,
    /// Its number within that tile, from 0.
    pub position: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(segment) = &self.segment {
            write!(f, "{segment}; ")?;
        }
        write!(f, "number {} of {}", self.position, self.tile)
    }
}

/// The place of entry `index` of the ledger in `dir`.
pub fn place_of(dir: &Path, index: u64) -> Place {
    let width = u64::from(TILE_WIDTH);
    let tile = Tile {
        kind: TileKind::Entries,
        n: index / width,
        width: TILE_WIDTH,
    };
    Place {
        segment: segment_of(dir, index),
        tile: tile.to_string(),
        position: index % width,
    }
}

/// Segments are named after their first entry.
fn segment_of(dir: &Path, index: u64) -> Option<String> {
    let folder = dir.join("segments");
    let firsts = folder.read_dir().into_iter().flatten().flatten();
    let first = firsts
        .filter_map(|entry| {
            let name = entry.file_name();
            let digits = name.to_str()?.strip_suffix(".seg")?;
            digits.parse::<u64>().ok()
        })
        .filter(|first| *first <= index)
        .max();
    first.map(|first| format!("segments/{first:020}.seg"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_lies_in_the_last_segment_that_starts_before_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("segments")).unwrap();
        for first in [0, 300, 900] {
            let name = format!("segments/{first:020}.seg");
            std::fs::write(dir.path().join(name), b"").unwrap();
        }
        let place = place_of(dir.path(), 600);
        assert_eq!(place.segment, Some(format!("segments/{:020}.seg", 300)));
        assert_eq!(
            (place.tile.as_str(), place.position),
            ("tile/entries/002", 88)
        );
    }
}
