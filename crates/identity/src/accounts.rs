//! Local accounts.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use curfew_authority::Proof;
use curfew_authority::Timestamp;
use curfew_authority::{RoleName, SubjectName};
use secrecy::SecretString;
use serde::Serialize;

use crate::{IdentityError, SignInError, VaultKey};

/// What hashing a password costs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PasswordCost {
    /// What a real store uses.
    Standard,
    /// Next to nothing: for tests only, never for a store that people sign in to.
    Minimal,
}

/// The local accounts: one file. All calls block; hand them to a blocking pool.
#[derive(Debug)]
pub struct Accounts {}

/// A new TOTP secret, given out this once.
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
    /// So many attempts failed that the password is locked until it is set anew.
    pub locked: bool,
}

/// Somebody proved who they are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verified {
    /// Who.
    pub subject: SubjectName,
    /// The roles of the account.
    pub roles: BTreeSet<RoleName>,
    /// What was shown.
    pub proof: Proof,
}

#[allow(clippy::todo, missing_docs, unused_variables)]
impl Accounts {
    pub fn open(path: &Path, key: VaultKey, cost: PasswordCost) -> Result<Self, IdentityError> {
        todo!()
    }
    pub fn add(
        &self,
        name: &SubjectName,
        roles: BTreeSet<RoleName>,
        password: &SecretString,
    ) -> Result<TotpEnrollment, IdentityError> {
        todo!()
    }
    pub fn set_password(
        &self,
        name: &SubjectName,
        password: &SecretString,
    ) -> Result<(), IdentityError> {
        todo!()
    }
    pub fn renew_totp(&self, name: &SubjectName) -> Result<TotpEnrollment, IdentityError> {
        todo!()
    }
    pub fn set_disabled(&self, name: &SubjectName, disabled: bool) -> Result<(), IdentityError> {
        todo!()
    }
    pub fn set_roles(
        &self,
        name: &SubjectName,
        roles: BTreeSet<RoleName>,
    ) -> Result<(), IdentityError> {
        todo!()
    }
    pub fn list(&self) -> Result<Vec<AccountView>, IdentityError> {
        todo!()
    }
    pub fn get(&self, name: &SubjectName) -> Result<Option<AccountView>, IdentityError> {
        todo!()
    }
    pub fn verify(
        &self,
        name: &str,
        password: &SecretString,
        code: &str,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<Verified, SignInError> {
        todo!()
    }
}
