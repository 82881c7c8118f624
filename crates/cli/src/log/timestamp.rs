//! `curfew log timestamp`: what somebody else's clock says of the log.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use curfew_custody::stamps::{self, Asker};
use curfew_entry::Timestamp as Time;
use curfew_gateway::data::DataDir;
use curfew_timestamp::{Token, verify};
use curfew_verify::ledger::note::Note;
use curfew_verify::ledger::{Checkpoint, Published, Stamped};
use reqwest::Url;
use serde::Serialize;

use crate::configuration::{self, ConfigArgument};
use crate::failure::{Doing, Exit, Failure, Outcome};
use crate::say;

/// How long an answer may take. Authorities answer within a second or two.
const ANSWER: Duration = Duration::from_secs(30);

/// Have a timestamping authority (RFC 3161) say when the newest checkpoint of a log on this machine
/// existed. It is sent a SHA-256 hash and nothing else. Its answer is verified and kept with the log,
/// as `timestamps/SIZE.tsr`; `curfew-verify --tsa-ca` proves from it that all entries before existed
/// at that time, even against whoever has the signing key. A gateway with `[log.timestamp]` in its
/// configuration does so by itself.
#[derive(Args, Debug)]
pub(crate) struct Timestamp {
    /// The authority's address, `http://…` or `https://…`.
    #[arg(long, value_name = "URL")]
    url: Url,
    /// Certificates in PEM form of the authorities that vouch for it.
    #[arg(long, value_name = "PEM_FILE")]
    tsa_ca: PathBuf,
    /// The log's directory. Without it: the one of the configuration.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgument,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Given {
    size: u64,
    time: Time,
    accuracy_us: Option<u64>,
    tsa: String,
    /// It was there before.
    kept: bool,
}

pub(crate) async fn timestamp(arguments: &Timestamp) -> Outcome {
    if !matches!(arguments.url.scheme(), "http" | "https") {
        let text = format_args!("{}: neither http nor https", arguments.url);
        return Err(Failure::new(Exit::Usage, text));
    }
    let dir = match &arguments.dir {
        Some(dir) => dir.clone(),
        None => DataDir::of(&configuration::config(&arguments.config.config)?).ledger(),
    };
    let unfit = |problem| {
        Failure::new(
            Exit::Usage,
            format_args!("{}: {problem}", arguments.tsa_ca.display()),
        )
    };
    let roots = stamps::roots(&arguments.tsa_ca).map_err(unfit)?;
    let log = Published::new(&dir);
    let note = log.checkpoint().doing(dir.display())?;
    let checkpoint = note.ok_or_else(|| {
        let text = format_args!("{}: no log with a signed checkpoint is here", dir.display());
        Failure::failed(text)
    })?;
    let read = Note::parse(&checkpoint).and_then(|note| Checkpoint::parse(note.text()));
    let size = read.doing(dir.join("checkpoint").display())?.size;
    if let Some(held) = log.timestamp(size).doing(dir.display())? {
        let token = verify(&held.response, &held.checkpoint, None, &roots);
        let token = token.doing(format_args!("timestamps/{size}.tsr, which is there"))?;
        show(arguments, size, token, true);
        return Ok(());
    }
    let asker = Asker::new(arguments.url.as_str(), ANSWER).map_err(Failure::failed)?;
    let asked = asker.ask(&checkpoint, &roots).await;
    let (token, response) = asked.doing(&arguments.url)?;
    let stamped = Stamped {
        checkpoint,
        response,
    };
    if log.keep_timestamp(size, &stamped).doing(dir.display())? {
        show(arguments, size, token, false);
        return Ok(());
    }
    // The gateway was quicker.
    let held = log.timestamp(size).doing(dir.display())?;
    if let Some(held) = held {
        let token = verify(&held.response, &held.checkpoint, None, &roots);
        let token = token.doing(format_args!("timestamps/{size}.tsr, which is there"))?;
        show(arguments, size, token, true);
    }
    Ok(())
}

fn show(arguments: &Timestamp, size: u64, token: Token, kept: bool) {
    let time = Time::from_micros(token.time_us);
    if !arguments.json {
        let before = if kept {
            "had said before that"
        } else {
            "says that"
        };
        let tsa = token.tsa;
        say::line(format_args!(
            "{tsa} {before} {size} entries existed before {time}"
        ));
        return;
    }
    say::json(&Given {
        size,
        time,
        accuracy_us: token.accuracy_us,
        tsa: token.tsa,
        kept,
    });
}
