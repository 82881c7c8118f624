//! The file: accounts, the failures of names that are nobody's, and a check of the vault key.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the one file that accounts are kept in"
)]

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use curfew_entry::{RoleName, SubjectName};
use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend,
    TableDefinition, WriteTransaction,
};
use serde::{Deserialize, Serialize};

use crate::IdentityError;
use crate::backoff::{Failures, Lane};
use crate::browser::Browser;
use crate::totp::TotpSecret;
use crate::vault::{Unsealable, Vault, VaultKey};

#[cfg(test)]
#[path = "store_flaky.rs"]
pub(crate) mod flaky;

/// Records by name, in JSON.
const ACCOUNTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("accounts.v1");
/// Failures of names that are nobody's, in JSON, by slot. A name takes the slot of its pseudonym,
/// and turns out who was there. 65,536 × about 150 bytes are about 10 MB; at the rate at which all
/// strangers together may try (`throttle.rs`) it takes an hour to turn out a certain one.
const STRANGERS: TableDefinition<'_, u16, &[u8]> = TableDefinition::new("strangers.v1");
/// One row, sealed: opens under the right vault key only.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta.v1");
const META_CHECK: &str = "vault key check";

/// Browsers that an account remembers being signed in to in: those at work, at home, in a pocket.
const BROWSERS_MAX: usize = 8;
/// What a TOTP secret is sealed for.
const SEALED_TOTP: &str = "totp";
/// The name the decoy is sealed for. No subject has it.
const DECOY: &str = "";
/// Memory for pages read before: the accounts of a few thousand people.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

/// An account as it is stored.
#[derive(Deserialize, Serialize)]
pub(crate) struct Record {
    pub(crate) roles: BTreeSet<RoleName>,
    pub(crate) disabled: bool,
    pub(crate) phc: String,
    sealed_totp: Vec<u8>,
    pub(crate) last_step: Option<u64>,
    pub(crate) failures: Failures,
    /// Browsers of the newest sign-ins, newest last.
    #[serde(default)]
    browsers: Vec<Browser>,
}

impl Record {
    pub(crate) fn new(roles: BTreeSet<RoleName>, phc: String) -> Self {
        Self {
            roles,
            disabled: false,
            phc,
            sealed_totp: Vec::new(),
            last_step: None,
            failures: Failures::default(),
            browsers: Vec::new(),
        }
    }

    pub(crate) fn lane_of(&self, browser: Option<&Browser>) -> Lane {
        // All are compared, so that it takes the same time which of them it is.
        let known = self.browsers.iter().filter(|known| browser == Some(*known));
        if known.count() > 0 {
            Lane::Near
        } else {
            Lane::Far
        }
    }

    pub(crate) fn remember(&mut self, browser: Browser) {
        self.browsers.retain(|known| *known != browser);
        self.browsers.push(browser);
        let surplus = self.browsers.len().saturating_sub(BROWSERS_MAX);
        self.browsers.drain(..surplus);
    }

    /// After a change of its secrets: whoever was known may have been somebody else.
    pub(crate) fn forget_browsers(&mut self) {
        self.browsers.clear();
    }
}

/// The failures of a name that is nobody's.
#[derive(Deserialize, Serialize)]
struct Stranger {
    pseudonym: [u8; 16],
    failures: Failures,
}

/// Whom a name stands for.
pub(crate) struct Found {
    /// The account's name; absent for a name that is nobody's, whose record is the decoy's.
    pub(crate) subject: Option<SubjectName>,
    /// The account, or the decoy with the failures of that name.
    pub(crate) record: Record,
}

pub(crate) struct Store {
    path: PathBuf,
    /// None while it failed and could not be opened again.
    database: RwLock<Option<Database>>,
    /// It failed: whatever was under way did not happen, and nothing else would either. It is opened
    /// again before the next use.
    failed: AtomicBool,
    vault: Vault,
    decoy: Vec<u8>,
    #[cfg(test)]
    pub(crate) disk: std::sync::Arc<flaky::Disk>,
}

impl Store {
    /// Opens the file, or makes it. `decoy_phc` is the hash that names of nobody are held to.
    pub(crate) fn open(
        path: &Path,
        key: &VaultKey,
        decoy_phc: String,
    ) -> Result<Self, IdentityError> {
        let vault = Vault::new(key);
        #[cfg(test)]
        let disk = std::sync::Arc::<flaky::Disk>::default();
        make_folder(path)?;
        let file = open_file(path, true)?;
        #[cfg(test)]
        let file = flaky::File::new(file, &disk);
        let database = open_database(file, path)?;
        check_key(&database, &vault, path)?;
        let mut decoy = Record::new(BTreeSet::new(), decoy_phc);
        decoy.sealed_totp = vault.seal(
            SEALED_TOTP,
            DECOY,
            TotpSecret::generate()?.as_bytes().as_slice(),
        )?;
        Ok(Self {
            path: path.to_owned(),
            database: RwLock::new(Some(database)),
            failed: AtomicBool::new(false),
            vault,
            decoy: encode(&decoy)?,
            #[cfg(test)]
            disk,
        })
    }

