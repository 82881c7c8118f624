//! `curfew database setup NAME` and `curfew database check`: the accounts by which Curfew uses a
//! database, for whoever runs it.

use clap::{Args, Subcommand};
use curfew_gateway::config::{Config, PostgresResource};
use curfew_postgres::rights::{self, Problem, Severity};
use curfew_postgres::setup::{Administrator, Options, Setup, SetupError};
use serde::Serialize;

use super::passfile;
use crate::configuration::{self, ConfigArgument};
use crate::failure::{Exit, Failure, Outcome};
use crate::{say, terminal};

const SETUP_HELP: &str = "\
Without --apply the SQL goes to standard output, to be read and run with psql in the database. Password
files that the configuration names and that are not there are made either way, mode 0600.

What PostgreSQL gives to everybody (PUBLIC) cannot be kept from single accounts, so some of it is taken
from PUBLIC: temporary tables, new objects in `public`, and the built-in functions that make large
objects, notify, take advisory locks, write to the write-ahead log, and end or cancel what others run.
Applications that need any of it keep it by --grant-back.

The administrator's password comes from PGPASSWORD, from the password file of libpq, or is asked for.
With --host /var/run/postgresql the server may know the administrator by the user of this machine.";

/// The accounts by which Curfew uses a database.
#[derive(Args, Debug)]
pub(crate) struct Database {
    #[command(subcommand)]
    command: DatabaseCommand,
}

#[derive(Debug, Subcommand)]
enum DatabaseCommand {
    Setup(SetupArguments),
    Check(CheckArguments),
}

/// Gives the SQL that makes a database's accounts with no more rights than their classes, or runs it.
#[derive(Args, Debug)]
#[command(after_help = SETUP_HELP)]
struct SetupArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// The database, as Curfew calls it.
    name: String,
    /// Run it, and look afterwards at what the accounts can do.
    #[arg(long, requires = "user")]
    apply: bool,
    /// The administrator of the database who runs it: a superuser, or who owns all it names.
    #[arg(long = "as", value_name = "USER", requires = "apply")]
    user: Option<String>,
    /// Where to reach the server, if elsewhere than the configuration says: a name, an address, or the
    /// folder of its Unix socket.
    #[arg(long, requires = "apply")]
    host: Option<String>,
    /// The same for the port.
    #[arg(long, requires = "apply")]
    port: Option<u16>,
    /// A role that keeps what is taken from PUBLIC. `all`: every role there is now that would lose
    /// something; `none`: nobody. Can be given again.
    #[arg(long, value_name = "ROLE")]
    grant_back: Vec<String>,
    /// A schema with tables that the accounts are for; all but the system's otherwise. Can be given
    /// again.
    #[arg(long, value_name = "SCHEMA")]
    schema: Vec<String>,
    /// Leave rights to schemas, tables and sequences as they are: to give them by hand.
    #[arg(long, conflicts_with = "schema")]
    no_tables: bool,
}

/// Looks at what the accounts can do, as the gateway does before it serves a database.
#[derive(Args, Debug)]
struct CheckArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// One database, as Curfew calls it; all of them otherwise.
    name: Option<String>,
    /// Print one JSON object for each problem.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn database(arguments: Database) -> Outcome {
    match arguments.command {
        DatabaseCommand::Setup(arguments) => setup(arguments).await,
        DatabaseCommand::Check(arguments) => check(&arguments).await,
    }
}

fn find<'a>(config: &'a Config, name: &str) -> Outcome<&'a PostgresResource> {
    let mut all = config.postgres.iter();
    all.find(|one| one.name.as_str() == name).ok_or_else(|| {
        let known: Vec<&str> = config
            .postgres
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        Failure::hint(
            Exit::Usage,
            format_args!("the configuration has no database `{name}`"),
            match known.as_slice() {
                [] => "it has none at all".to_owned(),
                known => format!("it has: {}", known.join(", ")),
            },
        )
    })
}

