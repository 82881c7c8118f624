//! Accounts: roles that no rule of the policy speaks of.

use std::collections::{BTreeMap, BTreeSet};

use curfew_authority::Policy;
use curfew_entry::RoleName;
use curfew_gate::problem::Problem;
use curfew_gateway::control::{self, Operation, Outcome as Answer};
use curfew_gateway::data::DataDir;

use crate::configuration::Loaded;

/// The roles of accounts that no rule speaks of, each with who has it.
pub(super) async fn roles(loaded: &Loaded) -> Vec<Problem> {
    let (Some(held), Ok(policy)) = (
        held(loaded).await,
        Policy::parse(&loaded.policy_name, &loaded.policy),
    ) else {
        return Vec::new();
    };
    let unknown = policy.unknown_roles(held.keys());
    let problem = |it: curfew_authority::UnknownRole| {
        let who = held.get(&it.role).map_or(Vec::new(), |who| {
            who.iter().map(String::as_str).collect::<Vec<_>>()
        });
        let what = format!("{it}, and {} has it", who.join(", "));
        Problem::warning("accounts", what, it.hint)
    };
    unknown.into_iter().map(problem).collect()
}

/// Who has which role: by the running gateway, or by the file where none runs.
async fn held(loaded: &Loaded) -> Option<BTreeMap<RoleName, BTreeSet<String>>> {
    let data = DataDir::of(&loaded.config);
    let asked = control::request(&data.control_socket(), &Operation::UserList).await;
    let users = match asked {
        Ok(Answer::Users(users)) => users,
        // A file is not made by looking.
        Err(_) if data.has_accounts() => {
            let accounts = data.accounts(&data.master().ok()?).ok()?;
            serde_json::json!(accounts.list().ok()?)
        }
        Ok(_) | Err(_) => return None,
    };
    let mut held: BTreeMap<RoleName, BTreeSet<String>> = BTreeMap::new();
    for user in users.as_array()? {
        let name = user.get("subject")?.as_str()?;
        for role in user.get("roles")?.as_array()? {
            let role = role.as_str()?.parse().ok()?;
            held.entry(role).or_default().insert(name.to_owned());
        }
    }
    Some(held)
}