    /// Whether it works: writes what is there once more. Opens it again where it failed.
    pub(crate) fn check(&self) -> Result<(), IdentityError> {
        let look = |database: &Database| check_key(database, &self.vault, &self.path);
        // The first look may be the one that finds it failed.
        self.with(look).or_else(|_| self.with(look))
    }

    /// Has the file used, and takes note where that fails.
    fn with<T>(
        &self,
        run: impl FnOnce(&Database) -> Result<T, IdentityError>,
    ) -> Result<T, IdentityError> {
        let opened = self.opened()?;
        let result = match &*opened {
            Some(database) => run(database),
            None => Err(IdentityError::Closed(self.path.clone())),
        };
        if matches!(result, Err(IdentityError::Store(_))) {
            self.failed.store(true, Ordering::Release);
        }
        result
    }

    /// The file, opened again where it failed: after an error of the disk redb refuses everything
    /// until then, and what is in the file is as the last transaction left it that was durable.
    fn opened(&self) -> Result<RwLockReadGuard<'_, Option<Database>>, IdentityError> {
        if self.failed.load(Ordering::Acquire) {
            // Waits for whoever still reads.
            let mut database = self
                .database
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            // Somebody else may have been faster.
            if self.failed.load(Ordering::Acquire) {
                drop(database.take());
                // What is missing now was there before: nothing is made anew.
                let file = open_file(&self.path, false)?;
                #[cfg(test)]
                let file = flaky::File::new(file, &self.disk);
                let again = open_database(file, &self.path)?;
                check_key(&again, &self.vault, &self.path)?;
                *database = Some(again);
                self.failed.store(false, Ordering::Release);
            }
        }
        Ok(self.database.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs `change` in one write transaction, which is durable when this returns `Ok` and did
    /// not happen when it returns `Err`. At most one runs at a time.
    pub(crate) fn write<T>(
        &self,
        change: impl FnOnce(&mut Writer<'_>) -> Result<T, IdentityError>,
    ) -> Result<T, IdentityError> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            let value = change(&mut Writer {
                store: self,
                transaction: &transaction,
            })?;
            transaction.commit()?;
            Ok(value)
        })
    }

    /// Whom `name` stands for, at this moment.
    pub(crate) fn find(&self, name: &str) -> Result<Found, IdentityError> {
        self.with(|database| {
            let transaction = database.begin_read()?;
            self.found(
                name,
                &transaction.open_table(ACCOUNTS)?,
                &transaction.open_table(STRANGERS)?,
            )
        })
    }

    /// All accounts, by name.
    pub(crate) fn all(&self) -> Result<Vec<(SubjectName, Record)>, IdentityError> {
        self.with(|database| {
            let transaction = database.begin_read()?;
            let table = transaction.open_table(ACCOUNTS)?;
            let mut all = Vec::new();
            for row in table.iter()? {
                let (name, bytes) = row?;
                let name = name
                    .value()
                    .parse()
                    .map_err(|_| IdentityError::Damaged("the name of an account"))?;
                all.push((name, decode(bytes.value())?));
            }
            Ok(all)
        })
    }

    /// The TOTP secret of `found`.
    pub(crate) fn totp_of(&self, found: &Found) -> Result<TotpSecret, IdentityError> {
        let name = found.subject.as_ref().map_or(DECOY, SubjectName::as_str);
        let damaged = || IdentityError::Damaged("a TOTP secret does not open");
        let bytes = self
            .vault
            .open(SEALED_TOTP, name, &found.record.sealed_totp)
            .map_err(|Unsealable| damaged())?;
        let bytes =
            zeroize::Zeroizing::new(<[u8; 20]>::try_from(bytes.as_slice()).map_err(|_| damaged())?);
        Ok(TotpSecret::from_bytes(*bytes))
    }

    /// Gives the account a new TOTP secret, of which no step is used yet.
    pub(crate) fn set_totp(
        &self,
        name: &SubjectName,
        record: &mut Record,
        secret: &TotpSecret,
    ) -> Result<(), IdentityError> {
        record.sealed_totp =
            self.vault
                .seal(SEALED_TOTP, name.as_str(), secret.as_bytes().as_slice())?;
        record.last_step = None;
        Ok(())
    }

    /// The same work, whether the name is somebody's or nobody's: two look-ups, two decodings.
    fn found(
        &self,
        name: &str,
        accounts: &impl ReadableTable<&'static str, &'static [u8]>,
        strangers: &impl ReadableTable<u16, &'static [u8]>,
    ) -> Result<Found, IdentityError> {
        let (slot, pseudonym) = self.slot_of(name);
        let stranger = strangers
            .get(slot)?
            .map(|bytes| decode::<Stranger>(bytes.value()))
            .transpose()?
            .filter(|stranger| stranger.pseudonym == pseudonym);
        if let Ok(subject) = name.parse::<SubjectName>()
            && let Some(bytes) = accounts.get(name)?
        {
            return Ok(Found {
                subject: Some(subject),
                record: decode(bytes.value())?,
            });
        }
        let mut record: Record = decode(&self.decoy)?;
        record.failures = stranger.map_or_else(Failures::default, |known| known.failures);
        Ok(Found {
            subject: None,
            record,
        })
    }

    fn slot_of(&self, name: &str) -> (u16, [u8; 16]) {
        let [a, b, rest @ ..] = self.vault.pseudonym(name);
        let mut pseudonym = [0; 16];
        pseudonym.copy_from_slice(&rest[..16]);
        (u16::from_be_bytes([a, b]), pseudonym)
    }
}

