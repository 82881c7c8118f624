//! Where the suites come from: PostgreSQL's from the distribution's source package, Python's from
//! source distributions, both kept under the target folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::folder;
use super::stage::{failed, output};
use crate::system::{postgres_programs, test_programs};
use crate::{Failure, say};

/// PostgreSQL's source, and what of the installed server goes with it.
#[derive(Debug)]
pub(crate) struct Postgres {
    /// `src/test`.
    pub(crate) tests: PathBuf,
    /// The server's headers.
    pub(crate) headers: PathBuf,
    /// Libraries that it loads.
    pub(crate) libraries: PathBuf,
}

/// Told where `pg_regress` is not here.
pub(crate) fn no_test_programs() -> Failure {
    Failure::Missing(
        "pg_regress and pg_isolation_regress: they come with PostgreSQL's development package"
            .into(),
    )
}

/// The source of the installed PostgreSQL, downloaded where it is not here yet.
pub(crate) fn postgres() -> Result<Postgres, Failure> {
    let programs = test_programs().ok_or_else(no_test_programs)?;
    let config = postgres_programs().unwrap_or_default().join("pg_config");
    let ask = |what: &str| -> Result<PathBuf, Failure> {
        let said = output(Command::new(&config).arg(what), "")?;
        Ok(PathBuf::from(said.trim()))
    };
    let headers = ask("--includedir-server")?;
    if !headers.join("postgres.h").is_file() {
        let text = format!(
            "{}: postgres.h, of the development package",
            headers.display()
        );
        return Err(Failure::Missing(text));
    }
    let major = ask("--version")?.display().to_string();
    let digits = |c: &char| c.is_ascii_digit();
    let major: String = major
        .chars()
        .skip_while(|c| !digits(c))
        .take_while(digits)
        .collect();
    // Both sides ask for it at once: it is here since `prepare`.
    let kept = folder().join(format!("postgresql-{major}"));
    let tests = kept.join("src/test");
    if !tests.join("regress/regress.c").is_file() {
        download(&format!("postgresql-{major}"), &kept)?;
    }
    if !tests.join("regress/parallel_schedule").is_file() {
        let text = format!(
            "{}: not PostgreSQL's source, for {}",
            kept.display(),
            programs.display()
        );
        return Err(Failure::Missing(text));
    }
    Ok(Postgres {
        tests,
        headers,
        libraries: ask("--pkglibdir")?,
    })
}

/// Gets a source package by a private apt, whose sources are those of the machine's own packages.
/// Nothing of the machine's own apt is changed.
fn download(package: &str, to: &Path) -> Result<(), Failure> {
    let missing = |what: &str| Failure::Missing(format!("the source of {package}: {what}"));
    let own = output(Command::new("apt-cache").args(["madison", package]), "")
        .map_err(|failure| missing(&format!("{failure} (it is got by apt-get source)")))?;
    let sources = source_lines(&own);
    if sources.is_empty() {
        return Err(missing(
            "apt knows of no archive that has the package; run apt-get update",
        ));
    }
    let apt = folder().join("apt");
    for path in ["lists/partial", "cache/archives/partial"] {
        let path = apt.join(path);
        fs::create_dir_all(&path).map_err(|error| failed(&path, &error))?;
    }
    let list = apt.join("sources.list");
    fs::write(&list, sources).map_err(|error| failed(&list, &error))?;
    let private = |program: &str| {
        let mut command = Command::new(program);
        for (key, value) in [
            ("Dir::Etc::sourcelist", list.display().to_string()),
            ("Dir::Etc::sourceparts", "/dev/null".to_owned()),
            ("Dir::State::lists", apt.join("lists").display().to_string()),
            ("Dir::Cache", apt.join("cache").display().to_string()),
            ("APT::Sandbox::User", "root".to_owned()),
        ] {
            command.arg("-o").arg(format!("{key}={value}"));
        }
        command.current_dir(&apt);
        command
    };
    // One archive that cannot be had is no reason to stop: what counts is whether one has the source.
    let updated = output(private("apt-get").args(["update", "-qq"]), "");
    let known = ["showsrc", "--only-source", package];
    let versions = output(private("apt-cache").args(known), "").map_err(|_| match updated {
        Ok(_) => missing("no archive has it"),
        Err(failure) => missing(&failure.to_string()),
    })?;
    // A mirror may list a version whose files it no longer, or not yet, has.
    let mut reason = String::new();
    for version in versions
        .lines()
        .filter_map(|line| line.strip_prefix("Version: "))
    {
        let _ = fs::remove_dir_all(to);
        let wanted = format!("{package}={version}");
        let get = ["source", "-qq", "--download-only", "--only-source", &wanted];
        match output(private("apt-get").args(get), "") {
            Ok(_) => {
                say::note(&format!("{package} {version}"));
                return extract(&apt, package, version, to);
            }
            Err(failure) => reason.push_str(&format!("\n  {version}: {failure}")),
        }
    }
    Err(missing(&format!("no version can be downloaded:{reason}")))
}

fn extract(apt: &Path, package: &str, version: &str, to: &Path) -> Result<(), Failure> {
    // An epoch is not part of file names.
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    let mut extract = Command::new("dpkg-source");
    extract
        .args([
            "--no-check",
            "--extract",
            &format!("{package}_{version}.dsc"),
        ])
        .arg(to)
        .current_dir(apt);
    output(&mut extract, "").map(drop)
}

/// Lines for a sources.list, for the archives that `apt-cache madison` names.
fn source_lines(madison: &str) -> String {
    let mut lines: Vec<String> = madison
        .lines()
        .filter_map(|line| {
            let archive = line.rsplit(" | ").next()?;
            let fields: Vec<&str> = archive.split_whitespace().collect();
            let [uri, suite, _, "Packages"] = fields.as_slice() else {
                return None;
            };
            let (suite, component) = suite.rsplit_once('/')?;
            Some(format!("deb-src {uri} {suite} {component}\n"))
        })
        .collect();
    lines.sort();
    lines.dedup();
    lines.concat()
}

/// The source distribution of a Python package, unpacked.
pub(crate) fn python(package: &str, version: &str) -> Result<PathBuf, Failure> {
    let kept = folder().join("python");
    fs::create_dir_all(&kept).map_err(|error| failed(&kept, &error))?;
    let unpacked = kept.join(format!("{package}-{version}"));
    if unpacked.is_dir() {
        return Ok(unpacked);
    }
    let archive = kept.join(format!("{package}-{version}.tar.gz"));
    if !archive.is_file() {
        let mut pip = Command::new("python3");
        pip.args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
        ])
        .args(["--no-deps", "--no-binary", package])
        .arg(format!("{package}=={version}"))
        .current_dir(&kept);
        output(&mut pip, "").map_err(|failure| {
            Failure::Missing(format!("the source of {package} {version}: {failure}"))
        })?;
    }
    let mut tar = Command::new("tar");
    tar.arg("xzf").arg(&archive).current_dir(&kept);
    output(&mut tar, "")?;
    Ok(unpacked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_of_binaries_become_archives_of_sources() {
        let madison = " p | 15.2-1 | http://a.example/debian-security b-security/main amd64 Packages\n\
            \x20p | 15.1-1 | http://a.example/debian b/main amd64 Packages\n\
            \x20p | 15.1-1 | http://a.example/debian b/main amd64 Packages\n\
            \x20p | 15.1-1 | http://a.example/debian b/main Sources\n";
        assert_eq!(
            source_lines(madison),
            "deb-src http://a.example/debian b main\n\
             deb-src http://a.example/debian-security b-security main\n"
        );
        assert_eq!(source_lines(""), "");
    }
}
