//! The command line that `curfew-verify` and `curfew log verify` share.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the one place of this crate that prints"
)]

use std::fmt::Display;
use std::fs;
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use curfew_entry::visible;
use curfew_ledger::verify::Progress;
use curfew_ledger::verify::receipt::RECEIPT_BYTES_MAX;
use curfew_ledger::{Disk, Published, RealDisk, TrustPolicy, VerifierKey};
use curfew_timestamp::Roots;
use serde::Serialize;

use crate::audit::{Audit, audit_onward};
use crate::report::{Outcome, Report};
use crate::served::{Credentials, Served};
use crate::state::State;
use crate::{receipt, timestamps, witnesses};

/// What the exit codes of a verification mean, for `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  whole and legitimate
  1  integrity is broken: something was changed, cut off or wrongly signed
  2  the command line is wrong, or the key cannot be used
  3  legitimacy is broken: it tells of something that was not allowed to happen
  4  the log cannot be read
  5  whole and legitimate, but not cosigned by a quorum of witnesses, as --policy demands
  6  whole and legitimate, but without a timestamp token, or with one that does not hold, as
     --tsa-ca demands";

/// The exit code of a wrong command line.
pub const USAGE: u8 = 2;

/// The longest key or checkpoint file that is read: a signed note has at most 256 KiB.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// The pause between two drawings of the progress bar.
const REDRAW: Duration = Duration::from_millis(100);

/// Cells of the progress bar.
const BAR_CELLS: u64 = 30;

/// How a log is to be verified.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The log's verifier key, as `name+hash+base64`. May be given more than once.
    #[arg(long, value_name = "VKEY")]
    pub key: Vec<String>,
    /// A file with verifier keys, one per line.
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// A signed checkpoint kept from earlier: the log must be a continuation of it.
    #[arg(long, value_name = "CHECKPOINT_FILE")]
    pub since: Option<PathBuf>,
    /// A file of mode 0600 in which a good verification keeps what it found out, so that the next one
    /// looks only at what is new, and that it continues what was verified. It is believed: keep it
    /// where nobody else can change it. Made when it is not there; remove it to verify all again.
    #[arg(long, value_name = "STATE_FILE", conflicts_with_all = ["since", "receipt"])]
    pub state: Option<PathBuf>,
    /// A policy on witnesses, in the form of C2SP tlog-policy: a quorum of them must have cosigned.
    /// Its `log` lines stand in for --key.
    #[arg(long, value_name = "POLICY_FILE")]
    pub policy: Option<PathBuf>,
    /// Certificates in PEM form of the authorities that vouch for timestamping authorities: each
    /// timestamp token (RFC 3161) kept with the log must hold, and there must be one. With
    /// --receipt: the one in the receipt.
    #[arg(long, value_name = "PEM_FILE")]
    pub tsa_ca: Option<PathBuf>,
    /// A file with the bearer token for a URL: the token alone, or what `curfew login` has kept. In its
    /// place the variable CURFEW_TOKEN may hold the token.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Takes the token from the environment, never from a command line that others can see.
    #[arg(
        long = "token-from-environment",
        env = "CURFEW_TOKEN",
        hide = true,
        hide_env_values = true
    )]
    pub token: Option<String>,
    /// Certificates in PEM form of the authorities that vouch for the server of a URL, in place of the
    /// system's.
    #[arg(long, value_name = "PEM_FILE")]
    pub ca: Option<PathBuf>,
    /// Prove the one entry of this receipt, as `curfew log receipt` gives it, without the log.
    #[arg(long, value_name = "RECEIPT_FILE")]
    pub receipt: Option<PathBuf>,
    /// Print the report as one JSON object.
    #[arg(long)]
    pub json: bool,
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    read_up_to(path, FILE_BYTES_MAX)
}

fn read_up_to(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let failed = |error| format!("{}: {error}", path.display());
    let length = fs::metadata(path).map_err(failed)?.len();
    if length > bytes_max {
        return Err(format!(
            "{}: {length} bytes are too many for a key, checkpoint, policy or receipt",
            path.display()
        ));
    }
    fs::read(path).map_err(failed)
}

fn policy(options: &Options) -> Result<Option<TrustPolicy>, String> {
    let Some(path) = &options.policy else {
        return Ok(None);
    };
    let parsed = TrustPolicy::parse(&read(path)?);
    let policy = parsed.map_err(|error| format!("{}, {error}", path.display()))?;
    Ok(Some(policy))
}

