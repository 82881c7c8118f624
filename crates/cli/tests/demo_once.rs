//! The whole story, by the real program on a real PostgreSQL, and what it leaves behind: nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long processes of a killed demo may take to be gone: each stops by itself within 8 s.
const GONE: Duration = Duration::from_secs(20);

fn demo(home: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_curfew"));
    command
        .arg("demo")
        .env("HOME", home)
        .env("TMPDIR", home)
        .env("NO_COLOR", "1")
        .env_remove("XDG_CONFIG_HOME");
    command
}

/// A folder for the demo that the database's user can get into.
fn home() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let open = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(home.path(), open).unwrap();
    home
}

/// The folders of demos in `home`.
fn folders(home: &std::path::Path) -> Vec<String> {
    let names = home.read_dir().unwrap().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names
        .filter(|name| name.starts_with("curfew-demo-"))
        .collect()
}

/// Command lines of running processes that name `text`.
#[cfg(target_os = "linux")]
fn running(text: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(text))
        .collect()
}

#[test]
fn every_step_of_the_story_is_as_promised() {
    let home = home();
    let output = demo(home.path()).arg("--once").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    assert!(text.contains("16 steps as promised"), "{text}");
    assert_eq!(folders(home.path()), Vec::<String>::new());
}

/// kill -9 of the demo itself: its parts notice and go.
#[cfg(target_os = "linux")]
#[test]
fn a_killed_demo_leaves_nothing_running() {
    let home = home();
    let mut child = demo(home.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines
        .map_while(Result::ok)
        .find(|line| line.contains("configuration and policy"));
    assert!(ready.is_some(), "the demo did not print its page");
    let [folder] = &folders(home.path())[..] else {
        panic!("one folder")
    };
    assert!(
        running(folder).len() >= 3,
        "guard, database and gateway: {:?}",
        running(folder)
    );
    child.kill().unwrap();
    child.wait().unwrap();
    let end = Instant::now() + GONE;
    while !running(folder).is_empty() || !folders(home.path()).is_empty() {
        assert!(
            Instant::now() < end,
            "{:?} {:?}",
            running(folder),
            folders(home.path())
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}
