//! How TLS is spoken to receivers.

use std::path::Path;
use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::Forward;

/// With its own authorities where it names some, the system's otherwise; and with Curfew's own
/// certificate where one is configured (RFC 5425 section 4.2).
pub(super) fn config(forward: &Forward) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match &forward.ca {
        Some(path) => builder.with_root_certificates(roots(path)?),
        None => builder
            .with_native_roots()
            .map_err(|error| format!("the system's certificate authorities: {error}"))?,
    };
    let (Some(chain), Some(key)) = (&forward.certificate, &forward.key) else {
        return Ok(builder.with_no_client_auth());
    };
    let secret =
        PrivateKeyDer::from_pem_file(key).map_err(|error| format!("{}: {error}", key.display()))?;
    builder
        .with_client_auth_cert(certificates(chain)?, secret)
        .map_err(|error| format!("{}: {error}", chain.display()))
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        let added = store.add(certificate);
        added.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(store)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let at = |problem: String| format!("{}: {problem}", path.display());
    let held = CertificateDer::pem_file_iter(path).map_err(|error| at(error.to_string()))?;
    let held: Result<Vec<_>, _> = held.collect();
    let held = held.map_err(|error| at(error.to_string()))?;
    if held.is_empty() {
        return Err(at("it holds no certificate".to_owned()));
    }
    Ok(held)
}
