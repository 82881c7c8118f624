//! Drivers of other languages. Each runs a program of its own that lies beside this file; it says
//! READY, its session is ended, and it says what it saw.

use std::path::Path;

use tokio::process::Command;

use crate::stage::Stage;
use crate::tool::{Talk, found, left_out, run};

const JDBC: &str = "/usr/share/java/postgresql.jar";

/// Runs `command` as somebody new, ends their session once it is ready, and gives how it was cut
/// and refused.
async fn cut(name: &str, mut command: Command) -> (String, String) {
    let stage = Stage::get().await;
    let person = stage.person(name, "worker").await;
    command.envs(stage.through(&person));
    let mut talk = Talk::start(command);
    let ready = talk.line().await;
    assert!(ready.starts_with("READY "), "{ready}");
    eprintln!("{name}: {ready}");
    stage.end(&person.session).await;
    let cut = talk.line().await;
    let refused = talk.line().await;
    (cut, refused)
}

/// Runs a preparation; where it fails, for want of a network mostly, the test is left out.
async fn prepared(what: &str, command: Command) -> bool {
    let done = run(command, "").await;
    if !done.success {
        let last = done.err.trim().lines().last().unwrap_or_default();
        left_out(what, &format!("{what} cannot be installed here: {last}"));
    }
    done.success
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn psycopg_works_and_raises_admin_shutdown() {
    let Some(python) = found("python3") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut venv = Command::new(python);
    venv.args(["-m", "venv", "venv"]).current_dir(&folder);
    let mut pip = Command::new(folder.path().join("venv/bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"])
        .arg("psycopg[binary]>=3.1");
    if !prepared("a Python environment", venv).await || !prepared("psycopg", pip).await {
        return;
    }
    write(folder.path(), "work.py", include_str!("psycopg.py"));
    let mut work = Command::new(folder.path().join("venv/bin/python"));
    work.arg(folder.path().join("work.py"));
    let (cut, refused) = self::cut("psycopg", work).await;
    let wanted = "CUT 57P01 terminating connection because your session has ended True";
    assert_eq!(cut, wanted);
    assert!(refused.contains("your session has ended"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn node_postgres_works_and_hears_of_the_end() {
    let (Some(node), Some(npm)) = (found("node"), found("npm")) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "package.json", "{\"private\": true}");
    let mut install = Command::new(npm);
    install
        .args(["install", "--no-audit", "--no-fund", "pg@8"])
        .current_dir(&folder);
    if !prepared("node-postgres", install).await {
        return;
    }
    write(folder.path(), "work.js", include_str!("node.js"));
    let mut work = Command::new(node);
    work.arg("work.js").current_dir(&folder);
    let (cut, refused) = self::cut("node", work).await;
    assert_eq!(cut, "CUT 57P01 57P01 FATAL");
    assert!(refused.starts_with("REFUSED 28"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn jdbc_works_and_throws_the_right_state() {
    let Some(java) = found("java") else {
        return;
    };
    if !Path::new(JDBC).is_file() {
        return left_out("jdbc", "no JDBC driver for PostgreSQL on this machine");
    }
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "Jdbc.java", include_str!("Jdbc.java"));
    let mut work = Command::new(java);
    work.args(["-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", JDBC])
        .arg(folder.path().join("Jdbc.java"));
    let (cut, refused) = self::cut("jdbc", work).await;
    assert!(cut.starts_with("CUT 57P01 FATAL: "), "{cut}");
    assert!(refused.starts_with("REFUSED 28000 FATAL: "), "{refused}");
}
