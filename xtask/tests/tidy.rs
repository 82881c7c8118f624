//! Checks that the code still has the shape ARCHITECTURE.md says it has.
//!
//! Every rule is a function from the tree to a list of complaints. Each is run twice: on the
//! tree, where it must find nothing, and on a planted fault, where it must find it.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Which of our crates may depend on which. ARCHITECTURE.md shows the same table.
const EDGES: &[(&str, &[&str])] = &[
    ("curfew-authority", &[]),
    ("curfew-ledger", &[]),
    ("curfew-identity", &["curfew-authority"]),
    ("curfew-timestamp", &[]),
    (
        "curfew-verify",
        &["curfew-authority", "curfew-ledger", "curfew-timestamp"],
    ),
    ("curfew-search", &["curfew-authority", "curfew-ledger"]),
    ("curfew-export", &["curfew-authority", "curfew-ledger"]),
    (
        "curfew-gateway",
        &[
            "curfew-authority",
            "curfew-export",
            "curfew-identity",
            "curfew-ledger",
            "curfew-search",
            "curfew-timestamp",
            "curfew-values",
        ],
    ),
    (
        "curfew-cli",
        &[
            "curfew-export",
            "curfew-gateway",
            "curfew-search",
            "curfew-timestamp",
            "curfew-values",
            "curfew-verify",
        ],
    ),
    ("curfew-values", &["curfew-authority", "curfew-ledger"]),
    ("curfew-sim", &["curfew-authority", "curfew-ledger"]),
    ("xtask", &[]),
];

/// What an auditor builds and reads has none of these, however indirectly. It reads served logs over
/// blocking sockets and TLS, with no runtime behind them.
const NOT_IN_VERIFY: &[&str] = &[
    "tokio",
    "hyper",
    "curfew-gateway",
    "curfew-identity",
    "reqwest",
];

/// The thinking parts have none of these, however indirectly.
const NOT_IN_LEAVES: &[&str] = &["tokio", "hyper", "rustls", "async-std"];

/// Planes never name each other.
const PLANES: &[&str] = &["console", "postgres", "web"];

/// The only files that open a connection to somewhere else, each behind a permit.
const DIALS: &[&str] = &[
    "crates/gateway/src/web/upstream.rs",
    "crates/gateway/src/postgres/upstream.rs",
    // Asks the gateway on its own host.
    "crates/gateway/src/control.rs",
    // Asks the signer on its own host, which serves nothing but signatures.
    "crates/gateway/src/signer.rs",
    // HTTP for those below that name their party.
    "crates/gateway/src/client.rs",
    // Shows witnesses the log's checkpoints, which are for everybody, and nothing else.
    "crates/gateway/src/witness/ask.rs",
    // Sends the timestamping authority a hash, and nothing else.
    "crates/gateway/src/stamps/ask.rs",
    // Give signed entries to the receivers that the operator has named.
    "crates/gateway/src/forward/otlp.rs",
    "crates/gateway/src/forward/syslog.rs",
    // Copies the log to the store that the operator has named.
    "crates/gateway/src/archive/place.rs",
];

/// Lines of a file before its tests. It only ever shrinks.
const LINES_MAX: usize = 600;

/// A source file: its path from the root, and its text before its unit tests.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
        Self {
            path: path.to_owned(),
            text: code.to_owned(),
        }
    }

    /// The code without comments, line by line with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate();
        lines.map(|(at, line)| (at + 1, line.split("//").next().unwrap_or_default()))
    }

    fn is_test(&self) -> bool {
        [
            "/tests/",
            "/benches/",
            "src/web/harness.rs",
            "src/web/wire",
            "/tests.rs",
            "_tests",
            "/benches/",
            "xtask/",
        ]
        .iter()
        .any(|part| self.path.contains(part))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn collect(folder: &Path, root: &Path, found: &mut Vec<Source>) {
    for item in fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            collect(&path, root, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let name = path.strip_prefix(root).unwrap().display().to_string();
            found.push(Source::new(&name, &fs::read_to_string(&path).unwrap()));
        }
    }
}

