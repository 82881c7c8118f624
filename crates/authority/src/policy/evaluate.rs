//! Asking Cedar, and putting together what several rules say.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::{
    AuthorizationError, Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName,
    EntityUid, PolicyId, Request, RestrictedExpression,
};
use curfew_entry::{Aal, Demands, Resource, RoleName, RuleId, Span, SubjectName, Verb};

use super::{AppliedRule, Effect, Explanation, Inner, Policy, Question, Rule, Ruling};

/// The longest age of authentication with which a step of an erasure may be taken.
const ERASE_FRESH: Span = Span::from_secs(5 * 60);

/// The entity types of the schema, parsed once.
pub(super) struct Types {
    pub(super) subject: EntityTypeName,
    pub(super) role: EntityTypeName,
    pub(super) resource: EntityTypeName,
    pub(super) environment: EntityTypeName,
}

impl Policy {
    /// What the rules say together: any forbid wins; all satisfied permits apply, strictest wins.
    ///
    /// A forbid whose condition cannot be evaluated counts as satisfied, a permit as not.
    pub fn rule(
        &self,
        subject: &SubjectName,
        roles: &BTreeSet<RoleName>,
        resource: &Resource,
        verb: Verb,
        context: &curfew_entry::Context,
        aal: Aal,
    ) -> Ruling {
        self.ask(&Question {
            subject,
            roles,
            resource,
            verb,
            context,
            aal,
        })
    }

    /// As [`Policy::rule`].
    pub fn ask(&self, question: &Question<'_>) -> Ruling {
        always_fresh(ruling(&self.inner.applied(question)), question.verb)
    }

    /// The ruling, with the rule that each limit comes from.
    pub fn explain(&self, question: &Question<'_>) -> Explanation {
        let mut applied = self.inner.applied(question);
        applied.sort_by(|a, b| a.0.id.cmp(&b.0.id));
        let permits = || {
            applied
                .iter()
                .filter(|(rule, failed)| rule.effect == Effect::Permit && !failed)
                .map(|(rule, _)| *rule)
        };
        // On a tie the first rule in order of id is named.
        fn least<'a, T: Ord + Copy>(
            rules: impl Iterator<Item = &'a Rule>,
            pick: impl Fn(&Demands) -> Option<T>,
        ) -> Option<(T, RuleId)> {
            rules
                .filter_map(|rule| pick(&rule.demands).map(|value| (value, rule.id.clone())))
                .min()
        }
        let by_rules = ruling(&applied);
        let ruling = always_fresh(by_rules.clone(), question.verb);
        let fresh = if let Ruling::Permit { demands, .. } = &ruling
            && ruling != by_rules
        {
            demands.reauth
        } else {
            None
        };
        Explanation {
            ruling,
            idle: least(permits(), |demands| demands.idle),
            reauth: least(permits(), |demands| demands.reauth),
            fresh,
            lifetime: least(permits(), |demands| demands.lifetime),
            assurance: least(permits(), |demands| {
                demands.assurance.map(std::cmp::Reverse)
            })
            .map(|(level, rule)| (level.0, rule)),
            record: least(permits(), |demands| demands.record.map(std::cmp::Reverse))
                .map(|(level, rule)| (level.0, rule)),
            applied: applied
                .iter()
                .map(|(rule, failed)| AppliedRule {
                    id: rule.id.clone(),
                    effect: rule.effect,
                    demands: rule.demands,
                    reason: rule.reason.clone(),
                    failed: *failed,
                    line: self.inner.line(rule.span.0),
                })
                .collect(),
        }
    }
}

/// Whatever the rules say, nobody erases on the strength of an old sign-in.
fn always_fresh(mut ruling: Ruling, verb: Verb) -> Ruling {
    if verb == Verb::LogErase
        && let Ruling::Permit { demands, .. } = &mut ruling
    {
        let longest = demands.reauth.unwrap_or(ERASE_FRESH);
        demands.reauth = Some(longest.min(ERASE_FRESH));
    }
    ruling
}

