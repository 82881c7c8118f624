//! Somebody who is signed in, and asks the registrar itself.

use std::collections::BTreeSet;

use curfew_authority::{Ask, Command, Presenter, Verdict};
use curfew_entry::{
    Aal, ActionDetail, Context, Credential, CredentialClass, Factor, Plane, Proof, Verb,
};
use curfew_gate::{Permit, Record, Refusal, Registrar, secret};

/// Somebody's session, and the hash of what presents it.
pub(crate) struct Person(curfew_entry::CredentialHash);

fn context() -> Context {
    Context {
        address: "192.0.2.1".parse().unwrap(),
        network: "unknown".into(),
    }
}

impl Person {
    pub(crate) async fn new(registrar: &Registrar) -> Self {
        let hash = secret::hash("a secret");
        let command = Command::StartSession {
            session: secret::session_id().unwrap(),
            subject: "ana".parse().unwrap(),
            roles: BTreeSet::new(),
            proof: Proof {
                amr: BTreeSet::from([Factor::Password]),
                aal: Aal::Two,
                at: registrar.now(),
            },
            context: context(),
            credential: Credential {
                id: secret::credential_id().unwrap(),
                class: CredentialClass::Bearer,
                hash: hash.clone(),
                audience: None,
                expires: None,
            },
        };
        assert_eq!(registrar.command(command).await, Ok(Verdict::Done));
        Self(hash)
    }

    pub(crate) async fn ask(
        &self,
        registrar: &Registrar,
        verb: Verb,
        resource: &str,
    ) -> Result<Permit, Refusal> {
        let ask = Ask {
            presenter: Presenter::Credential {
                class: CredentialClass::Bearer,
                hash: self.0.clone(),
                plane: Plane::Web,
            },
            action: ActionDetail::new(verb, resource.parse().unwrap()),
            context: context(),
        };
        registrar.ask(ask, Record::ByVerb).await
    }
}
