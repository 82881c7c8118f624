//! What the machine must have, and how its package manager is asked for it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;
use crate::run::{on_path, run};
use crate::say;

/// Something that must be installed before Curfew can be built, run or tested.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Need {
    /// A C compiler, for aws-lc and PostgreSQL's parser.
    Compiler,
    /// libclang, by which bindgen reads that parser's header.
    Libclang,
    /// The PostgreSQL server programs, for the demo and the tests.
    Postgres,
    /// A browser, for the tests of the pages.
    Chromium,
    /// strace, by which tests make system calls of the real program fail.
    Strace,
    /// Go, whose own reader of transparency logs has to agree with ours.
    Go,
    /// That reader: golang.org/x/mod, where Debian puts it.
    GoMod,
    /// OpenSSL's program, by which tests make a timestamping authority.
    Openssl,
    /// curl, which talks HTTP as no library does.
    Curl,
    /// Python with what makes environments of its own, into which tests install clients.
    Python,
    /// Node.js with npm, for the same.
    Node,
    /// Java that runs a source file, and PostgreSQL's driver for it.
    Java,
    Jdbc,
    /// mkfs.ext4, for a disk that turns read-only.
    Ext4,
    /// rsyslog with either of its TLS drivers, which has to take what is forwarded.
    RsyslogOpenssl,
    RsyslogGnutls,
    /// PostgreSQL's headers and the programs that run its own tests.
    PostgresTests,
    /// What unpacks a source package.
    DpkgDev,
}

/// What it takes to build the workspace.
pub(crate) const TO_BUILD: [Need; 2] = [Need::Compiler, Need::Libclang];

/// Without these some tests say that they are left out, or fail where `CI` is set.
const TO_TEST: [Need; 13] = [
    Need::Chromium,
    Need::Strace,
    Need::Go,
    Need::GoMod,
    Need::Openssl,
    Need::RsyslogOpenssl,
    Need::RsyslogGnutls,
    Need::Curl,
    Need::Python,
    Need::Node,
    Need::Java,
    Need::Jdbc,
    Need::Ext4,
];

/// What it takes to run the demo.
pub(crate) const TO_RUN: [Need; 1] = [Need::Postgres];

/// What it takes to run other projects' suites.
pub(crate) const TO_RUN_SUITES: [Need; 4] = [
    Need::PostgresTests,
    Need::DpkgDev,
    Need::Openssl,
    Need::Python,
];

impl Need {
    fn is_met(self) -> bool {
        match self {
            Self::Compiler => on_path("cc").is_some() || on_path("clang").is_some(),
            Self::Libclang => libclang_folder().is_some(),
            Self::Postgres => postgres_folder().is_some(),
            Self::Chromium => ["chromium", "chromium-browser", "google-chrome", "chrome"]
                .iter()
                .any(|name| on_path(name).is_some()),
            Self::Strace => on_path("strace").is_some(),
            Self::Go => on_path("go").is_some(),
            Self::GoMod => Path::new("/usr/share/gocode/src/golang.org/x/mod/sumdb/tlog").is_dir(),
            Self::Openssl => on_path("openssl").is_some(),
            Self::Curl => on_path("curl").is_some(),
            Self::Python => succeeds("python3", &["-c", "import ensurepip, venv"]),
            Self::Node => on_path("node").is_some() && on_path("npm").is_some(),
            Self::Java => on_path("javac").is_some(),
            Self::Jdbc => Path::new("/usr/share/java/postgresql.jar").is_file(),
            Self::Ext4 => on_path("mkfs.ext4").is_some() || Path::new("/sbin/mkfs.ext4").is_file(),
            Self::RsyslogOpenssl => has_rsyslog("lmnsd_ossl.so"),
            Self::RsyslogGnutls => has_rsyslog("lmnsd_gtls.so"),
            Self::PostgresTests => test_programs().is_some(),
            Self::DpkgDev => on_path("dpkg-source").is_some(),
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Compiler => "a C compiler",
            Self::Libclang => "libclang",
            Self::Postgres => "the PostgreSQL server programs",
            Self::Chromium => "Chromium",
            Self::Strace => "strace",
            Self::Go => "Go",
            Self::GoMod => "Go's golang.org/x/mod",
            Self::Openssl => "openssl",
            Self::Curl => "curl",
            Self::Python => "Python with venv",
            Self::Node => "Node.js with npm",
            Self::Java => "a JDK",
            Self::Jdbc => "PostgreSQL's JDBC driver",
            Self::Ext4 => "mkfs.ext4",
            Self::RsyslogOpenssl => "rsyslog with OpenSSL",
            Self::RsyslogGnutls => "rsyslog with GnuTLS",
            Self::PostgresTests => "pg_regress with PostgreSQL's headers",
            Self::DpkgDev => "dpkg-source",
        }
    }
}

