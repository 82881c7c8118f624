//! PEM files, and whom the clients in Curfew trust: databases, web upstreams, receivers, witnesses.

use std::path::Path;
use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt as _;
use rustls::client::WantsClientCert;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{Error as PemError, PemObject};

/// Why certificate or key are of no use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read as PEM.
    #[error("{path}: {source}")]
    Pem {
        /// Which.
        path: String,
        /// Why.
        source: PemError,
    },
    /// They do not fit each other, or are of a kind that is not supported.
    #[error("the certificate and its key cannot be used: {0}")]
    Unfit(#[from] rustls::Error),
    /// The file has no certificate in it.
    #[error("{0} holds no certificate")]
    Empty(String),
}

/// Names the file in what is wrong with it.
pub fn pem(path: &Path) -> impl FnOnce(PemError) -> TlsError + '_ {
    move |source| TlsError::Pem {
        path: path.display().to_string(),
        source,
    }
}

/// The certificates in a PEM file, at least one.
///
/// # Errors
/// When the file cannot be read, or holds none.
pub fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_file_iter(path)
        .map_err(pem(path))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(pem(path))?;
    if chain.is_empty() {
        return Err(TlsError::Empty(path.display().to_string()));
    }
    Ok(chain)
}

/// Whom a client of ours trusts: the authorities in this file, or those of the system.
///
/// # Errors
/// What is wrong with the file, which is named.
pub fn trusting(
    authorities: Option<&Path>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let Some(path) = authorities else {
        return builder
            .with_native_roots()
            .map_err(|error| format!("the system's certificate authorities: {error}"));
    };
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        let added = store.add(certificate);
        added.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(builder.with_root_certificates(store))
}

/// The certificates in a PEM file, at least one.
///
/// # Errors
/// What is wrong with the file, which is named.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    chain(path).map_err(|error| error.to_string())
}
