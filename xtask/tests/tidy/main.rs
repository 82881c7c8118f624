//! Checks that the code still has the shape ARCHITECTURE.md says it has.
//!
//! Every rule is a function from the tree to a list of complaints. Each is run twice: on the
//! tree, where it must find nothing, and on a planted fault, where it must find it.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod circles;
mod rules;

use std::fs;
use std::path::PathBuf;

use circles::*;
use rules::*;

#[track_caller]
fn clean(found: Vec<String>) {
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[track_caller]
fn found_in(rule: impl Fn(&[Source]) -> Vec<String>, path: &str, text: &str) {
    let planted = [Source::new(path, &format!("//! Planted.\n{text}\n"))];
    assert_eq!(
        rule(&planted).len(),
        1,
        "the planted fault in {path} was not found"
    );
}

#[test]
fn crate_edges_match_the_architecture() {
    let metadata = metadata();
    let mut edges = own_edges(&metadata);
    clean(wrong_edges(&edges));
    edges
        .get_mut("curfew-ledger")
        .unwrap()
        .insert("curfew-authority".to_owned());
    assert_eq!(
        wrong_edges(&edges),
        ["curfew-ledger -> curfew-authority is not in the table of edges"]
    );
}

#[test]
fn the_table_of_edges_is_the_one_in_the_architecture() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for (from, to) in EDGES.iter().filter(|(from, _)| *from != "xtask") {
        let short = |name: &str| name.trim_start_matches("curfew-").to_owned();
        let to: Vec<String> = to.iter().map(|name| short(name)).collect();
        let to = if to.is_empty() {
            "nothing of ours".to_owned()
        } else {
            to.join(", ")
        };
        let row = format!("| {} | {to} |", short(from));
        assert!(text.contains(&row), "ARCHITECTURE.md lacks the row {row}");
    }
}

#[test]
fn the_verifier_and_the_leaves_build_without_a_runtime() {
    let metadata = metadata();
    clean(forbidden(
        &closure(&metadata, "curfew-verify"),
        NOT_IN_VERIFY,
    ));
    clean(forbidden(
        &closure(&metadata, "curfew-authority"),
        NOT_IN_LEAVES,
    ));
    clean(forbidden(
        &closure(&metadata, "curfew-ledger"),
        NOT_IN_LEAVES,
    ));
    for reader in [
        "curfew-entry",
        "curfew-export",
        "curfew-search",
        "curfew-values",
    ] {
        let found = forbidden(&closure(&metadata, reader), NOT_IN_READERS);
        assert_eq!(found, [""; 0], "{reader}");
    }
    let found = forbidden(&closure(&metadata, "curfew-timestamp"), NOT_IN_LEAVES);
    assert_eq!(found, [""; 0], "curfew-timestamp");
    assert!(!forbidden(&closure(&metadata, "curfew-gateway"), NOT_IN_VERIFY).is_empty());
}

#[test]
fn every_crate_keeps_the_workspace_lints() {
    for package in metadata().workspace_packages() {
        let text = fs::read_to_string(&package.manifest_path).unwrap();
        assert!(
            text.contains("[lints]\nworkspace = true"),
            "{} has lints of its own",
            package.name
        );
    }
    let text = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(text.contains("unsafe_code = \"forbid\""));
}

/// Common keys that a crate's own clippy.toml has left out: it takes the place of the root's.
fn missing_keys(common: &str, own: &str) -> Vec<String> {
    let lacks = |key: &&str| !own.lines().any(|line| line == *key);
    common.lines().filter(lacks).map(str::to_owned).collect()
}

#[test]
fn every_clippy_file_repeats_the_common_keys() {
    let read = |path: PathBuf| fs::read_to_string(path).ok();
    let common = read(root().join("clippy.toml")).unwrap();
    for package in metadata().workspace_packages() {
        let folder = package.manifest_path.with_file_name("clippy.toml");
        if let Some(own) = read(folder.clone().into()) {
            assert_eq!(missing_keys(&common, &own), [""; 0], "{folder}");
        }
    }
    assert!(!missing_keys(&common, "disallowed-types = []").is_empty());
}

#[test]
fn planes_do_not_import_each_other() {
    clean(planes_that_meet(&sources()));
    found_in(
        planes_that_meet,
        "crates/gateway/src/web/x.rs",
        "use crate::postgres::relay;",
    );
}

