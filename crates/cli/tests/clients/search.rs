//! `curfew log search`, as somebody who has signed in runs it.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use tokio::process::Command;

use crate::stage::{PORTAL, Person, Stage};
use crate::tool::{Done, run};

/// A sign-in as `curfew login` keeps it.
pub(crate) fn keep(folder: &Path, stage: &Stage, person: &Person) {
    let folder = folder.join("curfew");
    std::fs::create_dir_all(&folder).unwrap();
    let saved = serde_json::json!({
        "server": stage.url(PORTAL, "/"),
        "token": person.bearer,
        "ca": stage.ca,
    });
    let mut options = std::fs::OpenOptions::new();
    let path = folder.join(format!("{PORTAL}_{}.json", stage.web));
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    serde_json::to_writer(file.unwrap(), &saved).unwrap();
}

async fn search(stage: &Stage, folder: &Path, arguments: &[&str]) -> Done {
    let mut command = Command::new(env!("CARGO_BIN_EXE_curfew"));
    command
        .env("XDG_CONFIG_HOME", folder)
        .args(["log", "search", "--server", &stage.url(PORTAL, "/")])
        .args(arguments);
    run(command, "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_searched_from_the_command_line() {
    let stage = Stage::get().await;
    let folder = tempfile::tempdir().unwrap();
    let auditor = stage.person("searcher", "auditor").await;
    keep(folder.path(), stage, &auditor);
    let found = search(
        stage,
        folder.path(),
        &["--session", &auditor.session, "-n", "2"],
    )
    .await;
    assert!(found.err.contains("go on with --before"), "{}", found.err);
    let shown = found.ok();
    assert_eq!(shown.lines().count(), 2, "{shown}");
    assert!(
        shown.contains("subject=searcher") && shown.contains("verb=log.read"),
        "{shown}"
    );

    let asked = [
        "--kind",
        "session.started",
        "--subject",
        "searcher",
        "--json",
    ];
    let found = search(stage, folder.path(), &asked).await.ok();
    let line: serde_json::Value = serde_json::from_str(found.trim()).unwrap();
    assert_eq!(line["entry"]["session"], auditor.session.as_str());
    assert!(line["index"].is_u64());

    let wrong = search(stage, folder.path(), &["--since", "soon"]).await;
    assert!(
        !wrong.success && wrong.err.contains("--since: `soon` is no moment"),
        "{wrong:?}"
    );

    let other = tempfile::tempdir().unwrap();
    let worker = stage.person("curious", "worker").await;
    keep(other.path(), stage, &worker);
    let refused = search(stage, other.path(), &["--text", "password"]).await;
    assert!(
        !refused.success && refused.err.contains("does not permit"),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_send_cannot_move_the_terminal_of_whoever_reads_the_log() {
    let stage = Stage::get().await;
    let folder = tempfile::tempdir().unwrap();
    let auditor = stage.person("reader", "auditor").await;
    keep(folder.path(), stage, &auditor);
    let worker = stage.person("painter", "worker").await;
    let mut psql = Command::new(crate::stage::postgres::program("psql"));
    psql.args(["-X", "-A", "-t", "-q"])
        .envs(stage.through(&worker))
        .env("PGAPPNAME", "\u{1b}]0;pwn\u{7}\u{1b}[2J subject=root");
    let statement = "select 1 as \"a\u{202e}\u{200b}\u{9b}2J painted\";\n";
    run(psql, statement).await.ok();
    let tail = async |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_curfew"));
        command
            .env("XDG_CONFIG_HOME", folder.path())
            .args(["log", "tail", "--server", &stage.url(PORTAL, "/")])
            .args(arguments);
        run(command, "").await.ok()
    };
    let found = search(stage, folder.path(), &["--subject", "painter"]).await;
    for shown in [found.ok(), tail(&["-n", "200"]).await] {
        let line = |wanted: &str| {
            let mut lines = shown.lines();
            lines
                .find(|line| line.contains(wanted))
                .unwrap_or_else(|| panic!("{wanted}: {shown}"))
        };
        let client = "client=\"\\u001b]0;pwn\\u0007\\u001b[2J subject=root\"";
        assert!(
            line(client).contains(" subject=painter session=s_"),
            "{shown}"
        );
        line("a\\u202e\\u200b\\u009b2J painted");
        let moves = |c: char| c.is_control() && c != '\n' || "\u{202e}\u{200b}".contains(c);
        assert!(!shown.contains(moves), "{shown:?}");
    }
    // For programs the entries are as they stand in the log.
    assert!(
        tail(&["-n", "200", "--json"])
            .await
            .contains("\u{202e}\u{200b}\u{9b}2J painted")
    );
}