/// A package manager that is known here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Manager {
    Apt,
    Dnf,
    Apk,
}

impl Manager {
    fn found() -> Option<Self> {
        [
            ("apt-get", Self::Apt),
            ("dnf", Self::Dnf),
            ("apk", Self::Apk),
        ]
        .into_iter()
        .find(|(program, _)| on_path(program).is_some())
        .map(|(_, manager)| manager)
    }

    fn package(self, need: Need) -> &'static str {
        match (self, need) {
            (Self::Apt, Need::Compiler) => "build-essential",
            (Self::Apt, Need::Libclang) => "libclang-dev",
            (Self::Apt | Self::Apk, Need::Postgres) => "postgresql",
            (Self::Apk, Need::Compiler) => "build-base",
            (Self::Apk, Need::Libclang) => "clang-libclang",
            (Self::Dnf, Need::Compiler) => "gcc",
            (Self::Dnf, Need::Libclang) => "clang-libs",
            (Self::Dnf, Need::Postgres) => "postgresql-server",
            (_, Need::Chromium) => "chromium",
            (_, Need::Strace) => "strace",
            (Self::Apt, Need::Go) => "golang-go",
            (Self::Dnf, Need::Go) => "golang",
            // Alpine has no package of the library: what needs it says that it is left out.
            (Self::Apk, Need::Go | Need::GoMod) => "go",
            (Self::Apt, Need::GoMod) => "golang-golang-x-mod-dev",
            (Self::Dnf, Need::GoMod) => "golang-x-mod-devel",
            (_, Need::Openssl) => "openssl",
            (_, Need::Curl) => "curl",
            (Self::Apt, Need::Python) => "python3-venv",
            (_, Need::Python) => "python3",
            (_, Need::Node) => "npm",
            (Self::Apt, Need::Java) => "default-jdk-headless",
            (Self::Dnf, Need::Java) => "java-latest-openjdk-devel",
            (Self::Apt, Need::Jdbc) => "libpostgresql-jdbc-java",
            (Self::Dnf, Need::Jdbc) => "postgresql-jdbc",
            // Alpine has no package of the driver: what needs it says that it is left out.
            (Self::Apk, Need::Java | Need::Jdbc) => "openjdk21-jdk",
            (_, Need::Ext4) => "e2fsprogs",
            // Alpine has one package for TLS; where a driver is not in it, that is said.
            (Self::Apk, Need::RsyslogOpenssl | Need::RsyslogGnutls) => "rsyslog-tls",
            (_, Need::RsyslogOpenssl) => "rsyslog-openssl",
            (_, Need::RsyslogGnutls) => "rsyslog-gnutls",
            (Self::Apt, Need::PostgresTests) => "postgresql-server-dev-all",
            (Self::Dnf, Need::PostgresTests) => "postgresql-server-devel",
            (Self::Apk, Need::PostgresTests) => "postgresql-dev",
            (_, Need::DpkgDev) => "dpkg-dev",
        }
    }

    /// The command that installs `packages`, with what has to run before it.
    fn commands(self, packages: &[&str]) -> Vec<Vec<String>> {
        let line = |words: &[&str]| -> Vec<String> {
            words
                .iter()
                .chain(packages)
                .map(|word| (*word).to_owned())
                .collect()
        };
        match self {
            Self::Apt => vec![
                vec!["apt-get".into(), "update".into(), "-qq".into()],
                line(&["apt-get", "install", "-y", "--no-install-recommends"]),
            ],
            Self::Dnf => vec![line(&["dnf", "install", "-y"])],
            Self::Apk => vec![line(&["apk", "add", "--no-cache"])],
        }
    }
}

