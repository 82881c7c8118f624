//! A copy of nothing but C2SP tlog-tiles and a checkpoint is verified like the log itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use curfew_ledger::Disk;
use curfew_ledger::verify::{Failure, FailureKind, Verify, Visitor, verify};
use curfew_ledger_faults::FaultyDisk;

use crate::common::*;

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Entries in the copy, of which all are signed: two full tiles of level 1 would be too slow.
const SIZE: u64 = 1_000;

/// What is published of logs of 700 and of [`SIZE`] entries, the one a prefix of the other.
fn copies() -> &'static [Files; 2] {
    static COPIES: OnceLock<[Files; 2]> = OnceLock::new();
    COPIES.get_or_init(|| {
        let disk = disk();
        create(&disk, options()).writer.close().unwrap();
        [700, SIZE].map(|size| {
            let log = open(&disk, options()).unwrap();
            log.fill(size);
            log.writer.close().unwrap();
            published(&disk)
        })
    })
}

fn published(disk: &FaultyDisk) -> Files {
    let is = |path: &Path| path.starts_with("/log/tile") || path.ends_with("checkpoint");
    let files = disk.files().into_iter().filter(|(path, _)| is(path));
    files.filter(|(path, _)| path.starts_with(DIR)).collect()
}

fn copy() -> Files {
    copies()[1].clone()
}

fn on_disk(files: &Files) -> FaultyDisk {
    let disk = FaultyDisk::new();
    for (path, bytes) in files {
        disk.create_dir_all(path.parent().unwrap()).unwrap();
        disk.put(path, bytes);
    }
    disk
}

fn proven(files: &Files) -> curfew_ledger::verify::Report {
    let report = check(&on_disk(files)).unwrap_or_else(|failures| panic!("{failures:?}"));
    assert!(report.tiles_only);
    report
}

