//! Which folders of a crate use which, read from the paths in their text, and that none of them goes
//! round in a circle.
//!
//! A folder here is a top-level module of a crate: `src/x.rs` with everything below `src/x/`. The reader
//! is a simple one. It follows `crate::…` and `super::…`, alone or before a group in braces, and names
//! that the crate's root re-exports; it does not expand macros, and tests are left out.

use std::collections::{BTreeMap, BTreeSet};

use crate::rules::Source;

/// Crates in which there still are circles, and why.
pub(crate) const CIRCLES_LEFT: &[(&str, &str)] = &[
    (
        "authority",
        "a refusal in command.rs names a limit of authority/",
    ),
    (
        "entry",
        "events, sessions and what is concealed name each other",
    ),
    ("gateway", "it is being taken apart into crates"),
];

/// What each folder of the ledger may use. `crates/ledger/src/lib.rs` shows the same order.
pub(crate) const LEDGER_FOLDERS: &[(&str, &[&str])] = &[
    ("disk", &[]),
    ("format", &["disk"]),
    ("keys", &["disk", "format"]),
    ("read", &["disk", "format", "keys"]),
    ("verify", &["disk", "format", "keys", "read"]),
    ("write", &["disk", "format", "keys", "read"]),
];

/// For each folder the folders it uses, each with the first place where it does.
type Uses = BTreeMap<String, BTreeMap<String, String>>;

/// Where a file stands in its crate: the name of the crate, and the modules from the root to it.
fn place(path: &str) -> Option<(&str, Vec<&str>)> {
    let (name, file) = path.strip_prefix("crates/")?.split_once("/src/")?;
    let mut modules: Vec<&str> = file.strip_suffix(".rs")?.split('/').collect();
    if matches!(modules.last(), Some(&("mod" | "lib" | "main"))) {
        modules.pop();
    }
    Some((name, modules))
}

