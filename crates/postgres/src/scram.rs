//! SCRAM-SHA-256 as a server (RFC 5802, RFC 7677, PostgreSQL's SASL messages).
//!
//! By hand, because one proof is held against several candidates: each live database password of
//! the subject. Salt and iteration count are the same for all of them and for users that do not
//! exist, so the exchange tells nothing before the password is proved.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use curfew_entry::CredentialId;
use curfew_gate::secret::MasterKey;
use hmac::{Hmac, KeyInit, Mac};
use moka::sync::Cache;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::frame::take_text;

/// The one mechanism on offer.
pub(crate) const MECHANISM: &str = "SCRAM-SHA-256";
/// PostgreSQL's own count and RFC 7677's least. The passwords have 256 bits of entropy, so more
/// would only cost time.
const ITERATIONS: u32 = 4_096;
/// Passwords a subject may have alive for one database that are tried: 16 × 1 ms when none is
/// cached. The newest count.
pub(crate) const CANDIDATES_MAX: usize = 64;
/// Verifiers kept: 10,000 × about 200 bytes.
const VERIFIERS_MAX: u64 = 10_000;
/// The longest nonce taken from a client; libpq's has 24 bytes.
const NONCE_BYTES_MAX: usize = 256;

type Hash = [u8; 32];

/// Why an exchange fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum ScramError {
    /// Not what the RFC says.
    #[error("malformed SCRAM message")]
    Malformed,
    /// The client wants to bind to the TLS channel, which was not on offer.
    #[error("channel binding is not supported")]
    Binding,
    /// The proof fits no candidate.
    #[error("wrong password")]
    Wrong,
}

/// What is kept to check one password.
#[derive(Clone)]
pub(crate) struct Verifier {
    stored: Hash,
    server: Hash,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier(…)")
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Hash {
    let mut mac = match <Hmac<Sha256> as KeyInit>::new_from_slice(key) {
        Ok(mac) => mac,
        Err(_) => unreachable!("HMAC takes keys of any length"),
    };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

impl Verifier {
    /// From the password; takes about a millisecond.
    fn new(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let mut salted = zeroize::Zeroizing::new([0; 32]);
        pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, iterations, salted.as_mut());
        let client = hmac(salted.as_ref(), &[b"Client Key"]);
        let server = hmac(salted.as_ref(), &[b"Server Key"]);
        Self {
            stored: Sha256::digest(client).into(),
            server,
        }
    }
}

/// An exchange after the client's first message.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// What the client said about channel binding, to be repeated by it.
    binding: String,
    client_first_bare: String,
    server_first: String,
    nonce: String,
}

impl Exchange {
    /// Reads a SASLInitialResponse's body.
    pub(crate) fn begin(
        mut body: &[u8],
        salt: &[u8],
        server_nonce: &str,
    ) -> Result<Self, ScramError> {
        let mechanism = take_text(&mut body).ok_or(ScramError::Malformed)?;
        if mechanism != MECHANISM.as_bytes() {
            return Err(ScramError::Malformed);
        }
        let (length, data) = body.split_first_chunk::<4>().ok_or(ScramError::Malformed)?;
        if usize::try_from(i32::from_be_bytes(*length)) != Ok(data.len()) {
            return Err(ScramError::Malformed);
        }
        Self::first(data, salt, server_nonce, ITERATIONS)
    }

