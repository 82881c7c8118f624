//! Everything a policy text must satisfy before it may come into force.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use cedar_policy::{
    ActionConstraint, EntityId, EntityTypeName, EntityUid, PolicySet, ResourceConstraint, Schema,
    ValidationMode, Validator,
};
use curfew_entry::{
    Aal, Demands, ENTRY_BYTES_MAX, RecordLevel, Resource, RoleName, RuleId, Span, Verb,
};

use super::evaluate::{Types, actions};
use super::problem::{Draft, PolicyError, nearest};
use super::scan::{Scanned, scan};
use super::{Effect, Inner, POLICY_BYTES_MAX, POLICY_RULES_MAX, Policy, Rule, SCHEMA};

/// The annotations there are.
const ANNOTATIONS: [&str; 8] = [
    "id",
    "idle",
    "reauth",
    "lifetime",
    "assurance",
    "record",
    "reason",
    "mode",
];

/// The longest limit a rule may give: no framework knows a longer session.
const LIMIT_MAX: Span = Span::from_secs(30 * 24 * 60 * 60);

/// The longest `@reason` in bytes.
const REASON_BYTES_MAX: usize = 256;

/// Room in an entry for what stands around a policy's text: version, time, kind and digest.
const POLICY_ENTRY_FRAME: usize = 256;

/// Reads a text, or says everything that is wrong with it.
pub(super) fn load(name: &str, text: &str) -> Result<Inner, Vec<Draft>> {
    check_size(text)?;
    let set = PolicySet::from_str(text).map_err(|errors| {
        errors
            .iter()
            .map(|e| Draft::from_cedar(e))
            .collect::<Vec<_>>()
    })?;
    let (schema, types) = schema().map_err(|message| vec![Draft::new((0, 0), message)])?;
    let mut drafts = validate(&set, schema);
    let scanned = scan(text);
    for template in set.templates() {
        let span = scanned
            .get(position(template.id()))
            .map_or((0, 0), |rule| rule.span);
        drafts.push(
            Draft::new(span, "a template is not a rule")
                .hint("name the principal and the resource instead of `?principal`, `?resource`"),
        );
    }
    if scanned.len() > POLICY_RULES_MAX {
        let message = format!(
            "{} rules are more than the {POLICY_RULES_MAX} that a policy may have",
            scanned.len()
        );
        drafts.push(Draft::new((0, 0), message));
    }
    let gateway =
        EntityUid::from_type_name_and_id(types.resource.clone(), EntityId::new(Resource::GATEWAY));
    let rules = read_rules(&set, &scanned, &gateway, &mut drafts);
    if !drafts.is_empty() {
        return Err(drafts);
    }
    let action = EntityTypeName::from_str("Action")
        .map_err(|error| vec![Draft::new((0, 0), error.to_string())])?;
    let names_subjects = set
        .policies()
        .flat_map(cedar_policy::Policy::entity_literals)
        .any(|uid| *uid.type_name() == types.subject);
    Ok(Inner {
        name: name.to_owned(),
        text: text.to_owned(),
        digest: Policy::digest_of(text),
        set,
        rules,
        actions: actions(&action),
        types,
        names_subjects,
    })
}

fn check_size(text: &str) -> Result<(), Vec<Draft>> {
    let refuse = |message: String| Err(vec![Draft::new((0, 0), message)]);
    if text.len() > POLICY_BYTES_MAX {
        return refuse(format!(
            "a policy of {} bytes is over the limit of {POLICY_BYTES_MAX}",
            text.len()
        ));
    }
    let in_entry = serde_json::to_string(text).map_or(usize::MAX, |json| json.len());
    if in_entry > ENTRY_BYTES_MAX - POLICY_ENTRY_FRAME {
        return refuse(format!(
            "the policy takes {in_entry} bytes in the log, more than one entry can hold"
        ));
    }
    Ok(())
}

