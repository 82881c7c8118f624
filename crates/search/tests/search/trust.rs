//! The index is never trusted over the ledger.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use curfew_search::{Asked, IndexError, Indexer, Searcher};

use crate::kit::{Log, bounds, files, indexes, query};

fn filled(log: &Log) -> Indexer {
    let mut indexer = Indexer::open(&log.path(), &log.index(), true).unwrap();
    indexer.catch_up(|_, _| {}).unwrap();
    indexer
}

fn small() -> Log {
    let mut log = Log::new();
    log.start(1, "ada");
    for n in 0..20 {
        log.read(1, "shop", &format!("/page/{n}"));
    }
    log.sync();
    log
}

fn pages(searcher: &Searcher, log: &Log) -> Vec<u64> {
    let asked = Asked {
        text: "page".into(),
        ..Asked::default()
    };
    indexes(&searcher.search(&query(asked, log), &bounds()).unwrap())
}

#[test]
fn a_deleted_index_is_made_again() {
    let log = small();
    let wanted: Vec<u64> = (1..21).rev().collect();
    assert_eq!(pages(&filled(&log).searcher(), &log), wanted);
    let again = Indexer::open(&log.path(), &log.index(), true).unwrap();
    assert!(!again.was_rebuilt());
    drop(again);
    fs::remove_dir_all(log.index()).unwrap();
    assert!(
        Indexer::open(&log.path(), &log.index(), true)
            .unwrap()
            .was_rebuilt()
    );
    assert_eq!(pages(&filled(&log).searcher(), &log), wanted);
}

#[test]
fn any_damaged_file_is_noticed_at_open() {
    let log = small();
    drop(filled(&log));
    let names: Vec<_> = files(&log.index())
        .into_iter()
        .filter(|path| fs::metadata(path).unwrap().len() > 8)
        .collect();
    assert!(names.len() >= 4, "{names:?}");
    for path in names {
        drop(filled(&log));
        let Ok(whole) = fs::read(&path) else { continue };
        for cut in [true, false] {
            let mut bytes = whole.clone();
            if cut {
                bytes.truncate(whole.len() / 2);
            } else {
                bytes[whole.len() / 3] ^= 0x55;
            }
            fs::write(&path, &bytes).unwrap();
            let mut indexer = Indexer::open(&log.path(), &log.index(), true).unwrap();
            indexer.catch_up(|_, _| {}).unwrap();
            let wanted: Vec<u64> = (1..21).rev().collect();
            assert_eq!(
                pages(&indexer.searcher(), &log),
                wanted,
                "{}",
                path.display()
            );
            if !path.exists() {
                break;
            }
        }
    }
}

#[test]
fn the_index_of_another_log_or_of_an_older_copy_is_made_anew() {
    let log = small();
    drop(filled(&log));
    let mut other = Log::named("other.test/log");
    other.start(9, "bob");
    for n in 0..30 {
        other.read(9, "shop", &format!("/other/{n}"));
    }
    other.sync();
    let opened = Indexer::open(&other.path(), &log.index(), true).unwrap();
    assert!(opened.was_rebuilt(), "the index of another log was taken");
    drop(opened);
    drop(filled(&log));
    // A log that is shorter than its index was put back from a backup.
    let mut short = Log::new();
    short.start(1, "ada");
    short.sync();
    assert!(
        Indexer::open(&short.path(), &log.index(), true)
            .unwrap()
            .was_rebuilt()
    );
}

#[test]
fn what_was_pruned_is_not_found_and_an_index_mostly_of_that_is_made_anew() {
    let log = small();
    drop(filled(&log));
    let horizon = |size: u64| {
        fs::write(
            log.path().join("horizon"),
            format!("curfew horizon 1 {size} 0\n"),
        )
        .unwrap();
    };
    horizon(8);
    let indexer = Indexer::open(&log.path(), &log.index(), true).unwrap();
    assert!(!indexer.was_rebuilt());
    let wanted: Vec<u64> = (8..21).rev().collect();
    assert_eq!(pages(&indexer.searcher(), &log), wanted);
    drop(indexer);
    assert_eq!(pages(&Searcher::new(&log.path()), &log), wanted);
    horizon(15);
    let mut indexer = Indexer::open(&log.path(), &log.index(), true).unwrap();
    assert!(indexer.was_rebuilt());
    indexer.catch_up(|_, _| {}).unwrap();
    assert_eq!(
        pages(&indexer.searcher(), &log),
        (15..21).rev().collect::<Vec<u64>>()
    );
}

#[test]
fn another_process_may_look_while_one_fills_it() {
    let log = small();
    let held = filled(&log);
    let second = Indexer::open(&log.path(), &log.index(), true);
    assert!(matches!(second, Err(IndexError::Busy(_))));
    let looking = Searcher::with_index_of_another(&log.path(), &log.index()).unwrap();
    assert_eq!(looking.indexed(), held.indexed());
    assert_eq!(pages(&looking, &log).len(), 20);
}

