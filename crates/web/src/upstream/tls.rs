//! How TLS is spoken to `https` upstreams.

use std::sync::Arc;

use curfew_gate::tls::trusting;
use rustls::ClientConfig;

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
    let builder = trusting(web.upstream_ca.as_deref()).map_err(unfit)?;
    let mut any = builder.with_no_client_auth();
    let mut h1 = any.clone();
    any.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    h1.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Configs {
        any: Arc::new(any),
        h1: Arc::new(h1),
    })
}
