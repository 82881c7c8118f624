//! RFC 3161 timestamp tokens: what to send to a timestamping authority (TSA), and whether what it
//! answers proves that some data existed at a time. Bytes in, bytes out: whoever uses it brings the
//! connection, the files and the nonce.
//!
//! ```text
//! data ─▶ request(data, nonce) ─▶ TSA ─▶ response ─▶ verify(response, data, nonce, roots) ─▶ Token
//! ```
//!
//! A response is kept as it came, so that `openssl ts -verify` reads it too.

mod asn1;
mod token;

use aws_lc_rs::digest::{SHA256, digest};
use der::asn1::OctetString;
use der::{Any, Encode};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_cert::spki::AlgorithmIdentifierOwned;

use asn1::{MessageImprint, TimeStampReq};
pub use token::{Token, TokenError, verify};

/// Longest response that is read, in bytes: a token is 1 to 8 KiB with the certificates of its TSA.
pub const RESPONSE_BYTES_MAX: usize = 64 * 1024;

/// The media type of a request (RFC 3161 §3.4).
pub const REQUEST_TYPE: &str = "application/timestamp-query";

/// The media type of a response (RFC 3161 §3.4).
pub const RESPONSE_TYPE: &str = "application/timestamp-reply";

/// Longest file of root certificates, in bytes: `ROOTS_MAX` certificates of 4 KiB.
pub const ROOTS_BYTES_MAX: usize = 256 * 1024;

/// Most root certificates in one file.
const ROOTS_MAX: usize = 64;

/// Why a file of root certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// There is none in it.
    #[error("it holds no certificate in PEM form")]
    Empty,
    /// There are too many.
    #[error("it holds more than {ROOTS_MAX} certificates")]
    TooMany,
    /// One of them is no certificate.
    #[error("certificate {number} cannot be read: {problem}")]
    Malformed {
        /// Which, from 1.
        number: usize,
        /// Why.
        problem: String,
    },
}

/// The certificate authorities that are believed when they vouch for a TSA.
#[derive(Clone, Debug)]
pub struct Roots {
    certificates: Vec<CertificateDer<'static>>,
}

impl Roots {
    /// Reads certificates in PEM form.
    ///
    /// # Errors
    /// When there is none, or one cannot be read.
    pub fn from_pem(pem: &[u8]) -> Result<Self, RootsError> {
        let mut certificates = Vec::new();
        for (at, found) in CertificateDer::pem_slice_iter(pem).enumerate() {
            let malformed = |problem: String| RootsError::Malformed {
                number: at + 1,
                problem,
            };
            if at == ROOTS_MAX {
                return Err(RootsError::TooMany);
            }
            let certificate = found.map_err(|error| malformed(error.to_string()))?;
            webpki::anchor_from_trusted_cert(&certificate)
                .map_err(|error| malformed(error.to_string()))?;
            certificates.push(certificate);
        }
        if certificates.is_empty() {
            return Err(RootsError::Empty);
        }
        Ok(Self { certificates })
    }

    fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }
}

/// The request for a token over `data`, of which the TSA sees the SHA-256 alone. `nonce` is random
/// and new for each request: it shows that the answer is no older one.
///
/// # Errors
/// Never for data that fits into memory; ASN.1 has a limit on lengths.
pub fn request(data: &[u8], nonce: u64) -> Result<Vec<u8>, TokenError> {
    let made = OctetString::new(digest(&SHA256, data).as_ref()).and_then(|hashed_message| {
        let hash_algorithm = AlgorithmIdentifierOwned {
            oid: asn1::ID_SHA256,
            parameters: Some(Any::null()),
        };
        let request = TimeStampReq {
            version: 1,
            message_imprint: MessageImprint {
                hash_algorithm,
                hashed_message,
            },
            req_policy: None,
            nonce: Some(nonce),
            cert_req: true,
        };
        request.to_der()
    });
    made.map_err(TokenError::Malformed)
}
