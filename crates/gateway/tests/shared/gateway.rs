//! A gateway of its own for each test, and the trust of its clients.

#[path = "folder.rs"]
mod folder;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use curfew_gateway::Running;
use curfew_gateway::config::Config;
use curfew_gateway::data::DataDir;
use rustls_pki_types::CertificateDer;

use self::folder::Folder;

/// A running gateway and the folder with everything it has.
pub(crate) struct Gateway {
    pub(crate) running: Running,
    /// What its clients trust.
    #[allow(dead_code, reason = "not every test has a client")]
    pub(crate) tls: Arc<rustls::ClientConfig>,
    folder: Folder,
}

impl Gateway {
    /// Starts one whose certificate names `hosts`. `prepare` sees its folder and its new data
    /// folder first.
    pub(crate) async fn start<T>(
        hosts: &[&str],
        config: &str,
        policy: &str,
        prepare: impl FnOnce(&Path, &DataDir) -> T,
    ) -> (Self, T) {
        let folder = Folder::new();
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(hosts).unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).unwrap();
        };
        write("cert.pem", &made.cert.pem());
        write("key.pem", &made.signing_key.serialize_pem());
        let config = Config::parse("curfew.toml", config, folder.path()).unwrap();
        let data = DataDir::of(&config);
        data.create(&config.origin).unwrap();
        let prepared = prepare(folder.path(), &data);
        let running = curfew_gateway::start(config, "policy.cedar", policy)
            .await
            .unwrap();
        let gateway = Self {
            running,
            tls: Arc::new(trust(made.cert.der())),
            folder,
        };
        (gateway, prepared)
    }

    /// The file with its certificate.
    #[allow(dead_code, reason = "not every test has a client that reads files")]
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// Where its ledger lies.
    pub(crate) fn ledger(&self) -> PathBuf {
        self.folder.path().join("data/ledger")
    }
}

fn trust(certificate: &CertificateDer<'_>) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone().into_owned()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}
