//! Cedar policy with limits as annotations: load, check, evaluate.

use crate::ids::RuleId;
use crate::limits::Demands;

/// A checked policy.
#[derive(Clone, Debug)]
pub struct Policy {}

/// Why a policy is refused, as a diagnostic with file, line and hint.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("the policy is refused")]
pub struct PolicyError {}

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

impl Policy {
    /// Reads and checks a policy; `name` is what messages call the file.
    pub fn parse(_name: &str, _text: &str) -> Result<Self, PolicyError> {
        todo!()
    }
}
