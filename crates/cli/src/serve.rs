//! `curfew init` and `curfew serve`.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use curfew_gate::problem::Problem;
use curfew_gateway::Running;
use curfew_gateway::data::DataDir;
use serde::Serialize;
use tokio::io::AsyncReadExt;
use tokio::time::MissedTickBehavior;

use crate::configuration::{self, ConfigArgument, Loaded};
use crate::failure::{Exit, Failure, Outcome};
use crate::signals::{Asked, Asking};
use crate::{check, say};

/// How often a running gateway looks at its set-up again: certificates run out, modes are changed, what is
/// behind it goes.
const LOOK_EVERY: Duration = Duration::from_secs(15 * 60);

/// Makes the data folder: keys and an empty audit log.
#[derive(Args, Debug)]
pub(crate) struct Init {
    #[command(flatten)]
    config: ConfigArgument,
}

/// Runs the gateway until SIGINT, SIGTERM or SIGQUIT. SIGHUP takes in the policy and the certificate as they
/// are now, without a restart. It looks first at what `curfew check` looks at, and does not start with errors.
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
    let file = &arguments.config.config;
    let loaded = configuration::load(file)?;
    let problems = check::local(&loaded);
    check::refuse(&problems)?;
    check::raise_open_files(&loaded.config);
    let config = loaded.config.clone();
    let running = curfew_gateway::start(config, &loaded.policy_name, &loaded.policy)
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
    let ended = run(
        file,
        loaded,
        &running,
        &mut asked,
        arguments.until_stdin_ends,
    )
    .await;
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

/// Goes on until somebody asks it to stop, and does what else it is asked.
async fn run(
    file: &Path,
    mut loaded: Loaded,
    running: &Running,
    asked: &mut Asked,
    until_stdin_ends: bool,
) -> Outcome {
    // The first look, at what is behind Curfew as well, is taken at once.
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tell(&check::at_start(&loaded), &mut Vec::new());
    let mut told = Vec::new();
    let stdin = stdin_end();
    tokio::pin!(stdin);
    loop {
        tokio::select! {
            what = asked.next() => match what {
                Asking::Stop => return Ok(()),
                Asking::Reload => if let Some(new) = reload(file, running).await {
                    loaded = new;
                    look.reset_immediately();
                },
                Asking::Nothing(signal) => {
                    tracing::warn!(signal, "this signal means nothing to Curfew");
                }
            },
            () = &mut stdin, if until_stdin_ends => return Ok(()),
            _ = look.tick() => {
                // Whoever asks to stop does not wait for what does not answer.
                let problems = tokio::select! {
                    problems = check::running(&loaded) => problems,
                    () = asked.stop() => return Ok(()),
                };
                tell(&problems, &mut told);
                running.checked(problems);
            }
            () = running.failed() => return Err(Failure::hint(
                Exit::Failed,
                "the gateway failed and admits nothing more",
                "what the log says above is a fault of Curfew; start it again",
            )),
        }
    }
}

/// Says what was not said before.
fn tell(problems: &[Problem], told: &mut Vec<Problem>) {
    for problem in problems.iter().filter(|problem| !told.contains(problem)) {
        tracing::warn!(fix = problem.fix, "{problem}");
    }
    problems.clone_into(told);
}

/// Takes in what can be taken in without a restart, and says what became of it. Gives what was read.
async fn reload(file: &Path, running: &Running) -> Option<Loaded> {
    let loaded = match configuration::load(file) {
        Ok(loaded) => loaded,
        Err(failure) => {
            let text = failure.brief();
            tracing::error!("nothing is reloaded, `curfew check` says more: {text}");
            running.not_reloaded(text);
            return None;
        }
    };
    let reloaded = running
        .reload(&loaded.config, &loaded.policy_name, &loaded.policy)
        .await;
    for failed in &reloaded.failed {
        tracing::error!("not reloaded, what was in force stays: {failed}");
    }
    for left in &reloaded.left {
        tracing::warn!("{left} has changed, which takes a restart");
    }
    for taken in &reloaded.taken {
        tracing::info!("reloaded: {taken}");
    }
    if reloaded.taken.is_empty() && reloaded.failed.is_empty() {
        tracing::info!("reloaded: policy and certificate are as before");
    }
    Some(loaded)
}

/// Waits for the end of standard input.
pub(crate) async fn stdin_end() {
    let mut stdin = tokio::io::stdin();
    let mut dropped = [0; 256];
    while let Ok(1..) = stdin.read(&mut dropped).await {}
}
