//! The rules: each a function from the tree to a list of complaints.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Which of our crates may depend on which. ARCHITECTURE.md shows the same table.
pub(crate) const EDGES: &[(&str, &[&str])] = &[
    ("curfew-entry", &[]),
    ("curfew-authority", &["curfew-entry"]),
    ("curfew-ledger", &[]),
    // A disk for tests: nothing but tests may depend on it.
    ("curfew-ledger-faults", &["curfew-ledger"]),
    ("curfew-identity", &["curfew-entry"]),
    ("curfew-timestamp", &[]),
    (
        "curfew-verify",
        &[
            "curfew-authority",
            "curfew-entry",
            "curfew-ledger",
            "curfew-timestamp",
        ],
    ),
    ("curfew-search", &["curfew-entry", "curfew-ledger"]),
    ("curfew-export", &["curfew-entry", "curfew-ledger"]),
    (
        "curfew-gate",
        &[
            "curfew-authority",
            "curfew-entry",
            "curfew-identity",
            "curfew-ledger",
            "curfew-values",
        ],
    ),
    ("curfew-web", &["curfew-entry", "curfew-gate"]),
    ("curfew-postgres", &["curfew-entry", "curfew-gate"]),
    (
        "curfew-custody",
        &[
            "curfew-authority",
            "curfew-entry",
            "curfew-export",
            "curfew-gate",
            "curfew-identity",
            "curfew-ledger",
            "curfew-timestamp",
            "curfew-values",
        ],
    ),
    (
        "curfew-portal",
        &[
            "curfew-custody",
            "curfew-entry",
            "curfew-export",
            "curfew-gate",
            "curfew-identity",
            "curfew-ledger",
            "curfew-search",
            "curfew-values",
        ],
    ),
    (
        "curfew-gateway",
        &[
            "curfew-authority",
            "curfew-custody",
            "curfew-entry",
            "curfew-gate",
            "curfew-identity",
            "curfew-ledger",
            "curfew-portal",
            "curfew-postgres",
            "curfew-values",
            "curfew-web",
        ],
    ),
    (
        "curfew-cli",
        &[
            "curfew-authority",
            "curfew-custody",
            "curfew-entry",
            "curfew-export",
            "curfew-gate",
            "curfew-gateway",
            "curfew-postgres",
            "curfew-search",
            "curfew-timestamp",
            "curfew-values",
            "curfew-verify",
        ],
    ),
    ("curfew-values", &["curfew-entry", "curfew-ledger"]),
    (
        "curfew-sim",
        &["curfew-authority", "curfew-entry", "curfew-ledger"],
    ),
    ("xtask", &[]),
];

/// What an auditor builds and reads has none of these, however indirectly. It reads served logs over
/// blocking sockets and TLS, with no runtime behind them.
pub(crate) const NOT_IN_VERIFY: &[&str] = &[
    "tokio",
    "hyper",
    "curfew-gateway",
    "curfew-identity",
    "reqwest",
];

/// Whoever only reads a log builds none of what decides.
pub(crate) const NOT_IN_READERS: &[&str] = &["curfew-authority", "cedar-policy", "tokio"];

/// The thinking parts have none of these, however indirectly.
pub(crate) const NOT_IN_LEAVES: &[&str] = &["tokio", "hyper", "rustls", "async-std"];

/// The only files that open a connection to somewhere else, each behind a permit.
pub(crate) const DIALS: &[&str] = &[
    "crates/web/src/upstream.rs",
    "crates/postgres/src/upstream.rs",
    // Asks the gateway on its own host.
    "crates/gateway/src/control.rs",
    // Asks the signer on its own host, which serves nothing but signatures.
    "crates/custody/src/signer.rs",
    // HTTP for those below that name their party.
    "crates/custody/src/client.rs",
    // Shows witnesses the log's checkpoints, which are for everybody, and nothing else.
    "crates/custody/src/witness/ask.rs",
    // Sends the timestamping authority a hash, and nothing else.
    "crates/custody/src/stamps/ask.rs",
    // Give signed entries to the receivers that the operator has named.
    "crates/custody/src/forward/otlp.rs",
    "crates/custody/src/forward/syslog.rs",
    // Copies the log to the store that the operator has named.
    "crates/custody/src/archive/place.rs",
];

/// Lines of a file before its tests. It only ever shrinks.
pub(crate) const LINES_MAX: usize = 600;

