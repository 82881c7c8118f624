//! `curfew log tail | search | verify | export | archive | receipt | reveal | values | erase |
//! timestamp`.

mod archive;
mod erase;
mod export;
mod receipt;
mod reveal;
mod search;
mod timestamp;
pub(crate) mod values;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use curfew_entry::{quoted, visible};
use curfew_gateway::data::DataDir;
use curfew_verify::cli::{EXIT_CODES, Options};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::client::{Client, Saved, ServerArgument};
use crate::configuration::{self, ConfigArgument};
use crate::failure::Outcome;
use crate::say;

/// How long a request waits for news, in seconds.
const WAIT_SECS: u64 = 20;

/// The longest value of a field that a line shows, in characters.
const VALUE_CHARS_MAX: usize = 60;

/// The most items of a list that a line shows.
const ITEMS_MAX: usize = 8;

/// The audit log: follow it, search it, prove it.
#[derive(Args, Debug)]
pub(crate) struct Log {
    #[command(subcommand)]
    pub(crate) command: LogCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Show the newest entries. Reading the log is itself permitted by policy and recorded.
    Tail {
        #[command(flatten)]
        server: ServerArgument,
        /// Go on as entries come in.
        #[arg(long, short)]
        follow: bool,
        /// How many entries to start with.
        #[arg(long, short = 'n', default_value_t = 20)]
        lines: u64,
        /// Print entries as they stand in the log, one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    Search(Box<search::Search>),
    /// Prove integrity and legitimacy of a log on this machine, as `curfew-verify` does.
    #[command(after_help = EXIT_CODES)]
    Verify {
        #[command(flatten)]
        options: Options,
        #[command(flatten)]
        config: ConfigArgument,
        /// The directory of the log, or the address at which it is served. Without it: the one of the
        /// configuration, with its own key.
        #[arg(value_name = "DIR|URL")]
        dir: Option<PathBuf>,
    },
    Export(Box<export::Export>),
    Archive(archive::Archive),
    Receipt(receipt::Receipt),
    Reveal(reveal::Reveal),
    Values(values::Values),
    Erase(erase::Erase),
    Timestamp(timestamp::Timestamp),
}

#[derive(serde::Deserialize)]
struct Page {
    next_after: Option<u64>,
    entries: Vec<Indexed>,
}

#[derive(serde::Deserialize)]
struct Indexed {
    index: u64,
    /// Whose session it was, where the entry does not say.
    #[serde(default)]
    subject: Option<String>,
    entry: Box<RawValue>,
}

/// Carries out one of the commands.
pub(crate) async fn log(command: LogCommand) -> Outcome<ExitCode> {
    match command {
        LogCommand::Tail {
            server,
            follow,
            lines,
            json,
        } => {
            tail(&server, follow, lines, json).await?;
            Ok(ExitCode::SUCCESS)
        }
        LogCommand::Search(arguments) => {
            search::search(&arguments).await?;
            Ok(ExitCode::SUCCESS)
        }
        LogCommand::Verify {
            options,
            config,
            dir,
        } => verify(options, &config, dir),
        LogCommand::Export(arguments) => export::export(&arguments).await,
        LogCommand::Archive(arguments) => {
            archive::archive(&arguments).await?;
            Ok(ExitCode::SUCCESS)
        }
        LogCommand::Receipt(arguments) => {
            receipt::receipt(&arguments).await?;
            Ok(ExitCode::SUCCESS)
        }
        LogCommand::Reveal(arguments) => {
            reveal::reveal(&arguments).await?;
            Ok(ExitCode::SUCCESS)
        }
        LogCommand::Values(arguments) => values::values(&arguments),
        LogCommand::Erase(arguments) => {
            erase::erase(&arguments).await?;
            Ok(ExitCode::SUCCESS)
        }
        LogCommand::Timestamp(arguments) => {
            timestamp::timestamp(&arguments).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn tail(server: &ServerArgument, follow: bool, lines: u64, json: bool) -> Outcome {
    let client = Client::signed_in(&Saved::load(server)?)?;
    let mut page: Page = client.get(&format!("api/v1/log?limit={lines}")).await?;
    loop {
        for entry in &page.entries {
            show(entry, json, false);
        }
        if !follow {
            return Ok(());
        }
        let after = page
            .next_after
            .map_or_else(String::new, |index| format!("after={index}&"));
        page = client
            .get(&format!("api/v1/log?{after}wait={WAIT_SECS}"))
            .await?;
    }
}

/// Shows an entry; as JSON, with its index where it is asked for.
fn show(indexed: &Indexed, json: bool, with_index: bool) {
    if json && with_index {
        let subject = indexed.subject.as_ref().map_or_else(String::new, |name| {
            format!("\"subject\":{},", Value::from(name.as_str()))
        });
        say::json_line(&format!(
            "{{\"index\":{},{subject}\"entry\":{}}}",
            indexed.index,
            indexed.entry.get()
        ));
        return;
    }
    if json {
        say::json_line(indexed.entry.get());
        return;
    }
    let Ok(entry) = serde_json::from_str::<Value>(indexed.entry.get()) else {
        // Such as half a surrogate pair, which no text holds.
        let raw = quoted(indexed.entry.get());
        say::line(format_args!("{:>7} unreadable entry={raw}", indexed.index));
        return;
    };
    let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default();
    let time: String = text("time").chars().take(23).collect();
    let subject = indexed.subject.as_ref();
    say::line(format_args!(
        "{} {} {} {}{}",
        say::dim(format_args!("{:>7}", indexed.index)),
        say::dim(visible(&time)),
        say::bold(format_args!("{:<24}", visible(text("kind")))),
        subject.map_or_else(String::new, |name| format!("subject={} ", quoted(name))),
        details(&entry),
    ));
}

fn details(entry: &Value) -> String {
    let shown = ["v", "time", "kind"];
    let fields = entry.as_object().into_iter().flatten();
    let words: Vec<String> = fields
        .filter(|(name, _)| !shown.contains(&name.as_str()))
        .map(|(name, value)| {
            let shown = visible(name.strip_suffix("_us").unwrap_or(name));
            format!("{shown}={}", plain(name, value))
        })
        .collect();
    words.join(" ")
}

/// A value without JSON's marks: lists with commas, spans as people write them. A text that could be
/// taken for anything else is in quotation marks; of a long one the beginning is shown.
fn plain(name: &str, value: &Value) -> String {
    match value {
        Value::String(text) => {
            let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let cut: String = words.chars().take(VALUE_CHARS_MAX).collect();
            let more = if cut.len() < words.len() { "…" } else { "" };
            format!("{}{more}", quoted(&cut))
        }
        Value::Array(items) => {
            let shown = items.iter().take(ITEMS_MAX);
            let mut words: Vec<String> = shown.map(|item| plain(name, item)).collect();
            if items.len() > ITEMS_MAX {
                words.push("…".to_owned());
            }
            words.join(",")
        }
        Value::Object(fields) => {
            let words: Vec<String> = fields
                .iter()
                .map(|(name, value)| {
                    let shown = visible(name.strip_suffix("_us").unwrap_or(name));
                    format!("{shown}:{}", plain(name, value))
                })
                .collect();
            format!("({})", words.join(" "))
        }
        Value::Number(number) if name.ends_with("_us") => {
            let micros = number.as_i64().map(jiff::SignedDuration::from_micros);
            micros.map_or_else(|| number.to_string(), |span| format!("{span:#}"))
        }
        Value::Number(_) | Value::Bool(_) | Value::Null => value.to_string(),
    }
}

/// Verifies a log, with the exit codes of `curfew-verify`.
fn verify(
    mut options: Options,
    config: &ConfigArgument,
    dir: Option<PathBuf>,
) -> Outcome<ExitCode> {
    let dir = match dir {
        Some(dir) => dir,
        // A receipt needs no log, and the policy may name the key.
        None if options.receipt.is_some() && !options.key.is_empty() => PathBuf::new(),
        None if options.receipt.is_some() && options.policy.is_some() => PathBuf::new(),
        None => {
            let data = DataDir::of(&configuration::config(&config.config)?);
            if options.key.is_empty() && options.key_file.is_none() {
                options.key_file = Some(data.public_key());
            }
            data.ledger()
        }
    };
    Ok(ExitCode::from(curfew_verify::cli::run(&options, &dir)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_words_and_spans_as_people_write_them() {
        let entry = serde_json::json!({
            "v": 1, "time": "t", "kind": "k",
            "rules": ["dba-sql", "office"],
            "statement": "select\n  1",
            "late_us": 349,
            "demands": {"idle_us": 900_000_000_u64, "assurance": 2},
        });
        let words = details(&entry);
        for wanted in [
            "rules=dba-sql,office",
            "statement=\"select 1\"",
            "late=349µs",
            "idle:15m",
        ] {
            assert!(words.contains(wanted), "{wanted}: {words}");
        }
    }

    #[test]
    fn what_clients_sent_cannot_feign_a_field_or_move_the_terminal() {
        let entry = serde_json::json!({
            "path": "/a subject=root kind=session.started",
            "client": "\u{1b}]0;pwn\u{7}\u{202e}x",
            "rules": ["a,b", "c"],
            "by": {"host": "x) by:(session:s_1"},
            "statement": "x".repeat(80),
        });
        let words = details(&entry);
        for wanted in [
            "path=\"/a subject=root kind=session.started\"",
            "client=\\u001b]0;pwn\\u0007\\u202ex",
            "rules=\"a,b\",c",
            "by=(host:\"x) by:(session:s_1\")",
        ] {
            assert!(words.contains(wanted), "{wanted}: {words}");
        }
        assert!(words.ends_with("x…"), "{words}");
    }
}
