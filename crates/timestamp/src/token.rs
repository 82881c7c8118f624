//! Whether a response proves what it says.

use std::time::Duration;

use aws_lc_rs::digest::{self, digest};
use cms::signed_data::{SignerIdentifier, SignerInfo};
use der::asn1::{Int, ObjectIdentifier, OctetString};
use der::{Any, DateTime, Decode, Encode, Tag, Tagged};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use webpki::{EndEntityCert, KeyUsage, aws_lc_rs as algorithms};
use x509_cert::Certificate;
use x509_cert::ext::pkix::{ExtendedKeyUsage, SubjectKeyIdentifier};

use crate::asn1::{self, SignedData, SigningCertificate, SigningCertificateV2, TimeStampResp};
use crate::{RESPONSE_BYTES_MAX, Roots};

/// The longest name or text of a TSA that is given on, in characters.
const WORDS_MAX: usize = 200;

/// Why a response proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Longer than [`RESPONSE_BYTES_MAX`].
    #[error("it is longer than {RESPONSE_BYTES_MAX} bytes")]
    TooLong,
    /// Not what RFC 3161 describes.
    #[error("it is no response of a timestamping authority: {0}")]
    Malformed(der::Error),
    /// Not what RFC 3161 asks for.
    #[error("it is no valid token: {0}")]
    Invalid(&'static str),
    /// The TSA gives no token.
    #[error("the timestamping authority refuses (status {status}): {words}")]
    Refused {
        /// The status, above 1.
        status: u32,
        /// What it says of it.
        words: String,
    },
    /// It is over something else.
    #[error("the token is over other data")]
    Imprint,
    /// It is an answer to another request.
    #[error("the token has another nonce than the request")]
    Nonce,
    /// What has signed is not what a TSA may sign with.
    #[error("the certificate of {tsa} is not for timestamping alone, as a critical key purpose")]
    Purpose {
        /// The subject of the certificate.
        tsa: String,
    },
    /// The certificate is not vouched for, at the time of the token.
    #[error("the certificate of {tsa} does not hold at the time of the token: {problem}")]
    Untrusted {
        /// The subject of the certificate.
        tsa: String,
        /// Why.
        problem: webpki::Error,
    },
    /// The signature is wrong.
    #[error("the signature of {tsa} is wrong")]
    Signature {
        /// The subject of the certificate.
        tsa: String,
    },
}

/// What a verified token says: the data existed at that time.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Token {
    /// When, in microseconds since 1970, by the clock of the TSA.
    pub time_us: u64,
    /// How far that clock may be off, in microseconds, if the TSA says so.
    pub accuracy_us: Option<u64>,
    /// The subject of the TSA's certificate, in the form of RFC 4514.
    pub tsa: String,
}

/// Verifies a response: that a token was granted, that it is over the SHA-256 of `data` and carries
/// `nonce` (where one is given: later nobody knows it, and needs it no more), that it is signed by
/// the certificate it names, that this is for timestamping alone, and that it and its chain to one
/// of `roots` held at the time of the token.
///
/// # Errors
/// When any of this is not so.
pub fn verify(
    response: &[u8],
    data: &[u8],
    nonce: Option<u64>,
    roots: &Roots,
) -> Result<Token, TokenError> {
    if response.len() > RESPONSE_BYTES_MAX {
        return Err(TokenError::TooLong);
    }
    let signed = signed_data(response)?;
    let content = content(&signed)?;
    let info = asn1::TstInfo::from_der(content).map_err(TokenError::Malformed)?;
    check_info(&info, data, nonce)?;
    let time_us = gen_time(&info.gen_time)?;
    let [signer] = signed.signer_infos.0.as_slice() else {
        return Err(TokenError::Invalid("not exactly one signature"));
    };
    let certificates = certificates(&signed)?;
    let own = certificates.iter().find(|held| held.is_of(&signer.sid));
    let own = own.ok_or(TokenError::Invalid("the signer's certificate is missing"))?;
    let attributes = attributes(signer, content, own)?;
    check_purpose(own)?;
    check_signature(signer, &attributes, own)?;
    check_chain(own, &certificates, time_us, roots)?;
    let accuracy_us = info.accuracy.as_ref().map(|accuracy| {
        let part = |value: Option<u16>| u64::from(value.unwrap_or(0));
        u64::from(accuracy.seconds.unwrap_or(0)) * 1_000_000
            + part(accuracy.millis) * 1_000
            + part(accuracy.micros)
    });
    Ok(Token {
        time_us,
        accuracy_us,
        tsa: own.name(),
    })
}