#[test]
fn nothing_dials_but_the_upstream_modules() {
    clean(dials_elsewhere(&sources()));
    found_in(
        dials_elsewhere,
        "crates/gateway/src/web/x.rs",
        "TcpStream::connect(there).await",
    );
}

#[test]
fn only_the_registrar_mints_permits() {
    clean(permits_minted_elsewhere(&sources()));
    found_in(
        permits_minted_elsewhere,
        "crates/gateway/src/web/x.rs",
        "Permit::mint(id)",
    );
}

#[test]
fn only_the_registrar_writes_entries_and_state() {
    clean(writers_elsewhere(&sources()));
    found_in(
        writers_elsewhere,
        "crates/gateway/src/web/x.rs",
        "writer.append_reserved(bytes)",
    );
}

#[test]
fn only_cli_reads_the_environment() {
    clean(environment_read_elsewhere(&sources()));
    found_in(
        environment_read_elsewhere,
        "crates/gateway/src/x.rs",
        "std::env::var(\"HOME\")",
    );
}

#[test]
fn there_is_no_global_mutable_state() {
    clean(global_state(&sources()));
    found_in(
        global_state,
        "crates/gateway/src/x.rs",
        "static SEEN: AtomicU64 = AtomicU64::new(0);",
    );
}

#[test]
fn tests_are_left_out_in_one_way() {
    clean(left_out_otherwise(&sources()));
    found_in(
        left_out_otherwise,
        "crates/gateway/tests/x.rs",
        &["eprintln!(\"left", " out: x\");"].concat(),
    );
}

#[test]
fn nothing_is_left_unfinished() {
    clean(unfinished(&sources()));
    found_in(
        unfinished,
        "crates/gateway/src/x.rs",
        &["to", "do!()"].concat(),
    );
}

#[test]
fn authority_asks_no_clock() {
    clean(clocks_in_authority(&sources()));
    found_in(
        clocks_in_authority,
        "crates/authority/src/x.rs",
        "let now = Instant::now();",
    );
}

#[test]
fn files_are_short_and_say_what_they_are() {
    clean(shapeless(&sources()));
    let nameless = [Source::new("crates/ledger/src/x.rs", "fn nameless() {}")];
    assert_eq!(shapeless(&nameless).len(), 1);
    found_in(
        shapeless,
        "crates/ledger/src/x.rs",
        &"//\n".repeat(LINES_MAX),
    );
}

/// Two files of the ledger, each with a line of its own.
fn two(first: (&str, &str), second: (&str, &str)) -> [Source; 2] {
    [first, second].map(|(path, text)| Source::new(&format!("crates/ledger/src/{path}"), text))
}

#[test]
fn folders_of_a_crate_go_round_in_no_circle() {
    clean(circles(&sources()));
    let planted = two(
        ("format/note.rs", "use crate::{disk, keys::key};"),
        (
            "keys/key.rs",
            "fn f() -> super::super::format::note::Note {}",
        ),
    );
    let [found] = &circles(&planted)[..] else {
        panic!("the planted circle was not found");
    };
    assert!(
        found.starts_with("ledger: format -> keys -> format"),
        "{found}"
    );
    // By a name that the root re-exports.
    let mut planted = two(
        ("lib.rs", "pub use keys::key::{KeyError, LogKey};"),
        ("keys.rs", "use super::format::note::Note;"),
    )
    .to_vec();
    planted.push(Source::new(
        "crates/ledger/src/format/note.rs",
        "use crate::LogKey;",
    ));
    assert_eq!(circles(&planted).len(), 1);
    // One way alone, and within a folder, is none.
    let planted = two(
        (
            "format/note.rs",
            "use super::tile::Tile; // crate::keys::key",
        ),
        ("keys/key.rs", "use crate::format::note::Note;"),
    );
    clean(circles(&planted));
}

#[test]
fn folders_of_the_ledger_keep_their_order() {
    clean(ledger_out_of_order(&sources()));
    let planted = two(
        ("verify/check.rs", "use crate::write::options::Options;"),
        ("write/options.rs", "use crate::disk::Disk;"),
    );
    assert_eq!(
        ledger_out_of_order(&planted),
        ["crates/ledger/src/verify/check.rs:1: verify must not use write"]
    );
}
