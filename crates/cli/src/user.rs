//! `curfew user …`: accounts, for whoever operates the host. Through the control socket while the
//! gateway runs, otherwise straight on the data folder.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use clap::{Args, Subcommand};
use curfew_entry::{RoleName, SubjectName};
use curfew_gateway::Core;
use curfew_gateway::control::{self, Desk, Operation, Outcome as Answer};
use curfew_gateway::data::DataDir;

use crate::configuration::{self, ConfigArgument, Loaded};
use crate::failure::{Doing, Exit, Failure, Outcome};
use crate::{say, terminal};

/// Accounts: add, list, disable. On the gateway's host.
#[derive(Args, Debug)]
pub(crate) struct User {
    #[command(subcommand)]
    command: UserCommand,
    #[command(flatten)]
    config: ConfigArgument,
    /// Print the answer as JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Add an account. Shows its TOTP secret once.
    Add {
        /// The name to sign in with.
        name: SubjectName,
        /// A role, as the policy names it. May be given more than once.
        #[arg(long = "role", value_name = "ROLE", required = true)]
        roles: Vec<RoleName>,
        /// Take the password from the first line of standard input.
        #[arg(long)]
        password_stdin: bool,
    },
    /// List all accounts.
    List,
    /// Disable an account. Its sessions end everywhere, at once.
    Disable {
        /// Whose.
        name: SubjectName,
    },
    /// Enable an account again.
    Enable {
        /// Whose.
        name: SubjectName,
    },
    /// Set a new password. The account's sessions end.
    Passwd {
        /// Whose.
        name: SubjectName,
        /// Take the password from the first line of standard input.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Make a new TOTP secret and show it once. The account's sessions end.
    Totp {
        /// Whose.
        name: SubjectName,
    },
}

fn ask_password(name: &SubjectName, from_stdin: bool) -> Outcome<control::Password> {
    let text = if from_stdin {
        terminal::read_line()?
    } else {
        terminal::new_password(name.as_str())?
    };
    Ok(text.into())
}

impl UserCommand {
    fn operation(self) -> Outcome<Operation> {
        Ok(match self {
            Self::Add {
                name,
                roles,
                password_stdin,
            } => Operation::UserAdd {
                password: ask_password(&name, password_stdin)?,
                roles: roles.into_iter().collect::<BTreeSet<_>>(),
                name,
            },
            Self::List => Operation::UserList,
            Self::Disable { name } => Operation::UserDisable { name },
            Self::Enable { name } => Operation::UserEnable { name },
            Self::Passwd {
                name,
                password_stdin,
            } => Operation::UserPassword {
                password: ask_password(&name, password_stdin)?,
                name,
            },
            Self::Totp { name } => Operation::UserTotp { name },
        })
    }
}

pub(crate) async fn user(arguments: User) -> Outcome {
    let loaded = configuration::load(&arguments.config.config)?;
    let answer = carry_out(&loaded, arguments.command.operation()?).await?;
    if arguments.json {
        say::json(&answer);
        return Ok(());
    }
    match answer {
        Answer::Done => say::note("Done and recorded."),
        Answer::Enrolled {
            uri,
            secret,
            warnings,
        } => {
            show_enrolment(&uri, &secret);
            for warning in warnings {
                say::warning(warning);
            }
        }
        Answer::Users(users) => show_users(&users),
        Answer::Sessions(sessions) => say::json(&sessions),
        Answer::Status(status) => say::json(&status),
        Answer::Failed(text) => return Err(Failure::failed(text)),
    }
    Ok(())
}

/// Carries out an operator's operation, whether the gateway runs or not.
pub(crate) async fn carry_out(loaded: &Loaded, operation: Operation) -> Outcome<Answer> {
    let data = DataDir::of(&loaded.config);
    let answer = match control::request(&data.control_socket(), &operation).await {
        Ok(answer) => answer,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused
            ) =>
        {
            offline(loaded, operation).await?
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Err(Failure::hint(
                Exit::Refused,
                format_args!("{}: {error}", data.control_socket().display()),
                "run this as the user that `curfew serve` runs as",
            ));
        }
        Err(error) => {
            return Err(Failure::failed(format_args!(
                "the gateway did not answer: {error}"
            )));
        }
    };
    match &answer {
        Answer::Failed(text) => Err(Failure::failed(text)),
        Answer::Done
        | Answer::Enrolled { .. }
        | Answer::Users(_)
        | Answer::Sessions(_)
        | Answer::Status(_) => Ok(answer),
    }
}

async fn offline(loaded: &Loaded, operation: Operation) -> Outcome<Answer> {
    let core = Core::open(&loaded.config, &loaded.policy_name, &loaded.policy)
        .await
        .map_err(|error| Failure::failed(&error))?;
    let by = format!("uid {}", rustix::process::getuid().as_raw());
    let answer = Desk::offline(&core, &loaded.config)
        .carry_out(operation, &by)
        .await;
    core.registrar
        .stop()
        .await
        .map_err(|refusal| format!("{refusal:?}"))
        .doing("the audit log could not be closed")?;
    Ok(answer)
}

fn show_enrolment(uri: &str, secret: &str) {
    if say::to_terminal()
        && let Some(code) = terminal::qr_code(uri)
    {
        say::line(code);
    }
    say::note("Scan this with an authenticator app, or type the secret in. It is shown this once:");
    say::line(format_args!("secret  {secret}"));
    say::line(format_args!("uri     {uri}"));
}

fn show_users(users: &serde_json::Value) {
    let empty = Vec::new();
    let users = users.as_array().unwrap_or(&empty);
    say::line(say::bold(format_args!(
        "{:<24} {:<32} {}",
        "NAME", "ROLES", "STATE"
    )));
    for user in users {
        let text = |field: &str| {
            user.get(field)
                .and_then(serde_json::Value::as_str)
                .unwrap_or("")
        };
        let is = |field: &str| user.get(field).and_then(serde_json::Value::as_bool) == Some(true);
        let roles: Vec<&str> = user
            .get("roles")
            .and_then(serde_json::Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(serde_json::Value::as_str)
            .collect();
        let state = match (is("disabled"), is("locked")) {
            (true, _) => "disabled",
            (false, true) => "locked after failures: set a new password",
            (false, false) => "",
        };
        say::line(format_args!(
            "{:<24} {:<32} {state}",
            text("subject"),
            roles.join(" ")
        ));
    }
}
