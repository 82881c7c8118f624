//! `curfew key`: the key that signs the audit log.

use clap::{Args, Subcommand};
use curfew_gateway::data::{DataDir, DataError};
use curfew_gateway::rotation::Rotated;

use crate::configuration::{self, ConfigArgument};
use crate::failure::{Exit, Failure, Outcome};
use crate::say;

/// The key that signs the audit log.
#[derive(Args, Debug)]
pub(crate) struct Key {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Prepare(Prepare),
    Rotate(Rotate),
}

/// Makes the key that `curfew key rotate` is to change to, and prints its verifier key, so that
/// witnesses and whoever checks the log can be told in time. Nothing else changes; the gateway may run.
/// A log with witnesses needs it: they cosign nothing by a key that they do not know.
#[derive(Args, Debug)]
struct Prepare {
    #[command(flatten)]
    config: ConfigArgument,
}

/// Has another key sign the audit log from here on, while the gateway is stopped: the one that `curfew
/// key prepare` has made, or a fresh one. Prints the new verifier key.
///
/// Both keys sign a statement over the log as it is, which becomes its next entry, `log.key_rotated`.
/// Whoever has the old verifier key or the new one can verify all of the log, with `curfew-verify`. The
/// old key is removed. Where it is cut short, run it again, or start the gateway: what was begun is
/// brought to its end.
///
/// With `[log.witness]` prepare the key first, and have each witness know it. With `[log] signer` the
/// signer makes its new key first, with `curfew signer rotate`, and must run.
#[derive(Args, Debug)]
struct Rotate {
    #[command(flatten)]
    config: ConfigArgument,
}

pub(crate) fn key(arguments: &Key) -> Outcome {
    match &arguments.command {
        Command::Prepare(Prepare { config }) => {
            let data = DataDir::of(&configuration::config(&config.config)?);
            let key = data.prepare_key().map_err(|error| failure(&error))?;
            tell_witnesses(&data, &key);
            say::line(key);
            say::note("Next: `curfew key rotate`, while the gateway is stopped.");
            Ok(())
        }
        Command::Rotate(Rotate { config }) => {
            rotate(&DataDir::of(&configuration::config(&config.config)?))
        }
    }
}

fn rotate(data: &DataDir) -> Outcome {
    let rotated = data.rotate_key();
    let rotated = rotated.map_err(|error| failure(&error))?;
    let Rotated {
        size,
        old,
        new,
        resumed,
    } = rotated;
    if resumed {
        say::note("An earlier change of the key was cut short; it is complete now.");
    }
    say::note(format_args!(
        "From entry {size} on another key signs the log. The one until then: {old}"
    ));
    if data.witnesses().is_some() {
        tell_witnesses(data, &new);
        say::note(format_args!(
            "Once they cosign by the new key, have them withdraw the old one: `curfew witness distrust \
             DIR {old}`"
        ));
    }
    say::note("Give the new verifier key to whoever checks the log:");
    say::line(new);
    say::note("Back up the folder `keys`, and destroy older copies of the key.");
    Ok(())
}

/// Says what witnesses must know of a key before they cosign by it.
fn tell_witnesses(data: &DataDir, key: &str) {
    if data.witnesses().is_none() {
        return;
    }
    say::note(format_args!(
        "Each witness must know this key before the log signs by it, or cosigns nothing more: `curfew \
         witness trust DIR {key}`"
    ));
    if let Some(lacking) = data.witnesses_lack(key) {
        say::note(lacking);
    }
}

fn failure(error: &DataError) -> Failure {
    let text = error.to_string();
    if matches!(error, DataError::Unannounced) {
        let hint = "run `curfew key prepare`, and have each witness know the key that it prints \
                    (docs/witness.md); then run this again";
        return Failure::hint(Exit::Failed, text, hint);
    }
    if matches!(error, DataError::WitnessPolicy { .. }) {
        let hint = "the gateway would not start with this policy. Nothing was changed";
        return Failure::hint(Exit::Failed, text, hint);
    }
    if text.contains("another process") {
        let hint = "stop `curfew serve` first: a key is changed between two runs";
        return Failure::hint(Exit::Failed, text, hint);
    }
    if text.contains("no new key was made") || text.contains("is with the signer") {
        let hint = "run `curfew signer rotate --key KEY` where the signer is";
        return Failure::hint(Exit::Failed, text, hint);
    }
    Failure::failed(text)
}
