//! `cargo xtask suites`: other projects' test suites, run directly and through Curfew.
//!
//! What counts is that both runs have the same results, not that they pass: the suites' and the
//! server's versions need not be the same.

mod judge;
mod python;
mod regress;
mod sources;
mod stage;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use crate::run::{built, cargo, step, workspace};
use crate::{Failure, say, system};
use judge::{Known, Verdict};
use python::Python;
use stage::{Side, Stage};

/// The differences that are known, each with its reason.
const KNOWN: &str = include_str!("../../suites/known.txt");

/// A suite that can be run.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, ValueEnum)]
pub(crate) enum Suite {
    /// PostgreSQL's regression tests.
    Regress,
    /// PostgreSQL's tests of concurrent transactions.
    Isolation,
    /// psycopg2's tests: libpq from Python.
    Psycopg2,
    /// asyncpg's tests: a protocol implementation of its own.
    Asyncpg,
    /// SQLAlchemy's tests of its PostgreSQL dialect, by psycopg 3.
    Sqlalchemy,
    /// Django's tests of its database backends.
    Django,
}

impl Suite {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Regress => "regress",
            Self::Isolation => "isolation",
            Self::Psycopg2 => "psycopg2",
            Self::Asyncpg => "asyncpg",
            Self::Sqlalchemy => "sqlalchemy",
            Self::Django => "django",
        }
    }
}

impl Suite {
    /// Which lane it runs in: the two take about the same time.
    fn is_heavy(self) -> bool {
        matches!(self, Self::Regress | Self::Django)
    }

    /// How many tests have to pass directly. With fewer the suite is not set up as it should be,
    /// and equal results would mean little. Most of what passed when the suite was taken in.
    fn least(self) -> usize {
        match self {
            Self::Regress => 180,
            Self::Isolation => 90,
            Self::Psycopg2 => 650,
            Self::Asyncpg => 220,
            Self::Sqlalchemy => 500,
            Self::Django => 900,
        }
    }
}

/// Which suites, and how to report.
#[derive(Debug, Args)]
pub(crate) struct Suites {
    /// Only these; all of them where none is named.
    #[arg(value_enum)]
    names: Vec<Suite>,
    /// Print the results as JSON, as the last line.
    #[arg(long)]
    json: bool,
    /// The program to try, instead of the one that is built here.
    #[arg(long, value_name = "PROGRAM")]
    curfew: Option<PathBuf>,
}

/// What became of one test on one side.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Test {
    /// Whether the suite itself is content with it.
    pub(crate) passed: bool,
    /// What is compared.
    pub(crate) result: Vec<u8>,
    /// What tells somebody more.
    pub(crate) detail: String,
}

/// All tests of one side by name, and how long they took.
#[derive(Debug, Default)]
pub(crate) struct Ran {
    pub(crate) tests: BTreeMap<String, Test>,
    pub(crate) took: Duration,
}

/// One suite's line in the table.
struct Row {
    suite: Suite,
    direct: Ran,
    through: Ran,
    verdict: Verdict,
}

impl Suites {
    /// All suites, as after the tests, with the program that was built for them.
    pub(crate) fn all() -> Self {
        Self {
            names: Vec::new(),
            json: false,
            curfew: Some(built("debug", "curfew")),
        }
    }