fn signed_data(response: &[u8]) -> Result<SignedData, TokenError> {
    let response = TimeStampResp::from_der(response).map_err(TokenError::Malformed)?;
    let status = response.status.status;
    // 0 is granted, 1 granted with modifications.
    if status > 1 {
        let words = response.status.status_string.unwrap_or_default().join(" ");
        let words = printable(&words);
        return Err(TokenError::Refused { status, words });
    }
    let token = response
        .token
        .ok_or(TokenError::Invalid("granted, and not there"))?;
    if token.content_type != asn1::ID_SIGNED_DATA {
        return Err(TokenError::Invalid("not signed data"));
    }
    token.content.decode_as().map_err(TokenError::Malformed)
}

/// The bytes that are signed: those of a `TSTInfo`.
fn content(signed: &SignedData) -> Result<&[u8], TokenError> {
    let info = &signed.encap_content_info;
    if info.econtent_type != asn1::ID_CT_TST_INFO {
        return Err(TokenError::Invalid("something else than a time is signed"));
    }
    match &info.econtent {
        Some(content) if content.tag() == Tag::OctetString => Ok(content.value()),
        _ => Err(TokenError::Invalid("without what is signed")),
    }
}

fn check_info(info: &asn1::TstInfo, data: &[u8], nonce: Option<u64>) -> Result<(), TokenError> {
    if info.version != 1 {
        return Err(TokenError::Invalid("of an unknown version"));
    }
    let imprint = &info.message_imprint;
    let hash = digest(&digest::SHA256, data);
    let is_ours = imprint.hash_algorithm.oid == asn1::ID_SHA256
        && imprint.hashed_message.as_bytes() == hash.as_ref();
    if !is_ours {
        return Err(TokenError::Imprint);
    }
    let told = info.nonce.as_ref().and_then(whole);
    if nonce.is_some() && told != nonce {
        return Err(TokenError::Nonce);
    }
    let mut extensions = info.extensions.iter().flatten();
    if extensions.any(|extension| extension.critical) {
        return Err(TokenError::Invalid("it has an unknown critical extension"));
    }
    Ok(())
}

/// A number, where it fits.
fn whole(number: &Int) -> Option<u64> {
    u64::from_der(&number.to_der().ok()?).ok()
}

/// `YYYYMMDDhhmmss[.f…]Z`, in microseconds since 1970; what is finer is cut off.
fn gen_time(value: &Any) -> Result<u64, TokenError> {
    let wrong = TokenError::Invalid("its time is malformed");
    let read = || {
        let text = std::str::from_utf8(value.value()).ok()?.strip_suffix('Z')?;
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if whole.len() != 14 || !digits(whole) || !digits(fraction) {
            return None;
        }
        let part = |from: usize, to: usize| whole.get(from..to)?.parse::<u8>().ok();
        let time = DateTime::new(
            whole.get(..4)?.parse().ok()?,
            part(4, 6)?,
            part(6, 8)?,
            part(8, 10)?,
            part(10, 12)?,
            part(12, 14)?,
        );
        let seconds = time.ok()?.unix_duration().as_secs();
        let micros: String = fraction.chars().chain("000000".chars()).take(6).collect();
        seconds
            .checked_mul(1_000_000)?
            .checked_add(micros.parse().ok()?)
    };
    if value.tag() != Tag::GeneralizedTime {
        return Err(wrong);
    }
    read().ok_or(wrong)
}

/// A certificate that came with the token: as it came, and read.
struct Held {
    bytes: CertificateDer<'static>,
    read: Certificate,
}

impl Held {
    fn is_of(&self, signer: &SignerIdentifier) -> bool {
        let own = &self.read.tbs_certificate;
        match signer {
            SignerIdentifier::IssuerAndSerialNumber(named) => {
                own.issuer == named.issuer && own.serial_number == named.serial_number
            }
            SignerIdentifier::SubjectKeyIdentifier(named) => {
                matches!(own.get::<SubjectKeyIdentifier>(), Ok(Some((_, key))) if key == *named)
            }
        }
    }

    fn name(&self) -> String {
        printable(&self.read.tbs_certificate.subject.to_string())
    }
}

fn certificates(signed: &SignedData) -> Result<Vec<Held>, TokenError> {
    let all = signed.certificates.iter().flat_map(|set| set.iter());
    // Other kinds than X.509 certificates have tags of their own.
    all.filter(|any| any.tag() == Tag::Sequence)
        .map(|any| {
            let bytes = any.to_der()?;
            let read = Certificate::from_der(&bytes)?;
            let bytes = CertificateDer::from(bytes);
            Ok(Held { bytes, read })
        })
        .collect::<der::Result<_>>()
        .map_err(TokenError::Malformed)
}

