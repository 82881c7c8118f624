//! Programs of others: found or left out, spoken to by lines, never waited for without end.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

#[path = "../../../gateway/tests/shared/left_out.rs"]
mod shared;

pub(crate) use shared::left_out;

/// How long any one step of a program may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a program is. Where it is not, one line says so and the test is left out.
pub(crate) fn found(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        left_out(name, &format!("no {name} on this machine"));
    }
    found
}

/// What a program did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) success: bool,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    /// Fails unless it succeeded; gives what it printed.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert!(self.success, "{}\n{}", self.out, self.err);
        self.out
    }
}

/// Runs a program to its end with this on its standard input.
pub(crate) async fn run(mut command: Command, input: &str) -> Done {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // It may have gone without reading all of it.
    tokio::spawn(async move { stdin.write_all(input.as_bytes()).await });
    let done = tokio::time::timeout(PATIENCE, child.wait_with_output());
    let done = done.await.expect("the program ends").unwrap();
    Done {
        success: done.status.success(),
        out: String::from_utf8_lossy(&done.stdout).into_owned(),
        err: String::from_utf8_lossy(&done.stderr).into_owned(),
    }
}

/// A program that is spoken with while it runs.
pub(crate) struct Talk {
    pub(crate) child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Talk {
    /// Starts it.
    pub(crate) fn start(mut command: Command) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Writes to it.
    pub(crate) async fn say(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(text.as_bytes()).await.unwrap();
        stdin.flush().await.unwrap();
    }

    /// Its next line.
    pub(crate) async fn line(&mut self) -> String {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line());
        match line.await.expect("the program says something").unwrap() {
            Some(line) => line,
            None => panic!("it ended: {}", self.errors().await),
        }
    }

    /// What it complained of, once it has ended.
    pub(crate) async fn errors(&mut self) -> String {
        drop(self.child.stdin.take());
        let mut text = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        let read = tokio::time::timeout(PATIENCE, stderr.read_to_string(&mut text));
        read.await.expect("the program ends").unwrap();
        text
    }
}
