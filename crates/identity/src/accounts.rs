//! Local accounts: the operations, and signing in.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use curfew_entry::{Aal, Factor, Proof, RefusalCause, RoleName, Span, SubjectName, Timestamp};
use secrecy::SecretString;
use serde::Serialize;

use crate::backoff::{Failures, Lane};
use crate::browser::Browser;
use crate::error::Refused;
use crate::password::{self, Hasher, PasswordCost};
use crate::rate::network_of;
use crate::store::{Found, Record, Store, Writer};
use crate::throttle::{Gate, Throttle};
use crate::totp::{self, CodeCheck, TotpSecret};
use crate::vault::VaultKey;
use crate::{IdentityError, SignInError};

/// What somebody is told to wait who finds the queue for a hash full. It drains in less.
const QUEUE_FULL_WAIT: Span = Span::from_secs(1);

/// The local accounts: one file, and the limits on signing in to it.
///
/// All calls block, some for as long as a password hash takes: hand them to a blocking pool. One
/// process has the file open at a time.
pub struct Accounts {
    store: Store,
    hasher: Hasher,
    throttle: Throttle,
    gate: Gate,
}

/// A new TOTP secret, given out this once. It cannot be read again, only renewed.
#[derive(Debug)]
pub struct TotpEnrollment {
    /// The `otpauth://` address, for a QR code.
    pub uri: SecretString,
    /// The secret in base32, to type in.
    pub secret: SecretString,
}

/// An account as lists show it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct AccountView {
    /// Its name.
    pub subject: SubjectName,
    /// Its roles.
    pub roles: BTreeSet<RoleName>,
    /// Nobody can sign in to it.
    pub disabled: bool,
    /// Failed attempts since the last sign-in.
    pub failures: u32,
    /// So many attempts failed that no browser is let in that is not known, or, after as many from
    /// known ones, none of these: until somebody signs in all the same, or the password is set anew.
    pub locked: bool,
}

impl AccountView {
    fn new(subject: SubjectName, record: Record) -> Self {
        Self {
            subject,
            disabled: record.disabled,
            failures: record.failures.count(),
            locked: record.failures.locked(),
            roles: record.roles,
        }
    }
}

/// Somebody proved who they are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verified {
    /// Who.
    pub subject: SubjectName,
    /// The roles of the account.
    pub roles: BTreeSet<RoleName>,
    /// What was shown: a password and a one-time code, which make assurance level 2.
    pub proof: Proof,
}

/// From where somebody signs in.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The client's own address, not a proxy's.
    pub address: IpAddr,
    /// The browser, where it shows by what it is known again, or was just given something to be known
    /// by from now on.
    pub browser: Option<Browser>,
}

/// One attempt to sign in.
#[derive(Clone, Copy)]
struct Attempt<'a> {
    name: &'a str,
    code: &'a str,
    browser: Option<&'a Browser>,
    now: Timestamp,
}

impl std::fmt::Debug for Accounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accounts").finish_non_exhaustive()
    }
}

