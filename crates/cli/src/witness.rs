//! `curfew witness`: cosigning the checkpoints of other people's logs.

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use curfew_custody::witness::server::WitnessServer;
use curfew_verify::ledger::witness::WitnessError;
use curfew_verify::ledger::{RealDisk, VerifierKey, Witness as Keeper};

use crate::failure::{Doing, Exit, Failure, Outcome};
use crate::say;
use crate::signals::{Asked, until_asked};

/// Cosigns checkpoints of logs, so that nobody can rewrite, fork or cut them off unseen: a witness
/// for C2SP tlog-witness, of any log that speaks it.
///
/// Run it elsewhere, under somebody else's hand than the log. It cosigns only what goes on, by
/// proof, from what it cosigned before.
#[derive(Args, Debug)]
pub(crate) struct Witness {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(Init),
    /// Cosigns for one more log, or takes one more key of a log, best before the log signs by it. Stop
    /// the witness before, for a moment: logs ask again by themselves.
    Trust(Keys),
    /// Cosigns nothing more that only these keys have signed, after a log has changed to another one:
    /// whoever has the old one, stolen perhaps, leads the witness nowhere. Stop the witness before.
    Distrust(Keys),
    Serve(Serve),
}

/// Makes a witness with new keys, Ed25519 and ML-DSA-44, in a file of mode 0600. Prints the two
/// verifier keys: either is one witness in a policy.
#[derive(Args, Debug)]
struct Init {
    /// The folder to make, which must stay: what was cosigned is remembered there.
    dir: PathBuf,
    /// A name that no other witness has, such as `witness.example.com`.
    #[arg(long)]
    name: String,
}

#[derive(Args, Debug)]
struct Keys {
    /// The folder of the witness.
    dir: PathBuf,
    /// Verifier keys of logs, as `name+hash+base64`.
    #[arg(required = true, value_name = "VKEY")]
    keys: Vec<String>,
}

/// Answers `POST /add-checkpoint` and, for monitors, `GET /SHA-256-OF-ORIGIN/checkpoint` until the
/// process is ended.
#[derive(Args, Debug)]
struct Serve {
    /// The folder of the witness.
    dir: PathBuf,
    /// Address and port for HTTP. A proxy in front can give it TLS.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7780")]
    listen: SocketAddr,
}

pub(crate) async fn witness(arguments: Witness) -> Outcome {
    match arguments.command {
        Command::Init(init) => make(&init.dir, &init.name),
        Command::Trust(Keys { dir, keys }) => change(&keys, |key| {
            let new = Keeper::trust(&RealDisk, &dir, key)?;
            Ok(if new { "trusted" } else { "trusted already" })
        }),
        Command::Distrust(Keys { dir, keys }) => change(&keys, |key| {
            let new = Keeper::distrust(&RealDisk, &dir, key)?;
            Ok(if new {
                "trusted no longer"
            } else {
                "not trusted"
            })
        }),
        Command::Serve(serve) => {
            let asked = Asked::listen()?;
            let server = WitnessServer::bind(&serve.dir, serve.listen).await;
            let server = server.map_err(|error| Failure::failed(&error))?;
            say::note(format_args!("listening on http://{}", server.address()));
            for (origin, size) in server.witness().logs() {
                say::note(format_args!("log {origin}: {size} entries cosigned"));
            }
            until_asked(asked, server.serve()).await;
            Ok(())
        }
    }
}

fn make(dir: &Path, name: &str) -> Outcome {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(dir).doing(dir.display())?;
    let keys = Keeper::create(&RealDisk, dir, name).map_err(|error| Failure::failed(&error))?;
    for key in keys {
        say::line(key);
    }
    say::note("Next: `curfew witness trust DIR VKEY` for each log, then `curfew witness serve`.");
    Ok(())
}

fn change(
    keys: &[String],
    change: impl Fn(&VerifierKey) -> Result<&'static str, WitnessError>,
) -> Outcome {
    for text in keys {
        let key = VerifierKey::parse(text)
            .map_err(|error| Failure::new(Exit::Usage, format_args!("{text}: {error}")))?;
        let how = change(&key).map_err(|error| failure(&error))?;
        say::note(format_args!("{}: {how}", key.name()));
    }
    Ok(())
}

fn failure(error: &WitnessError) -> Failure {
    let WitnessError::Locked { .. } = error else {
        return Failure::failed(error);
    };
    let hint = "stop `curfew witness serve` for a moment: logs ask it again by themselves";
    Failure::hint(Exit::Failed, error, hint)
}
