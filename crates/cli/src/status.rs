//! `curfew status`: how the log and those who follow it stand.

use std::io::ErrorKind;

use clap::Args;
use curfew_gateway::control::{self, Operation, Outcome as Answer};
use curfew_gateway::data::DataDir;
use curfew_gateway::standing::{Follower, Status as Standing};
use curfew_verify::authority::visible;

use crate::configuration::{self, ConfigArgument};
use crate::failure::{Exit, Failure, Outcome};
use crate::say;

const AFTER_HELP: &str = "\
HAS is how many entries it has acknowledged, LACKS how many signed ones it has not, SINCE when the
oldest of these was recorded. A receiver that keeps up lacks what was signed within the last second or,
with syslog, within `window`; an archive within `every`, timestamps within `interval`.";

/// How the log of a running gateway stands, and how far receivers, archive, witnesses and the
/// timestamping authority have come: what each lacks, since when, and the last error. For the operator
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

fn show(standing: &Standing) {
    let not_signed = standing.not_signed.map_or_else(String::new, |cause| {
        say::bad(format_args!("; none is signed now: {}", cause.as_str()))
    });
    say::line(format_args!(
        "{} entries, {} under a signed checkpoint{not_signed}",
        standing.entries, standing.signed
    ));
    if standing.followers.is_empty() {
        return;
    }
    say::line("");
    say::line(say::bold(format_args!(
        "{:<20} {:<10} {:>10} {:>10} {:<20} STATE",
        "NAME", "KIND", "HAS", "LACKS", "SINCE"
    )));
    for follower in &standing.followers {
        say::line(row(follower));
    }
}

fn row(follower: &Follower) -> String {
    let count = |count: Option<u64>| count.map_or("?".to_owned(), |count| count.to_string());
    let second = |at: String| at.chars().take(19).collect::<String>();
    let since = follower.since.map(|at| second(at.to_string()));
    let state = match &follower.failing {
        Some(failing) => say::bad(format_args!(
            "fails since {}: {}",
            second(failing.since.to_string()),
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
