//! The data folder: the ledger, its keys, the accounts. What lies where, and how it is made.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use curfew_custody::signer::RemoteSigner;
use curfew_gate::recorder::Durability;
use curfew_gate::secret::{MasterKey, SecretError};
use curfew_identity::{Accounts, IdentityError, PasswordCost, VaultKey};
use curfew_ledger::key_file::KeyFileError;
use curfew_ledger::note::NoteError;
use curfew_ledger::rotate::RotateError;
use curfew_ledger::{
    KeyError, KeyFile, LogKey, OpenError, Options, RealDisk, Recovered, Signer, VerifierKey, Writer,
};
use curfew_values::{Store, ValuesError};

use crate::config::Config;

/// Why the data folder cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file or folder cannot be made or read.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// What went wrong.
        source: std::io::Error,
    },
    /// There is nothing there yet.
    #[error("{0} holds no Curfew data; make it with `curfew init`")]
    Missing(String),
    /// There is something there already.
    #[error("{0} holds Curfew data already; it is never overwritten")]
    Exists(String),
    /// Others can read the folder.
    #[error("{0} can be entered by others; set its mode to 0700")]
    Exposed(String),
    /// A key of the gateway.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The key of the ledger.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The verifier key of the ledger.
    #[error("{path}: {problem}")]
    PublicKey {
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: NoteError,
    },
    /// The key of the ledger, where it is being changed.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// Witnesses are configured, and know nothing of the key that is to sign.
    #[error(
        "the log has witnesses, which cosign nothing by a key that they do not know, and no new key was \
         made that they could know"
    )]
    Unannounced,
    /// The policy on witnesses does not name the key that is to sign.
    #[error("{path}: {problem}")]
    WitnessPolicy {
        /// The file.
        path: String,
        /// What it lacks.
        problem: String,
    },
    /// The key of the ledger could not be changed.
    #[error("the log's key is not changed: {0}")]
    Rotate(#[from] RotateError),
    /// The ledger.
    #[error("the ledger cannot be opened: {0}")]
    Ledger(#[from] OpenError),
    /// The values that entries only commit to.
    #[error("the values beside the log: {0}")]
    Values(#[from] ValuesError),
    /// The accounts.
    #[error("the accounts cannot be opened: {0}")]
    Accounts(#[from] IdentityError),
}

/// Where things lie in the data folder.
#[derive(Clone, Debug)]
pub struct DataDir {
    root: PathBuf,
    segment_bytes: u64,
    /// The socket of whoever signs; the key is in the data folder otherwise.
    signer: Option<PathBuf>,
    /// The policy on witnesses, where there are some.
    witnesses: Option<PathBuf>,
}

impl DataDir {
    /// The data folder of a configuration.
    pub fn of(config: &Config) -> Self {
        Self {
            root: config.data.clone(),
            segment_bytes: config.tuning.segment_mib.saturating_mul(1024 * 1024),
            signer: config.log.signer.clone(),
            witnesses: config.log.witness.as_ref().map(|w| w.policy.clone()),
        }
    }

    /// The ledger: segments, tiles, checkpoints.
    pub fn ledger(&self) -> PathBuf {
        self.root.join("ledger")
    }

    /// The search index, where the configuration names no other place.
    pub fn search(&self) -> PathBuf {
        self.root.join("search")
    }

    /// What entries only commit to.
    pub fn values(&self) -> PathBuf {
        self.root.join("values")
    }

    /// The store of values of a ledger with `size` durable entries: where values are to be
    /// concealed, or once were.
    pub(crate) fn open_values(
        &self,
        concealing: bool,
        size: u64,
    ) -> Result<Option<Arc<Store>>, DataError> {
        let dir = self.values();
        if !concealing && !dir.exists() {
            return Ok(None);
        }
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&dir).map_err(at(&dir))?;
        let store = Store::open(Arc::new(RealDisk), &dir, size)?;
        Ok(Some(Arc::new(store)))
    }

    /// How far entries were forwarded to this receiver.
    pub(crate) fn cursors(&self) -> PathBuf {
        self.root.join("forward")
    }

    /// Where the operator's commands reach a running gateway.
    pub fn control_socket(&self) -> PathBuf {
        self.root.join("control.sock")
    }

    /// The verifier key of the ledger, for whoever checks it.
    pub fn public_key(&self) -> PathBuf {
        self.root.join("keys/ledger.pub")
    }

    /// The socket of whoever signs; none where the key is here.
    pub(crate) fn signer(&self) -> Option<&Path> {
        self.signer.as_deref()
    }

    /// The policy on witnesses; none where there are none.
    pub fn witnesses(&self) -> Option<&Path> {
        self.witnesses.as_deref()
    }

    pub(crate) fn ledger_key(&self) -> PathBuf {
        self.root.join("keys/ledger.key")
    }

    fn master_key(&self) -> PathBuf {
        self.root.join("keys/gateway.key")
    }

    pub(crate) fn options(&self) -> Result<Options, DataError> {
        Ok(match &self.signer {
            Some(socket) => self.signed_by(RemoteSigner::new(socket, self.verifier()?)),
            None => self.signed_by(KeyFile::open(Arc::new(RealDisk), &self.ledger_key())?),
        })
    }

    pub(crate) fn signed_by(&self, signer: impl Signer + 'static) -> Options {
        let guard = self.root.join("guard/last-signed");
        let mut options = Options::new(self.ledger(), guard, signer);
        options.segment_bytes = self.segment_bytes;
        options
    }

    /// The name under which the log's checkpoints are signed: its origin.
    ///
    /// # Errors
    /// When the verifier key is not there or cannot be read.
    pub fn origin(&self) -> Result<String, DataError> {
        Ok(self.verifier()?.name().to_owned())
    }

    /// Whether there is a file of accounts.
    pub fn has_accounts(&self) -> bool {
        self.accounts_file().exists()
    }

    fn accounts_file(&self) -> PathBuf {
        self.root.join("accounts.redb")
    }

    /// The verifier key itself.
    pub(crate) fn verifier(&self) -> Result<VerifierKey, DataError> {
        let path = self.public_key();
        let text = fs::read_to_string(&path).map_err(at(&path))?;
        VerifierKey::parse(text.trim_end()).map_err(|problem| DataError::PublicKey {
            path: path.display().to_string(),
            problem,
        })
    }

    /// Makes the folder with fresh keys and an empty ledger. Gives the verifier key.
    ///
    /// # Errors
    /// When there is something already, or the disk refuses.
    pub fn create(&self, origin: &str) -> Result<String, DataError> {
        if self.ledger_key().exists() {
            return Err(DataError::Exists(self.root.display().to_string()));
        }
        for dir in [
            self.root.clone(),
            self.root.join("keys"),
            self.root.join("guard"),
        ] {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(&dir).map_err(at(&dir))?;
        }
        self.private()?;
        MasterKey::create(&self.master_key())?;
        let key = LogKey::create(&self.ledger_key(), origin)?;
        let public = key.verifier().to_string();
        let path = self.public_key();
        fs::write(&path, format!("{public}\n")).map_err(at(&path))?;
        Ok(public)
    }

    fn private(&self) -> Result<(), DataError> {
        let mode = fs::metadata(&self.root).map_err(at(&self.root))?.mode();
        if mode & 0o077 == 0 {
            return Ok(());
        }
        Err(DataError::Exposed(self.root.display().to_string()))
    }

    /// The gateway's own key.
    ///
    /// # Errors
    /// When the folder was not made, or others can enter it.
    pub fn master(&self) -> Result<MasterKey, DataError> {
        if !self.master_key().exists() {
            return Err(DataError::Missing(self.root.display().to_string()));
        }
        self.private()?;
        Ok(MasterKey::load(&self.master_key())?)
    }

    /// The accounts.
    ///
    /// # Errors
    /// When the store cannot be opened; another process may hold it.
    pub fn accounts(&self, master: &MasterKey) -> Result<Accounts, DataError> {
        let key = VaultKey::from_bytes(*master.derive("accounts-vault", &[]));
        Ok(Accounts::open(
            self.accounts_file(),
            key,
            PasswordCost::Standard,
        )?)
    }

    /// Opens the ledger's writer; makes an empty ledger where there is none yet.
    ///
    /// # Errors
    /// When it is damaged, older than its last checkpoint, or held by another process.
    pub fn open_ledger(
        &self,
        durability: Arc<Durability>,
    ) -> Result<(Writer, Recovered), DataError> {
        let disk = Arc::new(RealDisk);
        self.finish_rotation()?;
        let options = self.options()?;
        // A ledger that has signed anything is never made anew: its guard says so.
        if options.guard.exists() {
            return Ok(Writer::open(options, disk, durability)?);
        }
        // Making one may have been cut short before, and goes on; what holds anything is refused,
        // and opening it says what is missing.
        match Writer::create(options.clone(), disk.clone(), durability.clone()) {
            Err(OpenError::AlreadyThere { .. }) => Ok(Writer::open(options, disk, durability)?),
            made => Ok(made?),
        }
    }
}

pub(crate) fn at(path: &Path) -> impl FnOnce(std::io::Error) -> DataError + '_ {
    move |source| DataError::File {
        path: path.display().to_string(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LEAST;

    #[test]
    fn a_ledger_whose_making_was_cut_short_is_made_and_one_without_its_guard_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::parse("curfew.toml", LEAST, folder.path()).unwrap();
        let data = DataDir::of(&config);
        data.create(&config.origin).unwrap();
        // As it lies when the signer could not be reached for the first checkpoint.
        fs::create_dir_all(data.ledger().join("segments")).unwrap();
        let open = || {
            let (failures, _) = tokio::sync::mpsc::unbounded_channel();
            data.open_ledger(Arc::new(Durability::new(0, failures)))
        };
        let (writer, _) = open().unwrap();
        writer.append("an entry").unwrap();
        writer.close().unwrap();
        fs::remove_file(data.root.join("guard/last-signed")).unwrap();
        let refused = open().map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains("last-signed is missing"), "{refused}");
    }
}
