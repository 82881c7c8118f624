//! The project's only scripts: `cargo xtask demo | test | suites | deny | bench | crash | fuzz`.
//!
//! Needs nothing but cargo to be built, so that it can install what the rest needs.

mod bench;
mod crash;
mod run;
mod say;
mod suites;
mod system;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

use bench::Bench;
use crash::Crash;
use run::{built, cargo, on_path, step};
use suites::Suites;

/// Why a task did not succeed.
#[derive(Debug)]
enum Failure {
    /// A step failed.
    Step(String),
    /// Something that is needed is not there.
    Missing(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Step(text) | Self::Missing(text) => f.write_str(text),
        }
    }
}

/// Builds, tests and shows Curfew.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    after_help = "Exit codes: 0 done, 1 a step failed, 2 something needed is missing or the \
                  command line is wrong."
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what is missing, build Curfew and run `curfew demo` with the given arguments.
    #[command(disable_help_flag = true)]
    Demo {
        /// Handed on to `curfew demo`, such as --once.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Everything CI runs: format, lints, tests (the demo's walk among them), documentation tests,
    /// other projects' suites.
    Test {
        /// Only the tests whose name holds this; leaves out everything else.
        filter: Option<String>,
    },
    /// Other projects' test suites, directly and through Curfew: PostgreSQL's, and those of Python's
    /// drivers and frameworks. Fails where the results differ in a way that is not known.
    Suites(Suites),
    /// Check licences, bans and sources of all dependencies, and advisories where they can be had.
    Deny,
    /// Give the verifier changed logs, notes, receipts and entries, and see that it stands:
    /// --seconds N, --seed N, --target NAME, --case N. A short run is among the tests.
    #[command(disable_help_flag = true)]
    Fuzz {
        /// Handed on, such as --seconds 600 --seed 7.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Crash the ledger: every operation in every way, then random faults, or kill the program.
    Crash(Crash),
    /// Measure. See docs/benchmarks.md.
    Bench {
        /// What to measure.
        #[arg(value_parser = Bench::parser())]
        what: Bench,
        /// Handed on to the measurement.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Demo { arguments } => demo(&arguments),
        Task::Test { filter } => system::install_for_tests().and_then(|()| match filter {
            Some(filter) => tests(Some(&filter)),
            None => everything(),
        }),
        Task::Suites(suites) => suites.run(),
        Task::Deny => deny(),
        Task::Fuzz { arguments } => fuzz(&arguments),
        Task::Crash(crash) => crash.run(),
        Task::Bench { what, arguments } => what.run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say::problem(&failure.to_string());
            match failure {
                Failure::Step(_) => ExitCode::from(1),
                Failure::Missing(_) => ExitCode::from(2),
            }
        }
    }
}

fn demo(arguments: &[String]) -> Result<(), Failure> {
    system::install(&system::TO_BUILD)?;
    system::install(&system::TO_RUN)?;
    run::run(&mut cargo(&["build", "--package", "curfew-cli"]))?;
    // In our place, so that Ctrl-C and the exit code are the demo's own.
    let error = Command::new(built("debug", "curfew"))
        .arg("demo")
        .args(arguments)
        .exec();
    Err(Failure::Missing(format!("cannot start the demo: {error}")))
}

fn everything() -> Result<(), Failure> {
    step("format", &mut cargo(&["fmt", "--all", "--check"]))?;
    let lints = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    step("lints", &mut cargo(&lints))?;
    tests(None)?;
    step(
        "documentation tests",
        &mut cargo(&["test", "--workspace", "--doc"]),
    )?;
    Suites::all().run()?;
    if on_path("cargo-deny").is_some() {
        deny()?;
    } else {
        say::note("SKIPPED cargo deny: cargo-deny is not installed");
    }
    Ok(())
}

fn tests(filter: Option<&str>) -> Result<(), Failure> {
    // One process for each test binary: the tests of a plane share one PostgreSQL.
    let mut arguments = vec!["test", "--workspace", "--lib", "--bins", "--tests"];
    arguments.extend(filter);
    step("tests", &mut cargo(&arguments))
}

/// With the checks of the development profile: an overflow is found, not passed over.
fn fuzz(arguments: &[String]) -> Result<(), Failure> {
    system::install(&system::TO_BUILD)?;
    let what = [
        "bench",
        "--profile",
        "dev",
        "--package",
        "curfew-verify",
        "--bench",
        "fuzz",
    ];
    step("fuzz", cargo(&what).arg("--").args(arguments))
}

fn deny() -> Result<(), Failure> {
    if on_path("cargo-deny").is_none() {
        return Err(Failure::Missing(
            "cargo-deny is not installed: cargo install --locked cargo-deny".into(),
        ));
    }
    let checks = ["deny", "check", "bans", "licenses", "sources"];
    step("licences, bans, sources", &mut cargo(&checks))?;
    let fetched = cargo(&["deny", "fetch", "db"])
        .output()
        .is_ok_and(|output| output.status.success());
    if fetched {
        return step("advisories", &mut cargo(&["deny", "check", "advisories"]));
    }
    say::note("SKIPPED advisories: their database cannot be reached from here");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