impl Accounts {
    /// Opens the file at `path`, or makes it, for its owner only. Refuses a file that others may
    /// read or a folder that others may write, and a key other than the file was made with.
    pub fn open(
        path: impl AsRef<Path>,
        key: VaultKey,
        cost: PasswordCost,
    ) -> Result<Self, IdentityError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let hasher = Hasher::new(cost)?;
        // Of a password that nobody knows.
        let decoy = hasher.hash(&TotpSecret::generate()?.to_base32())?;
        Ok(Self {
            store: Store::open(path.as_ref(), &key, decoy)?,
            hasher,
            throttle: Throttle::new(cores),
            gate: Gate::new(cores),
        })
    }

    /// Whether an account of this name and password can be added.
    pub fn check_new(
        &self,
        name: &SubjectName,
        password: &SecretString,
    ) -> Result<(), IdentityError> {
        password::check_strength(name, password).map_err(IdentityError::WeakPassword)?;
        match self.get(name)? {
            Some(_) => Err(IdentityError::Exists(name.clone())),
            None => Ok(()),
        }
    }

    /// Whether the account is there, and this can be its password.
    pub fn check_password(
        &self,
        name: &SubjectName,
        password: &SecretString,
    ) -> Result<(), IdentityError> {
        password::check_strength(name, password).map_err(IdentityError::WeakPassword)?;
        match self.get(name)? {
            Some(_) => Ok(()),
            None => Err(IdentityError::Unknown(name.clone())),
        }
    }

    /// Adds an account.
    pub fn add(
        &self,
        name: &SubjectName,
        roles: BTreeSet<RoleName>,
        password: &SecretString,
    ) -> Result<TotpEnrollment, IdentityError> {
        let phc = self.hash_checked(name, password)?;
        let secret = TotpSecret::generate()?;
        let mut record = Record::new(roles, phc);
        self.store.set_totp(name, &mut record, &secret)?;
        self.store.write(|writer| {
            if writer.find(name.as_str())?.subject.is_some() {
                return Err(IdentityError::Exists(name.clone()));
            }
            writer.put(name, &record)
        })?;
        Ok(enrollment(name, &secret))
    }

    /// Sets the password, and with it lifts a lock and forgets failures.
    pub fn set_password(
        &self,
        name: &SubjectName,
        password: &SecretString,
    ) -> Result<(), IdentityError> {
        let phc = self.hash_checked(name, password)?;
        self.update(name, |record| {
            record.phc = phc;
            record.failures = Failures::default();
            record.forget_browsers();
            Ok(())
        })
    }

    /// Replaces the TOTP secret. Codes of the old one are worth nothing from here on.
    pub fn renew_totp(&self, name: &SubjectName) -> Result<TotpEnrollment, IdentityError> {
        let secret = TotpSecret::generate()?;
        self.update(name, |record| {
            record.forget_browsers();
            self.store.set_totp(name, record, &secret)
        })?;
        Ok(enrollment(name, &secret))
    }

    /// Disables the account, or enables it again.
    pub fn set_disabled(&self, name: &SubjectName, disabled: bool) -> Result<(), IdentityError> {
        self.update(name, |record| {
            record.disabled = disabled;
            Ok(())
        })
    }

    /// Replaces the roles.
    pub fn set_roles(
        &self,
        name: &SubjectName,
        roles: BTreeSet<RoleName>,
    ) -> Result<(), IdentityError> {
        self.update(name, |record| {
            record.roles = roles;
            Ok(())
        })
    }

    /// All accounts, by name.
    pub fn list(&self) -> Result<Vec<AccountView>, IdentityError> {
        let all = self.store.all()?;
        Ok(all
            .into_iter()
            .map(|(subject, record)| AccountView::new(subject, record))
            .collect())
    }

    /// The account of that name.
    pub fn get(&self, name: &SubjectName) -> Result<Option<AccountView>, IdentityError> {
        let found = self.store.find(name.as_str())?;
        Ok(found
            .subject
            .map(|subject| AccountView::new(subject, found.record)))
    }

    /// Whether the file can be used. One that failed, as on a full disk, is opened again here and
    /// before every use.
    pub fn check(&self) -> Result<(), IdentityError> {
        self.store.check()
    }

    /// Judges one attempt to sign in. `address` is the client's own, not a proxy's. The steps and
    /// their order are explained at the head of this crate.
    pub fn verify(
        &self,
        name: &str,
        password: &SecretString,
        code: &str,
        from: &Origin,
        now: Timestamp,
    ) -> Result<Verified, SignInError> {
        let browser = from.browser.as_ref();
        let attempt = Attempt {
            name,
            code,
            browser,
            now,
        };
        let network = network_of(from.address);
        let found = self.store.find(name)?;
        let lane = found.record.lane_of(browser);
        if lane == Lane::Far {
            self.throttle
                .take_address(network, now)
                .map_err(|wait| too_many(None, wait))?;
        }
        let refuse = |wait| too_many(found.subject.clone(), wait);
        if let Some(wait) = found.record.failures.wait(lane, now) {
            return Err(refuse(wait).into());
        }
        self.throttle.take_global(lane, now).map_err(refuse)?;
        let Some(slot) = self.gate.enter(lane) else {
            return Err(refuse(QUEUE_FULL_WAIT).into());
        };
        let password_right = self.hasher.is_hash_of(password, &found.record.phc)?;
        let settled = self
            .store
            .write(|writer| self.settle(writer, attempt, password_right, &found.record.phc))?;
        let verified = match settled {
            Ok(verified) => verified,
            Err(refused) => {
                if refused.cause == RefusalCause::CodeReused && lane == Lane::Far {
                    self.throttle.give_back_address(network);
                }
                return Err(refused.into());
            }
        };
        self.refresh_hash(&verified.subject, password, &found.record.phc)?;
        drop(slot);
        if lane == Lane::Far {
            self.throttle.give_back_address(network);
        }
        self.throttle.give_back_global(lane);
        Ok(verified)
    }

    /// The verdict on an attempt whose password was compared with the hash `seen`. Runs in the
    /// one write transaction of the moment: of two attempts with one code, the second finds it
    /// used; of many that ran at once, those that find the account waiting by now learn nothing.
    fn settle(
        &self,
        writer: &mut Writer<'_>,
        attempt: Attempt<'_>,
        password_right: bool,
        seen: &str,
    ) -> Result<Result<Verified, Refused>, IdentityError> {
        let mut found = writer.find(attempt.name)?;
        let lane = found.record.lane_of(attempt.browser);
        if let Some(wait) = found.record.failures.wait(lane, attempt.now) {
            return Ok(Err(too_many(found.subject, wait)));
        }
        let password_right = password_right && found.record.phc == seen;
        let secret = self.store.totp_of(&found)?;
        let check = totp::check(&secret, attempt.code, attempt.now, found.record.last_step);
        let cause = match (&found.subject, password_right, check) {
            (None, _, _) => RefusalCause::UnknownAccount,
            (Some(_), false, _) => RefusalCause::WrongPassword,
            (Some(_), true, CodeCheck::Wrong) => RefusalCause::WrongCode,
            // Not counted: see the head of this crate.
            (Some(_), true, CodeCheck::Used) => {
                return Ok(Err(Refused {
                    cause: RefusalCause::CodeReused,
                    subject: found.subject,
                    retry_after: None,
                }));
            }
            (Some(_), true, CodeCheck::Fresh(_)) if found.record.disabled => RefusalCause::Disabled,
            (Some(subject), true, CodeCheck::Fresh(step)) => {
                let subject = subject.clone();
                let record = &mut found.record;
                record.last_step = Some(step);
                record.failures = Failures::default();
                if let Some(browser) = attempt.browser {
                    record.remember(browser.clone());
                }
                writer.put(&subject, record)?;
                return Ok(Ok(verified(subject, found.record.roles, attempt.now)));
            }
        };
        Ok(Err(fail(writer, attempt, found, lane, cause)?))
    }

    /// Makes the hash anew where it was made at another cost than is now asked for. Only after a
    /// sign-in: earlier, the time it takes would tell that the password was right.
    fn refresh_hash(
        &self,
        name: &SubjectName,
        password: &SecretString,
        seen: &str,
    ) -> Result<(), IdentityError> {
        if !self.hasher.is_outdated(seen) {
            return Ok(());
        }
        let phc = self.hasher.hash(password)?;
        self.update(name, |record| {
            if record.phc == seen {
                record.phc = phc;
            }
            Ok(())
        })
    }

    fn hash_checked(
        &self,
        name: &SubjectName,
        password: &SecretString,
    ) -> Result<String, IdentityError> {
        password::check_strength(name, password).map_err(IdentityError::WeakPassword)?;
        let _slot = self.gate.enter_always();
        self.hasher.hash(password)
    }

    fn update(
        &self,
        name: &SubjectName,
        change: impl FnOnce(&mut Record) -> Result<(), IdentityError>,
    ) -> Result<(), IdentityError> {
        self.store.write(|writer| {
            let mut found = writer.find(name.as_str())?;
            if found.subject.is_none() {
                return Err(IdentityError::Unknown(name.clone()));
            }
            change(&mut found.record)?;
            writer.put(name, &found.record)
        })
    }
}

