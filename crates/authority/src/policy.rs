//! Cedar policy with limits as annotations: load, check, evaluate, explain.
//!
//! One file says who may do what, for how long, and how fresh they must be:
//!
//! ```cedar
//! @id("production-writes") @idle("5m") @reauth("15m") @lifetime("8h") @assurance("aal2")
//! permit (principal in Role::"dba", action in [Action::"sql.write", Action::"sql.ddl"],
//!         resource in Environment::"production");
//! ```

mod check;
mod evaluate;
mod problem;
mod scan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use curfew_entry::{
    Aal, Context, Demands, PolicyDigest, RecordLevel, Resource, RoleName, RuleId, Span,
    SubjectName, Verb,
};
use sha2::{Digest, Sha256};

pub use check::UnknownRole;
pub use problem::{PolicyError, Problem};

/// The schema every policy is checked against.
pub const SCHEMA: &str = include_str!("policy/schema.cedarschema");

/// The largest policy text in bytes. A policy is one entry of at most 65,535 bytes; as JSON a
/// text of lines and quotes grows by a few per cent, and what it grows to is checked as well.
pub const POLICY_BYTES_MAX: usize = 48 * 1024;

/// The most rules in a policy. An entry can name all that applied: 400 × (64 + 3) bytes is
/// 26 KiB, which leaves room for the 21 KiB that the longest action takes.
pub const POLICY_RULES_MAX: usize = 400;

/// A checked policy. Cheap to clone.
#[derive(Clone)]
pub struct Policy {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    text: String,
    digest: PolicyDigest,
    set: cedar_policy::PolicySet,
    rules: BTreeMap<cedar_policy::PolicyId, Rule>,
    actions: BTreeMap<Verb, cedar_policy::EntityUid>,
    types: evaluate::Types,
    names_subjects: bool,
}

/// What a rule's annotations say.
#[derive(Clone, Debug)]
struct Rule {
    id: RuleId,
    effect: Effect,
    demands: Demands,
    reason: Option<String>,
    /// Where its keyword stands in the text.
    span: (usize, usize),
}

/// Whether a rule permits or forbids.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effect {
    /// It permits, unless another forbids.
    Permit,
    /// It forbids, whatever others permit.
    Forbid,
}

/// What policy says of one action.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ruling {
    /// These rules permit it, with these demands together.
    Permit {
        /// In order of id.
        rules: Vec<RuleId>,
        /// The strictest of each.
        demands: Demands,
    },
    /// These rules forbid it.
    Forbid {
        /// In order of id.
        rules: Vec<RuleId>,
    },
    /// No rule permits it.
    Silent,
}

impl Ruling {
    /// What the two say of doing both: forbidden where one forbids, silent where one is, and permitted
    /// by the rules of both with the strictest of each demand.
    #[must_use]
    pub(crate) fn and(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Forbid { rules }, Self::Forbid { rules: more }) => Self::Forbid {
                rules: together(rules, more),
            },
            (Self::Forbid { rules }, _) | (_, Self::Forbid { rules }) => Self::Forbid {
                rules: rules.clone(),
            },
            (Self::Silent, _) | (_, Self::Silent) => Self::Silent,
            (
                Self::Permit { rules, demands },
                Self::Permit {
                    rules: more,
                    demands: others,
                },
            ) => Self::Permit {
                rules: together(rules, more),
                demands: demands.and(*others),
            },
        }
    }
}

/// The rules of both, in order of id.
fn together(rules: &[RuleId], more: &[RuleId]) -> Vec<RuleId> {
    let all: BTreeSet<&RuleId> = rules.iter().chain(more).collect();
    all.into_iter().cloned().collect()
}

/// A ruling, and where each part of it comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Explanation {
    /// What the rules say together.
    pub ruling: Ruling,
    /// The rules that applied, in order of id, each with its own demands.
    pub applied: Vec<AppliedRule>,
    /// The longest time without activity, and the rule that gives it.
    pub idle: Option<(Span, RuleId)>,
    /// The longest age of authentication, and the rule that gives it.
    pub reauth: Option<(Span, RuleId)>,
    /// The longest age of authentication that is built in for what is asked, where that is less than any
    /// rule gives: no rule can lengthen it.
    pub fresh: Option<Span>,
    /// The longest life, and the rule that gives it.
    pub lifetime: Option<(Span, RuleId)>,
    /// The assurance level, and the rule that gives it.
    pub assurance: Option<(Aal, RuleId)>,
    /// How far the entry must have come, and the rule that says so.
    pub record: Option<(RecordLevel, RuleId)>,
}

/// A rule that applied to a question.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AppliedRule {
    /// Its `@id`.
    pub id: RuleId,
    /// Whether it permits or forbids.
    pub effect: Effect,
    /// Its own demands.
    pub demands: Demands,
    /// Its `@reason`.
    pub reason: Option<String>,
    /// Its conditions could not be evaluated. A forbid then counts, a permit does not.
    pub failed: bool,
    /// The line of the text on which it stands, from 1.
    pub line: usize,
}

/// Whom and what a ruling is about.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Who.
    pub subject: &'a SubjectName,
    /// The roles held.
    pub roles: &'a std::collections::BTreeSet<RoleName>,
    /// To what.
    pub resource: &'a Resource,
    /// What is done.
    pub verb: Verb,
    /// From where.
    pub context: &'a Context,
    /// How strong the newest authentication was.
    pub aal: Aal,
}

impl Policy {
    /// Reads and checks a policy; `name` is what messages call the file.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it at once, each with its place and a hint.
    pub fn parse(name: &str, text: &str) -> Result<Self, PolicyError> {
        check::load(name, text)
            .map(|inner| Self {
                inner: Arc::new(inner),
            })
            .map_err(|drafts| PolicyError::new(name, text, drafts))
    }

    /// What messages call the file.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.inner.text
    }

    /// SHA-256 of the text.
    pub fn digest(&self) -> &PolicyDigest {
        &self.inner.digest
    }

    /// SHA-256 of any text, as a policy's digest is made.
    pub fn digest_of(text: &str) -> PolicyDigest {
        PolicyDigest::from_sha256(Sha256::digest(text.as_bytes()).into())
    }

    /// Whether any rule speaks of single subjects. Where none does, subjects with equal roles are
    /// equal to it.
    pub fn names_subjects(&self) -> bool {
        self.inner.names_subjects
    }

    /// What these rules say for people (`@reason`), each text once, in the order of the rules.
    pub fn reasons(&self, rules: &[RuleId]) -> Vec<String> {
        let mut reasons: Vec<String> = Vec::new();
        for id in rules {
            let rule = self.inner.rules.values().find(|rule| rule.id == *id);
            if let Some(reason) = rule.and_then(|rule| rule.reason.as_ref())
                && !reasons.contains(reason)
            {
                reasons.push(reason.clone());
            }
        }
        reasons
    }

    /// The ids of all rules, in order of id.
    pub fn rule_ids(&self) -> Vec<RuleId> {
        let mut ids: Vec<RuleId> = self
            .inner
            .rules
            .values()
            .map(|rule| rule.id.clone())
            .collect();
        ids.sort();
        ids
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("name", &self.inner.name)
            .field("digest", &self.inner.digest)
            .field("rules", &self.inner.rules.len())
            .finish_non_exhaustive()
    }
}

/// Two policies are the same when their texts are.
impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        self.inner.digest == other.inner.digest
    }
}

impl Eq for Policy {}
