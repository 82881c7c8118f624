//! `curfew status`: how the log and those who follow it stand.

use std::io::ErrorKind;

use clap::Args;
use curfew_custody::progress::Follower;
use curfew_export::visible;
use curfew_gateway::control::{self, Operation, OperatorStatus, Outcome as Answer};
use curfew_gateway::data::DataDir;
use curfew_postgres::{DatabaseState, DatabaseStatus};

use crate::configuration::{self, ConfigArgument};
use crate::failure::{Exit, Failure, Outcome};
use crate::{check, say};

const AFTER_HELP: &str = "\
HAS is how many entries it has acknowledged, LACKS how many signed ones it has not, SINCE when the
oldest of these was recorded. A receiver that keeps up lacks what was signed within the last second or,
with syslog, within `window`; an archive within `every`, timestamps within `interval`.";

/// How the log of a running gateway stands, how far receivers, archive, witnesses and the timestamping
/// authority have come (what each lacks, since when, and the last error), and which databases are served. For the operator
/// of its host; those with a session see it on the portal's log page.
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Status {
    #[command(flatten)]
    config: ConfigArgument,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn status(arguments: &Status) -> Outcome {
    let data = DataDir::of(&configuration::config(&arguments.config.config)?);
    let socket = data.control_socket();
    let answer = control::request(&socket, &Operation::Status).await;
    let answer = answer.map_err(|error| {
        let kind = error.kind();
        if matches!(kind, ErrorKind::NotFound | ErrorKind::ConnectionRefused) {
            Failure::failed("no gateway runs with this configuration")
        } else if kind == ErrorKind::PermissionDenied {
            Failure::hint(
                Exit::Refused,
                format_args!("{}: {error}", socket.display()),
                "run this as the user that `curfew serve` runs as",
            )
        } else {
            Failure::failed(format_args!("the gateway did not answer: {error}"))
        }
    })?;
    let standing = match answer {
        Answer::Status(standing) => standing,
        Answer::Failed(text) => return Err(Failure::failed(text)),
        Answer::Done | Answer::Enrolled { .. } | Answer::Users(_) | Answer::Sessions(_) => {
            return Err(Failure::failed("the gateway gave no status"));
        }
    };
    if arguments.json {
        say::json(&standing);
    } else {
        show(&standing);
    }
    Ok(())
}

fn show(all: &OperatorStatus) {
    let standing = &all.status;
    let not_signed = standing.not_signed.map_or_else(String::new, |cause| {
        say::bad(format_args!("; none is signed now: {}", cause.as_str()))
    });
    say::line(format_args!(
        "{} entries, {} under a signed checkpoint{not_signed}",
        standing.entries, standing.signed
    ));
    for condition in &standing.conditions {
        say::line(say::bad(format_args!(
            "{} since {}: {}",
            condition.part.as_str(),
            second(&condition.since.to_string()),
            visible(&condition.text),
        )));
    }
    let none = Vec::new();
    let checked = standing.checked.as_ref();
    let problems = checked.map_or(&none, |checked| &checked.problems);
    for problem in problems {
        say::line(check::told(problem));
    }
    let failing = standing.followers.iter().any(|it| it.failing.is_some());
    let troubled = all
        .databases
        .iter()
        .any(|it| !matches!(&it.state, DatabaseState::Served { problems } if problems.is_empty()));
    if standing.conditions.is_empty()
        && standing.not_signed.is_none()
        && problems.is_empty()
        && !failing
        && !troubled
    {
        say::line("no problem is known");
    }
    show_followers(&standing.followers);
    show_databases(&all.databases);
}

fn show_databases(databases: &[DatabaseStatus]) {
    if databases.is_empty() {
        return;
    }
    say::line("");
    say::line(say::bold(format_args!("{:<20} STATE", "DATABASE")));
    for database in databases {
        let name = &database.name;
        let (state, problems) = match &database.state {
            DatabaseState::Unchecked => ("not looked at yet".to_owned(), &[][..]),
            DatabaseState::Served { problems } => ("served".to_owned(), problems.as_slice()),
            DatabaseState::Refused { problems } => (
                say::bad("not served, until this is put right:"),
                problems.as_slice(),
            ),
            DatabaseState::Down { error } => {
                let error = curfew_export::visible(error);
                let state = say::bad(format_args!("not served, cannot be asked: {error}"));
                (state, &[][..])
            }
        };
        say::line(format_args!("{name:<20} {state}"));
        for problem in problems {
            // Names of the server's objects go to a terminal.
            say::line(format_args!(
                "  {}",
                curfew_export::visible(&problem.to_string())
            ));
        }
    }
}

fn show_followers(followers: &[Follower]) {
    if followers.is_empty() {
        return;
    }
    say::line("");
    say::line(say::bold(format_args!(
        "{:<20} {:<10} {:>10} {:>10} {:<20} STATE",
        "NAME", "KIND", "HAS", "LACKS", "SINCE"
    )));
    for follower in followers {
        say::line(row(follower));
    }
}

/// A time, to the second.
fn second(at: &str) -> String {
    at.chars().take(19).collect()
}

fn row(follower: &Follower) -> String {
    let count = |count: Option<u64>| count.map_or("?".to_owned(), |count| count.to_string());
    let since = follower.since.map(|at| second(&at.to_string()));
    let state = match &follower.failing {
        Some(failing) => say::bad(format_args!(
            "fails since {}: {}",
            second(&failing.since.to_string()),
            // What a receiver says goes to a terminal.
            visible(&failing.error),
        )),
        None => String::new(),
    };
    let row = format!(
        "{:<20} {:<10} {:>10} {:>10} {:<20} {state}",
        follower.name,
        follower.kind.as_str(),
        count(follower.has),
        count(follower.lacks),
        since.unwrap_or_default(),
    );
    row.trim_end().to_owned()
}
