//! A store with one account, and what is done to it.
#![allow(
    clippy::disallowed_methods,
    reason = "tests look at what was written, and for how long it took"
)]
#![allow(clippy::unwrap_used)]

mod keeping;
mod limits;
mod signing_in;

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use secrecy::ExposeSecret;

use super::*;
use crate::WeakPassword;
use crate::backoff::{FREE_FAILURES, LOCK_FAILURES, WAIT_MAX_SECS};

const PASSWORD: &str = "plum tart at noon";
const NOON: u64 = 1_790_000_010;
/// The smallest step of time after which any wait is over and the last code is too old.
const LONG: u64 = WAIT_MAX_SECS + 90;

fn at(secs: u64) -> Timestamp {
    Timestamp::from_micros(secs * 1_000_000)
}

fn secret(text: &str) -> SecretString {
    text.to_owned().into()
}

fn address(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, n))
}

/// A browser and an address of its own.
fn at_home(n: u8) -> Origin {
    Origin {
        address: address(n),
        browser: Some(Browser::with(&format!("browser {n}"))),
    }
}

/// A browser that shows nothing, at somebody's address.
fn stranger_at(n: u8) -> Origin {
    Origin {
        address: address(n),
        browser: None,
    }
}

fn alice() -> SubjectName {
    "alice".parse().unwrap()
}

fn roles() -> BTreeSet<RoleName> {
    BTreeSet::from(["dba".parse().unwrap()])
}

/// A store with one account, `alice`.
struct Bench {
    accounts: Option<Accounts>,
    totp: TotpSecret,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self::at_cost(PasswordCost::Minimal)
    }

    fn at_cost(cost: PasswordCost) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let accounts = open(&path_in(&folder), 1, cost).unwrap();
        let enrollment = accounts.add(&alice(), roles(), &secret(PASSWORD)).unwrap();
        Self {
            accounts: Some(accounts),
            totp: TotpSecret::from_base32(enrollment.secret.expose_secret()).unwrap(),
            folder,
        }
    }

    fn accounts(&self) -> &Accounts {
        self.accounts.as_ref().unwrap()
    }

    fn path(&self) -> PathBuf {
        path_in(&self.folder)
    }

    fn reopen(&mut self) {
        self.accounts = None;
        self.accounts = Some(open(&self.path(), 1, PasswordCost::Minimal).unwrap());
    }

    fn code(&self, secs: u64) -> String {
        totp::code(&self.totp, at(secs))
    }

    /// An attempt with the code of that moment.
    fn sign_in(&self, password: &str, from: u8, secs: u64) -> Result<Verified, Refused> {
        self.attempt("alice", password, &self.code(secs), from, secs)
    }

    fn attempt(
        &self,
        name: &str,
        password: &str,
        code: &str,
        from: u8,
        secs: u64,
    ) -> Result<Verified, Refused> {
        self.attempt_from(name, password, code, &at_home(from), secs)
    }

    fn attempt_from(
        &self,
        name: &str,
        password: &str,
        code: &str,
        from: &Origin,
        secs: u64,
    ) -> Result<Verified, Refused> {
        self.accounts()
            .verify(name, &secret(password), code, from, at(secs))
            .map_err(|error| match error {
                SignInError::Refused(refused) => refused,
                SignInError::Failed(error) => panic!("{error}"),
            })
    }

    fn view(&self) -> AccountView {
        self.accounts().get(&alice()).unwrap().unwrap()
    }
}

fn path_in(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("state/accounts.redb")
}

fn open(path: &Path, key: u8, cost: PasswordCost) -> Result<Accounts, IdentityError> {
    Accounts::open(path, VaultKey::from_bytes([key; 32]), cost)
}

fn cause<T: std::fmt::Debug>(result: Result<T, Refused>) -> RefusalCause {
    result.unwrap_err().cause
}

/// Six digits that are not the code of any step near `secs`.
fn wrong_code(bench: &Bench, secs: u64) -> String {
    let near: Vec<String> = (0..5).map(|n| bench.code(secs - 60 + 30 * n)).collect();
    (0..10)
        .map(|n| format!("00000{n}"))
        .find(|code| !near.contains(code))
        .unwrap()
}
