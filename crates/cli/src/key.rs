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
/// With `[log] signer` the signer makes its new key first, with `curfew signer rotate`, and must run.
#[derive(Args, Debug)]
struct Rotate {
    #[command(flatten)]
    config: ConfigArgument,
}

pub(crate) fn key(arguments: &Key) -> Outcome {
    match &arguments.command {
        Command::Prepare(Prepare { config }) => {
            let data = DataDir::of(&configuration::config(&config.config)?);
            say::line(data.prepare_key().map_err(|error| failure(&error))?);
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
    say::note("Give the new verifier key to whoever checks the log, and to its witnesses:");
    say::line(new);
    say::note("Back up the folder `keys`, and destroy older copies of the key.");
    Ok(())
}

fn failure(error: &DataError) -> Failure {
    let text = error.to_string();
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