fn sources() -> Vec<Source> {
    let (root, mut found) = (root(), Vec::new());
    for folder in ["crates", "xtask"] {
        collect(&root.join(folder), &root, &mut found);
    }
    assert!(found.len() > 40, "the tree was not found");
    found
}

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .exec()
        .unwrap()
}

fn own_edges(metadata: &Metadata) -> BTreeMap<String, BTreeSet<String>> {
    let own: BTreeSet<String> = metadata
        .workspace_packages()
        .iter()
        .map(|package| package.name.to_string())
        .collect();
    let edges = |package: &cargo_metadata::Package| {
        let normal = package
            .dependencies
            .iter()
            .filter(|edge| edge.kind == DependencyKind::Normal);
        normal
            .map(|edge| edge.name.clone())
            .filter(|name| own.contains(name))
            .collect()
    };
    metadata
        .workspace_packages()
        .iter()
        .map(|package| (package.name.to_string(), edges(package)))
        .collect()
}

fn wrong_edges(edges: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    let mut wrong = Vec::new();
    for (from, targets) in edges {
        match allowed.get(from.as_str()) {
            None => wrong.push(format!("{from} is not in the table of edges")),
            Some(allowed) => {
                let new = targets.iter().filter(|to| !allowed.contains(&to.as_str()));
                wrong.extend(new.map(|to| format!("{from} -> {to} is not in the table of edges")));
            }
        }
    }
    wrong
}

/// Every crate that `name` is built from.
fn closure(metadata: &Metadata, name: &str) -> BTreeSet<String> {
    let resolve = metadata.resolve.as_ref().unwrap();
    let names: BTreeMap<_, _> = metadata
        .packages
        .iter()
        .map(|package| (&package.id, package.name.to_string()))
        .collect();
    let mut open: Vec<_> = resolve
        .nodes
        .iter()
        .filter(|node| names[&node.id] == name)
        .map(|node| &node.id)
        .collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        let Some(node) = resolve.nodes.iter().find(|node| node.id == *id) else {
            continue;
        };
        let normal = |dep: &&cargo_metadata::NodeDep| {
            dep.dep_kinds
                .iter()
                .any(|kind| kind.kind == DependencyKind::Normal)
        };
        open.extend(node.deps.iter().filter(normal).map(|dep| &dep.pkg));
    }
    seen.into_iter().map(|id| names[id].clone()).collect()
}

fn forbidden(closure: &BTreeSet<String>, names: &[&str]) -> Vec<String> {
    names
        .iter()
        .filter(|name| closure.contains(**name))
        .map(|name| (*name).to_owned())
        .collect()
}

fn complaints(
    sources: &[Source],
    applies: impl Fn(&Source) -> bool,
    needles: &[&str],
    rule: &str,
) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| applies(source)) {
        for (line, code) in source.code() {
            if needles.iter().any(|needle| code.contains(needle)) {
                found.push(format!("{}:{line}: {rule}: {}", source.path, code.trim()));
            }
        }
    }
    found
}

fn planes_that_meet(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for plane in PLANES {
        let folder = format!("crates/gateway/src/{plane}/");
        for other in PLANES.iter().filter(|other| *other != plane) {
            let needles = [format!("crate::{other}"), format!("super::super::{other}")];
            let needles: Vec<&str> = needles.iter().map(String::as_str).collect();
            let here = |source: &Source| source.path.starts_with(&folder);
            found.extend(complaints(sources, here, &needles, "planes are strangers"));
        }
    }
    found
}

fn dials_elsewhere(sources: &[Source]) -> Vec<String> {
    let needles = [
        "TcpStream::connect",
        "UnixStream::connect",
        "TcpSocket::new",
        "HttpConnector::new",
        "HttpClient::new",
        "UdpSocket",
    ];
    let here = |source: &Source| {
        source.path.starts_with("crates/gateway/src/")
            && !DIALS.contains(&source.path.as_str())
            && !source.is_test()
    };
    complaints(
        sources,
        here,
        &needles,
        "only an upstream module dials, behind a permit",
    )
}

