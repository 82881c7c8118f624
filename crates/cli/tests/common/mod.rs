//! What the end-to-end tests share: the real program, and a folder it works in.
#![allow(dead_code, reason = "not every test needs all of it")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A policy with one rule of each kind that the tests need.
pub(crate) const POLICY: &str = r#"@id("sessions") @idle("15m") @reauth("12h") @lifetime("24h")
permit (principal, action == Action::"session.start", resource == Resource::"gateway");
"#;

/// A configuration that passes its checks. Nothing here listens.
pub(crate) const CONFIG: &str = r#"data = "data"
policy = "policy.cedar"
origin = "curfew.test/log"
portal = "curfew.localhost"

[listen]
web = "127.0.0.1:0"

[tls]
certificate = "certificate.pem"
key = "certificate.key"

[tuning]
segment_mib = 1
"#;

/// A folder with a configuration and a policy.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    /// With these texts.
    pub(crate) fn new(config: &str, policy: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("curfew.toml"), config).unwrap();
        std::fs::write(folder.path().join("policy.cedar"), policy).unwrap();
        Self { folder }
    }

    /// With a certificate for the portal, which is good for some weeks.
    pub(crate) fn certify(&self, hosts: &[&str]) {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(hosts).unwrap();
        std::fs::write(self.path().join("certificate.pem"), made.cert.pem()).unwrap();
        self.secret("certificate.key", &made.signing_key.serialize_pem());
    }

    /// Writes a file that nobody else may read.
    pub(crate) fn secret(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        std::fs::write(&path, text).unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, private).unwrap();
    }

    /// The events in its log.
    pub(crate) fn events(&self) -> Vec<curfew_entry::Event> {
        let ledger = self.path().join("data/ledger");
        let reader = curfew_ledger::LogReader::open(&ledger).unwrap();
        reader
            .range(0..reader.size())
            .map(|entry| curfew_entry::Entry::from_bytes(&entry.unwrap().1).unwrap())
            .map(|entry| entry.event)
            .collect()
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs the program in the folder.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, "")
    }

    /// Runs it with something on standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &str) -> Ran {
        let mut child = Command::new(env!("CARGO_BIN_EXE_curfew"))
            .args(arguments)
            .current_dir(self.path())
            .env("HOME", self.path())
            .env("NO_COLOR", "1")
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("CURFEW_CONFIG")
            .env_remove("CURFEW_SERVER")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        Ran(child.wait_with_output().unwrap())
    }
}

/// What came of it.
pub(crate) struct Ran(pub(crate) Output);

impl Ran {
    /// The exit code.
    pub(crate) fn code(&self) -> Option<i32> {
        self.0.status.code()
    }

    /// Standard output.
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    /// Standard error, with wrapped lines joined.
    pub(crate) fn err(&self) -> String {
        let text = String::from_utf8_lossy(&self.0.stderr).replace('│', " ");
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Fails unless it succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code(), Some(0), "{}{}", self.out(), self.err());
        self
    }
}
