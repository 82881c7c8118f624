//! `curfew check`: what is wrong or doubtful about a set-up, before anybody meets it. `curfew serve` looks
//! at the same at its start, and now and then while it runs.

mod accounts;
mod files;
mod host;
mod reach;

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use curfew_export::visible;
use curfew_gate::problem::{Problem, Severity};
use serde::Serialize;

use crate::configuration::{self, ConfigArgument, Loaded};
use crate::failure::{Exit, Failure, Outcome};
use crate::say;

pub(crate) use host::raise_open_files;

const AFTER_HELP: &str = "\
Looks at: configuration and policy; the certificate, its time and the hosts it names; who else can read keys
and password files; the data folder, the room where it is, and whether the log is this configuration's; the
clock; limits of the process; ports; web apps and databases behind Curfew, and the accounts it uses there;
roles of accounts that no rule speaks of.

Exit codes:
  0  Curfew starts with this (there may be warnings)
  2  it does not; with --strict also where there are warnings";

/// Says what is wrong or doubtful about configuration, policy, files, this host and what is behind Curfew.
/// Changes nothing.
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Check {
    #[command(flatten)]
    config: ConfigArgument,
    /// Print one JSON object with the list of problems.
    #[arg(long)]
    json: bool,
    /// Warnings count as errors.
    #[arg(long)]
    strict: bool,
    /// Connect to nothing: leave out what is behind Curfew.
    #[arg(long)]
    offline: bool,
}

#[derive(Serialize)]
struct Found<'a> {
    problems: &'a [Problem],
}

pub(crate) async fn check(arguments: &Check) -> Outcome<ExitCode> {
    let path = &arguments.config.config;
    let problems = match configuration::load(path) {
        Ok(loaded) => {
            let mut problems = local(&loaded);
            problems.extend(host::conditions(&loaded.config));
            problems.extend(host::ports(&loaded.config).await);
            problems.extend(accounts::roles(&loaded).await);
            if !arguments.offline {
                problems.extend(reach::all(&loaded.config).await);
            }
            problems
        }
        Err(failure) if arguments.json => vec![unread(path, &failure)],
        Err(failure) => return Err(failure),
    };
    if arguments.json {
        say::json(&Found {
            problems: &problems,
        });
    } else {
        show(&problems);
    }
    let grave = |problem: &Problem| arguments.strict || problem.severity == Severity::Error;
    Ok(if problems.iter().any(grave) {
        ExitCode::from(Exit::Usage as u8)
    } else {
        ExitCode::SUCCESS
    })
}

fn unread(path: &Path, failure: &Failure) -> Problem {
    let place = path.display().to_string();
    Problem::error(place, failure.text(), "see docs/configuration.md")
}

/// What files and this host tell, which takes no time. In order of gravity.
pub(crate) fn local(loaded: &Loaded) -> Vec<Problem> {
    let config = &loaded.config;
    let mut problems = curfew_gateway::certificate::problems(config);
    problems.extend(files::problems(config));
    problems.extend(host::problems(config));
    problems.sort_by_key(|problem| problem.severity);
    problems
}

/// What can change while the gateway runs, web apps behind it among that. Its databases, the clock and the
/// room there is it watches itself.
pub(crate) async fn running(loaded: &Loaded) -> Vec<Problem> {
    let mut problems = local(loaded);
    problems.extend(accounts::roles(loaded).await);
    problems.extend(reach::apps(&loaded.config).await);
    problems
}

/// What to say at a start beside that.
pub(crate) fn at_start(loaded: &Loaded) -> Vec<Problem> {
    host::conditions(&loaded.config)
}

/// Refuses what Curfew does not start with, all of it at once.
pub(crate) fn refuse(problems: &[Problem]) -> Outcome {
    let errors: Vec<String> = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .map(|problem| format!("{problem}\n    {}", problem.fix))
        .collect();
    if errors.is_empty() {
        return Ok(());
    }
    Err(Failure::hint(
        Exit::Usage,
        errors.join("\n"),
        "`curfew check` says it again, and what else is doubtful",
    ))
}

/// A problem, with what to do about it on a line of its own.
pub(crate) fn told(problem: &Problem) -> String {
    let head = match problem.severity {
        Severity::Error => say::bad("error"),
        Severity::Warning => say::bold("warning"),
    };
    // What others say, such as databases, goes to a terminal.
    let (text, fix) = (problem.to_string(), visible(&problem.fix));
    format!("{head}: {}\n    {fix}", visible(&text))
}

fn show(problems: &[Problem]) {
    for problem in problems {
        say::line(told(problem));
    }
    if problems.is_empty() {
        say::line("no problem");
    }
}
