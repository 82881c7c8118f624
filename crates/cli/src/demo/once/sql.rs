//! SQL through Curfew, with an unchanged PostgreSQL driver.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::oneshot;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::live::{Seen, now_micros};
use crate::failure::{Doing, Failure, Outcome};

/// TLS that trusts the demo's authority only.
pub(super) fn tls(ca: &Path) -> Outcome<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).doing(ca.display())? {
        roots
            .add(certificate.doing(ca.display())?)
            .doing(ca.display())?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .doing("cannot set up TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// How ana reaches the database through Curfew.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) config: Config,
    pub(super) tls: ClientConfig,
}

impl Way {
    pub(super) fn new(ca: &Path, port: u16, user: &str, password: &str) -> Outcome<Self> {
        let mut config = Config::new();
        config
            .host("localhost")
            .hostaddr(IpAddr::from(Ipv4Addr::LOCALHOST))
            .port(port)
            .user(user)
            .password(password)
            .dbname("orders")
            .application_name("curfew demo")
            .ssl_mode(SslMode::Require);
        Ok(Self {
            config,
            tls: tls(ca)?,
        })
    }

    /// Opens a connection. The receiver tells when and how it was ended by the server.
    pub(super) async fn connect(&self) -> Result<Connection, tokio_postgres::Error> {
        let tls = MakeRustlsConnect::new(self.tls.clone());
        let (client, connection) = self.config.connect(tls).await?;
        let (tell, ended) = oneshot::channel();
        tokio::spawn(async move {
            let outcome = connection.await;
            let at_micros = now_micros();
            let what = match outcome {
                Ok(()) => "closed".to_owned(),
                Err(error) => sql_state(&error),
            };
            // Nobody may be interested any more.
            let _ = tell.send(Seen { what, at_micros });
        });
        Ok(Connection { client, ended })
    }
}

/// An open connection.
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) ended: oneshot::Receiver<Seen>,
}

/// `SQLSTATE message` of an error.
pub(super) fn sql_state(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("{} {}", error.code().code(), error.message()),
        None => error.to_string(),
    }
}

/// A database error that is not what it should be.
pub(super) fn failed(doing: &str) -> impl FnOnce(tokio_postgres::Error) -> Failure + '_ {
    move |error| Failure::failed(format_args!("{doing}: {}", sql_state(&error)))
}
