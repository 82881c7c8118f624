//! `curfew policy check | explain | load`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use curfew_authority::{Effect, Explanation, Question, Ruling};
use curfew_entry::{Aal, Context, Resource, RoleName, SubjectName, Verb};
use curfew_gate::site::network_of;
use curfew_gateway::config::Config;
use curfew_gateway::control::Operation;

use crate::failure::{Exit, Failure, Outcome};
use crate::{configuration, say, user};

/// The policy: check it, ask it, put it in force.
#[derive(Args, Debug)]
pub(crate) struct Policy {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Check a policy file. Says everything that is wrong with it at once.
    Check {
        /// The policy file.
        file: PathBuf,
        /// Check the names of resources and environments against this configuration as well.
        #[arg(long, short, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Say what the policy rules, and which rule each limit comes from.
    Explain(Explain),
    /// Put the configured policy file, as it is now, in force in the running gateway. Sessions
    /// that exceed its limits end at once.
    Load {
        #[command(flatten)]
        config: configuration::ConfigArgument,
    },
}

#[derive(Args, Debug)]
struct Explain {
    #[command(flatten)]
    config: configuration::ConfigArgument,
    /// Who.
    #[arg(long)]
    subject: SubjectName,
    /// A role held. May be given more than once.
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<RoleName>,
    /// What is done, such as `sql.write`.
    #[arg(long, value_parser = verb)]
    action: Verb,
    /// To what; `gateway` is Curfew itself.
    #[arg(long, default_value = "gateway")]
    resource: String,
    /// From where.
    #[arg(long, default_value = "127.0.0.1")]
    address: IpAddr,
    /// How strong the sign-in was: 1, 2 or 3.
    #[arg(long, default_value_t = 2)]
    aal: u8,
}

fn verb(text: &str) -> Result<Verb, String> {
    Verb::ALL
        .into_iter()
        .find(|verb| verb.as_str() == text)
        .ok_or_else(|| {
            let known: Vec<&str> = Verb::ALL.iter().map(|verb| verb.as_str()).collect();
            format!("the actions are {}", known.join(", "))
        })
}

pub(crate) async fn policy(arguments: Policy) -> Outcome {
    match arguments.command {
        PolicyCommand::Check { file, config } => {
            let config = config.as_deref().map(configuration::config).transpose()?;
            let (policy, _) = configuration::policy(&file, config.as_ref())?;
            let rules = policy.rule_ids().len();
            say::line(format_args!(
                "{}: {rules} rules, no problem",
                file.display()
            ));
            Ok(())
        }
        PolicyCommand::Explain(question) => explain(&question),
        PolicyCommand::Load { config } => {
            let loaded = configuration::load(&config.config)?;
            let operation = Operation::PolicyLoad {
                name: loaded.policy_name.clone(),
                text: loaded.policy.clone(),
            };
            user::carry_out(&loaded, operation).await?;
            say::note("In force and recorded.");
            Ok(())
        }
    }
}

fn explain(asked: &Explain) -> Outcome {
    let config = configuration::config(&asked.config.config)?;
    let (policy, _) = configuration::policy(&config.policy, Some(&config))?;
    let resource = find(&config, &asked.resource)?;
    let aal = Aal::try_from(asked.aal).map_err(|text| Failure::new(Exit::Usage, text))?;
    let roles: BTreeSet<RoleName> = asked.roles.iter().cloned().collect();
    let context = Context {
        address: asked.address,
        network: network_of(&config.networks, asked.address).to_owned(),
    };
    let explanation = policy.explain(&Question {
        subject: &asked.subject,
        roles: &roles,
        resource: &resource,
        verb: asked.action,
        context: &context,
        aal,
    });
    show(&explanation, &context.network);
    match explanation.ruling {
        Ruling::Permit { .. } => Ok(()),
        Ruling::Forbid { .. } | Ruling::Silent => Err(Failure::new(
            Exit::Refused,
            "the policy does not permit this",
        )),
    }
}

fn find(config: &Config, name: &str) -> Outcome<Resource> {
    let mut all = config.resources();
    all.push(Resource::gateway());
    let known: Vec<String> = all
        .iter()
        .map(|resource| resource.name.to_string())
        .collect();
    all.into_iter()
        .find(|resource| resource.name.as_str() == name)
        .ok_or_else(|| {
            let text = format!("there is no resource `{name}`");
            Failure::hint(
                Exit::Usage,
                text,
                format_args!("there are {}", known.join(", ")),
            )
        })
}

fn show(explanation: &Explanation, network: &str) {
    let ruling = match &explanation.ruling {
        Ruling::Permit { .. } => say::good("permitted"),
        Ruling::Forbid { .. } => say::bad("forbidden"),
        Ruling::Silent => say::bad("not permitted: no rule speaks of it"),
    };
    say::line(format_args!("{ruling}  (network `{network}`)"));
    let limits = [
        ("idle", &explanation.idle),
        ("reauth", &explanation.reauth),
        ("lifetime", &explanation.lifetime),
    ];
    for (name, limit) in limits {
        if let ("reauth", Some(span)) = (name, explanation.fresh) {
            say::line(format_args!(
                "  {name:<10} {span:<10} built in: erasing takes a fresh sign-in, whatever the rules say"
            ));
        } else if let Some((span, rule)) = limit {
            say::line(format_args!("  {name:<10} {span:<10} from {rule}"));
        }
    }
    if let Some((level, rule)) = &explanation.assurance {
        say::line(format_args!(
            "  {:<10} aal{:<7} from {rule}",
            "assurance",
            u8::from(*level)
        ));
    }
    if let Some((level, rule)) = &explanation.record {
        let level = level.as_str();
        say::line(format_args!("  {:<10} {level:<10} from {rule}", "record"));
    }
    for rule in &explanation.applied {
        let effect = match rule.effect {
            Effect::Permit => "permit",
            Effect::Forbid => "forbid",
        };
        let failed = if rule.failed {
            " (its conditions could not be evaluated)"
        } else {
            ""
        };
        let reason = rule
            .reason
            .as_ref()
            .map_or_else(String::new, |text| format!(": {text}"));
        say::line(format_args!(
            "  {effect} {} on line {}{reason}{failed}",
            rule.id, rule.line
        ));
    }
}
