//! What a running gateway takes in without a restart: the policy, and certificate and key.

use curfew_authority::{Command, Policy};
use curfew_gate::conditions::Part;

use crate::config::Config;
use crate::gateway::Running;

/// What came of a reload.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reloaded {
    /// What is in force from now on that was not before.
    pub taken: Vec<String>,
    /// What changed in the configuration and takes a restart.
    pub left: Vec<String>,
    /// What was not taken in, and why; what was in force before stays.
    pub failed: Vec<String>,
}

impl Running {
    /// Takes in what can be taken in without a restart. The rest stays as it is, and is named.
    pub async fn reload(&self, config: &Config, policy_name: &str, policy: &str) -> Reloaded {
        let mut reloaded = Reloaded {
            left: left(&self.gateway.config, config),
            ..Reloaded::default()
        };
        match self.shown.read_again(&config.tls) {
            Ok(true) => reloaded
                .taken
                .push(format!("certificate {}", config.tls.certificate.display())),
            Ok(false) => {}
            Err(error) => reloaded.failed.push(error.to_string()),
        }
        match self.load_policy(policy_name, policy).await {
            Ok(true) => reloaded.taken.push(format!("policy {policy_name}")),
            Ok(false) => {}
            Err(error) => reloaded.failed.push(error),
        }
        let conditions = &self.gateway.standing().conditions;
        let failed = match reloaded.failed.as_slice() {
            [] => Ok(()),
            failed => Err(failed.join("; ")),
        };
        conditions.look(Part::Reload, &failed);
        reloaded
    }

    /// Nothing could be taken in, for this reason.
    pub fn not_reloaded(&self, why: impl Into<String>) {
        self.gateway.standing().conditions.failed(Part::Reload, why);
    }

    /// True where it is another than was in force.
    async fn load_policy(&self, name: &str, text: &str) -> Result<bool, String> {
        let policy = Policy::parse(name, text).map_err(|error| error.to_string())?;
        // By the resources that are in force.
        let checked = self.gateway.config.check_policy(&policy);
        checked.map_err(|error| error.to_string())?;
        let registrar = self.registrar();
        let in_force = registrar.policy_in_force().await.ok().flatten();
        if in_force.as_ref() == Some(policy.digest()) {
            return Ok(false);
        }
        let text = text.to_owned();
        let loaded = registrar.carry_out(Command::LoadPolicy { text }).await;
        loaded.map(|()| true).map_err(|error| error.to_string())
    }
}

/// The sections that differ and are read at the start alone.
fn left(running: &Config, new: &Config) -> Vec<String> {
    let text = |part: &dyn std::fmt::Debug| format!("{part:?}");
    let sections: [(&str, &dyn std::fmt::Debug, &dyn std::fmt::Debug); 12] = [
        ("data", &running.data, &new.data),
        ("origin", &running.origin, &new.origin),
        ("portal", &running.portal, &new.portal),
        ("[listen]", &running.listen, &new.listen),
        ("[networks]", &running.networks, &new.networks),
        ("[[web]]", &running.web, &new.web),
        ("[[postgres]]", &running.postgres, &new.postgres),
        ("[search]", &running.search, &new.search),
        ("[log]", &running.log, &new.log),
        ("[[forward]]", &running.forward, &new.forward),
        ("[archive]", &running.archive, &new.archive),
        ("[tuning]", &running.tuning, &new.tuning),
    ];
    let differs = sections
        .into_iter()
        .filter(|(_, running, new)| text(running) != text(new));
    differs.map(|(name, _, _)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::LEAST;

    #[test]
    fn what_takes_a_restart_is_named() {
        let parse = |text: &str| Config::parse("c", text, Path::new("/")).unwrap();
        let running = parse(LEAST);
        assert!(left(&running, &running).is_empty());
        let new = format!("{}[tuning]\nconnections_max = 5\n", LEAST)
            .replace("127.0.0.1:0", "127.0.0.1:8443")
            .replace("cert.pem", "other.pem");
        assert_eq!(left(&running, &parse(&new)), ["[listen]", "[tuning]"]);
    }
}
