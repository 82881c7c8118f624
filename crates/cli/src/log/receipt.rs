//! `curfew log receipt`: the proof of one entry, to be carried away.

use std::path::{Path, PathBuf};

use clap::Args;
use curfew_verify::ledger::{LogReader, Published, Reached, ReadError};
use serde::{Deserialize, Serialize};

use crate::client::{Client, Saved, ServerArgument};
use crate::failure::{Doing, Exit, Failure, Outcome};
use crate::say;

/// Give the receipt of an entry: the entry, and the proof that it is in the log, in the form of C2SP
/// tlog-proof. `curfew-verify --receipt FILE` checks it offline. Says how far the entry has come:
/// durable, signed (a checkpoint covers it), witnessed (a quorum of witnesses has cosigned one) or
/// timestamped (a timestamping authority has said when one existed).
#[derive(Args, Debug)]
pub(crate) struct Receipt {
    /// The entry's number.
    index: u64,
    #[command(flatten)]
    server: ServerArgument,
    /// Take it from the log in this folder, instead of asking the gateway.
    #[arg(long, value_name = "DIR", conflicts_with = "server")]
    dir: Option<PathBuf>,
    /// Write it to this file, by custom `….tlog-proof`; to standard output otherwise.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print one JSON object with `index`, `reached` and `receipt`.
    #[arg(long)]
    json: bool,
}

/// What the gateway answers, and what `--json` prints.
#[derive(Debug, Deserialize, Serialize)]
struct Given {
    index: u64,
    reached: String,
    receipt: Option<String>,
}

pub(crate) async fn receipt(arguments: &Receipt) -> Outcome {
    let index = arguments.index;
    let given = match &arguments.dir {
        Some(dir) => of_dir(dir, index).doing(dir.display())?,
        None => {
            let client = Client::signed_in(&Saved::load(&arguments.server)?)?;
            client.get(&format!("api/v1/log/{index}/receipt")).await?
        }
    };
    if let (Some(path), Some(receipt)) = (&arguments.out, &given.receipt) {
        std::fs::write(path, receipt).doing(path.display())?;
    }
    if arguments.json {
        say::json(&given);
    }
    let Some(receipt) = &given.receipt else {
        return Err(Failure::hint(
            Exit::Failed,
            format_args!("entry {index} is durable, and no checkpoint covers it yet"),
            "checkpoints are signed every second: try again",
        ));
    };
    if !arguments.json {
        if arguments.out.is_none() {
            say::line(receipt.trim_end());
        }
        say::note(format_args!("entry {index}: {}", given.reached));
    }
    Ok(())
}

fn of_dir(dir: &Path, index: u64) -> Result<Given, ReadError> {
    let entry = LogReader::open(dir)?.entry(index)?;
    let (reached, receipt): (Reached, _) = Published::new(dir).receipt(index, &entry)?;
    Ok(Given {
        index,
        reached: reached.to_string(),
        receipt: receipt.map(|receipt| receipt.to_string()),
    })
}