fn roots(options: &Options) -> Result<Option<Roots>, String> {
    let Some(path) = &options.tsa_ca else {
        return Ok(None);
    };
    let roots = Roots::from_pem(&read(path)?);
    let roots = roots.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Some(roots))
}

fn keys(
    options: &Options,
    dir: &Path,
    policy: Option<&TrustPolicy>,
) -> Result<Vec<VerifierKey>, String> {
    let mut texts = options.key.clone();
    if let Some(path) = &options.key_file {
        let text = String::from_utf8(read(path)?)
            .map_err(|_| format!("{}: not a text file", path.display()))?;
        let lines = text.lines().map(str::trim);
        texts.extend(
            lines
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
                .map(str::to_owned),
        );
    }
    let logs = policy.map(TrustPolicy::logs).unwrap_or_default();
    if texts.is_empty() && !logs.is_empty() {
        return Ok(logs.iter().map(|log| log.key.clone()).collect());
    }
    if texts.is_empty() {
        let beside = dir.join("../keys/ledger.pub");
        let hint = if beside.is_file() {
            format!(
                ". One lies beside the log: --key-file {} — it proves something only if you know \
                 that nobody replaced both",
                beside.display()
            )
        } else {
            String::new()
        };
        return Err(format!(
            "no verifier key: give the one that `curfew init` printed with --key or --key-file{hint}"
        ));
    }
    texts
        .iter()
        .map(|text| VerifierKey::parse(text).map_err(|error| format!("{text}: {error}")))
        .collect()
}

/// Why there is no report.
enum Problem {
    /// The command line, or a file that it names, cannot be used.
    Usage(String),
    /// The log cannot be read.
    Unreadable(String),
}

impl From<String> for Problem {
    fn from(problem: String) -> Self {
        Self::Usage(problem)
    }
}

/// Where a log is read from.
struct Source {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
}

impl Source {
    fn open(options: &Options, place: &Path, from: u64) -> Result<Self, Problem> {
        let Some(url) = place.to_str().filter(|text| is_url(text)) else {
            return Ok(Self {
                dir: place.to_path_buf(),
                disk: Arc::new(RealDisk),
            });
        };
        let credentials = Credentials {
            token: token(options)?,
            ca: options.ca.as_deref().map(read).transpose()?,
        };
        let is_witnessed = options.policy.is_some();
        let served = Served::open(url, &credentials, from, is_witnessed).map_err(|error| {
            if error.kind() == ErrorKind::InvalidInput {
                Problem::Usage(error.to_string())
            } else {
                Problem::Unreadable(error.to_string())
            }
        })?;
        Ok(Self {
            dir: served.dir(),
            disk: Arc::new(served),
        })
    }
}

/// Whether a place is an address rather than a directory.
fn is_url(place: &str) -> bool {
    ["https://", "http://"]
        .iter()
        .any(|scheme| place.starts_with(scheme))
}

/// The bearer token: a line by itself, or in the JSON that `curfew login` keeps.
fn token(options: &Options) -> Result<Option<String>, String> {
    let Some(path) = &options.token_file else {
        return Ok(options.token.clone());
    };
    let wrong = |why: &str| format!("{}: {why}", path.display());
    let text = String::from_utf8(read(path)?).map_err(|_| wrong("not a text file"))?;
    let text = text.trim();
    let token = if text.starts_with('{') {
        let kept: serde_json::Value =
            serde_json::from_str(text).map_err(|error| wrong(&error.to_string()))?;
        let token = kept.get("token").and_then(serde_json::Value::as_str);
        token.ok_or_else(|| wrong("no `token` in it"))?.to_owned()
    } else {
        text.to_owned()
    };
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong("this is no token"));
    }
    Ok(Some(token))
}

/// Verifies the log in `dir`, or the one served at this address, shows how far it is on a terminal's stderr, prints the report, and
/// gives the exit code.
pub fn run(options: &Options, dir: &Path) -> u8 {
    if let Some(path) = &options.receipt {
        return run_receipt(options, path);
    }
    match verified(options, dir) {
        Ok(report) => {
            print(&report, options.json);
            report.outcome.code()
        }
        Err(Problem::Usage(problem)) => {
            eprintln!("error: {}", shown(&problem));
            USAGE
        }
        Err(Problem::Unreadable(problem)) => {
            let report = Report::unreadable(dir, problem);
            print(&report, options.json);
            report.outcome.code()
        }
    }
}

