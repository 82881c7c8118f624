//! What Curfew signs in with at a database server: one account for each class of access, or one for
//! everybody.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use curfew_entry::{AccountClass, ResourceName};
use secrecy::{ExposeSecret, SecretString};

use super::upstream::DatabaseError;
use crate::config::{Access, Account, PostgresResource};

/// A role at a server, and its password.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: Option<SecretString>,
    /// What the check of its rights may pass over.
    pub(crate) reviewed: Vec<String>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// The accounts of a database.
#[derive(Clone, Debug)]
pub(crate) enum Logins {
    /// One for each class. There is always one for reading.
    PerClass(BTreeMap<AccountClass, Login>),
    /// One for everybody.
    One(Login),
}

impl Logins {
    /// Reads the passwords of a database's accounts.
    pub(crate) fn load(config: &PostgresResource) -> Result<Self, DatabaseError> {
        let load = |account: &Account| Login::load(&config.name, account);
        match &config.access {
            Access::Enforced(accounts) | Access::Lenient(accounts) => {
                let logins = accounts
                    .iter()
                    .map(|(class, account)| Ok((class, load(account)?)));
                Ok(Self::PerClass(logins.collect::<Result<_, _>>()?))
            }
            Access::Classifier(account) => load(account).map(Self::One),
        }
    }

    /// The classes there are accounts for; none where one serves everybody.
    pub(crate) fn classes(&self) -> Vec<AccountClass> {
        match self {
            Self::PerClass(logins) => logins.keys().copied().collect(),
            Self::One(_) => Vec::new(),
        }
    }

    /// The account for a connection of this class.
    pub(crate) fn of(&self, class: Option<AccountClass>) -> Option<&Login> {
        match self {
            Self::PerClass(logins) => logins.get(&class?),
            Self::One(login) => Some(login),
        }
    }
}

impl Login {
    fn load(name: &ResourceName, account: &Account) -> Result<Self, DatabaseError> {
        let password = account.password_file.as_deref();
        let read = |path: &Path| {
            read_password(path).map_err(|problem| DatabaseError::File {
                name: name.clone(),
                path: path.display().to_string(),
                problem,
            })
        };
        Ok(Self {
            user: account.user.clone(),
            password: password.map(read).transpose()?,
            reviewed: account.reviewed.clone(),
        })
    }
}

/// The password in a file, without the line's end.
pub(crate) fn read_password(path: &Path) -> Result<SecretString, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let text = SecretString::from(text);
    let password = text.expose_secret().trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err("it is empty; it must hold the password".to_owned());
    }
    Ok(SecretString::from(password))
}