/// A write transaction under way.
pub(crate) struct Writer<'a> {
    store: &'a Store,
    transaction: &'a WriteTransaction,
}

impl Writer<'_> {
    /// Whom `name` stands for. Nothing changes it while this transaction is under way.
    pub(crate) fn find(&self, name: &str) -> Result<Found, IdentityError> {
        self.store.found(
            name,
            &self.transaction.open_table(ACCOUNTS)?,
            &self.transaction.open_table(STRANGERS)?,
        )
    }

    /// Stores an account.
    pub(crate) fn put(&mut self, name: &SubjectName, record: &Record) -> Result<(), IdentityError> {
        let mut table = self.transaction.open_table(ACCOUNTS)?;
        table.insert(name.as_str(), encode(record)?.as_slice())?;
        Ok(())
    }

    /// Stores the failures of a name: with its account, or among the strangers.
    pub(crate) fn put_failures(&mut self, name: &str, found: &Found) -> Result<(), IdentityError> {
        if let Some(subject) = &found.subject {
            return self.put(subject, &found.record);
        }
        let (slot, pseudonym) = self.store.slot_of(name);
        let stranger = Stranger {
            pseudonym,
            failures: found.record.failures,
        };
        let mut table = self.transaction.open_table(STRANGERS)?;
        table.insert(slot, encode(&stranger)?.as_slice())?;
        Ok(())
    }
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, IdentityError> {
    serde_json::to_vec(value).map_err(|_| IdentityError::Damaged("a record cannot be written"))
}

/// The cause is left out on purpose: it may quote what is stored.
fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, IdentityError> {
    serde_json::from_slice(bytes).map_err(|_| IdentityError::Damaged("a record cannot be read"))
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::File { path, source }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn make_folder(path: &Path) -> Result<(), IdentityError> {
    let folder = folder_of(path);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(failed(folder))
}

/// The file, for nobody else; made where it may be.
fn open_file(path: &Path, make: bool) -> Result<FileBackend, IdentityError> {
    let folder = folder_of(path);
    // Others who may write here could put another file in this one's place.
    let mode = fs::metadata(folder).map_err(failed(folder))?.mode() & 0o777;
    refuse_exposed(folder, mode, 0o022)?;

    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(make)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed(path))?;
    let mode = file.metadata().map_err(failed(path))?.mode() & 0o777;
    refuse_exposed(path, mode, 0o077)?;
    // The name of a new file is durable once its folder is.
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed(folder))?;

    FileBackend::new(file).map_err(|error| database_error(error, path))
}

fn open_database(file: impl StorageBackend, path: &Path) -> Result<Database, IdentityError> {
    Builder::new()
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(true)
        .create_with_backend(file)
        .map_err(|error| database_error(error, path))
}

fn refuse_exposed(path: &Path, mode: u32, forbidden: u32) -> Result<(), IdentityError> {
    if mode & forbidden == 0 {
        return Ok(());
    }
    Err(IdentityError::Exposed {
        path: path.to_owned(),
        mode,
    })
}

fn database_error(error: DatabaseError, path: &Path) -> IdentityError {
    if matches!(error, DatabaseError::DatabaseAlreadyOpen) {
        IdentityError::InUse(path.to_owned())
    } else {
        error.into()
    }
}

/// Makes all tables and the key check in a new file; holds the key to the check in an old one. Writes
/// it in any case, so that a file that cannot be written is found.
fn check_key(database: &Database, vault: &Vault, path: &Path) -> Result<(), IdentityError> {
    let transaction = database.begin_write()?;
    {
        let accounts = transaction.open_table(ACCOUNTS)?;
        transaction.open_table(STRANGERS)?;
        let mut meta = transaction.open_table(META)?;
        let sealed = meta.get(META_CHECK)?.map(|bytes| bytes.value().to_vec());
        let sealed = match sealed {
            Some(sealed) => {
                vault
                    .open(META_CHECK, "", &sealed)
                    .map_err(|Unsealable| IdentityError::WrongVaultKey(path.to_owned()))?;
                sealed
            }
            None if accounts.first()?.is_some() => {
                return Err(IdentityError::Damaged("the check of the vault key is gone"));
            }
            None => vault.seal(META_CHECK, "", META_CHECK.as_bytes())?,
        };
        meta.insert(META_CHECK, sealed.as_slice())?;
    }
    transaction.commit()?;
    Ok(())
}