async fn setup(arguments: SetupArguments) -> Outcome {
    let config = configuration::config(&arguments.config.config)?;
    let database = find(&config, &arguments.name)?;
    let setup = Setup::new(database).map_err(|error| match error {
        SetupError::NoAccounts(_) => Failure::hint(
            Exit::Usage,
            error,
            "write [postgres.accounts.read], .write and .ddl with `user` and `password_file`",
        ),
        SetupError::File { .. }
        | SetupError::Random(_)
        | SetupError::NoPassword
        | SetupError::Target(_)
        | SetupError::Server(_) => Failure::failed(error),
    })?;
    for file in setup.made() {
        say::note(format_args!("Made {}.", file.display()));
    }
    let mut options = Options {
        grant_back: arguments.grant_back.clone(),
        schemas: arguments.schema.clone(),
        leave_tables: arguments.no_tables,
    };
    let Some(user) = &arguments.user else {
        options.grant_back = named(&arguments.grant_back)?;
        say::line(setup.sql(&options));
        return Ok(());
    };
    let mut reached = database.clone();
    reached.host = arguments.host.clone().unwrap_or(reached.host);
    reached.port = arguments.port.unwrap_or(reached.port);
    let reach = Setup::new(&reached).map_err(Failure::failed)?;
    let mut administrator = sign_in(&reach, &reached, user).await?;
    options.grant_back = keepers(&mut administrator, &reach, &arguments.grant_back).await?;
    for notice in administrator.run(&reach.sql(&options)).await.map_err(|error| {
        Failure::hint(
            Exit::Failed,
            format_args!("nothing was changed: {error}"),
            "without --apply the SQL is printed; it needs a superuser, or who owns all it names",
        )
    })? {
        // What the server says goes to a terminal.
        say::note(curfew_export::visible(&notice));
    }
    say::note("The accounts are set up.");
    tell(&rights::check(database).await, false)
}

/// The roles in a list, which only a server could turn into more.
fn named(grant_back: &[String]) -> Outcome<Vec<String>> {
    if grant_back.iter().any(|role| role == "all") {
        return Err(Failure::hint(
            Exit::Usage,
            "--grant-back all needs --apply: only the server knows its roles",
            "name them one by one",
        ));
    }
    let named = grant_back.iter().filter(|role| *role != "none");
    Ok(named.cloned().collect())
}

/// Who keeps what is taken from PUBLIC. Whoever would lose it unnoticed is named first.
async fn keepers(
    administrator: &mut Administrator,
    setup: &Setup<'_>,
    grant_back: &[String],
) -> Outcome<Vec<String>> {
    if grant_back.iter().any(|role| role == "all") {
        return administrator.losing(setup).await.map_err(Failure::failed);
    }
    if grant_back.is_empty() {
        let losing = administrator.losing(setup).await.map_err(Failure::failed)?;
        if !losing.is_empty() {
            let losing: Vec<String> = losing
                .iter()
                .map(|role| curfew_export::visible(role).into_owned())
                .collect();
            return Err(Failure::hint(
                Exit::Usage,
                format_args!(
                    "these roles would lose what is taken from PUBLIC: {}",
                    losing.join(", ")
                ),
                "say who keeps it: --grant-back ROLE for each, --grant-back all, or --grant-back none; \
                 --help says what it is",
            ));
        }
    }
    named(grant_back)
}

/// Signs in as an administrator, with a password where the server asks for one.
async fn sign_in(
    setup: &Setup<'_>,
    reached: &PostgresResource,
    user: &str,
) -> Outcome<Administrator> {
    let known = match std::env::var("PGPASSWORD") {
        Ok(password) => Some(password),
        Err(_) => passfile::find(&reached.host, reached.port, &reached.database, user),
    };
    match setup.connect(user, known.map(Into::into)).await {
        Err(SetupError::NoPassword) => {
            let password = terminal::password(&format!("Password of {user} at the server: "))?;
            let again = setup.connect(user, Some(password.into())).await;
            again.map_err(Failure::failed)
        }
        signed_in => signed_in.map_err(Failure::failed),
    }
}

#[derive(Serialize)]
struct Told<'a> {
    database: &'a str,
    #[serde(flatten)]
    problem: &'a Problem,
}

async fn check(arguments: &CheckArguments) -> Outcome {
    let config = configuration::config(&arguments.config.config)?;
    let chosen: Vec<&PostgresResource> = match &arguments.name {
        Some(name) => vec![find(&config, name)?],
        None => config.postgres.iter().collect(),
    };
    let mut all = Vec::new();
    for database in chosen {
        let problems = rights::check(database).await;
        if arguments.json {
            for problem in &problems {
                say::json(&Told {
                    database: database.name.as_str(),
                    problem,
                });
            }
        }
        all.extend(problems);
    }
    tell(&all, arguments.json)
}

/// Says what was found; fails where a database would not be served.
fn tell(problems: &[Problem], is_told: bool) -> Outcome {
    let errors = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .count();
    if !is_told {
        for problem in problems {
            let text = curfew_export::visible(&problem.what);
            say::line(match problem.severity {
                Severity::Error => say::bad(format_args!("error    {text}")),
                Severity::Warning => format!("warning  {text}"),
            });
            if let Some(fix) = &problem.fix {
                say::line(format_args!("         {}", curfew_export::visible(fix)));
            }
        }
        if problems.is_empty() {
            say::line(say::good("The accounts can do no more than their classes."));
        }
    }
    match errors {
        0 => Ok(()),
        1 => Err(Failure::failed(
            "one problem has to be put right before it is served",
        )),
        many => Err(Failure::failed(format_args!(
            "{many} problems have to be put right before it is served"
        ))),
    }
}