fn schema() -> Result<(Schema, Types), String> {
    let (schema, _) = Schema::from_cedarschema_str(SCHEMA).map_err(|error| error.to_string())?;
    let kind = |name: &str| EntityTypeName::from_str(name).map_err(|error| error.to_string());
    let types = Types {
        subject: kind("Subject")?,
        role: kind("Role")?,
        resource: kind("Resource")?,
        environment: kind("Environment")?,
    };
    Ok((schema, types))
}

/// What Cedar finds. Its warnings count as well: a rule that can never apply, or a text that
/// looks like another, is never meant. They follow from errors, so they wait until there are none.
fn validate(set: &PolicySet, schema: Schema) -> Vec<Draft> {
    let result = Validator::new(schema).validate(set, ValidationMode::Strict);
    let errors: Vec<Draft> = result
        .validation_errors()
        .map(|error| Draft::from_cedar(error))
        .collect();
    if !errors.is_empty() {
        return errors;
    }
    result
        .validation_warnings()
        .map(|warning| Draft::from_cedar(warning))
        .collect()
}

/// The number of a rule in its text: Cedar names them `policy0`, `policy1`, ….
fn position(id: &cedar_policy::PolicyId) -> usize {
    let name: &str = id.as_ref();
    name.strip_prefix("policy")
        .and_then(|number| number.parse().ok())
        .unwrap_or(usize::MAX)
}

fn read_rules(
    set: &PolicySet,
    scanned: &[Scanned],
    gateway: &EntityUid,
    drafts: &mut Vec<Draft>,
) -> BTreeMap<cedar_policy::PolicyId, Rule> {
    let mut policies: Vec<&cedar_policy::Policy> = set.policies().collect();
    policies.sort_by_key(|policy| position(policy.id()));
    let nowhere = Scanned::default();
    let mut rules = BTreeMap::new();
    let mut lines: BTreeMap<RuleId, (usize, usize)> = BTreeMap::new();
    let mut session_permits = 0;
    for policy in policies {
        let places = scanned.get(position(policy.id())).unwrap_or(&nowhere);
        let starts = starts_sessions(policy, gateway);
        let Some(rule) = read_rule(policy, places, starts, drafts) else {
            continue;
        };
        if starts && rule.effect == Effect::Permit {
            session_permits += 1;
        }
        if lines.insert(rule.id.clone(), rule.span).is_some() {
            let message = format!("a second rule has the id `{}`", rule.id);
            drafts.push(
                Draft::new(places.place("id"), message)
                    .hint("the log names rules by their id: give each its own"),
            );
        }
        rules.insert(policy.id().clone(), rule);
    }
    if session_permits == 0 && drafts.is_empty() {
        drafts.push(
            Draft::new((0, 0), "no rule permits a session, so nobody could sign in").hint(
                "add one such as: @id(\"sessions\") @idle(\"15m\") @reauth(\"12h\") \
                 @lifetime(\"24h\") permit (principal, action == Action::\"session.start\", \
                 resource == Resource::\"gateway\");",
            ),
        );
    }
    rules
}

/// Whether the rule's scope covers starting a session on the gateway.
fn starts_sessions(policy: &cedar_policy::Policy, gateway: &EntityUid) -> bool {
    let is_start = |uid: &EntityUid| uid.id().unescaped() == Verb::SessionStart.as_str();
    let by_action = match policy.action_constraint() {
        ActionConstraint::Any => true,
        ActionConstraint::In(uids) => uids.iter().any(is_start),
        ActionConstraint::Eq(uid) => is_start(&uid),
    };
    let by_resource = match policy.resource_constraint() {
        ResourceConstraint::Any | ResourceConstraint::Is(_) => true,
        ResourceConstraint::Eq(uid) => uid == *gateway,
        ResourceConstraint::In(uid) | ResourceConstraint::IsIn(_, uid) => {
            uid == *gateway || uid.id().unescaped() == Resource::GATEWAY
        }
    };
    by_action && by_resource
}