    fn first(data: &[u8], salt: &[u8], server_nonce: &str, n: u32) -> Result<Self, ScramError> {
        let text = std::str::from_utf8(data).map_err(|_| ScramError::Malformed)?;
        let mut parts = text.splitn(3, ',');
        let (Some(flag), Some(authzid), Some(bare)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(ScramError::Malformed);
        };
        match flag {
            // `y`: the client could, but saw no offer; that is true, so nobody stripped one.
            "n" | "y" => {}
            _ if flag.starts_with("p=") => return Err(ScramError::Binding),
            _ => return Err(ScramError::Malformed),
        }
        // An authorization identity would be another user's name.
        if !authzid.is_empty() {
            return Err(ScramError::Malformed);
        }
        let mut attributes = bare.split(',');
        // The name in here is empty with PostgreSQL; the one of the startup message counts.
        let named = attributes.next().is_some_and(|name| name.starts_with("n="));
        let nonce = attributes.next().and_then(|nonce| nonce.strip_prefix("r="));
        let nonce = nonce.filter(|nonce| {
            (1..=NONCE_BYTES_MAX).contains(&nonce.len())
                && nonce.bytes().all(|byte| byte.is_ascii_graphic())
        });
        let (true, Some(nonce)) = (named, nonce) else {
            return Err(ScramError::Malformed);
        };
        let nonce = format!("{nonce}{server_nonce}");
        Ok(Self {
            binding: STANDARD.encode(format!("{flag},,")),
            client_first_bare: bare.to_owned(),
            server_first: format!("r={nonce},s={},i={n}", STANDARD.encode(salt)),
            nonce,
        })
    }

    /// What the server says next.
    pub(crate) fn server_first(&self) -> &str {
        &self.server_first
    }

    /// Reads the client's last message. Gives which of the candidates it proved, and what the
    /// server says at the end.
    pub(crate) fn finish(
        &self,
        data: &[u8],
        candidates: &[Arc<Verifier>],
    ) -> Result<(usize, String), ScramError> {
        let text = std::str::from_utf8(data).map_err(|_| ScramError::Malformed)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let mut attributes = without_proof.split(',');
        let binding = attributes
            .next()
            .and_then(|binding| binding.strip_prefix("c="));
        let nonce = attributes.next().and_then(|nonce| nonce.strip_prefix("r="));
        if binding != Some(self.binding.as_str()) || nonce != Some(self.nonce.as_str()) {
            return Err(ScramError::Malformed);
        }
        let proof = STANDARD.decode(proof).map_err(|_| ScramError::Malformed)?;
        let proof: Hash = proof.try_into().map_err(|_| ScramError::Malformed)?;
        let message: [&[u8]; 5] = [
            self.client_first_bare.as_bytes(),
            b",",
            self.server_first.as_bytes(),
            b",",
            without_proof.as_bytes(),
        ];
        let mut found = None;
        // All candidates are tried, whichever fits.
        for (index, candidate) in candidates.iter().enumerate() {
            if bool::from(candidate.proved_by(&proof, &message)) {
                found = Some((index, hmac(&candidate.server, &message)));
            }
        }
        let (index, signature) = found.ok_or(ScramError::Wrong)?;
        Ok((index, format!("v={}", STANDARD.encode(signature))))
    }
}

impl Verifier {
    fn proved_by(&self, proof: &Hash, message: &[&[u8]]) -> Choice {
        let signature = hmac(&self.stored, message);
        let mut key = [0; 32];
        for (key, (proof, signature)) in key.iter_mut().zip(proof.iter().zip(&signature)) {
            *key = proof ^ signature;
        }
        Sha256::digest(key).as_slice().ct_eq(self.stored.as_slice())
    }
}

/// Derives verifiers from the gateway's key and remembers them.
#[derive(Debug)]
pub(crate) struct Verifiers {
    master: Arc<MasterKey>,
    seen: Cache<String, Arc<Verifier>>,
}

impl Verifiers {
    pub(crate) fn new(master: Arc<MasterKey>) -> Self {
        Self {
            master,
            seen: Cache::new(VERIFIERS_MAX),
        }
    }

    /// The salt for this user name, whether there is such a user or not.
    pub(crate) fn salt(&self, user: &str) -> [u8; 16] {
        let derived = self.master.derive("scram-salt", user.as_bytes());
        derived.first_chunk().copied().unwrap_or_default()
    }

    /// Verifiers of these credentials. Where there are none, one is made all the same and thrown
    /// away, so that it takes as long.
    pub(crate) async fn of(&self, user: &str, credentials: &[CredentialId]) -> Vec<Arc<Verifier>> {
        let salt = self.salt(user);
        if credentials.is_empty() {
            self.one(&format!("nobody {user}"), salt, None).await;
        }
        let mut verifiers = Vec::with_capacity(credentials.len());
        for credential in credentials {
            verifiers.extend(
                self.one(&credential.to_string(), salt, Some(credential))
                    .await,
            );
        }
        verifiers
    }

