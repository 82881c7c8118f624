//! PostgreSQL's own suites: the outputs that pg_regress leaves are what is compared.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Test;
use super::sources;
use super::stage::{Side, USER, failed, output};
use crate::Failure;
use crate::system::{postgres_programs, test_programs};

/// How long a run may take before it is stopped, in seconds.
const LIMIT: &str = "600";

/// How many tests of a group run at once: the server takes 100 connections, and some tests have
/// several.
const CONNECTIONS: &str = "--max-connections=20";

/// Isolation tests that are left out: each goes through many orders of the same few statements,
/// and together they take as long as all others.
const LEFT_OUT: [&str; 16] = [
    "receipt-report",
    "multiple-row-versions",
    "alter-table-1",
    "alter-table-2",
    "alter-table-3",
    "reindex-concurrently-toast",
    "eval-plan-qual",
    "eval-plan-qual-trigger",
    "insert-conflict-specconflict",
    "predicate-gin",
    "lock-committed-keyupdate",
    "lock-committed-update",
    "tuplelock-upgrade-no-deadlock",
    "multixact-no-deadlock",
    "multixact-no-forget",
    "two-ids",
];

/// The regression tests, all of their schedule.
pub(crate) fn regression(side: &Side) -> Result<BTreeMap<String, Test>, Failure> {
    let source = sources::postgres()?;
    let input = copied(&source.tests.join("regress"), side)?;
    let mut command = driver("regress/pg_regress", side, "regression", &input)?;
    command
        .arg("--schedule")
        .arg(input.join("parallel_schedule"))
        .arg("--dlpath")
        .arg(libraries(&source, side)?)
        .arg(CONNECTIONS);
    results(command, side, "regress")
}

/// The tests of concurrent transactions.
pub(crate) fn isolation(side: &Side) -> Result<BTreeMap<String, Test>, Failure> {
    let input = sources::postgres()?.tests.join("isolation");
    let program = "isolation/pg_isolation_regress";
    let mut command = driver(program, side, "isolation_regression", &input)?;
    let whole = input.join("isolation_schedule");
    let whole = fs::read_to_string(&whole).map_err(|error| failed(&whole, &error))?;
    let schedule = side.folder.join("isolation_schedule");
    fs::write(&schedule, without_left_out(&whole)).map_err(|error| failed(&schedule, &error))?;
    command.arg("--schedule").arg(schedule);
    results(command, side, "isolation")
}

/// A schedule without the lines of tests that are left out.
fn without_left_out(schedule: &str) -> String {
    let kept = schedule.lines().filter(|line| {
        let test = line.strip_prefix("test:").map(str::trim);
        !test.is_some_and(|test| LEFT_OUT.contains(&test))
    });
    kept.flat_map(|line| [line, "\n"]).collect()
}

/// Where the server, too, can read it.
fn copied(from: &Path, side: &Side) -> Result<PathBuf, Failure> {
    let to = side.folder.join("input");
    let mut copy = Command::new("cp");
    copy.arg("-R").arg(from).arg(&to);
    output(&mut copy, "")?;
    let mut readable = Command::new("chmod");
    readable.args(["-R", "a+rX"]).arg(&to);
    output(&mut readable, "")?;
    Ok(to)
}

/// What the tests load into the server: a library of their own, and two that come with it.
fn libraries(source: &sources::Postgres, side: &Side) -> Result<PathBuf, Failure> {
    let folder = side.shared("library")?;
    let mut compiler = Command::new("cc");
    compiler
        .args(["-O1", "-fPIC", "-shared", "-I"])
        .arg(&source.headers)
        .arg("-o")
        .arg(folder.join("regress.so"))
        .arg(source.tests.join("regress/regress.c"));
    output(&mut compiler, "")?;
    for name in ["autoinc.so", "refint.so"] {
        let to = folder.join(name);
        fs::copy(source.libraries.join(name), &to).map_err(|error| failed(&to, &error))?;
    }
    Ok(folder)
}

