//! Witnesses: other parties that cosign the log's checkpoints, so that it cannot be rewritten or
//! forked unseen. [`server`] is such a party, for logs of others; the rest has this log's own
//! checkpoints cosigned:
//!
//! ```text
//! publisher ─▶ newest checkpoint ─▶ round: all witnesses at once ─▶ quorum: `ledger/witnessed`
//!                                     │ who fails is asked later          │
//!                                     ▼                                   ▼
//!                              log.quorum_lost, log.quorum_met      log.witnessed, now and then
//! ```
//!
//! Nothing waits for it but what policy wants witnessed before it takes effect.

mod ask;
mod rounds;
pub mod server;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ask::Asker;
use curfew_gate::recorder::Durability;
use curfew_gate::registrar::Registrar;
use curfew_ledger::trust::{POLICY_BYTES_MAX, TrustPolicy};
use curfew_ledger::{KeyChain, Published, RotationError, VerifierKey};
use http::Uri;
use rounds::Rounds;
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::progress::{Kind, Progress};

/// Why the configured witnesses cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum WitnessSetupError {
    /// The policy on witnesses.
    #[error("{path}: {problem}")]
    Policy {
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No connection to a witness can be made.
    #[error("witnesses cannot be reached over TLS: {0}")]
    Tls(String),
}

/// The configured witnesses, looked at and not asked yet.
#[derive(Debug)]
pub struct Setup {
    policy: TrustPolicy,
    urls: Vec<Uri>,
    asker: Asker,
    config: config::Witnesses,
    /// The key that signs now.
    key: VerifierKey,
    /// Those that have signed.
    keys: KeyChain,
    log: Published,
    progress: Arc<Progress>,
}

impl Setup {
    /// Reads the policy for the log in `ledger` whose key is `key`.
    pub fn new(
        config: &config::Witnesses,
        ledger: &Path,
        key: VerifierKey,
    ) -> Result<Self, WitnessSetupError> {
        let wrong = |problem: String| WitnessSetupError::Policy {
            path: config.policy.display().to_string(),
            problem,
        };
        let (policy, urls) = read(&config.policy, &key).map_err(wrong)?;
        let log = Published::new(ledger);
        Ok(Self {
            policy,
            urls,
            asker: Asker::new(log.clone()).map_err(WitnessSetupError::Tls)?,
            config: config.clone(),
            keys: KeyChain::new(std::slice::from_ref(&key)),
            key,
            log,
            progress: Progress::new(Kind::Witnesses, Kind::Witnesses.as_str(), None),
        })
    }

    /// How far a quorum has cosigned, as it is told to others.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Takes in the statements on all changes of the log's key: what was cosigned last may be signed by
    /// an earlier one.
    pub fn follow(&mut self, rotations: &[String]) -> Result<(), RotationError> {
        self.keys = self.keys.told(rotations)?;
        Ok(())
    }

    /// Number of entries in the checkpoint that a quorum is known to have cosigned.
    fn kept(&self) -> u64 {
        let judged = self.log.witnessed().ok().flatten().and_then(|note| {
            let checkpoint = self.keys.verify(&note).ok()?;
            self.policy.judge_signed(&note, checkpoint).ok()
        });
        let judged = judged.filter(|judged| judged.met);
        judged.map_or(0, |judged| judged.checkpoint.size)
    }

    /// Has every checkpoint cosigned until the ledger is closed, and then the last one.
    pub async fn run(
        self,
        registrar: Registrar,
        durability: Arc<Durability>,
        closed: CancellationToken,
    ) {
        let mut rounds = Rounds::new(self, registrar, durability);
        tokio::select! {
            () = closed.cancelled() => {}
            () = rounds.run() => {}
        }
        rounds.finish().await;
    }
}

