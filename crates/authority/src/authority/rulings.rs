//! Rulings once made: Cedar takes 50 to 100 µs for one, a look-up here far less than one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::ids::ResourceName;
use crate::limits::Aal;
use crate::policy::{Policy, Question, Ruling};
use crate::resource::Verb;

/// The most rulings kept. At some 300 bytes each this is about 20 MB; when it is full, all go.
const RULINGS_MAX: usize = 65_536;

/// Everything policy can see of a question but resource and network. The first part is the
/// session's number: subject and roles never change within a session.
type Key = (u64, Verb, Aal, IpAddr);

/// The rulings of one key, by network: nearly always one, for the address decides the network.
type ByNetwork = Vec<(String, Arc<Ruling>)>;

/// Rulings by everything policy can see, so that keeping them changes no result.
#[derive(Clone, Debug, Default)]
pub(super) struct Rulings {
    by_resource: BTreeMap<ResourceName, BTreeMap<Key, ByNetwork>>,
    count: usize,
}

impl Rulings {
    /// What `policy` says. `who` is the session's number.
    pub(super) fn get(
        &mut self,
        policy: &Policy,
        who: u64,
        question: &Question<'_>,
    ) -> Arc<Ruling> {
        let context = question.context;
        let key = (who, question.verb, question.aal, context.address);
        let known = self
            .by_resource
            .get(&question.resource.name)
            .and_then(|rulings| rulings.get(&key))
            .and_then(|networks| networks.iter().find(|(name, _)| *name == context.network));
        if let Some((_, ruling)) = known {
            return Arc::clone(ruling);
        }
        let ruling = Arc::new(policy.ask(question));
        if self.count >= RULINGS_MAX {
            self.clear();
        }
        self.count += 1;
        self.by_resource
            .entry(question.resource.name.clone())
            .or_default()
            .entry(key)
            .or_default()
            .push((context.network.clone(), Arc::clone(&ruling)));
        ruling
    }

    /// Forgets all: another policy, or other resources.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