/// Checks a receipt, prints what it proves, and gives the exit code.
fn run_receipt(options: &Options, path: &Path) -> u8 {
    let told = |problem: String| eprintln!("error: {}", shown(&problem));
    let given = policy(options).and_then(|policy| {
        let keys = keys(options, Path::new("."), policy.as_ref())?;
        Ok((keys, policy, roots(options)?))
    });
    let (keys, policy, roots) = match given {
        Ok(given) => given,
        Err(problem) => {
            told(problem);
            return USAGE;
        }
    };
    let bytes = match read_up_to(path, RECEIPT_BYTES_MAX as u64) {
        Ok(bytes) => bytes,
        Err(problem) => {
            told(problem);
            return Outcome::Unreadable.code();
        }
    };
    let file = path.display().to_string();
    let demands = receipt::Demands {
        policy: policy.as_ref(),
        roots: roots.as_ref(),
    };
    let report = receipt::check(&file, &bytes, &keys, demands);
    print(&report, options.json);
    report.outcome.code()
}

fn verified(options: &Options, place: &Path) -> Result<Report, Problem> {
    let policy = policy(options)?;
    let keys = keys(options, place, policy.as_ref())?;
    let roots = roots(options)?;
    let since = options.since.as_deref().map(read).transpose()?;
    let state = options.state.as_deref().map(|path| earlier(path, &keys));
    let state = state.transpose()?.flatten();
    let from = state.as_ref().map_or(0, State::size);
    let Source { dir, disk } = Source::open(options, place, from)?;
    let log = Published::new_on(&dir, disk.clone());
    // Read before the log, which may go on meanwhile.
    let witnessed = log.witnessed();
    let stamped = log.timestamps();
    let mut bar = Bar::new();
    let what = Audit {
        dir: &dir,
        disk,
        keys: &keys,
        since: since.as_deref(),
        state: state.as_ref(),
    };
    let (mut report, onward) = audit_onward(&what, &mut |progress| bar.draw(progress));
    bar.clear();
    if let Some(policy) = &policy {
        let note = witnessed.map_err(|error| error.to_string())?;
        witnesses::add(&mut report, &log, note.as_deref(), policy, &keys);
    }
    if let Some(roots) = &roots {
        let sizes = stamped.map_err(|error| error.to_string())?;
        timestamps::add(&mut report, &log, &sizes, roots, &keys);
    }
    let whole = report.outcome != Outcome::IntegrityBroken;
    if let (Some(path), Some(onward)) = (&options.state, onward.filter(|_| whole)) {
        let written = onward.write(path);
        written.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(report)
}

/// What an earlier verification kept.
fn earlier(path: &Path, keys: &[VerifierKey]) -> Result<Option<State>, String> {
    let state = State::read(path, keys);
    state.map_err(|error| format!("{}: {error}", path.display()))
}

/// Lines for people, whatever the log or a file had in it.
fn shown(text: &str) -> String {
    text.split('\n').map(visible).collect::<Vec<_>>().join("\n")
}

fn print(report: &(impl Serialize + Display), json: bool) {
    // Byte for byte for programs; for people what is invisible is spelled out, in JSON as in words.
    let text = if json {
        let text = serde_json::to_string(report).unwrap_or_else(|error| error.to_string());
        if std::io::stdout().is_terminal() {
            visible(&text).into_owned()
        } else {
            text
        }
    } else {
        shown(&report.to_string())
    };
    // A closed pipe is the reader's choice, and the exit code still tells.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// How far a verification is, on a terminal.
struct Bar {
    on: bool,
    drawn: Option<Instant>,
}

impl Bar {
    fn new() -> Self {
        Self {
            on: std::io::stderr().is_terminal(),
            drawn: None,
        }
    }

    fn draw(&mut self, progress: Progress) {
        if !self.on || self.drawn.is_some_and(|at| at.elapsed() < REDRAW) {
            return;
        }
        self.drawn = Some(Instant::now());
        let total = progress.entries_total.max(1);
        let share = |of: u64| progress.entries.min(total).saturating_mul(of) / total;
        let filled = "█".repeat(usize::try_from(share(BAR_CELLS)).unwrap_or(0));
        let rest = "░".repeat(usize::try_from(BAR_CELLS - share(BAR_CELLS)).unwrap_or(0));
        let mut out = std::io::stderr();
        let _ = write!(
            out,
            "\r{filled}{rest} {:>3} %  {} entries\x1b[K",
            share(100),
            progress.entries
        );
        let _ = out.flush();
    }

    fn clear(&self) {
        if self.drawn.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_log_holds_cannot_move_the_terminal() {
        let text = "finding\n  rule \u{1b}[2J\u{202e}\r";
        assert_eq!(shown(text), "finding\n  rule \\u001b[2J\\u202e\\u000d");
    }
}
