//! Timestamps: somebody else's clock says when this log's checkpoints existed (RFC 3161).
//!
//! ```text
//! newest checkpoint ─▶ its hash ─▶ authority ─▶ token, verified ─▶ `timestamps/SIZE.tsr`
//!   cosigned, if it can be             │ fails: asked later            │
//!                                      ▼                               ▼
//!                  log.timestamps_stopped, log.timestamps_resumed   log.timestamped
//! ```
//!
//! Asked is every `interval`, and only where the log has grown by something else than notes on
//! itself.

mod ask;
mod stamper;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use curfew_gate::recorder::Durability;
use curfew_gate::registrar::Registrar;
use curfew_ledger::{KeyChain, Published, RotationError, VerifierKey};
use curfew_timestamp::{ROOTS_BYTES_MAX, Roots};
use stamper::Stamper;
use tokio_util::sync::CancellationToken;

use crate::config;

pub use ask::{AskError, Asker};

/// Why the configured timestamping authority cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum StampSetupError {
    /// The certificates that vouch for it.
    #[error("{path}: {problem}")]
    Roots {
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No connection to it can be made.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
}

/// The configured authority, looked at and not asked yet.
#[derive(Debug)]
pub struct Setup {
    asker: Asker,
    roots: Roots,
    config: config::Timestamps,
    keys: KeyChain,
    /// Witnesses are configured, so that checkpoints with their signatures are to be had.
    is_witnessed: bool,
    log: Published,
}

impl Setup {
    /// Reads the certificates, for the log in `ledger` whose key is `key`.
    pub fn new(
        config: &config::Timestamps,
        ledger: &Path,
        key: VerifierKey,
        is_witnessed: bool,
    ) -> Result<Self, StampSetupError> {
        let roots = roots(&config.ca).map_err(|problem| StampSetupError::Roots {
            path: config.ca.display().to_string(),
            problem,
        })?;
        let asker = Asker::new(&config.url, config.timeout.0);
        Ok(Self {
            asker: asker.map_err(StampSetupError::Unreachable)?,
            roots,
            config: config.clone(),
            keys: KeyChain::new(&[key]),
            is_witnessed,
            log: Published::new(ledger),
        })
    }

    /// Takes in the statements on all changes of the log's key: what was stamped last may be signed by
    /// an earlier one.
    pub fn follow(&mut self, rotations: &[String]) -> Result<(), RotationError> {
        self.keys = self.keys.told(rotations)?;
        Ok(())
    }

    /// Has checkpoints stamped until the ledger is closed, and then the last one.
    pub async fn run(
        self,
        registrar: Registrar,
        durability: Arc<Durability>,
        closed: CancellationToken,
    ) {
        let mut stamper = Stamper::new(self, registrar, durability);
        tokio::select! {
            () = closed.cancelled() => {}
            () = stamper.run() => {}
        }
        stamper.finish().await;
    }
}

/// The certificates in a PEM file of those who vouch for a timestamping authority.
///
/// # Errors
/// Says what is wrong with the file.
pub fn roots(path: &Path) -> Result<Roots, String> {
    let len = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if len > ROOTS_BYTES_MAX as u64 {
        return Err(format!("longer than {ROOTS_BYTES_MAX} bytes"));
    }
    let pem = fs::read(path).map_err(|error| error.to_string())?;
    Roots::from_pem(&pem).map_err(|error| error.to_string())
}
