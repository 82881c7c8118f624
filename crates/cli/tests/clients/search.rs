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