/// Installs what of `needs` is missing.
pub(crate) fn install(needs: &[Need]) -> Result<(), Failure> {
    let missing: Vec<Need> = needs
        .iter()
        .copied()
        .filter(|need| !need.is_met())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|need| need.what()).collect();
    let names = names.join(", ");
    let Some(manager) = Manager::found() else {
        return Err(Failure::Missing(format!(
            "{names} missing, and none of apt-get, dnf and apk is here to install it"
        )));
    };
    let packages: Vec<&str> = missing.iter().map(|need| manager.package(*need)).collect();
    let mut prefix: &[&str] = &[];
    if !is_root() {
        if !sudo_works() {
            return Err(Failure::Missing(format!(
                "{names} missing, and this user may not install packages. As root: {}",
                manager
                    .commands(&packages)
                    .iter()
                    .map(|words| words.join(" "))
                    .collect::<Vec<_>>()
                    .join(" && ")
            )));
        }
        prefix = &["sudo", "-n"];
    }
    say::step(&format!("installing {names}: {}", packages.join(" ")));
    for words in manager.commands(&packages) {
        let words: Vec<&str> = prefix
            .iter()
            .copied()
            .chain(words.iter().map(String::as_str))
            .collect();
        let Some((program, arguments)) = words.split_first() else {
            continue;
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive");
        run(&mut command)?;
    }
    match missing.iter().find(|need| !need.is_met()) {
        None => Ok(()),
        Some(need) => Err(Failure::Missing(format!(
            "{} is still not found after the installation",
            need.what()
        ))),
    }
}

/// All that the tests need. What cannot be had is said, all of it at once: tests that need it are left
/// out, or fail where `CI` is set.
pub(crate) fn install_for_tests() -> Result<(), Failure> {
    install(&TO_BUILD)?;
    install(&TO_RUN)?;
    // All at once where that can be; otherwise as many as there are.
    if install(&TO_TEST).is_ok() {
        return Ok(());
    }
    let mut missing = Vec::new();
    for need in TO_TEST {
        if let Err(failure) = install(&[need]) {
            say::note(&format!("NOT INSTALLED {}: {failure}", need.what()));
            missing.push(need.what());
        }
    }
    let ci = env::var("CI").is_ok_and(|ci| !matches!(ci.as_str(), "" | "0" | "false"));
    if ci && !missing.is_empty() {
        say::note(&format!(
            "CI is set: the tests that need {} will fail, unless CURFEW_WITHOUT names them",
            missing.join(", ")
        ));
    }
    Ok(())
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .output()
        .is_ok_and(|output| output.status.success())
}

pub(crate) fn is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout.starts_with(b"0\n"))
}

fn sudo_works() -> bool {
    on_path("sudo").is_some()
        && Command::new("sudo")
            .args(["-n", "true"])
            .output()
            .is_ok_and(|output| output.status.success())
}

/// Where libclang is, for bindgen's `LIBCLANG_PATH`.
pub(crate) fn libclang_folder() -> Option<PathBuf> {
    let asked = env::var_os("LIBCLANG_PATH").map(PathBuf::from);
    let llvm = ["/usr/lib", "/usr/lib64"]
        .iter()
        .flat_map(|base| newest_first(Path::new(base), "llvm"))
        .map(|folder| folder.join("lib"));
    let plain = [
        "/usr/lib64",
        "/usr/lib",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/local/lib",
    ];
    asked
        .into_iter()
        .chain(llvm)
        .chain(plain.iter().map(PathBuf::from))
        .find(|folder| holds_libclang(folder))
}

fn holds_libclang(folder: &Path) -> bool {
    let Ok(entries) = folder.read_dir() else {
        return false;
    };
    entries
        .flatten()
        .any(|entry| is_libclang(&entry.file_name().to_string_lossy()))
}