/// What is wrong with a policy whose `log` lines do not name the key that signs.
fn unlisted(key: &VerifierKey) -> String {
    format!(
        "it has `log` lines, and none for the key that signs this log from here on. Add the line \
         `log {key}`, and leave those of the keys before it"
    )
}

/// Makes sure that the policy in `path` will do once `key` signs the log. What else may be wrong with
/// it is for the gateway's start to say.
pub fn check_next_key(path: &Path, key: &VerifierKey) -> Result<(), String> {
    let Some(policy) = fs::read(path)
        .ok()
        .and_then(|bytes| TrustPolicy::parse(&bytes).ok())
    else {
        return Ok(());
    };
    let logs = policy.logs();
    if logs.is_empty() || logs.iter().any(|log| log.key == *key) {
        return Ok(());
    }
    Err(unlisted(key))
}

/// Reads the policy, and where each witness is.
fn read(path: &Path, key: &VerifierKey) -> Result<(TrustPolicy, Vec<Uri>), String> {
    let len = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if len > POLICY_BYTES_MAX as u64 {
        return Err("longer than 256 KiB".to_owned());
    }
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let policy = TrustPolicy::parse(&bytes).map_err(|error| error.to_string())?;
    if policy.witnesses().is_empty() {
        return Err("it names no witness".to_owned());
    }
    let logs = policy.logs();
    if !logs.is_empty() && !logs.iter().any(|log| log.key == *key) {
        return Err(unlisted(key));
    }
    let url = |witness: &curfew_ledger::trust::TrustedWitness| {
        let name = &witness.name;
        let Some(url) = &witness.url else {
            return Err(format!("the witness `{name}` has no URL to be asked at"));
        };
        let uri: Uri = url.parse().map_err(|error| format!("`{url}`: {error}"))?;
        let fits = matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none();
        if !fits || uri.host().is_none() {
            return Err(format!(
                "`{url}` is not a prefix such as https://w.example/w"
            ));
        }
        let whole = format!("{}/add-checkpoint", url.trim_end_matches('/'));
        whole.parse().map_err(|error| format!("`{url}`: {error}"))
    };
    let urls = policy
        .witnesses()
        .iter()
        .map(url)
        .collect::<Result<_, _>>()?;
    Ok((policy, urls))
}

#[cfg(test)]
mod tests {
    use curfew_ledger::LogKey;
    use curfew_ledger::cosignature::{Algorithm, Cosigner};

    use super::*;

    #[test]
    fn a_policy_that_cannot_work_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy");
        let key = LogKey::from_seed("example.com/log", &[1; 32])
            .unwrap()
            .verifier();
        let other = LogKey::from_seed("example.com/other", &[2; 32])
            .unwrap()
            .verifier();
        let witness = Cosigner::from_seed("w", Algorithm::Ed25519, &[3; 32]).unwrap();
        let vkey = witness.verifier();
        let refused = |text: &str| {
            fs::write(&path, text).unwrap();
            read(&path, &key).unwrap_err()
        };
        assert!(refused("quorum none\n").contains("no witness"));
        assert!(refused(&format!("witness a {vkey}\nquorum a\n")).contains("no URL"));
        for url in [
            "w.example",
            "ftp://w.example",
            "https://w.example/?a=b",
            "https:///x",
        ] {
            let text = refused(&format!("witness a {vkey} {url}\nquorum a\n"));
            assert!(text.contains(url), "{text}");
        }
        let good = format!("witness a {vkey} https://w.example/w/\nquorum a\n");
        let unlisted = refused(&format!("log {other}\n{good}"));
        assert!(
            unlisted.contains(&format!("Add the line `log {key}`")),
            "{unlisted}"
        );
        assert!(refused(&format!("{good}quorum b\n")).starts_with("line 3: "));
        fs::write(&path, format!("log {key}\n{good}")).unwrap();
        let (_, urls) = read(&path, &key).unwrap();
        assert_eq!(urls[0].to_string(), "https://w.example/w/add-checkpoint");
    }
}
