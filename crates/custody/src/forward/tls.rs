//! How TLS is spoken to receivers.

use curfew_gate::tls::{certificates, trusting};
use rustls::ClientConfig;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use crate::config::Forward;

/// With its own authorities where it names some, the system's otherwise; and with Curfew's own
/// certificate where one is configured (RFC 5425 section 4.2).
pub(super) fn config(forward: &Forward) -> Result<ClientConfig, String> {
    let builder = trusting(forward.ca.as_deref())?;
    let (Some(chain), Some(key)) = (&forward.certificate, &forward.key) else {
        return Ok(builder.with_no_client_auth());
    };
    let secret =
        PrivateKeyDer::from_pem_file(key).map_err(|error| format!("{}: {error}", key.display()))?;
    builder
        .with_client_auth_cert(certificates(chain)?, secret)
        .map_err(|error| format!("{}: {error}", chain.display()))
}
