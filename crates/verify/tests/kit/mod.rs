//! What the honest logs of the fuzzer and of the measurements have in common.

use std::collections::BTreeSet;

use curfew_authority::Command;
use curfew_entry::{
    Aal, Context, Credential, CredentialClass, CredentialHash, CredentialId, Factor, Plane, Proof,
    Resource, SessionId, Timestamp,
};
use curfew_verify::ledger::{Observer, WriteError};

/// When these logs begin: in November 2025.
pub(crate) const BEGINNING: Timestamp = Timestamp::from_micros(1_764_000_000_000_000);

/// Waits for nothing, and meets no failure.
pub(crate) struct Silent;

impl Observer for Silent {
    fn durable(&self, _: u64) {}
    fn failed(&self, _: u64, error: &WriteError) {
        panic!("{error}");
    }
}

/// What a log begins with: a database, `orders`, and a web application of this name, in production.
pub(crate) fn opening(origin: &str, web: &str, policy: &str) -> [Command; 3] {
    let resource = |name: &str, plane| Resource {
        name: name.parse().unwrap(),
        plane,
        environment: "production".parse().unwrap(),
        tags: BTreeSet::new(),
    };
    let resources = vec![
        resource("orders", Plane::Postgres),
        resource(web, Plane::Web),
    ];
    let (origin, text) = (origin.to_owned(), policy.to_owned());
    [
        Command::OpenLog { origin },
        Command::LoadResources { resources },
        Command::LoadPolicy { text },
    ]
}

/// A clerk signs in. `random` is what session and credential are made of.
pub(crate) fn sign_in(random: [u8; 12], hash: [u8; 32], subject: &str, at: Timestamp) -> Command {
    Command::StartSession {
        session: SessionId::from_random(random),
        subject: subject.parse().unwrap(),
        roles: ["clerk".parse().unwrap()].into(),
        proof: Proof {
            amr: [Factor::Password, Factor::OneTimePassword].into(),
            aal: Aal::Two,
            at,
        },
        context: context(),
        credential: Credential {
            id: CredentialId::from_random(random),
            class: CredentialClass::Cookie,
            hash: CredentialHash::from_sha256(hash),
            audience: None,
            expires: None,
        },
    }
}

/// Where all come from.
pub(crate) fn context() -> Context {
    Context {
        address: "192.0.2.1".parse().unwrap(),
        network: "office".into(),
    }
}
