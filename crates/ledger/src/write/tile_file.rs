//! Tiles as files: written whole under another name, and then named.

use std::io;
use std::path::Path;

use crate::disk::{Disk, OpenMode, parent, read_file};
use crate::format::error::FileError;
use crate::format::tile::{BUNDLE_BYTES_MAX, Tile};

/// Puts a tile in its place, unless it is there already. `temporary` is the name in the directory of
/// the log under which it is written; each thread has its own.
pub(crate) fn write(
    disk: &dyn Disk,
    dir: &Path,
    temporary: &str,
    tile: Tile,
    bytes: &[u8],
) -> Result<(), FileError> {
    let path = dir.join(tile.to_string());
    match read_file(disk, &path, BUNDLE_BYTES_MAX as u64) {
        Ok(found) if found == bytes => {}
        // Whatever else is there is written over.
        _ => {
            let temporary = dir.join(temporary);
            write_new(disk, &temporary, bytes)?;
            let folder = parent(&path);
            if let Err(error) = disk.rename(&temporary, &path) {
                if error.kind() != io::ErrorKind::NotFound {
                    return Err(FileError::at("name", &path)(error));
                }
                disk.create_dir_all(folder)
                    .map_err(FileError::at("create", folder))?;
                let named = disk.rename(&temporary, &path);
                named.map_err(FileError::at("name", &path))?;
            }
        }
    }
    Ok(())
}

/// The same for a tile that nobody reads before a checkpoint covers it: written where it belongs, in
/// half the time. What an interruption leaves of it, verification does not take for damage, and the
/// next open writes over.
pub(crate) fn write_unread(
    disk: &dyn Disk,
    dir: &Path,
    tile: Tile,
    bytes: &[u8],
) -> Result<(), FileError> {
    let path = dir.join(tile.to_string());
    match write_new(disk, &path, bytes) {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => {
            let folder = parent(&path);
            disk.create_dir_all(folder)
                .map_err(FileError::at("create", folder))?;
            write_new(disk, &path, bytes)
        }
        outcome => outcome,
    }
}

/// Removes the partial forms of a tile that is now full. Leftovers do no harm, so failures are not
/// reported.
pub(crate) fn drop_partials(disk: &dyn Disk, dir: &Path, tile: Tile) {
    let folder = dir.join(tile.partial_dir());
    let Ok(names) = disk.list(&folder) else {
        return;
    };
    for entry in names {
        if entry.name.parse::<u16>().is_ok() {
            let _ = disk.remove_file(&folder.join(entry.name));
        }
    }
    let _ = disk.remove_dir(&folder);
}

fn write_new(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let file = disk
        .open(path, OpenMode::Create)
        .map_err(FileError::at("create", path))?;
    // Only what is not empty yet is emptied: ext4 takes that for a careless program's way of replacing
    // a file, and begins to write it back as soon as it is closed.
    let found = file.len_bytes().map_err(FileError::at("measure", path))?;
    if found > 0 {
        file.set_len_bytes(0)
            .map_err(FileError::at("empty", path))?;
    }
    file.write_all_at(bytes, 0)
        .map_err(FileError::at("write", path))
}