/// The sum of the rules that applied; the flag says that a rule could not be evaluated.
fn ruling(applied: &[(&Rule, bool)]) -> Ruling {
    let ids = |effect: Effect, with_failed: bool| {
        let mut ids: Vec<RuleId> = applied
            .iter()
            .filter(|(rule, failed)| rule.effect == effect && (with_failed || !failed))
            .map(|(rule, _)| rule.id.clone())
            .collect();
        ids.sort();
        ids
    };
    let forbids = ids(Effect::Forbid, true);
    if !forbids.is_empty() {
        return Ruling::Forbid { rules: forbids };
    }
    let rules = ids(Effect::Permit, false);
    if rules.is_empty() {
        return Ruling::Silent;
    }
    let demands = applied
        .iter()
        .filter(|(rule, failed)| rule.effect == Effect::Permit && !failed)
        .fold(Demands::default(), |all, (rule, _)| all.and(rule.demands));
    Ruling::Permit { rules, demands }
}

impl Inner {
    fn line(&self, offset: usize) -> usize {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        before.matches('\n').count() + 1
    }

    /// The rules Cedar finds satisfied, and those it could not evaluate (flag set).
    fn applied(&self, question: &Question<'_>) -> Vec<(&Rule, bool)> {
        let Some((request, entities)) = self.request(question) else {
            // Nothing can be evaluated: fail closed, every forbid counts.
            return self
                .rules
                .values()
                .filter(|rule| rule.effect == Effect::Forbid)
                .map(|rule| (rule, true))
                .collect();
        };
        let response = Authorizer::new().is_authorized(&request, &self.set, &entities);
        let known = |id: &PolicyId| self.rules.get(id);
        let mut applied: Vec<(&Rule, bool)> = response
            .diagnostics()
            .reason()
            .filter_map(known)
            .map(|rule| (rule, false))
            .collect();
        debug_assert!(
            (response.decision() == Decision::Allow)
                == applied
                    .iter()
                    .any(|(rule, _)| rule.effect == Effect::Permit)
        );
        applied.extend(
            response
                .diagnostics()
                .errors()
                .filter_map(|error| match error {
                    AuthorizationError::PolicyEvaluationError(error) => known(error.policy_id()),
                })
                .map(|rule| (rule, true)),
        );
        applied
    }

    fn request(&self, question: &Question<'_>) -> Option<(Request, Entities)> {
        let uid = |kind: &EntityTypeName, id: &str| {
            EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
        };
        let principal = uid(&self.types.subject, question.subject.as_str());
        let resource = uid(&self.types.resource, question.resource.name.as_str());
        let environment = uid(
            &self.types.environment,
            question.resource.environment.as_str(),
        );
        let text = |value: &str| RestrictedExpression::new_string(value.to_owned());
        let tags = question.resource.tags.iter().map(|tag| text(tag));
        let attributes = [
            ("name".to_owned(), text(question.resource.name.as_str())),
            (
                "plane".to_owned(),
                text(&question.resource.plane.to_string()),
            ),
            ("tags".to_owned(), RestrictedExpression::new_set(tags)),
        ];
        let roles = question
            .roles
            .iter()
            .map(|role| uid(&self.types.role, role.as_str()));
        let entities = Entities::from_entities(
            [
                Entity::new_with_tags(principal.clone(), [], roles, []).ok()?,
                Entity::new_with_tags(resource.clone(), attributes, [environment], []).ok()?,
            ],
            None,
        )
        .ok()?;
        let address = question.context.address.to_string();
        let context = Context::from_pairs([
            ("address".to_owned(), RestrictedExpression::new_ip(address)),
            ("network".to_owned(), text(&question.context.network)),
            (
                "aal".to_owned(),
                RestrictedExpression::new_long(u8::from(question.aal).into()),
            ),
        ])
        .ok()?;
        let action = self.actions.get(&question.verb)?.clone();
        let request = Request::new(principal, action, resource, context, None).ok()?;
        Some((request, entities))
    }
}

/// The `Action` of each verb.
pub(super) fn actions(kind: &EntityTypeName) -> BTreeMap<Verb, EntityUid> {
    Verb::ALL
        .into_iter()
        .map(|verb| {
            let id = EntityId::new(verb.as_str());
            (verb, EntityUid::from_type_name_and_id(kind.clone(), id))
        })
        .collect()
}
