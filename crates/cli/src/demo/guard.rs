//! `curfew guard`: runs a program and stops it when standard input ends. The demo holds the other
//! end, so whatever becomes of the demo, even kill -9, the program does not outlive it.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Doing, Outcome};
use crate::serve::stdin_end;

/// How long the program may take to stop before it is killed.
const STOP: Duration = Duration::from_secs(5);

/// How often a folder is tried to be removed while others may still write in it, and the pause.
const REMOVE_TRIES: u32 = 10;
const REMOVE_PAUSE: Duration = Duration::from_millis(500);

/// Runs a program until standard input ends.
#[derive(Args, Debug)]
pub(crate) struct Guard {
    /// Run it as this user.
    #[arg(long)]
    uid: Option<u32>,
    /// Run it in this group.
    #[arg(long)]
    gid: Option<u32>,
    /// Remove this folder afterwards.
    #[arg(long)]
    remove: Option<PathBuf>,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    program: Vec<String>,
}

pub(crate) async fn guard(arguments: Guard) -> Outcome {
    let Some((program, rest)) = arguments.program.split_first() else {
        return Ok(());
    };
    let mut terminate = signal(SignalKind::terminate()).doing("cannot listen for SIGTERM")?;
    let mut command = Command::new(program);
    command
        .args(rest)
        .stdin(Stdio::null())
        .current_dir("/")
        .kill_on_drop(true);
    if let Some(gid) = arguments.gid {
        command.gid(gid);
    }
    if let Some(uid) = arguments.uid {
        command.uid(uid);
    }
    let mut child = command
        .spawn()
        .doing(format_args!("cannot start {program}"))?;
    tokio::select! {
        _ = child.wait() => {}
        () = stdin_end() => stop(&mut child).await,
        _ = terminate.recv() => stop(&mut child).await,
    }
    if let Some(folder) = &arguments.remove {
        for _ in 0..REMOVE_TRIES {
            if std::fs::remove_dir_all(folder).is_ok() || !folder.exists() {
                break;
            }
            tokio::time::sleep(REMOVE_PAUSE).await;
        }
    }
    Ok(())
}

async fn stop(child: &mut Child) {
    let pid = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // PostgreSQL takes SIGINT as: close all connections and stop.
        let _ = kill_process(pid, Signal::INT);
    }
    if tokio::time::timeout(STOP, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}
