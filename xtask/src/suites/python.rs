//! The suites of Python's drivers and frameworks: the outcome of every test is what is compared.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::stage::{Side, failed, output};
use super::{Suite, Test, folder, sources};
use crate::Failure;

/// How long a run may take before it is stopped, in seconds.
const LIMIT: &str = "400";

/// What `timeout` exits with then.
const TIMED_OUT: i32 = 124;

/// How long one test may take, in seconds.
const TEST_LIMIT: &str = "--timeout=60";

/// What records outcomes.
const OUTCOMES: &str = include_str!("../../suites/outcomes.py");

/// Django's settings for its tests.
const DJANGO_SETTINGS: &str = include_str!("../../suites/django_settings.py");

/// Everything that is installed for the suites. The versions are fixed: the list of known
/// differences is about their tests.
const INSTALLED: [&str; 9] = [
    "pytest==8.4.2",
    "pytest-timeout==2.4.0",
    "psycopg2-binary==2.9.13",
    "psycopg[binary]==3.3.9",
    "asyncpg==0.32.0",
    "distro==1.9.0",
    "sqlalchemy==2.1.9",
    "greenlet==3.2.4",
    "django==5.2.19",
];

/// A suite, and how it is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Python {
    /// The package whose source distribution has the tests.
    package: &'static str,
    version: &'static str,
    /// The folders of it that are wanted: beside the package itself its source would be imported.
    parts: &'static [&'static str],
    database: &'static str,
    /// What of it is run.
    arguments: &'static [&'static str],
}

impl Python {
    pub(crate) fn of(suite: Suite) -> Self {
        match suite {
            Suite::Asyncpg => Self {
                package: "asyncpg",
                version: "0.32.0",
                parts: &["tests"],
                // Its tests of pools name this one.
                database: "postgres",
                arguments: &["tests"],
            },
            Suite::Sqlalchemy => Self {
                package: "sqlalchemy",
                version: "2.1.9",
                parts: &["test", "lib", "setup.cfg", "pyproject.toml"],
                database: "sqlalchemy",
                arguments: &[
                    "--dburi=postgresql+psycopg://",
                    "test/dialect/postgresql/test_query.py",
                    "test/dialect/postgresql/test_reflection.py",
                    "test/dialect/postgresql/test_dialect.py",
                    "test/dialect/postgresql/test_on_conflict.py",
                    "test/engine/test_transaction.py",
                ],
            },
            Suite::Django => Self {
                package: "django",
                version: "5.2.19",
                parts: &["tests"],
                database: "django",
                arguments: &[
                    "backends",
                    "postgres_tests",
                    "transactions",
                    "transaction_hooks",
                    "select_for_update",
                    "introspection",
                ],
            },
            Suite::Regress | Suite::Isolation | Suite::Psycopg2 => Self {
                package: "psycopg2",
                version: "2.9.13",
                parts: &["tests"],
                database: "psycopg2_test",
                arguments: &["tests"],
            },
        }
    }

    /// Gets its source, and all that runs it.
    pub(crate) fn prepare(self) -> Result<(), Failure> {
        sources::python(self.package, self.version)?;
        environment().map(drop)
    }

    /// Runs it on one side.
    pub(crate) fn run(self, side: &Side) -> Result<BTreeMap<String, Test>, Failure> {
        let source = sources::python(self.package, self.version)?;
        let work = side.shared(self.package)?;
        for part in self.parts {
            let mut copy = Command::new("cp");
            copy.arg("-R").arg(source.join(part)).arg(&work);
            output(&mut copy, "")?;
        }
        let plugin = side.folder.join("plugin");
        fs::create_dir_all(&plugin).map_err(|error| failed(&plugin, &error))?;
        write(&plugin.join("outcomes.py"), OUTCOMES)?;
        write(&plugin.join("suite_settings.py"), DJANGO_SETTINGS)?;
        let outcomes = side.folder.join(format!("{}.outcomes", self.package));
        let mut command = Command::new("timeout");
        command
            .args(["--kill-after=10", LIMIT])
            .arg(environment()?)
            .env("PYTHONPATH", &plugin)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PSYCOPG2_TEST_FAST", "1")
            // Nothing of the order of sets may differ between the sides.
            .env("PYTHONHASHSEED", "1")
            .env("OUTCOMES", &outcomes);
        side.environment(&mut command, self.database);
        if self.package == "django" {
            command
                .arg(plugin.join("outcomes.py"))
                .args(["--settings=suite_settings", "--parallel=1", "--noinput"])
                .current_dir(work.join("tests"));
        } else {
            // Python of today cannot always parse what a full traceback shows.
            command
                .args([
                    "-m",
                    "pytest",
                    "-q",
                    "-p",
                    "outcomes",
                    "-p",
                    "no:cacheprovider",
                ])
                .args(["--tb=native", TEST_LIMIT])
                .current_dir(&work);
        }
        command.args(self.arguments);
        let ran = command
            .output()
            .map_err(|error| Failure::Missing(format!("python3: {error}")))?;
        // That tests fail is no failure: what counts is the other side.
        let text = fs::read_to_string(&outcomes).unwrap_or_default();
        let tests = read(&text, &work);
        if tests.is_empty() {
            let said = [ran.stdout, ran.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            let last: Vec<&str> = said.trim().lines().rev().take(5).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            let name = self.package;
            if ran.status.code() == Some(TIMED_OUT) {
                return Err(Failure::Step(format!("{name} took longer than {LIMIT} s")));
            }
            return Err(Failure::Step(format!(
                "{name} ran nothing: {}",
                last.join("\n")
            )));
        }
        Ok(tests)
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| failed(path, &error))
}

/// A Python of our own with what the suites need, made once.
fn environment() -> Result<PathBuf, Failure> {
    let venv = folder().join("venv");
    let python = venv.join("bin/python");
    let stamp = venv.join("installed");
    let wanted = INSTALLED.join("\n");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    let mut make = Command::new("python3");
    make.args(["-m", "venv", "--clear"]).arg(&venv);
    output(&mut make, "")?;
    let mut pip = Command::new(&python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ])
    .args(INSTALLED);
    output(&mut pip, "")
        .map_err(|failure| Failure::Missing(format!("{}: {failure}", INSTALLED.join(", "))))?;
    write(&stamp, &wanted)?;
    Ok(python)
}

/// Reads what the plugin wrote.
fn read(text: &str, work: &Path) -> BTreeMap<String, Test> {
    let here = work.display().to_string();
    let mut tests = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, '\t');
        let (Some(outcome), Some(name)) = (fields.next(), fields.next()) else {
            continue;
        };
        let said = fields.next().unwrap_or_default().replace(&here, "");
        let test = Test {
            passed: outcome == "passed",
            result: format!("{outcome}\n").into_bytes(),
            detail: said,
        };
        tests.insert(name.to_owned(), test);
    }
    tests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_read() {
        let text = "passed\ta::b[1]\t\nfailed\ta::c\tat /work/x.py no\nbroken\n";
        let tests = read(text, Path::new("/work"));
        let all: Vec<_> = tests
            .iter()
            .map(|(name, t)| (name.as_str(), t.passed))
            .collect();
        assert_eq!(all, [("a::b[1]", true), ("a::c", false)]);
        assert_eq!(
            tests.get("a::c").map(|t| t.detail.as_str()),
            Some("at /x.py no")
        );
    }
}
