//! `curfew log export --online`, as somebody who has signed in runs it.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::process::Command;

use crate::search::keep;
use crate::stage::{PORTAL, Stage};
use crate::tool::{Done, run};

async fn export(stage: &Stage, folder: &Path, arguments: &[&str]) -> Done {
    let mut command = Command::new(env!("CARGO_BIN_EXE_curfew"));
    command
        .env("XDG_CONFIG_HOME", folder)
        .args(["log", "export", "--server", &stage.url(PORTAL, "/")])
        .args(arguments);
    run(command, "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_exported_through_a_session() {
    let (stage, start) = (Stage::get().await, Instant::now());
    let folder = tempfile::tempdir().unwrap();
    let auditor = stage.person("exporter", "auditor").await;
    keep(folder.path(), stage, &auditor);
    // A second may go by before a checkpoint covers them.
    let shown = loop {
        let shown = export(stage, folder.path(), &["--format", "ocsf", "--to", "2"]).await;
        if !shown.err.contains("0 entries") {
            break shown;
        }
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "nothing is signed"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(
        shown.err.contains("2 entries as ocsf, from index 0"),
        "{shown:?}"
    );
    let shown = shown.ok();
    let lines: Vec<serde_json::Value> = shown
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].to_string().contains("log.opened"), "{shown}");

    let packed = folder.path().join("log.csv.gz");
    let out = packed.to_str().unwrap();
    let arguments = ["--format", "csv", "--to", "2", "--gzip", "--out", out];
    export(stage, folder.path(), &arguments).await.ok();
    let (mut plain, file) = (String::new(), std::fs::File::open(&packed).unwrap());
    let mut unpacked = flate2::read::GzDecoder::new(file);
    unpacked.read_to_string(&mut plain).unwrap();
    assert_eq!(plain.lines().count(), 3, "a head and two rows: {plain}");
    let again = export(stage, folder.path(), &arguments).await;
    assert!(
        !again.success && again.err.contains("is there already"),
        "{again:?}"
    );

    let odd = export(stage, folder.path(), &["--format", "csv", "--unsigned"]).await;
    assert!(
        !odd.success && odd.err.contains("cannot be used with"),
        "{odd:?}"
    );
    let odd = export(stage, folder.path(), &["--format", "parquet", "--gzip"]).await;
    assert!(
        !odd.success && odd.err.contains("packed already"),
        "{odd:?}"
    );

    let hidden = export(stage, folder.path(), &["--format", "csv", "--reveal"]).await;
    assert!(
        !hidden.success && hidden.err.contains("does not permit"),
        "an auditor may read the log, and not what it conceals: {hidden:?}"
    );
    assert_eq!(hidden.out, "");

    let other = tempfile::tempdir().unwrap();
    let worker = stage.person("leaker", "worker").await;
    keep(other.path(), stage, &worker);
    let refused = export(stage, other.path(), &["--format", "csv"]).await;
    assert!(
        !refused.success && refused.err.contains("does not permit"),
        "{refused:?}"
    );
    assert_eq!(refused.out, "");
}