/// Reads one rule's annotations. `None` where it has no usable id.
fn read_rule(
    policy: &cedar_policy::Policy,
    places: &Scanned,
    starts: bool,
    drafts: &mut Vec<Draft>,
) -> Option<Rule> {
    let effect = match policy.effect() {
        cedar_policy::Effect::Permit => Effect::Permit,
        cedar_policy::Effect::Forbid => Effect::Forbid,
    };
    check_names(policy, places, drafts);
    let demands = read_demands(policy, places, drafts);
    if effect == Effect::Forbid {
        for name in ["idle", "reauth", "lifetime", "assurance", "record"] {
            if policy.annotation(name).is_some() {
                let message = format!("`@{name}` on a forbid has no meaning");
                drafts.push(
                    Draft::new(places.place(name), message)
                        .hint("limits belong to the permit rules that apply together with it"),
                );
            }
        }
    } else if starts {
        check_session_limits(policy, places, demands, drafts);
        if policy.annotation("record").is_some() {
            let message = "`@record` on a rule that permits sessions has no meaning";
            drafts.push(
                Draft::new(places.place("record"), message)
                    .hint("a session is always durable before it begins: put it on actions"),
            );
        }
    }
    check_order(places, demands, drafts);
    let reason = policy.annotation("reason").map(str::to_owned);
    if reason
        .as_ref()
        .is_some_and(|text| text.len() > REASON_BYTES_MAX)
    {
        let message = format!("`@reason` is over the limit of {REASON_BYTES_MAX} bytes");
        drafts.push(Draft::new(places.place("reason"), message));
    }
    let id = match policy.annotation("id").map(str::parse::<RuleId>) {
        None => {
            drafts.push(
                Draft::new(places.span, "the rule has no `@id`")
                    .hint("the log names rules by their id: add @id(\"some-name\") before it"),
            );
            return None;
        }
        Some(Err(error)) => {
            drafts.push(Draft::new(places.place("id"), error.to_string()));
            return None;
        }
        Some(Ok(id)) => id,
    };
    Some(Rule {
        id,
        effect,
        demands,
        reason,
        span: places.span,
    })
}

fn check_names(policy: &cedar_policy::Policy, places: &Scanned, drafts: &mut Vec<Draft>) {
    for (name, _) in policy.annotations() {
        if !ANNOTATIONS.contains(&name) {
            let message = format!("there is no annotation `@{name}`");
            let hint = match nearest(name, ANNOTATIONS) {
                Some(known) => format!("did you mean `@{known}`?"),
                None => format!("there are @{}", ANNOTATIONS.join(", @")),
            };
            drafts.push(Draft::new(places.place(name), message).hint(hint));
        }
    }
    if policy.annotation("mode").is_some() {
        drafts.push(
            Draft::new(places.place("mode"), "`@mode` is not supported yet")
                .hint("every rule is enforced: remove the annotation"),
        );
    }
}