/// A source file: its path from the root, and its text before its unit tests.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
        Self {
            path: path.to_owned(),
            text: code.to_owned(),
        }
    }

    /// The code without comments, line by line with their numbers.
    pub(crate) fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate();
        lines.map(|(at, line)| (at + 1, line.split("//").next().unwrap_or_default()))
    }

    pub(crate) fn is_test(&self) -> bool {
        [
            "/tests/",
            "/benches/",
            "gateway/src/wire/",
            "/tests.rs",
            "_tests",
            "/benches/",
            "xtask/",
        ]
        .iter()
        .any(|part| self.path.contains(part))
    }
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

pub(crate) fn collect(folder: &Path, root: &Path, found: &mut Vec<Source>) {
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

pub(crate) fn sources() -> Vec<Source> {
    let (root, mut found) = (root(), Vec::new());
    for folder in ["crates", "xtask"] {
        collect(&root.join(folder), &root, &mut found);
    }
    assert!(found.len() > 40, "the tree was not found");
    found
}

pub(crate) fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .exec()
        .unwrap()
}

pub(crate) fn own_edges(metadata: &Metadata) -> BTreeMap<String, BTreeSet<String>> {
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

pub(crate) fn wrong_edges(edges: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
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
pub(crate) fn closure(metadata: &Metadata, name: &str) -> BTreeSet<String> {
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

pub(crate) fn forbidden(closure: &BTreeSet<String>, names: &[&str]) -> Vec<String> {
    names
        .iter()
        .filter(|name| closure.contains(**name))
        .map(|name| (*name).to_owned())
        .collect()
}

pub(crate) fn complaints(
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

/// Whether this is of the crates that serve.
fn is_shell(source: &Source) -> bool {
    ["gate", "gateway", "web", "postgres", "portal", "custody"]
        .iter()
        .any(|name| source.path.starts_with(&format!("crates/{name}/src/")))
}

pub(crate) fn dials_elsewhere(sources: &[Source]) -> Vec<String> {
    let needles = [
        "TcpStream::connect",
        "UnixStream::connect",
        "TcpSocket::new",
        "HttpConnector::new",
        "HttpClient::new",
        "UdpSocket",
    ];
    let here = |source: &Source| {
        is_shell(source) && !DIALS.contains(&source.path.as_str()) && !source.is_test()
    };
    complaints(
        sources,
        here,
        &needles,
        "only an upstream module dials, behind a permit",
    )
}

pub(crate) fn permits_minted_elsewhere(sources: &[Source]) -> Vec<String> {
    let here =
        |source: &Source| source.path != "crates/gate/src/registrar/ask.rs" && !source.is_test();
    complaints(
        sources,
        here,
        &["Permit::mint("],
        "only the registrar mints permits",
    )
}

pub(crate) fn writers_elsewhere(sources: &[Source]) -> Vec<String> {
    let here = |source: &Source| {
        is_shell(source)
            && !source.path.starts_with("crates/gate/src/registrar/")
            && !source.is_test()
    };
    let needles = [".append(&", ".append_reserved(", "authority.apply("];
    let mut found = complaints(sources, here, &needles, "only the registrar writes");
    // Start-up folds the ledger into the state with the same `apply`.
    found.retain(|line| !line.starts_with("crates/gate/src/replay.rs"));
    found
}

pub(crate) fn environment_read_elsewhere(sources: &[Source]) -> Vec<String> {
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

pub(crate) fn global_state(sources: &[Source]) -> Vec<String> {
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

/// A test that is not run says so through the one helper, which fails where `CI` is set.
pub(crate) fn left_out_otherwise(sources: &[Source]) -> Vec<String> {
    let needle = ["println!(\"left", " out"].concat();
    let here = |source: &Source| !source.path.ends_with("tests/shared/left_out.rs");
    complaints(
        sources,
        here,
        &[&needle],
        "tests are left out by left_out.rs",
    )
}

pub(crate) fn unfinished(sources: &[Source]) -> Vec<String> {
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

pub(crate) fn clocks_in_authority(sources: &[Source]) -> Vec<String> {
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
    let here = |source: &Source| {
        ["crates/authority/src/", "crates/entry/src/"]
            .iter()
            .any(|pure| source.path.starts_with(pure))
    };
    complaints(
        sources,
        here,
        &needles,
        "time, randomness and I/O are inputs of authority",
    )
}

pub(crate) fn shapeless(sources: &[Source]) -> Vec<String> {
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
