//! How much a log takes on disk beside the bytes of its entries: `cargo xtask bench storage`.
//!
//! Makes an honest history through the real authority and the real writer, waits until all full
//! segments are sealed, and adds up what is there. The number of entries is given as argument;
//! without it, one million.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs,
    reason = "a measurement prints its table, and one that cannot go on must stop"
)]

#[path = "shared/history.rs"]
mod history;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use curfew_verify::ledger::LogReader;
use curfew_verify::ledger::options::SEGMENTS_KEPT_MIN;

/// How long sealing may take.
const SEALING: Duration = Duration::from_secs(600);

/// How often it is looked whether it is done.
const LOOK: Duration = Duration::from_millis(100);

/// Files of one sort.
#[derive(Default)]
struct Sort {
    files: u64,
    bytes: u64,
    on_disk: u64,
}

/// Adds up all that is below a folder.
fn add_up(folder: &Path, top: &Path, sorts: &mut BTreeMap<String, Sort>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let (path, about) = entry
            .map(|one| (one.path(), one.metadata().unwrap()))
            .unwrap();
        let mut parts = path.strip_prefix(top).unwrap().iter();
        let mut name = || parts.next().map(|part| part.to_string_lossy().into_owned());
        let name = match (name().unwrap(), name()) {
            (tile, Some(kind)) if tile == "tile" => match kind.as_str() {
                "entries" => "bundles of entries".to_owned(),
                _ => "tiles of hashes".to_owned(),
            },
            (first, _) => first,
        };
        let sort = sorts.entry(name).or_default();
        // A block has 512 bytes here (stat(2)).
        sort.on_disk += about.blocks() * 512;
        if about.is_dir() {
            add_up(&path, top, sorts);
        } else {
            sort.files += 1;
            sort.bytes += about.len();
        }
    }
}

/// Waits until no segment is there but those that stay, the one being written and the next.
fn wait_for_sealing(dir: &Path) {
    let begun = Instant::now();
    let count = || std::fs::read_dir(dir.join("segments")).unwrap().count();
    while count() > SEGMENTS_KEPT_MIN + 1 {
        assert!(begun.elapsed() < SEALING, "segments are not sealed");
        std::thread::sleep(LOOK);
    }
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--test") {
        return;
    }
    let entries = arguments.iter().find_map(|count| count.parse().ok());
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("ledger");
    history::write_log(folder.path(), entries.unwrap_or(1_000_000), || {
        wait_for_sealing(&dir);
    });
    let reader = LogReader::open(&dir).unwrap();
    let (mut count, mut own) = (0_u64, 0_u64);
    for entry in reader.range(0..reader.size()) {
        count += 1;
        own += entry.unwrap().1.len() as u64;
    }
    let mut sorts = BTreeMap::new();
    add_up(&dir, &dir, &mut sorts);
    let share = |bytes: u64| bytes as f64 * 100.0 / own as f64 - 100.0;
    println!(
        "{count} entries of {:.0} bytes, {own} in all\n",
        own as f64 / count as f64
    );
    println!("| what | files | bytes | on disk |\n|---|---|---|---|");
    let (mut bytes, mut on_disk) = (0, 0);
    for (name, sort) in &sorts {
        println!(
            "| {name} | {} | {} | {} |",
            sort.files, sort.bytes, sort.on_disk
        );
        if name != "segments" {
            bytes += sort.bytes;
            on_disk += sort.on_disk;
        }
    }
    println!(
        "\nWithout segments: {:.1} % over the entries' own bytes, {:.1} % on disk",
        share(bytes),
        share(on_disk)
    );
}