fn permits_minted_elsewhere(sources: &[Source]) -> Vec<String> {
    let here = |source: &Source| {
        source.path != "crates/gateway/src/registrar/task.rs" && !source.is_test()
    };
    complaints(
        sources,
        here,
        &["Permit::mint("],
        "only the registrar mints permits",
    )
}

fn writers_elsewhere(sources: &[Source]) -> Vec<String> {
    let here = |source: &Source| {
        source.path.starts_with("crates/gateway/src/")
            && !source.path.starts_with("crates/gateway/src/registrar/")
            && !source.is_test()
    };
    let needles = [".append(&", ".append_reserved(", "authority.apply("];
    let mut found = complaints(sources, here, &needles, "only the registrar writes");
    // Start-up folds the ledger into the state with the same `apply`.
    found.retain(|line| !line.starts_with("crates/gateway/src/replay.rs"));
    found
}

fn environment_read_elsewhere(sources: &[Source]) -> Vec<String> {
    let here = |source: &Source| !source.path.starts_with("crates/cli/") && !source.is_test();
    let mut found = complaints(
        sources,
        here,
        &["std::env::args", "std::env::var", "env::args(", "env::var("],
        "only cli reads argv and environment",
    );
    // The verifier and the simulator are programs of their own.
    found.retain(|line| {
        !line.starts_with("crates/verify/src/main.rs")
            && !line.starts_with("crates/sim/src/main.rs")
    });
    found
}

fn global_state(sources: &[Source]) -> Vec<String> {
    let needles = [
        "static mut ",
        "lazy_static!",
        "thread_local!",
        ": Mutex<",
        ": RwLock<",
    ];
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| !source.is_test()) {
        for (line, code) in source.code() {
            let code = code.trim_start();
            let is_static = code.starts_with("static ") || code.starts_with("pub static ");
            let changes = needles.iter().any(|needle| code.contains(needle))
                || code.contains("Atomic")
                || code.contains("OnceLock");
            if code.starts_with("static mut ") || (is_static && changes) {
                found.push(format!(
                    "{}:{line}: global mutable state: {code}",
                    source.path
                ));
            }
        }
    }
    found
}

fn unfinished(sources: &[Source]) -> Vec<String> {
    // Spelled in halves, so that this file does not find itself.
    let words = [["to", "do!("].concat(), ["unimpl", "emented!("].concat()];
    let needles: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut found = complaints(sources, |_| true, &needles, "unfinished");
    let marks = [["TO", "DO"].concat(), ["FIX", "ME"].concat()];
    for source in sources {
        for (at, line) in source.text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark.as_str())) {
                found.push(format!(
                    "{}:{}: unfinished: {}",
                    source.path,
                    at + 1,
                    line.trim()
                ));
            }
        }
    }
    found
}

fn clocks_in_authority(sources: &[Source]) -> Vec<String> {
    let needles = [
        "Instant::now",
        "SystemTime::now",
        "Timestamp::now",
        "Zoned::now",
        "HashMap",
        "HashSet",
        "getrandom",
        "std::fs",
        "std::net::Tcp",
        "std::thread",
    ];
    let here = |source: &Source| source.path.starts_with("crates/authority/src/");
    complaints(
        sources,
        here,
        &needles,
        "time, randomness and I/O are inputs of authority",
    )
}

fn shapeless(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        if !source.text.trim_start().starts_with("//!") && !source.text.starts_with("#![doc") {
            found.push(format!(
                "{}: does not open by saying what it is (//!)",
                source.path
            ));
        }
        let lines = source.text.lines().count();
        if lines > LINES_MAX && !source.is_test() {
            found.push(format!(
                "{}: {lines} lines before its tests, over {LINES_MAX}",
                source.path
            ));
        }
    }
    found
}

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