    /// Runs them. Fails where a difference is not known, or a known one is gone.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let known = Known::parse(KNOWN).map_err(Failure::Step)?;
        let names = self.chosen();
        if names.is_empty() {
            return Ok(());
        }
        system::install(&system::TO_BUILD)?;
        if let Err(failure) = prepare(&names) {
            return left_out(failure, !self.names.is_empty());
        }
        let program = self.program()?;
        let differences = folder().join("differences");
        // Those of an earlier run would mislead.
        match fs::remove_dir_all(&differences) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(stage::failed(&differences, &error));
            }
            _ => {}
        }
        let rows = run_all(&names, &program, &known)?;
        report(&rows);
        if self.json {
            say::line(&json(&rows));
        }
        let wrong: usize = rows.iter().map(|row| row.verdict.wrong()).sum();
        if wrong == 0 {
            return Ok(());
        }
        Err(Failure::Step(format!(
            "suites: {wrong} unexpected; both results of each are in {}, Curfew's own words beside it",
            differences.display()
        )))
    }

    /// The names given, or all; without those that `CURFEW_WITHOUT` has.
    fn chosen(&self) -> Vec<Suite> {
        let without = env::var("CURFEW_WITHOUT").unwrap_or_default();
        let without: Vec<&str> = without.split(',').map(str::trim).collect();
        let mut names: Vec<Suite> = match self.names.as_slice() {
            [] => Suite::value_variants().to_vec(),
            some => some.to_vec(),
        };
        names.retain(|suite| !without.contains(&suite.name()) && !without.contains(&"suites"));
        names.sort();
        names.dedup();
        names
    }

    fn program(&self) -> Result<PathBuf, Failure> {
        if let Some(program) = &self.curfew {
            return fs::canonicalize(program).map_err(|error| stage::failed(program, &error));
        }
        step(
            "build",
            &mut cargo(&["build", "--package", "curfew-cli", "--bin", "curfew"]),
        )?;
        Ok(built("debug", "curfew"))
    }
}

/// Where downloads and what is made of them are kept.
fn folder() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR");
    target
        .map_or_else(|| workspace().join("target"), PathBuf::from)
        .join("suites")
}

/// Gets everything that the suites need and that can be had in advance.
fn prepare(names: &[Suite]) -> Result<(), Failure> {
    system::install(&system::TO_RUN)?;
    system::install(&system::TO_RUN_SUITES)?;
    say::step("suites: what they are made of");
    for suite in names {
        match suite {
            Suite::Regress | Suite::Isolation => {
                sources::postgres()?;
            }
            Suite::Psycopg2 | Suite::Asyncpg | Suite::Sqlalchemy | Suite::Django => {
                Python::of(*suite).prepare()?;
            }
        }
    }
    Ok(())
}

/// Without what they are made of. An archive that cannot be reached says nothing of this program, so
/// that is no error, unless they were asked for by name.
fn left_out(failure: Failure, asked_for: bool) -> Result<(), Failure> {
    if asked_for {
        return Err(failure);
    }
    say::note(&format!("SKIPPED suites: {failure}"));
    Ok(())
}

/// Runs the suites in two lanes at once, each with servers of its own: much of their time they
/// wait, and what is common to all databases of a server must not come from another suite.
fn run_all(names: &[Suite], program: &Path, known: &Known) -> Result<Vec<Row>, Failure> {
    let lane = |heavy: bool| -> Result<Vec<Row>, Failure> {
        let of_lane = names.iter().filter(|suite| suite.is_heavy() == heavy);
        let mut rows = on_stage(&of_lane.copied().collect::<Vec<_>>(), program, known)?;
        // Tests of timing fail now and then, on either side. A difference is one that comes again.
        let doubtful = rows.iter().filter(|row| row.verdict.wrong() > 0);
        let doubtful: Vec<Suite> = doubtful.map(|row| row.suite).collect();
        for again in on_stage(&doubtful, program, known)? {
            if let Some(row) = rows.iter_mut().find(|row| row.suite == again.suite) {
                for name in row.verdict.confirm(&again.verdict) {
                    say::note(&format!("differed once of twice: {name}"));
                }
            }
        }
        Ok(rows)
    };
    say::step("suites: each directly and through Curfew");
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(|| lane(true));
        let other = lane(false);
        (one.join(), other)
    });
    let mut rows = one.map_err(|_| Failure::Step("suites: a lane panicked".into()))??;
    rows.extend(other?);
    rows.sort_by_key(|row| row.suite);
    Ok(rows)
}

/// Runs suites one after the other on a stage of their own.
fn on_stage(suites: &[Suite], program: &Path, known: &Known) -> Result<Vec<Row>, Failure> {
    if suites.is_empty() {
        return Ok(Vec::new());
    }
    let stage = Stage::start(program)?;
    let rows: Result<Vec<Row>, Failure> = suites
        .iter()
        .map(|suite| run(*suite, &stage, known))
        .collect();
    stage.keep_log(&folder());
    let rows = rows?;
    // Whatever a client did, the log of it holds.
    let verified = stage.verify()?;
    say::note(&format!("audit log: {verified}, proven"));
    Ok(rows)
}

