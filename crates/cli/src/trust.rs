//! Whom the CLI trusts to be a gateway: whoever the system's authorities vouch for, or those in a file
//! that was given at `curfew login`.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use x509_cert::der::Decode as _;

use crate::failure::{Doing, Exit, Failure, Outcome};

/// TLS that trusts the certificates in a PEM file, and nobody else.
pub(crate) fn config(path: &Path) -> Outcome<ClientConfig> {
    let certificates = certificates(path)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        roots.add(certificate.clone()).doing(path.display())?;
    }
    let roots = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let verifier = Named {
        roots: roots.build().doing(path.display())?,
        certificates,
    };
    let mut config = ClientConfig::builder_with_provider(provider as Arc<CryptoProvider>)
        .with_safe_default_protocol_versions()
        .doing("cannot set up TLS")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The certificates in a PEM file, of which there is one at least.
pub(crate) fn certificates(path: &Path) -> Outcome<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates: Vec<CertificateDer<'static>> = read.doing(path.display())?;
    if certificates.is_empty() {
        return Err(Failure::new(
            Exit::Usage,
            format_args!("{} holds no certificate", path.display()),
        ));
    }
    Ok(certificates)
}

/// Takes what an authority in the file vouches for, and each certificate in the file itself: one that
/// is its own authority, as `openssl req -x509` makes it, is no server's by the rules for chains
/// (RFC 5280 section 4.2.1.9), and is the very one that was named.
#[derive(Debug)]
struct Named {
    roots: Arc<WebPkiServerVerifier>,
    certificates: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = self
            .roots
            .verify_server_cert(end_entity, intermediates, name, ocsp, now);
        let Err(error) = chain else { return chain };
        if !self.certificates.iter().any(|named| named == end_entity) {
            return Err(error);
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
        check_time(end_entity, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.roots
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.roots
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.roots.supported_verify_schemes()
    }
}

fn check_time(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let parsed = x509_cert::Certificate::from_der(certificate);
    let parsed = parsed.map_err(|_| CertificateError::BadEncoding)?;
    let validity = parsed.tbs_certificate.validity;
    let now = std::time::Duration::from_secs(now.as_secs());
    if now < validity.not_before.to_unix_duration() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > validity.not_after.to_unix_duration() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// What is wrong with the gateway's certificate, if that is why a request failed.
pub(crate) fn certificate_error(error: &reqwest::Error) -> Option<&CertificateError> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(Error::InvalidCertificate(why)) = error.downcast_ref::<Error>() {
            return Some(why);
        }
        // What an I/O error holds is not its source.
        next = match error.downcast_ref::<std::io::Error>() {
            Some(outer) => outer.get_ref().map(|held| held as _),
            None => error.source(),
        };
    }
    None
}

/// What is wrong with it in a sentence, and what to do.
pub(crate) fn advice(why: &CertificateError, server: &str, ca: Option<&Path>) -> (String, String) {
    use CertificateError as Error;
    let told = |text: &str, hint: &str| (text.to_owned(), hint.to_owned());
    if matches!(
        why,
        Error::NotValidForName | Error::NotValidForNameContext { .. }
    ) {
        return told(
            "its certificate is for another name",
            "use the name that the certificate has, or tell whoever runs the gateway",
        );
    }
    if matches!(why, Error::Expired | Error::ExpiredContext { .. }) {
        return told(
            "its certificate has expired",
            "tell whoever runs the gateway, and look at the clock of this machine",
        );
    }
    if matches!(why, Error::NotValidYet | Error::NotValidYetContext { .. }) {
        return told(
            "its certificate is not valid yet",
            "look at the clock of this machine, or tell whoever runs the gateway",
        );
    }
    let get = "get it, or that of the authority behind it, as a PEM file from whoever runs the gateway, and name it once";
    let login = format!("curfew login --server {server} --ca FILE");
    match ca {
        None => (
            "nobody whom this machine trusts vouches for its certificate".to_owned(),
            format!("{get}: {login}"),
        ),
        Some(path) => (
            format!("nothing in {} vouches for its certificate", path.display()),
            format!("the gateway may have a new certificate: {get}: {login}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};

    const NOW: UnixTime = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_790_000_000));

    fn own_authority(names: &[&str], is_ca: bool) -> (CertificateDer<'static>, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, "curfew.test");
        if is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2027, 1, 1);
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        (made.der().clone(), made.pem())
    }

    fn verify(
        pem: &str,
        shown: &CertificateDer<'_>,
        name: &str,
        now: UnixTime,
    ) -> Result<(), Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, pem).unwrap();
        let certificates = certificates(&path).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(certificates[0].clone()).unwrap();
        let roots = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let named = Named {
            roots: roots.build().unwrap(),
            certificates,
        };
        let name = ServerName::try_from(name.to_owned()).unwrap();
        named
            .verify_server_cert(shown, &[], &name, &[], now)
            .map(drop)
    }

    #[test]
    fn a_certificate_that_is_its_own_authority_is_taken_where_it_was_named() {
        for is_ca in [true, false] {
            let (shown, pem) = own_authority(&["curfew.test"], is_ca);
            verify(&pem, &shown, "curfew.test", NOW).unwrap();
            let other = verify(&pem, &shown, "other.test", NOW).unwrap_err();
            assert!(
                matches!(
                    other,
                    Error::InvalidCertificate(
                        CertificateError::NotValidForName
                            | CertificateError::NotValidForNameContext { .. }
                    )
                ),
                "{other:?}"
            );
            for (secs, late) in [(1_760_000_000, false), (1_890_000_000, true)] {
                let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(secs));
                let error = verify(&pem, &shown, "curfew.test", now).unwrap_err();
                let text = format!("{error:?}");
                assert_eq!(text.contains("Expired"), late, "{text}");
                assert_eq!(text.contains("NotValidYet"), !late, "{text}");
            }
            // Another with the same names is not the one that was named.
            let (stranger, _) = own_authority(&["curfew.test"], is_ca);
            verify(&pem, &stranger, "curfew.test", NOW).unwrap_err();
        }
    }
}
