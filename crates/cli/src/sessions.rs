//! `curfew sessions list | end`.

use clap::{Args, Subcommand};
use curfew_entry::{SessionId, visible};
use serde_json::Value;

use crate::client::{Client, Saved, ServerArgument};
use crate::failure::Outcome;
use crate::say;

/// Live sessions: list them, end one.
#[derive(Args, Debug)]
pub(crate) struct Sessions {
    #[command(subcommand)]
    command: SessionsCommand,
}

#[derive(Debug, Subcommand)]
enum SessionsCommand {
    /// List live sessions: all where the policy permits it, otherwise one's own.
    List {
        #[command(flatten)]
        server: ServerArgument,
        /// Print the answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// End a session on every plane, at once.
    End {
        #[command(flatten)]
        server: ServerArgument,
        /// Which, as `curfew sessions list` shows it.
        session: SessionId,
    },
}

pub(crate) async fn sessions(arguments: &Sessions) -> Outcome {
    match &arguments.command {
        SessionsCommand::List { server, json } => {
            let client = Client::signed_in(&Saved::load(server)?)?;
            let list: Value = client.get("api/v1/sessions").await?;
            if *json {
                say::json(&list);
            } else {
                show(&list);
            }
        }
        SessionsCommand::End { server, session } => {
            let client = Client::signed_in(&Saved::load(server)?)?;
            let _: Value = client
                .post(&format!("api/v1/sessions/{session}/end"))
                .await?;
            say::note(format_args!("Ended {session}."));
        }
    }
    Ok(())
}

fn show(list: &Value) {
    let empty = Vec::new();
    let sessions = list
        .get("sessions")
        .and_then(Value::as_array)
        .unwrap_or(&empty);
    let head = format!(
        "{:<26} {:<16} {:<16} {:<20} {:<20} ENDS",
        "SESSION", "SUBJECT", "FROM", "STARTED", "ACTIVE"
    );
    say::line(say::bold(head));
    for session in sessions {
        let text = |path: &str| {
            let text = session.pointer(path).and_then(Value::as_str);
            visible(text.unwrap_or_default())
        };
        let second = |path: &str| text(path).chars().take(19).collect::<String>();
        let own = session.get("current").and_then(Value::as_bool) == Some(true);
        say::line(format_args!(
            "{:<26} {:<16} {:<16} {:<20} {:<20} {} ({}){}",
            text("/session"),
            text("/subject"),
            text("/context/address"),
            second("/started_at"),
            second("/active_at"),
            second("/deadline/at"),
            text("/deadline/cause"),
            if own { "  ← this one" } else { "" },
        ));
    }
    if list.get("own_only").and_then(Value::as_bool) == Some(true) {
        say::note("The policy lets you see your own sessions only.");
    }
}