/// Counts a failure, of an account or of a name that is nobody's.
fn fail(
    writer: &mut Writer<'_>,
    attempt: Attempt<'_>,
    mut found: Found,
    lane: Lane,
    cause: RefusalCause,
) -> Result<Refused, IdentityError> {
    found.record.failures.fail(lane, attempt.now);
    writer.put_failures(attempt.name, &found)?;
    Ok(Refused {
        cause,
        retry_after: found.record.failures.wait(lane, attempt.now),
        subject: found.subject,
    })
}

fn too_many(subject: Option<SubjectName>, wait: Span) -> Refused {
    Refused {
        cause: RefusalCause::TooManyAttempts,
        subject,
        retry_after: Some(wait),
    }
}

fn verified(subject: SubjectName, roles: BTreeSet<RoleName>, at: Timestamp) -> Verified {
    Verified {
        subject,
        roles,
        proof: Proof {
            amr: BTreeSet::from([Factor::Password, Factor::OneTimePassword]),
            aal: Aal::Two,
            at,
        },
    }
}

fn enrollment(name: &SubjectName, secret: &TotpSecret) -> TotpEnrollment {
    TotpEnrollment {
        uri: secret.uri(name.as_str()),
        secret: secret.to_base32(),
    }
}

#[cfg(test)]
#[path = "accounts_tests/mod.rs"]
mod tests;