    async fn one(
        &self,
        name: &str,
        salt: [u8; 16],
        credential: Option<&CredentialId>,
    ) -> Option<Arc<Verifier>> {
        if let Some(seen) = self.seen.get(name) {
            return Some(seen);
        }
        let (master, credential) = (Arc::clone(&self.master), credential.cloned());
        let derived = tokio::task::spawn_blocking(move || match credential {
            Some(id) => {
                let password = master.database_password(&id);
                Verifier::new(password.expose_secret().as_bytes(), &salt, ITERATIONS)
            }
            None => Verifier::new(&salt, &salt, ITERATIONS),
        });
        let verifier = Arc::new(derived.await.ok()?);
        self.seen.insert(name.to_owned(), Arc::clone(&verifier));
        Some(verifier)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn salt() -> Vec<u8> {
        STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap()
    }

    fn exchange() -> Exchange {
        Exchange::first(CLIENT_FIRST.as_bytes(), &salt(), SERVER_NONCE, 4_096).unwrap()
    }

    fn verifier(password: &str) -> Arc<Verifier> {
        Arc::new(Verifier::new(password.as_bytes(), &salt(), 4_096))
    }

    #[test]
    fn the_example_of_rfc_7677_holds() {
        let exchange = exchange();
        assert_eq!(
            exchange.server_first(),
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let candidates = [verifier("eraser"), verifier("pencil"), verifier("pen")];
        let (index, last) = exchange
            .finish(CLIENT_FINAL.as_bytes(), &candidates)
            .unwrap();
        assert_eq!(
            (index, last.as_str()),
            (1, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
        );
    }

    #[test]
    fn a_wrong_password_fits_no_candidate() {
        let exchange = exchange();
        for candidates in [vec![], vec![verifier("eraser"), verifier("Pencil")]] {
            let found = exchange.finish(CLIENT_FINAL.as_bytes(), &candidates);
            assert_eq!(found, Err(ScramError::Wrong));
        }
    }

    #[test]
    fn first_messages_are_checked() {
        let cases = [
            (
                "p=tls-server-end-point,,n=,r=abc",
                Some(ScramError::Binding),
            ),
            ("y,,n=,r=abc", None),
            ("n,,n=,r=abc", None),
            ("n,,n=,r=abc,x=y", None),
            ("n,a=other,n=,r=abc", Some(ScramError::Malformed)),
            ("x,,n=,r=abc", Some(ScramError::Malformed)),
            ("n,,n=,r=", Some(ScramError::Malformed)),
            ("n,,m=ext,n=,r=abc", Some(ScramError::Malformed)),
            ("n,,r=abc", Some(ScramError::Malformed)),
            ("n,,n=,r=a\u{7f}", Some(ScramError::Malformed)),
            ("n,", Some(ScramError::Malformed)),
            ("", Some(ScramError::Malformed)),
        ];
        for (text, wanted) in cases {
            let found = Exchange::first(text.as_bytes(), &salt(), SERVER_NONCE, 4_096).err();
            assert_eq!(found, wanted, "{text}");
        }
    }

    #[test]
    fn the_last_message_must_repeat_binding_and_nonce() {
        let good = CLIENT_FINAL;
        let candidates = [verifier("pencil")];
        for bad in [
            good.replace("biws", "eSws"),
            good.replace("hNlF", "hNlG"),
            good.replace(",p=", ",q="),
            good.replace("p=dHzb", "p=!Hzb"),
            "c=biws,r=x,p=AAAA".to_owned(),
            String::new(),
        ] {
            assert_eq!(
                exchange().finish(bad.as_bytes(), &candidates),
                Err(ScramError::Malformed),
                "{bad}"
            );
        }
    }

    proptest! {
        #[test]
        fn random_messages_never_panic(body: Vec<u8>, last: Vec<u8>) {
            let _ = Exchange::begin(&body, b"salt", "nonce");
            let _ = exchange().finish(&last, &[]);
        }
    }
}
