//! `curfew log reveal`: the values that an entry only commits to.

use std::collections::BTreeMap;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::client::{Client, Saved, ServerArgument};
use crate::failure::Outcome;
use crate::say;

/// Show the values that an entry only commits to, each held against its commitment. Needs the right
/// `log.reveal`; the look is recorded.
#[derive(Args, Debug)]
pub(crate) struct Reveal {
    /// The entry's number.
    index: u64,
    #[command(flatten)]
    server: ServerArgument,
    /// Print one JSON object: for each field its `state` (shown, erased, missing or wrong) and, where
    /// it is shown, its `value`.
    #[arg(long)]
    json: bool,
}

/// What the gateway answers, and what `--json` prints.
#[derive(Debug, Deserialize, Serialize)]
struct Given {
    index: u64,
    values: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Value {
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
}

pub(crate) async fn reveal(arguments: &Reveal) -> Outcome {
    let client = Client::signed_in(&Saved::load(&arguments.server)?)?;
    let index = arguments.index;
    let given: Given = client.get(&format!("api/v1/log/{index}/values")).await?;
    if arguments.json {
        say::json(&given);
        return Ok(());
    }
    if given.values.is_empty() {
        say::note(format_args!("entry {index} conceals nothing"));
    }
    for (field, value) in &given.values {
        let text = match &value.value {
            // One line a field, and nothing that a terminal would obey.
            Some(text) => text.escape_debug().to_string(),
            None => format!("[{}]", value.state),
        };
        say::line(format_args!(
            "{} {text}",
            say::bold(format_args!("{field:<10}"))
        ));
    }
    Ok(())
}
