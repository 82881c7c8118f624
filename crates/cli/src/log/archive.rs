//! `curfew log archive`: a copy of the log in an object store.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use clap::Args;
use curfew_custody::archive::{Access, Archive as Store, Archived};
use curfew_gateway::data::DataDir;
use curfew_verify::ledger::Published;

use crate::configuration::{self, ConfigArgument};
use crate::failure::{Doing, Exit, Failure, Outcome};
use crate::say;

/// Bring a copy of a log on this machine up to date: in a directory (`file:///…`) or an S3 bucket
/// (`s3://bucket/prefix`). Tiles, bundles, timestamps and the checkpoint are copied, each object once;
/// `curfew-verify` proves the copy. An archive that covers other entries than this log is left alone.
///
/// For S3, credentials are those of the environment: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
/// `AWS_SESSION_TOKEN`, `AWS_REGION`, and `AWS_ENDPOINT_URL` for a store that is not Amazon's.
#[derive(Args, Debug)]
pub(crate) struct Archive {
    /// Where the copy is.
    #[arg(long, value_name = "URL")]
    to: String,
    /// The log's directory. Without it: the one of the configuration.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgument,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn archive(arguments: &Archive) -> Outcome {
    let dir = match &arguments.dir {
        Some(dir) => dir.clone(),
        None => DataDir::of(&configuration::config(&arguments.config.config)?).ledger(),
    };
    let store = Store::open(&arguments.to, &access())
        .map_err(|error| Failure::new(Exit::Usage, format_args!("{error}")))?;
    let shown = std::io::stderr().is_terminal() && !arguments.json;
    let progress = |done: u64, total: u64| {
        if shown && (done.is_multiple_of(64) || done == total) {
            let _ = write!(std::io::stderr(), "\r{done} of {total} objects\x1b[K");
        }
    };
    let archived = store.bring_up(&Published::new(&dir), progress).await;
    if shown {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    show(arguments, &archived.doing(&arguments.to)?);
    Ok(())
}

fn access() -> Access {
    let asked = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    Access {
        endpoint: asked("AWS_ENDPOINT_URL"),
        region: asked("AWS_REGION").or_else(|| asked("AWS_DEFAULT_REGION")),
        access_key_id: asked("AWS_ACCESS_KEY_ID"),
        secret_access_key: asked("AWS_SECRET_ACCESS_KEY").map(Into::into),
        session_token: asked("AWS_SESSION_TOKEN").map(Into::into),
    }
}

fn show(arguments: &Archive, archived: &Archived) {
    if arguments.json {
        return say::json(archived);
    }
    let Archived {
        before,
        size,
        objects,
        bytes,
    } = archived;
    if objects == &0 {
        say::line(format_args!(
            "the archive covers all {size} entries already"
        ));
        return;
    }
    say::line(format_args!(
        "the archive covers {size} entries, {before} before; {objects} objects and {bytes} bytes \
         were written"
    ));
}
