//! `curfew`: an access gateway whose sessions and audit log protect each other.

mod check;
mod client;
mod configuration;
mod database;
mod demo;
mod diagnostics;
mod failure;
mod key;
mod log;
mod login;
mod policy;
mod say;
mod serve;
mod sessions;
mod signals;
mod signer;
mod status;
mod terminal;
mod trust;
mod user;
mod witness;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::{EXIT_CODES, Failure, Outcome};

/// An access gateway: it stands in front of web apps, APIs and PostgreSQL databases, ends every
/// session on time, and keeps an audit log that anyone can check.
#[derive(Debug, Parser)]
#[command(name = "curfew", version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Demo),
    Init(serve::Init),
    Serve(serve::Serve),
    Check(check::Check),
    Status(status::Status),
    User(user::User),
    Policy(policy::Policy),
    Log(log::Log),
    Login(login::Login),
    Logout(login::Logout),
    Whoami(login::Whoami),
    Token(login::Token),
    Connect(database::Connect),
    Psql(database::Psql),
    Database(database::Database),
    Sessions(sessions::Sessions),
    Key(key::Key),
    Signer(signer::Signer),
    Witness(witness::Witness),
    #[command(hide = true)]
    Guard(demo::Guard),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    diagnostics::start();
    failure::start_telling();
    let outcome = run(arguments.command);
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            say::note(failure.text());
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn run(command: Command) -> Outcome<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format_args!("cannot start threads: {error}")))?;
    let outcome = runtime.block_on(carry_out(command));
    // Reading standard input cannot be interrupted; nobody waits for it.
    runtime.shutdown_background();
    outcome
}

async fn carry_out(command: Command) -> Outcome<ExitCode> {
    match command {
        Command::Demo(arguments) => demo::demo(arguments).await?,
        Command::Guard(arguments) => demo::guard(arguments).await?,
        Command::Init(arguments) => serve::init(&arguments)?,
        Command::Serve(arguments) => serve::serve(&arguments).await?,
        Command::Status(arguments) => status::status(&arguments).await?,
        Command::User(arguments) => user::user(arguments).await?,
        Command::Policy(arguments) => policy::policy(arguments).await?,
        Command::Login(arguments) => login::login(arguments).await?,
        Command::Logout(arguments) => login::logout(&arguments).await?,
        Command::Whoami(arguments) => login::whoami(&arguments).await?,
        Command::Token(arguments) => login::token(&arguments)?,
        Command::Connect(arguments) => database::connect(&arguments).await?,
        Command::Psql(arguments) => database::psql(&arguments).await?,
        Command::Database(arguments) => database::database(arguments).await?,
        Command::Sessions(arguments) => sessions::sessions(&arguments).await?,
        Command::Key(arguments) => key::key(&arguments)?,
        Command::Signer(arguments) => signer::signer(arguments).await?,
        Command::Witness(arguments) => witness::witness(arguments).await?,
        Command::Check(arguments) => return check::check(&arguments).await,
        Command::Log(arguments) => return log::log(arguments.command).await,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