/// Whether a file is libclang: `libclang.so`, `libclang.so.1`, `libclang-14.so.1`. Its C++ sibling
/// `libclang-cpp.so.14`, which comes with LLVM alone, is of no use to bindgen.
fn is_libclang(name: &str) -> bool {
    let plain = name.strip_prefix("libclang.so");
    let numbered = || {
        let rest = name.strip_prefix("libclang-")?;
        rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.')
            .strip_prefix("so")
    };
    plain
        .or_else(numbered)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether rsyslog is here with this module.
fn has_rsyslog(module: &str) -> bool {
    let by_machine = Path::new("/usr/lib").read_dir().into_iter().flatten();
    let folders = by_machine
        .flatten()
        .map(|entry| entry.path().join("rsyslog"))
        .chain(["/usr/lib/rsyslog", "/usr/lib64/rsyslog"].map(PathBuf::from));
    // A daemon: where it lies is not on everybody's path.
    let program = Path::new("/usr/sbin/rsyslogd").is_file() || on_path("rsyslogd").is_some();
    program && folders.into_iter().any(|at| at.join(module).is_file())
}

/// Where `initdb` and `postgres` are.
fn postgres_folder() -> Option<PathBuf> {
    let packaged = newest_first(Path::new("/usr/lib/postgresql"), "")
        .into_iter()
        .map(|folder| folder.join("bin"));
    on_path("initdb")
        .and_then(|program| program.parent().map(Path::to_path_buf))
        .into_iter()
        .chain(packaged)
        .chain([PathBuf::from("/usr/libexec/postgresql")])
        .find(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())
}

/// Where all its programs are: `initdb` may be found by a link.
pub(crate) fn postgres_programs() -> Option<PathBuf> {
    let program = postgres_folder()?.join("initdb").canonicalize().ok()?;
    program.parent().map(Path::to_path_buf)
}

/// Where `regress/pg_regress` and `isolation/pg_isolation_regress` are.
pub(crate) fn test_programs() -> Option<PathBuf> {
    let server = postgres_programs()?;
    let beside = server.parent()?.join("lib/pgxs/src/test");
    let headers = Command::new(server.join("pg_config"))
        .arg("--includedir-server")
        .output()
        .is_ok_and(|said| {
            let folder = String::from_utf8_lossy(&said.stdout).trim().to_owned();
            Path::new(&folder).join("postgres.h").is_file()
        });
    let there = beside.join("regress/pg_regress").is_file()
        && beside.join("isolation/pg_isolation_regress").is_file();
    (headers && there).then_some(beside)
}

/// The entries of `base` whose names begin with `prefix`, those with the highest number first.
fn newest_first(base: &Path, prefix: &str) -> Vec<PathBuf> {
    let number = |path: &PathBuf| -> u32 {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let digits: String = name.chars().filter(char::is_ascii_digit).take(6).collect();
        digits.parse().unwrap_or(0)
    };
    let mut found: Vec<PathBuf> = base
        .read_dir()
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        })
        .collect();
    found.sort_by_key(|path| std::cmp::Reverse(number(path)));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpp_library_alone_does_not_pass_for_libclang() {
        for name in [
            "libclang.so",
            "libclang.so.1",
            "libclang-14.so.1",
            "libclang-14.so.14.0.6",
        ] {
            assert!(is_libclang(name), "{name}");
        }
        for name in [
            "libclang-cpp.so.14",
            "libclang-common",
            "libclang.a",
            "libclang.sorted",
        ] {
            assert!(!is_libclang(name), "{name}");
        }
    }

    #[test]
    fn every_manager_has_a_package_for_every_need() {
        let managers = [Manager::Apt, Manager::Dnf, Manager::Apk];
        let needs = [
            Need::Compiler,
            Need::Libclang,
            Need::Postgres,
            Need::Chromium,
            Need::Strace,
            Need::Go,
            Need::GoMod,
            Need::Openssl,
            Need::Curl,
            Need::Python,
            Need::Node,
            Need::Java,
            Need::Jdbc,
            Need::Ext4,
            Need::PostgresTests,
            Need::DpkgDev,
        ];
        for manager in managers {
            for need in needs {
                let package = manager.package(need);
                let last = manager.commands(&[package]).pop().unwrap();
                assert_eq!(last.last().map(String::as_str), Some(package));
            }
        }
    }
}
