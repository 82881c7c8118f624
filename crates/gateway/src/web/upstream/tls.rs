//! How TLS is spoken to `https` upstreams.

use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::UpstreamError;
use crate::config::WebResource;

/// One configuration for each choice of protocols.
#[derive(Clone, Debug)]
pub(super) struct Configs {
    /// HTTP/2 where it is offered, HTTP/1.1 otherwise.
    pub(super) any: Arc<ClientConfig>,
    /// HTTP/1.1 only, for WebSockets.
    pub(super) h1: Arc<ClientConfig>,
}

/// The configurations for a resource: its own authorities where it names some, the system's
/// otherwise.
pub(super) fn configs(web: &WebResource) -> Result<Configs, UpstreamError> {
    let unfit = |problem: String| UpstreamError::Unfit {
        resource: web.name.clone(),
        problem,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unfit(error.to_string()))?;
    let builder = match &web.upstream_ca {
        Some(path) => builder.with_root_certificates(roots(web, path)?),
        None => builder
            .with_native_roots()
            .map_err(|error| unfit(format!("the system's certificate authorities: {error}")))?,
    };
    let mut any = builder.with_no_client_auth();
    let mut h1 = any.clone();
    any.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    h1.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Configs {
        any: Arc::new(any),
        h1: Arc::new(h1),
    })
}

fn roots(web: &WebResource, path: &std::path::Path) -> Result<RootCertStore, UpstreamError> {
    let refused = |problem: String| UpstreamError::Authorities {
        resource: web.name.clone(),
        path: path.to_owned(),
        problem,
    };
    let mut store = RootCertStore::empty();
    let held = CertificateDer::pem_file_iter(path).map_err(|error| refused(error.to_string()))?;
    for certificate in held {
        let certificate = certificate.map_err(|error| refused(error.to_string()))?;
        store
            .add(certificate)
            .map_err(|error| refused(error.to_string()))?;
    }
    if store.is_empty() {
        return Err(refused("it holds no certificate".to_owned()));
    }
    Ok(store)
}