/// Runs one suite on both sides at once.
fn run(suite: Suite, stage: &Stage, known: &Known) -> Result<Row, Failure> {
    let name = suite.name();
    let begun = Instant::now();
    let one = |side: &Side| -> Result<Ran, Failure> {
        let begun = Instant::now();
        let tests = match suite {
            Suite::Regress => regress::regression(side),
            Suite::Isolation => regress::isolation(side),
            Suite::Psycopg2 | Suite::Asyncpg | Suite::Sqlalchemy | Suite::Django => {
                Python::of(suite).run(side)
            }
        }?;
        let took = begun.elapsed();
        Ok(Ran { tests, took })
    };
    let (direct, through) = std::thread::scope(|scope| {
        let direct = scope.spawn(|| one(&stage.direct));
        let through = one(&stage.through);
        (direct.join(), through)
    });
    let direct = direct.map_err(|_| Failure::Step(format!("suite {name}: panicked")))??;
    let through = through?;
    if direct.passed() < suite.least() {
        let (passed, least) = (direct.passed(), suite.least());
        return Err(Failure::Step(format!(
            "suite {name}: {passed} tests pass directly, {least} have to; it is not set up here"
        )));
    }
    let verdict = known.judge(name, &direct.tests, &through.tests);
    verdict.keep(&folder().join("differences").join(name), &direct, &through)?;
    for line in verdict.lines(&direct, &through) {
        say::note(&line);
    }
    let text = format!("suite {name}: {} of {} same", verdict.same, verdict.tests);
    say::done(&text, begun.elapsed());
    Ok(Row {
        suite,
        direct,
        through,
        verdict,
    })
}

impl Ran {
    fn passed(&self) -> usize {
        self.tests.values().filter(|test| test.passed).count()
    }
}

fn report(rows: &[Row]) {
    say::step("suites");
    say::note(&format!(
        "{:<12}{:>8}{:>18}{:>18}{:>10}{:>10}{:>12}",
        "suite", "tests", "passed directly", "through Curfew", "same", "known", "unexpected"
    ));
    for row in rows {
        let side =
            |ran: &Ran| format!("{} in {:.0} s", ran.passed(), ran.took.as_secs_f64().ceil());
        say::note(&format!(
            "{:<12}{:>8}{:>18}{:>18}{:>10}{:>10}{:>12}",
            row.suite.name(),
            row.verdict.tests,
            side(&row.direct),
            side(&row.through),
            row.verdict.same,
            row.verdict.known.len(),
            row.verdict.wrong()
        ));
    }
}

fn json(rows: &[Row]) -> String {
    let list = |names: &[String]| {
        let quoted: Vec<String> = names.iter().map(|name| quoted(name)).collect();
        quoted.join(",")
    };
    let side = |ran: &Ran| {
        let seconds = ran.took.as_secs_f64();
        format!("{{\"passed\":{},\"seconds\":{seconds:.1}}}", ran.passed())
    };
    let rows: Vec<String> = rows
        .iter()
        .map(|row| {
            let verdict = &row.verdict;
            format!(
                "{{\"suite\":{},\"tests\":{},\"direct\":{},\"through\":{},\"same\":{},\
                 \"known\":[{}],\"unexpected\":[{}],\"gone\":[{}]}}",
                quoted(row.suite.name()),
                verdict.tests,
                side(&row.direct),
                side(&row.through),
                verdict.same,
                list(&verdict.known),
                list(&verdict.unexpected),
                list(&verdict.gone)
            )
        })
        .collect();
    format!("[{}]", rows.join(","))
}

/// A JSON string (RFC 8259, section 7).
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_strings_are_escaped() {
        assert_eq!(quoted("a\"\\\n"), "\"a\\\"\\\\\\u000a\"");
    }

    #[test]
    fn the_list_of_known_differences_names_suites() {
        let known = Known::parse(KNOWN).unwrap();
        for suite in known.suites() {
            let named = Suite::value_variants().iter().any(|s| s.name() == suite);
            assert!(named, "{suite}");
        }
    }
}
