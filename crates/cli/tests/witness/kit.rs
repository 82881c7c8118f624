//! A log and its witnesses, all of them processes of their own.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use curfew_ledger::Published;

use crate::address::free_address;
use crate::private::write_private;

const POLICY: &str = r#"
@id("sessions") @idle("15m") @reauth("8h") @lifetime("24h")
permit (principal, action == Action::"session.start", resource == Resource::"gateway");
"#;

/// How long anything may take on a machine that has much to do.
const LONG: Duration = Duration::from_secs(150);

pub(crate) fn curfew(arguments: &[&str]) -> Output {
    curfew_with(arguments, &[], "")
}

/// With an environment, and something on standard input.
pub(crate) fn curfew_with(arguments: &[&str], envs: &[(&str, &Path)], input: &str) -> Output {
    let mut process = Process::new(env!("CARGO_BIN_EXE_curfew"));
    process.args(arguments).envs(envs.iter().copied());
    let piped = process.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = piped.stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Who does not read it may be gone.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().unwrap()
}

#[track_caller]
pub(crate) fn done(arguments: &[&str]) -> String {
    let output = curfew(arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// A process that goes with the test.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::telling(arguments, Stdio::null())
    }

    /// What it has to say goes to `errors`.
    pub(crate) fn telling(arguments: &[&str], errors: impl Into<Stdio>) -> Self {
        let mut process = Process::new(env!("CARGO_BIN_EXE_curfew"));
        Self(process.args(arguments).stderr(errors).spawn().unwrap())
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(mut self) -> ExitStatus {
        let id = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    pub(crate) address: String,
    pub(crate) vkey: String,
}

impl Place {
    /// `kind` 0 is its Ed25519 key, 1 its ML-DSA-44 key.
    pub(crate) fn new(folder: &Path, name: &str, kind: usize, log: &str) -> Self {
        let dir = folder.join(name);
        let text = dir.to_str().unwrap();
        let keys = done(&[
            "witness",
            "init",
            text,
            "--name",
            &format!("{name}.example"),
        ]);
        done(&["witness", "trust", text, log]);
        Self {
            vkey: keys.lines().nth(kind).unwrap().to_owned(),
            address: free_address().to_string(),
            dir,
        }
    }

    pub(crate) fn serve(&self) -> Running {
        let dir = self.dir.to_str().unwrap();
        Running::start(&["witness", "serve", dir, "--listen", &self.address])
    }

    /// The same, and what it has to say goes to a file in its folder.
    pub(crate) fn serve_telling(&self) -> Running {
        let dir = self.dir.to_str().unwrap();
        let errors = File::create(self.dir.join("errors")).unwrap();
        Running::telling(
            &["witness", "serve", dir, "--listen", &self.address],
            errors,
        )
    }

    pub(crate) fn state(&self) -> (PathBuf, Vec<u8>) {
        let mut files = std::fs::read_dir(self.dir.join("logs")).unwrap();
        let path = files.next().unwrap().unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        (path, bytes)
    }
}

/// Configuration and data of a gateway; `more` is added to what it has to say of the log. Gives the
/// log's verifier key.
pub(crate) fn set_up(dir: &Path, more: &str) -> String {
    let made =
        rcgen::generate_simple_self_signed(["localhost", "curfew.localhost"].map(str::to_owned))
            .unwrap();
    std::fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
    write_private(&dir.join("key.pem"), &made.signing_key.serialize_pem());
    std::fs::write(dir.join("policy.cedar"), POLICY).unwrap();
    let config = format!(
        "data = \"data\"\npolicy = \"policy.cedar\"\norigin = \"curfew.test/log\"\n\
                  portal = \"curfew.localhost\"\n[listen]\nweb = \"127.0.0.1:0\"\n\
                  [tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n\
                  [log.witness]\npolicy = \"witness.policy\"\nalarm_after = \"500ms\"\n{more}"
    );
    std::fs::write(dir.join("curfew.toml"), config).unwrap();
    done(&[
        "init",
        "--config",
        dir.join("curfew.toml").to_str().unwrap(),
    ]);
    let key = std::fs::read_to_string(dir.join("data/keys/ledger.pub")).unwrap();
    key.trim().to_owned()
}

/// Waits until there is something to be seen.
#[track_caller]
pub(crate) fn wait<T>(look: impl Fn() -> Option<T>) -> T {
    let end = Instant::now() + LONG;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited for {LONG:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until a quorum has cosigned more than `size` entries, and gives how many.
#[track_caller]
pub(crate) fn witnessed(ledger: &Path, size: u64) -> u64 {
    wait(|| {
        let note = Published::new(ledger).witnessed().unwrap_or_default()?;
        let text = String::from_utf8(note).unwrap();
        let found = text.lines().nth(1).unwrap().parse().unwrap();
        (found > size).then_some(found)
    })
}

/// An exit code, and what was said.
pub(crate) struct Verified {
    pub(crate) code: i32,
    pub(crate) text: String,
}

impl Verified {
    /// What a program had to say, errors last.
    pub(crate) fn of(output: &Output) -> Self {
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        Self {
            code: output.status.code().unwrap(),
            text,
        }
    }
}

pub(crate) fn verify(arguments: &[&str]) -> Verified {
    Verified::of(&curfew(&[&["log", "verify"], arguments].concat()))
}
