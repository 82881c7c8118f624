//! `curfew demo`: a real PostgreSQL, a small web app and API, and Curfew before all three, in a
//! throw-away folder on this machine.

mod app;
mod code;
mod files;
mod guard;
mod once;
mod page;
mod postgres;
mod stage;

use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Doing, Outcome};
use crate::say;

pub(crate) use guard::{Guard, guard};

/// Shows everything at work on this machine, with nothing to configure. Ctrl-C leaves nothing.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Demo {
    /// Walk the whole story by itself, print what was seen, and exit non-zero if any step is not
    /// as promised. Takes about ten seconds.
    #[arg(long)]
    once: bool,
    #[command(subcommand)]
    command: Option<DemoCommand>,
}

#[derive(Debug, Subcommand)]
enum DemoCommand {
    /// Print the one-time code that an authenticator app would show for a user of the demo.
    Code {
        /// ana or dan.
        name: String,
        /// The port of the demo's pages, where more than one demo is running.
        #[arg(long)]
        port: Option<u16>,
    },
}

pub(crate) async fn demo(arguments: Demo) -> Outcome {
    match arguments.command {
        Some(DemoCommand::Code { name, port }) => code::print(&name, port),
        None if arguments.once => once::walk().await,
        None => show().await,
    }
}

/// Runs until Ctrl-C. Curfew is started again when somebody kills it, which is worth trying.
async fn show() -> Outcome {
    let mut terminate = signal(SignalKind::terminate()).doing("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).doing("cannot listen for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).doing("cannot listen for SIGHUP")?;
    let mut asked = std::pin::pin!(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    });
    let mut tell = |text: &str| say::note(text);
    let mut stage = tokio::select! {
        () = &mut asked => return Ok(()),
        stage = stage::Stage::build(stage::Pace::People, &mut tell) => stage?,
    };
    code::remember(&stage.users, stage.ports.web)?;
    page::print(&stage);
    loop {
        tokio::select! {
            () = &mut asked => break,
            status = stage.curfew.exited() => {
                say::note(format_args!("Curfew is gone ({status}). Starting it again; the log says which sessions live on."));
                stage.start_curfew().await?;
                say::note("It runs again.");
            }
        }
    }
    say::note("Stopping …");
    code::forget(stage.ports.web);
    stage.close().await;
    Ok(())
}
