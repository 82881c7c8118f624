//! A disk that is full or cannot be written, under the real program.

use std::path::Path;
use std::process::Command as Process;
use std::time::{Duration, Instant};

use curfew_authority::Event;

use crate::kit::Place;

/// A small file system of our own, for as long as this lives.
struct Small(tempfile::TempDir);

impl Small {
    /// None where we may not mount; the test says so and is left out.
    fn mount(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Process::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(dir.path())
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            eprintln!("left out: this user may not mount a file system");
        }
        mounted.then_some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Process::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Asks until the ledger has no room left, and gives the first refusal.
async fn fill(client: &reqwest::Client, place: &Place) -> reqwest::Response {
    let start = Instant::now();
    loop {
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "the disk never filled up"
        );
        // A long path fills the segment sooner.
        let url = place.url(&format!("/{}", "x".repeat(1_000)));
        let answers = (0..64).map(|_| client.post(&url).send());
        let answers = futures_util::future::join_all(answers).await;
        let mut answers = answers.into_iter().flatten();
        if let Some(refused) = answers.find(|answer| answer.status() != 200) {
            return refused;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_with_a_clear_text_and_recovers_without_a_restart() {
    let Some(small) = Small::mount("size=40m") else {
        return;
    };
    let place = Place::new(small.path()).await;
    let (_, bearer) = place.session("ana", "worker").await;
    let mut served = place.serve();
    let client = place.client(&bearer);
    assert_eq!(
        client
            .post(place.url("/before"))
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    let filler = small.path().join("filler");
    let _ = std::fs::write(&filler, vec![1; 40 << 20]);
    let refused = fill(&client, &place).await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    let text = refused.text().await.unwrap();
    assert!(text.contains("audit log"), "{text}");
    assert!(served.runs(), "it never dies of a full disk");
    std::fs::remove_file(&filler).unwrap();
    let start = Instant::now();
    while client
        .post(place.url("/after"))
        .send()
        .await
        .unwrap()
        .status()
        != 200
    {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "it does not recover"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let events = place.events();
    assert!(
        events
            .iter()
            .any(|event| matches!(event, Event::RecordingFailed { .. }))
    );
    assert!(
        events
            .iter()
            .any(|event| matches!(event, Event::RecordingResumed { .. }))
    );
    served.kill();
    drop(place.serve());
    let (whole, report) = place.verify();
    assert!(whole, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_cannot_be_written_is_named_at_the_start() {
    let Some(small) = Small::mount("size=40m") else {
        return;
    };
    let place = Place::new(small.path()).await;
    place.session("ana", "worker").await;
    let read_only = Process::new("mount")
        .args(["-o", "remount,ro"])
        .arg(small.path())
        .status()
        .unwrap();
    assert!(read_only.success());
    let said = place.refused();
    assert!(said.contains("Read-only file system"), "{said}");
}