fn driver(program: &str, side: &Side, database: &str, input: &Path) -> Result<Command, Failure> {
    let programs = test_programs().ok_or_else(sources::no_test_programs)?;
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=10", LIMIT])
        .arg(programs.join(program))
        .arg("--use-existing")
        .arg(format!("--dbname={database}"))
        .arg("--inputdir")
        .arg(input)
        .arg(format!("--port={}", side.port))
        .args(["--host=localhost", &format!("--user={USER}")])
        .arg("--bindir")
        .arg(postgres_programs().unwrap_or_default());
    side.environment(&mut command, database);
    // Their expected outputs are those of no locale.
    command.env("LC_ALL", "C");
    Ok(command)
}

/// Runs it and collects what every test printed. That some differ from what is expected is no
/// failure: what counts is the other side.
fn results(
    mut command: Command,
    side: &Side,
    name: &str,
) -> Result<BTreeMap<String, Test>, Failure> {
    let folder = side.shared(name)?;
    side.shared(&format!("{name}/results"))?;
    command.arg("--outputdir").arg(&folder).current_dir(&folder);
    let printed = command
        .output()
        .map_err(|error| Failure::Missing(format!("pg_regress: {error}")))?;
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    let mut tests = BTreeMap::new();
    let results = folder.join("results");
    for (test, passed) in verdicts(&printed) {
        let path = results.join(format!("{test}.out"));
        let out = fs::read(&path).map_err(|error| failed(&path, &error))?;
        let test_result = Test {
            passed,
            result: replaced(&out, side.name),
            detail: String::new(),
        };
        tests.insert(test, test_result);
    }
    if tests.is_empty() {
        let last = printed.lines().last().unwrap_or_default();
        return Err(Failure::Step(format!("{name} ran nothing: {last}")));
    }
    Ok(tests)
}

/// The tests that pg_regress says it ran, and whether each went as expected.
fn verdicts(printed: &str) -> Vec<(String, bool)> {
    let words = |line: &str| -> Option<(String, bool)> {
        let (before, after) = line.split_once(" ...")?;
        let old = || Some((before.trim().trim_start_matches("test ").trim(), after));
        let (name, said) = old()?;
        let passed = said.trim_start().starts_with("ok");
        let failed = said.trim_start().starts_with("FAILED");
        (passed || failed).then(|| (name.to_owned(), passed))
    };
    // From PostgreSQL 16 on: `ok 1  - name  12 ms`, `not ok 2  + name  3 ms`.
    let tap = |line: &str| -> Option<(String, bool)> {
        let passed = line.starts_with("ok ");
        let rest = line.strip_prefix("ok ").or(line.strip_prefix("not ok "))?;
        let mut fields = rest.split_whitespace();
        let sign = fields.nth(1)?;
        let name = fields.next()?;
        matches!(sign, "-" | "+").then(|| (name.to_owned(), passed))
    };
    let both = |line| words(line).or_else(|| tap(line));
    printed.lines().filter_map(both).collect()
}

/// The output without the name of the side, which is in paths.
fn replaced(out: &[u8], side: &str) -> Vec<u8> {
    let wanted = format!("/{side}/");
    let wanted = wanted.as_bytes();
    let mut result = Vec::with_capacity(out.len());
    let mut rest = out;
    while let Some((first, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(wanted) {
            result.extend(b"/SIDE/");
            rest = after;
        } else {
            result.push(*first);
            rest = after;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_of_old_and_new_are_read() {
        let old = "parallel group (2 tests):  b a\n     a                    ... ok          9 ms\n\
            \x20    b                    ... FAILED      8 ms\ntest solo                 ... ok   1 ms\n";
        let wanted = [("a", true), ("b", false), ("solo", true)];
        let wanted = wanted.map(|(name, passed)| (name.to_owned(), passed));
        assert_eq!(verdicts(old), wanted);
        let new = "# parallel group (2 tests):  b a\nok 1         + a       9 ms\n\
            not ok 2     + b       8 ms\nok 3         - solo    1 ms\n1..3\n";
        assert_eq!(verdicts(new), wanted);
    }

    #[test]
    fn a_schedule_keeps_what_is_not_left_out() {
        let schedule = "# two-ids\ntest: two-ids\ntest: two-ids-more\n";
        assert_eq!(
            without_left_out(schedule),
            "# two-ids\ntest: two-ids-more\n"
        );
    }

    #[test]
    fn the_side_does_not_count_in_paths() {
        assert_eq!(
            replaced(b"x /tmp/direct/y direct", "direct"),
            b"x /tmp/SIDE/y direct"
        );
    }
}
