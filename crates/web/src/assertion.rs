//! `Curfew-Assertion`: who is asking, signed, so that a resource need not trust its network.
//!
//! A JWT (EdDSA) for one resource, good for a minute. The key follows from the gateway's own; the
//! public half stands at the portal's `/.well-known/jwks.json`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use curfew_entry::{Aal, ResourceName, SessionId, Timestamp};
use curfew_gate::Grant;
use curfew_gate::secret::MasterKey;
use http::HeaderValue;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use serde_json::{Value, json};

use super::head::acr;

/// How long an assertion is good for, in seconds.
const LIFE_SECONDS: u64 = 60;

/// How long one assertion is sent again with further requests, so that a page with a hundred
/// images costs one signature. Whoever gets it has at least 40 of its 60 seconds left.
const REUSE: Duration = Duration::from_secs(20);

/// Assertions kept for that: 10,000 of about 700 bytes are 7 MB.
const KEPT_MAX: u64 = 10_000;

/// PKCS #8 around a 32-byte Ed25519 seed (RFC 8410 section 7).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    roles: Vec<&'a str>,
    sid: &'a str,
    amr: &'a std::collections::BTreeSet<curfew_entry::Factor>,
    acr: &'static str,
    auth_time: u64,
    iat: u64,
    exp: u64,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Key {
    session: SessionId,
    resource: ResourceName,
    // A new proof is a new assertion.
    proved: Timestamp,
    aal: Aal,
}

/// Signs assertions and knows their public key.
pub(crate) struct Assertions {
    key: EncodingKey,
    header: Header,
    jwks: String,
    kept: moka::sync::Cache<Key, HeaderValue>,
}

impl std::fmt::Debug for Assertions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Assertions")
    }
}

impl Assertions {
    /// With the key that follows from the gateway's own.
    pub(crate) fn new(master: &MasterKey) -> Result<Self, jsonwebtoken::errors::Error> {
        let seed = master.derive("assertion", b"ed25519");
        let der = zeroize::Zeroizing::new([PKCS8_PREFIX.as_slice(), seed.as_slice()].concat());
        let key = EncodingKey::from_ed_der(&der);
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::EdDSA)?;
        let id = jwk.thumbprint(ThumbprintHash::SHA256)?;
        jwk.common.key_id = Some(id.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        let header = Header {
            kid: Some(id),
            ..Header::new(Algorithm::EdDSA)
        };
        let keys: Value = json!({ "keys": [serde_json::to_value(&jwk)?] });
        let kept = moka::sync::Cache::builder()
            .max_capacity(KEPT_MAX)
            .time_to_live(REUSE)
            .build();
        Ok(Self {
            key,
            header,
            jwks: keys.to_string(),
            kept,
        })
    }

    /// The public key as a JSON Web Key Set.
    pub(crate) fn jwks(&self) -> &str {
        &self.jwks
    }

    /// The assertion about `grant` for `resource`, issued in the portal's name.
    pub(super) fn of(
        &self,
        grant: &Grant,
        resource: &ResourceName,
        issuer: &str,
    ) -> Result<HeaderValue, Unsigned> {
        let key = Key {
            session: grant.session.clone(),
            resource: resource.clone(),
            proved: grant.proof.at,
            aal: grant.proof.aal,
        };
        if let Some(kept) = self.kept.get(&key) {
            return Ok(kept);
        }
        let signed = self.sign(grant, resource, issuer)?;
        self.kept.insert(key, signed.clone());
        Ok(signed)
    }

    fn sign(
        &self,
        grant: &Grant,
        resource: &ResourceName,
        issuer: &str,
    ) -> Result<HeaderValue, Unsigned> {
        #[expect(
            clippy::disallowed_methods,
            reason = "resources compare with the wall clock, so that is what stands in it"
        )]
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let claims = Claims {
            iss: issuer,
            aud: resource.as_str(),
            sub: grant.subject.as_str(),
            roles: grant.roles.iter().map(|role| role.as_str()).collect(),
            sid: &grant.session.to_string(),
            amr: &grant.proof.amr,
            acr: acr(grant.proof.aal),
            auth_time: grant.proof.at.as_secs(),
            iat: now,
            exp: now + LIFE_SECONDS,
        };
        let text = jsonwebtoken::encode(&self.header, &claims, &self.key).map_err(|_| Unsigned)?;
        let mut value = HeaderValue::try_from(text).map_err(|_| Unsigned)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// The assertion could not be signed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsigned;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use curfew_entry::{Deadline, DeadlineCause, Factor, Limits, Proof, Span};
    use jsonwebtoken::{DecodingKey, Validation, jwk::JwkSet};

    use super::*;

    fn grant() -> Grant {
        let hour = Span::from_secs(3_600);
        Grant {
            session: SessionId::from_random([1; 12]),
            subject: "ada".parse().unwrap(),
            roles: BTreeSet::from(["dba".parse().unwrap()]),
            proof: Proof {
                amr: BTreeSet::from([Factor::Password]),
                aal: Aal::Two,
                at: Timestamp::from_micros(1_000_000),
            },
            limits: Limits {
                idle: hour,
                reauth: hour,
                lifetime: hour,
            },
            deadline: Deadline {
                at: Timestamp::MAX,
                cause: DeadlineCause::Idle,
            },
            rules: Vec::new(),
            record: None,
            account: None,
        }
    }

    #[test]
    fn a_resource_can_check_an_assertion_with_the_published_key() {
        let dir = tempfile::tempdir().unwrap();
        let master = MasterKey::create(&dir.path().join("key")).unwrap();
        let assertions = Assertions::new(&master).unwrap();
        let shop = "shop".parse().unwrap();
        let value = assertions
            .of(&grant(), &shop, "https://curfew.test")
            .unwrap();

        let keys: JwkSet = serde_json::from_str(assertions.jwks()).unwrap();
        let header = jsonwebtoken::decode_header(value.to_str().unwrap()).unwrap();
        let jwk = keys.find(header.kid.as_deref().unwrap()).unwrap();
        let key = DecodingKey::from_jwk(jwk).unwrap();
        let check = |audience: &str| {
            let mut validation = Validation::new(Algorithm::EdDSA);
            validation.set_audience(&[audience]);
            validation.set_issuer(&["https://curfew.test"]);
            jsonwebtoken::decode::<Value>(value.to_str().unwrap(), &key, &validation)
        };
        let claims = check("shop").unwrap().claims;
        assert_eq!(claims["sub"], "ada");
        assert_eq!(claims["roles"][0], "dba");
        assert_eq!(claims["acr"], "aal2");
        assert_eq!(claims["auth_time"], 1);
        assert!(check("wiki").is_err(), "another audience");
        let again = assertions
            .of(&grant(), &shop, "https://curfew.test")
            .unwrap();
        assert_eq!(again, value, "one signature serves many requests");
        assert!(
            !assertions.jwks().contains("\"d\""),
            "only the public half is published"
        );
    }
}
