//! Rulings once made: Cedar takes 50 to 100 µs for one, a look-up here far less than one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use curfew_entry::{Aal, ResourceName, Verb};

use crate::policy::{Policy, Question, Ruling};
use crate::spread::SpreadMap;

/// The most rulings kept, and at some 80 bytes each about 5 MB; when there are more, all go.
const RULINGS_MAX: usize = 65_536;

/// The most rulings that are told apart: usually there are as few as rules. What is more than that is
/// kept once for each question.
const DISTINCT_MAX: usize = 256;

/// Everything policy can see of a question but who asks it: resource, verb, assurance level, address
/// and network. Names are held as their numbers.
type About = (u32, Verb, Aal, IpAddr, u32);

/// Rulings by everything policy can see, so that keeping them changes no result.
///
/// A session asks few different questions, and an auditor meets another session with each entry. So
/// what one session asked is kept together, and in little memory: most of the time is spent on
/// fetching it.
#[derive(Clone, Debug, Default)]
pub(super) struct Rulings {
    resources: BTreeMap<ResourceName, u32>,
    networks: BTreeMap<String, u32>,
    /// By the session's number, in order of what was asked. Subject and roles never change within a
    /// session.
    by_session: SpreadMap<u64, Vec<(About, Arc<Ruling>)>>,
    /// Each ruling once.
    distinct: Vec<Arc<Ruling>>,
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
        if let Some(about) = self.about(question)
            && let Some(asked) = self.by_session.get(&who)
            && let Ok(place) = asked.binary_search_by_key(&about, |(asked, _)| *asked)
            && let Some((_, ruling)) = asked.get(place)
        {
            return Arc::clone(ruling);
        }
        let ruling = policy.ask(question);
        self.keep(who, question, ruling)
    }

    /// The question, if its names are known.
    fn about(&self, question: &Question<'_>) -> Option<About> {
        let context = question.context;
        let resource = *self.resources.get(&question.resource.name)?;
        let network = *self.networks.get(&context.network)?;
        let (verb, aal, address) = (question.verb, question.aal, context.address);
        Some((resource, verb, aal, address, network))
    }

    fn keep(&mut self, who: u64, question: &Question<'_>, ruling: Ruling) -> Arc<Ruling> {
        if self.count >= RULINGS_MAX {
            self.clear();
        }
        self.count += 1;
        let known = self.distinct.iter().find(|known| ***known == ruling);
        let ruling = match known.cloned() {
            Some(known) => known,
            None => {
                let ruling = Arc::new(ruling);
                if self.distinct.len() < DISTINCT_MAX {
                    self.distinct.push(Arc::clone(&ruling));
                }
                ruling
            }
        };
        number(&mut self.resources, &question.resource.name);
        number(&mut self.networks, &question.context.network);
        if let Some(about) = self.about(question) {
            let asked = self.by_session.get_or_default(who);
            let place = asked.partition_point(|(other, _)| *other < about);
            asked.insert(place, (about, Arc::clone(&ruling)));
        }
        ruling
    }

    /// Forgets all: another policy, or other resources.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Gives a name the next number, unless it has one. There are at most [`RULINGS_MAX`] names.
fn number<T: Clone + Ord>(numbers: &mut BTreeMap<T, u32>, name: &T) {
    if !numbers.contains_key(name) {
        let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        numbers.insert(name.clone(), next);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use curfew_entry::{Context, Plane, Resource, SubjectName};

    use super::*;

    const POLICY: &str = r#"
@id("sessions") @idle("15m") @reauth("12h") @lifetime("24h")
permit (principal, action == Action::"session.start", resource == Resource::"gateway");
@id("office") permit (principal, action == Action::"sql.read", resource)
when { context.network == "office" };
@id("address") permit (principal, action == Action::"sql.read", resource)
when { context.address.isInRange(ip("10.0.0.1/32")) };
@id("orders") permit (principal, action, resource == Resource::"orders");
@id("strong") @assurance("aal2") permit (principal, action == Action::"sql.write", resource);
@id("not-bob") forbid (principal == Subject::"bob", action == Action::"sql.write", resource);
"#;

    /// Asks all there is to ask of two sessions, and compares with what policy says.
    fn ask_all(rulings: &mut Rulings, policy: &Policy) -> BTreeSet<String> {
        let mut said = BTreeSet::new();
        let subjects: [SubjectName; 2] = ["ann".parse().unwrap(), "bob".parse().unwrap()];
        let resources = ["orders", "stock"].map(|name| Resource {
            name: name.parse().unwrap(),
            plane: Plane::Postgres,
            environment: "production".parse().unwrap(),
            tags: BTreeSet::new(),
        });
        for (who, subject) in (0..).zip(&subjects) {
            for resource in &resources {
                for (address, network) in [
                    ("10.0.0.1", "office"),
                    ("10.0.0.2", "office"),
                    ("10.0.0.1", "home"),
                    ("10.0.0.2", "home"),
                ] {
                    let network = network.to_owned();
                    let address = address.parse().unwrap();
                    let context = &Context { address, network };
                    for verb in [Verb::SqlRead, Verb::SqlWrite] {
                        for aal in [Aal::One, Aal::Two] {
                            let question = Question {
                                subject,
                                roles: &BTreeSet::new(),
                                resource,
                                verb,
                                context,
                                aal,
                            };
                            let ruling = rulings.get(policy, who, &question);
                            assert_eq!(*ruling, policy.ask(&question), "{question:?}");
                            said.insert(format!("{ruling:?}"));
                        }
                    }
                }
            }
        }
        said
    }

    #[test]
    fn what_was_said_before_is_what_policy_says() {
        let policy = Policy::parse("p.cedar", POLICY).unwrap();
        let mut rulings = Rulings::default();
        let said = ask_all(&mut rulings, &policy);
        assert!(said.len() > 5, "{said:?}");
        assert_eq!(rulings.distinct.len(), said.len());
        let count = rulings.count;
        assert_eq!(ask_all(&mut rulings, &policy), said);
        assert_eq!(rulings.count, count, "all of it was known");
    }
}
