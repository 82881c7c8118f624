//! `curfew signer`: the signing key in a process of its own.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use curfew_custody::signer::server::{SignerServer, begin, prepare};

use crate::failure::{Doing, Failure, Outcome};
use crate::say;
use crate::signals::{Asked, until_asked};

/// Signs the audit log's checkpoints in a process of its own, so that the gateway's host process
/// need not have the key.
///
/// Run it as another user than the gateway. It signs only what goes on, by proof, from what it
/// signed before: a gateway that was taken over can rewrite nothing that was signed.
#[derive(Args, Debug)]
pub(crate) struct Signer {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(Init),
    Rotate(Rotate),
    Serve(Serve),
}

/// Begins to remember what the key has signed, in KEY.signed. Prints the verifier key.
#[derive(Args, Debug)]
struct Init {
    /// The key that `curfew init` made, moved from `keys/ledger.key` of the data folder.
    #[arg(long)]
    key: PathBuf,
    /// The newest checkpoint the key has signed, `guard/last-signed` of the data folder. Leave it
    /// out only for a key that has signed none.
    #[arg(long, value_name = "CHECKPOINT")]
    from: Option<PathBuf>,
}

/// Makes the key that is to take this one's place, in KEY.next. Prints its verifier key.
///
/// Nothing changes yet: the signer goes on by the old key until the gateway's operator runs `curfew key
/// rotate`, so that whoever took over the gateway alone cannot have the key changed. The signer may
/// run meanwhile, and must run then.
#[derive(Args, Debug)]
struct Rotate {
    /// The key file, 0600.
    #[arg(long)]
    key: PathBuf,
}

/// Answers the gateway until the process is ended. The gateway's `[log] signer` names the socket.
#[derive(Args, Debug)]
struct Serve {
    /// The key file, 0600.
    #[arg(long)]
    key: PathBuf,
    /// The Unix socket to listen on.
    #[arg(long)]
    socket: PathBuf,
    /// The user id that the gateway runs as; this process's own otherwise. No other is answered.
    #[arg(long)]
    uid: Option<u32>,
}

pub(crate) async fn signer(arguments: Signer) -> Outcome {
    match arguments.command {
        Command::Init(init) => {
            let key = begin(&init.key, init.from.as_deref());
            say::line(key.map_err(|error| Failure::failed(&error))?);
            say::note("Next: `curfew signer serve`, and `signer = \"SOCKET\"` under `[log]`.");
            Ok(())
        }
        Command::Rotate(rotate) => {
            let key = prepare(&rotate.key);
            say::line(key.map_err(|error| Failure::failed(&error))?);
            say::note(
                "If the log has witnesses, let each know this key now, and add a `log` line with it to the \
                 policy on them where that has such lines. \
                 Next: `curfew key rotate` where the gateway is, while it is stopped and this signer runs.",
            );
            Ok(())
        }
        Command::Serve(serve) => {
            let uid = serve
                .uid
                .unwrap_or_else(|| rustix::process::geteuid().as_raw());
            let asked = Asked::listen()?;
            let server = SignerServer::bind(&serve.key, &serve.socket, uid)
                .map_err(|error| Failure::failed(&error))?;
            say::note(format_args!(
                "signing for uid {uid} on {}: {}, {} entries signed",
                serve.socket.display(),
                server.verifier(),
                server.size()
            ));
            // What it signs is remembered before it is given out: it can be ended at any moment.
            let serving = tokio::task::spawn_blocking(move || server.serve());
            match until_asked(asked, serving).await {
                Some(ended) => ended.doing("the signer ended"),
                None => Ok(()),
            }
        }
    }
}