#[test]
fn nobody_else_may_enter_its_folder() {
    let log = small();
    drop(filled(&log));
    let mode = fs::metadata(log.index()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    fs::set_permissions(log.index(), fs::Permissions::from_mode(0o755)).unwrap();
    let opened = Indexer::open(&log.path(), &log.index(), true);
    assert!(matches!(opened, Err(IndexError::Exposed(_))));
}

/// Puts documents of an attacker's choice in place of the index's own, under the same stamp.
fn plant(log: &Log, documents: &[&[(&str, &str)]]) {
    let folder = log.index().join("curfew-index");
    let index = tantivy::Index::open_in_dir(&folder).unwrap();
    let payload = index.load_metas().unwrap().payload.unwrap();
    let schema = index.schema();
    let mut writer: tantivy::IndexWriter = index.writer_with_num_threads(1, 15_000_000).unwrap();
    writer.delete_all_documents().unwrap();
    for fields in documents {
        let mut doc = tantivy::TantivyDocument::new();
        for (name, value) in *fields {
            let field = schema.get_field(name).unwrap();
            match value.parse() {
                Ok(number) => doc.add_u64(field, number),
                Err(_) => doc.add_text(field, value),
            }
        }
        writer.add_document(doc).unwrap();
    }
    let mut commit = writer.prepare_commit().unwrap();
    commit.set_payload(&payload);
    commit.commit().unwrap();
}

#[test]
fn what_was_planted_in_the_index_is_never_shown() {
    let log = small();
    let at = |at: &'static str| [("at", at), ("place", "0"), ("time", "1795452020000000")];
    let claims = [
        ("subject", "mallory"),
        ("word", "planted"),
        ("kind", "action"),
    ];
    let planted: Vec<Vec<(&str, &str)>> = ["3", "3", "2", "9", "20", "4000000000"]
        .into_iter()
        .map(|index| [&at(index)[..], &claims[..]].concat())
        .collect();
    let planted: Vec<&[(&str, &str)]> = planted.iter().map(Vec::as_slice).collect();
    for (field, value) in [("subject", "mallory"), ("text", "planted")] {
        drop(filled(&log));
        plant(&log, &planted);
        // The stamp still fits and the files are whole: only the ledger can tell.
        let mut indexer = Indexer::open(&log.path(), &log.index(), true).unwrap();
        assert!(!indexer.was_rebuilt());
        let searcher = indexer.searcher();
        let asked: Asked = serde_json::from_value(serde_json::json!({ field: value })).unwrap();
        let answer = searcher.search(&query(asked, &log), &bounds()).unwrap();
        assert_eq!(indexes(&answer), [0_u64; 0]);
        assert!(answer.damaged, "it was not said that the index is wrong");
        // From here on the ledger alone answers, until the index has been made anew.
        assert_eq!(pages(&searcher, &log).len(), 20);
        assert!(
            indexer.catch_up(|_, _| {}).is_err(),
            "a damaged index was filled on"
        );
        drop(indexer);
        let mut again = Indexer::open(&log.path(), &log.index(), true).unwrap();
        assert!(again.was_rebuilt());
        again.catch_up(|_, _| {}).unwrap();
        assert_eq!(pages(&again.searcher(), &log).len(), 20);
    }
}

#[test]
fn a_true_entry_is_shown_once_and_in_order_whatever_the_index_says() {
    let log = small();
    drop(filled(&log));
    let of = |at: &'static str| {
        let place = [
            ("at", at),
            ("place", "999424"),
            ("time", "1795452020000000"),
        ];
        [&place[..], &[("word", "page")][..]].concat()
    };
    let planted = [of("5"), of("7"), of("7"), of("6"), of("8")];
    let planted: Vec<&[(&str, &str)]> = planted.iter().map(Vec::as_slice).collect();
    plant(&log, &planted);
    let indexer = Indexer::open(&log.path(), &log.index(), true).unwrap();
    let asked = Asked {
        text: "page".into(),
        ..Asked::default()
    };
    let answer = indexer
        .searcher()
        .search(&query(asked, &log), &bounds())
        .unwrap();
    let shown = indexes(&answer);
    assert!(answer.damaged);
    indexer.discard().unwrap();
    assert!(
        Indexer::open(&log.path(), &log.index(), true)
            .unwrap()
            .was_rebuilt()
    );
    assert!(shown.is_sorted_by(|a, b| a > b), "{shown:?}");
}

#[test]
fn nothing_is_left_behind_where_there_is_no_log() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index");
    assert!(matches!(
        Indexer::open(dir.path(), &index, true),
        Err(IndexError::Log(_))
    ));
    assert!(!index.exists());
}
