//! One-time codes for the users of the demo, who have no phone.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::stage::User;
use crate::client::{keep_file, kept_file};
use crate::failure::{Exit, Failure, Outcome};
use crate::say;

/// How long a code is shown, in seconds (RFC 6238).
pub(super) const STEP_SECS: u64 = 30;

/// Where the secrets of the running demo are kept, in the CLI's own folder.
const FILE: &str = "demo-secrets.json";

/// The secret of one user.
#[derive(Debug, Deserialize, Serialize)]
struct Kept {
    name: String,
    secret: String,
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

/// Keeps the secrets for `curfew demo code`.
pub(super) fn remember(users: &[User]) -> Outcome {
    let kept: Vec<Kept> = users
        .iter()
        .map(|user| Kept {
            name: user.name.to_owned(),
            secret: user.secret.clone(),
        })
        .collect();
    let json = serde_json::to_vec(&kept).map_err(|error| Failure::failed(&error))?;
    keep_file(FILE, &json)
}

/// Forgets them.
pub(super) fn forget() {
    if let Ok(path) = kept_file(FILE) {
        let _ = std::fs::remove_file(path);
    }
}

/// Prints the code of the moment.
pub(super) fn print(name: &str) -> Outcome {
    let none = || {
        Failure::hint(
            Exit::Failed,
            "no demo is running",
            "start one with `curfew demo`",
        )
    };
    let json = std::fs::read(kept_file(FILE)?).map_err(|_| none())?;
    let kept: Vec<Kept> = serde_json::from_slice(&json).map_err(|_| none())?;
    let user = kept.iter().find(|one| one.name == name).ok_or_else(|| {
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