/// The first name of each path that `text` begins with: one, or those of a group in braces.
fn first_names(text: &str) -> Vec<&str> {
    let name = |text: &'_ str| {
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
        end.unwrap_or(text.len())
    };
    let Some(group) = text.strip_prefix('{') else {
        return vec![&text[..name(text)]];
    };
    let (mut names, mut depth, mut starts) = (Vec::new(), 1, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => starts = true,
            _ if starts && !c.is_whitespace() => {
                names.push(&group[at..at + name(&group[at..])]);
                starts = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

/// The names that a file takes from the root of its crate, each with the line. `depth` is how many
/// modules the file is below the root.
fn names_from_root(source: &Source, depth: usize) -> Vec<(usize, String)> {
    let mut text = String::new();
    let mut starts = Vec::new();
    for (line, code) in source.code() {
        starts.push((text.len(), line));
        text.push_str(code);
        text.push('\n');
    }
    let to_root = ["crate::".to_owned(), "super::".repeat(depth)];
    let mut found = Vec::new();
    for prefix in to_root.iter().filter(|prefix| !prefix.is_empty()) {
        for (at, _) in text.match_indices(prefix.as_str()) {
            // Part of a longer name, or of a path that goes further up or comes from elsewhere.
            if text[..at].ends_with(|c: char| c.is_alphanumeric() || "_:$".contains(c)) {
                continue;
            }
            let line = starts.partition_point(|(start, _)| *start <= at);
            let line = starts[line.saturating_sub(1)].1;
            let names = first_names(&text[at + prefix.len()..]);
            found.extend(names.into_iter().map(|name| (line, name.to_owned())));
        }
    }
    found
}

/// What the root of a crate re-exports: each name with the folder it comes from.
fn exports(root: &Source) -> BTreeMap<String, String> {
    let code: String = root.code().map(|(_, code)| format!("{code}\n")).collect();
    let mut names = BTreeMap::new();
    for part in code.split("use ").skip(1) {
        let path = part.split(';').next().unwrap_or_default();
        let path = path
            .trim_start_matches("crate::")
            .trim_start_matches("self::");
        let Some((folder, rest)) = path.split_once("::") else {
            continue;
        };
        let last = rest.rsplit_once("::").map_or(rest, |(_, last)| last);
        for name in last.trim_matches(['{', '}', '\n', ' ']).split(',') {
            let name = name.rsplit(" as ").next().unwrap_or_default().trim();
            names.insert(name.to_owned(), folder.to_owned());
        }
    }
    names
}

/// Which folders of the crate `name` use which.
fn uses(sources: &[Source], name: &str) -> Uses {
    let own = |source: &&Source| {
        !source.is_test() && place(&source.path).is_some_and(|(found, _)| found == name)
    };
    let sources: Vec<_> = sources.iter().filter(own).collect();
    let (mut folders, mut exported) = (BTreeSet::new(), BTreeMap::new());
    for source in &sources {
        let modules = place(&source.path).map(|(_, modules)| modules);
        match modules.unwrap_or_default().first() {
            Some(folder) => drop(folders.insert((*folder).to_owned())),
            None => exported.extend(exports(source)),
        }
    }
    let mut uses = Uses::new();
    for source in &sources {
        let modules = place(&source.path).map(|(_, modules)| modules);
        let modules = modules.unwrap_or_default();
        let Some(from) = modules.first() else {
            continue;
        };
        for (line, name) in names_from_root(source, modules.len()) {
            let Some(to) = folders.get(&name).or_else(|| exported.get(&name)) else {
                continue;
            };
            if to != from && folders.contains(to) {
                let at = format!("{}:{line}", source.path);
                let to_others = uses.entry((*from).to_owned()).or_default();
                to_others.entry(to.clone()).or_insert(at);
            }
        }
    }
    uses
}

/// The shortest way from one folder to another, both included.
fn way(uses: &Uses, from: &str, to: &str) -> Option<Vec<String>> {
    let mut ways = vec![vec![from.to_owned()]];
    let mut seen = BTreeSet::new();
    let mut at = 0;
    while at < ways.len() {
        let last = ways[at].last().cloned().unwrap_or_default();
        if last == to {
            return Some(ways.swap_remove(at));
        }
        for next in uses.get(&last).into_iter().flat_map(BTreeMap::keys) {
            if seen.insert(next.clone()) {
                ways.push([ways[at].clone(), vec![next.clone()]].concat());
            }
        }
        at += 1;
    }
    None
}

/// Folders of a crate that use each other in a circle, each circle told once. Files that lie beside each
/// other in `src/`, with nothing below them, are in one folder: a circle of such alone is none.
pub(crate) fn circles(sources: &[Source]) -> Vec<String> {
    let names: BTreeSet<&str> = sources
        .iter()
        .filter_map(|source| place(&source.path))
        .map(|(name, _)| name)
        .filter(|name| !CIRCLES_LEFT.iter().any(|(left, _)| left == name))
        .collect();
    let mut found = BTreeMap::new();
    for name in names {
        let uses = uses(sources, name);
        let is_folder = |folder: &String| {
            let inside = format!("crates/{name}/src/{folder}/");
            sources
                .iter()
                .any(|source| source.path.starts_with(&inside))
        };
        for (from, targets) in &uses {
            for to in targets.keys() {
                let Some(back) = way(&uses, to, from) else {
                    continue;
                };
                let members: BTreeSet<String> = back.iter().cloned().collect();
                if !members.iter().any(is_folder) {
                    continue;
                }
                let place = |pair: &[String]| uses[&pair[0]][&pair[1]].clone();
                let circle = [vec![from.clone()], back].concat();
                let places: Vec<_> = circle.windows(2).map(place).collect();
                let text = format!("{name}: {} ({})", circle.join(" -> "), places.join(", "));
                found.entry((name, members)).or_insert(text);
            }
        }
    }
    found.into_values().collect()
}

/// Folders of the ledger that use what their order does not let them.
pub(crate) fn ledger_out_of_order(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for (from, targets) in uses(sources, "ledger") {
        let allowed = LEDGER_FOLDERS.iter().find(|(folder, _)| *folder == from);
        let allowed = allowed.map_or(&[] as &[&str], |(_, allowed)| allowed);
        let new = targets
            .iter()
            .filter(|(to, _)| !allowed.contains(&to.as_str()));
        found.extend(new.map(|(to, at)| format!("{at}: {from} must not use {to}")));
    }
    found
}
