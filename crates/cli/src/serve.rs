//! `curfew init` and `curfew serve`.

use clap::Args;
use curfew_gateway::data::DataDir;
use serde::Serialize;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::configuration::{self, ConfigArgument};
use crate::failure::{Doing, Exit, Failure, Outcome};
use crate::say;

/// Makes the data folder: keys and an empty audit log.
#[derive(Args, Debug)]
pub(crate) struct Init {
    #[command(flatten)]
    config: ConfigArgument,
}

/// Runs the gateway until SIGINT or SIGTERM.
#[derive(Args, Debug)]
pub(crate) struct Serve {
    #[command(flatten)]
    config: ConfigArgument,
    /// Once it listens, say where as one line of JSON.
    #[arg(long)]
    json: bool,
    /// Stop when standard input ends, as it does when the parent is gone.
    #[arg(long, hide = true)]
    until_stdin_ends: bool,
}

/// The line that says it is ready.
#[derive(Serialize)]
struct Ready {
    ready: bool,
    web: String,
    postgres: Option<String>,
}

pub(crate) fn init(arguments: &Init) -> Outcome {
    let config = configuration::config(&arguments.config.config)?;
    let key = DataDir::of(&config)
        .create(&config.origin)
        .map_err(|error| Failure::failed(&error))?;
    say::note(format_args!("Made {}.", config.data.display()));
    say::note(
        "Keep this verifier key where whoever keeps the log cannot change it. \
         `curfew-verify --key` needs it:",
    );
    say::line(key);
    say::note(
        "Next: `curfew user add NAME --role ROLE`, then `curfew serve`. Back up the folder `keys`.",
    );
    Ok(())
}

pub(crate) async fn serve(arguments: &Serve) -> Outcome {
    // Before anything listens: whoever asks it to stop from then on is heard, once it has started.
    let mut asked = Asked::listen()?;
    let loaded = configuration::load(&arguments.config.config)?;
    let running = curfew_gateway::start(loaded.config, &loaded.policy_name, &loaded.policy)
        .await
        .map_err(|error| start_failure(&error))?;
    let ready = Ready {
        ready: true,
        web: running.web.to_string(),
        postgres: running.postgres.map(|address| address.to_string()),
    };
    if arguments.json {
        say::json(&ready);
    } else {
        say::note(format_args!("pages and APIs: https on {}", ready.web));
        if let Some(postgres) = &ready.postgres {
            say::note(format_args!("databases:      postgresql on {postgres}"));
        }
    }
    let ended = tokio::select! {
        () = asked.wait(arguments.until_stdin_ends) => Ok(()),
        () = running.failed() => Err(Failure::hint(
            Exit::Failed,
            "the gateway failed and admits nothing more",
            "what the log says above is a fault of Curfew; start it again",
        )),
    };
    let stopped = running.stop().await;
    ended?;
    stopped.map_err(|refusal| {
        Failure::failed(format_args!(
            "stopped, but the end could not be recorded: {refusal:?}"
        ))
    })
}

fn start_failure(error: &curfew_gateway::StartError) -> Failure {
    let text = error.to_string();
    if text.contains("another process") || text.contains("already open") {
        let hint = "is a `curfew serve` running on this data folder?";
        return Failure::hint(Exit::Failed, text, hint);
    }
    Failure::failed(text)
}

/// The signals that ask it to stop, and do not end it any more from when this is made.
struct Asked {
    terminate: Signal,
    interrupt: Signal,
}

impl Asked {
    fn listen() -> Outcome<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).doing("cannot listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).doing("cannot listen for SIGINT")?,
        })
    }

    async fn wait(&mut self, or_stdin_ends: bool) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = stdin_end(), if or_stdin_ends => {}
        }
    }
}

/// Waits for the end of standard input.
pub(crate) async fn stdin_end() {
    let mut stdin = tokio::io::stdin();
    let mut dropped = [0; 256];
    while let Ok(1..) = stdin.read(&mut dropped).await {}
}
