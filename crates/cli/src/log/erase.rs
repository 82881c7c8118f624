//! `curfew log erase`: a subject's concealed values, by two persons.

use clap::Args;
use curfew_entry::{ErasureId, SubjectName};
use serde::{Deserialize, Serialize};

use crate::client::{Client, Saved, ServerArgument};
use crate::failure::Outcome;
use crate::say;

/// Erase a subject's concealed values: one person asks (`--subject`), another approves (`--approve`)
/// within an hour, both freshly signed in. The log keeps its commitments and a tombstone, and still
/// verifies. It cannot be undone.
#[derive(Args, Debug)]
pub(crate) struct Erase {
    #[command(flatten)]
    step: Step,
    #[command(flatten)]
    server: ServerArgument,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Step {
    /// Ask for the erasure of this subject's values.
    #[arg(long, value_name = "NAME")]
    subject: Option<SubjectName>,
    /// Approve an erasure that somebody else has asked for.
    #[arg(long, value_name = "ID")]
    approve: Option<ErasureId>,
    /// Show the erasures that wait.
    #[arg(long)]
    list: bool,
}

#[derive(Debug, Deserialize, Serialize)]
struct Taken {
    erasure: String,
}

#[derive(Debug, Deserialize, Serialize)]
struct List {
    erasures: Vec<Waiting>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Waiting {
    erasure: String,
    subject: String,
    asked_by: String,
    asked_at: String,
    expires: String,
    approved: bool,
}

pub(crate) async fn erase(arguments: &Erase) -> Outcome {
    let client = Client::signed_in(&Saved::load(&arguments.server)?)?;
    let step = &arguments.step;
    if let Some(subject) = &step.subject {
        let path = format!("api/v1/subjects/{subject}/erase");
        let taken: Taken = client.post(&path).await?;
        if arguments.json {
            say::json(&taken);
        } else {
            let erasure = &taken.erasure;
            say::line(format_args!("asked for, as {erasure}"));
            say::note(format_args!(
                "somebody else approves it within an hour: curfew log erase --approve {erasure}"
            ));
        }
    } else if let Some(erasure) = &step.approve {
        let path = format!("api/v1/erasures/{erasure}/approve");
        let taken: Taken = client.post(&path).await?;
        if arguments.json {
            say::json(&taken);
        } else {
            say::line("approved: the values can no longer be read");
            say::note("erasure.done in the log says when the key is gone from the disk");
        }
    } else {
        let list: List = client.get("api/v1/erasures").await?;
        if arguments.json {
            say::json(&list);
            return Ok(());
        }
        for waiting in &list.erasures {
            let state = if waiting.approved {
                "approved".to_owned()
            } else {
                format!("until {}", waiting.expires)
            };
            say::line(format_args!(
                "{} {} asked for by {}, {state}",
                waiting.erasure,
                say::bold(&waiting.subject),
                waiting.asked_by
            ));
        }
    }
    Ok(())
}