fn read_demands(
    policy: &cedar_policy::Policy,
    places: &Scanned,
    drafts: &mut Vec<Draft>,
) -> Demands {
    let mut limit =
        |name: &str| {
            let text = policy.annotation(name)?;
            match read_limit(text) {
                Ok(span) => Some(span),
                Err(message) => {
                    let message = format!("`@{name}(\"{}\")` {message}", text.escape_debug());
                    drafts.push(Draft::new(places.place(name), message).hint(
                        "write a length of time such as \"90s\", \"15m\", \"8h\", \"1h 30m\"",
                    ));
                    None
                }
            }
        };
    let (idle, reauth, lifetime) = (limit("idle"), limit("reauth"), limit("lifetime"));
    let assurance = policy.annotation("assurance").and_then(|text| match text {
        "aal1" => Some(Aal::One),
        "aal2" => Some(Aal::Two),
        "aal3" => Some(Aal::Three),
        _ => {
            let message = format!("`@assurance(\"{}\")` is no level", text.escape_debug());
            drafts.push(
                Draft::new(places.place("assurance"), message)
                    .hint("the levels are \"aal1\", \"aal2\" and \"aal3\""),
            );
            None
        }
    });
    let record = policy.annotation("record").and_then(|text| match text {
        "signed" => Some(RecordLevel::Signed),
        "witnessed" => Some(RecordLevel::Witnessed),
        "timestamped" => Some(RecordLevel::Timestamped),
        _ => {
            let message = format!("`@record(\"{}\")` is no level", text.escape_debug());
            drafts.push(Draft::new(places.place("record"), message).hint(
                "an entry is always durable; beyond that there are \"signed\", \"witnessed\" and \
                 \"timestamped\"",
            ));
            None
        }
    });
    Demands {
        idle,
        reauth,
        lifetime,
        assurance,
        record,
    }
}

fn read_limit(text: &str) -> Result<Span, String> {
    let duration = text
        .parse::<jiff::SignedDuration>()
        .map_err(|_| "is not a length of time".to_owned())?;
    let micros = u64::try_from(duration.as_micros()).unwrap_or(0);
    if micros == 0 {
        return Err("must be longer than nothing".to_owned());
    }
    let span = Span::from_micros(micros);
    if span > LIMIT_MAX {
        return Err("is longer than 30 days".to_owned());
    }
    Ok(span)
}

fn check_session_limits(
    policy: &cedar_policy::Policy,
    places: &Scanned,
    demands: Demands,
    drafts: &mut Vec<Draft>,
) {
    for (name, given) in [
        ("idle", demands.idle),
        ("reauth", demands.reauth),
        ("lifetime", demands.lifetime),
    ] {
        // One that is there but cannot be read has its own message.
        if given.is_none() && policy.annotation(name).is_none() {
            let message = format!("a rule that permits sessions must give `@{name}`");
            drafts.push(Draft::new(places.span, message).hint(format!(
                "add @{name}(\"…\"), or name other actions than Action::\"session.start\""
            )));
        }
    }
}

/// idle ≤ reauth ≤ lifetime, where they are given together.
fn check_order(places: &Scanned, demands: Demands, drafts: &mut Vec<Draft>) {
    let limits = [
        ("idle", demands.idle),
        ("reauth", demands.reauth),
        ("lifetime", demands.lifetime),
    ];
    let given: Vec<(&str, Span)> = limits
        .into_iter()
        .filter_map(|(name, span)| span.map(|span| (name, span)))
        .collect();
    for pair in given.windows(2) {
        if let [(short, a), (long, b)] = pair
            && a > b
        {
            let message = format!("`@{short}` of {a} is longer than `@{long}` of {b}");
            drafts.push(
                Draft::new(places.place(short), message)
                    .hint("it could never be reached: idle ≤ reauth ≤ lifetime"),
            );
        }
    }
}

impl Policy {
    /// Refuses rules that name resources or environments which are not configured.
    ///
    /// # Errors
    ///
    /// One problem per name, with its place and the nearest name there is.
    pub fn check_resources(&self, resources: &[Resource]) -> Result<(), PolicyError> {
        let mut names: BTreeSet<&str> = resources.iter().map(|r| r.name.as_str()).collect();
        let mut environments: BTreeSet<&str> =
            resources.iter().map(|r| r.environment.as_str()).collect();
        names.insert(Resource::GATEWAY);
        environments.insert(Resource::GATEWAY);
        let mut drafts = Vec::new();
        for policy in self.inner.set.policies() {
            let Some(rule) = self.inner.rules.get(policy.id()) else {
                continue;
            };
            for uid in policy.entity_literals() {
                let (kind, known) = if *uid.type_name() == self.inner.types.resource {
                    ("resource", &names)
                } else if *uid.type_name() == self.inner.types.environment {
                    ("environment", &environments)
                } else {
                    continue;
                };
                let name = uid.id().unescaped();
                if known.contains(name) {
                    continue;
                }
                let message = format!("there is no {kind} `{}`", name.escape_debug());
                let hint = match nearest(name, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("{kind}s are set in the gateway's configuration"),
                };
                let span = self.inner.find(rule.span.0, name).unwrap_or(rule.span);
                drafts.push(Draft::new(span, message).hint(hint));
            }
        }
        if drafts.is_empty() {
            return Ok(());
        }
        Err(PolicyError::new(&self.inner.name, &self.inner.text, drafts))
    }
}