/// The signed attributes in the form that is signed, once they are found to fit the content and the
/// certificate.
fn attributes(signer: &SignerInfo, content: &[u8], own: &Held) -> Result<Vec<u8>, TokenError> {
    let attributes = signer.signed_attrs.as_ref();
    let attributes = attributes.ok_or(TokenError::Invalid("without signed attributes"))?;
    let value = |oid: ObjectIdentifier| {
        let mut found = attributes.iter().filter(|attribute| attribute.oid == oid);
        match (found.next(), found.next()) {
            (None, _) => Ok(None),
            (Some(one), None) if one.values.len() == 1 => Ok(one.values.get(0)),
            _ => Err(TokenError::Invalid("it has a signed attribute twice")),
        }
    };
    let kind = value(asn1::ID_CONTENT_TYPE)?;
    let kind = kind.and_then(|kind| kind.decode_as::<ObjectIdentifier>().ok());
    if kind != Some(asn1::ID_CT_TST_INFO) {
        return Err(TokenError::Invalid("the signature is over another type"));
    }
    let told = value(asn1::ID_MESSAGE_DIGEST)?;
    let told = told.and_then(|told| told.decode_as::<OctetString>().ok());
    let hash = hash_algorithm(signer.digest_alg.oid)?;
    if told.is_none_or(|told| told.as_bytes() != digest(hash, content).as_ref()) {
        return Err(TokenError::Invalid("the signature is over another time"));
    }
    let v1 = value(asn1::ID_SIGNING_CERTIFICATE)?;
    let v2 = value(asn1::ID_SIGNING_CERTIFICATE_V2)?;
    check_named(v1, v2, own)?;
    attributes.to_der().map_err(TokenError::Malformed)
}

/// The certificate that signed is the one the signature names (RFC 3161 §2.4.2, RFC 5816): another
/// one for the same key says nothing.
fn check_named(v1: Option<&Any>, v2: Option<&Any>, own: &Held) -> Result<(), TokenError> {
    if v1.is_none() && v2.is_none() {
        return Err(TokenError::Invalid("it does not name its certificate"));
    }
    let other = || TokenError::Invalid("it names another certificate than has signed");
    if let Some(v1) = v1 {
        let named: SigningCertificate = v1.decode_as().map_err(TokenError::Malformed)?;
        let first = named.certs.first().ok_or_else(other)?;
        let hash = digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &own.bytes);
        if first.cert_hash.as_bytes() != hash.as_ref() {
            return Err(other());
        }
    }
    if let Some(v2) = v2 {
        let named: SigningCertificateV2 = v2.decode_as().map_err(TokenError::Malformed)?;
        let first = named.certs.first().ok_or_else(other)?;
        let oid = first.hash_algorithm.as_ref().map(|told| told.oid);
        let hash = digest(hash_algorithm(oid.unwrap_or(asn1::ID_SHA256))?, &own.bytes);
        if first.cert_hash.as_bytes() != hash.as_ref() {
            return Err(other());
        }
    }
    Ok(())
}

fn hash_algorithm(oid: ObjectIdentifier) -> Result<&'static digest::Algorithm, TokenError> {
    match oid {
        asn1::ID_SHA256 => Ok(&digest::SHA256),
        asn1::ID_SHA384 => Ok(&digest::SHA384),
        asn1::ID_SHA512 => Ok(&digest::SHA512),
        _ => Err(TokenError::Invalid("its hash is none of SHA-256, 384, 512")),
    }
}

/// RFC 3161 §2.3: one key purpose, timestamping, marked critical.
fn check_purpose(own: &Held) -> Result<(), TokenError> {
    let extensions = own.read.tbs_certificate.extensions.iter().flatten();
    let mut found = extensions.filter(|extension| extension.extn_id == asn1::EXT_KEY_USAGE);
    let fits = match (found.next(), found.next()) {
        (Some(one), None) if one.critical => ExtendedKeyUsage::from_der(one.extn_value.as_bytes())
            .is_ok_and(|usage| usage.0 == [asn1::KP_TIME_STAMPING]),
        _ => false,
    };
    if fits {
        return Ok(());
    }
    Err(TokenError::Purpose { tsa: own.name() })
}

type Algorithm = &'static dyn SignatureVerificationAlgorithm;