fn failures(files: &Files, case: &str) -> Vec<Failure> {
    match check(&on_disk(files)) {
        Ok(_) => panic!("{case} went unseen"),
        Err(failures) => failures,
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

fn names(failures: &[Failure], name: &str) -> bool {
    failures.iter().any(|failure| failure.path == path(name))
}

#[derive(Default)]
struct Seen(u64);

impl Visitor for Seen {
    fn entry(&mut self, index: u64, bytes: &[u8]) {
        assert_eq!((index, bytes), (self.0, entry(index).as_slice()));
        self.0 += 1;
    }
}

#[test]
fn a_copy_of_tiles_alone_is_proven_entry_by_entry() {
    let report = proven(&copy());
    assert_eq!((report.size, report.signed.size), (SIZE, SIZE));
    assert_eq!((report.checkpoints, report.unsigned()), (1, 0));
    let mut seen = Seen::default();
    let disk: Arc<dyn Disk> = Arc::new(on_disk(&copy()));
    let what = Verify {
        dir: Path::new(DIR),
        keys: &keys(),
        remembered: copies()[0].get(&path("checkpoint")).map(Vec::as_slice),
        from: None,
        disk,
    };
    verify(&what, &mut seen).unwrap();
    assert_eq!(seen.0, SIZE);
    // Partial tiles of former sizes may be gone, and an empty folder of segments is none.
    let mut files = copy();
    let last = [
        "tile/0/003.p/232",
        "tile/1/000.p/3",
        "tile/entries/003.p/232",
    ]
    .map(path);
    files.retain(|path, _| !path.to_string_lossy().contains(".p/") || last.contains(path));
    proven(&files);
    let disk = on_disk(&files);
    disk.create_dir_all(&path("segments")).unwrap();
    assert!(check(&disk).unwrap().tiles_only);
}

#[test]
fn a_bit_that_is_flipped_anywhere_is_found_with_its_place() {
    for (file, bytes) in copy() {
        let name = file
            .strip_prefix(DIR)
            .unwrap()
            .to_string_lossy()
            .into_owned();
        for step in 0..5 {
            let at = (bytes.len() - 1) * step / 4;
            let mut files = copy();
            files.get_mut(&file).unwrap()[at] ^= 1 << step;
            let failures = failures(&files, &name);
            // Whether a whole bundle or its hashes were changed, only the root can tell.
            let hashes = name.replace("entries", "0");
            assert!(
                names(&failures, &name) || names(&failures, &hashes),
                "{name}, byte {at}: {failures:?}"
            );
        }
    }
}

#[test]
fn what_is_missing_or_cut_or_of_another_place_is_found() {
    let last = "tile/entries/003.p/232";
    for name in [
        "checkpoint",
        "tile/entries/001",
        "tile/0/002",
        "tile/1/000.p/3",
        last,
    ] {
        let mut files = copy();
        files.remove(&path(name)).unwrap();
        let failures = failures(&files, name);
        let missing = |f: &Failure| f.path == path(name) && f.kind == FailureKind::Missing;
        assert!(failures.iter().any(missing), "{name}: {failures:?}");
    }
    for name in ["tile/entries/001", last, "tile/0/003.p/232"] {
        for cut in [0, 1, 40, copy()[&path(name)].len() - 1] {
            let mut files = copy();
            files.get_mut(&path(name)).unwrap().truncate(cut);
            assert!(names(&failures(&files, "a cut"), name), "{name} to {cut}");
        }
        let mut files = copy();
        files.get_mut(&path(name)).unwrap().push(0);
        assert!(names(&failures(&files, "a byte more"), name), "{name}");
    }
    // The entries of another place, in which all is well.
    let mut files = copy();
    let other = files[&path("tile/entries/002")].clone();
    files.insert(path("tile/entries/001"), other);
    let failures = failures(&files, "another bundle");
    let first = &failures[0];
    assert_eq!(
        (first.path.as_path(), first.index),
        (path("tile/0/001").as_path(), Some(256))
    );
}

/// Bundles and hashes are made anew around one changed entry: only the checkpoint is as signed.
#[test]
fn tiles_that_fit_each_other_are_not_what_was_signed() {
    let forged = disk();
    let log = create(&forged, options());
    for index in 0..SIZE {
        let bytes = if index == 300 {
            b"nothing".to_vec()
        } else {
            entry(index)
        };
        log.append(&bytes);
    }
    log.writer.close().unwrap();
    let mut files = published(&forged);
    let signed = copy()[&path("checkpoint")].clone();
    files.insert(path("checkpoint"), signed);
    let found = failures(&files, "another history");
    assert!(
        matches!(found[0].kind, FailureKind::Root { size: SIZE, .. }) && found.len() == 1,
        "{found:?}"
    );
    // Nor does a checkpoint hold that another key has signed.
    let other = curfew_ledger::LogKey::from_seed("example.com/curfew", &[8; 32]).unwrap();
    let foreign = disk();
    let signer = Arc::new(other);
    create(
        &foreign,
        curfew_ledger::Options {
            signer,
            ..options()
        },
    )
    .writer
    .close()
    .unwrap();
    files.insert(
        path("checkpoint"),
        published(&foreign)[&path("checkpoint")].clone(),
    );
    assert!(names(&failures(&files, "a foreign key"), "checkpoint"));
}

/// A log goes on while it is copied: the checkpoint was read first, the tiles after it.
#[test]
fn a_copy_of_a_log_that_went_on_is_proven_to_its_checkpoint() {
    let [before, after] = copies();
    let mut files = after.clone();
    files.insert(path("checkpoint"), before[&path("checkpoint")].clone());
    // As where the tile has become full since.
    files.retain(|path, _| !path.to_string_lossy().ends_with("002.p/188"));
    let report = proven(&files);
    assert_eq!((report.size, report.signed.size), (SIZE, 700));
    // A checkpoint kept from later is not reached by the older copy.
    let note = after[&path("checkpoint")].as_slice();
    let found = check_with(&on_disk(before), Some(note)).unwrap_err();
    let (signed, size) = (SIZE, 700);
    assert!(
        found
            .iter()
            .any(|f| f.kind == FailureKind::TooSmall { signed, size }),
        "{found:?}"
    );
    // What took the place of a partial tile is held to the same.
    let mut changed = files.clone();
    changed.get_mut(&path("tile/0/002")).unwrap()[70] ^= 1;
    assert!(names(&failures(&changed, "a flip"), "tile/0/002"));
    // A full bundle that no checkpoint covers may be copied while it is written.
    let mut halved = before.clone();
    let mut half = after[&path("tile/entries/002")].clone();
    half.truncate(half.len() - 40);
    halved.insert(path("tile/entries/002"), half);
    assert_eq!(proven(&halved).size, 700);
    // The newest bundle is not here yet: signed it is not, and so not missed.
    files.retain(|path, _| !path.to_string_lossy().contains("entries/003"));
    assert_eq!(proven(&files).size, 768);
}