/// A role that no rule speaks of: whoever has it can do no more for it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no rule of the policy speaks of the role `{role}`")]
pub struct UnknownRole {
    /// Which.
    pub role: RoleName,
    /// What to do about it.
    pub hint: String,
}

impl Policy {
    /// The roles that rules speak of, in order.
    pub fn roles(&self) -> BTreeSet<String> {
        let literals = self.inner.set.policies();
        literals
            .flat_map(cedar_policy::Policy::entity_literals)
            .filter(|uid| *uid.type_name() == self.inner.types.role)
            .map(|uid| uid.id().unescaped().to_owned())
            .collect()
    }

    /// Those of `held` that no rule speaks of, each with the nearest that one does.
    pub fn unknown_roles<'a>(
        &self,
        held: impl IntoIterator<Item = &'a RoleName>,
    ) -> Vec<UnknownRole> {
        let known = self.roles();
        held.into_iter()
            .filter(|role| !known.contains(role.as_str()))
            .map(|role| UnknownRole {
                hint: match nearest(role.as_str(), known.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None if known.is_empty() => "no rule speaks of any role".to_owned(),
                    None => format!(
                        "rules speak of {}",
                        Vec::from_iter(known.iter().map(|role| format!("`{role}`"))).join(", ")
                    ),
                },
                role: role.clone(),
            })
            .collect()
    }

    /// Refuses rules that demand witnesses where none are `configured`: nothing they permit could
    /// ever be done.
    ///
    /// # Errors
    ///
    /// One problem per rule, with its place.
    pub fn check_witnesses(&self, configured: bool) -> Result<(), PolicyError> {
        let hint = "name them in `[log.witness]` of the configuration";
        self.check_level(RecordLevel::Witnessed, configured, "witnesses", hint)
    }

    /// Refuses rules that demand timestamps where no timestamping authority is `configured`.
    ///
    /// # Errors
    ///
    /// One problem per rule, with its place.
    pub fn check_timestamps(&self, configured: bool) -> Result<(), PolicyError> {
        let hint = "name a timestamping authority in `[log.timestamp]` of the configuration";
        self.check_level(RecordLevel::Timestamped, configured, "timestamps", hint)
    }

    fn check_level(
        &self,
        level: RecordLevel,
        configured: bool,
        what: &str,
        hint: &str,
    ) -> Result<(), PolicyError> {
        let rules = self.inner.rules.values();
        let demanding = rules.filter(|rule| rule.demands.record == Some(level));
        let drafts: Vec<Draft> = demanding
            .map(|rule| {
                let message = format!("the rule `{}` demands {what}, and there are none", rule.id);
                Draft::new(rule.span, message).hint(hint)
            })
            .collect();
        if configured || drafts.is_empty() {
            return Ok(());
        }
        Err(PolicyError::new(&self.inner.name, &self.inner.text, drafts))
    }
}

impl Inner {
    /// Where `name` stands in quotes, at or after `from`.
    fn find(&self, from: usize, name: &str) -> Option<(usize, usize)> {
        let quoted = format!("\"{name}\"");
        let at = self.text.get(from..)?.find(&quoted)?;
        Some((from + at, quoted.len()))
    }
}