/// What may have signed; which of them it is, the key decides.
fn signature_algorithms(signer: &SignerInfo) -> Result<Vec<Algorithm>, TokenError> {
    let rsa = |hash: ObjectIdentifier| match hash {
        asn1::ID_SHA256 => Ok(vec![algorithms::RSA_PKCS1_2048_8192_SHA256]),
        asn1::ID_SHA384 => Ok(vec![algorithms::RSA_PKCS1_2048_8192_SHA384]),
        asn1::ID_SHA512 => Ok(vec![algorithms::RSA_PKCS1_2048_8192_SHA512]),
        _ => Err(TokenError::Invalid("its hash is none of SHA-256, 384, 512")),
    };
    let hash = signer.digest_alg.oid;
    match signer.signature_algorithm.oid {
        asn1::RSA_ENCRYPTION => rsa(hash),
        asn1::RSA_SHA256 => rsa(asn1::ID_SHA256),
        asn1::RSA_SHA384 => rsa(asn1::ID_SHA384),
        asn1::RSA_SHA512 => rsa(asn1::ID_SHA512),
        asn1::RSA_PSS if hash == asn1::ID_SHA256 => {
            Ok(vec![algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY])
        }
        asn1::RSA_PSS if hash == asn1::ID_SHA384 => {
            Ok(vec![algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY])
        }
        asn1::RSA_PSS if hash == asn1::ID_SHA512 => {
            Ok(vec![algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY])
        }
        asn1::ECDSA_SHA256 => Ok(vec![
            algorithms::ECDSA_P256_SHA256,
            algorithms::ECDSA_P384_SHA256,
            algorithms::ECDSA_P521_SHA256,
        ]),
        asn1::ECDSA_SHA384 => Ok(vec![
            algorithms::ECDSA_P256_SHA384,
            algorithms::ECDSA_P384_SHA384,
            algorithms::ECDSA_P521_SHA384,
        ]),
        asn1::ECDSA_SHA512 => Ok(vec![
            algorithms::ECDSA_P256_SHA512,
            algorithms::ECDSA_P384_SHA512,
            algorithms::ECDSA_P521_SHA512,
        ]),
        asn1::ED25519 => Ok(vec![algorithms::ED25519]),
        _ => Err(TokenError::Invalid("its signature is of an unknown kind")),
    }
}

fn check_signature(signer: &SignerInfo, signed: &[u8], own: &Held) -> Result<(), TokenError> {
    let wrong = || TokenError::Signature { tsa: own.name() };
    let key = EndEntityCert::try_from(&own.bytes).map_err(|problem| TokenError::Untrusted {
        tsa: own.name(),
        problem,
    })?;
    let signature = signer.signature.as_bytes();
    let fits = |algorithm| key.verify_signature(algorithm, signed, signature).is_ok();
    if signature_algorithms(signer)?.into_iter().any(fits) {
        return Ok(());
    }
    Err(wrong())
}

/// The certificate and those between it and a root hold at the time of the token. Not now: a token
/// is to be believed after its TSA's certificate has expired.
fn check_chain(
    own: &Held,
    certificates: &[Held],
    time_us: u64,
    roots: &Roots,
) -> Result<(), TokenError> {
    let untrusted = |problem| TokenError::Untrusted {
        tsa: own.name(),
        problem,
    };
    let anchors = roots.certificates().iter();
    let anchors = anchors.map(webpki::anchor_from_trusted_cert);
    let anchors: Vec<_> = anchors.collect::<Result<_, _>>().map_err(untrusted)?;
    let between: Vec<_> = certificates.iter().map(|held| held.bytes.clone()).collect();
    let time = UnixTime::since_unix_epoch(Duration::from_micros(time_us));
    // What the signer's own certificate must say, `check_purpose` has seen; authorities above it
    // need say nothing.
    let usage = KeyUsage::required_if_present(asn1::KP_TIME_STAMPING_DER);
    let end = EndEntityCert::try_from(&own.bytes).map_err(untrusted)?;
    end.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &anchors,
        &between,
        time,
        usage,
        None,
        None,
    )
    .map(|_| ())
    .map_err(untrusted)
}

/// Text of others, fit for a terminal and an entry.
fn printable(text: &str) -> String {
    let shown = text.trim().chars().filter(|c| !c.is_control());
    shown.take(WORDS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fractions_or_none_and_nothing_else() {
        let read =
            |text: &str| gen_time(&Any::new(Tag::GeneralizedTime, text.as_bytes()).unwrap()).ok();
        assert_eq!(read("19700101000001Z"), Some(1_000_000));
        assert_eq!(read("19700101000001.5Z"), Some(1_500_000));
        assert_eq!(read("19700101000001.1234567Z"), Some(1_123_456));
        for wrong in [
            "",
            "Z",
            "19700101000001",
            "19700101000001.Z",
            "19700101000001.-1Z",
            "197001010000Z",
            "19701301000001Z",
            "19700101000001+0100",
            "+9700101000001Z",
            "1970010100000éZ",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert!(gen_time(&Any::new(Tag::UtcTime, b"19700101000001Z".as_slice()).unwrap()).is_err());
    }
}
