//! One-time codes for the users of the demo, who have no phone.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::stage::User;
use crate::client::{keep_file, kept_file};
use crate::failure::{Exit, Failure, Outcome};
use crate::say;

/// How long a code is shown, in seconds (RFC 6238).
pub(super) const STEP_SECS: u64 = 30;

/// The secrets of one running demo, in a file of its own in the CLI's folder.
#[derive(Debug, Deserialize, Serialize)]
struct Kept {
    /// The port of its portal, which no other has at the same time.
    port: u16,
    /// The process that runs it.
    process: i32,
    users: Vec<KeptUser>,
}

#[derive(Debug, Deserialize, Serialize)]
struct KeptUser {
    name: String,
    secret: String,
}

fn file_name(port: u16) -> String {
    format!("demo-{port}.json")
}

/// Seconds since the epoch.
pub(super) fn now_secs() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The code for this secret, so many steps from now.
pub(super) fn code(secret: &str, steps: i64) -> Outcome<String> {
    let bytes = totp_rs::Secret::try_from_base32(secret)
        .map_err(|error| Failure::failed(format_args!("not a TOTP secret: {error}")))?;
    let step = (now_secs() / STEP_SECS).saturating_add_signed(steps);
    let totp = totp_rs::Builder::new()
        .with_algorithm(totp_rs::Algorithm::SHA1)
        .with_digits(6)
        .with_step_duration(STEP_SECS)
        .with_secret(bytes)
        .build_noncompliant();
    Ok(totp.generate(step.saturating_mul(STEP_SECS)).to_string())
}

/// Keeps the secrets for `curfew demo code`, of the demo whose portal has this port.
pub(super) fn remember(users: &[User], port: u16) -> Outcome {
    let users = users.iter().map(|user| KeptUser {
        name: user.name.to_owned(),
        secret: user.secret.clone(),
    });
    let kept = Kept {
        port,
        process: rustix::process::getpid().as_raw_pid(),
        users: users.collect(),
    };
    let json = serde_json::to_vec(&kept).map_err(|error| Failure::failed(&error))?;
    keep_file(&file_name(port), &json)
}

/// Forgets those of this demo.
pub(super) fn forget(port: u16) {
    if let Ok(path) = kept_file(&file_name(port)) {
        let _ = std::fs::remove_file(path);
    }
}

impl Kept {
    fn runs(&self) -> bool {
        rustix::process::Pid::from_raw(self.process)
            .is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
    }
}

/// The demos that run. What others have left behind is removed.
fn running() -> Outcome<Vec<Kept>> {
    let folder = kept_file("")?;
    let mut found = Vec::new();
    for file in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = file.file_name();
        let is_ours = name
            .to_str()
            .is_some_and(|name| name.starts_with("demo-") && name.ends_with(".json"));
        if !is_ours {
            continue;
        }
        let kept = std::fs::read(file.path()).ok();
        let kept = kept.and_then(|json| serde_json::from_slice::<Kept>(&json).ok());
        match kept.filter(Kept::runs) {
            Some(kept) => found.push(kept),
            None => drop(std::fs::remove_file(file.path())),
        }
    }
    found.sort_by_key(|kept| kept.port);
    Ok(found)
}

/// The demo that is meant: the one of this port, or the only one.
fn meant(port: Option<u16>) -> Outcome<Kept> {
    let mut found = running()?;
    let ports: Vec<String> = found.iter().map(|kept| kept.port.to_string()).collect();
    if let Some(port) = port {
        found.retain(|kept| kept.port == port);
    }
    if found.len() > 1 {
        return Err(Failure::hint(
            Exit::Usage,
            "more than one demo is running",
            format_args!("name one with --port: {}", ports.join(", ")),
        ));
    }
    found.pop().ok_or_else(|| {
        if ports.is_empty() {
            let hint = "start one with `curfew demo`";
            return Failure::hint(Exit::Failed, "no demo is running", hint);
        }
        let hint = format!("those that run are on {}", ports.join(", "));
        Failure::hint(Exit::Failed, "no demo is running on that port", hint)
    })
}

/// Prints the code of the moment.
pub(super) fn print(name: &str, port: Option<u16>) -> Outcome {
    let kept = meant(port)?;
    let user = kept.users.iter().find(|one| one.name == name);
    let user = user.ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            format_args!("the demo has no user {name}; it has ana and dan"),
        )
    })?;
    say::line(code(&user.secret, 0)?);
    let left = STEP_SECS - now_secs() % STEP_SECS;
    say::note(format_args!("for {left} s more; each code works once"));
    Ok(())
}
