//! Reading `curfew.toml` and the policy. No other code of Curfew reads these files.

use std::path::{Path, PathBuf};

use clap::Args;
use curfew_authority::Policy;
use curfew_gateway::config::Config;

use crate::failure::{Exit, Failure, Outcome};

/// The longest configuration file that is read, in bytes: 100 resources take about 30 kB.
const CONFIG_BYTES_MAX: u64 = 1024 * 1024;

/// Which configuration.
#[derive(Args, Clone, Debug)]
pub(crate) struct ConfigArgument {
    /// The configuration file.
    #[arg(
        long,
        short,
        value_name = "FILE",
        env = "CURFEW_CONFIG",
        default_value = "curfew.toml"
    )]
    pub(crate) config: PathBuf,
}

/// A configuration with the policy it names, both checked.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The configuration.
    pub(crate) config: Config,
    /// What messages call the policy's file.
    pub(crate) policy_name: String,
    /// Its text.
    pub(crate) policy: String,
}

/// Reads a text file that a person wrote.
pub(crate) fn read_text(path: &Path, what: &str) -> Outcome<String> {
    let failed = |error| {
        Failure::new(
            Exit::Usage,
            format_args!("cannot read {what} {}: {error}", path.display()),
        )
    };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > CONFIG_BYTES_MAX {
        return Err(Failure::new(
            Exit::Usage,
            format_args!(
                "{what} {} has {length} bytes, over the limit of {CONFIG_BYTES_MAX}",
                path.display()
            ),
        ));
    }
    std::fs::read_to_string(path).map_err(failed)
}

/// Reads the configuration alone.
pub(crate) fn config(path: &Path) -> Outcome<Config> {
    if !path.exists() {
        return Err(Failure::hint(
            Exit::Usage,
            format_args!("there is no configuration file {}", path.display()),
            "name one with --config; docs/configuration.md says what it holds, and `curfew demo` \
             writes one to start from",
        ));
    }
    let text = read_text(path, "the configuration")?;
    let absolute = std::path::absolute(path)
        .map_err(|error| Failure::new(Exit::Usage, format_args!("{}: {error}", path.display())))?;
    let folder = absolute.parent().unwrap_or(Path::new("/"));
    Config::parse(&path.display().to_string(), &text, folder)
        .map_err(|error| Failure::diagnostic(Exit::Usage, error))
}

/// Reads and checks a policy.
pub(crate) fn policy(path: &Path, config: Option<&Config>) -> Outcome<(Policy, String)> {
    let text = read_text(path, "the policy")?;
    let policy = Policy::parse(&path.display().to_string(), &text)
        .map_err(|error| Failure::diagnostic(Exit::Usage, error))?;
    if let Some(config) = config {
        config
            .check_policy(&policy)
            .map_err(|error| Failure::diagnostic(Exit::Usage, error))?;
    }
    Ok((policy, text))
}

/// Reads the configuration and the policy it names.
pub(crate) fn load(path: &Path) -> Outcome<Loaded> {
    let config = config(path)?;
    let (_, text) = policy(&config.policy, Some(&config))?;
    Ok(Loaded {
        policy_name: config.policy.display().to_string(),
        policy: text,
        config,
    })
}
