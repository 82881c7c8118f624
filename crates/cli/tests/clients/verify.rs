//! `curfew log verify URL`: the log that a portal serves, proven from afar.

use std::path::PathBuf;

use tokio::process::Command;

use crate::stage::{PORTAL, Stage};
use crate::tool::{Done, run};

async fn verify(stage: &Stage, token: &str, more: &[&str]) -> Done {
    let mut command = Command::new(env!("CARGO_BIN_EXE_curfew"));
    command
        .env("CURFEW_TOKEN", token)
        .args(["log", "verify", &stage.url(PORTAL, "/log/")])
        .arg("--key-file")
        .arg(stage.public_key())
        .args(more);
    run(command, "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_proven_from_afar_by_who_may_read_it() {
    let stage = Stage::get().await;
    let ca = stage.ca.to_str().unwrap();
    let auditor = stage.person("verifier", "auditor").await;
    let done = verify(stage, &auditor.bearer, &["--ca", ca]).await;
    // Of legitimacy nothing is asked: on a busy machine an end may come too late.
    let proven = "integrity   ✓ proven";
    assert!(done.out.contains(proven), "{done:?}");
    assert!(done.out.contains("origin      curfew.test/log"), "{done:?}");

    // The token as `curfew login` keeps it.
    let folder = tempfile::tempdir().unwrap();
    let kept: PathBuf = folder.path().join("kept.json");
    let saved = serde_json::json!({"server": "https://x/", "token": auditor.bearer, "ca": ca});
    std::fs::write(&kept, saved.to_string()).unwrap();
    let more = ["--ca", ca, "--token-file", kept.to_str().unwrap()];
    let done = verify(stage, "another", &more).await;
    assert!(done.out.contains(proven), "{done:?}");

    // Not by others, and not from a server that nobody vouches for.
    let worker = stage.person("verifier-not", "worker").await;
    let done = verify(stage, &worker.bearer, &["--ca", ca]).await;
    assert!(
        !done.success && done.out.contains("may not do `log.read`"),
        "{done:?}"
    );
    let done = verify(stage, "nonsense", &["--ca", ca]).await;
    assert!(
        !done.success && done.out.contains("the token is missing"),
        "{done:?}"
    );
    let done = verify(stage, &auditor.bearer, &[]).await;
    assert!(!done.success && done.out.contains("with --ca"), "{done:?}");
}
