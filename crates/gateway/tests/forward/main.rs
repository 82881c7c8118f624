//! A gateway that forwards its entries to real receivers: what arrives, in what order, and what
//! happens to it when either side goes away.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_types,
    missing_docs,
    unreachable_pub
)]

mod collector;
#[path = "../shared/config.rs"]
mod config;
mod hub;
#[path = "../shared/left_out.rs"]
mod left_out;
mod otlp;
#[path = "../shared/person.rs"]
mod person;
mod rotel;
mod rsyslog;
mod standing;
mod syslog;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use curfew_authority::Command;
use curfew_export::range;
use curfew_gateway::Running;
use curfew_gateway::config::Config;
use curfew_gateway::data::DataDir;
use curfew_ledger::LogReader;
use curfew_ledger::merkle::leaf_hash;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

const POLICY: &str = r#"
@id("sessions") @idle("15m") @reauth("8h") @lifetime("24h")
permit (principal, action == Action::"session.start", resource == Resource::"gateway");
"#;

/// How long anything may take on a machine that has much to do.
const LONG: Duration = Duration::from_secs(60);

/// What arrived of one entry.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Arrived {
    index: u64,
    leaf: String,
}

/// The folder of a gateway, and what it says of receivers.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hosts = vec!["curfew.localhost".to_owned(), "localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(hosts).unwrap();
        let place = Self { folder };
        place.write("cert.pem", &made.cert.pem());
        place.write("key.pem", &made.signing_key.serialize_pem());
        let config = place.config("");
        DataDir::of(&config).create(&config.origin).unwrap();
        place
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn config(&self, forwards: &str) -> Config {
        let text = config::config(&format!("[search]\nindex = false\n{forwards}"));
        Config::parse("curfew.toml", &text, self.folder.path()).unwrap()
    }

    async fn start(&self, forwards: &str) -> Running {
        curfew_gateway::start(self.config(forwards), "policy.cedar", POLICY)
            .await
            .unwrap()
    }

    fn ledger(&self) -> PathBuf {
        self.folder.path().join("data/ledger")
    }

    /// What the cursor on disk says.
    fn cursor(&self) -> u64 {
        let path = self.folder.path().join("data/forward/siem.json");
        let Ok(text) = std::fs::read_to_string(path) else {
            return 0;
        };
        let cursor: serde_json::Value = serde_json::from_str(&text).unwrap();
        cursor["next"].as_u64().unwrap()
    }

    fn signed(&self) -> u64 {
        signed(&self.ledger())
    }

    /// The log's entries up to `size`, as they should arrive.
    fn expected(&self, size: u64) -> Vec<Arrived> {
        let reader = LogReader::open(&self.ledger()).unwrap();
        let entries = reader.range(0..size).map(|entry| {
            let (index, bytes) = entry.unwrap();
            let leaf = leaf_hash(&bytes).0;
            let leaf = leaf.iter().map(|byte| format!("{byte:02x}")).collect();
            Arrived { index, leaf }
        });
        entries.collect()
    }

    /// What a receiver's side of TLS has.
    fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        let path = |name: &str| self.folder.path().join(name);
        let chain = CertificateDer::pem_file_iter(path("cert.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(path("key.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.map(Result::unwrap).collect(), key)
            .unwrap();
        tokio_rustls::TlsAcceptor::from(Arc::new(config))
    }
}

fn signed(ledger: &Path) -> u64 {
    range::checkpoint(ledger).map_or(0, |checkpoint| checkpoint.size)
}

/// Records so many entries.
async fn record(running: &Running, count: usize) {
    for _ in 0..count {
        let command = Command::StepClock { wall_offset_us: 1 };
        running.registrar().carry_out(command).await.unwrap();
    }
}

async fn wait<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let end = tokio::time::Instant::now() + LONG;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(tokio::time::Instant::now() < end, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Each entry once or more, none before its time: a repetition goes back, and then on from there.
fn nothing_is_missing(arrived: &[Arrived]) {
    let mut end = 0;
    for one in arrived {
        assert!(one.index <= end, "{} came before {end}", one.index);
        end = end.max(one.index + 1);
    }
}
