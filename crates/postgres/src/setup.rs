//! The SQL that makes a database's accounts and gives each no more than its class, and takes from
//! PUBLIC what would reach past it.
//!
//! PostgreSQL has no right that denies: what everybody may do can be kept from one account only by
//! taking it from PUBLIC and giving it to those others who need it.

mod text;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use curfew_entry::AccountClass;
use curfew_gate::secret;
use postgres_protocol::password::scram_sha_256;
use secrecy::{ExposeSecret, SecretString};

use self::text::Script;
use super::accounts::{Login, read_password};
use super::direct::Direct;
use super::rights::withheld;
use super::upstream::{ConnectError, Target};
use crate::config::{Accounts, PostgresResource};

/// Who else needs what is taken from PUBLIC.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// These roles keep it.
    pub grant_back: Vec<String>,
    /// The schemas with the tables; all but the system's where there is none.
    pub schemas: Vec<String>,
    /// Rights to schemas, tables and sequences are left as they are.
    pub leave_tables: bool,
}

/// Why a database's accounts cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// There are no accounts in the configuration.
    #[error("database `{0}` has no [postgres.accounts]: nothing is to be set up")]
    NoAccounts(String),
    /// A password file.
    #[error("{}: {problem}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// The system gives no random bytes.
    #[error(transparent)]
    Random(#[from] secret::SecretError),
    /// Whom to trust.
    #[error("{0}")]
    Target(String),
    /// The server asks for a password, and none was given.
    #[error("the server asks for a password")]
    NoPassword,
    /// The server.
    #[error("{0}")]
    Server(String),
}

impl From<ConnectError> for SetupError {
    fn from(error: ConnectError) -> Self {
        Self::Server(error.to_string())
    }
}

/// What is set up.
#[derive(Debug)]
pub struct Setup<'a> {
    config: &'a PostgresResource,
    accounts: &'a Accounts,
    /// What the server keeps of each password.
    verifiers: BTreeMap<AccountClass, String>,
    /// Password files that were not there.
    made: Vec<PathBuf>,
}

impl<'a> Setup<'a> {
    /// Reads the passwords of a database's accounts. Where a password file is not there, it is made
    /// with 256 random bits, mode 0600.
    ///
    /// # Errors
    /// When there are no accounts, or a file can be neither read nor made.
    pub fn new(config: &'a PostgresResource) -> Result<Self, SetupError> {
        let no_accounts = || SetupError::NoAccounts(config.name.to_string());
        let accounts = config.accounts().ok_or_else(no_accounts)?;
        let mut setup = Self {
            config,
            accounts,
            verifiers: BTreeMap::new(),
            made: Vec::new(),
        };
        for (class, account) in accounts.iter() {
            let Some(path) = &account.password_file else {
                continue;
            };
            let password = setup.password(path)?;
            let verifier = scram_sha_256(password.expose_secret().as_bytes());
            setup.verifiers.insert(class, verifier);
        }
        Ok(setup)
    }

    /// The password files that were made.
    pub fn made(&self) -> &[PathBuf] {
        &self.made
    }

    fn password(&mut self, path: &Path) -> Result<SecretString, SetupError> {
        let failed = |problem: String| SetupError::File {
            path: path.to_owned(),
            problem,
        };
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        match file {
            Ok(mut file) => {
                let password = secret::token("")?;
                let written = file
                    .write_all(password.expose_secret().as_bytes())
                    .and_then(|()| file.write_all(b"\n"))
                    .and_then(|()| file.sync_all());
                written.map_err(|error| failed(error.to_string()))?;
                self.made.push(path.to_owned());
                Ok(password)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                read_password(path).map_err(failed)
            }
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// The SQL, commented, to be run in the database by a superuser. It can be run again.
    pub fn sql(&self, options: &Options) -> String {
        let names: BTreeMap<AccountClass, &str> = self
            .accounts
            .iter()
            .map(|(class, account)| (class, account.user.as_str()))
            .collect();
        Script {
            database: &self.config.database,
            accounts: &names,
            verifiers: &self.verifiers,
            options,
            withheld: withheld(),
        }
        .write()
    }

    /// A connection as an administrator of the database.
    ///
    /// # Errors
    /// When the server cannot be reached or does not let them in.
    pub async fn connect(
        &self,
        user: &str,
        password: Option<SecretString>,
    ) -> Result<Administrator, SetupError> {
        let target =
            Target::of(self.config).map_err(|error| SetupError::Target(error.to_string()))?;
        let login = Login {
            user: user.to_owned(),
            password,
            reviewed: Vec::new(),
        };
        match Direct::connect(&target, &login, &self.config.database).await {
            Ok(direct) => Ok(Administrator { direct }),
            Err(ConnectError::Authentication(_)) if login.password.is_none() => {
                Err(SetupError::NoPassword)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// A connection to a database with the rights of an administrator.
pub struct Administrator {
    direct: Direct,
}

impl std::fmt::Debug for Administrator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Administrator(…)")
    }
}

impl Administrator {
    /// The roles that would lose something the next [`Self::run`] takes from PUBLIC: all but
    /// superusers and the accounts themselves. None where PUBLIC has none of it any more.
    ///
    /// # Errors
    /// When the server does not say.
    pub async fn losing(&mut self, setup: &Setup<'_>) -> Result<Vec<String>, SetupError> {
        let names: Vec<String> = withheld()
            .iter()
            .map(|(name, _)| text::literal(name))
            .collect();
        let ours = setup.accounts.iter();
        let ours: Vec<String> = ours
            .map(|(_, account)| text::literal(&account.user))
            .collect();
        let sql = format!(
            "SELECT rolname FROM pg_roles
              WHERE NOT rolsuper AND rolname !~ '^pg_' AND rolname <> ALL (ARRAY[{ours}])
                AND (has_database_privilege('public', current_database(), 'TEMPORARY')
                     OR EXISTS (SELECT FROM pg_namespace
                                 WHERE nspname !~ '^pg_(toast_)?temp_'
                                   AND has_schema_privilege('public', oid, 'CREATE'))
                     OR EXISTS (SELECT FROM pg_proc
                                 WHERE pronamespace = 'pg_catalog'::regnamespace
                                   AND proname = ANY (ARRAY[{names}]::name[])
                                   AND has_function_privilege('public', oid, 'EXECUTE')))
              ORDER BY 1",
            ours = ours.join(", "),
            names = names.join(", "),
        );
        let rows = self.direct.query(&sql).await?.rows;
        Ok(rows.into_iter().flatten().collect())
    }

    /// Runs the SQL of a setup. Gives what the server remarked.
    ///
    /// # Errors
    /// When the server refuses any of it; then all of it is undone.
    pub async fn run(&mut self, sql: &str) -> Result<Vec<String>, SetupError> {
        Ok(self.direct.query(sql).await?.notices)
    }
}
